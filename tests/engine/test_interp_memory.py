"""Bounded memory: an access inside a region works, one outside is an EngineFault that names the instruction and explains."""

from __future__ import annotations

import pytest
from support.running import TCP_FRAME, loopback_skb, unproved

from netbpf.abi.maps import BPF_F_RDONLY_PROG
from netbpf.engine.interp import memory as memory_module
from netbpf.engine.interp.engine import InterpEngine, InterpLoaded
from netbpf.engine.interp.memory import AddressSpace, Fault
from netbpf.env import SteppedEnv
from netbpf.errors import EngineFault
from netbpf.isa.instruction import Instruction as I
from netbpf.isa.opcodes import BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE
from netbpf.maps.base import Map
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec

ARRAY, HASH = 2, 1
EXIT = I(0x95)


def load(*insns: I, maps: tuple[Map, ...] = ()) -> InterpLoaded:
    return InterpEngine().load(unproved(insns, maps), SteppedEnv(1))


def run(*insns: I, maps: tuple[Map, ...] = ()) -> int:
    return load(*insns, maps=maps).run_one(loopback_skb(TCP_FRAME))


def fault(*insns: I, maps: tuple[Map, ...] = ()) -> EngineFault:
    with pytest.raises(EngineFault) as caught:
        run(*insns, maps=maps)
    return caught.value


def value_of(index: int, reg: int = 2, offset: int = 0) -> tuple[I, I]:
    return I(0x18, reg, BPF_PSEUDO_MAP_IDX_VALUE, 0, index), I(0, imm=offset)


# --- the stack --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("off", [-512, -511, -8, -9])
def test_the_whole_frame_is_there_and_starts_as_zeroes(off: int) -> None:
    assert run(I(0x79, 0, 10, off), EXIT) == 0
    assert run(I(0xB7, 1, imm=-2), I(0x7B, 10, 1, off), I(0x79, 0, 10, off), EXIT) == 2**64 - 2


@pytest.mark.parametrize(
    ("off", "words"),
    [
        (0, "offset 512 of stack frame 0 (512 bytes), 8 bytes past its end"),
        (-7, "offset 505 of stack frame 0 (512 bytes), 1 bytes past its end"),
        (-513, "1 bytes before stack frame 0 (512 bytes)"),
        (-516, "4 bytes before stack frame 0 (512 bytes)"),
        (32767, "32767 bytes"),
    ],
)
@pytest.mark.parametrize("code", [0x79, 0x7B, 0x7A, 0xDB])
def test_beside_the_frame_there_is_nothing(code: int, off: int, words: str) -> None:
    insn = I(code, 0, 10, off) if code == 0x79 else I(code, 10, 0, off)
    found = fault(I(0xB7, 0), insn, EXIT)
    assert found.pc == 1
    assert found.insn_text.startswith(f"({code:02x}) ")
    assert found.address is not None
    assert words.replace("32767 bytes", "past its end") in str(found)
    assert str(found).startswith(
        f"insn 1 ({found.insn_text}): {'read' if code == 0x79 else 'write' if code != 0xDB else 'atomic'}"
    )


def test_a_frame_is_fresh_in_every_run_and_every_call() -> None:
    dirty = (I(0x79, 0, 10, -8), I(0xB7, 1, imm=7), I(0x7B, 10, 1, -8))
    loaded = load(*dirty, EXIT)
    assert [loaded.run_one(loopback_skb(TCP_FRAME)) for _ in range(2)] == [0, 0]
    main = (I(0x85, 0, 1, imm=3), I(0xBF, 6, 0), I(0x85, 0, 1, imm=1), EXIT)
    assert run(*main, *dirty, EXIT) == 0


def test_a_callee_writes_to_its_callers_frame_and_not_beside_it() -> None:
    main = (I(0x7A, 10, 0, -8, 1), I(0xBF, 1, 10), I(0x07, 1, imm=-8), I(0x85, 0, 1, imm=2), I(0x79, 0, 10, -8), EXIT)
    assert run(*main, I(0x7A, 1, 0, 0, 42), EXIT) == 42
    assert "8 bytes past its end" in str(fault(*main, I(0x7A, 1, 0, 8, 42), EXIT))


