"""BPF_MAP_TYPE_HASH. The bytes are those of ``maps.table``; a value lies in its element."""

from __future__ import annotations

from netbpf.abi.maps import MapType
from netbpf.maps.base import BPF_ANY
from netbpf.maps.table import HashTable


class HashMap(HashTable):
    """A hash map. With or without BPF_F_NO_PREALLOC it works the same: pages are committed when touched anyway."""

    __slots__ = ()
    map_type = MapType.HASH
    has_spares = True

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY, cpu: int = 0) -> int:
        return self.replace(key, value, flags, cpu)
