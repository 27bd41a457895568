"""BPF_MAP_TYPE_STACK: last in, first out. The bytes are those of ``maps.circular``."""

from __future__ import annotations

from netbpf.abi.maps import MapType
from netbpf.maps.circular import CircularMap


class StackMap(CircularMap):
    """A stack."""

    __slots__ = ()
    map_type = MapType.STACK
    takes_newest = True
