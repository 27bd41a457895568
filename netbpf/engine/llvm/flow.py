"""What every register holds where that is a constant of the program text: fp + offset, a map, a function. Pure dataflow.

A sound, small forward analysis of its own (a meet over all paths of one subprogram), so that stack accesses become fixed
slots and map calls are bound to their map even where the verifier's facts say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from netbpf.ints import s64
from netbpf.isa.instruction import Instruction, Program, imm64
from netbpf.isa.opcodes import (
    BPF_ADD,
    BPF_ALU,
    BPF_ALU64,
    BPF_ATOMIC,
    BPF_CALL,
    BPF_CMPXCHG,
    BPF_EXIT,
    BPF_FETCH,
    BPF_JA,
    BPF_JCOND,
    BPF_JMP,
    BPF_JMP32,
    BPF_K,
    BPF_LD,
    BPF_LDX,
    BPF_LOAD_ACQ,
    BPF_MOV,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_MAP_IDX,
    BPF_STORE_REL,
    BPF_STX,
    BPF_SUB,
    BPF_X,
    bpf_class,
    bpf_mode,
    bpf_op,
    bpf_src,
    is_ld_imm64,
)


class Known(NamedTuple):
    """``kind``: "fp" (value: offset from the frame pointer), "map" (index), "func" (pc), "num" (a 64-bit constant),
    "ctx" (offset from the context)."""

    kind: str
    value: int


Regs = tuple[Known | None, ...]
ENTRY: Regs = (None,) * 10 + (Known("fp", 0),)


def successors(insns: Program, pc: int) -> Iterator[int]:
    """Where control can go after the instruction at ``pc``, within its subprogram."""
    i = insns[pc]
    cls, op = bpf_class(i.code), bpf_op(i.code)
    if is_ld_imm64(i.code):
        yield pc + 2
    elif cls not in (BPF_JMP, BPF_JMP32) or op == BPF_CALL:
        yield pc + 1
    elif op == BPF_EXIT:
        return
    elif op == BPF_JA:
        yield pc + 1 + (i.imm if cls == BPF_JMP32 else i.off)
    else:
        yield pc + 1 + i.off
        yield pc + 1


def called(i: Instruction) -> int:
    """The helper that the instruction calls, else 0."""
    is_call = bpf_class(i.code) == BPF_JMP and bpf_op(i.code) == BPF_CALL
    return i.imm if is_call and i.src == 0 and bpf_src(i.code) != BPF_X else 0


def analyse(insns: Program, start: int, end: int, entry: Regs, ends: Callable[[int], bool]) -> dict[int, Regs]:
    """pc -> what each register is known to hold before it, for every pc reachable from ``start``. Where ``ends`` holds the
    program goes no further, and there may be no instruction."""
    states: dict[int, Regs] = {start: entry}
    work = [start]
    while work:
        pc = work.pop()
        if ends(pc):
            continue
        after = step(insns, pc, states[pc])
        for target in successors(insns, pc):
            if not start <= target < end:
                continue
            old = states.get(target)
            new = after if old is None else tuple(a if a == b else None for a, b in zip(old, after, strict=True))
            if new != old:
                states[target] = new
                work.append(target)
    return states


def step(insns: Program, pc: int, regs: Regs) -> Regs:
    """The registers after the instruction at ``pc``."""
    i = insns[pc]
    out = list(regs)
    cls = bpf_class(i.code)
    if cls in (BPF_ALU, BPF_ALU64):
        out[i.dst] = _alu(i, regs)
    elif is_ld_imm64(i.code):
        out[i.dst] = _imm64(insns, pc)
    elif cls == BPF_LD or (cls == BPF_JMP and bpf_op(i.code) == BPF_CALL):
        out[:6] = [None] * 6
    elif cls == BPF_LDX:
        out[i.dst] = None
    elif cls == BPF_STX and bpf_mode(i.code) == BPF_ATOMIC:
        clobbered = atomic_result(i)
        if clobbered is not None:
            out[clobbered] = None
    elif cls == BPF_JMP and bpf_op(i.code) == BPF_JCOND:
        pass
    return tuple(out)


def atomic_result(i: Instruction) -> int | None:
    """The register that an atomic operation writes, if it writes one."""
    if i.imm == BPF_LOAD_ACQ:
        return i.dst
    if i.imm == BPF_CMPXCHG:
        return 0
    return i.src if i.imm & BPF_FETCH and i.imm != BPF_STORE_REL else None


def _imm64(insns: Program, pc: int) -> Known | None:
    i = insns[pc]
    if i.src == BPF_PSEUDO_MAP_IDX:
        return Known("map", i.imm)
    if i.src == BPF_PSEUDO_FUNC:
        return Known("func", pc + 1 + i.imm)
    return Known("num", imm64(i, insns[pc + 1])) if i.src == 0 else None


def _alu(i: Instruction, regs: Regs) -> Known | None:
    if bpf_class(i.code) == BPF_ALU64 and i.off == 0:
        op, source = bpf_op(i.code), bpf_src(i.code)
        if op == BPF_MOV:
            return regs[i.src] if source == BPF_X else Known("num", i.imm & 0xFFFF_FFFF_FFFF_FFFF)
        if op in (BPF_ADD, BPF_SUB):
            return _add(regs[i.dst], _operand(i, source, regs), -1 if op == BPF_SUB else 1)
    elif bpf_op(i.code) == BPF_MOV and bpf_src(i.code) == BPF_K and i.off == 0:
        return Known("num", i.imm & 0xFFFF_FFFF)
    return None


def _operand(i: Instruction, source: int, regs: Regs) -> int | None:
    if source == BPF_K:
        return i.imm
    known = regs[i.src]
    return s64(known.value) if known and known.kind == "num" else None


def _add(left: Known | None, amount: int | None, sign: int) -> Known | None:
    if left is None or amount is None or left.kind not in ("fp", "num", "ctx"):
        return None
    total = left.value + sign * amount
    return Known(left.kind, total if left.kind != "num" else total & 0xFFFF_FFFF_FFFF_FFFF)


def live_registers(insns: Program, pcs: Collection[int]) -> dict[int, int]:
    """pc -> a mask of the registers R6 to R9 that may be read from there on before they are written, for ``pcs``, all that can
    be reached."""
    live = dict.fromkeys(pcs, 0)
    changed = True
    while changed:
        changed = False
        for pc in sorted(live, reverse=True):
            after = 0
            for target in successors(insns, pc):
                after |= live.get(target, 0)
            read, written = _reads_and_writes(insns[pc])
            mask = (read | after & ~written) & 0b11_1100_0000
            changed = changed or mask != live[pc]
            live[pc] = mask
    return live


def _reads_and_writes(i: Instruction) -> tuple[int, int]:
    """Masks of registers: what an instruction may read, and what it surely writes. What a call reads and writes is left out."""
    cls, op, dst = bpf_class(i.code), bpf_op(i.code), 1 << i.dst
    source = 1 << i.src if cls in (BPF_LDX, BPF_STX) or bpf_src(i.code) == BPF_X else 0
    if is_ld_imm64(i.code):
        return 0, dst
    if cls == BPF_LD:
        return 1 << 6 | 1 << i.src, 0
    if cls == BPF_LDX or (cls in (BPF_ALU, BPF_ALU64) and op == BPF_MOV):
        return source, dst
    if cls in (BPF_JMP, BPF_JMP32) and op in (BPF_JA, BPF_CALL, BPF_EXIT, BPF_JCOND):
        return 0, 0
    return dst | source, 0
