"""The replay: batches of packets through a loaded program, counted per interval of trace time and in all.

Knows batches, a loaded program and its maps; not files, not the terminal. What is done stays done: after an exception
or an interrupt, ``totals`` and the running interval hold every batch that was finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from netbpf.engine.base import Loaded, Verdicts
from netbpf.maps.base import Map
from netbpf.packet.batch import PacketBatch
from netbpf.replay.intervals import TraceClock, batch_slice
from netbpf.replay.snapshot import Entry, counter_line, entries

MAX_IDLE_INTERVALS = 60
MAX_INTERVAL_ENTRIES = 256

Sink = Callable[[PacketBatch, Verdicts], None]


@dataclass(slots=True)
class Counts:
    """``bytes`` are those on the wire. ``trimmed`` are accepted packets that lost bytes to the verdict."""

    packets: int = 0
    bytes: int = 0
    accepted: int = 0
    dropped: int = 0
    trimmed: int = 0

    def add(self, batch: PacketBatch, verdicts: Verdicts) -> None:
        n = len(batch)
        dropped = verdicts.verdict.count(0)
        self.packets += n
        self.bytes += sum(batch.wirelen)
        self.dropped += dropped
        self.accepted += n - dropped
        self.trimmed += sum(verdicts.trimmed)


@dataclass(slots=True)
class Interval:
    """One tick's worth: ``start_s`` since the first packet; ``maps`` as they stood at its end, None where a map holds
    more than MAX_INTERVAL_ENTRIES; ``line`` is what the manual page's loop would print. ``skipped`` idle intervals that
    came before it are not told one by one."""

    start_s: float
    seconds: float
    counts: Counts
    line: str = ""
    maps: dict[str, list[Entry] | None] = field(default_factory=dict)
    skipped: int = 0


class Replay:
    """One run of a program over a stream. ``totals`` and ``last_ts_ns`` tell what is done."""

    def __init__(self, loaded: Loaded, maps: Mapping[str, Map], *, interval_ns: int = 1_000_000_000, sink: Sink | None = None) -> None:
        self.loaded, self.maps, self.sink = loaded, maps, sink
        self.clock = TraceClock(interval_ns)
        self.totals, self.current = Counts(), Counts()
        self.last_ts_ns = 0

    def run(self, batches: Iterable[PacketBatch]) -> Iterator[Interval]:
        """Run the batches in order; yields each interval when trace time passes its end."""
        for batch in batches:
            for first, end, ticks in self.clock.pieces(batch.ts_ns):
                if ticks:
                    yield from self._close(ticks)
                self._step(batch_slice(batch, first, end))

    def finish(self) -> Interval:
        """The interval that was running when the stream ended."""
        return self._interval(self.clock.index, self.current)

    def _step(self, batch: PacketBatch) -> None:
        verdicts = self.loaded.run(batch)
        for counts in (self.totals, self.current):
            counts.add(batch, verdicts)
        self.last_ts_ns = max(self.last_ts_ns, batch.ts_ns[-1])
        if self.sink:
            self.sink(batch, verdicts)

    def _close(self, ticks: int) -> Iterator[Interval]:
        """The interval that ended, then the idle ones; past MAX_IDLE_INTERVALS only the last one is told."""
        index = self.clock.index - ticks
        yield self._interval(index, self.current)
        self.current = Counts()
        skipped = ticks - 1 if ticks - 1 > MAX_IDLE_INTERVALS else 0
        if skipped:
            idle = self._interval(self.clock.index - 1, Counts())
            idle.skipped = skipped - 1
            yield idle
            return
        for i in range(index + 1, self.clock.index):
            yield self._interval(i, Counts())

    def _interval(self, index: int, counts: Counts) -> Interval:
        seconds = self.clock.interval_ns / 1e9
        return Interval(index * seconds, seconds, counts, counter_line(self.maps), {n: _few(m) for n, m in self.maps.items()})


def _few(m: Map) -> list[Entry] | None:
    rows = entries(m, MAX_INTERVAL_ENTRIES + 1)
    return rows if len(rows) <= MAX_INTERVAL_ENTRIES else None
