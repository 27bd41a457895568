"""What a comparison tells of two scalars: whether it is decided already, and what each outcome proves.

Pure on registers: `is_scalar_branch_taken` reads, `regs_refine_cond_op` narrows two drafts. Pointers are `branch`'s.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Final, NamedTuple

from netbpf.ints import U32_MAX, U64_MAX, s32, s64
from netbpf.isa import opcodes as op
from netbpf.verifier.bounds import __mark_reg_unbounded
from netbpf.verifier.regs import is_reg_const, reg_const_value
from netbpf.verifier.state import RegState, Tnum
from netbpf.verifier.tnum import tnum_and, tnum_intersect, tnum_or, tnum_overlap, tnum_subreg, tnum_with_subreg

NOT_JSET: Final = op.BPF_JSET | 1  # the outcome "no common bit", which no opcode asks for

# a op b  <=>  b FLIP[op] a;  not (a op b)  <=>  a REVERSED[op] b
FLIPPED: Final[dict[int, int]] = {
    op.BPF_JEQ: op.BPF_JEQ,
    op.BPF_JNE: op.BPF_JNE,
    op.BPF_JSET: op.BPF_JSET,
    op.BPF_JGE: op.BPF_JLE,
    op.BPF_JGT: op.BPF_JLT,
    op.BPF_JLE: op.BPF_JGE,
    op.BPF_JLT: op.BPF_JGT,
    op.BPF_JSGE: op.BPF_JSLE,
    op.BPF_JSGT: op.BPF_JSLT,
    op.BPF_JSLE: op.BPF_JSGE,
    op.BPF_JSLT: op.BPF_JSGT,
}
REVERSED: Final[dict[int, int]] = {
    op.BPF_JEQ: op.BPF_JNE,
    op.BPF_JNE: op.BPF_JEQ,
    op.BPF_JSET: NOT_JSET,
    op.BPF_JGE: op.BPF_JLT,
    op.BPF_JLT: op.BPF_JGE,
    op.BPF_JGT: op.BPF_JLE,
    op.BPF_JLE: op.BPF_JGT,
    op.BPF_JSGE: op.BPF_JSLT,
    op.BPF_JSLT: op.BPF_JSGE,
    op.BPF_JSGT: op.BPF_JSLE,
    op.BPF_JSLE: op.BPF_JSGT,
}


class View(NamedTuple):
    """A register's numbers at the width a comparison looks at."""

    bits: Tnum
    umin: int
    umax: int
    smin: int
    smax: int


def _view(reg: RegState, jmp32: bool) -> View:
    if jmp32:
        return View(tnum_subreg(reg.var_off), reg.u32_min_value, reg.u32_max_value, reg.s32_min_value, reg.s32_max_value)
    return View(reg.var_off, reg.umin_value, reg.umax_value, reg.smin_value, reg.smax_value)


def _apart(a: View, b: View) -> bool:
    return a.umin > b.umax or a.umax < b.umin or a.smin > b.smax or a.smax < b.smin


def _equal(reg1: RegState, reg2: RegState, a: View, b: View, jmp32: bool) -> int:
    """1: surely equal, 0: surely different, -1: either."""
    if not a.bits.mask and not b.bits.mask:
        return int(a.bits.value == b.bits.value)
    if not tnum_overlap(a.bits, b.bits) or _apart(a, b):
        return 0
    return 0 if not jmp32 and _apart(_view(reg1, True), _view(reg2, True)) else -1


def _common_bit(a: View, b: View) -> int:
    if b.bits.mask:
        a, b = b, a
    if b.bits.mask:
        return -1
    if a.bits.value & b.bits.value:
        return 1
    return -1 if (a.bits.value | a.bits.mask) & b.bits.value else 0


def _order(surely: bool, never: bool) -> int:
    return 1 if surely else 0 if never else -1


_ORDERS: Final[dict[int, Callable[[View, View], int]]] = {
    op.BPF_JGT: lambda a, b: _order(a.umin > b.umax, a.umax <= b.umin),
    op.BPF_JGE: lambda a, b: _order(a.umin >= b.umax, a.umax < b.umin),
    op.BPF_JLT: lambda a, b: _order(a.umax < b.umin, a.umin >= b.umax),
    op.BPF_JLE: lambda a, b: _order(a.umax <= b.umin, a.umin > b.umax),
    op.BPF_JSGT: lambda a, b: _order(a.smin > b.smax, a.smax <= b.smin),
    op.BPF_JSGE: lambda a, b: _order(a.smin >= b.smax, a.smax < b.smin),
    op.BPF_JSLT: lambda a, b: _order(a.smax < b.smin, a.smin >= b.smax),
    op.BPF_JSLE: lambda a, b: _order(a.smax <= b.smin, a.smin > b.smax),
}


