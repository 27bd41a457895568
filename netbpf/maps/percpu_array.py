"""BPF_MAP_TYPE_PERCPU_ARRAY. Its bytes are one plane of values per CPU::

    u8 value[n_cpus][plane_size];

elem_size is round_up(value_size, 8); plane_size is (index_mask + 1) * elem_size in whole pages. The value of index i on CPU c is
at c * plane_size + i * elem_size. All start as zero.
"""

from __future__ import annotations

import errno

from netbpf.abi.maps import MapType
from netbpf.maps.array import IndexedMap
from netbpf.maps.base import BPF_ANY, BPF_EXIST, BPF_NOEXIST
from netbpf.maps.percpu import PerCpuValues
from netbpf.maps.spec import MapSpec


class PerCpuArrayMap(PerCpuValues, IndexedMap):
    """An array with a value per CPU."""

    __slots__ = ()
    map_type = MapType.PERCPU_ARRAY

    def __init__(self, spec: MapSpec, n_cpus: int, map_id: int) -> None:
        super().__init__(spec, n_cpus, map_id, planes=n_cpus)
        self.cpu_stride = self.plane_size

    def lookup(self, key: bytes, cpu: int = 0) -> int:
        index = int.from_bytes(key, "little")
        return index * self.elem_size + cpu * self.cpu_stride if index < self.spec.max_entries else -1

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY, cpu: int = 0) -> int:
        index = int.from_bytes(key, "little")
        err = self.update_error(index, flags)
        if err:
            return err
        at = index * self.elem_size + cpu * self.cpu_stride
        self.memory[at : at + len(value)] = value
        return 0

    def update_all(self, key: bytes, values: bytes, flags: int) -> int:
        index = int.from_bytes(key, "little")
        if flags > BPF_EXIST:
            return -errno.EINVAL
        if index >= self.spec.max_entries:
            return -errno.E2BIG
        if flags == BPF_NOEXIST:
            return -errno.EEXIST
        self.write_planes(index * self.elem_size, values)
        return 0
