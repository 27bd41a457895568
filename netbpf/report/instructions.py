"""How often each instruction is executed, counted in a run of its own that is bounded and the same each time.

The first packets of the trace are run again on the reference interpreter, with maps of their own: what they do is what they did
in the replay itself, for nothing came before them in either. Counting stops at MAX_PACKETS or MAX_INSNS, and the page says how
many were counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from netbpf.engine.interp.engine import InterpLoaded
from netbpf.engine.interp.watch import InsnCounts
from netbpf.packet.batch import PacketBatch
from netbpf.program import ProgramSpec, VerifiedProgram
from netbpf.replay.intervals import batch_slice
from netbpf.report.model import InsnReport, InsnRow, ProgramListing
from netbpf.sources.listing import insn_texts, lines_above

if TYPE_CHECKING:
    from netbpf.replay.session import Session

MAX_PACKETS: Final = 20_000
MAX_INSNS: Final = 2_000_000
SLICE_PACKETS: Final = 64


class InsnCounter:
    """``session`` runs ``spec`` on the interpreter and belongs to the counter alone. Where the program is for one ``linktype``,
    the first batch of another ends the counting."""

    def __init__(self, spec: ProgramSpec, session: Session, linktype: int | None = None) -> None:
        loaded = session.loaded
        if not isinstance(loaded, InterpLoaded):
            raise TypeError("instructions are counted on the interpreter")
        self._spec, self._session, self._loaded, self._linktype = spec, session, loaded, linktype
        self._counts = InsnCounts()
        self._packets, self._full = 0, False
        loaded.watch(self._counts)

    def add(self, batch: PacketBatch) -> None:
        """Run the next packets, as far as the bounds allow."""
        if self._linktype not in (None, batch.linktype):
            self._full = True
        for first in range(0, len(batch), SLICE_PACKETS):
            if self._full or self._packets >= MAX_PACKETS or self._counts.total >= MAX_INSNS:
                self._full = True
                return
            piece = batch_slice(batch, first, min(len(batch), first + SLICE_PACKETS, first + MAX_PACKETS - self._packets))
            self._loaded.run(piece)
            self._packets += len(piece)

    def result(self) -> InsnReport:
        """What was counted, by program."""
        by_program: dict[int, tuple[VerifiedProgram, dict[int, int]]] = {}
        main = self._session.program
        by_program[id(main)] = (main, {})
        for pc, count in self._counts.by_pc.items():
            program, slot = self._loaded.locate(pc)
            by_program.setdefault(id(program), (program, {}))[1][slot] = count
        listings = [ProgramListing(p.name or "(no name)", list(self._rows(p, counts))) for p, counts in by_program.values()]
        return InsnReport(self._packets, self._counts.total, not self._full, listings)

    def _rows(self, program: VerifiedProgram, counts: dict[int, int]) -> Iterator[InsnRow]:
        above = self._source(program)
        for pc, text in insn_texts(program.insns, [m.spec.name for m in program.maps]).items():
            yield InsnRow(pc, text, tuple(above.get(pc, ())), counts.get(pc, 0))

    def _source(self, program: VerifiedProgram) -> dict[int, list[str]]:
        """The source lines of the program that was attached, or of one that it goes on to."""
        if program is self._session.program:
            return lines_above(self._spec, "xlated")
        found: dict[int, list[str]] = {}
        last = ""
        for pc, text in program.source_lines:
            if text and text != last:
                found[pc] = [f"; {text}"]
            last = text
        return found
