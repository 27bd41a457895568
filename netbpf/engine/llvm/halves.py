"""A program in two halves: its beginning, which runs ahead of the packet loop, and what goes on from there.

Between them is a row for each packet. Its first word says in the low 16 bits the index + 1 of the table that the packet is looked
up in first (0: not known), in the next 16 how far the program came (NOWHERE, ENDED, or FIRST_CUT + the number of a look-up),
above them the key's hash, or the verdict of a program that ended; it is 0 in an empty row. Behind it lie the registers and the
parts of the frame that the second half reads (``split.Cut``).
"""

from __future__ import annotations

from typing import Final

from netbpf.engine.llvm.abi import ARGS
from netbpf.engine.llvm.checks import READ
from netbpf.engine.llvm.flow import Known
from netbpf.engine.llvm.instructions import SubprogLowerer
from netbpf.engine.llvm.ir import Function
from netbpf.engine.llvm.loop import Loop
from netbpf.engine.llvm.lowerer import Lowerer
from netbpf.engine.llvm.map_calls import lookup_hashed
from netbpf.engine.llvm.map_refs import MapRef, own_map
from netbpf.engine.llvm.split import Cut, Split
from netbpf.engine.llvm.subprog import FUNC_TAG
from netbpf.engine.llvm.tables import table_prefetches
from netbpf.engine.llvm.variant import Variant
from netbpf.isa.instruction import Instruction

NOWHERE, ENDED, FIRST_CUT = range(1, 4)
HOW_FAR: Final = 16  # where in a row's first word it says so
TOLD: Final = 32
LOT: Final = 32  # rows that are filled in at once
REACH: Final = 16  # so many rows before a packet's turn its element is asked for; what lies behind the last row may be old
_COPY: Final = "call void @llvm.memcpy.p0.p0.i64(ptr align 8 {}, ptr align 8 {}, i64 {}, i1 false)"


def emit_on_table(f: Function, split: Split, function: str, found: str) -> None:
    """Call a function of the table that a row's first word names, if it does, with the hash. Where there is one table only, it is
    called at any rate: some bucket that is in the cache costs less than a branch that is not foreseen."""
    key_hash = f.trunc(f.math("lshr", found, TOLD), 32)
    calls = {i: f"call void @{function}{i}(ptr %m{i}, i32 {key_hash})" for i in split.tables}
    if len(calls) == 1:
        f.do(calls[split.tables[0]])
        return
    after = f.fresh_label("called")
    names = {i: f.fresh_label(function) for i in calls}
    cases = " ".join(f"i16 {i + 1}, label %{name}" for i, name in names.items())
    f.do(f"switch i16 {f.trunc(found, HOW_FAR)}, label %{after} [ {cases} ]")
    f.open = False
    for i, name in names.items():
        f.label(name)
        f.do(calls[i])
        f.br(after)
    f.label(after)


def emit_beginning(owner: Lowerer, split: Split) -> str:
    """``@begin``, and what asks for the entries that it finds out about."""
    prefetches = [table_prefetches(i, owner.program.maps[i]) for i in split.tables]
    return "\n".join([*prefetches, FirstHalf(owner, split).text()])


class SplitLoop(Loop):
    """A packet loop over a program in two halves."""

    def __init__(self, lowerer: Lowerer, variant: Variant, split: Split) -> None:
        super().__init__(lowerer, variant)
        self._split = split


class _Half(SubprogLowerer):
    """What both halves have in common. The context is opaque to them: R1 holds the same in both."""

    split: Split

    def _arguments(self) -> None:
        self.set(1, self._context())

    def _context(self) -> str:
        return self.f.load(64, self.f.gep("%a", ARGS["meta"]), 8)

    def _hash(self, pc: int) -> tuple[MapRef, str]:
        """The table that the packet is looked up in, and its key's hash."""
        m = own_map(self, self.split.table[pc])
        key = self.pointer(pc, 2, 0, m.spec.key_size, READ)
        return m, self.f.op(f"call i32 @hash{m.suffix}(ptr {m.base}, ptr {key})")

    def _frame_parts(self, cut: Cut) -> list[tuple[str, str, int]]:
        """Pairs of pointers, of the frame and of the row, and how many bytes belong together."""
        at, out = 8 + 8 * len(cut.saved), []
        for off, size in cut.frame:
            out.append((self.f.gep("%fp", off), self.f.gep("%row", at), size))
            at += size
        return out


