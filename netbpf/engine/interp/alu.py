"""ALU and ALU64: arithmetic on registers. The mathematics is pure functions in two tables; four makers apply them.

Operands of the functions are unsigned views of the instruction's width; their result is cut to that width. A 32-bit result
clears the upper half of the destination.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import add, and_, mul, or_, sub, xor
from typing import Final

from netbpf.engine.interp.machine import Op, Regs
from netbpf.engine.interp.site import Maker, Site
from netbpf.ints import U32_MAX, U64_MAX, bswap, s8, s16, s32, s64, u32, u64
from netbpf.isa import opcodes as op

Binary = Callable[[int, int], int]


# --- the mathematics --------------------------------------------------------------------------------------------------
def div(a: int, b: int) -> int:
    """Unsigned; by zero it is zero."""
    return a // b if b else 0


def mod(a: int, b: int) -> int:
    """Unsigned; by zero it leaves the dividend."""
    return a % b if b else a


def truncated_div(a: int, b: int) -> int:
    """Signed division towards zero; by zero it is zero. The least number by -1 wraps to itself when cut."""
    if not b:
        return 0
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def truncated_mod(a: int, b: int) -> int:
    """Signed remainder with the dividend's sign; by zero it leaves the dividend."""
    if not b:
        return a
    remainder = abs(a) % abs(b)
    return -remainder if a < 0 else remainder


def sdiv64(a: int, b: int) -> int:
    return truncated_div(s64(a), s64(b))


def smod64(a: int, b: int) -> int:
    return truncated_mod(s64(a), s64(b))


def sdiv32(a: int, b: int) -> int:
    return truncated_div(s32(a), s32(b))


def smod32(a: int, b: int) -> int:
    return truncated_mod(s32(a), s32(b))


def lsh64(a: int, b: int) -> int:
    """A shift looks only at as many low bits of its count as the width has."""
    return a << (b & 63)


def rsh64(a: int, b: int) -> int:
    return a >> (b & 63)


def arsh64(a: int, b: int) -> int:
    return s64(a) >> (b & 63)


def lsh32(a: int, b: int) -> int:
    return a << (b & 31)


def rsh32(a: int, b: int) -> int:
    return a >> (b & 31)


def arsh32(a: int, b: int) -> int:
    return s32(a) >> (b & 31)


_COMMON: Final[dict[int, Binary]] = {
    op.BPF_ADD: add,
    op.BPF_SUB: sub,
    op.BPF_MUL: mul,
    op.BPF_DIV: div,
    op.BPF_MOD: mod,
    op.BPF_OR: or_,
    op.BPF_AND: and_,
    op.BPF_XOR: xor,
}
BINARY64: Final[dict[int, Binary]] = _COMMON | {op.BPF_LSH: lsh64, op.BPF_RSH: rsh64, op.BPF_ARSH: arsh64}
BINARY32: Final[dict[int, Binary]] = _COMMON | {op.BPF_LSH: lsh32, op.BPF_RSH: rsh32, op.BPF_ARSH: arsh32}
SIGNED64: Final[dict[int, Binary]] = {op.BPF_DIV: sdiv64, op.BPF_MOD: smod64}
SIGNED32: Final[dict[int, Binary]] = {op.BPF_DIV: sdiv32, op.BPF_MOD: smod32}
SIGN_EXTEND: Final[dict[int, Callable[[int], int]]] = {8: s8, 16: s16, 32: s32}


# --- dst = dst OP src, dst = dst OP imm ------------------------------------------------------------------------------
def binary64_x(site: Site) -> Op:
    dst, src, next_pc = site.insn.dst, site.insn.src, site.next_pc
    apply = _function(site, BINARY64, SIGNED64)

    def run(regs: Regs) -> int:
        regs[dst] = apply(regs[dst], regs[src]) & U64_MAX
        return next_pc

    return run


def binary64_k(site: Site) -> Op:
    dst, imm, next_pc = site.insn.dst, u64(site.insn.imm), site.next_pc
    apply = _function(site, BINARY64, SIGNED64)

    def run(regs: Regs) -> int:
        regs[dst] = apply(regs[dst], imm) & U64_MAX
        return next_pc

    return run


def binary32_x(site: Site) -> Op:
    dst, src, next_pc = site.insn.dst, site.insn.src, site.next_pc
    apply = _function(site, BINARY32, SIGNED32)

    def run(regs: Regs) -> int:
        regs[dst] = apply(regs[dst] & U32_MAX, regs[src] & U32_MAX) & U32_MAX
        return next_pc

    return run


