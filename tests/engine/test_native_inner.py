"""Maps inside maps in native code: every kind that may be inside, of sizes that differ, changed by user space between packets;
the same results and bytes as in the interpreter, and no call back into Python."""

from __future__ import annotations

import gc
import random
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
from support.engines import CHECKED, INTERP, NATIVE, map_bytes
from support.objects import read
from support.programs_of import loaded_program, loaded_spec
from test_native_maps import BLOOM, KEYED, KEYED_KINDS, PROLOGUE, QUEUED, RING, agree, many_keys, packets, prefixes

from netbpf.abi.maps import MapType
from netbpf.engine.llvm.module import module
from netbpf.engine.llvm.program import cache_key
from netbpf.engine.llvm.variant import Variant
from netbpf.env import SteppedEnv
from netbpf.maps.create import create
from netbpf.packet.batch import PacketBatch
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff
from netbpf.program import VerifiedProgram

FIND = """
    r1 = map[m]
    r2 = r10
    r2 += -8
    call bpf_map_lookup_elem
    if r0 != 0 goto found
    r0 = 77
    exit
found:
    r1 = r0
    r2 = r10
    r2 += -32
    r3 = r10
    r3 += -96
"""
OUTER_KEY = """
    *(u32 *)(r10 - 8) = 0
    r1 = r6
    r2 = 1
    r3 = r10
    r3 += -8
    r4 = 1
    call bpf_skb_load_bytes
"""
KEYED_INSIDE = [*KEYED_KINDS, "array key=4 value=8 entries=5 flags=0x1000"]
PUSHED_INSIDE = ["queue value=8 entries=4", "stack value=5 entries=3", "bloom_filter value=8 entries=40 extra=3"]


def text_of(kind: str, body: str, outer: str) -> str:
    """A program that operates on the map that the packet's second byte names. Key 0 holds a map like the template, key 1 one with
    more entries where that may be, all others none."""
    entries = int(kind.partition("entries=")[2].split()[0])
    may_differ = not kind.startswith("array") or "0x1000" in kind
    second = kind.replace(f"entries={entries}", f"entries={entries + 5}") if may_differ else kind
    head = f".map first {kind}\n.map second {second}\n.map m {outer} key=4 value=4 entries=3 inner({kind}) {{\n"
    return head + "    0: &first\n    1: &second\n}\n" + PROLOGUE.replace("r1 = map[m]", OUTER_KEY + FIND) + body


def on_outer_keys(rng: random.Random, skbs: list[SkBuff]) -> list[SkBuff]:
    return [replace(s, head=s.head[:1] + bytes([rng.choice((0, 0, 1, 1, 2, 3))]) + s.head[2:]) for s in skbs]


def calls_back(program: VerifiedProgram) -> bool:
    return module(program, Variant("one", trace_clock=True, checked=False)).calls_back


def with_cpus(program: VerifiedProgram, n_cpus: int) -> VerifiedProgram:
    """The program on a map of maps made for several CPUs, and such maps in it."""
    (old,) = program.maps
    live: Any = create(old.spec, n_cpus=n_cpus)
    inner = old.spec.inner
    assert inner is not None
    for key, entries in enumerate((inner.max_entries, inner.max_entries + 3)):
        if inner.map_type != MapType.ARRAY:
            inner = inner._replace(max_entries=entries)
        live.put(key.to_bytes(4, "little"), create(inner, n_cpus=n_cpus))
    return program._replace(maps=(live,))


@pytest.mark.parametrize(("kind", "outer"), [*zip(KEYED_INSIDE, cycle(("array_of_maps", "hash_of_maps")), strict=False)])
def test_maps_with_keys_inside(kind: str, outer: str) -> None:
    rng = random.Random(kind + outer)
    skbs = prefixes(rng, 120) if "trie" in kind else packets(rng, 120, 12)
    touch = "lock *(u64 *)(r0 + 0) += r2" if "value=8" in kind else "*(u8 *)(r0 + 1) = r2"
    text = text_of(kind, KEYED.format(touch=touch), outer)
    agree(text, on_outer_keys(rng, skbs), (NATIVE,))
    assert not calls_back(loaded_program(text))


@pytest.mark.parametrize("kind", ["array key=4 value=8 entries=5", "lru_percpu_hash key=4 value=8 entries=6"])
def test_a_checked_program_finds_the_same(kind: str) -> None:
    rng = random.Random(kind)
    text = text_of(kind, KEYED.format(touch="lock *(u64 *)(r0 + 0) += r2"), "hash_of_maps")
    agree(text, on_outer_keys(rng, packets(rng, 120, 12)), (CHECKED,))


@pytest.mark.parametrize("kind", PUSHED_INSIDE)
def test_maps_without_keys_inside(kind: str) -> None:
    rng = random.Random(kind)
    text = text_of(kind, BLOOM if "bloom" in kind else QUEUED, "hash_of_maps")
    agree(text, on_outer_keys(rng, packets(rng, 150, 5)), (NATIVE,))
    assert not calls_back(loaded_program(text))


WRITE_TO_OWN = """
    *(u64 *)(r10 - 104) = r0
    r1 = map[mine]
    r2 = r10
    r2 += -96
    r3 = 9
    r4 = 0
    call bpf_ringbuf_output
    r0 = *(u64 *)(r10 - 104)
"""


