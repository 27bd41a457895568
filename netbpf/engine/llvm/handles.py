"""What a register holds that names a map: the address of its handle (``maps.handle``), whose struct bpf_map may be read."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from netbpf.program import VerifiedProgram

if TYPE_CHECKING:
    from netbpf.maps.base import Map


class Handles:
    """The program's maps by their handles, and any inner map since Python first met it. ``on_new`` is told of each of those."""

    def __init__(self, program: VerifiedProgram) -> None:
        self._maps: dict[int, Map] = {}  # held here, so that no other map gets such an address
        self._outers: list[Any] = [m for m in program.maps if m.spec.inner is not None]
        self.on_new: Callable[[int, Map], None] | None = None
        addresses = [self.address(m) for m in program.maps]
        self._table = (ctypes.c_uint64 * max(1, len(addresses)))(*addresses)

    @property
    def table_address(self) -> int:
        """Address of the table of the program's own maps, in their order."""
        return ctypes.addressof(self._table)

    def address(self, live: Map) -> int:
        """What names this map."""
        address = live.handle
        if address not in self._maps:
            self._maps[address] = live
            if self.on_new is not None:
                self.on_new(address, live)
        return address

    def map_at(self, address: int) -> Map | None:
        """The map that this address names; native code may have found it in another map."""
        if address not in self._maps:
            for inner in (inner for outer in self._outers for inner in outer.objects() if inner.handle == address):
                self.address(inner)
        return self._maps.get(address)

    def known(self) -> Iterator[tuple[int, Map]]:
        """Every address and its map."""
        return iter(tuple(self._maps.items()))
