"""What the proof of commuting effects takes and what it refuses, and why."""

from __future__ import annotations

import pytest
from support.programs_of import loaded_program, loaded_spec
from support.vectors import ROOT

from netbpf.engine.commute import MapEffects, commutes
from netbpf.sources.load import read_program

HASH = ".map m hash key=4 value=16 entries=8\n"
ARRAY = ".map m array key=4 value=8 entries=8\n"
KEY = "r6 = r1\nr0 = *(u8 *)skb[23]\n*(u32 *)(r10 - 4) = r0\n"
LOOK = KEY + "r1 = map[m]\nr2 = r10\nr2 += -4\ncall bpf_map_lookup_elem\n"
END = "out:\nr0 = 0\nexit\n"
ADD = "if r0 == 0 goto out\nr1 = 1\nlock *(u64 *)(r0 + 0) += r1\n"
PLAIN_ADD = "if r0 == 0 goto out\nr1 = *(u64 *)(r0 + 0)\nr1 += 1\n*(u64 *)(r0 + 0) = r1\n"
INSERT = """if r0 == 0 goto first
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    r0 = 0
    exit
first:
    *(u64 *)(r10 - 24) = {first}
    *(u64 *)(r10 - 16) = {second}
    r1 = map[m]
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -24
    r4 = {flags}
    call bpf_map_update_elem
    {after}
"""


def insert(first: int, *, second: int = 0, flags: int = 0, after: str = "") -> str:
    return INSERT.format(first=first, second=second, flags=flags, after=after) + ("" if after else END)


PROVED = {
    "counts what is there": (HASH + LOOK + ADD + END, MapEffects(((0, 8),))),
    "adds without a lock": (ARRAY + LOOK + PLAIN_ADD + END, MapEffects(((0, 8),))),
    "counts, and begins with one": (
        HASH + LOOK + insert(1), MapEffects(((0, 8),), True)),
    "keeps who was first": (HASH + LOOK + insert(1, second=7, flags=1), MapEffects(((0, 8),), True)),
    "nothing but a verdict": ("r6 = r1\nr0 = *(u32 *)skb[26]\nexit\n", None),
    "no writes": (ARRAY + LOOK + "if r0 == 0 goto out\nr0 = *(u64 *)(r0 + 0)\nexit\n" + END, MapEffects()),
}  # fmt: skip
REFUSED = {
    "begins with another number": (HASH + LOOK + insert(2), "differs"),
    "the verdict tells": (HASH + LOOK + insert(1, after="r0 = 5\nexit\n"), "verdict"),
    "uses the old value": (
        ARRAY + LOOK + "if r0 == 0 goto out\nr1 = 1\nr1 = atomic_fetch_add((u64 *)(r0 + 0), r1)\n" + END, "old value"),
    "overwrites": (ARRAY + LOOK + "if r0 == 0 goto out\nr1 = 1\n*(u64 *)(r0 + 0) = r1\n" + END, "overwrites"),
    "is decided by a count": (ARRAY + LOOK + ADD + "r1 = *(u64 *)(r0 + 0)\nif r1 > 9 goto out\nr0 = 1\nexit\n" + END, "decide"),
    "returns a count": (ARRAY + LOOK + ADD + "r0 = *(u64 *)(r0 + 0)\nexit\n" + END, "decide"),
    "random": ("call bpf_get_prandom_u32\nexit\n", "get_prandom_u32"),
    "deletes": (HASH + KEY + "r1 = map[m]\nr2 = r10\nr2 += -4\ncall bpf_map_delete_elem\n" + END, "map_delete_elem"),
    "least recently used": (HASH.replace("hash", "lru_hash") + LOOK + ADD + END, "remembers"),
    "puts what may be there": (
        HASH + KEY + "*(u64 *)(r10 - 24) = 1\n*(u64 *)(r10 - 16) = 1\nr1 = map[m]\nr2 = r10\nr2 += -4\nr3 = r10\nr3 += -24\n"
        "r4 = 0\ncall bpf_map_update_elem\n" + END, "overwrites"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PROVED))
def test_proved(name: str) -> None:
    text, effects = PROVED[name]
    proof = commutes(loaded_program(text))
    assert not proof.reason
    assert proof.maps == (() if effects is None else (effects,))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    text, why = REFUSED[name]
    assert why in commutes(loaded_program(text)).reason


def test_the_programs_at_hand() -> None:
    flows = read_program(str(ROOT / "benchmarks" / "programs" / "flows.s"))
    assert commutes(loaded_spec(flows)).maps == (MapEffects(((0, 8), (8, 8)), True),)
