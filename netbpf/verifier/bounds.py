"""What the nine numbers of a scalar tell each other: signed and unsigned bounds in 64 and 32 bits, and the known bits.

Works on one register's numbers only: no instruction, no state, no text but the one line of the sanity check. Every
function here changes the *draft* it is given (a private RegState copy that stands in no state yet); none may widen a bound.

Each deduction is the intersection of one view with what another view implies. The kernel's bounds are not a fixpoint but
the result of a fixed number of rounds, and its log shows it, so the order of the rules and the number of rounds are part
of the behaviour: `reg_bounds_sync`.
"""

from __future__ import annotations

from netbpf.ints import S32_MAX, S32_MIN, S64_MAX, S64_MIN, U32_MAX, U64_MAX, s32, s64
from netbpf.verifier.state import RegState, Tnum
from netbpf.verifier.tnum import HIGH_HALF, tnum_intersect, tnum_range, tnum_step

_SIGN64 = 1 << 63
_SIGN32 = 1 << 31


def __update_reg32_bounds(reg: RegState) -> None:
    """The low half's bounds from its known bits: the least and greatest member, signed (by the sign bit) and unsigned."""
    value, mask = reg.var_off.value & U32_MAX, reg.var_off.mask & U32_MAX
    reg.s32_min_value = max(reg.s32_min_value, s32(value | mask & _SIGN32))
    reg.s32_max_value = min(reg.s32_max_value, s32(value | mask & S32_MAX))
    reg.u32_min_value = max(reg.u32_min_value, value)
    reg.u32_max_value = min(reg.u32_max_value, value | mask)


def __update_reg64_bounds(reg: RegState) -> None:
    value, mask = reg.var_off
    reg.smin_value = max(reg.smin_value, s64(value | mask & _SIGN64))
    reg.smax_value = min(reg.smax_value, s64(value | mask & S64_MAX))
    umin = reg.umin_value = max(reg.umin_value, value)
    umax = reg.umax_value = min(reg.umax_value, value | mask)
    if mask or not umin == umax == value:
        _update_single_value(reg, umin, umax)


def _update_single_value(reg: RegState, umin: int, umax: int) -> None:
    """Where the unsigned range and the known bits have one number in common, that is the value.

    It is umin; or the greatest member, when that is the first one above umin; or the only member between umin and umax.
    """
    var_off = reg.var_off
    following = tnum_step(var_off, umin)
    if umin & ~var_off.mask == var_off.value:
        if following > umax:
            set_known_bounds(reg, umin)
    elif following == var_off.value | var_off.mask or (following <= umax and tnum_step(var_off, following) > umax):
        set_known_bounds(reg, following)


def __update_reg_bounds(reg: RegState) -> None:
    __update_reg32_bounds(reg)
    __update_reg64_bounds(reg)


def __reg32_deduce_bounds(reg: RegState) -> None:
    """The low half's bounds from the 64-bit ones, then signed and unsigned from each other.

    A 64-bit range within one 4 GiB block (equal high halves) keeps its order in the low half; as signed too when it does
    not cross 2**31 there. A range over the border of two neighbouring blocks, from a low half >= 2**31 to one < 2**31, is
    a signed range around zero.
    """
    umin, umax, smin, smax = reg.umin_value, reg.umax_value, reg.smin_value, reg.smax_value
    u_lo, u_hi, s_lo, s_hi = reg.u32_min_value, reg.u32_max_value, reg.s32_min_value, reg.s32_max_value
    for lo, hi, ordered in ((umin, umax, True), (smin & U64_MAX, smax & U64_MAX, False)):
        blocks = (hi >> 32) - (lo >> 32)
        low, high = lo & U32_MAX, hi & U32_MAX
        slow, shigh = (low ^ _SIGN32) - _SIGN32, (high ^ _SIGN32) - _SIGN32
        if blocks == 0 and (ordered or low <= high):
            u_lo, u_hi = max(u_lo, low), min(u_hi, high)
        if slow <= shigh if blocks == 0 else blocks in (1, -U32_MAX) and slow < 0 <= shigh:
            s_lo, s_hi = max(s_lo, slow), min(s_hi, shigh)
    su_lo, su_hi = (u_lo ^ _SIGN32) - _SIGN32, (u_hi ^ _SIGN32) - _SIGN32
    if su_lo <= su_hi:
        s_lo, s_hi = max(s_lo, su_lo), min(s_hi, su_hi)
    us_lo, us_hi = s_lo & U32_MAX, s_hi & U32_MAX
    if us_lo <= us_hi:
        u_lo, u_hi = max(u_lo, us_lo), min(u_hi, us_hi)
    elif u_hi < us_lo:
        s_lo, u_hi = (u_lo ^ _SIGN32) - _SIGN32, min(u_hi, us_hi)
    elif us_hi < u_lo:
        s_hi, u_lo = (u_hi ^ _SIGN32) - _SIGN32, max(u_lo, us_lo)
    reg.u32_min_value, reg.u32_max_value, reg.s32_min_value, reg.s32_max_value = u_lo, u_hi, s_lo, s_hi


