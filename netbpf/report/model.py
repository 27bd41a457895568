"""What the page of a replay shows, as values: gathered by ``collect``, drawn by ``replay_page``. No markup, no live object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

VERDICTS: Final = ("accepted whole", "trimmed", "dropped")
"""The three ends of a packet, in the order in which all columns and counts have them."""


@dataclass(frozen=True, slots=True)
class Bins:
    """A trace cut into steps of ``width_ns`` from the first packet on; every column has a number a step.

    ``packets`` are three columns, in the order of VERDICTS; ``wire_bytes`` were on the wire, ``kept_bytes`` reached the socket.
    """

    width_ns: int
    packets: tuple[list[int], list[int], list[int]]
    wire_bytes: list[int]
    kept_bytes: list[int]

    def __len__(self) -> int:
        return len(self.wire_bytes)


@dataclass(frozen=True, slots=True)
class Curve:
    """One map entry over trace time: its number at each time, None before the entry existed."""

    label: str
    values: list[int | None]


@dataclass(frozen=True, slots=True)
class MapCurves:
    """The counting entries of a map; ``times_s`` since the first packet. ``left_out`` entries are not drawn."""

    map_name: str
    times_s: list[float]
    curves: list[Curve]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class MapRow:
    """An entry in words and in bytes; ``number`` is what entries are ordered by, None where nothing says how."""

    key: str
    value: str
    key_hex: str
    value_hex: str
    number: int | None = None


@dataclass(frozen=True, slots=True)
class MapTable:
    """The top of a map at the end: ``rows`` of ``total`` entries. ``order`` says in words what makes an entry a top one, ``note``
    what else is to be said."""

    name: str
    kind: str
    max_entries: int
    total: int
    rows: list[MapRow]
    order: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class InsnRow:
    """An instruction: the source lines above it, and how often it was executed in the runs that were counted."""

    pc: int
    text: str
    source: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class ProgramListing:
    """A program that ran, the first being the one that was attached."""

    name: str
    rows: list[InsnRow]


@dataclass(frozen=True, slots=True)
class InsnReport:
    """``packets`` were run on the reference interpreter with maps of their own, ``executed`` instructions in all; ``whole``:
    there were no others."""

    packets: int
    executed: int
    whole: bool
    programs: list[ProgramListing]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """All that the page of a replay shows. ``protocols`` rows are (label, counts in the order of VERDICTS), most packets first.
    ``summary`` rows are (what, text); ``warnings`` stand on top."""

    title: str
    packets: int
    bytes: int
    accepted: int
    trimmed: int
    dropped: int
    trace_s: float
    start_ns: int
    engine: str
    seconds: float
    interval_s: float
    summary: list[tuple[str, str]]
    bins: Bins
    map_curves: list[MapCurves]
    protocols: list[tuple[str, tuple[int, int, int]]]
    map_tables: list[MapTable]
    insns: InsnReport
    warnings: list[str] = field(default_factory=list)
