"""Tracked numbers: which bits of a 64-bit value are known. Pure functions on Tnum values; knows nothing of registers.

A Tnum ``t`` stands for every x with ``x & ~t.mask == t.value``. Each operator returns a Tnum that contains f(x, y) for
every x of its first and y of its second operand (Vishwanathan, Shachnai, Narayana, Nagarakatte: Sound, Precise, and Fast
Abstract Interpretation with Tristate Numbers, CGO 2022; the multiplication is the later one that joins partial sums).
"""

from __future__ import annotations

from typing import Final

from netbpf.ints import U16_MAX, U32_MAX, U64_MAX, bswap
from netbpf.verifier.state import TNUM_UNKNOWN, TNUM_ZERO, Tnum

HIGH_HALF: Final = U64_MAX ^ U32_MAX


def tnum_const(value: int) -> Tnum:
    return Tnum(value & U64_MAX, 0)


def tnum_range(lo: int, hi: int) -> Tnum:
    """The smallest Tnum over lo..hi (u64, lo <= hi): the bits above the highest one that differs are known."""
    span = (1 << (lo ^ hi).bit_length()) - 1
    if span == U64_MAX:
        return TNUM_UNKNOWN
    return Tnum(lo & ~span, span)


def tnum_lshift(a: Tnum, shift: int) -> Tnum:
    return Tnum(a.value << shift & U64_MAX, a.mask << shift & U64_MAX)


def tnum_rshift(a: Tnum, shift: int) -> Tnum:
    return Tnum(a.value >> shift, a.mask >> shift)


def tnum_arshift(a: Tnum, shift: int, insn_bitness: int) -> Tnum:
    """The sign bit is copied in, known or unknown. For 32 bits the high half of the result is zero."""
    top = 1 << (insn_bitness - 1)
    whole = (top << 1) - 1
    value = (((a.value & whole) ^ top) - top) >> shift
    mask = (((a.mask & whole) ^ top) - top) >> shift
    return Tnum(value & whole, mask & whole)


def tnum_add(a: Tnum, b: Tnum) -> Tnum:
    """A carry may differ exactly where the least and the greatest sum do."""
    low = a.value + b.value & U64_MAX
    high = low + a.mask + b.mask & U64_MAX
    unknown = low ^ high | a.mask | b.mask
    return Tnum(low & ~unknown, unknown)


def tnum_sub(a: Tnum, b: Tnum) -> Tnum:
    """A borrow may differ exactly where the greatest and the least difference do."""
    diff = a.value - b.value
    unknown = (diff + a.mask ^ diff - b.mask) & U64_MAX | a.mask | b.mask
    return Tnum(diff & U64_MAX & ~unknown, unknown)


def tnum_neg(a: Tnum) -> Tnum:
    return tnum_sub(TNUM_ZERO, a)


def tnum_and(a: Tnum, b: Tnum) -> Tnum:
    ones = a.value & b.value
    return Tnum(ones, (a.value | a.mask) & (b.value | b.mask) & ~ones)


def tnum_or(a: Tnum, b: Tnum) -> Tnum:
    ones = a.value | b.value
    return Tnum(ones, (a.mask | b.mask) & ~ones)


def tnum_xor(a: Tnum, b: Tnum) -> Tnum:
    unknown = a.mask | b.mask
    return Tnum((a.value ^ b.value) & ~unknown, unknown)


def tnum_overlap(a: Tnum, b: Tnum) -> bool:
    """Whether some number is in both."""
    return (a.value ^ b.value) & ~(a.mask | b.mask) == 0


def tnum_intersect(a: Tnum, b: Tnum) -> Tnum:
    """What is known when both hold (they must overlap)."""
    unknown = a.mask & b.mask
    return Tnum((a.value | b.value) & ~unknown, unknown)


