"""Every map kind of a socket filter under random operations of a program: both engines give the same and leave the same bytes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from support.engines import CHECKED, INTERP, NATIVE, run_loaded
from support.programs_of import loaded_program

from netbpf.abi.map_structs import STRUCT_OF_MAP, STRUCTS
from netbpf.env import SteppedEnv
from netbpf.errors import ProgramRejected
from netbpf.maps.create import create
from netbpf.maps.handle import MAP_STRUCT_BYTES
from netbpf.maps.perf_buffer import PerfBuffer
from netbpf.packet.skbuff import SkBuff

OPS_AT, KEY_AT, VALUE_AT = 0, 4, 40
PROLOGUE = """
    r6 = r1
    r0 = *(u8 *)skb[0]
    r7 = r0
    r1 = r6
    r2 = 4
    r3 = r10
    r3 += -32
    r4 = 32
    call bpf_skb_load_bytes
    r1 = r6
    r2 = 40
    r3 = r10
    r3 += -96
    r4 = 64
    call bpf_skb_load_bytes
    r1 = map[m]
    r2 = r10
    r2 += -32
    r3 = r10
    r3 += -96
"""
KEYED = """
    if r7 == 1 goto any
    if r7 == 2 goto noexist
    if r7 == 3 goto exist
    if r7 == 4 goto delete
    if r7 == 5 goto wrong
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = *(u8 *)(r0 + 0)
    r2 = 3
    {touch}
    r0 = r1
    r0 += 1000
    exit
any:
    r4 = 0
    call bpf_map_update_elem
    exit
noexist:
    r4 = 1
    call bpf_map_update_elem
    exit
exist:
    r4 = 2
    call bpf_map_update_elem
    exit
wrong:
    r4 = 8
    call bpf_map_update_elem
    exit
delete:
    call bpf_map_delete_elem
out:
    exit
"""
QUEUED = """
    r2 = r3
    r3 = 0
    if r7 == 1 goto push
    if r7 == 2 goto peek
    if r7 == 3 goto force
    call bpf_map_pop_elem
    goto told
push:
    call bpf_map_push_elem
    exit
force:
    r3 = 2
    call bpf_map_push_elem
    exit
peek:
    call bpf_map_peek_elem
told:
    if r0 != 0 goto out
    r0 = *(u8 *)(r10 - 96)
    r0 += 1000
out:
    exit
"""
RING = """
    r2 = r3
    r3 = 40
    r4 = 0
    if r7 == 1 goto output
    if r7 == 2 goto submit
    if r7 == 3 goto query
    r2 = 24
    r3 = 0
    call bpf_ringbuf_reserve
    if r0 == 0 goto out
    r1 = r0
    r2 = 0
    call bpf_ringbuf_discard
    r0 = 5
    exit
submit:
    r2 = 24
    r3 = 0
    call bpf_ringbuf_reserve
    if r0 == 0 goto out
    r2 = *(u64 *)(r10 - 96)
    *(u64 *)(r0 + 16) = r2
    r1 = r0
    r2 = 0
    call bpf_ringbuf_submit
    r0 = 6
    exit
query:
    r2 = 0
    call bpf_ringbuf_query
    exit
output:
    call bpf_ringbuf_output
out:
    exit
"""
BLOOM = """
    r2 = r3
    if r7 < 3 goto push
    call bpf_map_peek_elem
    exit
push:
    r3 = 0
    call bpf_map_push_elem
    exit