def __reg64_deduce_bounds(reg: RegState) -> None:
    """Signed and unsigned from each other.

    A range that does not cross the sign border means the same in both views. Where the signed one crosses zero, the
    unsigned one may still meet only one of its two parts (0..smax at the bottom, smin..-1 at the top of the circle).
    """
    umin, umax = reg.umin_value, reg.umax_value
    if s64(umin) <= s64(umax):
        reg.smin_value = max(reg.smin_value, s64(umin))
        reg.smax_value = min(reg.smax_value, s64(umax))
    bottom_end, top_start = reg.smax_value & U64_MAX, reg.smin_value & U64_MAX
    if top_start <= bottom_end:
        reg.umin_value = max(umin, top_start)
        reg.umax_value = min(umax, bottom_end)
    elif umax < top_start:
        reg.smin_value = s64(umin)
        reg.umax_value = min(umax, bottom_end)
    elif bottom_end < umin:
        reg.smax_value = s64(umax)
        reg.umin_value = max(umin, top_start)


def __reg_deduce_mixed_bounds(reg: RegState) -> None:
    """64-bit bounds from the low half's: the least value cannot lie below its block plus the least low half, and so on.

    The last rule is for sign extension: a non-negative low half in a value within s32 is the whole value.
    """
    u_lo, u_hi = reg.u32_min_value, reg.u32_max_value
    reg.umin_value = max(reg.umin_value, reg.umin_value & HIGH_HALF | u_lo)
    reg.umax_value = min(reg.umax_value, reg.umax_value & HIGH_HALF | u_hi)
    reg.smin_value = max(reg.smin_value, reg.smin_value & ~U32_MAX | u_lo)
    reg.smax_value = min(reg.smax_value, reg.smax_value & ~U32_MAX | u_hi)
    if reg.s32_min_value >= 0 and reg.smin_value >= S32_MIN and reg.smax_value <= S32_MAX:
        lo, hi = reg.s32_min_value, reg.s32_max_value
        reg.smin_value = reg.umin_value = lo
        reg.smax_value = reg.umax_value = hi
        reg.var_off = tnum_intersect(reg.var_off, tnum_range(lo, hi & U64_MAX))


def __reg_deduce_bounds(reg: RegState) -> None:
    __reg32_deduce_bounds(reg)
    __reg64_deduce_bounds(reg)
    __reg_deduce_mixed_bounds(reg)


def __reg_bound_offset(reg: RegState) -> None:
    """The known bits from the unsigned bounds, whole and low half."""
    whole = tnum_intersect(reg.var_off, tnum_range(reg.umin_value, reg.umax_value))
    low = tnum_intersect(Tnum(whole.value & U32_MAX, whole.mask & U32_MAX), tnum_range(reg.u32_min_value, reg.u32_max_value))
    reg.var_off = Tnum(whole.value & HIGH_HALF | low.value & U32_MAX, whole.mask & HIGH_HALF | low.mask & U32_MAX)


def reg_bounds_sync(reg: RegState) -> None:
    """Carry what each of the nine numbers knows to the others: the kernel's order, three rounds of deduction."""
    __update_reg_bounds(reg)
    __reg_deduce_bounds(reg)
    __reg_deduce_bounds(reg)
    __reg_deduce_bounds(reg)
    __reg_bound_offset(reg)
    __update_reg_bounds(reg)


def __mark_reg32_unbounded(reg: RegState) -> None:
    reg.s32_min_value, reg.s32_max_value = S32_MIN, S32_MAX
    reg.u32_min_value, reg.u32_max_value = 0, U32_MAX


def __mark_reg64_unbounded(reg: RegState) -> None:
    reg.smin_value, reg.smax_value = S64_MIN, S64_MAX
    reg.umin_value, reg.umax_value = 0, U64_MAX


def __mark_reg_unbounded(reg: RegState) -> None:
    """Forget the bounds; ``var_off`` stays."""
    __mark_reg64_unbounded(reg)
    __mark_reg32_unbounded(reg)


def set_known_bounds(reg: RegState, value: int) -> None:
    """``var_off`` and all bounds say exactly ``value`` (u64)."""
    reg.var_off = Tnum(value, 0)
    reg.umin_value = reg.umax_value = value
    reg.smin_value = reg.smax_value = (value ^ _SIGN64) - _SIGN64
    low = value & U32_MAX
    reg.u32_min_value = reg.u32_max_value = low
    reg.s32_min_value = reg.s32_max_value = (low ^ _SIGN32) - _SIGN32


def bounds_violation(reg: RegState) -> str:
    """What is impossible about the bounds, in the kernel's words, or "" when they are sane."""
    if (
        reg.umin_value > reg.umax_value
        or reg.smin_value > reg.smax_value
        or reg.u32_min_value > reg.u32_max_value
        or reg.s32_min_value > reg.s32_max_value
    ):
        return "range bounds violation"
    value, mask = reg.var_off
    if not mask and not (
        reg.umin_value == reg.umax_value == value and reg.smin_value == reg.smax_value == (value ^ _SIGN64) - _SIGN64
    ):
        return "const tnum out of sync with range bounds"
    low = value & U32_MAX
    if not mask & U32_MAX and not (
        reg.u32_min_value == reg.u32_max_value == low and reg.s32_min_value == reg.s32_max_value == (low ^ _SIGN32) - _SIGN32
    ):
        return "const subreg tnum out of sync with range bounds"
    return ""
