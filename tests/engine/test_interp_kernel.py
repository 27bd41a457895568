"""Random programs of arithmetic, branches, stack and map bytes: R0 and the map's bytes as the running kernel leaves them."""

from __future__ import annotations

import random
from struct import pack
from typing import Any

import pytest
from support.function_btf import btf_with_int_functions
from support.kernel import needs_kernel
from support.kernel_runs import Both, Refs, array_spec
from support.random_programs import MAP_BYTES, VALUES, random_program
from support.running import TCP_FRAME, ZERO64, loopback_skb, unproved

from netbpf.engine.interp.engine import InterpEngine
from netbpf.env import SteppedEnv
from netbpf.errors import ProgramRejected
from netbpf.host.linux.host import LinuxHost
from netbpf.isa.instruction import Instruction as I
from netbpf.maps.spec import MapSpec

pytestmark = needs_kernel

HASH, PROG_ARRAY = 1, 3
ZERO_SEED = 1 << 6  # so that both sides hash alike


@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_random_programs_end_as_in_the_kernel(first: int) -> None:
    ran = 0
    for seed in range(first, first + 100):
        try:
            both = Both(random_program(seed, 40), [array_spec(MAP_BYTES)])
        except ProgramRejected:
            continue  # a pointer became a number, and a jump or store with it was refused
        with both:
            inputs = random.Random(seed)
            for _ in range(8):
                words = (inputs.choice((inputs.choice(VALUES), inputs.getrandbits(64))) for _ in range(4))
                both.write(0, pack("<4Q", *words).ljust(MAP_BYTES, b"\0"))
                theirs, ours = both.run(ZERO64)
                assert ours == theirs, f"seed {seed}"
                assert len(set(both.read(0))) == 1, f"seed {seed}"
                ran += 1
    assert ran > 400, "most programs should be accepted"


# --- control --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("offset", [0, 57, 58, 5000])
def test_a_packet_load_outside_in_a_subprogram_returns_from_that_function_alone(offset: int) -> None:
    insns = (
        I(0xBF, 6, 1), I(0x85, 0, 1, imm=2), I(0x07, 0, imm=1000), I(0x95),
        I(0xBF, 6, 1), I(0x30, imm=offset), I(0x95),
    )  # fmt: skip
    with LinuxHost().process() as kernel:
        btf = kernel.btf_load(btf_with_int_functions())
        fd = kernel.prog_load(insns, btf_fd=btf, func_info=((0, 3), (4, 4)))
        theirs = kernel.prog_test_run(fd, TCP_FRAME).retval
    assert theirs >= 1000
    assert InterpEngine().load(unproved(insns), SteppedEnv(1)).run_one(loopback_skb(TCP_FRAME)) == theirs


def tail_call_code(refs: Refs, index: int) -> list[I]:
    return [*refs.map(2, 0), I(0xB7, 3, imm=index), I(0x85, imm=12)]


def test_33_tail_calls_are_made_and_failed_ones_do_not_count() -> None:
    """The program counts its runs in a value and calls itself; ``misses`` calls of an empty slot come first each time."""
    for misses in (0, 1, 40):

        def code(refs: Refs, misses: int = misses) -> list[I]:
            count = [I(0xBF, 6, 1), *refs.value(7, 1), I(0xB7, 1, imm=1), I(0xDB, 7, 1)]
            miss = [insn for _ in range(misses) for insn in (I(0xBF, 1, 6), *tail_call_code(refs, 1))]
            return [*count, *miss, I(0xBF, 1, 6), *tail_call_code(refs, 0), I(0x79, 0, 7), I(0x95)]

        with Both(code, [MapSpec(PROG_ARRAY, 4, 4, 2), array_spec(8)]) as both:
            both.kernel.map_update_elem(both.fds[0], bytes(4), both.prog_fd.to_bytes(4, "little"))
            programs: Any = both.live[0]
            programs.put(bytes(4), both.loaded.program)
            theirs, ours = both.run()
            assert ours == theirs == 34, misses


def test_tail_calls_in_functions_nest_as_deep_as_there_may_be_calls() -> None:
    """A function replaced by the program itself: each of the 33 adds a frame, 8 are the limit of one program alone."""

    def code(refs: Refs) -> list[I]:
        main = [I(0xBF, 6, 1), *refs.value(7, 1), I(0xB7, 1, imm=1), I(0xDB, 7, 1), I(0xBF, 1, 6), I(0x85, 0, 1, imm=2)]
        return [*main, I(0x07, 0, imm=1), I(0x95), *tail_call_code(refs, 0), I(0xB7, 0, imm=1000), I(0x95)]

    with Both(code, [MapSpec(PROG_ARRAY, 4, 4, 1), array_spec(8)], functions=((0, 3), (9, 4))) as both:
        both.kernel.map_update_elem(both.fds[0], bytes(4), both.prog_fd.to_bytes(4, "little"))
        programs: Any = both.live[0]
        programs.put(bytes(4), both.loaded.program)
        theirs, ours = both.run()
        assert ours == theirs == 1034


@pytest.mark.parametrize("kind", [2, PROG_ARRAY])
@pytest.mark.parametrize("entries", [1, 3, 8])
@pytest.mark.parametrize("at", [64, 68, 72, 76, 296, 300])
def test_what_a_pointer_to_an_array_points_to(kind: int, entries: int, at: int) -> None:
    """Sizes of struct bpf_map; of struct bpf_array, which is larger, the size of an element and the mask of indexes."""
    spec = MapSpec(kind, 4, 4 if kind == PROG_ARRAY else 12, entries)
    with Both(lambda refs: [*refs.map(1, 0), I(0x61, 0, 1, at), I(0x95)], [spec]) as both:
        theirs, ours = both.run()
        assert ours == theirs


def each_code(refs: Refs) -> list[I]:
    """bpf_for_each_map_elem over map 0; the callback appends its key to map 1's value and deletes every key that is odd."""
    callback = [
        I(0xBF, 6, 1), I(0xBF, 7, 2), I(0x61, 8, 2), *refs.value(9, 1), I(0x61, 1, 9), I(0x57, 1, imm=63), I(0xBF, 2, 1),
        I(0x67, 2, imm=2), I(0x0F, 2, 9), I(0x63, 2, 8, 4), I(0x07, 1, imm=1), I(0x63, 9, 1), I(0x57, 8, imm=1), I(0x15, 8, 0, 3),
        I(0xBF, 1, 6), I(0xBF, 2, 7), I(0x85, imm=3), I(0xB7, 0), I(0x95),
    ]  # fmt: skip
    main = [*refs.map(1, 0), I(0x18, 2, 4, 0, 5), I(0), I(0xB7, 3), I(0xB7, 4), I(0x85, imm=164), I(0x95)]
    return [*main, *callback]


def test_elements_are_visited_in_the_kernels_order_and_may_be_deleted() -> None:
    with Both(each_code, [MapSpec(HASH, 4, 8, 40, ZERO_SEED), array_spec(512)], functions=((0, 3), (8, 4))) as both:
        for i in range(20):
            key, value = (i * 7919).to_bytes(4, "little"), bytes(8)
            both.kernel.map_update_elem(both.fds[0], key, value)
            both.live[0].update(key, value)
        for _ in range(2):
            theirs, ours = both.run()
            assert ours == theirs
            assert len(set(both.read(1))) == 1
