"""BPF_MAP_TYPE_PERCPU_HASH. The bytes are those of ``maps.table``; values lie in one plane per CPU, CPU c's value of element i
at value_off + c * cpu_stride + i * value_step.

A program's update writes its CPU's copy in place; a key that is new has zero on the other CPUs. The padding of a new value is
what the element's last user left there, as in Linux; which element that is may differ where several CPUs free elements, or
without preallocation.
"""

from __future__ import annotations

import errno

from netbpf.abi.maps import MapType
from netbpf.maps.base import BPF_ANY
from netbpf.maps.percpu import PerCpuValues
from netbpf.maps.storage import flags_error
from netbpf.maps.table import COUNT, FRESH, MAX_ENTRIES, HashTable


class PerCpuHashMap(PerCpuValues, HashTable):
    """A hash map with a value per CPU."""

    __slots__ = ()
    map_type = MapType.PERCPU_HASH
    value_planes = True

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY, cpu: int = 0) -> int:
        i = self._element(key, flags, clear=True)
        if i < 0:
            return i
        at = self.value_of(i, cpu)
        self.memory[at : at + len(value)] = value
        return 0

    def update_all(self, key: bytes, values: bytes, flags: int) -> int:
        i = self._element(key, flags, clear=False)
        if i < 0:
            return i
        self.write_planes(self.value_of(i), values)
        return 0

    def _element(self, key: bytes, flags: int, *, clear: bool) -> int:
        """The element of a key, linked now if it was not (its values zero if ``clear``); or -errno."""
        i = self.find(key)
        err = flags_error(bool(i), flags)
        if err or i:
            return err or i
        if self.u32[COUNT] >= self.u32[MAX_ENTRIES]:
            return -errno.E2BIG
        unused = self.u32[FRESH]
        i = self.take()
        if clear and i <= unused:
            self.clear_planes(self.value_of(i))
        self.link(i, key)
        return i
