"""Addresses and bytes of a run in words: ``ctx``, ``fp-4``, ``counts[17]``, ``packet+14``; keys and values by their types.

Looks into the memory of the interpreter's machine without changing it (an LRU map's reference marks neither).
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from netbpf.engine.interp.machine import FRAME_TOPS, Machine
from netbpf.engine.interp.memory import (
    CODE_NUMBER,
    CTX_NUMBER,
    FRAME_NUMBERS,
    NUMBER_SHIFT,
    OFFSET_MASK,
    PACKET_NUMBER,
    SOCKET_NUMBER,
    Fault,
    MapWindow,
)
from netbpf.explain.naming import context_field
from netbpf.ints import s32, s64, u32
from netbpf.isa.opcodes import MAX_BPF_STACK
from netbpf.maps.base import Map
from netbpf.maps.dump import Formatter

MAX_SHOWN: Final = 32  # bytes of a value without a type
MAX_ERRNO: Final = 4095
SIMPLE_SIZES: Final = (1, 2, 4, 8)
MAX_SCANNED: Final = 4096  # keys looked at to find whose value an address is


class Places:
    """``typed``: formatters of keys and values by map name (``replay.typed``)."""

    def __init__(self, machine: Machine, typed: Mapping[str, tuple[Formatter, Formatter]] | None = None) -> None:
        self.machine, self.typed = machine, typed or {}
        self.function_name: Callable[[int], str] = lambda pc: f"func_{pc}"
        self._keys: dict[int, bytes] = {}  # region number of a value -> the key it was found by

    # --- registers ------------------------------------------------------------------------------------------------------
    def describe(self, value: int) -> str:
        """A register's value: a place where it is an address, else a number (small negative ones signed)."""
        if value < 1 << NUMBER_SHIFT:
            return str(value)
        return self.place(value) or number(value)

    def place(self, address: int) -> str:
        """The words for an address, "" for one in no region."""
        name, offset = address >> NUMBER_SHIFT, address & OFFSET_MASK
        if name == CTX_NUMBER:
            return context_field(offset) if offset else "ctx"
        if name in FRAME_NUMBERS:
            return self._frame(FRAME_NUMBERS.index(name), offset - MAX_BPF_STACK)
        if name == PACKET_NUMBER:
            return _plus("packet", offset - self.machine.skb.data_off)
        if name == SOCKET_NUMBER:
            return _plus("sk", offset)
        if name == CODE_NUMBER:
            return f"&{self.function_name(offset)}"
        handle = self.machine.handles.get(address)
        if handle is not None:
            return f"map {map_name(handle.map)}"
        region = self.machine.memory.own_region(name)
        if region is not None:
            return _plus(region.name, offset)
        found = self.value_at(address)
        if found is None:
            return ""
        window, key, at = found
        return _plus(f"{map_name(window.map)}[{self.key(window.map, key)}]" if key is not None else map_name(window.map), at)

    def _frame(self, depth: int, offset: int) -> str:
        text = f"fp{offset:+d}" if offset else "fp"
        return text if depth == len(self.machine.frames) else f"{text} of frame {depth}"

    # --- values of maps ---------------------------------------------------------------------------------------------------
    def found(self, address: int, key: bytes) -> None:
        """A lookup of ``key`` gave ``address``."""
        self._keys[address >> NUMBER_SHIFT] = key

    def value_at(self, address: int) -> tuple[MapWindow, bytes | None, int] | None:
        """(map, key, offset in the value) of an address in a map's values; the key is None where none leads there."""
        region = address >> NUMBER_SHIFT
        window = self.machine.memory.window_of(region)
        if window is None:
            return None
        key = self._keys.get(region)
        offset = (region - window.base) << 2
        if key is None or self._offset_of(window, key) != offset:
            key = self._key_of(window, offset)
        return window, key, address & OFFSET_MASK

    def _offset_of(self, window: MapWindow, key: bytes) -> int:
        live: Any = window.map
        try:
            offset: int = live.lookup_quiet(key)
        except (ValueError, OSError):
            return -1
        return offset + self.machine.cpu * live.cpu_stride if offset >= 0 else -1

    def _key_of(self, window: MapWindow, offset: int) -> bytes | None:
        for key in keys(window.map):
            if self._offset_of(window, key) == offset:
                self._keys[window.base + (offset >> 2)] = key
                return key
        return None

    def value_bytes(self, window: MapWindow, key: bytes) -> bytes | None:
        """What the map holds under ``key`` on the CPU that runs; None for nothing."""
        offset = self._offset_of(window, key)
        return bytes(window.view[offset : offset + window.value_size]) if offset >= 0 else None

    # --- bytes ------------------------------------------------------------------------------------------------------------
    def key(self, live: Map, data: bytes) -> str:
        typed = self.typed.get(map_name(live))
        return shown(typed[0](data)) if typed is not None and len(data) not in SIMPLE_SIZES else plain(data)

    def value(self, live: Map, data: bytes) -> str:
        typed = self.typed.get(map_name(live))
        return shown(typed[1](data)) if typed is not None and len(data) not in SIMPLE_SIZES else plain(data)

    def difference(self, live: Map, before: bytes, after: bytes) -> str:
        """How two values of a map differ: ``.packets: 16 -> 17`` for each member of a struct, else ``: 16 -> 17``."""
        typed = self.typed.get(map_name(live))
        old, new = (typed[1](data) if typed is not None else None for data in (before, after))
        if isinstance(old, dict) and isinstance(new, dict) and len(old) > 1:
            changed = [name for name in old if old[name] != new.get(name)]
            return ", ".join(f".{name}: {shown(old[name])} -> {shown(new[name])}" for name in changed)
        return f": {self.value(live, before)} -> {self.value(live, after)}"

    def read(self, address: int, size: int) -> bytes | None:
        """Bytes of any region; None where they are not all there."""
        try:
            return self.machine.memory.read(address, size)
        except Fault:
            return None

    def frame(self, depth: int) -> bytes:
        """The stack of a frame, lowest address first."""
        return bytes(self.machine.frame_bytes[FRAME_TOPS[depth]])


