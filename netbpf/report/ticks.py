"""Numbers for axes: round ticks, units of time, short figures. Pure."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_SI: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def nice_step(span: float, most: int) -> float:
    """The smallest round step of which at most ``most`` fit into ``span``."""
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    return next((s * power for s in _STEPS if s * power >= raw * (1 - 1e-9)), 10 * power)


def ticks(top: float, most: int = 4, *, whole: bool = False) -> list[float]:
    """0 and round numbers up to the first that is at least ``top``; whole numbers only where asked for."""
    if top <= 0:
        return [0.0, 1.0]
    step = nice_step(top, most)
    if whole:
        step = float(max(1, math.ceil(step)))
    return [i * step for i in range(math.ceil(top / step - 1e-9) + 1)]


class TimeUnit(NamedTuple):
    """A unit of trace time and the steps its ticks may have; none for round decimals."""

    name: str
    seconds: float
    steps: tuple[int, ...] = ()


_UNITS: Final = (
    TimeUnit("days", 86400.0),
    TimeUnit("h", 3600.0, (1, 2, 3, 6, 12, 24)),
    TimeUnit("min", 60.0, (1, 2, 5, 10, 15, 20, 30, 60)),
    TimeUnit("s", 1.0),
    TimeUnit("ms", 1e-3),
    TimeUnit("µs", 1e-6),
)
_AT_LEAST: Final = 3.0  # of a unit, for it to be the one an axis is told in


def time_unit(span_s: float) -> TimeUnit:
    """The unit to tell times up to ``span_s`` in."""
    return next((u for u in _UNITS if span_s >= _AT_LEAST * u.seconds), _UNITS[-1])


def time_ticks(span_s: float, most: int = 8) -> tuple[TimeUnit, list[float]]:
    """The unit and the ticks, in seconds, that lie within ``span_s``."""
    unit = time_unit(span_s)
    span = span_s / unit.seconds
    step = next((float(s) for s in unit.steps if span / s <= most), 0.0) or nice_step(span or 1.0, most)
    return unit, [i * step * unit.seconds for i in range(math.floor(span / step + 1e-9) + 1)]


def si(value: float) -> str:
    """``1.25 M``; numbers below 10000 in full."""
    if abs(value) < 10_000:
        return plain(value)
    factor, prefix = next((f, p) for f, p in _SI if abs(value) >= f)
    return f"{value / factor:.3g} {prefix}"


def plain(value: float) -> str:
    """A number without needless digits: ``0.25``, ``12.5``, ``3,200``."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def duration(seconds: float) -> str:
    """``9.43 s``, ``20 ms``, ``2.5 h``: in a unit that fits."""
    if seconds <= 0:
        return "0 s"
    unit = next((u for u in _UNITS if seconds >= u.seconds), _UNITS[-1])
    return f"{seconds / unit.seconds:.4g} {unit.name if unit.name != 'days' or seconds >= 2 * 86400 else 'day'}"
