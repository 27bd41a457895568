"""BPF_MAP_TYPE_LRU_HASH. The bytes are those of ``maps.table`` and ``maps.lru``; a value lies in its element."""

from __future__ import annotations

import errno

from netbpf.abi.maps import MapType
from netbpf.maps.base import BPF_ANY, BPF_EXIST
from netbpf.maps.lru_table import LruTable
from netbpf.maps.storage import flags_error


class LruHashMap(LruTable):
    """An LRU hash map."""

    __slots__ = ()
    map_type = MapType.LRU_HASH

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY, cpu: int = 0) -> int:
        """The new element is found first, so that in a full table even an update of a key that exists, or one that its flags
        then forbid, evicts; in a very small table it may evict the key itself."""
        if flags > BPF_EXIST:
            return -errno.EINVAL
        i = self.pop(cpu)
        if not i:
            return -errno.ENOMEM
        at = self.value_of(i)
        self.memory[at : at + len(value)] = value
        old = self.find(key)
        err = flags_error(bool(old), flags)
        if err:
            self.push(i)
            return err
        self.link(i, key)
        if old:
            self.mark(i)
            self.unlink(old)
            self.push(old)
        return 0
