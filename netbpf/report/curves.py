"""Map entries that count, over trace time: kept at the ends of intervals, thinned to a bounded number of points.

Knows intervals of a replay and maps by their user-space side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from netbpf.maps.base import ReadableMap
from netbpf.replay.core import Interval
from netbpf.replay.snapshot import counts_protocols
from netbpf.report.map_tables import Typed, entry_label, measure_of
from netbpf.report.model import Curve, MapCurves

MAX_POINTS: Final = 360
MAX_CURVES: Final = 6


class EntryCurves:
    """The entries of one map; a map that held more entries than an interval tells has no curves from then on."""

    def __init__(self, name: str, m: ReadableMap, typed: Typed | None) -> None:
        self.name, self._map, self._typed = name, m, typed
        self._measure, order = measure_of(m, typed)
        self._counts = bool(order)
        self._every, self._seen = 1, 0  # of the points given, each _every-th is kept
        self._points: list[tuple[float, dict[bytes, int]]] = []
        self._last: tuple[float, dict[bytes, int]] | None = None

    def add(self, interval: Interval) -> None:
        """The map as it stood at the end of an interval."""
        rows = interval.maps.get(self.name)
        if not self._counts or rows is None:
            self._counts, self._points, self._last = False, [], None
            return
        self._last = (interval.start_s + interval.seconds, {key: self._measure(value) for key, value in rows})
        self._seen += 1
        if self._seen % self._every:
            return
        self._points.append(self._last)
        if len(self._points) >= MAX_POINTS:
            self._points, self._every = self._points[1::2], self._every * 2

    def result(self) -> MapCurves | None:
        """The entries that changed, those that counted most; None where none did."""
        points = self._points
        if self._last is not None and (not points or points[-1] is not self._last):
            points = [*points, self._last]
        if not points:
            return None
        last = points[-1][1]
        moved = [key for key, n in last.items() if n and any(at.get(key) != n for _, at in points)] or (
            [key for key, n in last.items() if n] if len(points) == 1 else []
        )
        if not moved:
            return None
        chosen = sorted(moved, key=lambda key: -last[key])[:MAX_CURVES]
        protocols = counts_protocols(self._map, list(last))
        curves = [Curve(entry_label(k, self._typed, protocols), [at.get(k) for _, at in points]) for k in chosen]
        return MapCurves(self.name, [t for t, _ in points], curves, len(moved) - len(chosen))


def curves_of(maps: Mapping[str, ReadableMap], typed: Mapping[str, Typed]) -> list[EntryCurves]:
    """One for each map."""
    return [EntryCurves(name, m, typed.get(name)) for name, m in maps.items()]
