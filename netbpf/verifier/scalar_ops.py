"""What an ALU operation does to the numbers of a scalar: one transfer function per operation and width.

Pure arithmetic on register drafts: ``dst`` is changed, ``src`` is only read, neither stands in a state. A 32-bit
operation computes the low half; the caller then zero-extends (`adjust_scalar_numbers` does both). Results are bounds
before synchronisation; `reg_bounds_sync` carries them across.

Each function sees the numbers the kernel's function of that name sees, at the same moment: whether known bits are
computed before or after the bounds shows in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Final

from netbpf.ints import S32_MAX, S32_MIN, S64_MAX, S64_MIN, U32_MAX, U64_MAX, s32, s64
from netbpf.isa import opcodes as op
from netbpf.verifier.bounds import (
    __mark_reg32_unbounded,
    __mark_reg64_unbounded,
    __mark_reg_unbounded,
    __update_reg32_bounds,
    __update_reg_bounds,
    reg_bounds_sync,
)
from netbpf.verifier.regs import __mark_reg32_known, __mark_reg_known, coerce_reg_to_size, zext_32_to_64
from netbpf.verifier.state import RegState, Tnum
from netbpf.verifier.tnum import (
    tnum_add,
    tnum_and,
    tnum_arshift,
    tnum_bswap,
    tnum_lshift,
    tnum_mul,
    tnum_neg,
    tnum_or,
    tnum_rshift,
    tnum_sub,
    tnum_subreg,
    tnum_xor,
)

Range = tuple[int, int]


# --- interval arithmetic, parameterised by the type's limits ----------------------------------------------------


def _signed_or_any(lo: int, hi: int, type_min: int, type_max: int) -> Range:
    """lo..hi, or the whole signed type where an end does not fit."""
    if lo < type_min or lo > type_max or hi < type_min or hi > type_max:
        return type_min, type_max
    return lo, hi


def _wrapped_or_any(lo: int, hi: int, type_max: int) -> Range:
    """lo..hi modulo the unsigned type when both ends leave it equally often, else the whole type."""
    if (lo < 0) == (hi < 0) and (lo > type_max) == (hi > type_max):
        return lo & type_max, hi & type_max
    return 0, type_max


def scalar32_min_max_add(dst: RegState, src: RegState) -> None:
    dst.s32_min_value, dst.s32_max_value = _signed_or_any(
        dst.s32_min_value + src.s32_min_value, dst.s32_max_value + src.s32_max_value, S32_MIN, S32_MAX
    )
    dst.u32_min_value, dst.u32_max_value = _wrapped_or_any(
        dst.u32_min_value + src.u32_min_value, dst.u32_max_value + src.u32_max_value, U32_MAX
    )


def scalar_min_max_add(dst: RegState, src: RegState) -> None:
    dst.smin_value, dst.smax_value = _signed_or_any(
        dst.smin_value + src.smin_value, dst.smax_value + src.smax_value, S64_MIN, S64_MAX
    )
    dst.umin_value, dst.umax_value = _wrapped_or_any(dst.umin_value + src.umin_value, dst.umax_value + src.umax_value, U64_MAX)


def scalar32_min_max_sub(dst: RegState, src: RegState) -> None:
    dst.s32_min_value, dst.s32_max_value = _signed_or_any(
        dst.s32_min_value - src.s32_max_value, dst.s32_max_value - src.s32_min_value, S32_MIN, S32_MAX
    )
    dst.u32_min_value, dst.u32_max_value = _wrapped_or_any(
        dst.u32_min_value - src.u32_max_value, dst.u32_max_value - src.u32_min_value, U32_MAX
    )


def scalar_min_max_sub(dst: RegState, src: RegState) -> None:
    dst.smin_value, dst.smax_value = _signed_or_any(
        dst.smin_value - src.smax_value, dst.smax_value - src.smin_value, S64_MIN, S64_MAX
    )
    dst.umin_value, dst.umax_value = _wrapped_or_any(dst.umin_value - src.umax_value, dst.umax_value - src.umin_value, U64_MAX)


def _products(a: Range, b: Range, type_min: int, type_max: int) -> Range:
    """The hull of the four corner products, or the whole type where one of them does not fit."""
    corners = (a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1])
    lo, hi = min(corners), max(corners)
    return (lo, hi) if type_min <= lo and hi <= type_max else (type_min, type_max)


def scalar32_min_max_mul(dst: RegState, src: RegState) -> None:
    dst.u32_min_value, dst.u32_max_value = _products(
        (dst.u32_min_value, dst.u32_max_value), (src.u32_min_value, src.u32_max_value), 0, U32_MAX
    )
    dst.s32_min_value, dst.s32_max_value = _products(
        (dst.s32_min_value, dst.s32_max_value), (src.s32_min_value, src.s32_max_value), S32_MIN, S32_MAX
    )


def scalar_min_max_mul(dst: RegState, src: RegState) -> None:
    dst.umin_value, dst.umax_value = _products((dst.umin_value, dst.umax_value), (src.umin_value, src.umax_value), 0, U64_MAX)
    dst.smin_value, dst.smax_value = _products(
        (dst.smin_value, dst.smax_value), (src.smin_value, src.smax_value), S64_MIN, S64_MAX
    )


# --- bitwise: var_off was computed before -----------------------------------------------------------------------


def _signed_view32(dst: RegState) -> None:
    """Signed bounds by reading the unsigned ones as signed, where they do not cross the sign border."""
    lo, hi = s32(dst.u32_min_value), s32(dst.u32_max_value)
    dst.s32_min_value, dst.s32_max_value = (lo, hi) if lo <= hi else (S32_MIN, S32_MAX)


def _signed_view64(dst: RegState) -> None:
    lo, hi = s64(dst.umin_value), s64(dst.umax_value)
    dst.smin_value, dst.smax_value = (lo, hi) if lo <= hi else (S64_MIN, S64_MAX)


def _known_low_half(dst: RegState, src: RegState) -> bool:
    """Both low halves are known: so is the result's."""
    if (src.var_off.mask | dst.var_off.mask) & U32_MAX:
        return False
    __mark_reg32_known(dst, dst.var_off.value)
    return True


