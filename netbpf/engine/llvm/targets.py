"""The programs that tail calls of one loaded program lead to, and the table by which native code finds them.

A row of the table is ``abi.TARGET_ROW``, an id's at ``id & mask``; native code that finds another id there calls back, and looks
again. A program is made live when first met, on Args of its own, and stays while an array of one that was met holds it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from netbpf.abi.maps import MapType
from netbpf.engine.llvm.abi import TARGET_ROW
from netbpf.engine.llvm.regions import Regions
from netbpf.program import VerifiedProgram

if TYPE_CHECKING:
    from netbpf.engine.llvm.program import NativeProgram

ROW_WORDS: Final = len(TARGET_ROW)
FIRST_ROWS, MAX_ROWS = 16, 1 << 16


class Targets:
    """What one loaded program, ``root``, and all that it leads to share."""

    def __init__(self, root: NativeProgram) -> None:
        self.root = root
        self._regions: Regions | None = root.regions
        self._loaded: dict[int, NativeProgram] = {}  # by id
        self._swept = 0  # how many there were after the last sweep
        self._make_table(FIRST_ROWS)

    @property
    def members(self) -> tuple[NativeProgram, ...]:
        return (self.root, *self._loaded.values())

    def regions(self) -> Regions:
        """One table for all, made when the first checked program is met."""
        if self._regions is None:
            self._regions = Regions()
            self.root.adopt_regions(self._regions)
        return self._regions

    def member_at(self, args_address: int) -> NativeProgram:
        """The one that runs on these Args."""
        return next(m for m in self.members if m.args_address == args_address)

    # --- the table -----------------------------------------------------------------------------------------------------
    def _make_table(self, rows: int) -> None:
        self._mask = rows - 1
        self._rows = (ctypes.c_uint64 * (ROW_WORDS * rows))()
        for prog_id in self._loaded:
            self._write(prog_id)
        for member in self.members:
            member.tell_targets(ctypes.addressof(self._rows), self._mask)

    def _write(self, prog_id: int) -> None:
        at, loaded = ROW_WORDS * (prog_id & self._mask), self._loaded[prog_id]
        self._rows[at : at + ROW_WORDS] = [prog_id, loaded.tail_entry(), loaded.args_address]

    def add(self, program: VerifiedProgram) -> None:
        """Have a row for this program. Raises UnsupportedProgram, NativeUnavailable."""
        known = self._loaded.get(program.prog_id)
        if known is None or known.program is not program:
            self._loaded[program.prog_id] = self.root.new_target(program)
        at = ROW_WORDS * (program.prog_id & self._mask)
        if self._rows[at] in (0, program.prog_id) or self._mask + 1 == MAX_ROWS:
            self._write(program.prog_id)
            self._loaded[program.prog_id].tell_targets(ctypes.addressof(self._rows), self._mask)
        else:
            self._make_table(2 * (self._mask + 1))
            self.add(program)

    def sweep(self) -> None:
        """Before a run: forget programs that no array holds any more, once they are many."""
        if len(self._loaded) < 2 * self._swept + FIRST_ROWS:
            return
        kept = self._reached()
        self._loaded = {prog_id: loaded for prog_id, loaded in self._loaded.items() if id(loaded.program) in kept}
        self._swept = len(self._loaded)
        self._make_table(FIRST_ROWS)

    def _reached(self) -> set[int]:
        """id() of all that tail calls can lead to now."""
        found: set[int] = set()
        work = list(_held_by(self.root.program))
        while work:
            program = work.pop()
            if id(program) not in found:
                found.add(id(program))
                work += _held_by(program)
        return found


def _held_by(program: VerifiedProgram) -> Iterator[VerifiedProgram]:
    """The programs in a program's arrays."""
    for m in program.maps:
        if m.spec.map_type == MapType.PROG_ARRAY:
            array: Any = m
            yield from (program_of(held) for held in array.objects())


def program_of(held: Any) -> VerifiedProgram:
    """What the engines run of an object in a program array."""
    return held if isinstance(held, VerifiedProgram) else held.program
