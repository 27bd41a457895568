"""Calls from native code back into Python: the helper bodies of the interpreter, run on real addresses.

``NativeMachine`` offers what those bodies use of the interpreter's machine; its addresses are those of this process, as a
proved program's pointers are. An exception in a body sets ``Args.fault``, ends the run, and is raised by ``raise_fault``.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from netbpf.abi.helpers import FUNC_IDS
from netbpf.abi.maps import BPF_F_RDONLY_PROG
from netbpf.engine.interp.helpers import BODIES
from netbpf.engine.interp.memory import Fault
from netbpf.engine.llvm.abi import ARGS
from netbpf.engine.llvm.lower import FUNC_TAG, MAP_TAG
from netbpf.engine.trace import TraceBuffer
from netbpf.errors import EngineFault
from netbpf.ints import u32, u64
from netbpf.isa.disasm import format_insn
from netbpf.maps.base import Map
from netbpf.packet.skbuff import SkBuff

if TYPE_CHECKING:
    from netbpf.engine.llvm.engine import NativeLoaded

_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
_TAIL_CALL: Final = FUNC_IDS["tail_call"]


@dataclass(frozen=True, slots=True)
class NativeWindow:
    """A map's values in memory; see the interpreter's MapWindow."""

    map: Map
    key_size: int
    value_size: int
    writable: bool


@dataclass(frozen=True, slots=True)
class NativeHandle:
    """A map as a native program names it: ``address`` is a tag, no place."""

    map: Map
    address: int
    window: NativeWindow


class NativeMemory:
    """This process's memory, for addresses that a proved program computed."""

    def __init__(self) -> None:
        self._kept: dict[int, Any] = {}

    def read(self, address: int, size_bytes: int) -> bytes:
        return ctypes.string_at(address, size_bytes)

    def write(self, address: int, data: bytes) -> None:
        ctypes.memmove(address, data, len(data))

    def load(self, address: int, size_bytes: int) -> int:
        return int.from_bytes(ctypes.string_at(address, size_bytes), "little")

    def store(self, address: int, size_bytes: int, value: int) -> None:
        ctypes.memmove(address, (value & ((1 << 8 * size_bytes) - 1)).to_bytes(size_bytes, "little"), size_bytes)

    def value(self, window: NativeWindow, offset: int) -> int:
        """Address of the value at ``offset`` of a map's memory."""
        return window.map.address + offset

    def buffer(self, address: int, size_bytes: int, access: str) -> tuple[memoryview, int]:
        """A view of ``size_bytes`` at ``address``, and 0: where in the view they start."""
        return memoryview((ctypes.c_char * size_bytes).from_address(address)).cast("B"), 0

    def record(self, window: NativeWindow, offset: int, size_bytes: int) -> int:
        return window.map.address + offset

    def add(self, name: str, data: bytearray) -> int:
        """Address of ``data``, which stays where it is until ``drop``."""
        pin = (ctypes.c_char * len(data)).from_buffer(data)
        address = ctypes.addressof(pin)
        self._kept[address] = pin
        return address

    def drop(self, address: int) -> None:
        self._kept.pop(address, None)


class NativeMachine:
    """What a helper body sees of a native run."""

    def __init__(self, owner: NativeLoaded, trace: TraceBuffer) -> None:
        self._owner = owner
        self.env, self.trace = owner.env, trace
        self.memory = NativeMemory()
        self.records: dict[int, Any] = {}
        self._handles: list[NativeHandle] = []
        for m in owner.program.maps:
            self.handle(m)

    @property
    def cpu(self) -> int:
        return self.env.cpu_id()

    @property
    def skb(self) -> SkBuff:
        """The packet at hand."""
        return self._owner.current_skb()

    def handle(self, live: Map) -> NativeHandle:
        """The handle of a map; an inner map gets one when first met."""
        for known in self._handles:
            if known.map is live:
                return known
        spec = live.spec
        window = NativeWindow(live, spec.key_size, spec.value_size, not spec.map_flags & BPF_F_RDONLY_PROG)
        made = NativeHandle(live, MAP_TAG | len(self._handles), window)
        self._handles.append(made)
        return made

    def handle_at(self, address: int) -> NativeHandle:
        """The map that a register names. Raises Fault."""
        index = address ^ MAP_TAG
        if index >= len(self._handles):
            raise Fault(f"{address:#x} names no map", address)
        return self._handles[index]

    def call(self, address: int, r1: int, r2: int, r3: int = 0, r4: int = 0, r5: int = 0) -> int:
        """Run the subprogram that a register names; its R0."""
        return self._owner.call_subprog(address ^ FUNC_TAG, (r1, r2, r3, r4, r5))


class Bridge:
    """The function that native code calls. ``address`` is its; it lives as long as this object."""

    def __init__(self, owner: NativeLoaded, trace: TraceBuffer) -> None:
        self._owner = owner
        self.machine: Any = NativeMachine(owner, trace)
        self._failure: BaseException | None = None
        self._function = _CALLBACK(self._called)
        self.address = ctypes.cast(self._function, ctypes.c_void_p).value or 0

    def _called(self, args: int, func_id: int, pc: int) -> int:
        words = (ctypes.c_uint64 * (ARGS["r5"] // 8 + 1)).from_address(args)
        first = ARGS["r1"] // 8
        try:
            if func_id == _TAIL_CALL:
                return u64(self._owner.tail_call(self.machine.handle_at(words[first + 1]).map, u32(words[first + 2])))
            return u64(BODIES[func_id](self.machine, *words[first : first + 5]))
        except Fault as fault:
            self._failure = self._engine_fault(pc, str(fault), fault.address)
        except BaseException as e:  # whatever it is must cross native code first; raise_fault raises it again
            self._failure = e
        words[ARGS["fault"] // 8] = 1
        return 0

    def _engine_fault(self, pc: int, message: str, address: int | None) -> EngineFault:
        insns = self._owner.program.insns
        text = format_insn(insns[pc], insns[pc + 1] if pc + 1 < len(insns) else None)
        return EngineFault(message, pc=pc, insn_text=text, address=address)

    def raise_fault(self) -> None:
        """Raise what a call back failed with, if one did."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
