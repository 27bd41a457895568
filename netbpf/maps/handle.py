"""What a pointer to a map points to: what a program may read of it, and behind that what native code follows. Its bytes::

struct handle {
    u8  bpf_map[256];    // struct bpf_map, whose max_entries is at 36; kernel pointers read as 0
    u64 address;         // 256  of the map's memory
    u64 cpu_stride;      // 264  bytes from a value's copy on one CPU to the next CPU's
};
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from netbpf.maps.spec import MapSpec

MAP_STRUCT_BYTES: Final = 256
MAX_ENTRIES_AT: Final = 36
ADDRESS_AT: Final = 256
CPU_STRIDE_AT: Final = 264


def map_struct(spec: MapSpec) -> bytes:
    """The part of struct bpf_map that a program may read through a map pointer: type and sizes."""
    words = (spec.map_type, spec.key_size, spec.value_size, spec.max_entries)
    return (bytes(24) + struct.pack("<4I", *words)).ljust(MAP_STRUCT_BYTES, b"\0")


def handle_of(live: Any) -> bytes:
    """The struct handle of a live map."""
    return map_struct(live.spec) + struct.pack("<2Q", live.address, live.cpu_stride)
