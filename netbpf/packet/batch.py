"""Packets on their way to an engine, a column per fact, so that a native loop needs no Python per packet.

``buffer`` is any readable window of memory (a piece of a capture, a ring block, joined frames); packet *i* is
``buffer[offset[i] : offset[i] + caplen[i]]``. Engines turn a row into the context they need (``packet.receive`` holds the
one rule of how the kernel would build the sk_buff) and may compute only what the program reads.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from netbpf.ints import U64_MAX
from netbpf.packet.record import Record


@dataclass(slots=True)
class PacketBatch:
    """Columns of equal length: ``offset`` u64, ``caplen`` and ``wirelen`` u32, ``ts_ns`` u64 (later times, which pcapng can
    hold, modulo 2**64). One link type per batch."""

    buffer: bytes | bytearray | memoryview
    linktype: int = 1
    offset: array[int] = field(default_factory=lambda: array("Q"))
    caplen: array[int] = field(default_factory=lambda: array("I"))
    wirelen: array[int] = field(default_factory=lambda: array("I"))
    ts_ns: array[int] = field(default_factory=lambda: array("Q"))
    direction: bytearray = field(default_factory=bytearray)
    interface: array[int] = field(default_factory=lambda: array("I"))
    first_number: int = 1

    def __len__(self) -> int:
        return len(self.caplen)

    def data(self, i: int) -> bytes:
        """The captured bytes of packet ``i``."""
        start = self.offset[i]
        return bytes(self.buffer[start : start + self.caplen[i]])

    def record(self, i: int) -> Record:
        """Packet ``i`` as a record of its own."""
        direction = self.direction[i] if self.direction else 0
        number = self.first_number + i
        return Record(number, self.ts_ns[i], self.wirelen[i], self.data(i), self.linktype, self.interface[i], direction)

    @classmethod
    def from_rows(
        cls, buffer: bytes, linktype: int, first_number: int, rows: Sequence[tuple[int, int, int, int, int, int]]
    ) -> PacketBatch:
        """A batch of ``(offset, caplen, wirelen, ts_ns, direction, interface)`` rows over ``buffer``."""
        offset, caplen, wirelen, ts_ns, direction, interface = zip(*rows, strict=True) if rows else ((),) * 6
        return cls(
            buffer, linktype, array("Q", offset), array("I", caplen), array("I", wirelen), array("Q", ts_ns),
            bytearray(direction), array("I", interface), first_number,
        )  # fmt: skip

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> PacketBatch:
        """Join records (all of one link type) into a batch."""
        joined = bytearray()
        batch = cls(joined)
        for r in records:
            if not len(batch):
                batch.linktype, batch.first_number = r.linktype, r.number
            batch.offset.append(len(joined))
            batch.caplen.append(len(r.data))
            batch.wirelen.append(r.wirelen)
            batch.ts_ns.append(r.ts_ns & U64_MAX)
            batch.direction.append(r.direction)
            batch.interface.append(r.interface)
            joined += r.data
        return batch
