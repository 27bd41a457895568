"""The hash table with an LRU behind it, under LRU_HASH and LRU_PERCPU_HASH: it never refuses a key, it evicts one.

Bytes: ``maps.table`` for the table, ``maps.lru`` for the lists at ``extra_off`` and the element's ``link``. A program's lookup
sets the element's ``ref`` byte (offset 19) to 1; user space's lookup leaves it.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.maps import BPF_F_NO_COMMON_LRU
from netbpf.maps.lru import LINK_SIZE, CommonLru, PerCpuLru, lru_entries
from netbpf.maps.spec import MapSpec
from netbpf.maps.table import HashTable

REF_OFF: Final = 19  # of an element


class LruTable(HashTable):
    """A table whose elements come from LRU lists."""

    __slots__ = ("lru",)
    link_size = LINK_SIZE
    lru: CommonLru | PerCpuLru

    def __init__(self, spec: MapSpec, n_cpus: int, map_id: int, seed: int) -> None:
        per_cpu_lists = bool(spec.map_flags & BPF_F_NO_COMMON_LRU)
        kind = PerCpuLru if per_cpu_lists else CommonLru
        entries = lru_entries(spec.max_entries, n_cpus, per_cpu_lists)
        super().__init__(spec, n_cpus, map_id, seed, max_entries=entries, extra_bytes=kind.size_bytes(n_cpus))
        self.lru = kind(self, self.extra_off >> 2, n_cpus, entries)

    def index_at(self, word: int) -> int:
        """The element whose first word is at index ``word``."""
        return (word * 4 - self._elems) // self.elem_size

    def mark(self, i: int) -> None:
        """Set the reference byte of element *i*."""
        self.memory[self._elems + i * self.elem_size + REF_OFF] = 1

    def pop(self, cpu: int) -> int:
        """An element to fill, evicted if need be; 0 if there is none."""
        at = self.lru.pop(cpu)
        return self.index_at(at - 2) if at else 0

    def push(self, i: int) -> None:
        """Free element *i*, no longer linked."""
        self.lru.push(self.word(i) + 2)

    def lookup(self, key: bytes, cpu: int = 0) -> int:
        i = self.find(key)
        if not i:
            return -1
        self.memory[self._elems + i * self.elem_size + REF_OFF] = 1
        return self.value_off + i * self.value_step + cpu * self.cpu_stride

    def lookup_quiet(self, key: bytes) -> int:
        return HashTable.lookup(self, key)

    def delete(self, key: bytes) -> int:
        i = self.find(key)
        if not i:
            return -errno.ENOENT
        self.unlink(i)
        self.push(i)
        return 0
