"""Plots as inline SVG: stacked steps, step lines, lines with marks, bars. Each is drawn twice, for wide and for narrow screens,
and the style sheet shows one of them, so that text has its size on both.

Nothing is told by colour alone: areas have hatches, lines dashes and marks, and all have words. Knows numbers and labels only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from netbpf.report.html import Markup, element, join
from netbpf.report.ticks import si, ticks, time_ticks

MARKS: Final = 9  # on a line with many points
MARK_RADIUS: Final = 4.0
BAR_HEIGHT: Final = 24
SERIES_STYLES: Final = 6  # as many as the style sheet has


class Size(NamedTuple):
    """A drawing's size and the room around its plot, in CSS pixels at full size; ``name`` is its class."""

    name: str
    width: int
    height: int
    left: int = 56
    right: int = 16
    top: int = 10
    bottom: int = 38
    x_ticks: int = 9


WIDE: Final = Size("wide", 860, 230)
NARROW: Final = Size("narrow", 360, 210, left=46, right=8, x_ticks=4)
SIZES: Final = (WIDE, NARROW)


class Axes(NamedTuple):
    """The map from (seconds, value) to a drawing's pixels."""

    size: Size
    span_s: float
    top: float

    def x(self, seconds: float) -> float:
        inner = self.size.width - self.size.left - self.size.right
        return self.size.left + inner * (seconds / self.span_s if self.span_s > 0 else 0.0)

    def y(self, value: float) -> float:
        inner = self.size.height - self.size.top - self.size.bottom
        return self.size.height - self.size.bottom - inner * value / self.top


Draw = Callable[[Axes], Markup]


def time_plot(label: str, span_s: float, top: float, draw: Draw, *, whole: bool = False) -> Markup:
    """Both drawings of a plot over trace time. ``label`` says in words what is to be seen, ``top`` is the largest value;
    ``whole`` where values are whole numbers."""
    values = ticks(top, whole=whole)
    drawings = []
    for size in SIZES:
        axes = Axes(size, span_s, values[-1])
        parts = [_grid(axes, values), draw(axes), _time_axis(axes), _guide(size)]
        drawings.append(_svg(size, size.height, parts, label, focusable=True))
    return join(drawings)


def _svg(size: Size, height: float, parts: object, label: str, *, focusable: bool = False) -> Markup:
    edges = {"data_left": size.left, "data_right": size.width - size.right} if focusable else {}
    return element(
        "svg", parts, class_=size.name, viewBox=f"0 0 {size.width} {_n(height)}", role="img", aria_label=label,
        tabindex=0 if focusable else None, **edges,
    )  # fmt: skip


def _grid(axes: Axes, values: Sequence[float]) -> Markup:
    size, parts = axes.size, []
    for value in values:
        y = axes.y(value)
        kind = "base" if value == 0 else "grid"
        parts.append(element("line", x1=size.left, x2=size.width - size.right, y1=_n(y), y2=_n(y), class_=kind))
        parts.append(element("text", si(value), x=size.left - 6, y=_n(y + 4), class_="end"))
    return join(parts)


def _time_axis(axes: Axes) -> Markup:
    size = axes.size
    unit, at = time_ticks(axes.span_s, size.x_ticks)
    floor = size.height - size.bottom
    parts = []
    for seconds in at:
        x = axes.x(seconds)
        parts.append(element("line", x1=_n(x), x2=_n(x), y1=floor, y2=floor + 4, class_="base"))
        parts.append(element("text", f"{seconds / unit.seconds:.4g}", x=_n(x), y=floor + 17, class_="mid"))
    middle = (size.left + size.width - size.right) / 2
    words = f"trace time since the first packet ({unit.name})"
    parts.append(element("text", words, x=_n(middle), y=size.height - 4, class_="mid"))
    return join(parts)


def _guide(size: Size) -> Markup:
    return element("line", x1=0, x2=0, y1=size.top, y2=size.height - size.bottom, class_="guide", visibility="hidden")


# --- steps --------------------------------------------------------------------------------------------------------------


def stacked_steps(columns: Sequence[Sequence[float]], step_s: float, classes: Sequence[str]) -> Draw:
    """Areas on top of each other, the first at the bottom; a value lasts ``step_s``."""

    def draw(axes: Axes) -> Markup:
        floor: list[float] = [0.0] * len(columns[0])
        parts = []
        for column, kind in zip(columns, classes, strict=True):
            roof = [a + b for a, b in zip(floor, column, strict=True)]
            if any(column):
                there, back = _steps(axes, roof, step_s), _steps(axes, floor, step_s)[::-1]
                parts.append(element("path", d=_polyline(there + back) + "Z", class_=f"area {kind}"))
            floor = roof
        return join(parts)

    return draw


def step_line(column: Sequence[float], step_s: float, series: int) -> Draw:
    """An outline of steps in the style of series number ``series``."""
    return lambda axes: element("path", d=_polyline(_steps(axes, column, step_s)), class_=f"line s{series}")


