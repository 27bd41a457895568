"""Whether the packets of a stream may be run in any order, or apart and their maps merged: a proof, or the reason against it.

The proof looks at every path of the program (``engine.symbolic``). What a path asks and returns may depend on the packet alone;
what it does to maps may only be to add to values. A program may put a value where there is none: then whether the key is there
may decide which way it goes, if both ways come to the same: what was put there first and added after is what would have been
added. So each packet adds the same whatever came before it, and sums do not depend on the order.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

from netbpf.engine.symbolic import FUNC_NAMES, Effect, Explorer, Key, Path, Slot, Term, Unproved, byte_of, is_number, joined
from netbpf.isa.opcodes import BPF_CALL, BPF_JMP, bpf_class, bpf_op
from netbpf.program import VerifiedProgram


@dataclass(frozen=True)
class MapEffects:
    """What any packet may do to a map: add to these slots (offset, size), and put new keys where ``inserts``."""

    slots: tuple[Slot, ...] = ()
    inserts: bool = False


@dataclass(frozen=True)
class Commutes:
    """The proof's result, a row for each map of the program; or ``reason``, why there is none."""

    maps: tuple[MapEffects, ...] = ()
    reason: str = ""


def commutes(program: VerifiedProgram) -> Commutes:
    """Whether the program's effects on maps commute."""
    try:
        if not _calls_anything(program):
            return Commutes((MapEffects(),) * len(program.maps))
        return _proved(program)
    except Unproved as e:
        return Commutes(reason=str(e))


def _calls_anything(program: VerifiedProgram) -> bool:
    """A program that calls nothing and has no map reads the packet alone, whatever its paths."""
    calls = [i for i in program.insns if bpf_class(i.code) == BPF_JMP and bpf_op(i.code) == BPF_CALL]
    return bool(program.maps) or any(i.src or i.imm not in FUNC_NAMES or FUNC_NAMES[i.imm] != "skb_load_bytes" for i in calls)


def _proved(program: VerifiedProgram) -> Commutes:
    written, updated = set[int](), set[int]()
    while True:
        explorer = Explorer(program, written, updated)
        paths = explorer.explore()
        if explorer.now_written <= written and explorer.now_updated <= updated:
            break
        written, updated = written | explorer.now_written, updated | explorer.now_updated
    effects = tuple(_map_effects(program, paths, index, updated) for index in range(len(program.maps)))
    for one, other in combinations(paths, 2):
        if _same_packet(one, other):
            _check_alike(one, other, effects)
    return Commutes(effects)


def _map_effects(program: VerifiedProgram, paths: list[Path], index: int, updated: set[int]) -> MapEffects:
    slots = sorted({slot for p in paths for (i, _), e in p.effects.items() if i == index for slot in e.added})
    name = repr(program.maps[index].spec.name)
    for (a, size), (b, _) in pairwise(slots):
        if a + size > b:
            raise Unproved(f"values of map {name} are added to in pieces that overlap")
    return MapEffects(tuple(slots), index in updated)


def _same_packet(one: Path, other: Path) -> bool:
    """Whether one packet may take both paths, the maps being others."""
    return all(other.asked.get(question, answer) == answer for question, answer in one.asked.items())


def _check_alike(one: Path, other: Path, maps: tuple[MapEffects, ...]) -> None:
    if one.r0 != other.r0:
        raise Unproved("whether a key is in a map decides the verdict")
    for key in one.effects.keys() | other.effects.keys():
        index, slots = key[0], maps[key[0]].slots
        mine, theirs = (_told(p, key) for p in (one, other))
        if (mine.made is None and not mine.found) != (theirs.made is None and not theirs.found) and maps[index].inserts:
            raise Unproved("a key is put into a map by some of the packets that look for it")
        for slot in slots:
            if _sum(mine, slot) != _sum(theirs, slot):
                raise Unproved("a value that is put into a map differs from what would be added to one that is there")


def _told(p: Path, key: Key) -> Effect:
    return p.effects.get(key, Effect())


def _sum(effect: Effect, slot: Slot) -> tuple[int, tuple[Term, ...]]:
    """What a path adds to a slot in all: a number, and the other terms in an order of their own."""
    off, size = slot
    terms = list(effect.added.get(slot, ()))
    if effect.made is not None:
        terms.append(joined(effect.made[off : off + size]))
    total, others = 0, []
    for term in terms:
        short = joined(tuple(byte_of(term, k) for k in range(size)))
        if is_number(short):
            total += short[1]
        else:
            others.append(short)
    return total & ((1 << 8 * size) - 1), tuple(sorted(others, key=repr))
