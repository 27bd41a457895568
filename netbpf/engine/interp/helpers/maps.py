"""bpf_map_*_elem and bpf_for_each_map_elem. What a kind does stands in ``netbpf.maps``; here are only pointers and errors."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import closing
from typing import Any, Final

from netbpf.abi.maps import MapType
from netbpf.engine.interp.helpers.body import Body
from netbpf.engine.interp.machine import Machine, MapHandle
from netbpf.ints import u32

ARRAYS: Final = frozenset({int(MapType.ARRAY), int(MapType.PERCPU_ARRAY)})
HOLDS_MAPS: Final = frozenset({int(MapType.ARRAY_OF_MAPS), int(MapType.HASH_OF_MAPS)})


def map_lookup_elem(m: Machine, map_: int, key: int, r3: int, r4: int, r5: int) -> int:
    """The value's address, an inner map's, or 0."""
    handle = m.handle_at(map_)
    live, window = handle.map, handle.window
    offset = live.lookup(m.memory.read(key, window.key_size), m.cpu)
    if offset < 0:
        return 0
    return m.memory.value(window, offset) if live.map_type not in HOLDS_MAPS else _pointer_to(m, handle, offset)


def map_lookup_percpu_elem(m: Machine, map_: int, key: int, cpu: int, r4: int, r5: int) -> int:
    """The value of another CPU, or 0."""
    handle = m.handle_at(map_)
    live: Any = handle.map
    if u32(cpu) >= live.n_cpus:
        return 0
    return _pointer_to(m, handle, live.lookup(m.memory.read(key, handle.window.key_size), u32(cpu)))


def _pointer_to(m: Machine, handle: MapHandle, offset: int) -> int:
    if offset < 0:
        return 0
    if handle.map.map_type not in HOLDS_MAPS:
        return m.memory.value(handle.window, offset)
    outer: Any = handle.map
    inner = outer.inner_at(offset)
    return 0 if inner is None else m.handle(inner).address


def map_update_elem(m: Machine, map_: int, key: int, value: int, flags: int, r5: int) -> int:
    handle, read = m.handle_at(map_), m.memory.read
    window = handle.window
    return handle.map.update(read(key, window.key_size), read(value, window.value_size), flags, m.cpu)


def map_delete_elem(m: Machine, map_: int, key: int, r3: int, r4: int, r5: int) -> int:
    handle = m.handle_at(map_)
    return handle.map.delete(m.memory.read(key, handle.window.key_size))


# --- maps without keys ------------------------------------------------------------------------------------------------
def map_push_elem(m: Machine, map_: int, value: int, flags: int, r4: int, r5: int) -> int:
    handle = m.handle_at(map_)
    live: Any = handle.map
    result: int = live.push(m.memory.read(value, handle.window.value_size), flags)
    return result


def map_pop_elem(m: Machine, map_: int, value: int, r3: int, r4: int, r5: int) -> int:
    live: Any = m.handle_at(map_).map
    return _give(m, value, live.pop(), live.spec.value_size)


def map_peek_elem(m: Machine, map_: int, value: int, r3: int, r4: int, r5: int) -> int:
    """The next value of a queue or stack; of a bloom filter, whether it may have been pushed."""
    live: Any = m.handle_at(map_).map
    if live.map_type == MapType.BLOOM_FILTER:
        return 0 if live.contains(m.memory.read(value, live.spec.value_size)) else -errno.ENOENT
    return _give(m, value, live.peek(), live.spec.value_size)


def _give(m: Machine, address: int, value: bytes | None, size: int) -> int:
    """Write what was found; where there is nothing, zeroes and -ENOENT."""
    m.memory.write(address, bytes(size) if value is None else value)
    return -errno.ENOENT if value is None else 0


# --- all elements -----------------------------------------------------------------------------------------------------
def for_each_map_elem(m: Machine, map_: int, callback: int, ctx: int, flags: int, r5: int) -> int:
    """callback(map, key, value, ctx) on each element in the kernel's order until one returns 1; how many were visited."""
    if flags:
        return -errno.EINVAL
    handle = m.handle_at(map_)
    visited = 0
    with closing(_array_elements(m, handle) if handle.map.map_type in ARRAYS else _table_elements(m, handle)) as elements:
        for key, value in elements:
            visited += 1
            if m.call(callback, map_, key, value, ctx):
                break
    return visited


def _array_elements(m: Machine, handle: MapHandle) -> Generator[tuple[int, int]]:
    """The address of each key, which is a number beside the map, and of its value."""
    live: Any = handle.map
    key = bytearray(handle.window.key_size)
    address = m.memory.add("a key of a map that is walked", key)
    try:
        for key[:], offset in live.each(m.cpu):
            yield address, m.memory.value(handle.window, offset)
    finally:
        m.memory.drop(address)


def _table_elements(m: Machine, handle: MapHandle) -> Generator[tuple[int, int]]:
    """The address of each key, in the element, and of its value."""
    live: Any = handle.map
    for i in live.walk():
        address = m.memory.record(handle.window, live.key_place(i), handle.window.key_size, "a key")
        try:
            yield address, m.memory.value(handle.window, live.value_of(i, m.cpu))
        finally:
            m.memory.drop(address)


BODIES: Final[dict[str, Body]] = {
    "map_lookup_elem": map_lookup_elem,
    "map_update_elem": map_update_elem,
    "map_delete_elem": map_delete_elem,
    "map_push_elem": map_push_elem,
    "map_pop_elem": map_pop_elem,
    "map_peek_elem": map_peek_elem,
    "map_lookup_percpu_elem": map_lookup_percpu_elem,
    "for_each_map_elem": for_each_map_elem,
}
