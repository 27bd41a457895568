#!/usr/bin/env python3
"""Is each shipped scenario worth its lines? Its program, packets and expectations are changed, one thing at a time: it must fail.

    scripts/scenario_mutations.py [FILE...] [--kind KIND] [--sample N] [--seed S] [--quiet]

A change counts where it should matter: a changed expectation always; a changed packet where anything that can be observed of the
run (verdicts, maps, events, the load) comes out otherwise; a changed program where it loads otherwise, or treats the scenario's
packets or those of the shipped captures otherwise. Prints a line a file, every survivor, and the score; exits 1 below 95 %.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from netbpf.abi.net import LINKTYPE_ETHERNET, LINKTYPE_USER0
from netbpf.errors import NetbpfError
from netbpf.isa.classic import SockFilter
from netbpf.isa.disasm import format_insn
from netbpf.isa.instruction import Instruction, Program
from netbpf.program import ProgramSpec
from netbpf.scenario.check import check
from netbpf.scenario.model import Case, EventsExpect, Expect, MapExpect, PacketSource, ProcessedExpect, Step
from netbpf.scenario.outcome import Outcome
from netbpf.scenario.packets import records_of
from netbpf.scenario.program import program_of
from netbpf.scenario.read import read_file
from netbpf.scenario.run import run_case

ROOT = Path(__file__).resolve().parents[1]
ENOUGH = 0.95
KINDS = ("program", "packet", "expectation")
PROBES = "session fragments ipv6-extensions vlan qinq arp-icmp llc runts".split()
PROBED_BYTES = 64
CLASS, ALU, ALU64, JMP, JMP32, LD, LDX, ST, STX = 0x07, 0x04, 0x07, 0x05, 0x06, 0x00, 0x01, 0x02, 0x03
_PAIRS = ((0x10, 0x50), (0x20, 0xB0), (0x30, 0xA0), (0x60, 0xD0), (0x70, 0xC0))  # == !=, > <=, >= <, and signed
OPPOSITE = {0x40: 0x10, **dict(_PAIRS), **{b: a for a, b in _PAIRS}}  # & has none: == then
NOP = Instruction(0x05, 0, 0, 0, 0)  # goto +0


@dataclass(frozen=True)
class Mutant:
    """One change of a scenario: ``kind`` program, packet or expectation; ``fails`` whether the scenario notices; ``matters``
    whether there is anything to notice."""

    kind: str
    what: str
    fails: Callable[[], bool]
    matters: Callable[[], bool]


@dataclass
class Score:
    """``killed`` of ``counted`` mutants; ``survivors`` are the others."""

    killed: int = 0
    counted: int = 0
    survivors: list[str] = field(default_factory=list)

    def add(self, other: Score) -> None:
        self.killed, self.counted = self.killed + other.killed, self.counted + other.counted
        self.survivors += other.survivors

    @property
    def share(self) -> float:
        return self.killed / self.counted if self.counted else 1.0


# --- what can be observed of a run ------------------------------------------------------------------------------------


def observed(case: Case, outcome: Outcome) -> Any:
    """Everything a scenario could expect something of: verdicts in words (a longer packet that is accepted whole is no news), the
    same one again told once. Maps that hold times are left out."""
    if outcome.rejection is not None:
        return outcome.rejection.errno, outcome.rejection.reason
    verdicts = [[word for word, _ in groupby(v.word for _, v in step.packets)] for step in outcome.steps]
    timed = {name for name, setup in case.maps.items() if not setup.compared}
    return verdicts, {name: rows for name, rows in outcome.maps.items() if name not in timed}, outcome.events


def run(case: Case, spec: ProgramSpec | None = None) -> Outcome | str:
    """The outcome, or what went wrong."""
    try:
        return run_case(case, all_maps=True, spec=spec)
    except (NetbpfError, OSError) as e:
        return f"{type(e).__name__}: {e}"


def notices(case: Case, outcome: Outcome | str) -> bool:
    """Whether the scenario fails."""
    if isinstance(outcome, str):
        return True
    try:
        return bool(check(case, outcome))
    except NetbpfError:
        return True


class Observer:
    """What each case does as it is, asked once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Case, Any]] = {}

    def of(self, case: Case) -> Any:
        if id(case) not in self._known:
            self._known[id(case)] = (case, seen(case, run(case)))  # the case is kept, so that its id is its own
        return self._known[id(case)][1]

    def differs(self, case: Case, spec: ProgramSpec | None = None, *, base: Case | None = None) -> bool:
        """Whether a changed case, or its changed program, can be told from what it was."""
        return bool(self.of(base or case) != seen(case, run(case, spec)))


def seen(case: Case, outcome: Outcome | str) -> Any:
    return outcome if isinstance(outcome, str) else observed(case, outcome)


