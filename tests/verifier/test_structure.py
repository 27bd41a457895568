"""What is refused before the walk, and at its end for the stack: errno and words."""

from __future__ import annotations

import errno

import pytest
from support.verdicts import ARRAY, HASH, judge, reason

from netbpf.isa.instruction import Instruction as I
from netbpf.maps.spec import MapSpec
from netbpf.verifier.env import MapInfo
from netbpf.verifier.immediates import PUBLIC_OPCODES

EXIT = [I(0xB7), I(0x95)]
CALL_NEXT = I(0x85, 0, 1, 0, 0)

REFUSED = [
    ("bad destination", [I(0x85, 0, 1, 0, 100), *EXIT], "priv", errno.EINVAL, "call to invalid destination"),
    ("before the program", [I(0xB7), I(0x85, 0, 1, 0, -9), I(0x95)], "priv", errno.EINVAL, "call to invalid destination"),
    ("functions without CAP_BPF", [I(0x85, 0, 1, 0, 1), *EXIT, *EXIT], "unpriv", errno.EPERM, "loading/calling other bpf"),
    ("jump out of range", [I(0x05, 0, 0, 5), *EXIT], "priv", errno.EINVAL, "jump out of range from insn 0 to 6"),
    ("jump into another function", [I(0x15, 0, 0, 3), CALL_NEXT, I(0x95), I(0x95)], "priv", errno.EINVAL, "jump out of range"),
    ("falls off", [I(0xB7)], "priv", errno.EINVAL, "last insn is not an exit or jmp"),
    ("unreachable", [I(0x05, 0, 0, 1), I(0xB7), *EXIT], "priv", errno.EINVAL, "unreachable insn 1"),
    ("back edge", [I(0xB7), I(0x15, 0, 0, -2), I(0x95)], "unpriv", errno.EINVAL, "back-edge from insn 1 to 0"),
    ("half a wide load", [I(0x18)], "priv", errno.EINVAL, "last insn is not an exit or jmp"),
    ("second half", [I(0x18), I(0xB7), I(0x95)], "priv", errno.EINVAL, "invalid bpf_ld_imm64 insn"),
    (
        "into a wide load",
        [I(0x15, 1, 0, 1), I(0x18), I(0), *EXIT],
        "priv",
        errno.EINVAL,
        "jump into the middle of ldimm64 insn 1",
    ),
    ("unknown source", [I(0x18, 1, 7), I(0), *EXIT], "priv", errno.EINVAL, "unrecognized bpf_ld_imm64 insn"),
    ("no such descriptor", [I(0x18, 1, 1, 0, 77), I(0), *EXIT], "priv", errno.EBADF, "fd 77 is not pointing to valid bpf_map"),
    ("no array of descriptors", [I(0x18, 1, 5), I(0), *EXIT], "priv", errno.EPROTO, "fd_idx without fd_array is invalid"),
    ("ksym", [I(0x18, 1, 3, 0, 5), I(0), *EXIT], "priv", errno.EINVAL, "kernel is missing BTF"),
    ("kfunc", [I(0x85, 0, 2, 0, 5), *EXIT], "priv", 524, "calling kernel function is not supported"),
    ("kfunc 0 alive", [I(0x85, 0, 2), *EXIT], "priv", errno.EINVAL, "invalid kernel function call not eliminated"),
    ("opcode", [I(0xFF), *EXIT], "priv", errno.EINVAL, "unknown opcode ff"),
    ("load fields", [I(0x61, 0, 1, 0, 5), *EXIT], "priv", errno.EINVAL, "BPF_LDX uses reserved fields"),
    ("endless call", [I(0x85, 0, 1, 0, -1), *EXIT], "priv", errno.E2BIG, "the call stack of 9 frames is too deep"),
    ("ja fields", [I(0x05, 1, 0, 0), *EXIT], "priv", errno.EINVAL, "BPF_JA uses reserved fields"),
    ("call fields", [I(0x85, 0, 0, 1, 7), *EXIT], "priv", errno.EINVAL, "BPF_CALL uses reserved fields"),
    ("exit fields", [I(0xB7), I(0x95, 0, 0, 0, 1)], "priv", errno.EINVAL, "BPF_EXIT uses reserved fields"),
    ("st fields", [I(0x7A, 10, 1, -8), *EXIT], "priv", errno.EINVAL, "BPF_ST uses reserved fields"),
    ("stx fields", [I(0x7B, 10, 1, -8, 1), *EXIT], "priv", errno.EINVAL, "BPF_STX uses reserved fields"),
]


