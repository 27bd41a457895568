"""The blueprint of a map. Its validity (-> errno) is checked by ``maps.check``; nothing here is live."""

from __future__ import annotations

from typing import NamedTuple


class MapSpec(NamedTuple):
    """What BPF_MAP_CREATE is told. Sizes in bytes; ``map_type`` is an ``abi.maps.MapType`` value (kept an int so that
    an unknown type can be stated and refused). ``inner`` is the template of a map of maps."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int = 0
    name: str = ""
    map_extra: int = 0
    numa_node: int = 0
    inner: MapSpec | None = None
    btf_key_type_id: int = 0
    btf_value_type_id: int = 0
