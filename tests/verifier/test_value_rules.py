"""Rules of arithmetic and branches as whole programs: what is refused, in which words, and what the log then shows.

Every expectation was taken from Linux 6.18; `test_kernel_logs` asks the running one.
"""

from __future__ import annotations

import pytest

from netbpf.isa.instruction import Instruction
from netbpf.verifier.check import verify
from netbpf.verifier.env import LoadRequest, Privileges

Insn = tuple[int, ...]
RANDOM: Insn = (0x85, 0, 0, 0, 7)
EXIT: Insn = (0x95,)
RET0: Insn = (0xB7, 0, 0, 0, 0)
SKB_LEN: Insn = (0x61, 2, 1, 0, 0)  # r2 = skb->len
PRIVILEGES = {"priv": Privileges(), "capbpf": Privileges.from_caps(True, False), "unpriv": Privileges.from_caps(False, False)}


def run(insns: list[Insn], privilege: str = "priv", level: int = 2, flags: int = 0) -> tuple[int, list[str]]:
    program = tuple(Instruction(*i) for i in insns)
    result = verify(LoadRequest(program, log_level=level, prog_flags=flags, privileges=PRIVILEGES[privilege]))
    return result.errno, result.log.splitlines()


REFUSED: list[tuple[str, list[Insn], str, int, str]] = [
    ("read", [(0xBF, 0, 3), EXIT], "priv", 13, "R3 !read_ok"),
    ("write fp", [(0xB7, 10, 0, 0, 1), RET0, EXIT], "priv", 13, "frame pointer is read only"),
    ("no register", [(0xB7, 11, 0, 0, 1), RET0, EXIT], "priv", 22, "R11 is invalid"),
    ("div 0", [RET0, (0x37, 0, 0, 0, 0), EXIT], "priv", 22, "div by zero"),
    ("shift 64", [RET0, (0x67, 0, 0, 0, 64), EXIT], "priv", 22, "invalid shift 64"),
    ("shift32 32", [RET0, (0x64, 0, 0, 0, 32), EXIT], "priv", 22, "invalid shift 32"),
    ("neg src", [RET0, (0x87, 0, 1), EXIT], "priv", 22, "BPF_NEG uses reserved fields"),
    ("end 8", [RET0, (0xD4, 0, 0, 0, 8), EXIT], "priv", 22, "BPF_END uses reserved fields"),
    ("mov off", [RET0, (0xBF, 0, 1, 4), EXIT], "priv", 22, "BPF_MOV uses reserved fields"),
    ("add off", [RET0, (0x07, 0, 0, 1, 1), EXIT], "priv", 22, "BPF_ALU uses reserved fields"),
    ("ctx * 2", [(0x27, 1, 0, 0, 2), RET0, EXIT], "priv", 13, "R1 pointer arithmetic with *= operator prohibited"),
    ("ctx & 1", [(0x57, 1, 0, 0, 1), RET0, EXIT], "priv", 13, "R1 bitwise operator &= on pointer prohibited"),
    ("fp - 8", [(0xBF, 2, 10), (0x17, 2, 0, 0, 8), RET0, EXIT], "priv", 13, "R2 subtraction from stack pointer prohibited"),
    ("1 - fp", [(0xB7, 2, 0, 0, 1), (0x1F, 2, 10), RET0, EXIT], "priv", 13, "R2 tried to subtract pointer from scalar"),
    ("ctx + ctx", [(0x0F, 1, 1), RET0, EXIT], "priv", 13, "R1 pointer += pointer prohibited"),
    ("ctx - ctx", [(0x1F, 1, 1), RET0, EXIT], "capbpf", 13, "R1 pointer -= pointer prohibited"),
    ("w1 += 1", [(0x04, 1, 0, 0, 1), RET0, EXIT], "priv", 13, "R1 32-bit pointer arithmetic prohibited"),
    ("ctx + 2^29", [(0x07, 1, 0, 0, 1 << 29), RET0, EXIT], "priv", 22, "math between ctx pointer and 536870912 is not allowed"),
    (
        *("ctx + any", [(0xBF, 6, 1), RANDOM, (0x0F, 6, 0), RET0, EXIT], "priv", 22),
        "math between ctx pointer and register with unbounded min value is not allowed",
    ),
    ("partial ctx", [(0xBC, 0, 1), EXIT], "unpriv", 13, "R1 partial copy of pointer"),
    ("neg ctx", [(0x87, 1), RET0, EXIT], "unpriv", 13, "R1 pointer arithmetic prohibited"),
    ("compare ctx", [(0x15, 1, 0, 0, 0), RET0, EXIT], "unpriv", 13, "R1 pointer comparison prohibited"),
    ("jump imm", [RET0, (0x1D, 0, 0, 0, 1), EXIT], "priv", 22, "BPF_JMP/JMP32 uses reserved fields"),
    (
        *("fp + r", [SKB_LEN, (0x57, 2, 0, 0, 8), (0xBF, 3, 10), (0x07, 3, 0, 0, -16), (0x0F, 3, 2), RET0, EXIT], "unpriv", 13),
        "R3 variable stack access prohibited for !root, var_off=(0x0; 0x8) off=-16",
    ),
    (
        *("fp + 8", [(0xBF, 3, 10), (0x07, 3, 0, 0, 8), RET0, EXIT], "unpriv", 13),
        "R3 stack pointer arithmetic goes out of range, prohibited for !root; off=8",
    ),
    (
        *("ctx + r", [SKB_LEN, (0x57, 2, 0, 0, 8), (0x0F, 1, 2), RET0, EXIT], "unpriv", 13),
        "R1 has pointer with unsupported alu operation, pointer arithmetic with it prohibited for !root",
    ),
]


