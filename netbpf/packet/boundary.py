"""Where records begin, guessed in the middle of a capture. A guess is right unless packets hold what looks like a capture: who
walks from it has to see that the walk of what lies before ends there.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

from netbpf.packet.layout import RecordLayout
from netbpf.packet.pcapng import EPB, MAX_BLOCK_BYTES, MIN_BLOCK_BYTES, OPB, SPB

NEAR: Final = 16_384  # most captures have a record that begins so near
REACH: Final = 400_000  # longer than any record of a packet
CHAIN: Final = 8  # records in a row that look like records
LARGEST_WIRELEN: Final = 1 << 20
SECONDS_AROUND: Final = 10 * 366 * 86400
PACKET_BLOCKS: Final = frozenset({EPB, SPB, OPB, 4, 5})


class RecordFinder:
    """Finds records of one layout in ``data``, a capture from ``first`` on; ``near_s`` is about when it was taken."""

    def __init__(self, data: mmap.mmap, first: int, layout: RecordLayout, near_s: int) -> None:
        self._data, self._first, self._layout, self._near_s = data, first, layout, near_s
        order = "<" if layout.byteorder == "little" else ">"
        self._words, self._two = struct.Struct(order + "IIII").unpack_from, struct.Struct(order + "II").unpack_from
        self._one = struct.Struct(order + "I").unpack_from
        self._after = self._after_record if layout.kind == "pcap" else self._after_block

    def crossing(self, limit: int, least: int) -> int:
        """Where the record begins that ends behind ``limit``, not before ``least``; -1 where none can be told."""
        near = self._crossing_from(max(least, limit - NEAR), limit)
        return near if near >= 0 else self._crossing_from(max(least, limit - REACH), limit)

    def _crossing_from(self, at: int, limit: int) -> int:
        step = 1 if self._layout.kind == "pcap" else 4
        at += (self._first - at) % step
        while at < limit and not self._begins(at):
            at += step
        while at < limit:
            after = self._after(at)
            if after <= at or after > limit:
                return at
            at = after
        return at if at == limit else -1

    def _begins(self, at: int) -> bool:
        for _ in range(CHAIN):
            at = self._after(at)
            if at < 0 or at == len(self._data):
                break
        return at >= 0

    def _after_record(self, at: int) -> int:
        """Behind the record that begins at ``at``; -1 where none seems to."""
        layout = self._layout
        data = at + layout.header_bytes
        if data > len(self._data):
            return -1
        seconds, fraction, caplen, wirelen = self._words(self._data, at)
        if layout.wirelen_first:
            caplen, wirelen = wirelen, caplen
        sane = caplen <= min(wirelen, layout.max_caplen) and wirelen <= LARGEST_WIRELEN
        timely = fraction * layout.interfaces[0].ts_multiplier < 1_000_000_000 and abs(seconds - self._near_s) < SECONDS_AROUND
        return data + caplen if sane and timely else -1

    def _after_block(self, at: int) -> int:
        if at + MIN_BLOCK_BYTES > len(self._data):
            return -1
        kind, total = self._two(self._data, at)
        if kind not in PACKET_BLOCKS or total % 4 or not MIN_BLOCK_BYTES <= total <= MAX_BLOCK_BYTES:
            return -1
        if at + total > len(self._data):
            return -1
        return at + total if self._one(self._data, at + total - 4)[0] == total else -1
