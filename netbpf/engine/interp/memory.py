"""The interpreter's own address space: 64-bit addresses, every one in a region or in none. Knows no instruction.

    63            32 31             0
    +---------------+----------------+
    | region number |     offset     |     a region holds at most 4 GiB, from offset 0
    +---------------+----------------+

``buffers[number]`` is the region's bytes, and nothing but them: struct's own bounds check is the region's. Numbers in use are
even, so a pointer that runs out of its region upwards or downwards lands in a number that nothing has.

A map takes a run of numbers, two for each 8 bytes of ``Map.memory``: the value at offset ``o`` is the region ``base + o/4``, of
value_size bytes. So the address of a value follows from its place, stays the same from run to run, and reaches that one value
and nothing beside it. Buffers of values are made when first looked up, and forgotten when there are many.
"""

from __future__ import annotations

from bisect import bisect_right
from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Final, NamedTuple

from netbpf.engine.limits import MAX_FRAMES
from netbpf.errors import NetbpfError
from netbpf.ints import U32_MAX, U64_MAX, s32

if TYPE_CHECKING:
    from netbpf.maps.base import Map

NUMBER_SHIFT: Final = 32
OFFSET_MASK: Final = U32_MAX

CTX_NUMBER: Final = 2
CODE_NUMBER: Final = 4
PACKET_NUMBER: Final = 6
SOCKET_NUMBER: Final = 8
FRAME_NUMBERS: Final = range(16, 16 + 2 * MAX_FRAMES, 2)
FIRST_FREE_NUMBER: Final = 512
MAX_NUMBER: Final = 1 << 32
MAX_CACHED_VALUES: Final = 65536

CTX_ADDRESS: Final = CTX_NUMBER << NUMBER_SHIFT
CODE_ADDRESS: Final = CODE_NUMBER << NUMBER_SHIFT
PACKET_ADDRESS: Final = PACKET_NUMBER << NUMBER_SHIFT
SOCKET_ADDRESS: Final = SOCKET_NUMBER << NUMBER_SHIFT

UINT: Final = {1: Struct("<B"), 2: Struct("<H"), 4: Struct("<I"), 8: Struct("<Q")}
SIZE_MASK: Final = {1: 0xFF, 2: 0xFFFF, 4: U32_MAX, 8: U64_MAX}

NO_BYTES: Final = memoryview(b"")
ACCESS_ERRORS: Final = (KeyError, struct_error, TypeError)
"""What touching ``buffers`` raises when an address is in no region, outside its region, or in one that is read-only."""


class Fault(NetbpfError):
    """What a verified program cannot do, such as an access outside every region. The run loop turns it into an EngineFault that
    names the instruction."""

    def __init__(self, message: str, address: int | None = None) -> None:
        self.address = address
        super().__init__(message)


class Region(NamedTuple):
    """What a number stands for, for explanations."""

    name: str
    size_bytes: int
    writable: bool = True


class MapWindow(NamedTuple):
    """A map in the address space: its values start at region ``base``."""

    map: Map
    base: int
    view: memoryview
    key_size: int
    value_size: int
    writable: bool


