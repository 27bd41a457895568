"""Two outcomes of one case side by side, the simulator's and the kernel's: what differs, beyond what the scenario expects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from netbpf.abi.maps import MapType
from netbpf.errors import errno_name
from netbpf.scenario.codec import IN_ORDER, OF_OBJECTS, MapCodec
from netbpf.scenario.model import Case
from netbpf.scenario.outcome import Outcome, Rejection
from netbpf.scenario.write import render

MOST: Final = 12
Codecs = Mapping[str, MapCodec]
Records = Mapping[str, tuple[bytes, ...]]


def differences(case: Case, sim: Outcome, kernel: Outcome) -> list[str]:
    """A line for each difference, at most MOST; empty where they agree."""
    return list(islice(_differences(case, sim, kernel), MOST))


def _differences(case: Case, sim: Outcome, kernel: Outcome) -> Iterator[str]:
    if _ending(sim.rejection) != _ending(kernel.rejection):
        yield _line("the load", _ending(sim.rejection), _ending(kernel.rejection))
        return
    if sim.processed != kernel.processed:
        yield _line("instructions processed", str(sim.processed), str(kernel.processed))
    for index, (ours, theirs) in enumerate(zip(sim.steps, kernel.steps, strict=True)):
        for number, ((_, a), (_, b)) in enumerate(zip(ours.packets, theirs.packets, strict=True)):
            if (a.seen, a.kept) != (b.seen, b.kept):
                yield _line(f"packet {index + 1}, number {number + 1}: verdict", str(a), str(b))
    yield from _maps(case, sim, kernel)
    yield from _events("ring buffer", sim.codecs, sim.events.ring, kernel.events.ring)
    yield from _events("perf events", sim.codecs, sim.events.perf, kernel.events.perf)


def _line(what: str, sim: str, kernel: str) -> str:
    return f"{what}: simulator {sim}, kernel {kernel}"


def _ending(rejection: Rejection | None) -> str:
    if rejection is None:
        return "accepts the program"
    return f"refuses the program with {errno_name(rejection.errno)}" + (f" ({rejection.reason})" if rejection.reason else "")


def _maps(case: Case, sim: Outcome, kernel: Outcome) -> Iterator[str]:
    for name, rows in sim.maps.items():
        setup, codec = case.maps.get(name), sim.codecs[name]
        if (setup is not None and not setup.compared) or codec.spec.map_type in OF_OBJECTS:
            continue
        mine, theirs = dict(rows), dict(kernel.maps.get(name, ()))
        for key in sorted(mine.keys() | theirs.keys()):
            a, b = _value(codec, mine.get(key)), _value(kernel.codecs[name], theirs.get(key))
            if a != b:
                yield _line(f"map {name}, {_place(codec, key)}", a, b)


def _place(codec: MapCodec, key: bytes) -> str:
    """Where in a map: a key, the number of an element, or the value that a bloom filter was asked for."""
    if codec.spec.map_type in IN_ORDER:
        return f"element {int.from_bytes(key) + 1}"
    if codec.spec.map_type == MapType.BLOOM_FILTER:
        return f"value {render(codec.value.decode(key))}"
    return f"key {render(codec.said_key(key))}"


def _value(codec: MapCodec, value: bytes | None) -> str:
    """Per-CPU values without the CPUs at the end that have nothing: the machines may have more or fewer."""
    if not value:
        return "no entry"
    copies = codec.copies(value)
    while len(copies) > 1 and not any(copies[-1]):
        copies.pop()
    return " ".join(render(codec.value.decode(c)) for c in copies)


def _events(word: str, codecs: Codecs, sim: Records, kernel: Records) -> Iterator[str]:
    for name, rows in sim.items():
        yield from _rows(f"{word} {name}", _records(codecs[name], rows), _records(codecs[name], kernel.get(name, ())))


def _records(codec: MapCodec, rows: Sequence[bytes]) -> list[str]:
    size = codec.value.size
    return [row[:size].hex(" ") if size else row.hex(" ") for row in rows]


def _rows(what: str, sim: list[str], kernel: list[str]) -> Iterator[str]:
    if len(sim) != len(kernel):
        yield _line(f"{what}: records", str(len(sim)), str(len(kernel)))
    for number, (a, b) in enumerate(zip(sim, kernel, strict=False), 1):
        if a != b:
            yield _line(f"{what}: record {number}", a, b)
