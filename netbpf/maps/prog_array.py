"""BPF_MAP_TYPE_PROG_ARRAY: the programs bpf_tail_call jumps to. Its bytes::

    u64 slot[max_entries];     // the program's id, 0: empty
"""

from __future__ import annotations

import errno
from typing import Protocol

from netbpf.abi.maps import MapType
from netbpf.errors import BpfError, InternalError
from netbpf.maps.objects import ObjectArray
from netbpf.maps.spec import MapSpec


class ProgramLike(Protocol):
    """What the array needs to know of a loaded program."""

    prog_id: int
    prog_type: int


class ProgArrayMap(ObjectArray):
    """An array of programs, all of one type: that of the first program that is put in or loaded with the map."""

    __slots__ = ("owner_type",)
    map_type = MapType.PROG_ARRAY
    slot_bytes = 8

    def __init__(self, spec: MapSpec, n_cpus: int, map_id: int) -> None:
        super().__init__(spec, n_cpus, map_id)
        self.owner_type: int | None = None

    def is_compatible(self, prog_type: int) -> bool:
        """Whether a program of this type may use the array or be in it; the first one asked about settles the type."""
        if self.owner_type is None:
            self.owner_type = prog_type
        return self.owner_type == prog_type

    def check_object(self, obj: ProgramLike) -> None:
        if not obj.prog_id:
            raise InternalError("a program array holds loaded programs, which have ids")
        if not self.is_compatible(obj.prog_type):
            raise BpfError(errno.EINVAL)

    def id_of(self, obj: ProgramLike) -> int:
        return obj.prog_id

    def slot_of(self, obj: ProgramLike) -> bytes:
        return obj.prog_id.to_bytes(8, "little")
