"""What a replay found, as text and as one JSON object. Knows the counts, not how they came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netbpf.maps.base import ReadableMap
from netbpf.replay.core import Interval, Replay
from netbpf.replay.lines import totals_lines
from netbpf.replay.snapshot import Entry, entries, is_per_cpu, values


def json_entries(m: ReadableMap, rows: list[Entry]) -> list[dict[str, Any]]:
    """[{key, value}] in hex; a per-CPU value is the list of the CPUs' copies."""
    if is_per_cpu(m):
        return [{"key": k.hex(), "value": [copy.hex() for copy in values(m, v)]} for k, v in rows]
    return [{"key": k.hex(), "value": v.hex()} for k, v in rows]


def json_interval(interval: Interval, maps: Mapping[str, ReadableMap]) -> dict[str, Any]:
    """One interval; a map with too many entries to tell each time is null."""
    c = interval.counts
    out: dict[str, Any] = {
        "start": interval.start_s,
        "seconds": interval.seconds,
        "packets": c.packets,
        "bytes": c.bytes,
        "accepted": c.accepted,
        "dropped": c.dropped,
        "trimmed": c.trimmed,
        "maps": {n: None if rows is None else json_entries(maps[n], rows) for n, rows in interval.maps.items()},
    }
    if interval.skipped:
        out["idle_intervals_before"] = interval.skipped
    return out


def json_report(replay: Replay, intervals: list[Interval], seconds: float, engine: str) -> dict[str, Any]:
    """The object that ``netbpf replay --json`` prints."""
    t = replay.totals
    return {
        "packets": t.packets,
        "bytes": t.bytes,
        "accepted": t.accepted,
        "dropped": t.dropped,
        "trimmed": t.trimmed,
        "seconds": round(seconds, 6),
        "packets_per_second": round(t.packets / seconds) if seconds > 0 else 0,
        "trace_seconds": trace_seconds(replay),
        "engine": engine,
        "maps": {name: json_entries(m, entries(m)) for name, m in replay.maps.items()},
        "intervals": [json_interval(i, replay.maps) for i in intervals],
    }


def trace_seconds(replay: Replay) -> float:
    """Trace time from the first packet to the latest one."""
    return max(0, replay.totals.last_ns - replay.clock.start_ns) / 1e9 if replay.totals.packets else 0.0


def totals_text(replay: Replay, seconds: float, engine: str) -> str:
    """The lines under the table: what went through, what became of it, how fast."""
    t = replay.totals
    return totals_lines((t.packets, t.bytes, t.accepted, t.trimmed, t.dropped), trace_seconds(replay), seconds, engine)
