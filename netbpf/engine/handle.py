"""What a program may read of a map through the map's own pointer. Knows no engine."""

from __future__ import annotations

from typing import Final

from netbpf.maps.base import Map

MAP_STRUCT_BYTES: Final = 256


def map_struct(live: Map) -> bytes:
    """The part of struct bpf_map that a program may read through a map pointer: the sizes; kernel pointers read as 0."""
    spec = live.spec
    words = (live.map_type, spec.key_size, spec.value_size, spec.max_entries)
    return (bytes(24) + b"".join(w.to_bytes(4, "little") for w in words)).ljust(MAP_STRUCT_BYTES, b"\0")