class AddressSpace:
    """Regions by number."""

    __slots__ = ("_bases", "_next", "_regions", "_values", "_windows", "buffers")

    def __init__(self) -> None:
        self.buffers: dict[int, memoryview] = {}
        self._regions: dict[int, Region] = {CODE_NUMBER: Region("program code", 0, False)}
        self._next = FIRST_FREE_NUMBER
        self._bases: list[int] = []
        self._windows: list[MapWindow] = []
        self._values: list[int] = []

    # --- regions ----------------------------------------------------------------------------------------------------
    def add(self, name: str, data: bytearray | bytes | memoryview, *, number: int = 0, writable: bool = True) -> int:
        """A region over ``data`` itself (no copy); its address."""
        if not number:
            number = self._reserve(1)
        view = memoryview(data)
        self.buffers[number] = view if writable else view.toreadonly()
        self._regions[number] = Region(name, len(view), writable)
        return number << NUMBER_SHIFT

    def name_region(self, number: int, name: str, size_bytes: int) -> None:
        """Name a region that loads and stores reach by other ways than ``buffers`` (the context)."""
        self._regions[number] = Region(name, size_bytes)

    def drop(self, address: int) -> None:
        """Forget the region that starts at ``address``."""
        self.buffers.pop(address >> NUMBER_SHIFT, None)
        self._regions.pop(address >> NUMBER_SHIFT, None)

    def _reserve(self, count: int) -> int:
        number = self._next
        self._next += 2 * count
        if self._next > MAX_NUMBER:
            raise NetbpfError("the interpreter's address space is full: its maps hold more than 16 GiB")
        return number

    # --- maps -------------------------------------------------------------------------------------------------------
    def add_map(self, live: Map) -> MapWindow:
        """Give ``live`` its run of numbers."""
        from netbpf.abi.maps import BPF_F_RDONLY_PROG  # programs without maps start without

        spec = live.spec
        base = self._reserve(len(live.memory) // 8 + 1)
        writable = not spec.map_flags & BPF_F_RDONLY_PROG
        window = MapWindow(live, base, memoryview(live.memory), spec.key_size, spec.value_size, writable)
        self._bases.append(base)
        self._windows.append(window)
        return window

    def value(self, window: MapWindow, offset: int) -> int:
        """Address of the value at ``offset``, ready to be accessed."""
        number = window.base + (offset >> 2)
        if number not in self.buffers:
            self._open_value(window, number)
        return number << NUMBER_SHIFT

    def record(self, window: MapWindow, offset: int, size_bytes: int, what: str = "a record") -> int:
        """A region over ``size_bytes`` of a map's memory from ``offset``, a multiple of 8; its address. Ends with ``drop``."""
        data = window.view[offset : offset + size_bytes]
        return self.add(f"{what} of {map_name(window.map)}", data, number=window.base + (offset >> 2))

    def _open_value(self, window: MapWindow, number: int) -> memoryview:
        if len(self._values) >= MAX_CACHED_VALUES:
            for old in self._values:
                self.buffers.pop(old, None)
            self._values.clear()
        offset = (number - window.base) << 2
        view = window.view[offset : offset + window.value_size]
        if not window.writable:
            view = view.toreadonly()
        self.buffers[number] = view
        self._values.append(number)
        return view

    def window_of(self, number: int) -> MapWindow | None:
        """The map that has this region number."""
        i = bisect_right(self._bases, number) - 1
        if i < 0:
            return None
        window = self._windows[i]
        return window if (number - window.base) << 2 < len(window.view) and not (number - window.base) & 1 else None

    # --- access -----------------------------------------------------------------------------------------------------
    def buffer(self, address: int, size_bytes: int, access: str) -> tuple[memoryview, int]:
        """The buffer and offset of ``size_bytes`` at ``address``, all inside one region. Raises Fault.

        ``access`` is "read", "write" or "atomic access", for the words of the fault and the region's rights.
        """
        number, offset = address >> NUMBER_SHIFT, address & OFFSET_MASK
        view = self.buffers.get(number)
        if view is None:
            window = self.window_of(number)
            if window is not None and number not in self._regions:
                view = self._open_value(window, number)
        if view is None or offset + size_bytes > len(view) or (view.readonly and access != "read"):
            raise Fault(self.explain(address, size_bytes, access), address)
        return view, offset

    def load(self, address: int, size_bytes: int) -> int:
        """``size_bytes`` at ``address`` as an unsigned number."""
        view, offset = self.buffer(address & U64_MAX, size_bytes, "read")
        value: int = UINT[size_bytes].unpack_from(view, offset)[0]
        return value

    def store(self, address: int, size_bytes: int, value: int) -> None:
        view, offset = self.buffer(address & U64_MAX, size_bytes, "write")
        UINT[size_bytes].pack_into(view, offset, value & SIZE_MASK[size_bytes])

    def read(self, address: int, size_bytes: int) -> bytes:
        """What a helper reads through a pointer."""
        offset = address & OFFSET_MASK
        view = self.buffers.get(address >> NUMBER_SHIFT, NO_BYTES)
        data = view[offset : offset + size_bytes].tobytes()
        if len(data) == size_bytes:
            return data
        view, offset = self.buffer(address, size_bytes, "read")
        return view[offset : offset + size_bytes].tobytes()

    def write(self, address: int, data: bytes) -> None:
        """What a helper writes through a pointer."""
        view, offset = self.buffer(address, len(data), "write")
        view[offset : offset + len(data)] = data

    # --- words ------------------------------------------------------------------------------------------------------
    def own_region(self, number: int) -> Region | None:
        """A region that is no value of a map: a record, the key of an element."""
        return self._regions.get(number)

    def region(self, number: int) -> Region | None:
        known = self.own_region(number)
        if known is not None:
            return known
        window = self.window_of(number)
        if window is None:
            return None
        return Region(f"a value of {map_name(window.map)}", window.value_size, window.writable)

    def explain(self, address: int, size_bytes: int, access: str) -> str:
        """Why ``size_bytes`` at ``address`` cannot be accessed, or where they are."""
        return f"{access} of {size_bytes} bytes at {address:#x}: {self._where(address, size_bytes, access)}"

    def _where(self, address: int, size_bytes: int, access: str) -> str:
        number, offset = address >> NUMBER_SHIFT, address & OFFSET_MASK
        if address < 4096:
            return f"a NULL pointer plus {address}" if address else "a NULL pointer"
        region = self.region(number)
        if region is None:
            return self._beside(number, offset)
        inside = f"offset {offset} of {region.name} ({region.size_bytes} bytes)"
        if number == CTX_NUMBER:
            return f"{inside}, where only loads and stores of single fields go"
        if offset + size_bytes > region.size_bytes:
            return f"{inside}, {offset + size_bytes - region.size_bytes} bytes past its end"
        return inside if region.writable or access == "read" else f"{inside} is read-only"

    def _beside(self, number: int, offset: int) -> str:
        """Words for a pointer that left its region: the neighbouring number tells which."""
        distance = s32(offset)
        below = self.region(number + 1) if distance < 0 else None
        if below is not None:
            return f"{-distance} bytes before {below.name} ({below.size_bytes} bytes)"
        return "no region has this address"


def map_name(live: Map) -> str:
    """How a fault calls a map."""
    return f"map {live.spec.name!r}" if live.spec.name else f"the map with id {live.map_id}"