# --- map values ---------------------------------------------------------------------------------------------------------
def test_a_value_is_bounded_although_its_neighbours_are_in_the_same_memory() -> None:
    live = create(MapSpec(ARRAY, 4, 12, 4, 0, "counts"))
    live.memory[16:28] = b"neighbour---"
    assert run(*value_of(0), I(0x62, 2, 0, 8, 5), I(0x61, 0, 2, 8), EXIT, maps=(live,)) == 5
    found = fault(*value_of(0), I(0x79, 0, 2, 8), EXIT, maps=(live,))
    assert "offset 8 of a value of map 'counts' (12 bytes), 4 bytes past its end" in str(found)
    assert "offset 16 of a value of map 'counts'" in str(fault(*value_of(0), I(0x71, 0, 2, 16), EXIT, maps=(live,)))
    before = fault(*value_of(0), I(0x71, 0, 2, -1), EXIT, maps=(live,))
    assert "1 bytes before a value of map 'counts' (12 bytes)" in str(before)


def lookup(key: int, *then: I) -> tuple[I, ...]:
    return (
        I(0x62, 10, 0, -4, key), I(0xBF, 2, 10), I(0x07, 2, imm=-4), I(0x18, 1, BPF_PSEUDO_MAP_IDX), I(0), I(0x85, imm=1),
        *then, EXIT,
    )  # fmt: skip


def test_an_unchecked_lookup_faults_as_a_null_pointer() -> None:
    live = create(MapSpec(HASH, 4, 8, 4, 0, "h"))
    assert "a NULL pointer plus 4" in str(fault(*lookup(1, I(0x61, 0, 0, 4)), maps=(live,)))
    assert "a NULL pointer" in str(fault(*lookup(1, I(0x61, 0, 0, 0)), maps=(live,)))
    live.update(bytes([1, 0, 0, 0]), bytes([9] * 8))
    assert run(*lookup(1, I(0x61, 0, 0, 4)), maps=(live,)) == 0x09090909


def test_values_are_found_again_after_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "MAX_CACHED_VALUES", 4)
    live = create(MapSpec(ARRAY, 4, 8, 100))
    loads: list[I] = [*lookup(0)[:-1], I(0xBF, 6, 0)]
    for i in range(1, 20):
        loads += [*lookup(i)[:-1], I(0x7A, 0, 0, 0, i)]
    assert run(*loads, I(0x7A, 6, 0, 0, 77), I(0x79, 0, 6), EXIT, maps=(live,)) == 77
    assert [int.from_bytes(live.memory[8 * i : 8 * i + 8], "little") for i in range(20)] == [77, *range(1, 20)]


def test_read_only_values_cannot_be_written() -> None:
    live = create(MapSpec(ARRAY, 4, 8, 1, BPF_F_RDONLY_PROG, "rodata"))
    live.memory[0] = 5
    assert run(*value_of(0), I(0x71, 0, 2), EXIT, maps=(live,)) == 5
    for insn in (I(0x72, 2), I(0x73, 2, 0), I(0xC3, 2, 0)):
        assert "of map 'rodata' (8 bytes) is read-only" in str(fault(*value_of(0), I(0xB7, 0), insn, EXIT, maps=(live,)))


def test_a_map_pointer_shows_sizes_and_nothing_can_be_written_there() -> None:
    live = create(MapSpec(HASH, 4, 16, 9, 0, "h"))
    pointer = (I(0x18, 2, BPF_PSEUDO_MAP_IDX), I(0))
    sizes = [run(*pointer, I(0x61, 0, 2, off), EXIT, maps=(live,)) for off in (64, 68, 72, 76)]
    assert sizes == [HASH, 4, 16, 9]
    assert "struct bpf_map of 'h'" in str(fault(*pointer, I(0x62, 2), EXIT, maps=(live,)))


# --- helpers touch memory by the same rules -----------------------------------------------------------------------------
def test_a_helper_that_reads_past_a_region_faults_at_the_call() -> None:
    live = create(MapSpec(HASH, 8, 8, 4, 0, "h"))
    found = fault(*lookup(1), maps=(live,))  # 4 bytes of stack for a key of 8
    assert (found.pc, found.insn_text) == (5, "(85) call bpf_map_lookup_elem#1")
    assert "read of 8 bytes" in str(found)
    assert "4 bytes past its end" in str(found)


