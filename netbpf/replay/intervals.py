"""Cutting a stream of packets at the ticks of trace time. Knows batches and timestamps, no program.

The clock starts at the first packet and ticks every ``interval_ns``. A packet whose timestamp lies before the tick that
is running (captures do go back in time) belongs to the interval that is running: what was printed stays true.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from netbpf.packet.batch import PacketBatch

ONE_INTERVAL_NS: Final = 1 << 62  # longer than any trace


class TraceClock:
    """Where the stream stands: ``start_ns`` of the first packet, ``index`` of the running interval."""

    def __init__(self, interval_ns: int) -> None:
        if interval_ns <= 0:
            raise ValueError(f"an interval is a positive time, not {interval_ns} ns")
        self.interval_ns = interval_ns
        self.start_ns = -1
        self.index = 0

    @property
    def started(self) -> bool:
        """Whether a packet was seen."""
        return self.start_ns >= 0

    def pass_to(self, ts_ns: int) -> int:
        """A packet of this time is next: how many intervals end before it."""
        if not self.started:
            self.start_ns = ts_ns
        ticks = max(0, (ts_ns - self.start_ns) // self.interval_ns - self.index)
        self.index += ticks
        return ticks

    @property
    def next_tick_ns(self) -> int:
        """The timestamp at which the running interval ends."""
        return self.start_ns + (self.index + 1) * self.interval_ns

    def pieces(self, ts_ns: array[int]) -> Iterator[tuple[int, int, int]]:
        """(first, end, ticks) runs of packets of one interval; ``ticks`` intervals end before the run begins."""
        if not len(ts_ns):
            return
        latest = max(ts_ns)
        first = 0
        while first < len(ts_ns):
            ticks = self.pass_to(ts_ns[first])
            tick_ns, end = self.next_tick_ns, len(ts_ns)
            if latest >= tick_ns:
                end = next((i for i in range(first, end) if ts_ns[i] >= tick_ns), end)
            yield first, end, ticks
            first = end


def batch_slice(batch: PacketBatch, first: int, end: int) -> PacketBatch:
    """Packets [first, end) of a batch, on the same buffer."""
    if first == 0 and end == len(batch):
        return batch
    return PacketBatch(
        batch.buffer,
        batch.linktype,
        batch.offset[first:end],
        batch.caplen[first:end],
        batch.wirelen[first:end],
        batch.ts_ns[first:end],
        batch.direction[first:end],
        batch.interface[first:end],
        batch.first_number + first,
    )
