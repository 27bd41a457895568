"""Calls from native code back into Python: the helper bodies of the interpreter, run on real addresses.

``NativeMachine`` offers what those bodies use of the interpreter's machine; its addresses are those of this process, as a
proved program's pointers are. An exception in a body sets ``Args.fault``, ends the run, and is raised by ``raise_fault``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from netbpf.abi.maps import BPF_F_RDONLY_PROG, MapType
from netbpf.engine.interp.helpers import BODIES
from netbpf.engine.interp.memory import Fault, map_name
from netbpf.engine.llvm.abi import ARGS, FIND_TARGET
from netbpf.engine.llvm.regions import Regions
from netbpf.engine.llvm.subprog import FUNC_TAG
from netbpf.engine.trace import TraceBuffer
from netbpf.ints import u32, u64
from netbpf.maps.base import Map
from netbpf.packet.skbuff import SkBuff

if TYPE_CHECKING:
    from netbpf.engine.llvm.program import NativeProgram

_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)


@dataclass(frozen=True, slots=True)
class NativeWindow:
    """A map's values in memory; see the interpreter's MapWindow."""

    map: Map
    key_size: int
    value_size: int
    writable: bool


@dataclass(frozen=True, slots=True)
class NativeHandle:
    """A map as a native program holds it in a register: ``address`` of its struct bpf_map, and its values."""

    map: Map
    address: int
    window: NativeWindow


class NativeMemory:
    """This process's memory, for addresses that a proved program computed."""

    def __init__(self) -> None:
        self._kept: dict[int, Any] = {}

    def look(self, address: int, size_bytes: int, access: str) -> None:
        """Raise Fault where an access may not be; a proof has seen to that."""

    def read(self, address: int, size_bytes: int) -> bytes:
        self.look(address, size_bytes, "read")
        return ctypes.string_at(address, size_bytes)

    def write(self, address: int, data: bytes) -> None:
        self.look(address, len(data), "write")
        ctypes.memmove(address, data, len(data))

    def load(self, address: int, size_bytes: int) -> int:
        return int.from_bytes(self.read(address, size_bytes), "little")

    def store(self, address: int, size_bytes: int, value: int) -> None:
        self.write(address, (value & ((1 << 8 * size_bytes) - 1)).to_bytes(size_bytes, "little"))

    def value(self, window: NativeWindow, offset: int) -> int:
        """Address of the value at ``offset`` of a map's memory."""
        return window.map.address + offset

    def buffer(self, address: int, size_bytes: int, access: str) -> tuple[memoryview, int]:
        """A view of ``size_bytes`` at ``address``, and 0: where in the view they start."""
        self.look(address, size_bytes, access)
        return memoryview((ctypes.c_char * size_bytes).from_address(address)).cast("B"), 0

    def record(self, window: NativeWindow, offset: int, size_bytes: int, what: str = "a record") -> int:
        return window.map.address + offset

    def add(self, name: str, data: bytearray) -> int:
        """Address of ``data``, which stays where it is until ``drop``."""
        pin = (ctypes.c_char * len(data)).from_buffer(data)
        address = ctypes.addressof(pin)
        self._kept[address] = pin
        return address

    def drop(self, address: int) -> None:
        self._kept.pop(address, None)


class CheckedMemory(NativeMemory):
    """The same, and no access outside the regions of a checked program."""

    def __init__(self, regions: Regions, changed: Callable[[], None]) -> None:
        super().__init__()
        self._regions, self._changed = regions, changed
        self._rows: dict[int, int] = {}

    def look(self, address: int, size_bytes: int, access: str) -> None:
        if size_bytes or access != "read":
            self._regions.check(address, size_bytes, access)

    def record(self, window: NativeWindow, offset: int, size_bytes: int, what: str = "a record") -> int:
        address = super().record(window, offset, size_bytes)
        self._add_row(f"{what} of {map_name(window.map)}", address, size_bytes)
        return address

    def add(self, name: str, data: bytearray) -> int:
        address = super().add(name, data)
        self._add_row(name, address, len(data))
        return address

    def _add_row(self, name: str, address: int, size_bytes: int) -> None:
        self._rows[address] = self._regions.add(name, address, size_bytes)
        self._changed()

    def drop(self, address: int) -> None:
        super().drop(address)
        row = self._rows.pop(address, None)
        if row is not None:
            self._regions.drop(row)


class NativeMachine:
    """What a helper body sees of a native run."""

    def __init__(self, owner: NativeProgram, trace: TraceBuffer) -> None:
        self._owner = owner
        self.env, self.trace = owner.env, trace
        regions = owner.regions
        self.memory = NativeMemory() if regions is None else CheckedMemory(regions, owner.tell_regions)
        self.records: dict[int, Any] = {}
        self._handles: dict[int, NativeHandle] = {}

    @property
    def cpu(self) -> int:
        return self.env.cpu_id()

    @property
    def skb(self) -> SkBuff:
        """The packet at hand."""
        return self._owner.current_skb()

    def handle(self, live: Map) -> NativeHandle:
        """The handle of a map; an inner map gets one when first met."""
        address = self._owner.handles.address(live)
        known = self._handles.get(address)
        if known is None:
            spec = live.spec
            window = NativeWindow(live, spec.key_size, spec.value_size, not spec.map_flags & BPF_F_RDONLY_PROG)
            known = self._handles[address] = NativeHandle(live, address, window)
        return known

    def handle_at(self, address: int) -> NativeHandle:
        """The map that a register names. Raises Fault."""
        live = self._owner.handles.map_at(address)
        if live is None:
            raise Fault(f"{address:#x} is not the address of a map", address)
        return self.handle(live)

    def call(self, address: int, r1: int, r2: int, r3: int = 0, r4: int = 0, r5: int = 0) -> int:
        """Run the subprogram that a register names; its R0."""
        return self._owner.call_subprog(address ^ FUNC_TAG, (r1, r2, r3, r4, r5))


class Bridge:
    """The function that native code calls. ``address`` is its; it lives as long as this object."""

    def __init__(self, owner: NativeProgram, trace: TraceBuffer) -> None:
        self._owner = owner
        self.machine: Any = NativeMachine(owner, trace)
        self._failure: BaseException | None = None
        self._function = _CALLBACK(self._called)
        self.address = ctypes.cast(self._function, ctypes.c_void_p).value or 0

    def _called(self, args: int, func_id: int, pc: int) -> int:
        words = (ctypes.c_uint64 * (ARGS["r5"] // 8 + 1)).from_address(args)
        first = ARGS["r1"] // 8
        self._owner.sync_env()
        try:
            if func_id == FIND_TARGET:
                self._owner.find_target(self._program_array(words[first + 1]), u32(words[first + 2]))
                return 0
            body = BODIES.get(func_id)
            if body is None:
                raise Fault(f"helper #{func_id} has no body in this engine", func_id)
            result = u64(body(self.machine, *words[first : first + 5]))
            self._owner.take_env()
            return result
        except Fault as fault:
            self._failure = self._owner.fault(pc, str(fault), fault.address)
        except BaseException as e:  # whatever it is must cross native code first; raise_fault raises it again
            self._failure = e
        words[ARGS["fault"] // 8], words[ARGS["culprit"] // 8] = 1, args
        return 0

    def _program_array(self, address: int) -> Map:
        live: Map = self.machine.handle_at(address).map
        if live.map_type != MapType.PROG_ARRAY:
            raise Fault(f"{map_name(live)} is no program array", address)
        return live

    def raise_fault(self) -> None:
        """Raise what a call back failed with, if one did."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
