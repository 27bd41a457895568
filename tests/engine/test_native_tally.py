"""What is done to a value that a look-up found, without a branch in native code, is what the interpreter does."""

from __future__ import annotations

import random

import pytest
from support.engines import INTERP
from support.programs_of import loaded_program
from support.replays import replayed
from support.tally_programs import ENTRIES, KINDS, random_tally, tally
from test_native_split import capture

from netbpf.engine.llvm.engine import NativeEngine
from netbpf.engine.llvm.instructions import SubprogLowerer
from netbpf.engine.llvm.lowerer import Lowerer
from netbpf.engine.llvm.tally import Tally, tallies

COUNT = "    r1 = 1\n    lock *(u64 *)(r0 + 0) += r1"
BEHIND = "    r0 = r8"


def tallies_of(text: str, kind: str = "pcap") -> list[Tally]:
    lowerer = Lowerer(loaded_program(text), kind, checked=False, calls_back=False)
    main = SubprogLowerer(lowerer, 0)
    assert main.tallies == (tallies(main) if lowerer.may_tally else {})
    return list(main.tallies.values())


def check(text: str, seed: object, packets: int = 300) -> None:
    data = capture(random.Random(repr(seed)), "pcap little", packets, shortest=20)
    assert replayed(NativeEngine(use_cache=False), text, data) == replayed(INTERP, text, data)


@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_counting(kind: str, entries: int) -> None:
    text = tally(kind, entries, 8, COUNT, BEHIND)
    assert len(tallies_of(text)) == (kind != "lru_hash")
    check(text, (kind, entries))


@pytest.mark.parametrize("seed", range(24))
def test_random_programs(seed: int) -> None:
    check(random_tally(random.Random(seed)), seed, 150)


def test_what_is_written_to_registers_is_so_only_where_a_value_was_found() -> None:
    text = tally("hash", 8, 16, "    r8 = *(u64 *)(r0 + 8)\n    r9 += 1\n    r0 = 60", "    r0 += r8\n    r0 += r9")
    (found,) = tallies_of(text)
    assert found.written == (8, 9)
    check(text, "registers")


@pytest.mark.parametrize("done", [
    "    if r7 == 1 goto done\n" + COUNT,  # branches of its own
    "    *(u64 *)(r10 - 24) = 1\n" + COUNT,  # writes to the frame,
    "    *(u32 *)(r6 + 48) = 1\n" + COUNT,  # or to the context
    COUNT + "\n    call bpf_ktime_get_ns",
    COUNT + "\n    r7 /= 3",
    COUNT + "\n    r0 = 5\n    exit",
    "\n".join([COUNT] * 7),
])  # fmt: skip
def test_what_has_its_branch(done: str) -> None:
    text = tally("hash", 8, 8, done, BEHIND)
    assert not tallies_of(text)
    check(text, done)


def test_a_large_value_has_its_branch() -> None:
    text = tally("array", 8, 264, COUNT, BEHIND)
    assert not tallies_of(text)
    check(text, "large")


def test_what_others_jump_into_has_its_branch() -> None:
    text = tally("hash", 8, 8, "    if r7 != 3 goto count\n    goto done\ncount:\n" + COUNT, BEHIND)
    assert not tallies_of(text)
    inside = tally("array", 2, 8, "into:\n    r8 += 1\n    if r8 < 400 goto into", BEHIND)
    assert not tallies_of(inside)
    check(inside, "inside")


def test_single_runs_and_checked_code_keep_the_branch() -> None:
    text = tally("hash", 8, 8, COUNT, BEHIND)
    assert not tallies_of(text, "one")
    assert not Lowerer(loaded_program(text), "pcap", checked=True, calls_back=False).may_tally


SUBPROGRAM = """
.map t array key=4 value=8 entries=20
    r6 = r1
    r0 = *(u8 *)skb[29]
    r1 = r0
    r1 &= 31
    call counted
    exit
counted:
    *(u32 *)(r10 - 4) = r1
    r6 = r1
    r1 = map[t]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto done
    r6 *= 3
    lock *(u64 *)(r0 + 0) += r6
done:
    r0 = r6
    exit
"""


def test_in_a_subprogram() -> None:
    lowerer = Lowerer(loaded_program(SUBPROGRAM), "pcap", checked=False, calls_back=False)
    assert [t.written for t in SubprogLowerer(lowerer, 1).tallies.values()] == [(6,)]
    check(SUBPROGRAM, "subprogram")
