"""Gathers what the page of a replay shows while it runs, in memory that does not grow with the trace.

A collector is a sink of the replay (every batch and its verdicts) and is told every interval.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from netbpf import __version__
from netbpf.abi.prog_types import PROG_TYPES
from netbpf.engine.results import Verdicts
from netbpf.packet.batch import PacketBatch
from netbpf.program import ProgramSpec
from netbpf.replay.core import Interval, Replay
from netbpf.replay.report import trace_seconds
from netbpf.report.bins import TimeBins
from netbpf.report.curves import curves_of
from netbpf.report.instructions import InsnCounter
from netbpf.report.map_tables import map_tables
from netbpf.report.model import VERDICTS, ReplayReport
from netbpf.report.protocols import labels

if TYPE_CHECKING:
    from netbpf.replay.lab_session import LabSession
    from netbpf.replay.session import Session

MAX_LABELS: Final = 48
OTHER: Final = "other"
DROPPED: Final = VERDICTS.index("dropped")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the page says of a run beside its counts: captures and program as the user named them, the engine, the seconds that
    the run took, what went wrong."""

    captures: list[str]
    program: str
    engine: str
    seconds: float
    warnings: list[str] = field(default_factory=list)


class Collector:
    """``session`` is the one that is replayed, ``spec`` its program; ``insns`` counts instructions in a session of its own."""

    def __init__(self, spec: ProgramSpec, session: Session | LabSession, insns: InsnCounter) -> None:
        from netbpf.replay.typed import map_formatters

        self._spec, self._typed = spec, map_formatters(spec)
        self._bins = TimeBins()
        self._protocols: Counter[tuple[str, int]] = Counter()
        self._labels: set[str] = set()
        self._curves = curves_of(session.maps, self._typed)
        self._insns = insns

    def add(self, batch: PacketBatch, verdicts: Verdicts) -> None:
        """A batch and what became of it."""
        ends = [trimmed if verdict else DROPPED for verdict, trimmed in zip(verdicts.verdict, verdicts.trimmed, strict=True)]
        self._bins.add(batch.ts_ns, batch.wirelen, verdicts.kept, ends)
        self._protocols.update(zip(self._bounded(labels(batch)), ends, strict=True))
        self._insns.add(batch)

    def _bounded(self, found: list[str]) -> list[str]:
        """Labels beyond MAX_LABELS different ones count together."""
        new = set(found) - self._labels
        if new:
            self._labels |= set(sorted(new)[: MAX_LABELS - len(self._labels)])
            return [label if label in self._labels else OTHER for label in found]
        return found

    def tell(self, interval: Interval) -> None:
        """An interval has ended."""
        for curve in self._curves:
            curve.add(interval)

    def report(self, replay: Replay, facts: RunFacts) -> ReplayReport:
        """All of it, when the replay has ended."""
        t = replay.totals
        return ReplayReport(
            title=f"{facts.program} over {', '.join(facts.captures)}",
            packets=t.packets,
            bytes=t.bytes,
            accepted=t.accepted,
            trimmed=t.trimmed,
            dropped=t.dropped,
            trace_s=trace_seconds(replay),
            start_ns=max(0, replay.clock.start_ns),
            engine=facts.engine,
            seconds=facts.seconds,
            interval_s=replay.clock.interval_ns / 1e9,
            summary=self._summary(replay, facts),
            bins=self._bins.result(),
            map_curves=[found for curve in self._curves if (found := curve.result()) is not None],
            protocols=self._mix(),
            map_tables=map_tables(replay.maps, self._typed),
            insns=self._insns.result(),
            warnings=facts.warnings,
        )

    def _mix(self) -> list[tuple[str, tuple[int, int, int]]]:
        rows: dict[str, list[int]] = {}
        for (label, end), n in self._protocols.items():
            rows.setdefault(label, [0, 0, 0])[end] += n
        return sorted(((label, (a, b, c)) for label, (a, b, c) in rows.items()), key=lambda row: (-sum(row[1]), row[0]))

    def _summary(self, replay: Replay, facts: RunFacts) -> list[tuple[str, str]]:
        t, spec = replay.totals, self._spec
        speed = f", {t.packets / facts.seconds:,.0f} packets/s" if facts.seconds > 0 else ""
        return [
            ("Capture", ", ".join(facts.captures)),
            ("First packet", _utc(replay.clock.start_ns) if t.packets else "none"),
            ("Trace time", f"{trace_seconds(replay):.3f} s"),
            ("Program", facts.program),
            ("Name and type", f"{spec.name or '(no name)'}, {_kind(spec)}, license {spec.license or 'none'}"),
            ("Size", f"{len(spec.insns)} instruction slots, {len(spec.maps)} map{'' if len(spec.maps) == 1 else 's'}"),
            ("Engine", f"{facts.engine}: {facts.seconds:.3f} s{speed}, this report's own counting included"),
            ("Written by", f"netbpf {__version__}"),
        ]


def _utc(ts_ns: int) -> str:
    return datetime.fromtimestamp(ts_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S") + f".{ts_ns // 10**6 % 1000:03} UTC"


def _kind(spec: ProgramSpec) -> str:
    if spec.classic:
        return f"classic filter of {len(spec.classic)} instructions"
    return PROG_TYPES[spec.prog_type].name if spec.prog_type in PROG_TYPES else f"type {spec.prog_type}"