"""
KEYED_KINDS = [
    "hash key=4 value=8 entries=6", "hash key=16 value=16 entries=9", "hash key=5 value=3 entries=4",
    "hash key=13 value=21 entries=7",
    "hash key=1 value=64 entries=3", "hash key=8 value=40 entries=8 flags=1", "hash key=24 value=8 entries=5 flags=64",
    "array key=4 value=8 entries=5", "array key=4 value=3 entries=4", "percpu_array key=4 value=12 entries=5",
    "percpu_hash key=4 value=8 entries=6", "percpu_hash key=7 value=5 entries=4",
    "lru_hash key=4 value=8 entries=6", "lru_hash key=6 value=9 entries=20", "lru_hash key=4 value=8 entries=10 flags=2",
    "lru_percpu_hash key=4 value=8 entries=6", "lpm_trie key=8 value=4 entries=12 flags=1",
]  # fmt: skip


def packets(rng: random.Random, count: int, keys: int) -> list[SkBuff]:
    """Packets that say which operation, which of a few keys, which value."""
    out = []
    for _ in range(count):
        pick = rng.randrange(keys)
        key = pick.to_bytes(4, "little") + bytes([pick * 7 & 0xFF] * 28)
        head = bytes([rng.randrange(6), 0, 0, 0]) + key + bytes(4) + rng.randbytes(64)
        out.append(SkBuff(head=head, len=len(head)))
    return out


def many_keys(rng: random.Random, count: int, keys: int) -> list[SkBuff]:
    """Packets with keys enough to fill a table and to turn it over, lookups being most frequent."""
    out = []
    for _ in range(count):
        key = int(keys * rng.random() ** 2).to_bytes(4, "little") + bytes(28)
        head = bytes([rng.choice((0, 0, 0, 1, 1, 1, 2, 3, 4)), 0, 0, 0]) + key + bytes(4) + rng.randbytes(64)
        out.append(SkBuff(head=head, len=len(head)))
    return out


def prefixes(rng: random.Random, count: int) -> list[SkBuff]:
    """Packets with keys of a trie that begin alike."""
    out = []
    for _ in range(count):
        data = bytes([rng.choice((10, 10, 10, 11, 192)), rng.choice((0, 0, 128, 129)), rng.choice((0, 255)), rng.randrange(4)])
        key = rng.choice((0, 1, 7, 8, 9, 16, 17, 24, 31, 32, 33)).to_bytes(4, "little") + data
        head = bytes([rng.choice((0, 0, 1, 1, 1, 2, 3, 4, 5)), 0, 0, 0]) + key + bytes(28) + rng.randbytes(64)
        out.append(SkBuff(head=head, len=len(head)))
    return out


def on_cpus(text: str, skbs: list[SkBuff], n_cpus: int) -> None:
    """Both engines on maps for several CPUs, each packet on a CPU of its own choice."""
    outcomes = []
    for engine in (INTERP, NATIVE):
        program = loaded_program(text)
        program = program._replace(maps=tuple(create(m.spec, n_cpus=n_cpus) for m in program.maps))
        env, rng = SteppedEnv(), random.Random(9)
        loaded, found = engine.load(program, env), []
        for skb in skbs:
            env.cpu = rng.randrange(n_cpus)
            found.append((loaded.run_one(replace(skb)), bytes(program.maps[0].memory)))
        outcomes.append(found)
    for n, (a, b) in enumerate(zip(*outcomes, strict=True)):
        assert a == b, f"packet {n}: operation {skbs[n].head[0]}"


def agree(text: str, skbs: list[SkBuff], engines: tuple[Any, ...] = (NATIVE, CHECKED)) -> None:
    want = run_loaded(INTERP.load, loaded_program(text), skbs)
    assert len({o.r0 for o in want}) > 1
    for engine in engines:
        got = run_loaded(engine.load, loaded_program(text), skbs)
        for n, (a, b) in enumerate(zip(want, got, strict=True)):
            assert b._replace(maps=()) == a._replace(maps=()), f"packet {n}: operation {skbs[n].head[0]}"
            assert b.maps == a.maps, f"packet {n}: operation {skbs[n].head[0]} leaves other bytes"


@pytest.mark.parametrize("kind", KEYED_KINDS)
def test_keyed_kinds(kind: str) -> None:
    touch = "lock *(u64 *)(r0 + 0) += r2" if "value=8" in kind else "*(u8 *)(r0 + 1) = r2"
    agree(f".map m {kind}\n" + PROLOGUE + KEYED.format(touch=touch), packets(random.Random(kind), 250, 14))


LARGER_LRU = [
    "lru_hash key=4 value=8 entries=60", "lru_hash key=4 value=8 entries=600", "lru_hash key=4 value=8 entries=30 flags=2",
    "lru_percpu_hash key=4 value=8 entries=40",
]  # fmt: skip


@pytest.mark.parametrize("kind", LARGER_LRU)
def test_an_lru_table_that_turns_over(kind: str) -> None:
    text = f".map m {kind}\n" + PROLOGUE + KEYED.format(touch="*(u8 *)(r0 + 1) = r2")
    skbs = many_keys(random.Random(kind), 1500, 1500)
    agree(text, skbs, (NATIVE,))
    on_cpus(text, skbs[:700], 3)


def test_a_trie_of_nested_prefixes() -> None:
    text = ".map m lpm_trie key=8 value=8 entries=14 flags=1\n" + PROLOGUE + KEYED.format(touch="*(u8 *)(r0 + 1) = r2")
    agree(text, prefixes(random.Random(7), 1500))


@pytest.mark.parametrize("kind", ["hash key=4 value=8 entries=9", "percpu_hash key=4 value=5 entries=9"])
def test_tables_on_several_cpus(kind: str) -> None:
    on_cpus(f".map m {kind}\n" + PROLOGUE + KEYED.format(touch="*(u8 *)(r0 + 1) = r2"), packets(random.Random(kind), 300, 14), 3)


@pytest.mark.parametrize("kind", ["queue value=12 entries=5", "stack value=8 entries=4"])
def test_queues_and_stacks(kind: str) -> None:
    agree(f".map m {kind}\n" + PROLOGUE + QUEUED, packets(random.Random(kind), 120, 5))


def test_ring_buffer() -> None:
    agree(".map m ringbuf entries=4096\n" + PROLOGUE + RING, packets(random.Random(3), 200, 5))


def test_bloom_filter() -> None:
    skbs = packets(random.Random(4), 120, 5)
    for skb in skbs:
        skb.head = skb.head[:40] + bytes([skb.head[40] & 7]) + bytes(63)
    agree(".map m bloom_filter value=8 entries=6\n" + PROLOGUE + BLOOM, skbs)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 11, 12, 13, 15, 24, 33])
def test_bloom_filters_hash_values_of_any_size(size: int) -> None:
    skbs = packets(random.Random(size), 60, 5)
    for skb in skbs:
        skb.head = skb.head[:40] + bytes([skb.head[40] & 31]) * size + bytes(64 - size)
    agree(f".map m bloom_filter value={size} entries=6\n" + PROLOGUE + BLOOM, skbs)


def test_perf_buffers_fill_and_tell_what_they_lost() -> None:
    text = """
    .map m perf_event_array key=4 value=4 entries=2
        r6 = r1
        r0 = *(u8 *)skb[0]
        r7 = r0
        r1 = r6
        r2 = 40
        r3 = r10
        r3 += -96
        r4 = 64
        call bpf_skb_load_bytes
        r3 = 0xffffffff
        if r7 == 1 goto current
        r3 = 0x500000000
        if r7 == 2 goto current
        r3 = 0x6400000000
        if r7 == 3 goto current
        r3 = 1
        if r7 == 4 goto current
        r3 = 2
    current:
        r1 = r6
        r2 = map[m]
        r4 = r10
        r4 += -96
        r5 = 27
        call bpf_perf_event_output
        exit
    """
    outcomes = []
    for engine in (INTERP, NATIVE, CHECKED):
        program, found = loaded_program(text), []
        buffers = [PerfBuffer(0, 1, 77), PerfBuffer(1, 1, 78)]
        live: Any = program.maps[0]
        for index, buffer in enumerate(buffers):
            live.put(index.to_bytes(4, "little"), buffer)
        loaded = engine.load(program, SteppedEnv())
        for n, skb in enumerate(packets(random.Random(6), 400, 3)):
            found.append((loaded.run_one(skb), *(bytes(b.memory) for b in buffers)))
            if n % 170 == 169:
                buffers[0].consume()
        outcomes.append(found)
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("index", [1, 9])
def test_an_array_refuses_flags_in_the_kernels_order(index: int, flags: int) -> None:
    text = f"""
    .map m array key=4 value=8 entries=4
        *(u64 *)(r10 - 8) = {index}
        r1 = map[m]
        r2 = r10
        r2 += -8
        r3 = r2
        r4 = {flags}
        call bpf_map_update_elem
        exit
    """
    skb = SkBuff(head=bytes(20), len=20)
    want, got = (run_loaded(engine.load, loaded_program(text), [skb]) for engine in (INTERP, NATIVE))
    assert got == want


# --- map pointers -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("at", [64, 76, 256, 300])
@pytest.mark.parametrize("kind", ["array key=4 value=8", "hash key=4 value=8", "prog_array key=4 value=4"])
def test_what_a_kind_keeps_in_and_behind_struct_bpf_map_may_be_read(kind: str, at: int) -> None:
    text = f".map m {kind} entries=2\nr1 = map[m]\nr0 = *(u8 *)(r1 + {at})\nexit\n"
    try:
        programs = [loaded_program(text) for _ in range(3)]
    except ProgramRejected:
        assert at == 300, "a table has pointers there"
        return
    skbs, engines = [SkBuff(bytes(60), 60)], (INTERP, NATIVE, CHECKED)
    want, *others = (run_loaded(e.load, p, skbs) for e, p in zip(engines, programs, strict=True))
    assert isinstance(want[0].r0, int)
    assert others == [want, want]


def test_what_a_map_pointer_points_to_is_as_long_as_the_verifier_allows() -> None:
    sizes = {name: int(size) for _, name, size in (line.split() for line in STRUCTS.splitlines() if not line.startswith(" "))}
    assert max(sizes[name] for name in STRUCT_OF_MAP.values()) == MAP_STRUCT_BYTES
