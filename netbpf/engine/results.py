"""What comes of packets that were moved through a program: of each packet of a batch, and of a stream."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netbpf.packet.batch import PacketBatch


@dataclass(slots=True)
class Verdicts:
    """``verdict[i]``: r0 as u32 of packet *i* (0 drops, n keeps n bytes); ``kept[i]``: bytes that reach the socket,
    min(verdict, skb->len); ``trimmed[i]``: 1 where an accepted packet lost bytes to its verdict."""

    verdict: array[int] = field(default_factory=lambda: array("I"))
    kept: array[int] = field(default_factory=lambda: array("I"))
    trimmed: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Totals:
    """What became of a stream. ``bytes`` are those on the wire; ``trimmed`` are accepted packets that lost bytes to the
    verdict; ``last_ns`` is the latest timestamp."""

    packets: int = 0
    bytes: int = 0
    accepted: int = 0
    dropped: int = 0
    trimmed: int = 0
    last_ns: int = 0

    def add(self, batch: PacketBatch, verdicts: Verdicts) -> None:
        """Count a batch and what became of it."""
        n, dropped = len(batch), verdicts.verdict.count(0)
        self.packets += n
        self.bytes += sum(batch.wirelen)
        self.dropped += dropped
        self.accepted += n - dropped
        self.trimmed += sum(verdicts.trimmed)
        self.last_ns = max(self.last_ns, max(batch.ts_ns, default=0))
