"""A filter without branches: every test is made, and what each says is put together.

Which way a filter goes differs from packet to packet, and each guess of the processor that fails costs as much as a dozen
tests. So a short program that does nothing but decide (it loads from the packet and the context, calculates, jumps forwards,
returns) becomes one straight piece of code. For every instruction a bit tells whether the program would have come there; where
ways meet, it selects what registers hold. The verdict is that of the exit that the program would have come to. Loads are made
in any case, so they must be harmless: packets that end before a place that the program states run through the ordinary code,
and a load from a place that is known at run time only is made elsewhere if that lies outside.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from netbpf.engine.llvm.flow import successors
from netbpf.engine.llvm.instructions import SubprogLowerer
from netbpf.engine.llvm.lowerer import Lowerer
from netbpf.engine.llvm.packet import MAC_BYTES, bytes_at
from netbpf.ints import s32, u32
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import (
    BPF_ABS,
    BPF_ADD,
    BPF_ALU,
    BPF_ALU64,
    BPF_AND,
    BPF_CALL,
    BPF_DIV,
    BPF_END,
    BPF_EXIT,
    BPF_IND,
    BPF_JA,
    BPF_JCOND,
    BPF_JMP,
    BPF_JMP32,
    BPF_LD,
    BPF_LDX,
    BPF_LSH,
    BPF_MOD,
    BPF_MOV,
    BPF_RSH,
    BPF_X,
    SIZE_BYTES,
    bpf_class,
    bpf_mode,
    bpf_op,
    bpf_size,
    bpf_src,
    is_ld_imm64,
)

MOST_INSNS: Final = 40
LEAST_BYTES: Final = MAC_BYTES + 4  # what is read in place of a load outside the packet
REGISTERS: Final = 10  # but the frame pointer
TOP: Final = (1 << 64) - 1


class _Undecided(Exception):
    """The program does more than decide, or loads from where nobody knows."""


class _Way(NamedTuple):
    """How control comes to an instruction: a bit (i1), and what registers hold then."""

    taken: str
    regs: tuple[str, ...]


class _Careful(SubprogLowerer):
    """The ordinary code, for packets that are too short."""

    def _head(self) -> str:
        return f"define internal i64 @careful({self.owner.around.main_params}) noinline cold minsize optsize nounwind"


class Decider(SubprogLowerer):
    """``@prog`` of a program that does nothing but decide."""

    def __init__(self, owner: Lowerer) -> None:
        super().__init__(owner, 0)
        self._ways: dict[int, list[_Way]] = {}
        self._way = _Way("true", ("0",) * REGISTERS)
        self._most: dict[str, int] = {}  # what values are at most
        self._result = "0"

    @property
    def reach(self) -> int:
        """How many bytes of the packet the loads take for granted whose offsets the program states."""
        loads = [self.insns[pc] for pc in self.states if bpf_class(self.insns[pc].code) == BPF_LD]
        ends = [s32(i.imm) + SIZE_BYTES[bpf_size(i.code)] for i in loads if bpf_mode(i.code) == BPF_ABS]
        return max(LEAST_BYTES, *ends, 0)

    def text(self) -> str:
        f = self.f
        f.cond(f.op(f"call i1 @llvm.expect.i1(i1 {f.op(f'icmp sge i64 %cap, {self.reach}')}, i1 true)"), "whole", "short")
        f.label("short")
        f.ret(f"i64 {f.op(f'call i64 @careful({self.owner.around.passed})')}")
        f.label("whole")
        self._go(self.subprog.start, "true", ("0", f.op("ptrtoint ptr %meta to i64"), *("0",) * (REGISTERS - 2)))
        for pc in sorted(self.states):
            self._way = self._meet(self._ways[pc])
            self._insn(pc)
            i = self.insns[pc]
            if bpf_class(i.code) not in (BPF_JMP, BPF_JMP32):
                self._go(next(iter(successors(self.insns, pc))), *self._way)
        f.ret(f"i64 {self._result}")
        return f.text()

    # --- ways ------------------------------------------------------------------------------------------------------------
    def _go(self, pc: int, taken: str, regs: tuple[str, ...]) -> None:
        self._ways.setdefault(pc, []).append(_Way(taken, regs))

    def _meet(self, ways: list[_Way]) -> _Way:
        taken, regs = ways[0]
        for way in ways[1:]:
            regs = tuple(self._either(way.taken, new, old) for new, old in zip(way.regs, regs, strict=True))
            taken = self.f.op(f"or i1 {taken}, {way.taken}")
        return _Way(taken, regs)

    def _either(self, test: str, yes: str, no: str) -> str:
        if yes == no:
            return yes
        value = self.f.select(test, 64, yes, no)
        self._most[value] = max(self._bound(yes), self._bound(no))
        return value

    def _and(self, left: str, right: str) -> str:
        return right if left == "true" else self.f.op(f"and i1 {left}, {right}")

    def _not(self, test: str) -> str:
        return self.f.op(f"xor i1 {test}, true")

    # --- registers ---------------------------------------------------------------------------------------------------------
    def get(self, r: int) -> str:
        return self._way.regs[r]

    def set(self, r: int, value: str) -> None:
        regs = self._way.regs
        self._way = self._way._replace(regs=(*regs[:r], value, *regs[r + 1 :]))

    def _bound(self, value: str) -> int:
        return self._most.get(value, TOP) if value.startswith("%") else int(value) & TOP

    # --- instructions --------------------------------------------------------------------------------------------------------
    def _alu(self, pc: int, i: Instruction) -> None:
        most = self._most_of(i)
        super()._alu(pc, i)
        value = self.get(i.dst)
        if value.startswith("%"):
            self._most[value] = min(self._most.get(value, TOP), most)

    def _most_of(self, i: Instruction) -> int:
        """What the result of a calculation is at most."""
        top = TOP if bpf_class(i.code) == BPF_ALU64 else 0xFFFF_FFFF
        op, left = bpf_op(i.code), self._bound(self.get(i.dst))
        right = self._bound(self.get(i.src)) if bpf_src(i.code) == BPF_X else i.imm & top
        if op == BPF_MOV and not i.off:
            return min(right, top)
        if op == BPF_ADD and left + right <= top:
            return left + right
        if op == BPF_AND:
            return min(left, right, top)
        if op == BPF_LSH and bpf_src(i.code) != BPF_X and left << i.imm <= top:
            return left << i.imm
        if op == BPF_RSH and bpf_src(i.code) != BPF_X and left <= top:
            return left >> i.imm
        return top

    def _load_class(self, pc: int, i: Instruction) -> None:
        super()._load_class(pc, i)
        self._note(i.dst, SIZE_BYTES[bpf_size(i.code)])

    def _note(self, r: int, size: int) -> None:
        value = self.get(r)
        if value.startswith("%") and value != "%len":
            self._most[value] = (1 << 8 * size) - 1

    def _ld(self, pc: int, i: Instruction) -> None:
        if is_ld_imm64(i.code):
            super()._ld(pc, i)
            return
        f, size = self.f, SIZE_BYTES[bpf_size(i.code)]
        if bpf_mode(i.code) == BPF_ABS:
            raw = bytes_at(self, s32(i.imm), size)
        else:
            raw = self._load_indirect(i, size)
        self.set(0, f.zext(f.bswap(raw, 8 * size), 8 * size))
        self._note(0, size)

    def _load_indirect(self, i: Instruction, size: int) -> str:
        f, x, off = self.f, self.get(i.src), u32(i.imm)
        if self._bound(x) + off >= 1 << 31 or off < MAC_BYTES:
            raise _Undecided
        at = f.math("add", x, off) if off else x
        inside = f.op(f"icmp sle i64 {f.math('add', at, size)}, %cap")
        self._way = self._way._replace(taken=self._and(self._way.taken, inside))  # else the program ends there, with 0
        return f.load(8 * size, f.gep("%pkt", f.select(inside, 64, at, str(MAC_BYTES))))

    def _jmp(self, pc: int, i: Instruction) -> None:
        taken, regs = self._way
        op = bpf_op(i.code)
        if op == BPF_EXIT:
            if self.get(0) != "0":  # what no other exit makes of it
                self._result = self._either(taken, self.get(0), self._result) if taken != "true" else self.get(0)
        elif op == BPF_JA:
            self._go(next(iter(successors(self.insns, pc))), taken, regs)
        else:
            test = self.test(pc, i, op, 64 if bpf_class(i.code) == BPF_JMP else 32)
            self._go(pc + 1 + i.off, self._and(taken, test), regs)
            self._go(pc + 1, self._and(taken, self._not(test)), regs)


def decider(owner: Lowerer) -> str:
    """``@prog`` without branches, and ``@careful``; "" for a program that does more than decide, or would take long to."""
    if owner.may_fault or len(owner.subprogs) != 1 or not owner.program.proved:
        return ""
    d = Decider(owner)
    if len(d.states) > MOST_INSNS or not all(_is_pure(d, pc) for pc in d.states):
        return ""
    try:
        return d.text() + "\n" + _Careful(owner, 0).text()
    except _Undecided:
        return ""


def _is_pure(d: Decider, pc: int) -> bool:
    """Whether an instruction may be made though the program would not have come to it."""
    i = d.insns[pc]
    cls, op = bpf_class(i.code), bpf_op(i.code)
    if not d.owner.facts(pc).seen or i.dst >= REGISTERS or i.src >= REGISTERS:
        return False
    if cls in (BPF_ALU, BPF_ALU64):
        return op not in (BPF_DIV, BPF_MOD) and (op != BPF_END or i.imm in (16, 32, 64))
    if cls == BPF_LDX:
        return d.is_ctx(pc, i.src)
    if cls == BPF_LD:
        return i.src == 0 if is_ld_imm64(i.code) else bpf_mode(i.code) == BPF_IND or s32(i.imm) >= 0
    return cls in (BPF_JMP, BPF_JMP32) and op not in (BPF_CALL, BPF_JCOND) and all(t > pc for t in successors(d.insns, pc))
