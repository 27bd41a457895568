"""The packet loop of a program that has done with the packet when it first looks a table up: in lots.

A packet's beginning (``halves.FirstHalf``) leaves a row in a ring, if the program goes on. Each LOT packets ``@drain`` goes on
with the rows (``Rest``), in their order, but for the last KEPT: what those look for is still being brought in from memory. When
the loop ends, all are drained. Scouts go on by a step every other packet and every other row, so that packets come in from memory
all the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netbpf.engine.llvm.flow import called, successors
from netbpf.engine.llvm.halves import ENDED, HOW_FAR, LOT, TOLD, LaterHalf, SplitLoop, emit_beginning, emit_on_table
from netbpf.engine.llvm.instructions import SubprogLowerer
from netbpf.engine.llvm.ir import Function
from netbpf.engine.llvm.lowerer import Lowerer
from netbpf.engine.llvm.shape import ARRAYS, LRU_TABLES, TABLES
from netbpf.engine.llvm.split import KEYED, Split
from netbpf.isa.opcodes import (
    BPF_ALU,
    BPF_ALU64,
    BPF_CALL,
    BPF_JCOND,
    BPF_JMP,
    BPF_JMP32,
    BPF_LD,
    BPF_LDX,
    BPF_ST,
    BPF_STX,
    bpf_class,
    bpf_op,
    is_ld_imm64,
)

if TYPE_CHECKING:
    from netbpf.engine.llvm.variant import Variant

KEPT: Final = 32
RING: Final = 128  # rows: a power of two, more than LOT and KEPT together
REACH: Final = 30  # so many rows before its turn an element is asked for; what lies behind the last row may be old


def rest_in_lots(lowerer: Lowerer, variant: Variant, split: Split) -> Rest | None:
    """The other half of a program that can be run in lots, else None."""
    if variant.results or variant.output or not split.cuts or set(split.stops) != set(split.cuts):
        return None
    rest = Rest(lowerer, split)
    return rest if all(_needs_no_packet(rest, pc) for pc in rest.states) else None


def emit_lots(lowerer: Lowerer, variant: Variant, split: Split) -> str:
    """The beginning, the rest in a loop of its own, and the packet loop."""
    beginning = emit_beginning(lowerer, split)  # which says what of the context the loop has to put together
    return "\n".join([beginning, _drain(lowerer, variant, split), Lots(lowerer, variant, split).text()])


def _needs_no_packet(s: SubprogLowerer, pc: int) -> bool:
    """Whether an instruction does without the packet, its context, and whatever comes back to Python."""
    if s.ends(pc):
        return True
    i = s.insns[pc]
    cls, op = bpf_class(i.code), bpf_op(i.code)
    if cls == BPF_LD:
        return is_ld_imm64(i.code)
    if cls == BPF_LDX:
        return not s.is_ctx(pc, i.src)
    if cls in (BPF_ST, BPF_STX):
        return not s.is_ctx(pc, i.dst)
    if cls == BPF_JMP and op == BPF_CALL:
        index = s.map_index(pc, 1)
        kinds = ARRAYS | TABLES | LRU_TABLES
        return called(i) in KEYED and index >= 0 and s.owner.program.maps[index].spec.map_type in kinds
    return cls in (BPF_ALU, BPF_ALU64) or (cls in (BPF_JMP, BPF_JMP32) and op != BPF_JCOND)


class Rest(LaterHalf):
    """``i64 @rest(surroundings without a packet, row)``: the program from where the row says on; R0."""

    def __init__(self, owner: Lowerer, split: Split) -> None:
        super().__init__(owner, 0)
        self.split = split
        work = list(split.cuts)
        reached = set(work)
        while work:
            pc = work.pop()
            after = set(successors(self.insns, pc)) - reached if not self.ends(pc) else set()
            reached |= after
            work += after
        self.states = {pc: regs for pc, regs in self.states.items() if pc in reached}
        self.tallies = {pc: t for pc, t in self.tallies.items() if pc in self.states and pc not in split.cuts}

    def _head(self) -> str:
        return f"define internal i64 @rest({self.owner.around.main_params}, ptr noalias %row) alwaysinline nounwind"

    def _body(self) -> None:
        f = self.f
        self._from_row(f.load(64, "%row", 8), {}, "nowhere")
        f.label("nowhere")
        f.do("unreachable")
        f.open = False
        super()._body()

    def _targets(self) -> set[int]:
        """A look-up has a block even if nothing but rows leads to it."""
        return super()._targets() | set(self.split.cuts)


def _drain(lowerer: Lowerer, variant: Variant, split: Split) -> str:
    """``i64 @drain(surroundings, rows, from, to, scouts)``: how many of the rows were accepted, and above 32 bits how many were
    trimmed. ``scouts``: address of their state while they walk, else 0."""
    around = lowerer.around
    words = f"{around.main_params}, ptr noalias %rows, i64 %from, i64 %to, i64 %scouts"
    f = Function(f"define internal i64 @drain({words}) noinline nounwind")
    for slot in ("at", "told"):
        f.lines.append(f"  %{slot}.v = alloca i64")
    f.store(64, "%from", "%at.v", 8)
    f.store(64, "0", "%told.v", 8)
    f.label("head")
    at = f.load(64, "%at.v", 8)
    f.cond(f.test("eq", at, "%to"), "done", "row")
    f.label("row")
    if variant.scouted:
        f.cond(f.both(f.test("ne", "%scouts", 0), _is_even(f, at)), "step", "on")
        f.label("step")
        f.op("call i64 @step.scouts(i64 %scouts)")
        f.label("on")
    emit_on_table(f, split, "reach", f.load(64, _row(f, split, f.math("add", at, REACH)), 8))
    row = _row(f, split, at)
    f.do(f"%taken = getelementptr i8, ptr {row}, i64 0")
    v = f.math("and", f.op(f"call i64 @rest({around.passed}, ptr %taken)"), 0xFFFF_FFFF)
    accepted = f.test("ne", v, 0)
    trimmed = f.both(accepted, f.test("ult", v, f.load(64, f.gep(row, split.row_bytes()), 8)))
    told = f.math("add", f.load(64, "%told.v", 8), f.zext(accepted, 1))
    f.store(64, f.math("add", told, f.math("shl", f.zext(trimmed, 1), 32)), "%told.v", 8)
    f.store(64, f.math("add", at, 1), "%at.v", 8)
    f.br("head")
    f.label("done")
    f.ret(f"i64 {f.load(64, '%told.v', 8)}")
    return f.text()


def _is_even(f: Function, number: str) -> str:
    return f.test("eq", f.math("and", number, 1), 0)


def _size(split: Split) -> int:
    """Of a row with the packet's length."""
    return split.row_bytes() + 8


