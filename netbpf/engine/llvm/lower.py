"""eBPF -> LLVM: one function per subprogram. Registers are i64 slots (LLVM makes them values); pointers are addresses.

Knows the program, its facts and its maps' shapes; not where packets come from (``loop``) nor how code is made (``compile``).
Every function takes the same surroundings after its arguments: Args, Meta, the packet and the map bases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from netbpf.engine.base import UnsupportedProgram
from netbpf.engine.llvm.abi import ARGS, META, SPARE_AT
from netbpf.engine.llvm.checks import (
    ATOMIC,
    FAULT_DEAD,
    FAULT_INSN,
    FAULT_R6,
    READ,
    WRITE,
    check_text,
    emit_budget,
    emit_check,
    emit_enter,
    emit_fault,
    emit_leave,
)
from netbpf.engine.llvm.flow import ENTRY, Known, Regs, analyse, successors
from netbpf.engine.llvm.ir import Function, signed_text
from netbpf.engine.llvm.variant import SINGLE
from netbpf.ints import round_up
from netbpf.isa.cfg import insn_starts, jump_target, subprog_starts
from netbpf.isa.encoding import encoding_problem
from netbpf.isa.instruction import Instruction, Program, imm64
from netbpf.isa.opcodes import (
    BPF_ABS,
    BPF_ADD,
    BPF_ALU,
    BPF_ALU64,
    BPF_AND,
    BPF_ARSH,
    BPF_ATOMIC,
    BPF_CALL,
    BPF_CMPXCHG,
    BPF_DIV,
    BPF_END,
    BPF_EXIT,
    BPF_FETCH,
    BPF_IND,
    BPF_JA,
    BPF_JCOND,
    BPF_JEQ,
    BPF_JGE,
    BPF_JGT,
    BPF_JLE,
    BPF_JLT,
    BPF_JMP,
    BPF_JMP32,
    BPF_JNE,
    BPF_JSET,
    BPF_JSGE,
    BPF_JSGT,
    BPF_JSLE,
    BPF_JSLT,
    BPF_LD,
    BPF_LDX,
    BPF_LOAD_ACQ,
    BPF_LSH,
    BPF_MEMSX,
    BPF_MOD,
    BPF_MOV,
    BPF_MUL,
    BPF_NEG,
    BPF_OR,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_MAP_IDX,
    BPF_PSEUDO_MAP_IDX_VALUE,
    BPF_RSH,
    BPF_ST,
    BPF_STORE_REL,
    BPF_STX,
    BPF_SUB,
    BPF_TO_BE,
    BPF_X,
    BPF_XCHG,
    BPF_XOR,
    MAX_BPF_STACK,
    SIZE_BYTES,
    bpf_class,
    bpf_mode,
    bpf_op,
    bpf_size,
    bpf_src,
    is_ld_imm64,
)
from netbpf.program import InsnFacts, Subprog, VerifiedProgram

if TYPE_CHECKING:
    from netbpf.engine.llvm.split import Split
    from netbpf.engine.llvm.tally import Tally
    from netbpf.maps.base import Map

FUNC_TAG: Final = 0x6675_6E00_0000_0000  # with a subprogram's index, what a register holds that names it: no address
BPF_MAX_LOOPS: Final = 8 * 1024 * 1024
CLOBBERED: Final = 0xDEAD_0000_0000_0001 - (1 << 64)

_BINARY: Final = {
    BPF_ADD: "add",
    BPF_SUB: "sub",
    BPF_MUL: "mul",
    BPF_OR: "or",
    BPF_AND: "and",
    BPF_XOR: "xor",
    BPF_LSH: "shl",
    BPF_RSH: "lshr",
    BPF_ARSH: "ashr",
}
_SHIFTS: Final = frozenset({BPF_LSH, BPF_RSH, BPF_ARSH})
_COMPARE: Final = {
    BPF_JEQ: "eq",
    BPF_JNE: "ne",
    BPF_JGT: "ugt",
    BPF_JGE: "uge",
    BPF_JLT: "ult",
    BPF_JLE: "ule",
    BPF_JSGT: "sgt",
    BPF_JSGE: "sge",
    BPF_JSLT: "slt",
    BPF_JSLE: "sle",
}
_ATOMIC_BINARY: Final = {BPF_ADD: "add", BPF_OR: "or", BPF_AND: "and", BPF_XOR: "xor"}

NO_FACTS: Final = InsnFacts(seen=True)


def insn_problem(insns: Program, pc: int, starts: frozenset[int] | None = None) -> str:
    """Why a program that no verifier saw cannot go on at ``pc``, or "". ``starts``: where its instructions begin, if known."""
    if pc >= len(insns):
        return "the program runs past its last instruction"
    starts = frozenset(insn_starts(insns)) if starts is None else starts
    if pc not in starts:
        return "the second half of a 64-bit immediate is no instruction"
    return encoding_problem(insns[pc], pc, len(insns), starts)


class Surroundings:
    """The parameters every function passes on: Args, Meta, packet, its lengths, map bases. The first MAC_BYTES of the packet are
    at ``%mac``, the others at ``%pkt`` + MAC_BYTES: a VLAN tag that was moved out may lie between them. ``alone``: nobody but
    this code touches the maps while it runs. LLVM is told so of the main program alone (``main_params``): other functions may be
    given addresses of values, which are not made from the map's there."""

    def __init__(self, maps: Sequence[Map], alone: bool) -> None:
        packet = ["ptr %a", "ptr %meta", "ptr %pkt", "ptr %mac", "i64 %len", "i64 %cap"]
        kinds = ["ptr noalias" if alone and not _may_be_inside(m, maps) else "ptr" for m in maps]
        self.main_params = ", ".join([*packet, *(f"{kind} %m{i}" for i, kind in enumerate(kinds))])
        self.params = ", ".join([*packet, *(f"ptr %m{i}" for i in range(len(maps)))])
        own = [f"ptr %m{i}" for i in range(len(maps))]
        self.passed = ", ".join([*packet, *own])
        self.passed_alone = ", ".join(["ptr %a", "ptr %meta", "ptr null", "ptr null", "i64 0", "i64 0", *own])  # without a packet


