"""Every map kind of a socket filter under random operations of a program: both engines give the same and leave the same bytes."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.engines import CHECKED, INTERP, NATIVE, run_loaded
from support.programs_of import loaded_program

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