def test_what_is_no_map_is_no_argument() -> None:
    found = fault(I(0xBF, 2, 10), I(0x85, imm=1), EXIT)
    assert "is not the address of a map" in str(found)


# --- the context ----------------------------------------------------------------------------------------------------------
def test_only_fields_that_programs_may_touch_are_there() -> None:
    skb = loopback_skb(TCP_FRAME)
    assert load(I(0x61, 0, 1), EXIT).run_one(skb) == skb.len
    assert "offset 76 of the context: no field of __sk_buff that programs may read" in str(fault(I(0x61, 0, 1, 76), EXIT))
    assert "field 'mark' is read-only" in str(fault(I(0x62, 1, 0, 8), EXIT))
    assert "offset 192 of the context" in str(fault(I(0x61, 0, 1, 192), EXIT))
    assert "where only loads and stores of single fields go" in str(fault(I(0xDB, 1, 0, 48), EXIT))
    loaded = load(I(0x7A, 1, 0, 48, 0x01020304), I(0x69, 0, 1, 50), EXIT)
    assert loaded.run_one(skb) == 0x0102
    assert skb.cb[:8] == bytes([4, 3, 2, 1, 0, 0, 0, 0])


def test_direct_packet_access_ends_with_the_packet() -> None:
    def packet_program(off: int) -> InterpLoaded:
        insns = (I(0x61, 2, 1, 76), I(0x61, 3, 1, 80), I(0x71, 0, 2, off), EXIT)
        return InterpEngine().load(unproved(insns, (), "sched_cls"), SteppedEnv(1))

    skb = loopback_skb(TCP_FRAME, is_l2=True)
    assert packet_program(14).run_one(skb) == 0x45
    with pytest.raises(EngineFault, match=r"offset 72 of the packet \(72 bytes\), 1 bytes past its end"):
        packet_program(72).run_one(skb)


# --- addresses ------------------------------------------------------------------------------------------------------------
def test_an_address_that_wraps_around_is_the_address_it_wraps_to() -> None:
    insns = (I(0xBF, 2, 10), I(0xB7, 3, imm=-1), I(0x77, 3, imm=1), I(0x07, 3, imm=1), I(0x0F, 2, 3), I(0x0F, 2, 3))
    assert run(I(0x7A, 10, 0, -8, 3), *insns, I(0x79, 0, 2, -8), EXIT) == 3
    assert "no region has this address" in str(fault(I(0xB7, 2, imm=-1), I(0x71, 0, 2), EXIT))
    assert run(I(0x7A, 10, 0, -8, 3), I(0xBF, 2, 10), I(0x17, 2, imm=32), I(0x79, 0, 2, 24), EXIT) == 3


def test_regions_do_not_touch() -> None:
    space = AddressSpace()
    first, second = space.add("first", bytearray(8)), space.add("second", bytearray(8))
    for address in (first - 1, first + 8, second - 1, second + 8, (first + second) // 2):
        with pytest.raises(Fault):
            space.load(address, 1)
    space.drop(first)
    with pytest.raises(Fault, match="no region"):
        space.load(first, 1)


def test_an_endless_unproved_program_ends_in_a_fault() -> None:
    loaded = InterpEngine(insn_limit=1000).load(unproved((I(0x05, off=-1), EXIT)), SteppedEnv(1))
    for _ in range(2):
        with pytest.raises(EngineFault, match=r"insn 0 \(\(05\) goto pc-1\): the instruction limit for this run is used up"):
            loaded.run_one(loopback_skb(TCP_FRAME))


def test_a_program_that_runs_past_its_end_faults() -> None:
    assert "runs past its last instruction" in str(fault(I(0xB7)))
    assert "call stack of 8 frames" in str(fault(I(0x85, 0, 1, imm=-1), EXIT))


def test_packet_loads_need_the_context_in_r6() -> None:
    assert "a packet load needs the context in R6, which holds 0x0" in str(fault(I(0x30), EXIT))
