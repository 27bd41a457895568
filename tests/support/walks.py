"""A program that walks a map with bpf_for_each_map_elem, notes the keys it is shown, and at each changes the map as told."""

from __future__ import annotations

import random
from struct import pack, unpack
from typing import Final

from netbpf.isa.cfg import subprog_starts
from netbpf.program import ProgramSpec
from netbpf.sources.asm import parse
from support.function_btf import MAIN_FUNCTION, STATIC_FUNCTION, btf_with_int_functions

LOG_BYTES: Final = 512  # u32 count, then the keys of the first visits
STEPS: Final = 64
GO_ON, DELETE, UPDATE, STOP = range(4)
FIND_INSIDE: Final = """
    *(u32 *)(r10 - 8) = 1
    r1 = map[outer]
    r2 = r10
    r2 += -8
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = r0
"""
WALK: Final = """
    r2 = subprog[visit]
    r3 = 0
    r4 = 0
    call bpf_for_each_map_elem
out:
    exit
visit:
    r6 = r1
    r8 = *(u32 *)(r2 + 0)
    r9 = map[log][0]+0
    r1 = *(u8 *)(r3 + 0)
    r8 += r1
    r1 = *(u32 *)(r9 + 0)
    r1 &= 63
    r2 = r1
    r2 <<= 2
    r2 += r9
    *(u32 *)(r2 + 4) = r8
    r7 = map[steps][0]+0
    r2 = r1
    r2 <<= 3
    r7 += r2
    r1 += 1
    *(u32 *)(r9 + 0) = r1
    r8 = *(u32 *)(r7 + 0)
    r1 = *(u32 *)(r7 + 4)
    *(u32 *)(r10 - 8) = r1
    *(u64 *)(r10 - 16) = 0
    if r8 == 0 goto end
    if r8 == 3 goto stop
    r1 = r6
    r2 = r10
    r2 += -8
    if r8 == 2 goto update
    call bpf_map_delete_elem
    r0 = 0
    exit
update:
    r3 = r10
    r3 += -16
    r4 = 0
    call bpf_map_update_elem
end:
    r0 = 0
    exit
stop:
    r0 = 1
    exit
"""


def walking(kind: str, *, inside: bool = False) -> ProgramSpec:
    """The program on a map of this kind, of u32 keys and 8-byte values; with ``inside`` on one that is in map ``outer``."""
    outer = f".map outer hash_of_maps key=4 value=4 entries=2 inner({kind}) {{\n    1: &m\n}}\n" if inside else ""
    told = f".map log array key=4 value={LOG_BYTES} entries=1\n.map steps array key=4 value={8 * STEPS} entries=1\n"
    head = f".map m {kind}\n{outer}{told}"
    spec = parse(head + (FIND_INSIDE if inside else "    r1 = map[m]\n") + WALK)
    info = tuple((start, STATIC_FUNCTION if start else MAIN_FUNCTION) for start in subprog_starts(spec.insns))
    return spec._replace(btf=btf_with_int_functions(), func_info=info)


def steps(rng: random.Random, deletes: float, updates: float, keys: int) -> bytes:
    """What is done at each visit: so often a key deleted, so often one put in; else nothing, or at times an end."""
    rows = []
    for _ in range(STEPS):
        pick = rng.random()
        verb = DELETE if pick < deletes else UPDATE if pick < deletes + updates else STOP if pick > 0.99 else GO_ON
        rows.append(pack("<II", verb, rng.randrange(keys)))
    return b"".join(rows)


def visited(log: bytes) -> tuple[int, ...]:
    """The keys that were shown, each with its value's first byte added."""
    return unpack(f"<{log[0]}I", log[4 : 4 + 4 * log[0]])