def binary32_k(site: Site) -> Op:
    dst, imm, next_pc = site.insn.dst, u32(site.insn.imm), site.next_pc
    apply = _function(site, BINARY32, SIGNED32)

    def run(regs: Regs) -> int:
        regs[dst] = apply(regs[dst] & U32_MAX, imm) & U32_MAX
        return next_pc

    return run


def _function(site: Site, unsigned: dict[int, Binary], signed: dict[int, Binary]) -> Binary:
    """``off`` 1 makes division and remainder signed."""
    return (signed if site.insn.off == 1 else unsigned)[op.bpf_op(site.insn.code)]


# --- moves ------------------------------------------------------------------------------------------------------------
def mov64_x(site: Site) -> Op:
    dst, src, bits, next_pc = site.insn.dst, site.insn.src, site.insn.off, site.next_pc

    def run(regs: Regs) -> int:
        regs[dst] = regs[src]
        return next_pc

    return _movsx(site, SIGN_EXTEND[bits], U64_MAX) if bits else run


def mov32_x(site: Site) -> Op:
    dst, src, bits, next_pc = site.insn.dst, site.insn.src, site.insn.off, site.next_pc

    def run(regs: Regs) -> int:
        regs[dst] = regs[src] & U32_MAX
        return next_pc

    return _movsx(site, SIGN_EXTEND[bits], U32_MAX) if bits else run


def _movsx(site: Site, extend: Callable[[int], int], mask: int) -> Op:
    dst, src, next_pc = site.insn.dst, site.insn.src, site.next_pc

    def run(regs: Regs) -> int:
        regs[dst] = extend(regs[src]) & mask
        return next_pc

    return run


def mov64_k(site: Site) -> Op:
    return constant(site, u64(site.insn.imm), site.next_pc)


def mov32_k(site: Site) -> Op:
    return constant(site, u32(site.insn.imm), site.next_pc)


def constant(site: Site, value: int, next_pc: int) -> Op:
    """dst = a number known before the run."""
    dst = site.insn.dst

    def run(regs: Regs) -> int:
        regs[dst] = value
        return next_pc

    return run


# --- dst = -dst, byte order ---------------------------------------------------------------------------------------------
def neg(site: Site) -> Op:
    dst, next_pc = site.insn.dst, site.next_pc
    mask = U64_MAX if op.bpf_class(site.insn.code) == op.BPF_ALU64 else U32_MAX

    def run(regs: Regs) -> int:
        regs[dst] = -regs[dst] & mask
        return next_pc

    return run


def to_le(site: Site) -> Op:
    """Programs are little-endian here: only the upper bits go."""
    dst, mask, next_pc = site.insn.dst, (1 << site.insn.imm) - 1, site.next_pc

    def run(regs: Regs) -> int:
        regs[dst] &= mask
        return next_pc

    return run


def to_be_or_bswap(site: Site) -> Op:
    dst, width_bytes, next_pc = site.insn.dst, site.insn.imm // 8, site.next_pc

    def run(regs: Regs) -> int:
        regs[dst] = bswap(regs[dst], width_bytes)
        return next_pc

    return run


def _makers() -> dict[int, Maker]:
    """Maker by code."""
    makers: dict[int, Maker] = {}
    for what in BINARY64:
        makers[op.BPF_ALU64 | op.BPF_X | what] = binary64_x
        makers[op.BPF_ALU64 | op.BPF_K | what] = binary64_k
        makers[op.BPF_ALU | op.BPF_X | what] = binary32_x
        makers[op.BPF_ALU | op.BPF_K | what] = binary32_k
    return makers | {
        op.BPF_ALU64 | op.BPF_X | op.BPF_MOV: mov64_x,
        op.BPF_ALU64 | op.BPF_K | op.BPF_MOV: mov64_k,
        op.BPF_ALU | op.BPF_X | op.BPF_MOV: mov32_x,
        op.BPF_ALU | op.BPF_K | op.BPF_MOV: mov32_k,
        op.BPF_ALU64 | op.BPF_NEG: neg,
        op.BPF_ALU | op.BPF_NEG: neg,
        op.BPF_ALU | op.BPF_END | op.BPF_TO_LE: to_le,
        op.BPF_ALU | op.BPF_END | op.BPF_TO_BE: to_be_or_bswap,
        op.BPF_ALU64 | op.BPF_END: to_be_or_bswap,
    }


MAKERS: Final = _makers()
