"""The hash table under HASH, PERCPU_HASH, LRU_HASH, LRU_PERCPU_HASH and HASH_OF_MAPS.

Its bytes, all little-endian; an engine may read and change them in place, keeping the rules below::

    struct header {            // at 0
        u32 count;             //  0  elements linked into buckets
        u32 free;              //  4  first of the freed elements (chained by `hash`), 0: none
        u32 fresh;             //  8  elements handed out ever: element fresh + 1 was never used and is all zero
        u32 max_entries;       // 12
        u32 n_buckets;         // 16  power of two; with BPF_F_ZERO_SEED Linux's own number, so that keys come in its order
        u32 seed;              // 20
        u32 hash_kind;         // 24  0: jhash (BPF_F_ZERO_SEED), 1: fold; both in maps.jhash
        u32 elem_size;         // 28  bytes from one element to the next, a multiple of 8
        u64 buckets_off;       // 32  u32 buckets[n_buckets]: index of the first element of the chain, 0: empty
        u64 elems_off;         // 40  element i is at elems_off + i * elem_size; element 0 does not exist
        u64 value_off;         // 48  value of element i on CPU c: value_off + i * value_step + c * cpu_stride
        u64 cpu_stride;        // 56  0 unless per-CPU
        u64 value_step;        // 64  elem_size unless per-CPU
        u64 reserved[7];
        u32 spare[n_cpus];     // 128 HASH only: per CPU the element that its next update of a key that exists takes
    };
    struct element {
        u32 next;              //  0  next in the bucket; stays as it is when the element is taken out
        u32 hash;              //  4  or next in the free list
        u8  link[LINK_SIZE];   //  8  LRU kinds only, see maps.lru; else nothing
        u8  key[round_up(key_size, 8)];      // zero padded
        u8  value[round_up(value_size, 8)];  // not in per-CPU kinds, whose values lie in one plane per CPU
    };

Rules, as a kernel's preallocated table behaves: the bucket is hash & (n_buckets - 1); a new element goes to the bucket's
head. At ``count == max_entries`` a new key gets E2BIG, so that ``fresh`` never passes max_entries. An update of a key that exists
in a HASH writes the CPU's spare element (at first element max_entries + 1 + cpu), puts it at the head, takes the old one out and
keeps that as the CPU's spare: a pointer to the old value goes stale but stays valid. The other kinds write in place, or as
their modules say. A deleted element goes on top of the free list, its bytes unchanged but for `hash`.

bpf_for_each_map_elem goes through the buckets in order, and through each chain with its eye on the element after the one at hand:
what the callback puts at the head of that chain, or of one before, it does not see. The element after, if the callback takes it
out, it still visits, and goes on where that one's `next` leads.

With BPF_F_NO_PREALLOC all is the same, pages being committed when touched anyway; only a table larger than the address space
(some 100 TB) cannot be created (ENOMEM), where Linux would wait for it to fill.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from netbpf.abi.maps import BPF_F_ZERO_SEED
from netbpf.ints import round_up
from netbpf.maps.check import PAGE_SIZE, n_buckets_for
from netbpf.maps.jhash import HashMemo, fold, jhash
from netbpf.maps.spec import MapSpec
from netbpf.maps.storage import MapBase, flags_error

HASH_JHASH: Final = 0
HASH_FOLD: Final = 1
SPARE_OFF: Final = 128

# word indexes (u32) of the header
COUNT, FREE, FRESH, MAX_ENTRIES, N_BUCKETS, SEED, HASH_KIND, ELEM_SIZE = range(8)
# word indexes (u64) of the header
BUCKETS_OFF, ELEMS_OFF, VALUE_OFF, CPU_STRIDE, VALUE_STEP = range(4, 9)
SPREAD: Final = 4  # times the kernel's number of buckets: a key that shares a bucket costs a branch that nobody foresees
SPREAD_MAX_BUCKETS: Final = 1 << 18  # of larger tables the buckets would be much of a far cache
SCAN: Final = 4096  # buckets looked at in one go when searching one that is not empty


def spread_buckets(max_entries: int) -> int:
    """Buckets of a table with a seed of its own, whose order of keys promises nothing: more than Linux has."""
    n_buckets = n_buckets_for(max_entries)
    return n_buckets * SPREAD if n_buckets <= SPREAD_MAX_BUCKETS else n_buckets


class HashTable(MapBase):
    """Buckets, chains, elements; what an element's value is, and what a full table does, is the kind's."""

    __slots__ = (
        "_buckets",
        "_elems",
        "_hashes",
        "_mask",
        "elem_size",
        "extra_off",
        "key_at",
        "key_end",
        "slot_size",
        "value_off",
        "value_step",
    )
    link_size = 0  # bytes of `link` in an element
    value_planes = False  # per-CPU kinds
    has_spares = False  # kinds that use `replace`
    slot_bytes = 0  # bytes of a stored value where it is not value_size

    def __init__(
        self, spec: MapSpec, n_cpus: int, map_id: int, seed: int, *, max_entries: int = 0, extra_bytes: int = 0
    ) -> None:
        max_entries = max_entries or spec.max_entries
        self.key_at = 8 + self.link_size
        self.key_end = self.key_at + spec.key_size
        self.slot_size = round_up(self.slot_bytes or spec.value_size, 8)
        n_elems = max_entries + (n_cpus if self.has_spares else 0)
        zero_seed = bool(spec.map_flags & BPF_F_ZERO_SEED)
        n_buckets = n_buckets_for(max_entries) if zero_seed else spread_buckets(max_entries)
        size_bytes, stride = self._place(spec, n_cpus, n_buckets, n_elems, extra_bytes)
        super().__init__(spec, size_bytes, n_cpus, map_id)
        self.cpu_stride = stride
        for cpu in range(n_elems - max_entries):
            self.u32[(SPARE_OFF >> 2) + cpu] = max_entries + 1 + cpu
        self._write_header(max_entries, 0 if zero_seed else seed, HASH_JHASH if zero_seed else HASH_FOLD)

    def _place(self, spec: MapSpec, n_cpus: int, n_buckets: int, n_elems: int, extra_bytes: int) -> tuple[int, int]:
        """Fix where everything lies: (bytes of it all, cpu_stride). ``extra_bytes``, the kind's own, lie at ``extra_off``."""
        self._mask = n_buckets - 1
        self.extra_off = round_up(SPARE_OFF + 4 * n_cpus, 64)
        buckets_off = self.extra_off + round_up(extra_bytes, 64)
        self._buckets = buckets_off >> 2
        self._elems = round_up(buckets_off + 4 * n_buckets, 64)
        value_at = self.key_at + round_up(spec.key_size, 8)
        if not self.value_planes:
            self.elem_size = self.value_step = value_at + self.slot_size
            self.value_off = self._elems + value_at
            return self._elems + (n_elems + 1) * self.elem_size, 0
        self.elem_size, self.value_step = value_at, self.slot_size
        self.value_off = round_up(self._elems + (n_elems + 1) * self.elem_size, PAGE_SIZE)
        stride = round_up((n_elems + 1) * self.value_step, PAGE_SIZE)
        return self.value_off + n_cpus * stride, stride

    def _write_header(self, max_entries: int, seed: int, hash_kind: int) -> None:
        u32, u64 = self.u32, self.u64
        u32[MAX_ENTRIES], u32[N_BUCKETS], u32[SEED] = max_entries, self._mask + 1, seed
        u32[HASH_KIND], u32[ELEM_SIZE] = hash_kind, self.elem_size
        u64[BUCKETS_OFF], u64[ELEMS_OFF], u64[VALUE_OFF] = self._buckets << 2, self._elems, self.value_off
        u64[CPU_STRIDE], u64[VALUE_STEP] = self.cpu_stride, self.value_step
        self._hashes = HashMemo(fold if hash_kind == HASH_FOLD else jhash, seed)

    # --- elements and chains ------------------------------------------------------------------------------------------
    def find(self, key: bytes) -> int:
        """Index of the element with this key, or 0."""
        u32, memory, elems, size = self.u32, self.memory, self._elems, self.elem_size
        key_at, key_end = self.key_at, self.key_end
        i: int = u32[self._buckets + (self._hashes[key] & self._mask)]
        while i:
            at = elems + i * size
            if memory[at + key_at : at + key_end] == key:
                return i
            i = u32[at >> 2]
        return 0

    def word(self, i: int) -> int:
        """Index in ``u32`` of element *i*'s first word."""
        return (self._elems + i * self.elem_size) >> 2

    def key_of(self, i: int) -> bytes:
        at = self._elems + i * self.elem_size
        return bytes(self.memory[at + self.key_at : at + self.key_end])

    def key_place(self, i: int) -> int:
        """Offset of element *i*'s key."""
        return self._elems + i * self.elem_size + self.key_at

    def value_of(self, i: int, cpu: int = 0) -> int:
        """Offset of element *i*'s value on ``cpu``."""
        return self.value_off + i * self.value_step + cpu * self.cpu_stride

    def take(self) -> int:
        """An unlinked element: the one freed last, else a fresh one."""
        u32 = self.u32
        i: int = u32[FREE]
        if i:
            u32[FREE] = u32[self.word(i) + 1]
            return i
        u32[FRESH] += 1
        return int(u32[FRESH])

    def give(self, i: int) -> None:
        """Put an unlinked element on top of the free list."""
        u32 = self.u32
        u32[self.word(i) + 1] = u32[FREE]
        u32[FREE] = i

    def link(self, i: int, key: bytes) -> None:
        """Write the key into element *i* and make it the head of its bucket."""
        u32, at, key_hash = self.u32, self._elems + i * self.elem_size, self._hashes[key]
        self.memory[at + self.key_at : at + self.key_end] = key
        bucket = self._buckets + (key_hash & self._mask)
        u32[at >> 2], u32[(at >> 2) + 1] = u32[bucket], key_hash
        u32[bucket] = i
        u32[COUNT] += 1

    def unlink(self, i: int) -> None:
        """Take element *i* out of its bucket."""
        u32, elems, size = self.u32, self._elems, self.elem_size
        at = (elems + i * size) >> 2
        slot = self._buckets + (u32[at + 1] & self._mask)
        while u32[slot] != i:
            slot = (elems + u32[slot] * size) >> 2
        u32[slot] = u32[at]
        u32[COUNT] -= 1

    # --- what every kind of table does the same ---------------------------------------------------------------------
    def lookup(self, key: bytes, cpu: int = 0) -> int:
        i = self.find(key)
        return self.value_off + i * self.value_step + cpu * self.cpu_stride if i else -1

    def delete(self, key: bytes) -> int:
        i = self.find(key)
        if not i:
            return -errno.ENOENT
        self.unlink(i)
        self.give(i)
        return 0

    def next_key(self, key: bytes | None) -> bytes | None:
        u32, bucket = self.u32, self._buckets
        if key is not None:
            self.check_key(key)
            i = self.find(key)
            if i:
                follower = u32[self.word(i)]
                if follower:
                    return self.key_of(follower)
                bucket += (self._hashes[key] & self._mask) + 1
        bucket = self._filled_from(bucket)
        return self.key_of(u32[bucket]) if bucket else None

    def _filled_from(self, bucket: int) -> int:
        """The word index of the first bucket from ``bucket`` on that is not empty; 0, of no bucket, where all are."""
        end = self._buckets + self._mask + 1
        while bucket < end:
            piece = self.memory[bucket * 4 : min(bucket + SCAN, end) * 4]
            rest = piece.lstrip(b"\0")
            if rest:
                return bucket + (len(piece) - len(rest)) // 4
            bucket += SCAN
        return 0

    def bucket_elements(self, bucket: int) -> list[int]:
        """The elements of one bucket, head first."""
        found, i = [], self.u32[self._buckets + bucket]
        while i:
            found.append(i)
            i = self.u32[self.word(i)]
        return found

    def walk(self) -> Iterator[int]:
        """The elements in the order of bpf_for_each_map_elem, which may be changing the table meanwhile."""
        u32, bucket = self.u32, self._filled_from(self._buckets)
        while bucket:
            i = u32[bucket]
            while i:
                following = u32[self.word(i)]
                yield i
                i = following
            bucket = self._filled_from(bucket + 1)

    def each(self, cpu: int = 0) -> Iterator[tuple[bytes, int]]:
        """(key, value offset on ``cpu``) in the order of ``walk``."""
        for i in self.walk():
            yield self.key_of(i), self.value_of(i, cpu)

    @property
    def n_buckets(self) -> int:
        return self._mask + 1

    def lookup_and_delete_user(self, key: bytes, flags: int = 0) -> bytes:
        self.check_write()
        value = self.lookup_user(key, flags)
        self.delete_user(key)
        return value

    # --- update of kinds whose value lies in the element ---------------------------------------------------------------
    def replace(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        """Insert, or put another element in the place of the one there. 0 or -errno."""
        old = self.find(key)
        err = flags_error(bool(old), flags)
        if err:
            return err
        u32, spare = self.u32, (SPARE_OFF >> 2) + cpu
        if not old:
            if u32[COUNT] >= u32[MAX_ENTRIES]:
                return -errno.E2BIG
            i = self.take()
        else:
            i = u32[spare]
        at = self.value_off + i * self.value_step
        self.memory[at : at + len(value)] = value
        self.link(i, key)
        if old:
            self.unlink(old)
            u32[spare] = old
        return 0