class FirstHalf(_Half):
    """``i64 @begin(surroundings, row)``: fill in a row but for its first word; that word."""

    def __init__(self, owner: Lowerer, split: Split) -> None:
        super().__init__(owner, 0)
        self.split = split
        self.states = {pc: regs for pc, regs in self.states.items() if pc in split.beginning or pc in split.stops}

    def _head(self) -> str:
        return f"define internal i64 @begin({self.owner.around.main_params}, ptr noalias %row) alwaysinline nounwind"

    def leave(self, value: str) -> None:
        self._say(value, ENDED, 0)

    def _say(self, told: str, how_far: int, table: int) -> None:
        f = self.f
        f.ret(f"i64 {f.math('or', f.math('shl', told, TOLD), how_far << HOW_FAR | table)}")

    def _insn(self, pc: int) -> None:
        if pc not in self.split.stops:
            super()._insn(pc)
        elif pc not in self.split.table:
            self._say("0", NOWHERE, 0)
        else:
            self._found(pc)

    def _found(self, pc: int) -> None:
        m, key_hash = self._hash(pc)
        how_far = NOWHERE
        if pc in self.split.cuts:
            how_far = FIRST_CUT + self.split.number(pc)
            self._save(self.split.cuts[pc])
        self._say(self.f.zext(key_hash, 32), how_far, m.number + 1)

    def _save(self, cut: Cut) -> None:
        f = self.f
        for k, r in enumerate(cut.saved, 1):
            f.store(64, self.get(r), f.gep("%row", 8 * k), 8)
        for frame, row, size in self._frame_parts(cut):
            f.do(_COPY.format(row, frame, size))


class LaterHalf(_Half):
    """A program that goes on from a packet's row, with the hash that the row tells of the key."""

    def _from_row(self, found: str, others: dict[int, str], otherwise: str) -> None:
        """On from the look-up that a row's first word names; where it says one of ``others``, or none of all these, in the blocks
        of these names."""
        f, cuts = self.f, self.split.cuts
        f.lines.insert(2, "  %hash.v = alloca i32")  # look-ups that no row leads to use it, too
        f.store(32, f.trunc(f.math("lshr", found, TOLD), 32), "%hash.v", 4)
        places = others | {FIRST_CUT + n: f"take{pc}" for n, pc in enumerate(cuts)}
        cases = " ".join(f"i16 {far}, label %{name}" for far, name in places.items())
        f.do(f"switch i16 {f.trunc(f.math('lshr', found, HOW_FAR), 16)}, label %{otherwise} [ {cases} ]")
        f.open = False
        for pc, cut in cuts.items():
            f.label(f"take{pc}")
            self._restore(cut)
            f.br(f"cut{pc}")

    def _restore(self, cut: Cut) -> None:
        f = self.f
        for k, r in enumerate(cut.saved, 1):
            self.set(r, f.load(64, f.gep("%row", 8 * k), 8))
        for r, known in cut.known.items():
            self.set(r, self._again(known))
        for frame, row, size in self._frame_parts(cut):
            f.do(_COPY.format(frame, row, size))

    def _again(self, known: Known) -> str:
        """What is known, as a value."""
        if known.kind == "map":
            return self.map_handle(known.value)
        if known.kind == "func":
            return str(FUNC_TAG | self.owner.start_of[known.value])
        if known.kind == "num":
            return str(known.value - (known.value >> 63 << 64))
        base = self.get(10) if known.kind == "fp" else self._context()
        return self.f.math("add", base, known.value)

    def _call(self, pc: int, i: Instruction) -> None:
        if pc not in self.split.cuts:
            super()._call(pc, i)
            return
        f = self.f
        m, key_hash = self._hash(pc)
        f.store(32, key_hash, "%hash.v", 4)
        f.label(f"cut{pc}")
        self.set(0, lookup_hashed(self, pc, m, f.load(32, "%hash.v", 4)))


class SecondHalf(LaterHalf):
    """``i64 @prog(surroundings, rows, offset of the packet's row)``: the program from where the row says on; the whole of it
    where that is NOWHERE, or the row is empty. The offset is moved on, but from an empty row: where nothing is looked at ahead,
    a test is all that it costs."""

    def __init__(self, owner: Lowerer, tables: tuple[int, ...]) -> None:
        super().__init__(owner, 0)
        self.split = Split(self, tables)
        self.tallies = {pc: t for pc, t in self.tallies.items() if pc not in self.split.cuts}

    def _head(self) -> str:
        params = f"{self.owner.around.main_params}, ptr noalias %rows, ptr noalias %row.v"
        return f"define internal i64 @prog({params}) alwaysinline nounwind"

    def _body(self) -> None:
        f, split = self.f, self.split
        at = f.load(64, "%row.v", 8)
        f.lines.append(f"  %row = getelementptr i8, ptr %rows, i64 {at}")
        found = f.load(64, "%row", 8)
        f.cond(f.test("eq", found, 0), "begin", "led")
        f.label("led")
        f.store(64, f.math("add", at, split.row_bytes()), "%row.v", 8)
        emit_on_table(f, split, "reach", f.load(64, f.gep("%row", REACH * split.row_bytes()), 8))
        self._from_row(found, {ENDED: "ended"}, "begin")
        f.label("ended")
        self.leave(f.math("lshr", found, TOLD) if split.verdict is None else str(split.verdict))
        f.label("begin")
        super()._body()