def keys(live: Map) -> list[bytes]:
    """The first MAX_SCANNED keys of a map; none of a kind without keys."""
    found: list[bytes] = []
    try:
        key = live.next_key(None)
        while key is not None and len(found) < MAX_SCANNED:
            found.append(key)
            key = live.next_key(key)
    except OSError:
        return found
    return found


def map_name(live: Map) -> str:
    """The map's name, ``map7`` for number 7 without one."""
    return live.spec.name or f"map{live.map_id}"


def number(value: int) -> str:
    """A register's number: -1 rather than 18446744073709551615, hex where it is long."""
    signed = s64(value)
    if -(1 << 31) <= signed < 0:
        return str(signed)
    return str(value) if value < 1 << 32 else f"{value:#x}"


def result(value: int) -> str:
    """What a helper returned: a small negative number with the error it means."""
    signed = s64(value) if value >> 32 else s32(u32(value)) if value >> 31 else value
    name = errno.errorcode.get(-signed) if -MAX_ERRNO <= signed < 0 else None
    return f"{signed} ({name})" if name else number(value)


def plain(data: bytes) -> str:
    """Bytes without a type: a number of 1, 2, 4 or 8 little-endian bytes, else hex, what is too long cut."""
    if len(data) in SIMPLE_SIZES:
        return str(int.from_bytes(data, "little"))
    return data.hex() if len(data) <= MAX_SHOWN else f"{data[:MAX_SHOWN].hex()}.."


def shown(value: Any) -> str:
    """What BTF made of bytes, in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={shown(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def _plus(name: str, offset: int) -> str:
    return f"{name}{offset:+d}" if offset else name
