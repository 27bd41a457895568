"""What kinds whose values name kernel objects share: programs, maps, perf events.

The memory holds a slot per entry that native code can follow; the objects are kept beside it. Descriptors are the host's: it
turns a value's fd into the object, calls ``put``, and drops the reference it held to the object that ``put`` or ``take_out``
returns. Programs read such maps and never write them.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar

from netbpf.errors import ENOTSUPP, BpfError
from netbpf.maps.array import IndexedMap
from netbpf.maps.base import BPF_ANY
from netbpf.maps.spec import MapSpec


class ObjectArray(IndexedMap):
    """An array of objects, no entry set at first."""

    __slots__ = ("_objects",)
    tells_ids: ClassVar[bool] = True  # whether BPF_MAP_LOOKUP_ELEM gives the object's id

    def __init__(self, spec: MapSpec, n_cpus: int, map_id: int) -> None:
        super().__init__(spec, n_cpus, map_id)
        self._objects: dict[int, Any] = {}

    def slot_of(self, obj: Any) -> bytes:
        """The ``slot_bytes`` bytes of a slot that holds ``obj``."""
        raise NotImplementedError

    def id_of(self, obj: Any) -> int:
        """The object's id as user space reads it."""
        raise NotImplementedError

    def check_object(self, obj: Any) -> None:
        """Raise BpfError(EINVAL) when this array may not hold ``obj``."""

    def check_put(self, key: bytes, flags: int = BPF_ANY) -> int:
        """The index, when an update may go on to ask for its descriptor. Raises BpfError(EINVAL, E2BIG, EPERM)."""
        self.check_write(flags)
        self.check_key(key)
        index = int.from_bytes(key, "little")
        if flags != BPF_ANY:
            raise BpfError(errno.EINVAL)
        if index >= self.spec.max_entries:
            raise BpfError(errno.E2BIG)
        return index

    def put(self, key: bytes, obj: Any, flags: int = BPF_ANY) -> Any:
        """Set an entry; the object that was there, or None. Raises BpfError."""
        index = self.check_put(key, flags)
        self.check_object(obj)
        at = index * self.elem_size
        self.memory[at : at + self.elem_size] = self.slot_of(obj)
        displaced, self._objects[index] = self._objects.get(index), obj
        return displaced

    def take_out(self, key: bytes) -> Any:
        """Clear an entry and return its object. Raises BpfError(E2BIG, ENOENT, EPERM)."""
        self.check_write()
        self.check_key(key)
        index = int.from_bytes(key, "little")
        if index >= self.spec.max_entries:
            raise BpfError(errno.E2BIG)
        if index not in self._objects:
            raise BpfError(errno.ENOENT)
        at = index * self.elem_size
        self.memory[at : at + self.elem_size] = bytes(self.elem_size)
        return self._objects.pop(index)

    def get(self, index: int) -> Any:
        """The object at an index, or None."""
        return self._objects.get(index)

    def objects(self) -> list[Any]:
        """Every object held, by index."""
        return [self._objects[index] for index in sorted(self._objects)]

    def lookup(self, key: bytes, cpu: int = 0) -> int:
        """Offset of the slot, or -1 where no object is."""
        index = int.from_bytes(key, "little")
        return index * self.elem_size if index in self._objects else -1

    def lookup_user(self, key: bytes, flags: int = 0) -> bytes:
        if not self.tells_ids:
            self.check_lookup_flags(flags)
            self.check_key(key)
            raise BpfError(ENOTSUPP)
        return super().lookup_user(key, flags)

    def read_value(self, offset: int) -> bytes:
        return self.id_of(self._objects[offset // self.elem_size]).to_bytes(4, "little")

    def update_user(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """A value is a descriptor, which only a process can resolve: use ``put``."""
        self.check_put(key, flags)
        self.check_value(value)
        raise BpfError(errno.EBADF)

    def delete_user(self, key: bytes) -> None:
        self.take_out(key)
