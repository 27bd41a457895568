"""BPF_MAP_TYPE_LRU_PERCPU_HASH. The bytes are those of ``maps.table`` and ``maps.lru``; values lie in one plane per CPU."""

from __future__ import annotations

import errno

from netbpf.abi.maps import MapType
from netbpf.maps.base import BPF_ANY, BPF_EXIST
from netbpf.maps.lru_table import LruTable
from netbpf.maps.percpu import PerCpuValues
from netbpf.maps.storage import flags_error


class LruPerCpuHashMap(PerCpuValues, LruTable):
    """An LRU hash map with a value per CPU."""

    __slots__ = ()
    map_type = MapType.LRU_PERCPU_HASH
    value_planes = True

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY, cpu: int = 0) -> int:
        i = self._element(key, flags, cpu, clear=True)
        if i < 0:
            return i
        at = self.value_of(i, cpu)
        self.memory[at : at + len(value)] = value
        return 0

    def update_all(self, key: bytes, values: bytes, flags: int) -> int:
        i = self._element(key, flags, 0, clear=False)
        if i < 0:
            return i
        self.write_planes(self.value_of(i), values)
        return 0

    def _element(self, key: bytes, flags: int, cpu: int, *, clear: bool) -> int:
        """The element of a key, linked now if it was not (its values zero if ``clear``); or -errno.

        Unless BPF_EXIST says that none can be needed, an element is taken (and one perhaps evicted) before the key is looked
        up, and given back if it was there.
        """
        if flags > BPF_EXIST:
            return -errno.EINVAL
        new = self.pop(cpu) if flags != BPF_EXIST else 0
        if flags != BPF_EXIST and not new:
            return -errno.ENOMEM
        old = self.find(key)
        err = flags_error(bool(old), flags)
        if err or old:
            if not err:
                self.mark(old)
            if new:
                self.push(new)
            return err or old
        if clear:
            self.clear_planes(self.value_of(new))
        self.link(new, key)
        return new