@pytest.mark.parametrize(("insns", "privilege", "errno", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(insns: list[Insn], privilege: str, errno: int, reason: str) -> None:
    got, lines = run(insns, privilege)
    assert (got, lines[-2]) == (errno, reason)


def test_copies_are_linked_and_learn_together() -> None:
    """r1 = r0; r1 -= 5; a bound on r0 bounds r1."""
    errno, lines = run(
        [RANDOM, (0xBF, 1, 0), (0x17, 1, 0, 0, 5), (0x25, 0, 0, 3, 100), (0xBF, 0, 1), (0x07, 0, 0, 0, 5), EXIT, RET0, EXIT]
    )
    assert errno == 0
    assert "2: (17) r1 -= 5                       ; R1=scalar(id=1-5)" in lines
    moved = "smin=smin32=-5,smax=smax32=95"
    assert f"4: (bf) r0 = r1                       ; R0=scalar(id=2,{moved}) R1=scalar(id=2,{moved})" in lines


def test_a_mask_of_a_sign_is_walked_twice() -> None:
    errno, lines = run([RANDOM, (0xC7, 0, 0, 0, 63), (0x57, 0, 0, 0, 8), RET0, EXIT])
    assert errno == 0
    assert "2: (57) r0 &= 8                       ; R0=8" in lines
    assert "from 2 to 2: R0=0 R10=fp0" in lines


def test_byte_swaps_keep_known_bits() -> None:
    _, lines = run([RANDOM, (0x57, 0, 0, 0, 0xFF), (0xDC, 0, 0, 0, 16), RET0, EXIT])
    assert (
        "2: (dc) r0 = be16 r0                  ; R0=scalar(smin=smin32=0,smax=umax=smax32=umax32=0xff00,var_off=(0x0; 0xff00))"
        in lines
    )


def test_impossible_bounds_are_told() -> None:
    """w0 >= w0 refines one register by itself; with TEST_REG_INVARIANTS that ends the verification."""
    program = [RANDOM, (0x57, 0, 0, 0, 1), (0x3E, 0, 0, 1), RET0, RET0, EXIT]
    told = (
        "verifier bug: REG INVARIANTS VIOLATION (false_reg1): range bounds violation u64=[0x0, 0x1] s64=[0x0, 0x1] "
        "u32=[0x1, 0x0] s32=[0x0, 0x1] var_off=(0x0, 0x1)"
    )
    assert run(program, flags=128)[0] == 14
    errno, lines = run(program)
    assert errno == 0
    assert told in lines


def test_unprivileged_scalars_are_precise() -> None:
    _, lines = run([(0xB7, 0, 0, 0, 1), EXIT], "unpriv")
    assert "0: (b7) r0 = 1                        ; R0=P1" in lines


def test_a_decided_branch_is_mispredicted_too() -> None:
    program = [RET0, (0x15, 0, 0, 1, 0), (0xBF, 0, 10), EXIT]
    assert run(program, "unpriv", 1)[0] == 0
    assert any("(speculative execution)" in line for line in run(program, "unpriv", 2)[1])
    assert not any("(speculative execution)" in line for line in run(program, "priv", 2)[1])