# on two known numbers: u64 or u32, shifted by half the range for the signed ones
_KNOWN: Final[dict[int, Callable[[int, int], bool]]] = {
    op.BPF_JEQ: operator.eq,
    op.BPF_JNE: operator.ne,
    op.BPF_JSET: lambda a, b: a & b != 0,
    op.BPF_JGT: operator.gt,
    op.BPF_JGE: operator.ge,
    op.BPF_JLT: operator.lt,
    op.BPF_JLE: operator.le,
}
_KNOWN_SIGNED: Final[dict[int, Callable[[int, int], bool]]] = {
    op.BPF_JSGT: operator.gt,
    op.BPF_JSGE: operator.ge,
    op.BPF_JSLT: operator.lt,
    op.BPF_JSLE: operator.le,
}


def _known_branch(reg1: RegState, reg2: RegState, opcode: int) -> bool:
    compare = _KNOWN.get(opcode)
    if compare is not None:
        return compare(reg1.umin_value, reg2.umin_value)
    return _KNOWN_SIGNED[opcode](reg1.smin_value, reg2.smin_value)


def is_scalar_branch_taken(reg1: RegState, reg2: RegState, opcode: int, is_jmp32: bool) -> int:
    """1 when ``reg1 op reg2`` holds for every value, 0 when for none, -1 when it depends."""
    if not is_jmp32 and not reg1.var_off.mask and not reg2.var_off.mask:
        return int(_known_branch(reg1, reg2, opcode))
    a, b = _view(reg1, is_jmp32), _view(reg2, is_jmp32)
    if opcode == op.BPF_JEQ:
        return _equal(reg1, reg2, a, b, is_jmp32)
    if opcode == op.BPF_JNE:
        equal = _equal(reg1, reg2, a, b, is_jmp32)
        return equal if equal < 0 else 1 - equal
    if opcode == op.BPF_JSET:
        return _common_bit(a, b)
    return _ORDERS[opcode](a, b)


# --- refinement -------------------------------------------------------------------------------------------------


def _refine_eq(reg1: RegState, reg2: RegState, jmp32: bool) -> None:
    """Each holds what both allow."""
    if jmp32:
        reg1.u32_min_value = reg2.u32_min_value = max(reg1.u32_min_value, reg2.u32_min_value)
        reg1.u32_max_value = reg2.u32_max_value = min(reg1.u32_max_value, reg2.u32_max_value)
        reg1.s32_min_value = reg2.s32_min_value = max(reg1.s32_min_value, reg2.s32_min_value)
        reg1.s32_max_value = reg2.s32_max_value = min(reg1.s32_max_value, reg2.s32_max_value)
        low = tnum_intersect(tnum_subreg(reg1.var_off), tnum_subreg(reg2.var_off))
        reg1.var_off = tnum_with_subreg(reg1.var_off, low)
        reg2.var_off = tnum_with_subreg(reg2.var_off, low)
        return
    reg1.umin_value = reg2.umin_value = max(reg1.umin_value, reg2.umin_value)
    reg1.umax_value = reg2.umax_value = min(reg1.umax_value, reg2.umax_value)
    reg1.smin_value = reg2.smin_value = max(reg1.smin_value, reg2.smin_value)
    reg1.smax_value = reg2.smax_value = min(reg1.smax_value, reg2.smax_value)
    reg1.var_off = reg2.var_off = tnum_intersect(reg1.var_off, reg2.var_off)


def _constant_second(reg1: RegState, reg2: RegState, jmp32: bool) -> tuple[RegState, int] | None:
    """The register to narrow and the constant it is compared with, whichever side that stands on."""
    if not is_reg_const(reg2, jmp32):
        reg1, reg2 = reg2, reg1
    return (reg1, reg_const_value(reg2, jmp32)) if is_reg_const(reg2, jmp32) else None