def _known_value(dst: RegState, src: RegState) -> bool:
    if src.var_off.mask or dst.var_off.mask:
        return False
    __mark_reg_known(dst, dst.var_off.value)
    return True


def scalar32_min_max_and(dst: RegState, src: RegState) -> None:
    """At least the bits known to be one, at most the smaller operand."""
    if _known_low_half(dst, src):
        return
    dst.u32_min_value = dst.var_off.value & U32_MAX
    dst.u32_max_value = min(dst.u32_max_value, src.u32_max_value)
    _signed_view32(dst)


def scalar_min_max_and(dst: RegState, src: RegState) -> None:
    if _known_value(dst, src):
        return
    dst.umin_value = dst.var_off.value
    dst.umax_value = min(dst.umax_value, src.umax_value)
    _signed_view64(dst)
    __update_reg_bounds(dst)


def scalar32_min_max_or(dst: RegState, src: RegState) -> None:
    """At least the larger operand, at most every bit that may be one."""
    if _known_low_half(dst, src):
        return
    dst.u32_min_value = max(dst.u32_min_value, src.u32_min_value)
    dst.u32_max_value = (dst.var_off.value | dst.var_off.mask) & U32_MAX
    _signed_view32(dst)


def scalar_min_max_or(dst: RegState, src: RegState) -> None:
    if _known_value(dst, src):
        return
    dst.umin_value = max(dst.umin_value, src.umin_value)
    dst.umax_value = dst.var_off.value | dst.var_off.mask
    _signed_view64(dst)
    __update_reg_bounds(dst)


def scalar32_min_max_xor(dst: RegState, src: RegState) -> None:
    if _known_low_half(dst, src):
        return
    dst.u32_min_value = dst.var_off.value & U32_MAX
    dst.u32_max_value = (dst.var_off.value | dst.var_off.mask) & U32_MAX
    _signed_view32(dst)


def scalar_min_max_xor(dst: RegState, src: RegState) -> None:
    if _known_value(dst, src):
        return
    dst.umin_value = dst.var_off.value
    dst.umax_value = dst.var_off.value | dst.var_off.mask
    _signed_view64(dst)
    __update_reg_bounds(dst)


# --- shifts by a known amount below the width -------------------------------------------------------------------


def __scalar32_min_max_lsh(dst: RegState, shift: int) -> None:
    """Bounds move up unless the top bit may be shifted out; what the sign becomes only the known bits tell."""
    dst.s32_min_value, dst.s32_max_value = S32_MIN, S32_MAX
    if shift > 31 or dst.u32_max_value > 1 << 31 - shift:
        dst.u32_min_value, dst.u32_max_value = 0, U32_MAX
    else:
        dst.u32_min_value <<= shift
        dst.u32_max_value <<= shift