def _row(f: Function, split: Split, number: str) -> str:
    return f.gep("%rows", f.math("mul", f.math("and", number, RING - 1), _size(split)))


class Lots(SplitLoop):
    """The loop over packets, which runs their beginnings."""

    def _prologue(self) -> None:
        super()._prologue()
        self.f.lines.append(f"  %rows = alloca [{RING * _size(self._split)} x i8], align 8")
        self.set("left", str(LOT))

    def look_ahead(self) -> None:
        """Each LOT packets, go on with those before."""
        f = self.f
        f.cond(f.test("eq", self.get("left"), 0), "lot", "going")
        f.label("lot")
        self.set("left", str(LOT))
        made, done = self.get("made"), self.get("done")
        f.cond(f.test("ugt", f.math("sub", made, done), KEPT), "drain", "going")
        f.label("drain")
        self._drain(f.math("sub", made, KEPT))
        f.label("going")

    def has_step(self) -> str:
        return _is_even(self.f, self.get("n"))

    def at_end(self) -> None:
        self._drain(self.get("made"))

    def _drain(self, to: str) -> None:
        f = self.f
        scouts = "0"
        if self.variant.scouted:
            scouts = f.select(f.test("eq", self.get("pf"), 0), 64, f.op("ptrtoint ptr %scouts to i64"), "0")
        words = f"{self.owner.around.passed_alone}, ptr %rows, i64 {self.get('done')}, i64 {to}, i64 {scouts}"
        told = f.op(f"call i64 @drain({words})")
        self.set("acc", f.math("add", self.get("acc"), f.math("and", told, 0xFFFF_FFFF)))
        self.set("trim", f.math("add", self.get("trim"), f.math("lshr", told, 32)))
        self.set("done", to)

    def run_program(self) -> str:
        """Of a packet whose program goes on, 0 for now."""
        f, split = self.f, self._split
        made = self.get("made")
        row = _row(f, split, made)
        f.do(f"%row = getelementptr i8, ptr {row}, i64 0")
        found = f.op(f"call i64 @begin({self.owner.around.passed}, ptr %row)")
        f.store(64, found, row, 8)
        f.store(64, "%len", f.gep(row, split.row_bytes()), 8)
        emit_on_table(f, split, "near", found)
        has_ended = f.test("eq", f.math("and", f.math("lshr", found, HOW_FAR), 0xFFFF), ENDED)
        self.set("made", f.math("add", made, f.unforeseen(has_ended, 64, "0", "1")))
        self.set("left", f.math("sub", self.get("left"), 1))
        told = f.math("lshr", found, TOLD) if split.verdict is None else str(split.verdict)
        return f.unforeseen(has_ended, 64, told, "0")