# --- programs ---------------------------------------------------------------------------------------------------------


def changed_insns(insns: Program) -> Iterator[tuple[str, Program]]:
    """Every program with one instruction changed."""
    wide = False
    for pc, insn in enumerate(insns):
        if wide:
            wide = False
            continue
        wide = insn.code == 0x18
        for what, new in changed_insn(insn):
            text = format_insn(insn, insns[pc + 1] if wide else None)
            yield f"insn {pc}, {text}: {what}", (*insns[:pc], new, *insns[pc + 1 :])


def changed_insn(insn: Instruction) -> Iterator[tuple[str, Instruction]]:
    kind, op, by_imm = insn.code & CLASS, insn.code & 0xF0, not insn.code & 0x08
    if kind in (JMP, JMP32) and op in OPPOSITE:
        yield "opposite condition", insn._replace(code=insn.code & ~0xF0 | OPPOSITE[op])
        if by_imm:
            yield "immediate + 1", insn._replace(imm=_s32(insn.imm + 1))
            yield "immediate - 1", insn._replace(imm=_s32(insn.imm - 1))
    elif kind in (ALU, ALU64) and by_imm and op not in (0x80, 0xD0):
        yield "immediate + 1", insn._replace(imm=_s32(insn.imm + 1))
        if op == 0xB0 and insn.dst == 0:
            yield "another verdict", insn._replace(imm=0 if insn.imm else -1)
    elif kind == LD and insn.code & 0xE0 in (0x20, 0x40):
        yield "offset + 1", insn._replace(imm=_s32(insn.imm + 1))
    elif kind == LDX:
        yield "offset + 4", insn._replace(off=insn.off + 4)
    elif kind in (ST, STX):
        yield "left out", NOP
        if kind == ST:
            yield "immediate + 1", insn._replace(imm=_s32(insn.imm + 1))


def _s32(value: int) -> int:
    return ((value & 0xFFFF_FFFF) ^ 0x8000_0000) - 0x8000_0000


def changed_classic(spec: ProgramSpec) -> Iterator[tuple[str, ProgramSpec]]:
    """Every classic filter with one instruction changed."""
    from netbpf.sources.cbpf import to_spec

    for pc, row in enumerate(spec.classic):
        for what, new in _changed_row(row):
            rows = (*spec.classic[:pc], new, *spec.classic[pc + 1 :])
            try:
                yield f"classic insn {pc}: {what}", to_spec(rows, savefile=spec.view == "file")
            except NetbpfError:
                continue  # no filter any more: nobody could attach it


def _changed_row(row: SockFilter) -> Iterator[tuple[str, SockFilter]]:
    if row.code & 7 == 5 and row.jt != row.jf:
        yield "branches swapped", row._replace(jt=row.jf, jf=row.jt)
    if row.code & 7 != 7:
        yield "k + 1", row._replace(k=row.k + 1 & 0xFFFF_FFFF)
    if row.code & 7 == 6:
        yield "another verdict", row._replace(k=0 if row.k else 0x40000)


def changed_programs(spec: ProgramSpec) -> Iterator[tuple[str, ProgramSpec]]:
    """Every program that differs in one place from this one."""
    if spec.classic:
        yield from changed_classic(spec)
        return
    for what, insns in changed_insns(spec.insns):
        yield what, spec._replace(insns=insns)
    for index, other in enumerate(spec.others):
        for what, insns in changed_insns(other.insns):
            others = (*spec.others[:index], other._replace(insns=insns), *spec.others[index + 1 :])
            yield f"{other.name}, {what}", spec._replace(others=others)


def probe(case: Case, cases: Sequence[Case]) -> Case:
    """The case with packets of all kinds in place of its own: those of the file's cases, and of the shipped captures, twice, with
    time between."""
    own = [step for other in cases for step in other.steps]
    node = case.program.node
    captures = [PacketSource("capture", str(ROOT / "pcaps" / f"{name}.pcap"), node, ranges=((1, 300),)) for name in PROBES]
    shipped = [Step("", source, node, after_ns=60_000_000) for source in captures]
    return replace(case, steps=(*own, *shipped, *own, *shipped), expect=Expect())


def program_mutants(cases: Sequence[Case]) -> Iterator[Mutant]:
    """A program's change must be noticed by one of the file's cases that have it."""
    by_program: dict[Any, list[Case]] = {}
    observer = Observer()
    for case in cases:
        by_program.setdefault((case.program.form, case.program.text, case.socket), []).append(case)
    for users in by_program.values():
        try:
            spec = program_of(users[0])
        except NetbpfError:
            continue  # refused when read: no program to change
        probed = probe(users[0], users)
        for what, changed in changed_programs(spec):
            def fails(users: list[Case] = users, changed: ProgramSpec = changed) -> bool:
                return any(notices(case, run(case, changed)) for case in users)

            def matters(users: list[Case] = users, changed: ProgramSpec = changed, probed: Case = probed) -> bool:
                asked = users if users[0].expect.reject is not None else [probed]
                return any(observer.differs(case, changed) for case in asked)

            yield Mutant("program", what, fails, matters)


