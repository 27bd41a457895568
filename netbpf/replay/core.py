"""The replay: batches of packets through a loaded program, counted per interval of trace time and in all.

Knows batches, a loaded program and its maps; not files, not the terminal. What is done stays done: after an exception
or an interrupt, ``totals`` and the running interval hold every piece that was finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from netbpf.engine.base import Loaded, WindowWalker
from netbpf.engine.results import Totals, Verdicts
from netbpf.maps.base import ReadableMap
from netbpf.packet.batch import PacketBatch
from netbpf.packet.capture import CaptureReader, Window
from netbpf.packet.sink import CaptureWriter
from netbpf.replay.intervals import TraceClock, batch_slice
from netbpf.replay.snapshot import Entry, counter_line, entries

MAX_IDLE_INTERVALS = 60
MAX_INTERVAL_ENTRIES = 256
BATCH_PACKETS = 4096
NO_LIMIT = 1 << 62

Sink = Callable[[PacketBatch, Verdicts], None]


class PacketOutput(Protocol):
    """Where accepted packets go; ``writer`` is there when the first packets come."""

    writer: CaptureWriter | None

    def write(self, batch: PacketBatch, verdicts: Verdicts) -> None:
        """Append what the verdicts accept."""


@dataclass(slots=True)
class Interval:
    """One tick's worth: ``start_s`` since the first packet; ``maps`` as they stood at its end, None where a map holds
    more than MAX_INTERVAL_ENTRIES; ``line`` is what the manual page's loop would print. ``skipped`` idle intervals that
    came before it are not told one by one."""

    start_s: float
    seconds: float
    counts: Totals
    line: str = ""
    maps: dict[str, list[Entry] | None] = field(default_factory=dict)
    skipped: int = 0


class Replay:
    """One run of a program over a stream. ``totals`` tells what is done, at any moment.

    ``sink`` is given every batch and its verdicts; without one, an engine that walks windows of a capture by itself does so.
    ``output`` takes what was accepted: batches, or from such an engine whole records.
    ``on_progress`` is called after every piece.
    """

    def __init__(
        self,
        loaded: Loaded,
        maps: Mapping[str, ReadableMap],
        *,
        interval_ns: int = 1_000_000_000,
        limit: int | None = None,
        sink: Sink | None = None,
        output: PacketOutput | None = None,
    ) -> None:
        self.loaded, self.maps, self.sink, self.output, self.limit = loaded, maps, sink, output, limit
        self.clock = TraceClock(interval_ns)
        self.totals = Totals()
        self.on_progress: Callable[[], None] = _nothing
        self._before = Totals()  # totals when the running interval began

    @property
    def finished(self) -> bool:
        """Whether the limit of packets is reached."""
        return self.limit is not None and self.totals.packets >= self.limit

    def run(self, reader: CaptureReader) -> Iterator[Interval]:
        """Run a capture; yields each interval when trace time passes its end. Raises CaptureError after the last good packet."""
        walker = self.loaded if isinstance(self.loaded, WindowWalker) and self.sink is None else None
        for piece in reader.windows() if walker else reader.batches(BATCH_PACKETS):
            if walker and isinstance(piece, Window):
                yield from self._walk(walker, piece)
            elif isinstance(piece, PacketBatch):
                yield from self._run_batch(piece)
            self.on_progress()
            if self.finished:
                return

    def _run_batch(self, batch: PacketBatch) -> Iterator[Interval]:
        """Run a batch, in pieces that end at the ticks of trace time."""
        if self.limit is not None:
            batch = batch_slice(batch, 0, min(len(batch), self.limit - self.totals.packets))
        for first, end, ticks in self.clock.pieces(batch.ts_ns):
            if ticks:
                yield from self._close(ticks)
            piece = batch_slice(batch, first, end)
            verdicts = self.loaded.run(piece)
            self.totals.add(piece, verdicts)
            if self.sink:
                self.sink(piece, verdicts)
            if self.output:
                self.output.write(piece, verdicts)

    def _walk(self, walker: WindowWalker, window: Window) -> Iterator[Interval]:
        """Have the engine walk a window, from tick to tick."""
        writer = self.output.writer if self.output else None
        if writer is not None and not all(writer.takes_raw(i.linktype) for i in window.layout.interfaces):
            return
        while window.start < window.end and walker.can_walk(window.layout) and not self.finished:
            left = NO_LIMIT if self.limit is None else self.limit - self.totals.packets
            stop_ns = self.clock.next_tick_ns if self.clock.started else 0
            next_ns = walker.walk(window, self.totals, stop_ns=stop_ns, max_packets=left, output=writer)
            if next_ns is None:
                return
            ticks = self.clock.pass_to(next_ns)
            if ticks:
                yield from self._close(ticks)

    def finish(self) -> Interval:
        """The interval that was running when the stream ended."""
        return self._interval(self.clock.index, self._current())

    def _current(self) -> Totals:
        """What the running interval has seen."""
        t, b = self.totals, self._before
        return Totals(
            t.packets - b.packets, t.bytes - b.bytes, t.accepted - b.accepted, t.dropped - b.dropped, t.trimmed - b.trimmed
        )

    def _close(self, ticks: int) -> Iterator[Interval]:
        """The interval that ended, then the idle ones; past MAX_IDLE_INTERVALS only the last one is told."""
        index = self.clock.index - ticks
        yield self._interval(index, self._current())
        self._before = replace(self.totals)
        skipped = ticks - 1 if ticks - 1 > MAX_IDLE_INTERVALS else 0
        if skipped:
            idle = self._interval(self.clock.index - 1, Totals())
            idle.skipped = skipped - 1
            yield idle
            return
        for i in range(index + 1, self.clock.index):
            yield self._interval(i, Totals())

    def _interval(self, index: int, counts: Totals) -> Interval:
        seconds = self.clock.interval_ns / 1e9
        return Interval(index * seconds, seconds, counts, counter_line(self.maps), {n: _few(m) for n, m in self.maps.items()})


def _nothing() -> None: ...


def _few(m: ReadableMap) -> list[Entry] | None:
    rows = entries(m, MAX_INTERVAL_ENTRIES + 1)
    return rows if len(rows) <= MAX_INTERVAL_ENTRIES else None