def _may_be_inside(m: Map, maps: Sequence[Map]) -> bool:
    """Whether the map may also be found in one of these, under another address."""
    templates = [outer.spec.inner for outer in maps if outer.spec.inner is not None]
    if not templates:
        return False
    from netbpf.maps.inner import template_shape

    return any(template_shape(template) == template_shape(m.spec) for template in templates)


class Lowerer:
    """One program. ``functions`` is the text of its subprograms, ``used_meta`` the Meta fields they read.

    ``kind`` is that of the variant: in "memory" R1 and R2 are those of Args, and there is no context; in "tail" the main one has
    the frame of Args. ``checked`` keeps every run-time check; ``calls_back``: Python may be called, and may touch maps.
    ``called_back`` tells whether it really may be.
    """

    def __init__(self, program: VerifiedProgram, kind: str, *, checked: bool, calls_back: bool) -> None:
        self.program, self.insns = program, program.insns
        self.checked, self.on_memory, self.goes_on = checked, kind == "memory", kind == "tail"
        self.subprogs = program_subprogs(program)
        self.called_back = self.wants_flat = False  # wants_flat: the packet in one piece
        self.may_fault = checked or calls_back
        self.around = Surroundings(program.maps, alone=not calls_back)
        self.used_meta: set[str] = set()
        self.written_meta: set[str] = set()  # of those, what it writes; but cb, which has bytes
        self.used_args: set[str] = set()
        self.used_inner: set[int] = set()  # maps of maps whose inner maps are operated on
        self.used_kernels: set[str] = set()  # modules of kernels that belong to no map
        self.walked: set[str] = set()  # tables, by the suffix of their functions, that bpf_for_each_map_elem goes through
        self.tallied: set[str] = set()  # maps, by the same, that are looked up for ``tally``
        # whether there may be any: where code runs once a branch costs nothing
        self.may_tally = bool(program.maps) and kind not in SINGLE and not self.may_fault and program.proved
        self.starts = frozenset[int]() if program.proved else frozenset(insn_starts(program.insns))
        self.reserves_elsewhere = _calls_by_number(program)  # whether records may come from a helper that Python runs
        self.split: Split | None = None  # where the main program is split, if it is
        self.in_lots = False  # and whether the loop runs it in lots
        self.start_of = {s.start: i for i, s in enumerate(self.subprogs)}

    def functions(self, main: SubprogLowerer | None = None) -> str:
        """LLVM text of every subprogram; the main one, ``main`` if that is given, is ``@prog``."""
        main = SubprogLowerer(self, 0) if main is None else main
        texts = [main.text(), *(SubprogLowerer(self, i).text() for i in range(1, len(self.subprogs)))]
        return "\n".join([check_text(), *texts] if self.checked else texts)

    def facts(self, pc: int) -> InsnFacts:
        return self.program.facts[pc] if self.program.facts else NO_FACTS

    def meta(self, f: Function, field: str) -> str:
        """The value of a Meta field."""
        self.used_meta.add(field)
        return f.load(64, f.gep("%meta", META[field]), 8)


