"""The contents of a map as `bpftool map dump` prints them: plain, JSON (-j) and pretty JSON (-p).

Formats as observed of bpftool 7.1. Knows maps only by their user-space forms; prints nothing itself.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from netbpf.abi.maps import MAP_KINDS, MapType
from netbpf.errors import BpfError
from netbpf.ints import round_up
from netbpf.maps.base import ReadableMap

_SPARSE: Final = (MapType.PROG_ARRAY, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)


def entries(live: ReadableMap) -> Iterator[tuple[bytes, bytes | str]]:
    """Every (key, value) in the kernel's order; in place of a value that cannot be read, the reason. Entries of programs or
    maps that are not set are left out; a kind without keys has none."""
    key = _next_key(live, None)
    while key is not None:
        try:
            yield key, live.lookup_user(key)
        except BpfError as refused:
            if refused.errno != errno.ENOENT:
                yield key, os.strerror(refused.args[0])
            elif live.map_type not in _SPARSE:
                yield key, "<no entry>"
        key = _next_key(live, key)


def _next_key(live: ReadableMap, key: bytes | None) -> bytes | None:
    try:
        return live.next_key(key)
    except BpfError:
        return None


def format_hex(data: bytes) -> str:
    """``06 00 00 00``: 16 bytes a line, a wider gap after 8."""
    lines = [data[at : at + 16] for at in range(0, len(data), 16)]
    return "\n".join("  ".join(part.hex(" ") for part in (line[:8], line[8:]) if part) for line in lines)


def cpu_values(live: ReadableMap, value: bytes) -> list[bytes]:
    """The copies in a per-CPU value, without padding, CPU 0 first."""
    step, size = round_up(live.spec.value_size, 8), live.spec.value_size
    return [value[at : at + size] for at in range(0, len(value), step)]


Formatter = Callable[[bytes], Any]  # the bytes of a key or of a value -> what JSON can say


def dump(live: ReadableMap, form: str, typed: tuple[Formatter, Formatter] | None = None) -> str:
    """The contents in a form of `bpftool map dump`: "plain", "json" (-j) or "pretty" (-p). ``typed`` are what the types of keys
    and values make of their bytes; the JSON forms have that as ``formatted``."""
    return dump_plain(live) if form == "plain" else dump_json(live, pretty=form == "pretty", typed=typed)


def dump_plain(live: ReadableMap) -> str:
    """As `bpftool map dump`; ends with the line ``Found N elements`` (entries that show an error are not counted)."""
    lines, found = [], 0
    per_cpu = MAP_KINDS[live.map_type].per_cpu
    for key, value in entries(live):
        if isinstance(value, str):
            lines.append(_format_pair(key, value, len(value)))
            continue
        found += 1
        if per_cpu:
            lines.append(_format_cpu_values(key, cpu_values(live, value)))
        else:
            lines.append(_format_pair(key, format_hex(value), len(value)))
    lines.append(f"Found {found} element{'' if found == 1 else 's'}")
    return "\n".join(lines) + "\n"


def _format_pair(key: bytes, value: str, value_size: int) -> str:
    """One line up to 24 bytes in all; names on lines of their own when key or value is longer than 16."""
    gap = "\n" if len(key) > 16 or value_size > 16 else " "
    between = "  " if len(key) + value_size <= 24 and gap == " " else "\n"
    return f"key:{gap}{format_hex(key)}{between}value:{gap}{value}"


def _format_cpu_values(key: bytes, values: list[bytes]) -> str:
    gap = "\n" if len(values[0]) > 16 else " "
    lines = [f"value (CPU {cpu:02}):{gap}{format_hex(value)}" for cpu, value in enumerate(values)]
    return "\n".join([f"key:\n{format_hex(key)}", *lines])


def dump_objects(live: ReadableMap, typed: tuple[Formatter, Formatter] | None = None) -> list[dict[str, Any]]:
    """What the JSON forms print, as Python values: ``key`` and ``value`` lists of "0x.." strings; per-CPU kinds have
    ``values``, a list of {``cpu``, ``value``}. With ``typed`` a row has the same again by its types, under ``formatted``."""
    per_cpu = MAP_KINDS[live.map_type].per_cpu
    rows: list[dict[str, Any]] = []
    for key, value in entries(live):
        row: dict[str, Any] = {"key": _hex_list(key)}
        if isinstance(value, str):
            row["value"] = {"error": value}
        elif per_cpu:
            row["values"] = [{"cpu": cpu, "value": _hex_list(copy)} for cpu, copy in enumerate(cpu_values(live, value))]
        else:
            row["value"] = _hex_list(value)
        if typed is not None and not isinstance(value, str):
            row["formatted"] = _formatted(live, key, value, typed)
        rows.append(row)
    return rows


def _formatted(live: ReadableMap, key: bytes, value: bytes, typed: tuple[Formatter, Formatter]) -> dict[str, Any]:
    key_form, value_form = typed
    if not MAP_KINDS[live.map_type].per_cpu:
        return {"key": key_form(key), "value": value_form(value)}
    copies = [{"cpu": cpu, "value": value_form(copy)} for cpu, copy in enumerate(cpu_values(live, value))]
    return {"key": key_form(key), "values": copies}


def _hex_list(data: bytes) -> list[str]:
    return [f"0x{byte:02x}" for byte in data]


def dump_json(live: ReadableMap, *, pretty: bool = False, typed: tuple[Formatter, Formatter] | None = None) -> str:
    """As `bpftool -j map dump`, or `bpftool -p map dump`; ends with a newline."""
    rows = dump_objects(live, typed)
    return (format_pretty(rows) if pretty else json.dumps(rows, separators=(",", ":"))) + "\n"


def format_pretty(value: Any, depth: int = 0) -> str:
    """bpftool's pretty JSON: an object's members on lines of their own, an array's elements not, brackets closed on new lines."""
    close = "\n" + "    " * depth
    if isinstance(value, dict):
        members = [f"{close}    {json.dumps(name)}: {format_pretty(member, depth + 1)}" for name, member in value.items()]
        return "{" + ",".join(members) + close + "}"
    if isinstance(value, list):
        return "[" + ",".join(format_pretty(element, depth + 1) for element in value) + (close if value else "") + "]"
    return json.dumps(value)