def __scalar64_min_max_lsh(dst: RegState, shift: int) -> None:
    """As for 32 bits; but << 32, half of a sign extension, turns the low half's signed bounds into the whole's."""
    if shift == 32:
        dst.smin_value, dst.smax_value = dst.s32_min_value << 32, dst.s32_max_value << 32
    else:
        dst.smin_value, dst.smax_value = S64_MIN, S64_MAX
    if dst.umax_value > 1 << 63 - shift:
        dst.umin_value, dst.umax_value = 0, U64_MAX
    else:
        dst.umin_value <<= shift
        dst.umax_value <<= shift


def scalar32_min_max_lsh(dst: RegState, src: RegState) -> None:
    shift = src.u32_min_value
    __scalar32_min_max_lsh(dst, shift)
    dst.var_off = tnum_subreg(tnum_lshift(dst.var_off, shift))
    __mark_reg64_unbounded(dst)
    __update_reg32_bounds(dst)


def scalar_min_max_lsh(dst: RegState, src: RegState) -> None:
    shift = src.umin_value
    __scalar64_min_max_lsh(dst, shift)
    __scalar32_min_max_lsh(dst, shift)
    dst.var_off = tnum_lshift(dst.var_off, shift)
    __update_reg_bounds(dst)


def scalar32_min_max_rsh(dst: RegState, src: RegState) -> None:
    shift = src.u32_min_value
    dst.s32_min_value, dst.s32_max_value = S32_MIN, S32_MAX
    dst.var_off = tnum_rshift(tnum_subreg(dst.var_off), shift)
    dst.u32_min_value >>= shift
    dst.u32_max_value >>= shift
    __mark_reg64_unbounded(dst)
    __update_reg32_bounds(dst)


def scalar_min_max_rsh(dst: RegState, src: RegState) -> None:
    shift = src.umin_value
    dst.smin_value, dst.smax_value = S64_MIN, S64_MAX
    dst.var_off = tnum_rshift(dst.var_off, shift)
    dst.umin_value >>= shift
    dst.umax_value >>= shift
    __mark_reg32_unbounded(dst)
    __update_reg_bounds(dst)


def scalar32_min_max_arsh(dst: RegState, src: RegState) -> None:
    shift = src.u32_min_value
    dst.s32_min_value >>= shift
    dst.s32_max_value >>= shift
    dst.var_off = tnum_arshift(tnum_subreg(dst.var_off), shift, 32)
    dst.u32_min_value, dst.u32_max_value = 0, U32_MAX
    __mark_reg64_unbounded(dst)
    __update_reg32_bounds(dst)


def scalar_min_max_arsh(dst: RegState, src: RegState) -> None:
    shift = src.umin_value
    dst.smin_value >>= shift
    dst.smax_value >>= shift
    dst.var_off = tnum_arshift(dst.var_off, shift, 64)
    dst.umin_value, dst.umax_value = 0, U64_MAX
    __mark_reg32_unbounded(dst)
    __update_reg_bounds(dst)


# --- one operation ----------------------------------------------------------------------------------------------

Transfer = Callable[[RegState, RegState], None]
TnumOp = Callable[[Tnum, Tnum], Tnum]


def _bounds_then_bits(low: Transfer, whole: Transfer, bits: TnumOp) -> Transfer:
    def transfer(dst: RegState, src: RegState) -> None:
        low(dst, src)
        whole(dst, src)
        dst.var_off = bits(dst.var_off, src.var_off)

    return transfer


def _bits_then_bounds(low: Transfer, whole: Transfer, bits: TnumOp) -> Transfer:
    def transfer(dst: RegState, src: RegState) -> None:
        dst.var_off = bits(dst.var_off, src.var_off)
        low(dst, src)
        whole(dst, src)

    return transfer


def _neg(dst: RegState, src: RegState) -> None:
    """0 - dst; ``src`` is the old dst."""
    __mark_reg_known(dst, 0)
    scalar32_min_max_sub(dst, src)
    scalar_min_max_sub(dst, src)
    dst.var_off = tnum_neg(src.var_off)


# op -> (transfer of ALU, transfer of ALU64)
_TRANSFERS: Final[dict[int, tuple[Transfer, Transfer]]] = {
    **{
        code: (both, both)
        for code, both in (
            (op.BPF_ADD, _bounds_then_bits(scalar32_min_max_add, scalar_min_max_add, tnum_add)),
            (op.BPF_SUB, _bounds_then_bits(scalar32_min_max_sub, scalar_min_max_sub, tnum_sub)),
            (op.BPF_NEG, _neg),
            (op.BPF_MUL, _bits_then_bounds(scalar32_min_max_mul, scalar_min_max_mul, tnum_mul)),
            (op.BPF_AND, _bits_then_bounds(scalar32_min_max_and, scalar_min_max_and, tnum_and)),
            (op.BPF_OR, _bits_then_bounds(scalar32_min_max_or, scalar_min_max_or, tnum_or)),
            (op.BPF_XOR, _bits_then_bounds(scalar32_min_max_xor, scalar_min_max_xor, tnum_xor)),
        )
    },
    op.BPF_LSH: (scalar32_min_max_lsh, scalar_min_max_lsh),
    op.BPF_RSH: (scalar32_min_max_rsh, scalar_min_max_rsh),
    op.BPF_ARSH: (scalar32_min_max_arsh, scalar_min_max_arsh),
}
_SHIFTS: Final = frozenset({op.BPF_LSH, op.BPF_RSH, op.BPF_ARSH})


