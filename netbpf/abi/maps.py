"""Map kinds and map flags of linux/bpf.h as rows: what a kind is called, since when it exists, who may create it.

Tables only. How a kind is checked and stored is ``maps``' business. A kind whose ``family`` is empty is known by name
and number, and refused at creation as a kernel built without it refuses (EINVAL).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class MapType(IntEnum):
    """enum bpf_map_type of Linux 6.18; the C name is ``BPF_MAP_TYPE_`` + the member's."""

    UNSPEC = 0
    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    CGROUP_STORAGE = 19
    REUSEPORT_SOCKARRAY = 20
    PERCPU_CGROUP_STORAGE = 21
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    STRUCT_OPS = 26
    RINGBUF = 27
    INODE_STORAGE = 28
    TASK_STORAGE = 29
    BLOOM_FILTER = 30
    USER_RINGBUF = 31
    CGRP_STORAGE = 32
    ARENA = 33


# map_flags of BPF_MAP_CREATE
BPF_F_NO_PREALLOC: Final = 1 << 0
BPF_F_NO_COMMON_LRU: Final = 1 << 1
BPF_F_NUMA_NODE: Final = 1 << 2
BPF_F_RDONLY: Final = 1 << 3
BPF_F_WRONLY: Final = 1 << 4
BPF_F_STACK_BUILD_ID: Final = 1 << 5
BPF_F_ZERO_SEED: Final = 1 << 6
BPF_F_RDONLY_PROG: Final = 1 << 7
BPF_F_WRONLY_PROG: Final = 1 << 8
BPF_F_CLONE: Final = 1 << 9
BPF_F_MMAPABLE: Final = 1 << 10
BPF_F_PRESERVE_ELEMS: Final = 1 << 11
BPF_F_INNER_MAP: Final = 1 << 12
BPF_F_LINK: Final = 1 << 13
BPF_F_PATH_FD: Final = 1 << 14
BPF_F_VTYPE_BTF_OBJ_FD: Final = 1 << 15
BPF_F_TOKEN_FD: Final = 1 << 16
BPF_F_SEGV_ON_FAULT: Final = 1 << 17
BPF_F_NO_USER_CONV: Final = 1 << 18

BPF_F_ACCESS_MASK: Final = BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG

# flags of bpf_ringbuf_submit/discard/output, and what bpf_ringbuf_query asks for
BPF_RB_NO_WAKEUP: Final = 1 << 0
BPF_RB_FORCE_WAKEUP: Final = 1 << 1
BPF_RB_AVAIL_DATA: Final = 0
BPF_RB_RING_SIZE: Final = 1
BPF_RB_CONS_POS: Final = 2
BPF_RB_PROD_POS: Final = 3
BPF_RINGBUF_BUSY_BIT: Final = 1 << 31
BPF_RINGBUF_DISCARD_BIT: Final = 1 << 30
BPF_RINGBUF_HDR_SZ: Final = 8

# flags of bpf_perf_event_output
BPF_F_INDEX_MASK: Final = 0xFFFF_FFFF
BPF_F_CURRENT_CPU: Final = 0xFFFF_FFFF
BPF_F_CTXLEN_MASK: Final = 0xFFFFF << 32

_HASH = BPF_F_NO_PREALLOC | BPF_F_NO_COMMON_LRU | BPF_F_NUMA_NODE | BPF_F_ACCESS_MASK | BPF_F_ZERO_SEED
_ARRAY = BPF_F_NUMA_NODE | BPF_F_MMAPABLE | BPF_F_ACCESS_MASK | BPF_F_PRESERVE_ELEMS | BPF_F_INNER_MAP
_TRIE = BPF_F_NO_PREALLOC | BPF_F_NUMA_NODE | BPF_F_ACCESS_MASK
_QUEUE = BPF_F_NUMA_NODE | BPF_F_ACCESS_MASK
_BLOOM = BPF_F_NUMA_NODE | BPF_F_ZERO_SEED | BPF_F_ACCESS_MASK


@dataclass(frozen=True, slots=True)
class MapKind:
    """One kind of map. ``name`` as bpftool prints it, ``since`` the first release, ``capability`` what creating one needs
    beyond the right to create maps at all ("" for nothing), ``create_flags`` the map_flags its family knows (a family's
    further rules are in ``maps.check``), ``family`` the set of creation rules ("" where this kind cannot be created here)."""

    type: MapType
    name: str
    since: str
    capability: str = ""
    family: str = ""
    create_flags: int = 0
    per_cpu: bool = False