@pytest.mark.parametrize(("insns", "mode", "error", "text"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refusals(insns: list[I], mode: str, error: int, text: str) -> None:
    result = judge("", mode=mode, insns=tuple(insns))
    assert result.errno == error
    assert reason(result).startswith(text)
    assert text in result.log
    assert result.log.endswith("mark_read 0\n")


def test_a_kernel_function_0_may_be_dead() -> None:
    assert judge("", insns=(I(0xB7), I(0x15, 0, 0, 1), I(0x85, 0, 2), I(0x95))).errno == 0


def test_direct_values_need_an_array_of_one() -> None:
    for spec, off, error in (
        (HASH, 0, errno.EINVAL),
        (ARRAY, 48, 524),
        (MapSpec(2, 4, 48, 1), 47, 0),
        (MapSpec(2, 4, 48, 1), 48, 22),
    ):
        result = judge("", spec, insns=(I(0x18, 1, 6), I(0, imm=off), *EXIT))
        assert result.errno == error, spec


def test_at_most_64_maps() -> None:
    loads = [half for n in range(65) for half in (I(0x18, 1, 5, 0, n), I(0))]
    specs = [MapSpec(2, 4, 4, 1, name=f"m{n}") for n in range(65)]
    assert reason(judge("", *specs, insns=(*loads, *EXIT))) == "The total number of maps per program has reached the limit of 64"
    assert judge("", *specs, insns=(*loads[:-2], *EXIT)).errno == 0


def test_spin_locks_are_not_for_socket_filters() -> None:
    from netbpf.verifier.check import verify
    from netbpf.verifier.env import LoadRequest

    info = MapInfo(MapSpec(2, 4, 48, 1), btf_record={"spin_lock": 0})
    result = verify(LoadRequest((I(0x18, 1, 1, 0, 3), I(0), *EXIT), log_level=1, fd_maps={3: info}))
    assert (result.errno, reason(result)) == (errno.EINVAL, "socket filter progs cannot use bpf_spin_lock yet")


def _chain(depths: list[int]) -> tuple[I, ...]:
    """Functions that write at the bottom of a frame of that depth and call the next one."""
    insns: list[I] = []
    for i, depth in enumerate(depths):
        insns.append(I(0x7A, 10, 0, -depth))
        if i + 1 < len(depths):
            insns.append(I(0x85, 0, 1, 0, 2))
        insns += EXIT
    return tuple(insns)


@pytest.mark.parametrize(
    ("depths", "text"),
    [
        ([256, 128, 128], ""),
        ([256, 128, 136], "combined stack size of 3 calls is 528. Too large"),
        ([8] * 8, ""),
        ([8] * 9, "the call stack of 9 frames is too deep"),
    ],
)
def test_stack_of_a_call_chain(depths: list[int], text: str) -> None:
    assert reason(judge("", insns=_chain(depths))) == text


def test_opcodes_are_those_of_the_kernels_table() -> None:
    assert {0x00, 0x8C, 0xDF, 0xE6, 0x99 ^ 1, 0xFF}.isdisjoint(PUBLIC_OPCODES)
    assert {0x18, 0x20, 0x30, 0x61, 0x81, 0xC3, 0xDB, 0xD7, 0xE5, 0x06, 0x05, 0x85, 0x95, 0xCB, 0xD3} <= PUBLIC_OPCODES
