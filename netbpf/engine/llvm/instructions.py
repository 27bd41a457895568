"""eBPF -> LLVM: the code of each instruction. Registers are i64 slots of ``subprog``; pointers are addresses.

Knows the program, its facts and its maps' shapes (``lowerer``); not where packets come from (``loop``) nor how code is made
(``compile``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netbpf.engine.llvm.checks import (
    ATOMIC,
    FAULT_DEAD,
    FAULT_INSN,
    FAULT_R6,
    READ,
    WRITE,
    emit_budget,
    emit_check,
    emit_fault,
)
from netbpf.engine.llvm.ir import signed_text
from netbpf.engine.llvm.subprog import FUNC_TAG, SubprogCode
from netbpf.isa.cfg import jump_target
from netbpf.isa.instruction import Instruction, imm64
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
    SIZE_BYTES,
    bpf_class,
    bpf_mode,
    bpf_op,
    bpf_size,
    bpf_src,
    is_ld_imm64,
)

if TYPE_CHECKING:
    from netbpf.engine.llvm.tally import Tally

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

class SubprogLowerer(SubprogCode):
    """One subprogram with the code of its instructions."""

    def _insn(self, pc: int) -> None:
        i = self.insns[pc]
        if not self.ends(pc):
            getattr(self, _CLASSES[bpf_class(i.code)])(pc, i)
        elif not self.owner.checked:
            self.f.br("abort")
        else:
            emit_fault(self, pc, FAULT_DEAD if self.owner.program.proved else FAULT_INSN)

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

_CLASSES: Final[dict[int, str]] = {
    BPF_ALU: "_alu", BPF_ALU64: "_alu", BPF_LDX: "_load_class", BPF_ST: "_store", BPF_STX: "_stx", BPF_LD: "_ld",
    BPF_JMP: "_jmp", BPF_JMP32: "_jmp",
}  # fmt: skip
