"""BPF_MAP_TYPE_QUEUE: first in, first out. The bytes are those of ``maps.circular``."""

from __future__ import annotations

from netbpf.abi.maps import MapType
from netbpf.maps.circular import CircularMap


class QueueMap(CircularMap):
    """A queue."""

    __slots__ = ()
    map_type = MapType.QUEUE
    takes_newest = False