def tnum_union(a: Tnum, b: Tnum) -> Tnum:
    """What is known when one of them holds."""
    unknown = a.value ^ b.value | a.mask | b.mask
    return Tnum(a.value & b.value & ~unknown, unknown)


def tnum_mul(a: Tnum, b: Tnum) -> Tnum:
    """Long multiplication over the bits of ``a``: a known one adds ``b << i``, an unknown bit adds it or not."""
    if not a.mask and not b.mask:
        return Tnum(a.value * b.value & U64_MAX, 0)
    acc, i, bits = TNUM_ZERO, 0, a.value | a.mask
    while bits >> i:
        if bits >> i & 1:
            added = tnum_add(acc, tnum_lshift(b, i))
            acc = added if a.value >> i & 1 else tnum_union(acc, added)
        i += 1
    return acc


def tnum_cast(a: Tnum, size_bytes: int) -> Tnum:
    """The low ``size_bytes`` bytes, zero above."""
    keep = (1 << (size_bytes * 8)) - 1
    return Tnum(a.value & keep, a.mask & keep)


def tnum_subreg(a: Tnum) -> Tnum:
    return Tnum(a.value & U32_MAX, a.mask & U32_MAX)


def tnum_clear_subreg(a: Tnum) -> Tnum:
    return Tnum(a.value & HIGH_HALF, a.mask & HIGH_HALF)


def tnum_with_subreg(reg: Tnum, subreg: Tnum) -> Tnum:
    """The high half of ``reg`` over the low half of ``subreg``."""
    return Tnum(reg.value & HIGH_HALF | subreg.value & U32_MAX, reg.mask & HIGH_HALF | subreg.mask & U32_MAX)


def tnum_const_subreg(a: Tnum, value: int) -> Tnum:
    return Tnum(a.value & HIGH_HALF | value & U32_MAX, a.mask & HIGH_HALF)


def tnum_is_const(a: Tnum) -> bool:
    return not a.mask


def tnum_equals_const(a: Tnum, value: int) -> bool:
    return not a.mask and a.value == value & U64_MAX


def tnum_is_unknown(a: Tnum) -> bool:
    return a.mask == U64_MAX


def tnum_subreg_is_const(a: Tnum) -> bool:
    return not a.mask & U32_MAX


def tnum_is_aligned(a: Tnum, size: int) -> bool:
    """Every member is a multiple of ``size``, a power of two (0 asks nothing)."""
    return not size or not (a.value | a.mask) & (size - 1)


def tnum_in(a: Tnum, b: Tnum) -> bool:
    """Every member of ``b`` is a member of ``a``."""
    return not b.mask & ~a.mask and b.value & ~a.mask == a.value


def tnum_step(t: Tnum, z: int) -> int:
    """The smallest member of ``t`` above ``z``, or the greatest member when none is."""
    least, greatest = t.value, t.value | t.mask
    if z >= greatest:
        return greatest
    if z < least:
        return least
    candidate = z + 1
    wrong = (candidate ^ least) & ~t.mask
    if not wrong:
        return candidate
    at = wrong.bit_length() - 1  # the highest known bit that the candidate has wrong
    below = (2 << at) - 1
    if candidate >> at & 1:  # a one where members have zero: carry into the lowest free zero above
        free = t.mask & ~candidate & ~below
        carry = free & -free
        return candidate & ~(2 * carry - 1) | carry | least & carry - 1
    return candidate & ~below | least & below


def tnum_bswap(a: Tnum, size_bytes: int) -> Tnum:
    """The low ``size_bytes`` bytes in reverse order, zero above."""
    return Tnum(bswap(a.value, size_bytes), bswap(a.mask, size_bytes))


def tnum_strn(a: Tnum) -> str:
    """``(0x10; 0xff)``: value; mask. A known number is one number, in hex from 17 bits on."""
    if not a.mask:
        return str(a.value) if a.value <= U16_MAX else f"{a.value:#x}"
    return f"({a.value:#x}; {a.mask:#x})"
