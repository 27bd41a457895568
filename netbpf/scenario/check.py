"""An outcome against what the scenario expects: the problems, each with its place, what was expected, what came, and what the
scenario would have to say for it to be true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from netbpf.errors import errno_name
from netbpf.ints import round_up
from netbpf.scenario.codec import OF_OBJECTS, MapCodec
from netbpf.scenario.contents import inner_name
from netbpf.scenario.layout import Hex, Layout, LayoutError
from netbpf.scenario.model import Case, Entry, EventsExpect, Expect, MapExpect, RejectExpect, Step, VerdictExpect
from netbpf.scenario.outcome import Contents, Events, Outcome, Rejection, StepOutcome, Verdict
from netbpf.scenario.read import COUNTED
from netbpf.scenario.run import At
from netbpf.scenario.toml_map import Node
from netbpf.scenario.write import render

MOST_SHOWN: Final = 12
MOST_LISTED: Final = 16


@dataclass(frozen=True, slots=True)
class Problem:
    """One expectation that is not met. ``node`` is its place; ``changes`` what values there would have to be instead; ``at`` the
    packet it is about, None where it is about none."""

    node: Node
    what: str
    expected: str
    got: str
    changes: tuple[tuple[Node, Any], ...] = ()
    at: At | None = None


def check(case: Case, outcome: Outcome) -> list[Problem]:
    """Every expectation of a case that an outcome does not meet. Raises SourceError for one that cannot be compared."""
    if outcome.rejection is not None:
        return list(_refused(case, outcome.rejection))
    problems = [] if case.expect.reject is None else [_not_refused(case.expect.reject)]
    for index, (step, found) in enumerate(zip(case.steps, outcome.steps, strict=True)):
        problems += _Checker(outcome, _step_name(index, step)).step(index, step, found)
    problems += _Checker(outcome, "at the end").state(case.expect, dict(outcome.maps), outcome.events)
    return problems + list(_processed(case, outcome))


def _step_name(index: int, step: Step) -> str:
    return f"packet {index + 1}" + (f" ({step.name})" if step.name else "")


# --- the load ---------------------------------------------------------------------------------------------------------


def _refused(case: Case, found: Rejection) -> Iterator[Problem]:
    wanted = case.expect.reject
    told = f"{errno_name(found.errno)}: {found.reason}" if found.reason else errno_name(found.errno)
    if wanted is None:
        yield Problem(case.program.node, "the program is refused", "it loads", told)
        return
    if wanted.errno and wanted.errno != found.errno:
        assert wanted.errno_node is not None
        name = errno_name(found.errno)
        yield Problem(wanted.errno_node, "the rejection", errno_name(wanted.errno), told, ((wanted.errno_node, name),))
    if wanted.reason and wanted.reason not in found.log:
        assert wanted.reason_node is not None
        yield Problem(wanted.reason_node, "the reason", wanted.reason, told, ((wanted.reason_node, found.reason),))


def _not_refused(wanted: RejectExpect) -> Problem:
    said = " ".join(filter(None, (errno_name(wanted.errno) if wanted.errno else "", wanted.reason)))
    return Problem(wanted.node, "the rejection", said, "the program loads")


def _processed(case: Case, outcome: Outcome) -> Iterator[Problem]:
    wanted = case.expect.processed
    if wanted is None:
        return
    if outcome.processed < 0:
        wanted.node.fail_key("a classic filter is checked, not verified: no instructions are counted")
    if not wanted.low <= outcome.processed <= wanted.high:
        said = str(wanted.low) if wanted.low == wanted.high else render(wanted.node.plain())
        node = wanted.node if not wanted.node.is_table else wanted.node.table.get("max", wanted.node)
        what = "instructions the verifier processes"
        yield Problem(wanted.node, what, said, str(outcome.processed), ((node, outcome.processed),))


# --- packets and state ------------------------------------------------------------------------------------------------


@dataclass
class _Checker:
    """Compares one moment of a run; ``when`` names it."""

    outcome: Outcome
    when: str

    def step(self, index: int, step: Step, found: StepOutcome) -> list[Problem]:
        problems: list[Problem] = []
        if step.expect.verdict is not None:
            problems += self._verdicts(index, step.expect.verdict, [v for _, v in found.packets])
        return problems + self.state(step.expect, dict(found.maps), found.events)

    def state(self, expect: Expect, maps: dict[str, tuple[tuple[bytes, bytes], ...]], events: Events) -> list[Problem]:
        problems: list[Problem] = []
        for name, wanted in expect.maps.items():
            problems += self._any_map(name, wanted, maps)
        codecs = self.outcome.codecs
        for name, said in expect.ring.items():
            problems += self._events(f"ring buffer {name}", said, codecs[name].value, events.ring[name], padded=False)
        for name, said in expect.perf.items():
            problems += self._events(f"perf events {name}", said, codecs[name].value, events.perf[name], padded=True)
        if expect.trace is not None:
            lines = [line.encode() for line in events.trace]
            problems += self._events("trace output", expect.trace, _Lines(), lines, padded=False)
        return problems

    # --- verdicts -----------------------------------------------------------------------------------------------------
    def _verdicts(self, index: int, wanted: VerdictExpect, found: Sequence[Verdict]) -> Iterator[Problem]:
        said = wanted.said
        what = f"{self.when}: verdict"
        if isinstance(said, dict):
            counts = _counted(found)
            if any(counts[word] != said.get(word, 0) for word in COUNTED):
                now = {word: counts[word] for word in COUNTED if counts[word]}
                yield Problem(wanted.node, what, render(said), render(now), ((wanted.node, now),))
            return
        if isinstance(said, list) and len(said) != len(found):
            now_words = _said_of(found)
            yield Problem(wanted.node, what, f"{len(said)} verdicts", f"{len(found)} packets", ((wanted.node, now_words),))
            return
        each = said if isinstance(said, list) else [said] * len(found)
        wrong = [i for i, (s, v) in enumerate(zip(each, found, strict=True)) if not _is(s, v)]
        if wrong:
            yield self._wrong_verdict(index, wanted, each, found, wrong)

    def _wrong_verdict(
        self, index: int, wanted: VerdictExpect, each: list[Any], found: Sequence[Verdict], wrong: list[int]
    ) -> Problem:
        first = wrong[0]
        which = f", number {first + 1} of {len(found)}" if len(found) > 1 else ""
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        node = wanted.node.array[first] if isinstance(wanted.said, list) else wanted.node
        new: Any = [v.word for v in found] if isinstance(wanted.said, list) else _said_of(found)
        what, got = f"{self.when}{which}: verdict", f"{found[first]}{more}"
        return Problem(node, what, _verdict_text(each[first]), got, ((wanted.node, new),), At(index, first))

    # --- maps ---------------------------------------------------------------------------------------------------------
    def _any_map(self, name: str, wanted: MapExpect, maps: Contents) -> Iterator[Problem]:
        """A map, and a map of maps' inner maps."""
        found = dict(maps[name])
        if wanted.has is not None or wanted.lacks is not None:
            yield from self._members(name, wanted, found)
            return
        yield from self._map(name, wanted, found)
        if wanted.elements is not None:
            yield from self._elements(name, wanted.elements, wanted.partly, list(found.values()))
        for key, said in wanted.inner.items():
            inner = inner_name(name, self.outcome.codecs[name], key, said.node)
            if inner in maps:
                yield from self._any_map(inner, said, maps)
            else:
                yield Problem(said.node, f"{self.when}: map {inner}", "a map", "not there")

    def _elements(self, name: str, node: Node, partly: bool, found: list[bytes]) -> Iterator[Problem]:
        """Of a queue or stack, as the records of a ring."""
        said = EventsExpect(tuple(n.plain() for n in node.array), partly, None, node, node, None)
        yield from self._events(f"map {name}", said, self.outcome.codecs[name].value, found, padded=False)

    def _members(self, name: str, wanted: MapExpect, found: dict[bytes, bytes]) -> Iterator[Problem]:
        """Of a bloom filter: what must be in it, and what must not."""
        value = self.outcome.codecs[name].value
        for node, word, is_there in ((wanted.has, "has", True), (wanted.lacks, "lacks", False)):
            values = [] if node is None else [n.plain() for n in node.array]
            wrong = [v for v in values if bool(found[value.encode(v)]) is not is_there]
            if node is not None and wrong:
                what, right = f"{self.when}: map {name} {word}", [v for v in values if v not in wrong]
                told = "not there" if is_there else "there, or one that looks like it"
                yield Problem(node, what, _lines([render(v) for v in wrong]), told, ((node, right),))

    def _map(self, name: str, wanted: MapExpect, found: dict[bytes, bytes]) -> Iterator[Problem]:
        codec = self.outcome.codecs[name]
        what = f"{self.when}: map {name}"
        if wanted.count is not None and wanted.count != len(found):
            node = wanted.count_node or wanted.node
            yield Problem(node, f"{what}: entries", str(wanted.count), str(len(found)), ((node, len(found)),))
        if wanted.entries is None:
            return
        diff = _MapDiff(name, codec, wanted, found)
        if diff.expected:
            node = wanted.entries_node or wanted.node
            yield Problem(
                diff.first or node, what, _lines(diff.expected), _lines(diff.got), ((node, diff.corrected()),)
            )

    # --- events -------------------------------------------------------------------------------------------------------
    def _events(
        self, what: str, wanted: EventsExpect, layout: Layout, found: Sequence[bytes], *, padded: bool
    ) -> Iterator[Problem]:
        what = f"{self.when}: {what}"
        if wanted.count is not None and wanted.count != len(found):
            node = wanted.count_node or wanted.node
            yield Problem(node, f"{what}: number", str(wanted.count), str(len(found)), ((node, len(found)),))
        if wanted.records is None:
            return
        node = wanted.records_node or wanted.node
        try:
            met = _events_met(wanted, layout, found, padded)
        except LayoutError as e:
            node.fail(str(e))
        if not met:
            now = [_said_event(layout, data) for data in found]
            yield Problem(
                node, what, _lines([render(r) for r in wanted.records]), _lines([render(r) for r in now]), ((node, now),)
            )


