"""Maps whose values are descriptors: turned into objects on the way in, held while they are in, let go when they leave.

Knows which kind takes what; the order of checks is the map's own (``check_put`` before the descriptor is looked at).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from netbpf.abi.maps import MapType
from netbpf.errors import BpfError
from netbpf.host.sim.machine import Call
from netbpf.host.sim.objects import KObject, MapObject, PerfEvent


def update_value(call: Call, obj: MapObject, key: bytes, value: bytes, flags: int) -> None:
    """One element written by user space. Raises BpfError."""
    resolve = _RESOLVE.get(obj.spec.map_type)
    if resolve is None:
        obj.map.update_user(key, value, flags)
        return
    live: Any = obj.map  # an ObjectArray or a HashOfMaps
    live.check_put(key, flags)
    held, inside = resolve(call, int.from_bytes(value, "little"))
    live.put(key, inside, flags)
    held.hold()
    _let_go(obj, key)
    obj.held_values[key] = held


def delete_value(obj: MapObject, key: bytes) -> None:
    """One element deleted by user space. Raises BpfError."""
    obj.map.delete_user(key)
    _let_go(obj, key)


def lookup_and_delete_value(obj: MapObject, key: bytes) -> bytes:
    """One element read and deleted. Raises BpfError."""
    value = obj.map.lookup_and_delete_user(key)
    _let_go(obj, key)
    return value


def _let_go(obj: MapObject, key: bytes) -> None:
    held = obj.held_values.pop(key, None)
    if held is not None:
        held.drop()


def _program(call: Call, fd: int) -> tuple[KObject, object]:
    found = call.prog(fd)
    return found, found.program


def _map(call: Call, fd: int) -> tuple[KObject, object]:
    found = call.map_file(fd)[1]
    return found, found.map


def _perf_event(call: Call, fd: int) -> tuple[KObject, object]:
    found = call.task.fds.get(fd).obj
    if not isinstance(found, PerfEvent):
        raise BpfError(errno.EINVAL)
    return found, found.buffer


_RESOLVE: Final[dict[int, Callable[[Call, int], tuple[KObject, object]]]] = {
    MapType.PROG_ARRAY: _program,
    MapType.ARRAY_OF_MAPS: _map,
    MapType.HASH_OF_MAPS: _map,
    MapType.PERF_EVENT_ARRAY: _perf_event,
}
