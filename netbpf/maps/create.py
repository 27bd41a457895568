"""MapSpec -> live map. The one place that knows every kind's class."""

from __future__ import annotations

import errno
import importlib
from typing import Any, Final

from netbpf.abi.maps import BPF_F_NO_PREALLOC, MAP_KINDS, MapType
from netbpf.errors import BpfError
from netbpf.maps.check import check_spec, n_buckets_for
from netbpf.maps.spec import MapSpec
from netbpf.maps.storage import DEFAULT_SEED, MapBase

# map type -> (module under netbpf.maps, class), imported when the first such map is made
_CLASSES: Final[dict[int, tuple[str, str]]] = {
    MapType.HASH: ("hash", "HashMap"),
    MapType.ARRAY: ("array", "ArrayMap"),
    MapType.PERCPU_HASH: ("percpu_hash", "PerCpuHashMap"),
    MapType.PERCPU_ARRAY: ("percpu_array", "PerCpuArrayMap"),
    MapType.LRU_HASH: ("lru_hash", "LruHashMap"),
    MapType.LRU_PERCPU_HASH: ("lru_percpu_hash", "LruPerCpuHashMap"),
    MapType.QUEUE: ("queue", "QueueMap"),
    MapType.STACK: ("stack", "StackMap"),
    MapType.BLOOM_FILTER: ("bloom_filter", "BloomFilterMap"),
    MapType.LPM_TRIE: ("lpm_trie", "LpmTrieMap"),
    MapType.PROG_ARRAY: ("prog_array", "ProgArrayMap"),
    MapType.PERF_EVENT_ARRAY: ("perf_event_array", "PerfEventArrayMap"),
    MapType.ARRAY_OF_MAPS: ("array_of_maps", "ArrayOfMapsMap"),
    MapType.HASH_OF_MAPS: ("hash_of_maps", "HashOfMapsMap"),
    MapType.RINGBUF: ("ringbuf", "RingBufMap"),
}
_SEEDED: Final = frozenset(kind.type for kind in MAP_KINDS.values() if kind.family in ("hash", "fd_hash", "bloom"))


def create(
    spec: MapSpec,
    *,
    n_cpus: int = 1,
    memory_limit: int | None = None,
    map_id: int = 0,
    seed: int = DEFAULT_SEED,
    numa_nodes: int = 1,
) -> MapBase:
    """A live map, all zero or empty.

    ``n_cpus`` is how many CPUs a per-CPU kind has values for; ``memory_limit`` bytes a map may take at most (None: as much
    as the system maps), counted as Linux allocates it; ``seed`` the hash seed of maps without BPF_F_ZERO_SEED.
    Raises BpfError as BPF_MAP_CREATE does for a caller with every capability: ENOMEM beyond the limit.
    """
    err = check_spec(spec, numa_nodes=numa_nodes)
    if err:
        raise BpfError(-err)
    module, name = _CLASSES[spec.map_type]
    kind: Any = getattr(importlib.import_module(f"netbpf.maps.{module}"), name)
    live: MapBase = kind(spec, n_cpus, map_id, seed) if spec.map_type in _SEEDED else kind(spec, n_cpus, map_id)
    if memory_limit is not None and _allocated_at_once(live) > memory_limit:
        raise BpfError(errno.ENOMEM)
    return live


def _allocated_at_once(live: MapBase) -> int:
    """Bytes that Linux takes when the map is created: all of it, but a table without preallocation takes only its buckets
    (16 bytes each) and a trie nothing."""
    if live.map_type == MapType.LPM_TRIE:
        return 0
    if live.spec.map_flags & BPF_F_NO_PREALLOC:
        return 16 * n_buckets_for(live.spec.max_entries)
    return len(live.memory)
