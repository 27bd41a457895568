"""Counts over trace time in bounded memory: steps that get wider as the trace gets longer.

Each width divides the next one, so that steps are merged whole and no count is ever split. Knows timestamps and lengths only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from netbpf.report.model import Bins

MAX_BINS: Final = 360
_US, _MS, _S, _MIN, _H = 10**3, 10**6, 10**9, 60 * 10**9, 3600 * 10**9
WIDTHS_NS: Final = (
    *(m * unit for unit in (_US, _MS) for m in (1, 2, 10, 20, 100, 200)),
    *(m * _S for m in (1, 2, 10, 20)),
    *(m * _MIN for m in (1, 2, 10, 20)),
    *(m * _H for m in (1, 2, 6, 12, 24)),
    *(24 * _H << doublings for doublings in range(1, 32)),
)
"""Widths of a step in nanoseconds; the last one spans more than any 64-bit timestamp."""

assert all(wide % narrow == 0 for narrow, wide in pairwise(WIDTHS_NS))


def merge(column: list[int], factor: int) -> list[int]:
    """Sums of ``factor`` neighbours each."""
    return [sum(column[i : i + factor]) for i in range(0, len(column), factor)]


class TimeBins:
    """The columns of a :class:`Bins` while they grow; at most MAX_BINS steps at any time."""

    def __init__(self) -> None:
        self.start_ns = -1
        self._width = 0  # index into WIDTHS_NS
        self._columns: list[list[int]] = [[], [], [], [], []]  # three verdicts, wire bytes, kept bytes

    @property
    def width_ns(self) -> int:
        return WIDTHS_NS[self._width]

    def add(self, ts_ns: Sequence[int], wirelen: Sequence[int], kept: Sequence[int], ends: Sequence[int]) -> None:
        """Count packets, a column a fact; ``ends`` are indexes into VERDICTS. A time before the first packet's counts as its."""
        if not len(ts_ns):
            return
        if self.start_ns < 0:
            self.start_ns = ts_ns[0]
        start = self.start_ns
        self._reach(max(0, max(ts_ns) - start))
        width, (whole, trimmed, dropped, wire, bytes_kept) = self.width_ns, self._columns
        packets = (whole, trimmed, dropped)
        for ts, length, keep, end in zip(ts_ns, wirelen, kept, ends, strict=True):
            i = (ts - start) // width if ts > start else 0
            packets[end][i] += 1
            wire[i] += length
            bytes_kept[i] += keep

    def _reach(self, offset_ns: int) -> None:
        """Have a step for ``offset_ns``; widen all steps until there is room."""
        width = self._width
        while offset_ns // WIDTHS_NS[width] >= MAX_BINS:
            width += 1
        if width != self._width:
            factor = WIDTHS_NS[width] // self.width_ns
            self._columns = [merge(column, factor) for column in self._columns]
            self._width = width
        missing = offset_ns // self.width_ns + 1 - len(self._columns[0])
        if missing > 0:
            for column in self._columns:
                column += [0] * missing

    def result(self) -> Bins:
        """The columns as they stand."""
        whole, trimmed, dropped, wire, kept = self._columns
        return Bins(self.width_ns, (whole, trimmed, dropped), wire, kept)