@pytest.mark.parametrize("own", [False, True])
def test_ring_buffers_inside(own: bool) -> None:
    """Records of rings of two sizes, read now and then, so that they go around; also where the program has a ring of its own."""
    text = text_of("ringbuf entries=4096", RING, "array_of_maps").replace("entries=4101", "entries=8192")
    if own:
        text = ".map mine ringbuf entries=4096\n" + text.replace("found:\n", f"found:\n{WRITE_TO_OWN}")
    skbs = on_outer_keys(random.Random(own), packets(random.Random(own), 1200, 5))
    outcomes = []
    for engine in (INTERP, NATIVE):
        program, found = loaded_program(text), []
        outer: Any = next(m for m in program.maps if m.spec.inner is not None)
        rings = [*outer.objects(), *(m for m in program.maps if m is not outer)]
        loaded = engine.load(program, SteppedEnv())
        for n, skb in enumerate(skbs):
            found.append((loaded.run_one(replace(skb)), [bytes(ring.memory) for ring in rings] if n % 7 == 0 else []))
            if n % 50 == 49:
                found.append((0, [b"".join(ring.consume()) for ring in rings]))
        outcomes.append(found)
    assert outcomes[0] == outcomes[1]
    assert not calls_back(loaded_program(text))


@pytest.mark.parametrize("kind", [k for k in KEYED_INSIDE if "percpu" in k or "lru" in k or k.startswith("hash key=4")])
def test_maps_inside_on_several_cpus(kind: str) -> None:
    text = text_of(kind, KEYED.format(touch="*(u8 *)(r0 + 1) = r2"), "hash_of_maps")
    skbs = on_outer_keys(random.Random(kind), many_keys(random.Random(kind), 300, 60))
    outcomes = []
    for engine in (INTERP, NATIVE):
        program = with_cpus(loaded_program(text), 3)
        env, rng = SteppedEnv(), random.Random(9)
        loaded, found = engine.load(program, env), []
        for skb in skbs:
            env.cpu = rng.randrange(3)
            found.append((loaded.run_one(replace(skb)), map_bytes(program.maps[0])))
        outcomes.append(found)
    assert outcomes[0] == outcomes[1]


def test_a_batch_sees_what_user_space_did_before_it() -> None:
    text = text_of("hash key=4 value=8 entries=6", KEYED.format(touch="*(u8 *)(r0 + 1) = r2"), "array_of_maps")
    rng = random.Random(3)
    frames = [s.head for s in on_outer_keys(rng, packets(rng, 300, 12))]
    batches = [PacketBatch.from_records(records(frames[at : at + 100])) for at in (0, 100, 200)]
    outcomes = []
    for engine in (INTERP, NATIVE):
        program, found = loaded_program(text), []
        outer: Any = program.maps[0]
        loaded = engine.load(program, SteppedEnv())
        for batch in batches:
            found.append((list(loaded.run(batch).verdict), map_bytes(outer)))
            if outer.get(0) is not None:
                outer.take_out(bytes(4))
            outer.put((2).to_bytes(4, "little"), create(outer.spec.inner._replace(max_entries=2)))
            gc.collect()
        outcomes.append(found)
    assert outcomes[0] == outcomes[1]
    assert len(set(outcomes[0][1][0])) > 2


def records(frames: list[bytes]) -> list[Record]:
    return [Record(n, 1_000_000_000 + n, len(frame), frame, 1) for n, frame in enumerate(frames, 1)]


def test_a_map_of_the_program_that_is_inside_another_too() -> None:
    """Its values are reached under two addresses that must not be thought apart."""
    text = """
    .map own array key=4 value=8 entries=2
    .map m array_of_maps key=4 value=4 entries=1 inner(array key=4 value=8 entries=2) {
        0: &own
    }
        *(u32 *)(r10 - 8) = 0
        r1 = map[own]
        r2 = r10
        r2 += -8
        call bpf_map_lookup_elem
        if r0 == 0 goto out
        r6 = r0
        r1 = map[m]
        r2 = r10
        r2 += -8
        call bpf_map_lookup_elem
        if r0 == 0 goto out
        r1 = r0
        r2 = r10
        r2 += -8
        call bpf_map_lookup_elem
        if r0 == 0 goto out
        r1 = *(u64 *)(r6 + 0)
        r2 = 7
        *(u64 *)(r0 + 0) = r2
        r3 = *(u64 *)(r6 + 0)
        r0 = r1
        r0 *= 100
        r0 += r3
    out:
        exit
    """
    loaded = NATIVE.load(loaded_program(text), SteppedEnv())
    frame = SkBuff(head=bytes(60), len=60)
    assert [loaded.run_one(replace(frame)) for _ in range(2)] == [7, 707]


def test_maps_of_one_shape_found_in_several_maps_share_their_code() -> None:
    program = loaded_spec(read("map_in_map"))
    assert {f.inner_of for f in program.facts} == {-1, 0}
    assert not calls_back(program)


def test_code_holds_no_address() -> None:
    """Two programs alike, their maps at other places: the same text, the same key in the cache."""
    text = text_of("hash key=4 value=8 entries=6", KEYED.format(touch="*(u8 *)(r0 + 1) = r2"), "array_of_maps")
    first, second = loaded_program(text), loaded_program(text)
    variant = Variant("one", trace_clock=True, checked=False)
    assert module(first, variant).text == module(second, variant).text
    assert cache_key(first, variant) == cache_key(second, variant)
