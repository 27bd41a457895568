"""Where a checked program may touch memory: the table that ``checks`` reads, kept by Python, and the words for what is outside.

Knows addresses and names; no program and no packet.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from netbpf.engine.limits import MAX_FRAMES
from netbpf.engine.llvm.checks import ROW_BYTES, ROW_WORDS
from netbpf.isa.opcodes import MAX_BPF_STACK
from netbpf.maps.handle import MAP_STRUCT_BYTES

if TYPE_CHECKING:
    from netbpf.maps.base import Map

FIRST_CAPACITY: Final = 64
NULL_PAGE_BYTES: Final = 4096


class Hit(NamedTuple):
    """Where an address lies: the region's name, the offset in the piece, the piece's size, and the region's right."""

    name: str
    offset: int
    size_bytes: int
    writable: bool


class Regions:
    """The table. ``address`` and ``count`` go into Args, again after every ``add``. Rows below 0 are frames: -1 the first."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._rows: Any = (ctypes.c_uint64 * (ROW_WORDS * (MAX_FRAMES + FIRST_CAPACITY)))()
        self._free: list[int] = []
        self._maps: dict[int, Map] = {}  # by id()
        for row in range(-MAX_FRAMES, 0):
            self._write(row, 0, 0, MAX_BPF_STACK, MAX_BPF_STACK, True)

    @property
    def address(self) -> int:
        return ctypes.addressof(self._rows) + ROW_BYTES * MAX_FRAMES

    @property
    def count(self) -> int:
        return len(self._names)

    def forget_frames(self) -> None:
        """No program is running."""
        for row in self._frames():
            self._write(row, 0, 0, MAX_BPF_STACK, MAX_BPF_STACK, True)

    def _frames(self) -> Iterator[int]:
        """The rows of frames in use."""
        return takewhile(lambda row: self._read(row)[1], range(-1, -MAX_FRAMES - 1, -1))

    # --- regions ---------------------------------------------------------------------------------------------------------
    def add(self, name: str, lo: int, size: int, *, writable: bool = True, span: int = 0, stride: int = 0) -> int:
        """``size`` bytes at ``lo``, and with a ``span`` at every ``stride`` bytes from there; the row, for ``drop``."""
        row = self._free.pop() if self._free else len(self._names)
        if row == len(self._names):
            self._names.append(name)
            if ROW_WORDS * (MAX_FRAMES + row) == len(self._rows):
                grown = (ctypes.c_uint64 * (2 * len(self._rows)))()
                ctypes.memmove(grown, self._rows, ctypes.sizeof(self._rows))
                self._rows = grown
        self._names[row] = name
        self._write(row, lo, span or size, stride or max(size, 1), size, writable)
        return row

    def drop(self, row: int) -> None:
        self._write(row, 0, 0, 1, 0, False)
        self._free.append(row)

    def _write(self, row: int, lo: int, span: int, stride: int, size: int, writable: bool) -> None:
        at = ROW_WORDS * (MAX_FRAMES + row)
        self._rows[at : at + 5] = [lo, span, stride, size, writable]

    def _read(self, row: int) -> list[int]:
        at = ROW_WORDS * (MAX_FRAMES + row)
        return self._rows[at : at + 5]  # type: ignore[no-any-return]

    def add_map(self, live: Map) -> None:
        """A map's struct and its values, each a piece of its own where the layout is one of ``shape``'s; once."""
        if id(live) in self._maps:
            return
        self._maps[id(live)] = live
        from netbpf.abi.maps import BPF_F_RDONLY_PROG
        from netbpf.engine.interp.memory import map_name
        from netbpf.engine.llvm.shape import ARRAYS, has_pieces

        m: Any = live
        self.add(f"struct bpf_map of {m.spec.name!r}", m.handle, MAP_STRUCT_BYTES, writable=False)
        name, writable, size = f"a value of {map_name(live)}", not m.spec.map_flags & BPF_F_RDONLY_PROG, m.spec.value_size
        if not has_pieces(live):
            self.add(name, m.address, len(m.memory), writable=writable)
            return
        is_array = m.spec.map_type in ARRAYS
        first, step = (0, m.elem_size) if is_array else (m.value_off, m.value_step)
        plane = m.cpu_stride or len(m.memory) - first
        for cpu in range(m.n_cpus if m.cpu_stride else 1):
            self.add(name, m.address + first + cpu * m.cpu_stride, size, writable=writable, span=plane, stride=step)

    # --- looking up --------------------------------------------------------------------------------------------------------
    def _hits(self, address: int) -> list[Hit]:
        found = []
        for row in (*self._frames(), *range(len(self._names))):
            lo, span, stride, size, writable = self._read(row)
            if 0 <= address - lo < span:
                name = self._names[row] if row >= 0 else f"stack frame {-1 - row}"
                found.append(Hit(name, (address - lo) % stride, size, bool(writable)))
        return found

    def check(self, address: int, size_bytes: int, access: str) -> None:
        """Raise Fault unless ``size_bytes`` at ``address`` may be accessed."""
        for hit in self._hits(address):
            if hit.offset + size_bytes <= hit.size_bytes and (hit.writable or access == "read"):
                return
        from netbpf.engine.interp.memory import Fault

        raise Fault(self.explain(address, size_bytes, access), address)

    def explain(self, address: int, size_bytes: int, access: str) -> str:
        """Why ``size_bytes`` at ``address`` cannot be accessed."""
        return f"{access} of {size_bytes} bytes at {address:#x}: {self._where(address, size_bytes)}"

    def _where(self, address: int, size_bytes: int) -> str:
        if address < NULL_PAGE_BYTES:
            return f"a NULL pointer plus {address}" if address else "a NULL pointer"
        hit = next(iter(self._hits(address)), None)
        if hit is None:
            return "no region has this address"
        inside = f"offset {hit.offset} of {hit.name} ({hit.size_bytes} bytes)"
        past = hit.offset + size_bytes - hit.size_bytes
        return f"{inside}, {past} bytes past its end" if past > 0 else f"{inside} is read-only"