def _steps(axes: Axes, column: Sequence[float], step_s: float) -> list[tuple[float, float]]:
    """The corners of steps, runs of equal values as one; the last step ends with the trace."""
    corners: list[tuple[float, float]] = []
    for i, value in enumerate(column):
        y = axes.y(value)
        if not corners or corners[-1][1] != y:
            x = axes.x(min(i * step_s, axes.span_s))
            if corners:
                corners.append((x, corners[-1][1]))
            corners.append((x, y))
    if corners:
        corners.append((axes.x(axes.span_s), corners[-1][1]))
    return corners


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_n(x)},{_n(y)}" for x, y in points)


def together(*draws: Draw) -> Draw:
    """Several drawings on the same axes."""
    return lambda axes: join([draw(axes) for draw in draws])


# --- lines --------------------------------------------------------------------------------------------------------------


def marked_line(times_s: Sequence[float], values: Sequence[int | None], series: int) -> Draw:
    """A line through the points that have a value, with the marks of its series at some of them."""

    def draw(axes: Axes) -> Markup:
        points = [(axes.x(t), axes.y(v)) for t, v in zip(times_s, values, strict=True) if v is not None]
        every = max(1, len(points) // MARKS)
        marks = "".join(mark(series, x, y) for x, y in points[every - 1 :: every])
        line = element("path", d=_polyline(points), class_=f"line s{series}")
        return join(line, element("path", d=marks, class_=f"mark s{series}"))

    return draw


def mark(series: int, x: float, y: float, r: float = MARK_RADIUS) -> str:
    """The path of a series' mark: disc, square, triangle, diamond, cross, triangle downwards."""
    shape = series % SERIES_STYLES
    if shape == 0:
        return f"M{_n(x - r)},{_n(y)}a{r},{r} 0 1 0 {2 * r},0a{r},{r} 0 1 0 {-2 * r},0Z"
    corners = _MARK_CORNERS[shape - 1]
    return "M" + "L".join(f"{_n(x + r * dx)},{_n(y + r * dy)}" for dx, dy in corners) + "Z"


_CROSS: Final = ((-1.0, -0.35), (-0.35, -0.35), (-0.35, -1.0), (0.35, -1.0), (0.35, -0.35), (1.0, -0.35))
_MARK_CORNERS: Final[tuple[tuple[tuple[float, float], ...], ...]] = (
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0.0, -1.1), (1.05, 0.8), (-1.05, 0.8)),
    ((0.0, -1.25), (1.1, 0.0), (0.0, 1.25), (-1.1, 0.0)),
    (*_CROSS, *((-dx, -dy) for dx, dy in _CROSS)),
    ((0.0, 1.1), (1.05, -0.8), (-1.05, -0.8)),
)


# --- bars ---------------------------------------------------------------------------------------------------------------


class Bar(NamedTuple):
    """A row of a bar plot: ``parts`` are (class of the fill, value) from the left, ``note`` the words behind it."""

    label: str
    parts: tuple[tuple[str, float], ...]
    note: str


def bar_plot(label: str, bars: Sequence[Bar]) -> Markup:
    """Bars to scale with each other, each with its words above it on narrow screens and beside it on wide ones."""
    longest = max((sum(v for _, v in bar.parts) for bar in bars), default=0.0) or 1.0
    return join(_wide_bars(label, bars, longest), _narrow_bars(label, bars, longest))


def _wide_bars(label: str, bars: Sequence[Bar], longest: float) -> Markup:
    left, room, width = 296, 310, WIDE.width
    parts = []
    for i, bar in enumerate(bars):
        y = i * (BAR_HEIGHT + 6)
        parts.append(element("text", shorten(bar.label, 36), x=left - 10, y=y + 17, class_="end label"))
        parts.append(_one_bar(bar, left, y + 3, room / longest))
        end = left + room * sum(v for _, v in bar.parts) / longest
        parts.append(element("text", bar.note, x=_n(end + 8), y=y + 17, class_="note"))
    return _svg(WIDE._replace(width=width), len(bars) * (BAR_HEIGHT + 6), parts, label)


def _narrow_bars(label: str, bars: Sequence[Bar], longest: float) -> Markup:
    parts = []
    for i, bar in enumerate(bars):
        y = i * (BAR_HEIGHT + 30)
        parts.append(element("text", shorten(bar.label, 46), x=2, y=y + 14, class_="label"))
        parts.append(_one_bar(bar, 2, y + 20, (NARROW.width - 4) / longest, height=12))
        parts.append(element("text", bar.note, x=2, y=y + 45, class_="note"))
    return _svg(NARROW, len(bars) * (BAR_HEIGHT + 30), parts, label)


def _one_bar(bar: Bar, x: float, y: float, scale: float, height: int = BAR_HEIGHT - 6) -> Markup:
    parts = []
    for kind, value in bar.parts:
        if value:
            parts.append(element("rect", x=_n(x), y=y, width=_n(max(value * scale, 1.0)), height=height, class_=f"area {kind}"))
        x += value * scale
    return join(parts)


def shorten(text: str, most: int) -> str:
    """Text of at most ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _n(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")
