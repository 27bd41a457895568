"""JMP and JMP32 without calls: conditions, jumps, may_goto.

A comparison is a function of two unsigned numbers. Signed ones use that two's complement numbers with the sign bit flipped
compare as unsigned ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import and_, eq, ge, gt, le, lt, ne
from typing import Final

from netbpf.engine.interp.machine import BPF_MAX_LOOPS, Op, Regs
from netbpf.engine.interp.site import Maker, Site
from netbpf.ints import U32_MAX, u32, u64
from netbpf.isa import opcodes as op

Compare = Callable[[int, int], int]

UNSIGNED: Final[dict[int, Compare]] = {
    op.BPF_JEQ: eq,
    op.BPF_JNE: ne,
    op.BPF_JGT: gt,
    op.BPF_JGE: ge,
    op.BPF_JLT: lt,
    op.BPF_JLE: le,
    op.BPF_JSET: and_,
}
SIGNED: Final[dict[int, Compare]] = {op.BPF_JSGT: gt, op.BPF_JSGE: ge, op.BPF_JSLT: lt, op.BPF_JSLE: le}
SIGN64: Final = 1 << 63
SIGN32: Final = 1 << 31


# --- if dst OP src, if dst OP imm -------------------------------------------------------------------------------------
def unsigned64_x(site: Site) -> Op:
    dst, src, next_pc, taken = site.insn.dst, site.insn.src, site.next_pc, site.target(site.insn.off)
    holds = UNSIGNED[op.bpf_op(site.insn.code)]

    def run(regs: Regs) -> int:
        return taken if holds(regs[dst], regs[src]) else next_pc

    return run


def unsigned64_k(site: Site) -> Op:
    dst, imm, next_pc, taken = site.insn.dst, u64(site.insn.imm), site.next_pc, site.target(site.insn.off)
    holds = UNSIGNED[op.bpf_op(site.insn.code)]

    def run(regs: Regs) -> int:
        return taken if holds(regs[dst], imm) else next_pc

    return run


def unsigned32_x(site: Site) -> Op:
    dst, src, next_pc, taken = site.insn.dst, site.insn.src, site.next_pc, site.target(site.insn.off)
    holds = UNSIGNED[op.bpf_op(site.insn.code)]

    def run(regs: Regs) -> int:
        return taken if holds(regs[dst] & U32_MAX, regs[src] & U32_MAX) else next_pc

    return run


def unsigned32_k(site: Site) -> Op:
    dst, imm, next_pc, taken = site.insn.dst, u32(site.insn.imm), site.next_pc, site.target(site.insn.off)
    holds = UNSIGNED[op.bpf_op(site.insn.code)]

    def run(regs: Regs) -> int:
        return taken if holds(regs[dst] & U32_MAX, imm) else next_pc

    return run


def signed64_x(site: Site) -> Op:
    dst, src, next_pc, taken = site.insn.dst, site.insn.src, site.next_pc, site.target(site.insn.off)
    holds = SIGNED[op.bpf_op(site.insn.code)]

    def run(regs: Regs) -> int:
        return taken if holds(regs[dst] ^ SIGN64, regs[src] ^ SIGN64) else next_pc

    return run


def signed64_k(site: Site) -> Op:
    dst, imm, next_pc, taken = site.insn.dst, u64(site.insn.imm) ^ SIGN64, site.next_pc, site.target(site.insn.off)
    holds = SIGNED[op.bpf_op(site.insn.code)]

    def run(regs: Regs) -> int:
        return taken if holds(regs[dst] ^ SIGN64, imm) else next_pc

    return run


def signed32_x(site: Site) -> Op:
    dst, src, next_pc, taken = site.insn.dst, site.insn.src, site.next_pc, site.target(site.insn.off)
    holds = SIGNED[op.bpf_op(site.insn.code)]

    def run(regs: Regs) -> int:
        return taken if holds((regs[dst] & U32_MAX) ^ SIGN32, (regs[src] & U32_MAX) ^ SIGN32) else next_pc

    return run


def signed32_k(site: Site) -> Op:
    dst, imm, next_pc, taken = site.insn.dst, u32(site.insn.imm) ^ SIGN32, site.next_pc, site.target(site.insn.off)
    holds = SIGNED[op.bpf_op(site.insn.code)]

    def run(regs: Regs) -> int:
        return taken if holds((regs[dst] & U32_MAX) ^ SIGN32, imm) else next_pc

    return run


# --- jumps without a condition on registers ----------------------------------------------------------------------------
def goto(site: Site) -> Op:
    return _always(site.target(site.insn.off))


def gotol(site: Site) -> Op:
    return _always(site.target(site.insn.imm))


def _always(taken: int) -> Op:
    def run(regs: Regs) -> int:
        return taken

    return run


def may_goto(site: Site) -> Op:
    """Fall through BPF_MAX_LOOPS times in one call of a subprogram, then jump.

    The kernel of x86 counts time instead (a quarter of a second); here a run must repeat exactly.
    """
    next_pc, taken, loops_left = site.next_pc, site.target(site.insn.off), site.machine.loops_left

    def run(regs: Regs) -> int:
        frame = regs[op.BPF_REG_FP]
        left = loops_left.get(frame, BPF_MAX_LOOPS)
        if not left:
            return taken
        loops_left[frame] = left - 1
        return next_pc

    return run


def _makers() -> dict[int, Maker]:
    """Maker by code."""
    makers: dict[int, Maker] = {
        op.BPF_JMP | op.BPF_JA: goto,
        op.BPF_JMP32 | op.BPF_JA: gotol,
        op.BPF_JMP | op.BPF_JCOND: may_goto,
    }
    for table, x64, k64, x32, k32 in (
        (UNSIGNED, unsigned64_x, unsigned64_k, unsigned32_x, unsigned32_k),
        (SIGNED, signed64_x, signed64_k, signed32_x, signed32_k),
    ):
        for what in table:
            makers[op.BPF_JMP | op.BPF_X | what] = x64
            makers[op.BPF_JMP | op.BPF_K | what] = k64
            makers[op.BPF_JMP32 | op.BPF_X | what] = x32
            makers[op.BPF_JMP32 | op.BPF_K | what] = k32
    return makers


MAKERS: Final = _makers()
