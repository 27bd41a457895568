"""BPF_MAP_TYPE_HASH_OF_MAPS. The bytes are those of ``maps.table``; an element's value is a ``struct slot`` of ``maps.inner``.

An update of a key that exists writes in place. Descriptors are the host's, as in ``maps.objects``.
"""

from __future__ import annotations

import errno

from netbpf.abi.maps import MapType
from netbpf.errors import BpfError
from netbpf.maps.base import BPF_ANY
from netbpf.maps.inner import SLOT, check_inner, slot_of
from netbpf.maps.spec import MapSpec
from netbpf.maps.storage import MapBase, flags_error, raise_for
from netbpf.maps.table import COUNT, MAX_ENTRIES, HashTable


class HashOfMapsMap(HashTable):
    """A hash map of maps like ``spec.inner``."""

    __slots__ = ("_inner",)
    map_type = MapType.HASH_OF_MAPS
    slot_bytes = SLOT.size

    def __init__(self, spec: MapSpec, n_cpus: int, map_id: int, seed: int) -> None:
        super().__init__(spec, n_cpus, map_id, seed)
        self._inner: dict[int, MapBase] = {}  # by element

    def check_put(self, key: bytes, flags: int = BPF_ANY) -> None:
        """What is asked before the descriptor is resolved. Raises BpfError(EPERM, EINVAL)."""
        self.check_write(flags)
        self.check_key(key)

    def put(self, key: bytes, obj: MapBase, flags: int = BPF_ANY) -> MapBase | None:
        """Set an entry; the map that was there, or None. Raises BpfError(EINVAL, EEXIST, ENOENT, E2BIG, EPERM)."""
        self.check_put(key, flags)
        check_inner(self.spec, obj)
        i = self.find(key)
        raise_for(flags_error(bool(i), flags))
        if not i:
            if self.u32[COUNT] >= self.u32[MAX_ENTRIES]:
                raise BpfError(errno.E2BIG)
            i = self.take()
            self.link(i, key)
        at = self.value_of(i)
        self.memory[at : at + SLOT.size] = slot_of(obj)
        displaced, self._inner[i] = self._inner.get(i), obj
        return displaced

    def take_out(self, key: bytes) -> MapBase:
        """Clear an entry and return its map. Raises BpfError(ENOENT, EPERM)."""
        self.check_write()
        self.check_key(key)
        i = self.find(key)
        raise_for(self.delete(key))
        return self._inner.pop(i)

    def inner_at(self, offset: int) -> MapBase:
        """The map whose slot ``lookup`` found at this offset."""
        return self._inner[(offset - self.value_off) // self.value_step]

    def objects(self) -> list[MapBase]:
        """Every map held."""
        return list(self._inner.values())

    def read_value(self, offset: int) -> bytes:
        return self.inner_at(offset).map_id.to_bytes(4, "little")

    def update_user(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """A value is a descriptor, which only a process can resolve: use ``put``."""
        self.check_put(key, flags)
        self.check_value(value)
        raise BpfError(errno.EBADF)

    def lookup_and_delete_user(self, key: bytes, flags: int = 0) -> bytes:
        return MapBase.lookup_and_delete_user(self, key, flags)

    def delete_user(self, key: bytes) -> None:
        self.take_out(key)
