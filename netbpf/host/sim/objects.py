"""Kernel objects of the simulated machine: reference counts, ids, and what letting the last reference go does.

Knows no descriptor and no command. An object is held by open files, by pins, by programs (their maps), by sockets (their
filter); it leaves its table when the last of them lets go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from netbpf.abi.commands import OBJ_NAME_LEN
from netbpf.abi.info import MapInfo, ProgInfo
from netbpf.abi.maps import MapType
from netbpf.env import Env
from netbpf.isa.instruction import Program
from netbpf.maps.spec import MapSpec
from netbpf.maps.storage import MapBase
from netbpf.program import VerifiedProgram

if TYPE_CHECKING:
    from netbpf.engine.base import Loaded
    from netbpf.maps.perf_buffer import PerfBuffer

ID_MAX: Final = 0x7FFF_FFFF


class KObject:
    """Refcounted. ``refs`` starts at 1: whoever makes it holds it."""

    __slots__ = ("refs",)
    file_kind: str = "anon"  # what /proc/self/fd would show

    def __init__(self) -> None:
        self.refs = 1

    def hold(self) -> None:
        self.refs += 1

    def drop(self) -> None:
        """Let one reference go; the last one releases."""
        self.refs -= 1
        if not self.refs:
            self.release()

    def release(self) -> None:
        """Leave the machine. Called once."""

    # A file of this object: user space's own share of the references, which some maps care for.
    def file_opened(self) -> None:
        """An open file or a pin holds the object from now on."""
        self.hold()

    def file_closed(self) -> None:
        """It no longer does."""
        self.drop()


T = TypeVar("T", bound="IdObject")


class IdObject(KObject):
    """An object with an id in a table of the machine."""

    __slots__ = ("id", "_table")

    def __init__(self, table: IdTable[Any]) -> None:
        super().__init__()
        self._table = table
        self.id = table.add(self)

    def release(self) -> None:
        self._table.remove(self.id)


class IdTable(Generic[T]):
    """Objects by id. Ids are given in a rising cycle and not reused while the cycle lasts, as the kernel does."""

    def __init__(self) -> None:
        self._objects: dict[int, T] = {}
        self._last = 0

    def add(self, obj: T) -> int:
        self._last = self._last % ID_MAX + 1
        while self._last in self._objects:
            self._last = self._last % ID_MAX + 1
        self._objects[self._last] = obj
        return self._last

    def remove(self, obj_id: int) -> None:
        del self._objects[obj_id]

    def get(self, obj_id: int) -> T | None:
        return self._objects.get(obj_id)

    def next_id(self, start: int) -> int | None:
        """The smallest id above ``start``."""
        return min((i for i in self._objects if i > start), default=None)

    def __iter__(self) -> Iterator[T]:
        return iter(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)


class MapObject(IdObject):
    """A map: its live storage and what the system call keeps beside it. ``user_refs`` counts files and pins."""

    __slots__ = ("map", "name", "btf", "btf_key_type_id", "btf_value_type_id", "user_refs", "held_values")
    file_kind = "bpf-map"

    def __init__(self, table: IdTable[MapObject], live: MapBase, name: bytes, btf: BtfObject | None) -> None:
        super().__init__(table)
        self.map, self.name, self.btf = live, name, btf
        live.map_id = self.id
        self.btf_key_type_id = self.btf_value_type_id = 0
        self.user_refs = 0
        self.held_values: dict[bytes, KObject] = {}  # key -> object, of kinds whose values are descriptors
        if btf is not None:
            btf.hold()

    @property
    def spec(self) -> MapSpec:
        return self.map.spec

    def info(self) -> MapInfo:
        """``struct bpf_map_info``."""
        spec = self.spec
        return MapInfo(
            type=spec.map_type,
            id=self.id,
            key_size=spec.key_size,
            value_size=spec.value_size,
            max_entries=spec.max_entries,
            map_flags=spec.map_flags,
            name=self.name.ljust(OBJ_NAME_LEN, b"\0"),
            btf_id=self.btf.id if self.btf else 0,
            btf_key_type_id=self.btf_key_type_id,
            btf_value_type_id=self.btf_value_type_id,
            map_extra=spec.map_extra,
        )

    def file_opened(self) -> None:
        self.user_refs += 1
        self.hold()

    def file_closed(self) -> None:
        self.user_refs -= 1
        if not self.user_refs and self.map.map_type == MapType.PROG_ARRAY:
            self.clear()  # or two arrays could keep each other alive by their programs
        self.drop()

    def clear(self) -> None:
        """Every object its values name is let go."""
        for key in list(self.held_values):
            self.map.delete_user(key)
            self.held_values.pop(key).drop()

    def release(self) -> None:
        super().release()
        for value in self.held_values.values():
            value.drop()
        self.held_values.clear()
        if self.btf is not None:
            self.btf.drop()


class ProgObject(IdObject):
    """A loaded program, ``source`` as it was given and ``insns`` with maps told by id. Holds its maps (and its BTF) until the
    last reference goes."""

    __slots__ = ("program", "maps", "btf", "info", "insns", "source", "_loaded")
    file_kind = "bpf-prog"

    def __init__(
        self,
        table: IdTable[ProgObject],
        program: VerifiedProgram,
        maps: tuple[MapObject, ...],
        source: Program,
        insns: Program,
        info: ProgInfo,
        btf: BtfObject | None = None,
    ) -> None:
        super().__init__(table)
        self.program = program._replace(prog_id=self.id)
        self.maps, self.source, self.insns, self.info, self.btf = maps, source, insns, info, btf
        self._loaded: Loaded | None = None
        for obj in maps:
            obj.hold()
        if btf is not None:
            btf.hold()

    def loaded(self, engine: str | None, env: Env) -> Loaded:
        """The program made live, the first time it runs."""
        if self._loaded is None:
            from netbpf.engine.choose import get_engine

            self._loaded = get_engine(engine).load(self.program, env)
        return self._loaded

    def bind(self, obj: MapObject) -> None:
        """BPF_PROG_BIND_MAP: hold one more map, once."""
        if obj not in self.maps:
            obj.hold()
            self.maps += (obj,)

    def release(self) -> None:
        super().release()
        for obj in self.maps:
            obj.drop()
        if self.btf is not None:
            self.btf.drop()


class BtfObject(IdObject):
    """Loaded BTF: its blob."""

    __slots__ = ("blob",)
    file_kind = "btf"

    def __init__(self, table: IdTable[BtfObject], blob: bytes) -> None:
        super().__init__(table)
        self.blob = blob


class PerfEvent(KObject):
    """A perf event that programs write to by a PERF_EVENT_ARRAY: its ring."""

    __slots__ = ("buffer",)
    file_kind = "perf_event"

    def __init__(self, buffer: PerfBuffer) -> None:
        super().__init__()
        self.buffer = buffer


class Console(KObject):
    """What stands behind descriptors 0, 1 and 2 of a simulated process."""

    __slots__ = ()
    file_kind = "console"
