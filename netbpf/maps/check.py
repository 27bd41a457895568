"""Whether BPF_MAP_CREATE would take a MapSpec, and the errno when not, in the order in which the kernel asks.

Pure: it allocates nothing (ENOMEM comes from ``maps.create``). The attribute bytes themselves (unused fields, descriptors
of inner maps and BTF) are the host's to check before.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from netbpf.abi import maps as abi
from netbpf.abi.maps import MAP_KINDS, MapType
from netbpf.errors import ENOTSUPP
from netbpf.ints import U32_MAX, round_up
from netbpf.maps.spec import MapSpec

KMALLOC_MAX_SIZE: Final = 1 << 22
PCPU_MIN_UNIT_SIZE: Final = 32 << 10
PAGE_SIZE: Final = 4096
LPM_KEY_SIZE: Final = (5, 260)  # a u32 prefix length, then 1 to 256 bytes
LPM_VALUE_SIZE_MAX: Final = KMALLOC_MAX_SIZE - 256 - 24
HTAB_ELEM_SIZE: Final = 48
HTAB_MAX_BUCKETS: Final = U32_MAX // 16  # sizeof(struct bucket) is 16

Capable = Callable[[str], bool]
Rule = Callable[[MapSpec, Capable], int]

_PER_CPU: Final = frozenset(kind.type for kind in MAP_KINDS.values() if kind.per_cpu)
_LRU: Final = (MapType.LRU_HASH, MapType.LRU_PERCPU_HASH)
_NO_INNER: Final = (MapType.PROG_ARRAY, MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE, MapType.STRUCT_OPS)
_OF_MAPS: Final = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)


def check_spec(
    spec: MapSpec,
    *,
    caps: frozenset[str] | None = None,
    unprivileged_disabled: bool = True,
    numa_nodes: int = 1,
) -> int:
    """0, or -errno as BPF_MAP_CREATE returns it.

    ``caps``: the caller's capabilities by name ("CAP_BPF"), None for all of them; ``unprivileged_disabled``: whether
    kernel.unprivileged_bpf_disabled is not 0; ``numa_nodes``: how many nodes the machine has.
    """
    def capable(cap: str) -> bool:
        return caps is None or cap in caps or (cap != "CAP_SYS_ADMIN" and "CAP_SYS_ADMIN" in caps)

    err = _check_common(spec, numa_nodes)
    if err:
        return err
    kind = MAP_KINDS[spec.map_type]
    early, late = _FAMILIES[kind.family]
    err = early(spec, capable)
    if err:
        return err
    if unprivileged_disabled and not capable("CAP_BPF"):
        return -errno.EPERM
    if kind.capability and not capable(kind.capability):
        return -errno.EPERM
    return late(spec, capable)


def _check_common(spec: MapSpec, numa_nodes: int) -> int:
    flags = spec.map_flags
    if spec.btf_key_type_id and not spec.btf_value_type_id:
        return -errno.EINVAL
    if spec.map_extra and spec.map_type not in (MapType.BLOOM_FILTER, MapType.ARENA):
        return -errno.EINVAL
    if flags & abi.BPF_F_RDONLY and flags & abi.BPF_F_WRONLY:
        return -errno.EINVAL
    if flags & abi.BPF_F_NUMA_NODE and spec.numa_node & U32_MAX != U32_MAX and spec.numa_node & U32_MAX >= numa_nodes:
        return -errno.EINVAL
    kind = MAP_KINDS.get(spec.map_type)
    return -errno.EINVAL if kind is None or not kind.family else 0


def _flags_ok(spec: MapSpec) -> bool:
    """Only flags the family knows, and not both RDONLY_PROG and WRONLY_PROG."""
    both = abi.BPF_F_RDONLY_PROG | abi.BPF_F_WRONLY_PROG
    return not spec.map_flags & ~MAP_KINDS[spec.map_type].create_flags and spec.map_flags & both != both


def _has_numa_node(spec: MapSpec) -> bool:
    return bool(spec.map_flags & abi.BPF_F_NUMA_NODE) and spec.numa_node & U32_MAX != U32_MAX


def _check_hash(spec: MapSpec, capable: Capable) -> int:
    if spec.map_flags & abi.BPF_F_ZERO_SEED and not capable("CAP_SYS_ADMIN"):
        return -errno.EPERM
    flags, per_cpu, lru = spec.map_flags, spec.map_type in _PER_CPU, spec.map_type in _LRU
    if not _flags_ok(spec) or (flags & abi.BPF_F_NO_COMMON_LRU and not lru):
        return -errno.EINVAL
    if lru and flags & abi.BPF_F_NO_PREALLOC:
        return -ENOTSUPP
    if _has_numa_node(spec) and (per_cpu or flags & abi.BPF_F_NO_COMMON_LRU):
        return -errno.EINVAL
    if not spec.max_entries or not spec.key_size or not spec.value_size:
        return -errno.EINVAL
    if spec.key_size + spec.value_size >= KMALLOC_MAX_SIZE - HTAB_ELEM_SIZE:
        return -errno.E2BIG
    return -errno.E2BIG if per_cpu and round_up(spec.value_size, 8) > PCPU_MIN_UNIT_SIZE else 0


def _alloc_hash(spec: MapSpec, capable: Capable) -> int:
    return -errno.E2BIG if spec.max_entries > 1 << 31 or n_buckets_for(spec.max_entries) > HTAB_MAX_BUCKETS else 0


def n_buckets_for(max_entries: int) -> int:
    """The power of two that is >= ``max_entries``."""
    return 1 << (max_entries - 1).bit_length()


def _check_array(spec: MapSpec, capable: Capable) -> int:
    per_cpu = spec.map_type in _PER_CPU
    if not spec.max_entries or spec.key_size != 4 or not spec.value_size or not _flags_ok(spec):
        return -errno.EINVAL
    if per_cpu and _has_numa_node(spec):
        return -errno.EINVAL
    if spec.map_type != MapType.ARRAY and spec.map_flags & (abi.BPF_F_MMAPABLE | abi.BPF_F_INNER_MAP):
        return -errno.EINVAL
    if spec.map_type != MapType.PERF_EVENT_ARRAY and spec.map_flags & abi.BPF_F_PRESERVE_ELEMS:
        return -errno.EINVAL
    if spec.value_size > 0x7FFF_FFFF:
        return -errno.E2BIG
    return -errno.E2BIG if per_cpu and round_up(spec.value_size, 8) > PCPU_MIN_UNIT_SIZE else 0


def _check_fd_array(spec: MapSpec, capable: Capable) -> int:
    if spec.value_size != 4 or spec.map_flags & (abi.BPF_F_RDONLY_PROG | abi.BPF_F_WRONLY_PROG):
        return -errno.EINVAL
    return _check_array(spec, capable)


def _alloc_array(spec: MapSpec, capable: Capable) -> int:
    """Without CAP_PERFMON the number of entries is rounded up against speculation, and must then fit 32 bits."""
    return 0 if capable("CAP_PERFMON") or n_buckets_for(spec.max_entries) <= U32_MAX else -errno.E2BIG


def _alloc_fd_array(spec: MapSpec, capable: Capable) -> int:
    return (_check_inner(spec) if spec.map_type in _OF_MAPS else 0) or _alloc_array(spec, capable)


def _check_fd_hash(spec: MapSpec, capable: Capable) -> int:
    return -errno.EINVAL if spec.value_size != 4 else _check_hash(spec, capable)


def _alloc_fd_hash(spec: MapSpec, capable: Capable) -> int:
    return _check_inner(spec) or _alloc_hash(spec, capable)


def _check_inner(spec: MapSpec) -> int:
    """The template of a map of maps: there, itself not a map of maps, and of a kind that can be compared."""
    if spec.inner is None:
        return -errno.EBADF
    if spec.inner.map_type in _OF_MAPS:
        return -errno.EINVAL
    return -ENOTSUPP if spec.inner.map_type in _NO_INNER else 0


def _check_queue(spec: MapSpec, capable: Capable) -> int:
    if not spec.max_entries or spec.key_size or not spec.value_size or not _flags_ok(spec):
        return -errno.EINVAL
    return -errno.E2BIG if spec.value_size > KMALLOC_MAX_SIZE else 0


def _alloc_trie(spec: MapSpec, capable: Capable) -> int:
    smallest, largest = LPM_KEY_SIZE
    if not spec.max_entries or not spec.map_flags & abi.BPF_F_NO_PREALLOC or not _flags_ok(spec):
        return -errno.EINVAL
    if not smallest <= spec.key_size <= largest:
        return -errno.EINVAL
    return 0 if 1 <= spec.value_size <= LPM_VALUE_SIZE_MAX else -errno.EINVAL


def _alloc_ringbuf(spec: MapSpec, capable: Capable) -> int:
    size = spec.max_entries
    if not _flags_ok(spec) or spec.key_size or spec.value_size:
        return -errno.EINVAL
    return -errno.EINVAL if not size or size & (size - 1) or size % PAGE_SIZE else 0


def _check_bloom(spec: MapSpec, capable: Capable) -> int:
    return -errno.E2BIG if spec.value_size > KMALLOC_MAX_SIZE else 0


def _alloc_bloom(spec: MapSpec, capable: Capable) -> int:
    if spec.key_size or not spec.value_size or not spec.max_entries or not _flags_ok(spec) or spec.map_extra & ~0xF:
        return -errno.EINVAL
    return 0


def _nothing(spec: MapSpec, capable: Capable) -> int:
    return 0


# family -> (asked before the privileges, asked after them)
_FAMILIES: Final[dict[str, tuple[Rule, Rule]]] = {
    "hash": (_check_hash, _alloc_hash),
    "fd_hash": (_check_fd_hash, _alloc_fd_hash),
    "array": (_check_array, _alloc_array),
    "fd_array": (_check_fd_array, _alloc_fd_array),
    "queue": (_check_queue, _nothing),
    "trie": (_nothing, _alloc_trie),
    "ringbuf": (_nothing, _alloc_ringbuf),
    "bloom": (_check_bloom, _alloc_bloom),
}
