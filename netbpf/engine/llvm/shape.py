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


def is_native(m: Map) -> bool:
    """Whether lookups in this map are compiled; in the others they call back."""
    return m.spec.map_type in ARRAYS | TABLES | LRU_TABLES


def is_written_natively(m: Map) -> bool:
    """Whether updates and deletes are, too. An LRU table's, which move elements between its lists, call back."""
    return m.spec.map_type in ARRAYS | TABLES


def map_shape(m: Any) -> tuple[Any, ...]:
    """All that the code of a map's operations depends on: equal shapes share compiled code."""
    s = m.spec
    shape: tuple[Any, ...] = (s.map_type, s.key_size, s.value_size, s.max_entries, m.n_cpus)
    if s.map_type in TABLES | LRU_TABLES:
        shape += (m.u32[SEED], m.u32[HASH_KIND])
    return shape