def program_subprogs(program: VerifiedProgram) -> tuple[Subprog, ...]:
    """The proved subprograms; of a program that no verifier saw, what its calls and function pointers name."""
    if program.proved:
        return program.subprogs
    starts = [s for s in subprog_starts(program.insns) if s < len(program.insns)]
    ends = [*starts[1:], len(program.insns)]
    return tuple(Subprog(start, end, MAX_BPF_STACK) for start, end in zip(starts, ends, strict=True))


def _calls_by_number(program: VerifiedProgram) -> bool:
    """Whether a call takes its helper from a register, as no verifier allows."""
    return any(i.code == BPF_JMP | BPF_CALL | BPF_X for i in program.insns)


class SubprogLowerer:
    """One subprogram: control flow and the instructions that touch registers and memory."""

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

    def map_index(self, pc: int, r: int) -> int:
        """Which of the program's maps R names at ``pc``, or -1."""
        known = self.known(pc, r)
        if known and known.kind == "map":
            return known.value
        return self.owner.facts(pc).map_index if r == 1 else -1

    def inner_of(self, pc: int) -> int:
        """Which of the program's maps of maps has a template like the map that R1 names at ``pc``, or -1."""
        return -1 if self.owner.checked or self.map_index(pc, 1) >= 0 else self.owner.facts(pc).inner_of

    # --- dispatch ----------------------------------------------------------------------------------------------------
    def _insn(self, pc: int) -> None:
        i = self.insns[pc]
        if not self.ends(pc):
            getattr(self, _CLASSES[bpf_class(i.code)])(pc, i)
        elif not self.owner.checked:
            self.f.br("abort")
        else:
            emit_fault(self, pc, FAULT_DEAD if self.owner.program.proved else FAULT_INSN)

    def ends(self, pc: int) -> bool:
        """Whether no program goes on at ``pc``: dead code, which may hold anything, or in an unproved program nothing to run."""
        if self.owner.program.proved:
            return not self.owner.facts(pc).seen
        return bool(insn_problem(self.insns, pc, self.owner.starts))

    def unsupported(self, pc: int) -> UnsupportedProgram:
        from netbpf.isa.disasm import format_insn  # few programs are refused

        text = format_insn(self.insns[pc], self.insns[pc + 1] if pc + 1 < len(self.insns) else None)
        return UnsupportedProgram(f"the native engine has no code for insn {pc} ({text})")

    # --- ALU ---------------------------------------------------------------------------------------------------------
    def _alu(self, pc: int, i: Instruction) -> None:
        bits = 64 if bpf_class(i.code) == BPF_ALU64 else 32
        op = bpf_op(i.code)
        if op == BPF_END:
            value = self._swap(pc, i)
        elif op == BPF_NEG:
            value = self.f.zext(self.f.op(f"sub i{bits} 0, {self._low(i.dst, bits)}"), bits)
        elif op == BPF_MOV:
            value = self._mov(i, bits)
        elif op in (BPF_DIV, BPF_MOD):
            value = self.f.zext(self._divide(i, op, bits), bits)
        elif op in _BINARY:
            value = self.f.zext(self._binary(i, op, bits), bits)
        else:
            raise self.unsupported(pc)
        self.set(i.dst, value)

    def _low(self, r: int, bits: int) -> str:
        return self.f.trunc(self.get(r), bits)

    def _source(self, i: Instruction, bits: int) -> str:
        return self._low(i.src, bits) if bpf_src(i.code) == BPF_X else signed_text(i.imm, bits)

    def _binary(self, i: Instruction, op: int, bits: int) -> str:
        right = self._source(i, bits)
        if op in _SHIFTS:
            mask = bits - 1
            right = self.f.op(f"and i{bits} {right}, {mask}") if right.startswith("%") else str(int(right) & mask)
        return self.f.op(f"{_BINARY[op]} i{bits} {self._low(i.dst, bits)}, {right}")

    def _mov(self, i: Instruction, bits: int) -> str:
        if bpf_src(i.code) != BPF_X:
            return signed_text(i.imm, 64) if bits == 64 else str(i.imm & 0xFFFF_FFFF)
        if not i.off:
            return self.f.zext(self._low(i.src, bits), bits)
        narrow = self.f.trunc(self.get(i.src), i.off)
        return self.f.zext(self.f.sext(narrow, i.off, bits), bits)

    def _divide(self, i: Instruction, op: int, bits: int) -> str:
        """Division by zero gives 0, modulo by zero the dividend; the most negative number divided by -1 gives itself."""
        f, left, right = self.f, self._low(i.dst, bits), self._source(i, bits)
        signed = i.off == 1
        zero = f.op(f"icmp eq i{bits} {right}, 0")
        safe = f.select(zero, bits, "1", right)
        overflow = ""
        if signed:
            overflow = f.op(f"icmp eq i{bits} {right}, -1")
            safe = f.select(overflow, bits, "1", safe)
        name = ("s" if signed else "u") + ("div" if op == BPF_DIV else "rem")
        result = f.op(f"{name} i{bits} {left}, {safe}")
        if signed:
            by_minus_one = f.op(f"sub i{bits} 0, {left}") if op == BPF_DIV else "0"
            result = f.select(overflow, bits, by_minus_one, result)
        return f.select(zero, bits, "0" if op == BPF_DIV else left, result)

    def _swap(self, pc: int, i: Instruction) -> str:
        """le: truncation on this byte order; be and bswap: the low bytes reversed."""
        if i.imm not in (16, 32, 64):
            raise self.unsupported(pc)
        narrow = self._low(i.dst, i.imm)
        if bpf_class(i.code) == BPF_ALU64 or bpf_src(i.code) == BPF_TO_BE:
            narrow = self.f.bswap(narrow, i.imm)
        return self.f.zext(narrow, i.imm)

    # --- memory ------------------------------------------------------------------------------------------------------
    def _load_class(self, pc: int, i: Instruction) -> None:
        """Class LDX."""
        size = SIZE_BYTES[bpf_size(i.code)]
        bits = 8 * size
        if self.owner.facts(pc).ptr == "untrusted":  # a bad address would be ours
            raise self.unsupported(pc)
        if self.is_ctx(pc, i.src):
            self._load_ctx(pc, i)
            return
        value = self.f.load(bits, self.pointer(pc, i.src, i.off, size, READ))
        extend = self.f.sext if bpf_mode(i.code) == BPF_MEMSX else self.f.zext
        self.set(i.dst, extend(value, bits))

    def _load_ctx(self, pc: int, i: Instruction) -> None:
        from netbpf.engine.llvm.context import emit_ctx_load

        value = emit_ctx_load(self, pc, i)
        if value is None:
            self._refuse_ctx(pc, i.src, i.off, SIZE_BYTES[bpf_size(i.code)], READ)
        self.set(i.dst, value or "0")

    def _refuse_ctx(self, pc: int, r: int, off: int, size: int, access: int) -> None:
        """An access to the context that no verifier lets through: a fault, for the context is in no region."""
        if not self.owner.checked:
            raise self.unsupported(pc)
        emit_check(self, pc, self.f.op(f"add i64 {self.get(r)}, {off}"), str(size), access)

    def is_ctx(self, pc: int, r: int) -> bool:
        known = self.known(pc, r)
        return bool(known and known.kind == "ctx") or self.owner.facts(pc).ptr == "ctx"

    def _store(self, pc: int, i: Instruction) -> None:
        """Class ST, and STX without ATOMIC."""
        size = SIZE_BYTES[bpf_size(i.code)]
        bits = 8 * size
        value = signed_text(i.imm, bits) if bpf_class(i.code) == BPF_ST else self.f.trunc(self.get(i.src), bits)
        if self.is_ctx(pc, i.dst):
            from netbpf.engine.llvm.context import emit_ctx_store

            if not emit_ctx_store(self, pc, i, value, bits):
                self._refuse_ctx(pc, i.dst, i.off, size, WRITE)
            return
        self.f.store(bits, value, self.pointer(pc, i.dst, i.off, size, WRITE))

    def _stx(self, pc: int, i: Instruction) -> None:
        if bpf_mode(i.code) == BPF_ATOMIC:
            self._atomic(pc, i)
        else:
            self._store(pc, i)

    def _atomic(self, pc: int, i: Instruction) -> None:
        """One thread runs a map at a time, so plain loads and stores do what the locked ones would."""
        f, size = self.f, SIZE_BYTES[bpf_size(i.code)]
        bits = 8 * size
        if i.imm == BPF_LOAD_ACQ:
            self.set(i.dst, f.zext(f.load(bits, self.pointer(pc, i.src, i.off, size, READ)), bits))
            return
        at = self.pointer(pc, i.dst, i.off, size, WRITE if i.imm == BPF_STORE_REL else ATOMIC)
        operand = f.trunc(self.get(i.src), bits)
        if i.imm == BPF_STORE_REL:
            f.store(bits, operand, at)
            return
        old = f.load(bits, at)
        if i.imm == BPF_CMPXCHG:
            same = f.op(f"icmp eq i{bits} {old}, {self._low(0, bits)}")
            f.store(bits, f.select(same, bits, operand, old), at)
            self.set(0, f.zext(old, bits))
            return
        if i.imm == BPF_XCHG:
            new = operand
        elif i.imm & ~BPF_FETCH in _ATOMIC_BINARY:
            new = f.op(f"{_ATOMIC_BINARY[i.imm & ~BPF_FETCH]} i{bits} {old}, {operand}")
        else:
            raise self.unsupported(pc)
        f.store(bits, new, at)
        if i.imm & BPF_FETCH:
            self.set(i.src, f.zext(old, bits))

    def _ld(self, pc: int, i: Instruction) -> None:
        """Class LD: 64-bit immediates and packet loads."""
        if is_ld_imm64(i.code):
            self._ld_imm64(pc, i)
        elif bpf_mode(i.code) in (BPF_ABS, BPF_IND):
            from netbpf.engine.llvm.packet import emit_packet_load

            if self.owner.checked:
                self._check_r6(pc)
            self.set(0, emit_packet_load(self, i))
            self.clobber()
        else:
            raise self.unsupported(pc)

    def _check_r6(self, pc: int) -> None:
        """A packet load needs the context in R6."""
        f = self.f
        held, good, bad = self.get(6), f.fresh_label("context"), f.fresh_label("other")
        f.cond(f.op(f"icmp eq i64 {held}, {f.op('ptrtoint ptr %meta to i64')}"), good, bad)
        f.label(bad)
        emit_fault(self, pc, FAULT_R6, held)
        f.label(good)

    def clobber(self) -> None:
        """What a call leaves in R1 to R5; no proved program reads it."""
        if self.owner.checked:
            for r in range(1, 6):
                self.set(r, str(CLOBBERED))

    def map_handle(self, index: int) -> str:
        """What a register holds that names a map."""
        table = self.f.op(f"load ptr, ptr {self.f.gep('%a', ARGS['handles'])}, align 8")
        return self.f.load(64, self.f.gep(table, 8 * index), 8)

    def _ld_imm64(self, pc: int, i: Instruction) -> None:
        if i.src == BPF_PSEUDO_MAP_IDX:
            value = self.map_handle(i.imm)
        elif i.src == BPF_PSEUDO_MAP_IDX_VALUE:
            value = self.f.op(f"ptrtoint ptr {self.f.gep(f'%m{i.imm}', self.insns[pc + 1].imm)} to i64")
        elif i.src == BPF_PSEUDO_FUNC:
            value = str(FUNC_TAG | self.owner.start_of[pc + 1 + i.imm])
        elif i.src == 0:
            value = signed_text(imm64(i, self.insns[pc + 1]), 64)
        else:
            raise self.unsupported(pc)
        self.set(i.dst, value)

    # --- jumps -------------------------------------------------------------------------------------------------------
    def _jmp(self, pc: int, i: Instruction) -> None:
        op, cls = bpf_op(i.code), bpf_class(i.code)
        target = jump_target(pc, i)
        if not self.owner.program.proved and target is not None and target <= pc:
            emit_budget(self, pc)
        if op == BPF_JA:
            self.f.br(f"pc{pc + 1 + (i.imm if cls == BPF_JMP32 else i.off)}")
        elif op == BPF_CALL:
            self._call(pc, i)
        elif op == BPF_EXIT:
            self.leave(self.get(0))
        elif op == BPF_JCOND:
            self._may_goto(pc, i)
        else:
            self._branch(pc, i, op, 64 if cls == BPF_JMP else 32)

    def _branch(self, pc: int, i: Instruction, op: int, bits: int) -> None:
        if pc - 1 in self.tallies:
            self._tally(self.tallies[pc - 1])
            return
        self.f.cond(self.test(pc, i, op, bits), f"pc{pc + 1 + i.off}", f"pc{pc + 1}")

    def spare(self) -> str:
        """Where the value is that nobody looks at."""
        return self.f.op(f"ptrtoint ptr {self.f.gep('%a', SPARE_AT)} to i64")

    def _tally(self, t: Tally) -> None:
        """What is done to a value that was found, or for nothing: then R0 is 0 behind it, and what it wrote is as before."""
        f = self.f
        nothing = f.test("eq", self.get(0), self.spare())
        before = {0: "0", **{r: self.get(r) for r in t.written}}
        for pc in range(t.test + 1, t.end):
            if pc in self.states:
                self._insn(pc)
        for r, value in before.items():
            self.set(r, f.unforeseen(nothing, 64, value, self.get(r)))
        f.br(f"pc{t.end}")

    def test(self, pc: int, i: Instruction, op: int, bits: int) -> str:
        """i1: whether a conditional jump is taken."""
        f, left, right = self.f, self._low(i.dst, bits), self._source(i, bits)
        if op == BPF_JSET:
            return f.op(f"icmp ne i{bits} {f.op(f'and i{bits} {left}, {right}')}, 0")
        if op in _COMPARE:
            return f.op(f"icmp {_COMPARE[op]} i{bits} {left}, {right}")
        raise self.unsupported(pc)

    def _may_goto(self, pc: int, i: Instruction) -> None:
        f = self.f
        left = f.load(64, "%goto_budget", 8)
        f.store(64, f.op(f"sub i64 {left}, 1"), "%goto_budget", 8)
        f.cond(f.op(f"icmp eq i64 {left}, 0"), f"pc{pc + 1 + i.off}", f"pc{pc + 1}")

    def _call(self, pc: int, i: Instruction) -> None:
        if i.src == BPF_PSEUDO_CALL:
            self.set(0, self.call_subprog(pc, self.owner.start_of[pc + 1 + i.imm], [self.get(r) for r in range(1, 6)]))
            self.leave_on_fault()
        elif i.src == 0:
            from netbpf.engine.llvm.helpers import emit_call_register, emit_helper

            if bpf_src(i.code) == BPF_X:
                emit_call_register(self, pc, i.dst)
            else:
                emit_helper(self, pc, i.imm)
            self.clobber()
        else:
            raise self.unsupported(pc)

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


_CLASSES: Final[dict[int, str]] = {
    BPF_ALU: "_alu", BPF_ALU64: "_alu", BPF_LDX: "_load_class", BPF_ST: "_store", BPF_STX: "_stx", BPF_LD: "_ld",
    BPF_JMP: "_jmp", BPF_JMP32: "_jmp",
}  # fmt: skip
