"""Maps at the end of a replay, in words: their top entries by the types that BTF declares, else as plain numbers and bytes.

Reads maps through their user-space side only.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from netbpf.abi.maps import MapType, map_type_name
from netbpf.maps import dump
from netbpf.maps.base import ReadableMap
from netbpf.maps.dump import Formatter
from netbpf.replay.snapshot import IP_PROTOCOLS, counts_protocols, number, values
from netbpf.report.model import MapRow, MapTable

TOP: Final = 20
MAX_TEXT: Final = 200
MAX_HEX_BYTES: Final = 64
WITHOUT_KEYS: Final = frozenset(
    {MapType.RINGBUF, MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER, MapType.PERF_EVENT_ARRAY, MapType.USER_RINGBUF}
)
Typed = tuple[Formatter, Formatter]


def map_tables(maps: Mapping[str, ReadableMap], typed: Mapping[str, Typed]) -> list[MapTable]:
    """A table a map, in the program's order."""
    return [map_table(name, m, typed.get(name)) for name, m in maps.items()]


def map_table(name: str, m: ReadableMap, typed: Typed | None = None) -> MapTable:
    """The TOP entries of one map."""
    kind, most = map_type_name(m.spec.map_type), m.spec.max_entries
    if m.spec.map_type in WITHOUT_KEYS:
        return MapTable(name, kind, most, 0, [], note="Its contents have no keys: they are read by taking them out.")
    measure, order = measure_of(m, typed)
    total = unreadable = 0

    def readable() -> Iterator[tuple[int, bytes, bytes]]:
        nonlocal total, unreadable
        for key, value in dump.entries(m):
            total += 1
            if isinstance(value, bytes):
                yield measure(value), key, value
            else:
                unreadable += 1

    top = _top(readable(), bool(order))
    note = f"{unreadable} entries cannot be read from user space." if unreadable else ""
    protocols = total <= TOP and counts_protocols(m, [key for _, key, _ in top])
    rows = [_row(m, key, value, typed, weight if order else None, protocols) for weight, key, value in top]
    return MapTable(name, kind, most, total, rows, order, note)


def _top(rows: Iterator[tuple[int, bytes, bytes]], ordered: bool) -> list[tuple[int, bytes, bytes]]:
    """The TOP heaviest, or the first TOP in the map's order; all rows are passed either way, to be counted."""
    if ordered:
        return heapq.nlargest(TOP, rows, key=lambda row: row[0])
    first: list[tuple[int, bytes, bytes]] = []
    for row in rows:
        if len(first) < TOP:
            first.append(row)
    return first


def measure_of(m: ReadableMap, typed: Typed | None) -> tuple[Callable[[bytes], int], str]:
    """What an entry is ordered by, and in words; the map's own order ("") where its values are no numbers."""
    if typed is not None:
        path = _first_number(typed[1](bytes(m.spec.value_size)))
        if path is not None:
            form = typed[1]
            said = "value" + "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in path)
            return lambda value: sum(int(_at(form(copy), path)) for copy in values(m, value)), said
    if m.spec.value_size in (1, 2, 4, 8):
        return lambda value: number(m, value) or 0, "value"
    return lambda value: 0, ""


def entry_label(key: bytes, typed: Typed | None, protocols: bool = False) -> str:
    """How a key is called."""
    return compact(typed[0](key)) if typed is not None else key_text(key, protocols)


Path = tuple[str | int, ...]


def _first_number(value: Any) -> Path | None:
    """Where the first number in a formatted value is: names of members and indexes on the way to it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return ()
    steps: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        steps = list(value.items())
    elif isinstance(value, list):
        steps = list(enumerate(value))
    for step, inner in steps:
        rest = _first_number(inner)
        if rest is not None:
            return (step, *rest)
    return None


def _at(value: Any, path: Path) -> Any:
    """The number at ``path``; 0 where this value has another form there."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return 0
    return value if isinstance(value, int) else 0


def _row(m: ReadableMap, key: bytes, value: bytes, typed: Typed | None, weight: int | None, protocols: bool) -> MapRow:
    copies = values(m, value)
    key_hex, value_hex = short_hex(key), " | ".join(short_hex(c) for c in copies)
    if typed is not None:
        shown = [compact(typed[1](c)) for c in copies]
        value_text = shown[0] if len(shown) == 1 else ", ".join(f"CPU {i}: {text}" for i, text in enumerate(shown))
        return MapRow(entry_label(key, typed), _cut(value_text), key_hex, value_hex, weight)
    as_number = number(m, value)
    text = value_hex if as_number is None else f"{as_number:,}"
    return MapRow(entry_label(key, None, protocols), text, key_hex, value_hex, weight)


def key_text(key: bytes, protocols: bool = False) -> str:
    """A key without a type: the protocol it names, a number of up to 8 bytes, else its bytes."""
    if len(key) not in (1, 2, 4, 8):
        return short_hex(key)
    plain = int.from_bytes(key, "little")
    return f"{IP_PROTOCOLS[plain]} ({plain})" if protocols and plain in IP_PROTOCOLS else str(plain)


def short_hex(data: bytes) -> str:
    """``06 00 00 00``, at most MAX_HEX_BYTES of it."""
    return data[:MAX_HEX_BYTES].hex(" ") + (f" ... ({len(data)} bytes)" if len(data) > MAX_HEX_BYTES else "")


def compact(value: Any) -> str:
    """A formatted value on one line: ``{packets: 3, bytes: 180}``."""
    if isinstance(value, dict):
        return _cut("{" + ", ".join(f"{k}: {compact(v)}" for k, v in value.items()) + "}")
    if isinstance(value, list):
        return _cut("[" + ", ".join(compact(v) for v in value[:MAX_HEX_BYTES]) + "]")
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 4] + " ..."
