"""What a pointer to a map points to: what a program may read of it, and behind that what native code follows. Its bytes::

struct handle {
    u8  bpf_map[832];    // struct bpf_map, whose max_entries is at 76, and what the kind's own struct has behind it
    u64 address;         // 832  of the map's memory
    u64 cpu_stride;      // 840  bytes from a value's copy on one CPU to the next CPU's
};
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from netbpf.ints import round_up

if TYPE_CHECKING:
    from netbpf.maps.spec import MapSpec

MAP_STRUCT_BYTES: Final = 832  # struct bpf_htab, the largest that a program may read by the verifier's rules (abi.map_structs)
MAP_TYPE_AT: Final = 64  # map_type, key_size, value_size, max_entries
MAX_ENTRIES_AT: Final = 76
ELEM_SIZE_AT: Final = 296  # of struct bpf_array
ADDRESS_AT: Final = 832
CPU_STRIDE_AT: Final = 840


def map_struct(spec: MapSpec) -> bytes:
    """What a program may read through a map pointer: type and sizes of struct bpf_map, and of an array the size of an element
    and the mask of indexes behind it; kernel pointers, and the rest, are 0."""
    from netbpf.abi.map_structs import STRUCT_OF_MAP  # programs without maps start without
    from netbpf.abi.maps import MapType

    made = bytearray(MAP_STRUCT_BYTES)
    struct.pack_into("<4I", made, MAP_TYPE_AT, spec.map_type, spec.key_size, spec.value_size, spec.max_entries)
    if STRUCT_OF_MAP.get(MapType(spec.map_type).name) == "bpf_array":
        mask = (1 << (spec.max_entries - 1).bit_length()) - 1
        struct.pack_into("<2I", made, ELEM_SIZE_AT, round_up(spec.value_size, 8), mask)
    return bytes(made)


def handle_of(live: Any) -> bytes:
    """The struct handle of a live map."""
    return map_struct(live.spec) + struct.pack("<2Q", live.address, live.cpu_stride)
