"""What a register holds that names a map: the address of a struct bpf_map, which may be read."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from netbpf.engine.handle import map_struct
from netbpf.maps.base import Map
from netbpf.program import VerifiedProgram


class Handles:
    """The program's maps by their structs, and any inner map since it was first met. ``on_new`` is told of each of those."""

    def __init__(self, program: VerifiedProgram) -> None:
        self._addresses: dict[int, int] = {}  # by id() of the map
        self._maps: dict[int, Map] = {}
        self._kept: list[Any] = []
        self.on_new: Callable[[int, Map], None] | None = None
        addresses = [self.address(m) for m in program.maps]
        self._table = (ctypes.c_uint64 * max(1, len(addresses)))(*addresses)

    @property
    def table_address(self) -> int:
        """Address of the table of the program's own maps, in their order."""
        return ctypes.addressof(self._table)

    def address(self, live: Map) -> int:
        """What names this map."""
        known = self._addresses.get(id(live))
        if known is not None:
            return known
        room = ctypes.create_string_buffer(map_struct(live))
        made = self._addresses[id(live)] = ctypes.addressof(room)
        self._maps[made] = live
        self._kept.append(room)
        if self.on_new is not None:
            self.on_new(made, live)
        return made

    def map_at(self, address: int) -> Map | None:
        return self._maps.get(address)

    def known(self) -> Iterator[tuple[int, Map]]:
        """Every address and its map."""
        return iter(tuple(self._maps.items()))