_BPF, _NET = "CAP_BPF", "CAP_NET_ADMIN"
_T = MapType

_ROWS: Final = (
    MapKind(_T.UNSPEC, "unspec", "3.18"),
    MapKind(_T.HASH, "hash", "3.19", "", "hash", _HASH),
    MapKind(_T.ARRAY, "array", "3.19", "", "array", _ARRAY),
    MapKind(_T.PROG_ARRAY, "prog_array", "4.2", "", "fd_array", _ARRAY),
    MapKind(_T.PERF_EVENT_ARRAY, "perf_event_array", "4.3", "", "fd_array", _ARRAY),
    MapKind(_T.PERCPU_HASH, "percpu_hash", "4.6", "", "hash", _HASH, per_cpu=True),
    MapKind(_T.PERCPU_ARRAY, "percpu_array", "4.6", "", "array", _ARRAY, per_cpu=True),
    MapKind(_T.STACK_TRACE, "stack_trace", "4.6", _BPF),
    MapKind(_T.CGROUP_ARRAY, "cgroup_array", "4.8"),
    MapKind(_T.LRU_HASH, "lru_hash", "4.10", _BPF, "hash", _HASH),
    MapKind(_T.LRU_PERCPU_HASH, "lru_percpu_hash", "4.10", _BPF, "hash", _HASH, per_cpu=True),
    MapKind(_T.LPM_TRIE, "lpm_trie", "4.11", _BPF, "trie", _TRIE),
    MapKind(_T.ARRAY_OF_MAPS, "array_of_maps", "4.12", "", "fd_array", _ARRAY),
    MapKind(_T.HASH_OF_MAPS, "hash_of_maps", "4.12", "", "fd_hash", _HASH),
    MapKind(_T.DEVMAP, "devmap", "4.14", _NET),
    MapKind(_T.SOCKMAP, "sockmap", "4.14", _NET),
    MapKind(_T.CPUMAP, "cpumap", "4.15", _BPF),
    MapKind(_T.XSKMAP, "xskmap", "4.18", _NET),
    MapKind(_T.SOCKHASH, "sockhash", "4.18", _NET),
    MapKind(_T.CGROUP_STORAGE, "cgroup_storage", "4.19"),
    MapKind(_T.REUSEPORT_SOCKARRAY, "reuseport_sockarray", "4.19", _BPF),
    MapKind(_T.PERCPU_CGROUP_STORAGE, "percpu_cgroup_storage", "4.20", per_cpu=True),
    MapKind(_T.QUEUE, "queue", "4.20", _BPF, "queue", _QUEUE),
    MapKind(_T.STACK, "stack", "4.20", _BPF, "queue", _QUEUE),
    MapKind(_T.SK_STORAGE, "sk_storage", "5.2", _BPF),
    MapKind(_T.DEVMAP_HASH, "devmap_hash", "5.4", _NET),
    MapKind(_T.STRUCT_OPS, "struct_ops", "5.6", _BPF),
    MapKind(_T.RINGBUF, "ringbuf", "5.8", "", "ringbuf", BPF_F_NUMA_NODE),
    MapKind(_T.INODE_STORAGE, "inode_storage", "5.10", _BPF),
    MapKind(_T.TASK_STORAGE, "task_storage", "5.11", _BPF),
    MapKind(_T.BLOOM_FILTER, "bloom_filter", "5.16", _BPF, "bloom", _BLOOM),
    MapKind(_T.USER_RINGBUF, "user_ringbuf", "6.1"),
    MapKind(_T.CGRP_STORAGE, "cgrp_storage", "6.2", _BPF),
    MapKind(_T.ARENA, "arena", "6.9", _BPF),
)

MAP_KINDS: Final[dict[int, MapKind]] = {int(row.type): row for row in _ROWS}
MAP_KIND_BY_NAME: Final[dict[str, MapKind]] = {row.name: row for row in _ROWS}


def map_type_name(map_type: int) -> str:
    """bpftool's word for a map type: ``hash`` for 1; ``type 99`` where there is none."""
    kind = MAP_KINDS.get(map_type)
    return kind.name if kind else f"type {map_type}"
