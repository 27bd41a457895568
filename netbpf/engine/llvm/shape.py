"""Which maps have compiled operations, and what their code depends on. Light: a start from the cache needs this alone."""

from __future__ import annotations

from typing import Any

from netbpf.abi.maps import MapType
from netbpf.maps.base import Map
from netbpf.maps.table import HASH_KIND, SEED

ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
TABLES = frozenset({MapType.HASH, MapType.PERCPU_HASH})
PER_CPU = frozenset({MapType.PERCPU_ARRAY, MapType.PERCPU_HASH})


def is_native(m: Map) -> bool:
    """Whether this map's operations are compiled; the others call back."""
    return m.spec.map_type in ARRAYS | TABLES


def map_shape(m: Any) -> tuple[Any, ...]:
    """All that the code of a map's operations depends on: equal shapes share compiled code."""
    s = m.spec
    shape: tuple[Any, ...] = (s.map_type, s.key_size, s.value_size, s.max_entries, m.n_cpus)
    if s.map_type in TABLES:
        shape += (m.u32[SEED], m.u32[HASH_KIND])
    return shape