def _counted(found: Sequence[Verdict]) -> Counter[str]:
    return Counter("trim" if isinstance(v.word, int) else v.word for v in found)


def _is(said: Any, found: Verdict) -> bool:
    if isinstance(said, int):
        return found.seen and found.kept == said
    return bool(found.word == said)


def _verdict_text(said: Any) -> str:
    return f"{said} bytes kept" if isinstance(said, int) else str(said)


def _said_of(found: Sequence[Verdict]) -> Any:
    """How a scenario would say these verdicts: one word, a list, or counts."""
    words = [v.word for v in found]
    if len(set(words)) == 1:
        return words[0]
    return words if len(words) <= MOST_LISTED else {w: n for w in COUNTED if (n := _counted(found)[w])}


def _lines(rows: Sequence[str]) -> str:
    shown = [*rows[:MOST_SHOWN], *([f"... {len(rows) - MOST_SHOWN} more"] if len(rows) > MOST_SHOWN else [])]
    return "\n".join(shown) if shown else "nothing"


class _MapDiff:
    """What differs between a map and what is said of it: lines of ``expected`` and ``got``, and the ``first`` place."""

    def __init__(self, name: str, codec: MapCodec, wanted: MapExpect, found: dict[bytes, bytes]) -> None:
        self.name, self.codec, self.wanted, self.found = name, codec, wanted, found
        self.expected: list[str] = []
        self.got: list[str] = []
        self.first: Node | None = None
        self.keys: dict[bytes, Entry] = {}
        for e in wanted.entries or ():
            self._entry(e)
        if not wanted.partly:
            for key, value in found.items():
                if key not in self.keys and not self._is_blank(value):
                    self._add(f"{self._key(key)}: not there", f"{self._key(key)}: {render(self._value(value))}", None)

    def _entry(self, e: Entry) -> None:
        codec = self.codec
        try:
            key = codec.key_bytes(e.key, is_text=e.key_is_text)
        except LayoutError as wrong:
            e.node.fail_key(f"{self.name}: {wrong}") if e.key_is_text else e.node.fail(f"{self.name}: {wrong}")
        if key in self.keys:
            e.node.fail_key(f"{self.name}: this key is said twice")
        self.keys[key] = e
        value = self.found.get(key)
        try:
            met = value is not None and self._is_met(e, value)
        except LayoutError as wrong:
            e.value_node.fail(f"{self.name}: {wrong}")
        if not met:
            got = "not there" if value is None else render(self._value(value, e.value))
            self._add(f"{self._key(key)}: {render(e.value)}", f"{self._key(key)}: {got}", e.value_node)

    def _is_met(self, e: Entry, value: bytes) -> bool:
        if self.codec.spec.map_type in OF_OBJECTS:
            e.value_node.fail(f"{self.name} holds maps or programs: say count, or inner of maps")
        return self.codec.matches(e.value, value, partly=self.wanted.partly)

    def _add(self, expected: str, got: str, node: Node | None) -> None:
        self.expected.append(expected)
        self.got.append(got)
        self.first = self.first or node

    def _is_blank(self, value: bytes) -> bool:
        """Elements of an array are always there: those of zeros need not be named."""
        return self.codec.is_array and not any(value)

    def _key(self, key: bytes) -> str:
        return render(self.codec.said_key(key))

    def _value(self, value: bytes, like: Any = None) -> Any:
        try:
            return self.codec.said_value(value, like)
        except LayoutError:
            return self.codec.said_value(value, {"per_cpu": []})

    def corrected(self) -> Any:
        """The entries as they would have to be said, in the form they are said in."""
        rows = []
        for key, e in self.keys.items():
            if key in self.found:
                said = e.value if self._met(e, self.found[key]) else self._partial(e.value, self._value(self.found[key], e.value))
                rows.append((e.key, said))
        if not self.wanted.partly:
            for key, value in self.found.items():
                if key not in self.keys and not self._is_blank(value):
                    rows.append((self.codec.said_key(key), self._value(value)))
        node = self.wanted.entries_node
        if node is not None and node.is_table and not any(isinstance(k, dict | list) for k, _ in rows):
            return {str(k): v for k, v in rows}
        return [{"key": k, "value": v} for k, v in rows]

    def _met(self, e: Entry, value: bytes) -> bool:
        return self.codec.matches(e.value, value, partly=self.wanted.partly)

    def _partial(self, said: Any, now: Any) -> Any:
        """With ``match = "subset"``, only the fields that were named."""
        if self.wanted.partly and isinstance(said, dict) and isinstance(now, dict):
            return {k: self._partial(v, now[k]) for k, v in said.items() if k in now}
        return now


