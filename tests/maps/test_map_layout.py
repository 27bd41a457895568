"""The documented bytes are the map: a reader and a writer that know nothing but the documents."""

from __future__ import annotations

import ctypes
import random
import struct
from typing import Any

import pytest

from netbpf.abi.maps import BPF_F_ZERO_SEED, MapType
from netbpf.maps.create import create
from netbpf.maps.jhash import fold, jhash
from netbpf.maps.spec import MapSpec

T = MapType


class TableReader:
    """Reads a hash table by `struct header` and `struct element` of maps.table, from an address."""

    def __init__(self, address: int, size: int, key_size: int, link_size: int = 0) -> None:
        self.raw = (ctypes.c_char * size).from_address(address)
        self.count, self.n_buckets, self.seed, self.hash_kind, self.elem_size = struct.unpack_from("<I12x4I", self.raw)
        self.buckets, self.elems, self.values, self.cpu_stride, self.value_step = struct.unpack_from("<5Q", self.raw, 32)
        self.key_size, self.key_at = key_size, 8 + link_size

    def chains(self) -> list[list[int]]:
        found = []
        for bucket in range(self.n_buckets):
            chain = [struct.unpack_from("<I", self.raw, self.buckets + 4 * bucket)[0]]
            while chain[-1]:
                chain.append(struct.unpack_from("<I", self.raw, self.elems + chain[-1] * self.elem_size)[0])
            found.append(chain[:-1])
        return found

    def key(self, i: int) -> bytes:
        at = self.elems + i * self.elem_size + self.key_at
        return self.raw[at : at + self.key_size]

    def value(self, i: int, size: int, cpu: int = 0) -> bytes:
        at = self.values + i * self.value_step + cpu * self.cpu_stride
        return self.raw[at : at + size]


@pytest.mark.parametrize("kind", [T.HASH, T.PERCPU_HASH, T.LRU_HASH, T.LRU_PERCPU_HASH])
@pytest.mark.parametrize("flags", [0, BPF_F_ZERO_SEED])
@pytest.mark.parametrize("key_size", [4, 6, 16])
def test_hash_table_bytes(kind: MapType, flags: int, key_size: int) -> None:
    rng = random.Random(key_size)
    live: Any = create(MapSpec(kind, key_size, 12, 50, flags), n_cpus=2)
    keys = [rng.randbytes(key_size) for _ in range(40)]
    for n in range(400):
        cpu = n % 2 if kind in (T.PERCPU_HASH, T.LRU_PERCPU_HASH) else 0
        key = rng.choice(keys)
        if rng.randrange(4):
            live.update(key, rng.randbytes(12), 0, cpu)
        else:
            live.delete(key)
    reader = TableReader(live.address, len(live.memory), key_size, 16 if kind in (T.LRU_HASH, T.LRU_PERCPU_HASH) else 0)
    assert reader.hash_kind == (0 if flags else 1)
    function = jhash if flags else fold
    listed = []
    for bucket, chain in enumerate(reader.chains()):
        for i in chain:
            stored = struct.unpack_from("<I", reader.raw, reader.elems + i * reader.elem_size + 4)[0]
            assert function(reader.key(i), reader.seed) == stored
            assert stored & (reader.n_buckets - 1) == bucket
            at = live.lookup(reader.key(i), 1 if reader.cpu_stride else 0)
            assert reader.value(i, 12, 1 if reader.cpu_stride else 0) == live.memory[at : at + 12]
            listed.append(reader.key(i))
    assert listed == [key for key, _ in live.each()]
    assert reader.count == len(listed)


def test_a_foreign_insert_is_seen() -> None:
    """Native code puts an element in by the rules of maps.table; the map finds, lists, updates and deletes it."""
    live: Any = create(MapSpec(T.HASH, 4, 8, 8))
    assert live.lookup(b"abcd") == -1
    raw = (ctypes.c_char * len(live.memory)).from_address(live.address)
    seed, n_buckets = struct.unpack_from("<I", raw, 20)[0], struct.unpack_from("<I", raw, 16)[0]
    buckets, elems = struct.unpack_from("<QQ", raw, 32)
    hashed = fold(b"abcd", seed)
    struct.pack_into("<II4s4xQ", raw, elems + struct.unpack_from("<I", raw, 28)[0], 0, hashed, b"abcd", 77)
    struct.pack_into("<I", raw, buckets + 4 * (hashed & (n_buckets - 1)), 1)
    struct.pack_into("<I4xI", raw, 0, 1, 1)
    assert live.lookup_user(b"abcd") == (77).to_bytes(8, "little")
    assert live.next_key(None) == b"abcd"
    assert live.update(b"abcd", bytes(8)) == 0
    assert live.update(b"efgh", bytes(8)) == 0
    assert live.delete(b"abcd") == 0
    assert live.next_key(None) == b"efgh"
    assert live.next_key(b"efgh") is None


def test_array_bytes() -> None:
    live: Any = create(MapSpec(T.PERCPU_ARRAY, 4, 12, 5), n_cpus=3)
    live.update((3).to_bytes(4, "little"), b"abcdefghijkl", 0, 2)
    assert live.memory[2 * 4096 + 3 * 16 :][:12] == b"abcdefghijkl"
    live = create(MapSpec(T.ARRAY, 4, 12, 5))
    live.update((4).to_bytes(4, "little"), b"abcdefghijkl")
    assert live.memory[4 * 16 :][:12] == b"abcdefghijkl"


def test_creating_touches_few_pages() -> None:
    """A map of a gigabyte costs address space only."""

    def resident_pages() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    before = resident_pages()
    held = [create(MapSpec(kind, 4, 4096, 1 << 18)) for kind in (T.HASH, T.ARRAY, T.LRU_HASH)]
    assert resident_pages() - before < 1000
    assert held[0].next_key(None) is None
