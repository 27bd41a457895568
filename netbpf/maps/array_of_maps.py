"""BPF_MAP_TYPE_ARRAY_OF_MAPS. Its bytes are ``struct slot`` of ``maps.inner``, one per entry."""

from __future__ import annotations

from netbpf.abi.maps import MapType
from netbpf.maps.inner import SLOT, check_inner, slot_of
from netbpf.maps.objects import ObjectArray
from netbpf.maps.storage import MapBase


class ArrayOfMapsMap(ObjectArray):
    """An array of maps like ``spec.inner``."""

    __slots__ = ()
    map_type = MapType.ARRAY_OF_MAPS
    slot_bytes = SLOT.size

    def check_object(self, obj: MapBase) -> None:
        check_inner(self.spec, obj)

    def id_of(self, obj: MapBase) -> int:
        return obj.map_id

    def slot_of(self, obj: MapBase) -> bytes:
        return slot_of(obj)

    def inner_at(self, offset: int) -> MapBase:
        """The map whose slot ``lookup`` found at this offset."""
        inner: MapBase = self.get(offset // self.elem_size)
        return inner