class _Lines(Layout):
    """A line of trace output."""

    size = 0

    def encode(self, value: Any) -> bytes:
        return str(value).encode()

    def decode(self, data: bytes) -> Any:
        return data.decode(errors="replace")


def _events_met(wanted: EventsExpect, layout: Layout, found: Sequence[bytes], padded: bool) -> bool:
    records = wanted.records or ()
    if not wanted.partly and len(records) != len(found):
        return False
    at = 0
    for said in records:
        while at < len(found) and not _is_event(layout, said, found[at], padded=padded, partly=wanted.partly):
            if not wanted.partly:
                return False
            at += 1
        if at == len(found):
            return False
        at += 1
    return True


def _is_event(layout: Layout, said: Any, data: bytes, *, padded: bool, partly: bool) -> bool:
    size = layout.size or len(layout.encode(said))
    if padded and len(data) == round_up(size + 4, 8) - 4:
        data = data[:size]  # behind it is what the ring held before
    return len(data) == size and layout.matches(said, data, partly=partly)


def _said_event(layout: Layout, data: bytes) -> Any:
    if isinstance(layout, Hex | _Lines) or len(data) < layout.size:
        return layout.decode(data) if isinstance(layout, _Lines) else data.hex(" ")
    return layout.decode(data[: layout.size])