def is_safe_to_compute_dst_reg_range(opcode: int, alu32: bool, src: RegState) -> bool:
    """Whether the operation has a transfer function for this source: shifts only by a known amount below the width."""
    if opcode not in _SHIFTS:
        return opcode in _TRANSFERS
    if alu32:
        known = (
            not src.var_off.mask & U32_MAX and src.u32_min_value == src.u32_max_value and src.s32_min_value == src.s32_max_value
        )
    else:
        known = not src.var_off.mask and src.umin_value == src.umax_value and src.smin_value == src.smax_value
    return known and src.umax_value < (32 if alu32 else 64)


Numbers = tuple[Tnum, int, int, int, int, int, int, int, int]
_numbers_of: Final[Callable[[RegState], Numbers]] = attrgetter(
    "var_off",
    "smin_value",
    "smax_value",
    "umin_value",
    "umax_value",
    "s32_min_value",
    "s32_max_value",
    "u32_min_value",
    "u32_max_value",
)


def _set_numbers(reg: RegState, numbers: Numbers) -> None:
    reg.var_off, reg.smin_value, reg.smax_value, reg.umin_value, reg.umax_value = numbers[:5]
    reg.s32_min_value, reg.s32_max_value, reg.u32_min_value, reg.u32_max_value = numbers[5:]


@lru_cache(maxsize=1 << 15)
def _result(opcode: int, alu32: bool, left: Numbers, right: Numbers) -> Numbers:
    dst, src = RegState(), RegState()
    _set_numbers(dst, left)
    _set_numbers(src, right)
    _TRANSFERS[opcode][0 if alu32 else 1](dst, src)
    if alu32:
        zext_32_to_64(dst)
    reg_bounds_sync(dst)
    return _numbers_of(dst)


def adjust_scalar_numbers(opcode: int, alu32: bool, dst: RegState, src: RegState) -> None:
    """``dst = dst op src`` on a draft, synchronised. The operation must be safe to compute. Remembered by value."""
    _set_numbers(dst, _result(opcode, alu32, _numbers_of(dst), _numbers_of(src)))


def scalar_byte_swap(dst: RegState, size: int, swap: bool) -> None:
    """A draft keeps its low ``size`` bytes, reversed where ``swap``; all 8 as they are keep the id too."""
    if swap or size < 8:
        dst.id = dst.off = 0
    if swap:
        dst.var_off = tnum_bswap(dst.var_off, size)
        __mark_reg_unbounded(dst)
    if size < 8:
        coerce_reg_to_size(dst, size)
    reg_bounds_sync(dst)


# --- known operands ---------------------------------------------------------------------------------------------

_CONCRETE: Final[dict[int, Callable[[int, int], int]]] = {
    op.BPF_ADD: lambda a, b: a + b,
    op.BPF_SUB: lambda a, b: a - b,
    op.BPF_MUL: lambda a, b: a * b,
    op.BPF_AND: lambda a, b: a & b,
    op.BPF_OR: lambda a, b: a | b,
    op.BPF_XOR: lambda a, b: a ^ b,
    op.BPF_LSH: lambda a, b: a << b,
    op.BPF_RSH: lambda a, b: a >> b,
    op.BPF_ARSH: lambda a, b: a >> b,
}
FOLDED: Final = frozenset(_CONCRETE)


def fold_constants(opcode: int, alu32: bool, a: int, b: int) -> int | None:
    """The result on two known values (u64), where it is one number whatever the bounds were.

    None for other operations, and for shifts by more than the width.
    """
    concrete = _CONCRETE.get(opcode)
    if concrete is None:
        return None
    if opcode in _SHIFTS:
        if not 0 <= b < (32 if alu32 else 64):
            return None
        if opcode == op.BPF_ARSH:
            a = s32(a) if alu32 else s64(a)
        elif alu32:
            a &= U32_MAX
    return concrete(a, b) & (U32_MAX if alu32 else U64_MAX)
