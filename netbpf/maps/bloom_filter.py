"""BPF_MAP_TYPE_BLOOM_FILTER: values pushed are found again; a value never pushed is seldom found. Its bytes::

    struct header { u32 seed, nr_hashes, bitset_mask, reserved[13]; };
    u64 bitset[];                                     // at 64; (bitset_mask + 1) bits, at least 64

A value sets the bits jhash(value, seed + n) & bitset_mask for n in 0 ... nr_hashes - 1; bit b is bit b % 64 of word b / 64. The
number of hashes is map_extra, 5 for 0; of bits 7/5 of max_entries * nr_hashes, rounded up to a power of two.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.maps import BPF_F_ZERO_SEED, MapType
from netbpf.errors import BpfError
from netbpf.ints import U32_MAX
from netbpf.maps.base import BPF_ANY
from netbpf.maps.jhash import jhash
from netbpf.maps.spec import MapSpec
from netbpf.maps.storage import MapBase, raise_for

BITS_OFF: Final = 64
DEFAULT_HASHES: Final = 5
SEED, NR_HASHES, BITSET_MASK = range(3)


def bitset_mask(max_entries: int, nr_hashes: int) -> int:
    """The number of bits, less 1: n * k / ln 2 with 7/5 for 1 / ln 2, a power of two between 2**6 and 2**32."""
    bits = max_entries * nr_hashes
    if bits > U32_MAX or bits // 5 * 7 > U32_MAX or bits // 5 * 7 > 1 << 31:
        return U32_MAX
    return max(64, 1 << (max(bits // 5 * 7, 1) - 1).bit_length()) - 1


class BloomFilterMap(MapBase):
    """A bloom filter. Programs call ``push`` and ``contains`` (bpf_map_peek_elem)."""

    __slots__ = ("_mask", "_seeds")
    map_type = MapType.BLOOM_FILTER

    def __init__(self, spec: MapSpec, n_cpus: int, map_id: int, seed: int) -> None:
        nr_hashes = spec.map_extra & 0xF or DEFAULT_HASHES
        self._mask = bitset_mask(spec.max_entries, nr_hashes)
        super().__init__(spec, BITS_OFF + (self._mask + 1) // 8, n_cpus, map_id)
        seed = 0 if spec.map_flags & BPF_F_ZERO_SEED else seed & U32_MAX
        self._seeds = range(seed, seed + nr_hashes)
        self.u32[SEED], self.u32[NR_HASHES], self.u32[BITSET_MASK] = seed, nr_hashes, self._mask

    def push(self, value: bytes, flags: int = BPF_ANY) -> int:
        """bpf_map_push_elem: 0, or -EINVAL for flags other than BPF_ANY."""
        if flags != BPF_ANY:
            return -errno.EINVAL
        memory = self.memory
        for seed in self._seeds:
            bit = jhash(value, seed) & self._mask
            memory[BITS_OFF + (bit >> 3)] |= 1 << (bit & 7)
        return 0

    def contains(self, value: bytes) -> bool:
        """bpf_map_peek_elem: whether the value may have been pushed (the helper returns 0, else -ENOENT)."""
        memory, mask = self.memory, self._mask
        bits = (jhash(value, seed) & mask for seed in self._seeds)
        return all(memory[BITS_OFF + (bit >> 3)] >> (bit & 7) & 1 for bit in bits)

    # --- user space -------------------------------------------------------------------------------------------------
    def peek_user(self, value: bytes, flags: int = 0) -> None:
        """BPF_MAP_LOOKUP_ELEM, which takes the value and no key. Raises BpfError(ENOENT) for a value not there."""
        self.check_lookup_flags(flags)
        self.check_value(value)
        if not self.contains(value):
            raise BpfError(errno.ENOENT)

    def lookup_user(self, key: bytes, flags: int = 0) -> bytes:
        """A bloom filter has values alone: see ``peek_user``."""
        raise BpfError(errno.EINVAL)

    def update_user(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        self.check_write(flags)
        self.check_key(key)
        self.check_value(value)
        raise_for(self.push(value, flags))
