"""Which maps have compiled operations, and what their code depends on. Light: a start from the cache needs this alone."""

from __future__ import annotations

from typing import Any

from netbpf.abi.maps import MapType
from netbpf.maps.base import Map
from netbpf.maps.table import HASH_KIND, SEED

ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
TABLES = frozenset({MapType.HASH, MapType.PERCPU_HASH})
LRU_TABLES = frozenset({MapType.LRU_HASH, MapType.LRU_PERCPU_HASH})
PER_CPU = frozenset({MapType.PERCPU_ARRAY, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH})
TRIES = frozenset({MapType.LPM_TRIE})
QUEUES = frozenset({MapType.QUEUE, MapType.STACK})
PUSHED = QUEUES | {MapType.BLOOM_FILTER}
RINGS = frozenset({MapType.RINGBUF})
MAPS_OF_MAPS = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
KEYED = ARRAYS | TABLES | LRU_TABLES | TRIES


def has_pieces(m: Map) -> bool:
    """Whether its values lie a step apart, as ``regions`` tells them to checked code."""
    return m.spec.map_type in ARRAYS | TABLES | LRU_TABLES


def map_shape(m: Any) -> tuple[Any, ...]:
    """All that the code of a map's operations depends on: equal shapes share compiled code."""
    s = m.spec
    shape: tuple[Any, ...] = (s.map_type, s.key_size, s.value_size, s.max_entries, s.map_flags, s.map_extra, m.n_cpus)
    if s.map_type in TABLES | LRU_TABLES | {MapType.HASH_OF_MAPS}:
        shape += (m.u32[SEED], m.u32[HASH_KIND])
    if s.map_type == MapType.BLOOM_FILTER:
        shape += (m.u32[0],)
    if s.inner is not None:
        shape += (s.inner.map_type, s.inner.key_size, s.inner.value_size, s.inner.map_flags)
    return shape
