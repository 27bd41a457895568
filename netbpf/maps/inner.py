"""What maps of maps share: which maps may be inside, and the slot that native code follows to one. Bytes of a slot::

    struct slot { u64 handle; u32 max_entries; u32 map_id; };    // address of the inner map's handle (maps.handle), 0: empty

Key size, value size, type and flags of every inner map are those of the template, so that they may be constants in native code;
the number of entries may differ (for an ARRAY only under BPF_F_INNER_MAP), and with it what a map's memory holds where.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

from netbpf.abi.maps import BPF_F_INNER_MAP, MapType
from netbpf.errors import BpfError
from netbpf.maps.spec import MapSpec
from netbpf.maps.storage import MapBase

SLOT: Final = struct.Struct("<QII")


def template_shape(spec: MapSpec) -> tuple[int, int, int, int]:
    """What every map like a template has in common with it: type, sizes, flags."""
    return spec.map_type, spec.key_size, spec.value_size, spec.map_flags


def is_meta_equal(template: MapSpec, spec: MapSpec) -> bool:
    """Whether a map may stand where ``template`` was declared: the shape, and an array's number of entries."""
    same = template_shape(template) == template_shape(spec)
    if template.map_type != MapType.ARRAY or template.map_flags & BPF_F_INNER_MAP:
        return same
    return same and template.max_entries == spec.max_entries


def check_inner(outer: MapSpec, inner: MapBase) -> None:
    """Raise BpfError(EINVAL) when ``inner`` is not as the template says."""
    if outer.inner is None or not is_meta_equal(outer.inner, inner.spec):
        raise BpfError(errno.EINVAL)


def slot_of(inner: MapBase) -> bytes:
    return SLOT.pack(inner.handle, inner.spec.max_entries, inner.map_id)
