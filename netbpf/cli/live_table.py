"""What ``netbpf attach`` shows while it runs: a table redrawn in place on a terminal, else a line an interval, else JSON lines.

Knows counts and maps, not where they come from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TextIO

from netbpf.host.filter_stats import FilterStats
from netbpf.maps.base import ReadableMap
from netbpf.replay.snapshot import Entry, counter_line, entries, labelled

MAX_ROWS: Final = 256
WIDTH: Final = 80
NUMBER: Final = 16
COUNTS: Final = ("packets", "accepted", "dropped", "trimmed", "kernel_drops")


@dataclass(slots=True)
class Moment:
    """The counts after ``seconds``; ``maps`` are read when they are shown. ``lost``: what in line could not be forwarded."""

    seconds: float
    stats: FilterStats
    maps: Mapping[str, ReadableMap] = field(default_factory=dict)
    lost: int = 0


class Display(Protocol):
    """``show`` once an interval, ``close`` before anything else is printed."""

    def show(self, now: Moment) -> None: ...

    def close(self) -> None: ...


def choose_display(stream: TextIO, title: str, *, as_json: bool, quiet: bool) -> Display:
    """The one that fits where it goes."""
    if as_json:
        return JsonLines(stream)
    if quiet:
        return Nothing()
    return LiveTable(stream, title) if stream.isatty() else PlainLines(stream)


class Nothing:
    """Shows nothing."""

    def show(self, now: Moment) -> None:
        pass

    def close(self) -> None:
        pass


class PlainLines:
    """A line an interval: ``12.000 s  4096 packets (1024/s)  4096 accepted  0 dropped  TCP 12 UDP 4 packets``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._last = stream, Moment(0.0, FilterStats())

    def show(self, now: Moment) -> None:
        print(plain_line(now, self._last), file=self._stream, flush=True)
        self._last = now

    def close(self) -> None:
        pass


def plain_line(now: Moment, last: Moment) -> str:
    """One interval's line; numbers that nobody can tell are left out."""
    stats, parts = now.stats, [f"{now.seconds:.3f} s"]
    passed = now.seconds - last.seconds
    if stats.packets is not None:
        parts.append(f"{stats.packets} packets ({_rate(stats.packets, last.stats.packets, passed)}/s)")
    for name in COUNTS[1:]:
        value = getattr(stats, name)
        if value is not None and (value or name in ("accepted", "dropped")):
            parts.append(f"{value} {name.replace('_', ' ')}")
    if now.lost:
        parts.append(f"{now.lost} not forwarded")
    counted = counter_line(now.maps)
    return "  ".join([*parts, counted] if counted else parts)


class JsonLines:
    """One object an interval."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._last = stream, Moment(0.0, FilterStats())

    def show(self, now: Moment) -> None:
        print(json.dumps(json_moment(now, self._last)), file=self._stream, flush=True)
        self._last = now

    def close(self) -> None:
        pass


def json_moment(now: Moment, last: Moment) -> dict[str, Any]:
    """The counts since the beginning, null where nobody can tell; a map with more than MAX_ROWS entries is null."""
    from netbpf.replay.report import json_entries

    rows = {name: _few(m) for name, m in now.maps.items()}
    return {
        "seconds": round(now.seconds, 6),
        "interval": round(now.seconds - last.seconds, 6),
        **{name: getattr(now.stats, name) for name in COUNTS},
        "not_forwarded": now.lost,
        "maps": {name: None if found is None else json_entries(now.maps[name], found) for name, found in rows.items()},
    }


def _few(m: ReadableMap) -> list[Entry] | None:
    found = entries(m, MAX_ROWS + 1)
    return found if len(found) <= MAX_ROWS else None


class LiveTable:
    """A table of totals and rates, drawn over the one before. It takes no more than the terminal's lines and 80 columns."""

    def __init__(self, stream: TextIO, title: str) -> None:
        self._stream, self._title = stream, title
        self._last: tuple[float, dict[str, int]] = (0.0, {})
        self._drawn = 0

    def show(self, now: Moment) -> None:
        columns, lines = shutil.get_terminal_size((WIDTH, 24))
        rows = table_rows(now)
        passed = now.seconds - self._last[0]
        text = [f"{self._title}  {now.seconds:.0f} s"[:columns], f"{'':24}{'total':>{NUMBER}}{'per second':>{NUMBER}}"]
        for label, value in rows[: max(lines - 4, 5)]:
            text.append(_row(label, value, self._last[1].get(label), passed))
        if len(rows) > max(lines - 4, 5):
            text.append(f"... {len(rows) - max(lines - 4, 5)} more")
        self._draw([line[:columns].rstrip() for line in text])
        self._last = (now.seconds, {label: value for label, value in rows if value is not None})

    def _draw(self, text: list[str]) -> None:
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._stream.write(up + "".join(f"\r\x1b[K{line}\n" for line in text) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(text)

    def close(self) -> None:
        """The last table stays; what comes next goes below."""
        self._drawn = 0


def table_rows(now: Moment) -> list[tuple[str, int | None]]:
    """(label, value) of every line; None is a heading."""
    rows: list[tuple[str, int | None]] = []
    for name in COUNTS:
        value = getattr(now.stats, name)
        if value is not None:
            rows.append((name.replace("_", " "), value))
    if now.lost:
        rows.append(("not forwarded", now.lost))
    for name, m in now.maps.items():
        found = [(label, value) for label, value in labelled(m, MAX_ROWS) if value is not None]
        if found:
            rows.append((f"map {name}", None))
            rows += [(f"  {label}", value) for label, value in found]
    return rows


def _row(label: str, value: int | None, before: int | None, passed_s: float) -> str:
    if value is None:
        return label
    return f"{label[:24]:24}{value:>{NUMBER},}{_rate(value, before, passed_s):>{NUMBER},}"


def _rate(value: int, before: int | None, passed_s: float) -> int:
    return round((value - (before or 0)) / passed_s) if passed_s > 0 else 0
