"""The function of a subprogram: its frame, registers as i64 slots (LLVM makes them values), what is known of them at each
instruction, and calls of other subprograms. The code of the instructions is that of ``instructions``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from netbpf.engine.base import UnsupportedProgram
from netbpf.engine.llvm.abi import ARGS, SPARE_AT
from netbpf.engine.llvm.checks import FAULT_INSN, emit_check, emit_enter, emit_fault, emit_leave
from netbpf.engine.llvm.flow import ENTRY, Known, Regs, analyse, successors
from netbpf.engine.llvm.ir import Function
from netbpf.engine.llvm.lowerer import insn_problem
from netbpf.ints import round_up
from netbpf.isa.opcodes import (
    BPF_CALL,
    BPF_EXIT,
    BPF_JMP,
    BPF_JMP32,
    MAX_BPF_STACK,
    bpf_class,
    bpf_op,
    is_ld_imm64,
)

if TYPE_CHECKING:
    from netbpf.engine.llvm.lowerer import Lowerer
    from netbpf.engine.llvm.tally import Tally

FUNC_TAG: Final = 0x6675_6E00_0000_0000  # with a subprogram's index, what a register holds that names it: no address
BPF_MAX_LOOPS: Final = 8 * 1024 * 1024
CLOBBERED: Final = 0xDEAD_0000_0000_0001 - (1 << 64)


class SubprogCode(ABC):
    """One subprogram: its function, its frame, its registers, and what is known at each instruction."""

    def __init__(self, owner: Lowerer, index: int) -> None:
        self.owner, self.index = owner, index
        self.insns = owner.insns
        self.subprog = owner.subprogs[index]
        self.is_main = index == 0
        entry = ENTRY
        if self.is_main and not owner.on_memory:
            entry = (None, Known("ctx", 0), *ENTRY[2:])
        self.states: dict[int, Regs] = analyse(self.insns, self.subprog.start, self.subprog.end, entry, self.ends)
        self.f = Function(self._head())
        self.frame_bytes = ""  # of the frame, what is cleared or written
        self.tallies: dict[int, Tally] = {}
        if owner.may_tally:
            from netbpf.engine.llvm.tally import tallies  # most filters have none

            self.tallies = tallies(self)

    # --- frame -----------------------------------------------------------------------------------------------------
    def _head(self) -> str:
        if self.is_main:
            return f"define internal i64 @prog({self.owner.around.main_params}) alwaysinline nounwind"
        args = ", ".join(f"i64 %arg{n}" for n in range(1, 6))
        return f"define internal i64 @sub{self.index}({args}, {self.owner.around.params}) nounwind"

    def text(self) -> str:
        f = self.f
        for r in range(11):
            f.lines.append(f"  %r{r} = alloca i64")
        f.lines.append("  %goto_budget = alloca i64")
        if self.is_main and self.owner.goes_on:
            self._passed_stack()
        else:
            self._fresh_stack()
        f.lines.append("  %fp = getelementptr i8, ptr %stack, i64 512")
        f.store(64, str(BPF_MAX_LOOPS), "%goto_budget", 8)
        for r in range(10):
            f.store(64, "0", f"%r{r}", 8)
        if self.owner.checked:
            emit_enter(self)
        self._arguments()
        f.store(64, f.op("ptrtoint ptr %fp to i64"), "%r10", 8)
        self._body()
        f.label("abort")
        self.leave("0")
        return f.text()

    def _fresh_stack(self) -> None:
        """A frame of zeroes, as in the interpreter: the privileged may read stack that was never written."""
        self.f.lines.append("  %stack = alloca [512 x i8], align 16")
        self.frame_bytes = str(self._depth())
        self._clear_stack(self.frame_bytes)

    def _passed_stack(self) -> None:
        """The frame of the program that made the tail call; more of it is cleared where this one uses more."""
        f, depth = self.f, self._depth()
        f.lines.append(f"  %stack = load ptr, ptr {f.gep('%a', ARGS['frame'])}, align 8")
        passed = f.load(64, f.gep("%a", ARGS["frame_bytes"]), 8)
        fits, more, on = f.test("ule", depth, passed), f.fresh_label("more"), f.fresh_label("on")
        self.frame_bytes = f.select(fits, 64, passed, str(depth))
        f.cond(fits, on, more)
        f.label(more)
        self._clear_stack(f.math("sub", depth, passed))
        f.label(on)

    def _clear_stack(self, size: str) -> None:
        """The ``size`` lowest bytes of what this subprogram uses."""
        low = self.f.gep("%stack", MAX_BPF_STACK - self._depth())
        self.f.do(f"call void @llvm.memset.p0.i64(ptr align 8 {low}, i8 0, i64 {size}, i1 false)")

    def _depth(self) -> int:
        return MAX_BPF_STACK if self.owner.checked else max(8, round_up(self.subprog.stack_depth, 8))

    def leave(self, value: str) -> None:
        """Leave the subprogram."""
        if self.owner.checked:
            emit_leave(self)
        self.f.ret(f"i64 {value}")

    def _arguments(self) -> None:
        if not self.is_main:
            for r in range(1, 6):
                self.f.store(64, f"%arg{r}", f"%r{r}", 8)
        elif self.owner.on_memory:
            for r in (1, 2):
                self.f.store(64, self.f.load(64, self.f.gep("%a", ARGS[f"r{r}"]), 8), f"%r{r}", 8)
        else:
            self.f.store(64, self.f.op("ptrtoint ptr %meta to i64"), "%r1", 8)

    def _body(self) -> None:
        targets = self._targets()
        pc = self.subprog.start
        while pc < self.subprog.end:
            if pc in targets:
                self.f.label(f"pc{pc}")
            width = 2 if is_ld_imm64(self.insns[pc].code) else 1
            if pc in self.states and self.f.open:
                self._insn(pc)
            pc += width
        if self.f.open and self.owner.checked:
            emit_fault(self, pc, FAULT_INSN)
        elif self.f.open:
            self.f.br("abort")

    @abstractmethod
    def _insn(self, pc: int) -> None:
        """The code of an instruction."""

    def _targets(self) -> set[int]:
        out: set[int] = set()
        for pc in self.states:
            if self.ends(pc):
                continue
            i = self.insns[pc]
            if bpf_class(i.code) in (BPF_JMP, BPF_JMP32) and bpf_op(i.code) not in (BPF_CALL, BPF_EXIT):
                out.update(successors(self.insns, pc))
        return (out & set(self.states)).difference(*(range(t.test, t.end) for t in self.tallies.values()))

    # --- registers ---------------------------------------------------------------------------------------------------
    def get(self, r: int) -> str:
        return self.f.load(64, f"%r{r}", 8)

    def set(self, r: int, value: str) -> None:
        self.f.store(64, value, f"%r{r}", 8)

    def known(self, pc: int, r: int) -> Known | None:
        return self.states[pc][r]

    def is_slot(self, pc: int, r: int) -> bool:
        """Whether R points to a place in the frame that is known."""
        known = self.known(pc, r)
        return known is not None and known.kind == "fp"

    def pointer(self, pc: int, r: int, off: int, size: int | str, access: int) -> str:
        """R + off as a pointer to ``size`` bytes (an i64 operand where it is no constant): a fixed slot of the frame where
        that is known; in a checked program one that was looked at."""
        known = self.known(pc, r)
        if known and known.kind == "fp" and self._in_frame(known.value + off, size):
            return self.f.gep("%fp", known.value + off)
        base = self.get(r)
        address = self.f.op(f"add i64 {base}, {off}") if off else base
        if self.owner.checked:
            emit_check(self, pc, address, str(size), access)
        return self.f.op(f"inttoptr i64 {address} to ptr")

    def _in_frame(self, at: int, size: int | str) -> bool:
        """Whether an access at a constant offset needs no check."""
        if not self.owner.checked:
            return True
        return isinstance(size, int) and at >= -MAX_BPF_STACK and at + size <= 0

    def is_ctx(self, pc: int, r: int) -> bool:
        known = self.known(pc, r)
        return bool(known and known.kind == "ctx") or self.owner.facts(pc).ptr == "ctx"

    def map_index(self, pc: int, r: int) -> int:
        """Which of the program's maps R names at ``pc``, or -1."""
        known = self.known(pc, r)
        if known and known.kind == "map":
            return known.value
        return self.owner.facts(pc).map_index if r == 1 else -1

    def inner_of(self, pc: int) -> int:
        """Which of the program's maps of maps has a template like the map that R1 names at ``pc``, or -1."""
        return -1 if self.owner.checked or self.map_index(pc, 1) >= 0 else self.owner.facts(pc).inner_of

    # --- what an instruction may need ----------------------------------------------------------------------------------
    def ends(self, pc: int) -> bool:
        """Whether no program goes on at ``pc``: dead code, which may hold anything, or in an unproved program nothing to run."""
        if self.owner.program.proved:
            return not self.owner.facts(pc).seen
        return bool(insn_problem(self.insns, pc, self.owner.starts))

    def unsupported(self, pc: int) -> UnsupportedProgram:
        from netbpf.isa.disasm import format_insn  # few programs are refused

        text = format_insn(self.insns[pc], self.insns[pc + 1] if pc + 1 < len(self.insns) else None)
        return UnsupportedProgram(f"the native engine has no code for insn {pc} ({text})")

    def spare(self) -> str:
        """Where the value is that nobody looks at."""
        return self.f.op(f"ptrtoint ptr {self.f.gep('%a', SPARE_AT)} to i64")

    def clobber(self) -> None:
        """What a call leaves in R1 to R5; no proved program reads it."""
        if self.owner.checked:
            for r in range(1, 6):
                self.set(r, str(CLOBBERED))

    def map_handle(self, index: int) -> str:
        """What a register holds that names a map."""
        table = self.f.op(f"load ptr, ptr {self.f.gep('%a', ARGS['handles'])}, align 8")
        return self.f.load(64, self.f.gep(table, 8 * index), 8)

    def call_subprog(self, pc: int, index: int, args: list[str]) -> str:
        """Call subprogram ``index`` with R1.. (missing ones are 0); its R0."""
        if self.owner.checked:
            self.f.store(64, str(pc), self.f.gep("%a", ARGS["call_pc"]), 8)
        words = ", ".join(f"i64 {a}" for a in [*args, *["0"] * (5 - len(args))])
        return self.f.op(f"call i64 @sub{index}({words}, {self.owner.around.passed})")

    def leave_on_fault(self) -> None:
        """End the run where a call back into Python failed."""
        if not self.owner.may_fault:
            return
        fault = self.f.load(64, self.f.gep("%a", ARGS["fault"]), 8)
        go_on = self.f.fresh_label("on")
        self.f.cond(self.f.op(f"icmp eq i64 {fault}, 0"), go_on, "abort")
        self.f.label(go_on)