# --- packets ----------------------------------------------------------------------------------------------------------


def changed_steps(case: Case, index: int) -> Iterator[tuple[str, tuple[Step, ...]]]:
    """The steps of a case with one thing changed about one of them."""
    step, before, after = case.steps[index], case.steps[:index], case.steps[index + 1 :]

    def with_step(new: Step) -> tuple[Step, ...]:
        return (*before, new, *after)

    if step.source is not None:
        yield "comes once more", with_step(replace(step, repeat=step.repeat + 1))
        if step.repeat > 1:
            yield "comes once less", with_step(replace(step, repeat=step.repeat - 1))
    if step.after_ns:
        yield "at once", with_step(replace(step, after_ns=0))
        yield "after ten times the time", with_step(replace(step, after_ns=step.after_ns * 10))
    for name, value in step.fields.items():
        if isinstance(value, int):
            yield f"skb.{name} + 1", with_step(replace(step, fields={**step.fields, name: value + 1}))
    if step.updates:
        yield "without its update", with_step(replace(step, updates={}))
    if step.deletes:
        yield "without its delete", with_step(replace(step, deletes={}))
    for what, source in changed_sources(case, step):
        yield what, with_step(replace(step, source=source))


def changed_sources(case: Case, step: Step) -> Iterator[tuple[str, PacketSource]]:
    """A packet with a byte changed, shorter or longer; a capture without its first packet."""
    source = step.source
    if source is None:
        return
    records = list(records_of(case, replace(step, repeat=1)))
    if source.form == "capture":
        numbers = [r.number for r in records[1:]]
        if numbers:
            yield "without its first packet", replace(source, ranges=tuple((n, n) for n in numbers))
        return
    data = records[0].data
    if records[0].linktype not in (LINKTYPE_ETHERNET, LINKTYPE_USER0):
        return
    for at in range(min(len(data), PROBED_BYTES)):
        new = bytearray(data)
        new[at] ^= 0xFF
        yield f"byte {at} inverted", PacketSource("hex", new.hex(), source.node)
    yield "a byte longer", PacketSource("hex", (data + b"\0").hex(), source.node)
    if len(data) > 1:
        yield "a byte shorter", PacketSource("hex", data[:-1].hex(), source.node)


def packet_mutants(cases: Sequence[Case]) -> Iterator[Mutant]:
    observer = Observer()
    for case in cases:
        for index, step in enumerate(case.steps):
            for what, steps in changed_steps(case, index):
                changed = replace(case, steps=steps)
                label = f"{case.id or 'the case'}, packet {index + 1} {step.name}: {what}"
                yield Mutant(
                    "packet",
                    label,
                    lambda changed=changed: notices(changed, run(changed)),
                    lambda changed=changed, case=case: observer.differs(changed, base=case),
                )


# --- expectations -----------------------------------------------------------------------------------------------------


