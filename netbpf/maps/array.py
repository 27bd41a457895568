"""BPF_MAP_TYPE_ARRAY. Its bytes are the values alone::

    u8 value[max_entries][round_up(value_size, 8)];   // value of index i at i * elem_size

All values exist and start as zero. ``index_mask`` (max_entries rounded up to a power of two, less 1) is what the kernel masks a
looked-up index with against speculation; the memory is large enough for any masked index. With BPF_F_MMAPABLE user space maps
these very bytes.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import ClassVar

from netbpf.abi.maps import MapType
from netbpf.ints import round_up
from netbpf.maps.base import BPF_ANY, BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST
from netbpf.maps.check import n_buckets_for
from netbpf.maps.spec import MapSpec
from netbpf.maps.storage import MapBase


class IndexedMap(MapBase):
    """What every kind with a u32 index as its key shares."""

    __slots__ = ("elem_size", "index_mask")
    slot_bytes: ClassVar[int] = 0  # bytes of a stored value where it is not value_size

    def __init__(self, spec: MapSpec, n_cpus: int, map_id: int, planes: int = 1) -> None:
        self.elem_size = round_up(self.slot_bytes or spec.value_size, 8)
        self.index_mask = n_buckets_for(spec.max_entries) - 1
        super().__init__(spec, planes * self.plane_size, n_cpus, map_id)

    @property
    def plane_size(self) -> int:
        """Bytes of one copy of all values, whole pages."""
        return round_up((self.index_mask + 1) * self.elem_size, 4096)

    def update_error(self, index: int, flags: int) -> int:
        """What keeps an update from happening: 0 or -errno, asked in the kernel's order."""
        if flags & ~BPF_F_LOCK > BPF_EXIST:
            return -errno.EINVAL
        if index >= self.spec.max_entries:
            return -errno.E2BIG
        if flags & BPF_NOEXIST:
            return -errno.EEXIST
        return -errno.EINVAL if flags & BPF_F_LOCK else 0

    def delete(self, key: bytes) -> int:
        return -errno.EINVAL

    def next_key(self, key: bytes | None) -> bytes | None:
        """The next index, the first one after an index out of range, None after the last."""
        if key is not None:
            self.check_key(key)
        index = 0xFFFF_FFFF if key is None else int.from_bytes(key, "little")
        if index >= self.spec.max_entries:
            return bytes(4)
        return None if index == self.spec.max_entries - 1 else (index + 1).to_bytes(4, "little")

    def each(self, cpu: int = 0) -> Iterator[tuple[bytes, int]]:
        """(key, value offset on ``cpu``) in the order of bpf_for_each_map_elem."""
        for index in range(self.spec.max_entries):
            yield index.to_bytes(4, "little"), index * self.elem_size + cpu * self.cpu_stride


class ArrayMap(IndexedMap):
    """An array."""

    __slots__ = ()
    map_type = MapType.ARRAY

    def lookup(self, key: bytes, cpu: int = 0) -> int:
        index = int.from_bytes(key, "little")
        return index * self.elem_size if index < self.spec.max_entries else -1

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY, cpu: int = 0) -> int:
        index = int.from_bytes(key, "little")
        err = self.update_error(index, flags)
        if err:
            return err
        at = index * self.elem_size
        self.memory[at : at + len(value)] = value
        return 0