def _refine_ne(reg1: RegState, reg2: RegState, jmp32: bool) -> None:
    """A bound that is the excluded constant moves by one."""
    pair = _constant_second(reg1, reg2, jmp32)
    if pair is None:
        return
    reg, value = pair
    if jmp32:
        signed = s32(value)
        reg.u32_min_value = reg.u32_min_value + (reg.u32_min_value == value) & U32_MAX
        reg.u32_max_value = reg.u32_max_value - (reg.u32_max_value == value) & U32_MAX
        reg.s32_min_value = s32(reg.s32_min_value + (reg.s32_min_value == signed))
        reg.s32_max_value = s32(reg.s32_max_value - (reg.s32_max_value == signed))
        return
    signed = s64(value)
    reg.umin_value = reg.umin_value + (reg.umin_value == value) & U64_MAX
    reg.umax_value = reg.umax_value - (reg.umax_value == value) & U64_MAX
    reg.smin_value = s64(reg.smin_value + (reg.smin_value == signed))
    reg.smax_value = s64(reg.smax_value - (reg.smax_value == signed))


def _refine_set(reg1: RegState, reg2: RegState, jmp32: bool) -> None:
    """Some common bit: known which only for a constant of one bit."""
    pair = _constant_second(reg1, reg2, jmp32)
    if pair is None or pair[1].bit_count() != 1:
        return
    reg, value = pair
    reg.var_off = tnum_or(reg.var_off, Tnum(value, 0))


def _refine_not_set(reg1: RegState, reg2: RegState, jmp32: bool) -> None:
    """No common bit: every bit of the constant is zero. The ranges are learnt anew from that."""
    pair = _constant_second(reg1, reg2, jmp32)
    if pair is None:
        return
    reg, value = pair
    __mark_reg_unbounded(reg)
    reg.var_off = tnum_and(reg.var_off, Tnum(~value & U64_MAX, 0))


def _refine_le(reg1: RegState, reg2: RegState, jmp32: bool) -> None:
    if jmp32:
        reg1.u32_max_value = min(reg1.u32_max_value, reg2.u32_max_value)
        reg2.u32_min_value = max(reg1.u32_min_value, reg2.u32_min_value)
    else:
        reg1.umax_value = min(reg1.umax_value, reg2.umax_value)
        reg2.umin_value = max(reg1.umin_value, reg2.umin_value)


def _refine_lt(reg1: RegState, reg2: RegState, jmp32: bool) -> None:
    if jmp32:
        reg1.u32_max_value = min(reg1.u32_max_value, reg2.u32_max_value - 1 & U32_MAX)
        reg2.u32_min_value = max(reg1.u32_min_value + 1 & U32_MAX, reg2.u32_min_value)
    else:
        reg1.umax_value = min(reg1.umax_value, reg2.umax_value - 1 & U64_MAX)
        reg2.umin_value = max(reg1.umin_value + 1 & U64_MAX, reg2.umin_value)


def _refine_sle(reg1: RegState, reg2: RegState, jmp32: bool) -> None:
    if jmp32:
        reg1.s32_max_value = min(reg1.s32_max_value, reg2.s32_max_value)
        reg2.s32_min_value = max(reg1.s32_min_value, reg2.s32_min_value)
    else:
        reg1.smax_value = min(reg1.smax_value, reg2.smax_value)
        reg2.smin_value = max(reg1.smin_value, reg2.smin_value)


def _refine_slt(reg1: RegState, reg2: RegState, jmp32: bool) -> None:
    if jmp32:
        reg1.s32_max_value = min(reg1.s32_max_value, s32(reg2.s32_max_value - 1))
        reg2.s32_min_value = max(s32(reg1.s32_min_value + 1), reg2.s32_min_value)
    else:
        reg1.smax_value = min(reg1.smax_value, s64(reg2.smax_value - 1))
        reg2.smin_value = max(s64(reg1.smin_value + 1), reg2.smin_value)


_Refine = Callable[[RegState, RegState, bool], None]
_REFINE: Final[dict[int, _Refine]] = {
    op.BPF_JEQ: _refine_eq,
    op.BPF_JNE: _refine_ne,
    op.BPF_JSET: _refine_set,
    NOT_JSET: _refine_not_set,
    op.BPF_JLE: _refine_le,
    op.BPF_JLT: _refine_lt,
    op.BPF_JSLE: _refine_sle,
    op.BPF_JSLT: _refine_slt,
}


def regs_refine_cond_op(reg1: RegState, reg2: RegState, opcode: int, is_jmp32: bool) -> None:
    """Narrow two drafts (possibly the same object) by ``reg1 op reg2`` being true. Not synchronised yet."""
    refine = _REFINE.get(opcode)
    if refine is None:
        _REFINE[FLIPPED[opcode]](reg2, reg1, is_jmp32)
    else:
        refine(reg1, reg2, is_jmp32)