def changed_value(value: Any) -> Any:
    """Another value of the kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        key = next(iter(value), None)
        return {**value, key: changed_value(value[key])} if key is not None else {}
    if isinstance(value, list):
        return [changed_value(value[0]), *value[1:]] if value else value
    swapped = {"accept": "drop", "drop": "accept", "unseen": "drop"}
    if value in swapped:
        return swapped[value]
    return _changed_text(value)


def _changed_text(text: str) -> str:
    """An address with another last digit, any other text with another first letter."""
    if text[-1:].isdigit() and ("." in text or ":" in text):
        return text[:-1] + str((int(text[-1]) + 1) % 10)
    return chr(ord(text[0]) ^ 1) + text[1:] if text else "x"


def changed_expects(expect: Expect) -> Iterator[tuple[str, Expect]]:
    """Every expectation with one thing changed."""
    if expect.verdict is not None:
        yield "verdict", replace(expect, verdict=replace(expect.verdict, said=changed_value(expect.verdict.said)))
    for name, contents in expect.maps.items():
        for what, new in _changed_map(contents):
            yield f"map {name}: {what}", replace(expect, maps={**expect.maps, name: new})
    for kind in ("ring", "perf"):
        named = getattr(expect, kind)
        for name, events in named.items():
            for what, changed in _changed_events(events):
                yield f"{kind} {name}: {what}", replace(expect, **{kind: {**named, name: changed}})
    if expect.trace is not None:
        for what, changed in _changed_events(expect.trace):
            yield f"trace: {what}", replace(expect, trace=changed)
    if expect.reject is not None:
        r = expect.reject
        yield "no rejection", replace(expect, reject=None)
        if r.errno:
            yield "errno", replace(expect, reject=replace(r, errno=r.errno + 1))
        if r.reason:
            yield "reason", replace(expect, reject=replace(r, reason=_changed_text(r.reason)))
    if expect.processed is not None and expect.processed.low == expect.processed.high:
        p = expect.processed
        yield "processed", replace(expect, processed=ProcessedExpect(p.low + 1, p.high + 1, p.node))


def _changed_map(contents: MapExpect) -> Iterator[tuple[str, MapExpect]]:
    if contents.count is not None:
        yield "count", replace(contents, count=contents.count + 1)
    for i, entry in enumerate(contents.entries or ()):
        others = (*(contents.entries or ())[:i], *(contents.entries or ())[i + 1 :])
        new = replace(entry, value=changed_value(entry.value))
        yield f"value of {entry.key}", replace(contents, entries=(*others, new))
        if not contents.partly and _is_something(entry.value):
            yield f"without {entry.key}", replace(contents, entries=others)


def _is_something(value: Any) -> bool:
    """Elements of an array that are zero need not be named."""
    return value not in (0, False, "")


def _changed_events(events: EventsExpect) -> Iterator[tuple[str, EventsExpect]]:
    if events.count is not None:
        yield "count", replace(events, count=events.count + 1)
    rows = events.records
    if rows:
        yield "one record less", replace(events, records=rows[1:])
        yield "another record", replace(events, records=(changed_value(rows[0]), *rows[1:]))
        if len(rows) > 1 and rows[0] != rows[-1]:
            yield "other order", replace(events, records=rows[::-1])


def expectation_mutants(cases: Sequence[Case]) -> Iterator[Mutant]:
    for case in cases:
        outcome = run(case)
        for index, step in enumerate(case.steps):
            for what, expect in changed_expects(step.expect):
                steps = (*case.steps[:index], replace(step, expect=expect), *case.steps[index + 1 :])
                yield _expectation(case, f"packet {index + 1}: {what}", replace(case, steps=steps), outcome)
        for what, expect in changed_expects(case.expect):
            yield _expectation(case, f"end: {what}", replace(case, expect=expect), outcome)


def _expectation(case: Case, what: str, changed: Case, outcome: Outcome | str) -> Mutant:
    return Mutant("expectation", f"{case.id or 'the case'}, {what}", lambda: notices(changed, outcome), lambda: True)


# --- the score --------------------------------------------------------------------------------------------------------


def mutants_of(path: Path) -> list[Mutant]:
    """Every mutant of a scenario file."""
    cases = read_file(str(path))
    return [*program_mutants(cases), *packet_mutants(cases), *expectation_mutants(cases)]


def score_of(name: str, mutants: Sequence[Mutant]) -> dict[str, Score]:
    """By kind. A mutant that is noticed matters; of the others it is asked."""
    scores = {kind: Score() for kind in KINDS}
    for mutant in mutants:
        score = scores[mutant.kind]
        if mutant.fails():
            score.killed += 1
            score.counted += 1
        elif mutant.matters():
            score.counted += 1
            score.survivors.append(f"{name}: {mutant.kind}: {mutant.what}")
    return scores


def scenario_files() -> list[Path]:
    return sorted((ROOT / "scenarios").glob("*.scenario.toml"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("files", nargs="*", type=Path, help="scenario files (default: all that ship)")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only N mutants of each file")
    parser.add_argument("--kind", choices=KINDS, help="only changes of this kind")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default 1)")
    parser.add_argument("--quiet", action="store_true", help="no survivors, only figures")
    args = parser.parse_args(argv)
    rng, total = random.Random(args.seed), {kind: Score() for kind in KINDS}
    print(f"{'scenario':22} {'program':>14} {'packet':>14} {'expectation':>14}")
    for path in args.files or scenario_files():
        name = path.name.removesuffix(".scenario.toml")
        mutants = [m for m in mutants_of(path) if args.kind in (None, m.kind)]
        chosen = rng.sample(mutants, min(args.sample, len(mutants))) if args.sample else mutants
        scores = score_of(name, chosen)
        print(f"{name:22} " + " ".join(f"{s.killed:>6} of {s.counted:<4}" for s in scores.values()), flush=True)
        for kind, score in scores.items():
            total[kind].add(score)
            if not args.quiet:
                print("".join(f"    survives: {line}\n" for line in score.survivors), end="")
    print(f"{'all':22} " + " ".join(f"{s.killed:>6} of {s.counted:<4}" for s in total.values()))
    whole = Score()
    for score in total.values():
        whole.add(score)
    print(f"score: {whole.share:.1%} ({whole.killed} of {whole.counted} changes that should matter are noticed)")
    return 0 if whole.share >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
