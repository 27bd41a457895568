"""What the nine numbers of a scalar tell each other: signed and unsigned bounds in 64 and 32 bits, and the known bits.

Works on one register's numbers only: no instruction, no state, no text but the one line of the sanity check. Every
function here changes the *draft* it is given (a private RegState copy that stands in no state yet); none may widen a bound.

Each deduction is the intersection of one view with what another view implies. The kernel's bounds are not a fixpoint but
the result of a fixed number of rounds, and its log shows it, so the order of the rules and the number of rounds are part
of the behaviour: `reg_bounds_sync`.
"""

from __future__ import annotations

from functools import lru_cache

from netbpf.ints import S32_MAX, S32_MIN, S64_MAX, S64_MIN, U32_MAX, U64_MAX
from netbpf.verifier.state import RegState, Tnum
from netbpf.verifier.tnum import HIGH_HALF, tnum_intersect, tnum_range, tnum_step

_SIGN64 = 1 << 63
_SIGN32 = 1 << 31


def __update_reg32_bounds(reg: RegState) -> None:
    """The low half's bounds from its known bits: the least and greatest member, signed (by the sign bit) and unsigned."""
    value, mask = reg.var_off
    value &= U32_MAX
    most = value | mask & U32_MAX
    if value > reg.u32_min_value:
        reg.u32_min_value = value
    if most < reg.u32_max_value:
        reg.u32_max_value = most
    lo, hi = ((value | mask & _SIGN32) ^ _SIGN32) - _SIGN32, ((value | mask & S32_MAX) ^ _SIGN32) - _SIGN32
    if lo > reg.s32_min_value:
        reg.s32_min_value = lo
    if hi < reg.s32_max_value:
        reg.s32_max_value = hi


def __update_reg64_bounds(reg: RegState) -> None:
    value, mask = reg.var_off
    umin, umax = reg.umin_value, reg.umax_value
    if value > umin:
        umin = reg.umin_value = value
    if value | mask < umax:
        umax = reg.umax_value = value | mask
    lo, hi = ((value | mask & _SIGN64) ^ _SIGN64) - _SIGN64, ((value | mask & S64_MAX) ^ _SIGN64) - _SIGN64
    if lo > reg.smin_value:
        reg.smin_value = lo
    if hi < reg.smax_value:
        reg.smax_value = hi
    if umin > umax or (mask != U64_MAX if umin < umax else mask):
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


Four = tuple[int, int, int, int]


def __reg32_deduce_bounds(whole: Four, low: Four) -> Four:
    """The low half's (umin, umax, smin, smax) from the whole's, then signed and unsigned from each other.

    A 64-bit range within one 4 GiB block (equal high halves) keeps its order in the low half; as signed too when it does
    not cross 2**31 there. A range over the border of two neighbouring blocks, from a low half >= 2**31 to one < 2**31, is
    a signed range around zero. Where the signed range crosses zero, the unsigned one may still meet only one of its parts.
    """
    umin, umax, smin, smax = whole
    u_lo, u_hi, s_lo, s_hi = low
    for lo, hi, ordered in ((umin, umax, True), (smin & U64_MAX, smax & U64_MAX, False)):
        blocks = (hi >> 32) - (lo >> 32)
        if blocks > 1:
            continue
        lo &= U32_MAX
        hi &= U32_MAX
        if blocks == 0 and (ordered or lo <= hi):
            u_lo, u_hi = lo if lo > u_lo else u_lo, hi if hi < u_hi else u_hi
        lo, hi = (lo ^ _SIGN32) - _SIGN32, (hi ^ _SIGN32) - _SIGN32
        if lo <= hi if blocks == 0 else lo < 0 <= hi and blocks in (1, -U32_MAX):
            s_lo, s_hi = lo if lo > s_lo else s_lo, hi if hi < s_hi else s_hi
    lo, hi = (u_lo ^ _SIGN32) - _SIGN32, (u_hi ^ _SIGN32) - _SIGN32
    if lo <= hi:
        s_lo, s_hi = lo if lo > s_lo else s_lo, hi if hi < s_hi else s_hi
    lo, hi = s_lo & U32_MAX, s_hi & U32_MAX
    if lo <= hi:
        u_lo, u_hi = lo if lo > u_lo else u_lo, hi if hi < u_hi else u_hi
    elif u_hi < lo:
        s_lo, u_hi = (u_lo ^ _SIGN32) - _SIGN32, min(u_hi, hi)
    elif hi < u_lo:
        s_hi, u_lo = (u_hi ^ _SIGN32) - _SIGN32, max(u_lo, lo)
    return u_lo, u_hi, s_lo, s_hi


def __reg64_deduce_bounds(whole: Four) -> Four:
    """(umin, umax, smin, smax): signed and unsigned from each other.

    A range that does not cross the sign border means the same in both views. Where the signed one crosses zero, the
    unsigned one may still meet only one of its two parts (0..smax at the bottom, smin..-1 at the top of the circle).
    """
    umin, umax, smin, smax = whole
    lo, hi = (umin ^ _SIGN64) - _SIGN64, (umax ^ _SIGN64) - _SIGN64
    if lo <= hi:
        smin, smax = lo if lo > smin else smin, hi if hi < smax else smax
    top_start, bottom_end = smin & U64_MAX, smax & U64_MAX
    if top_start <= bottom_end:
        umin, umax = top_start if top_start > umin else umin, bottom_end if bottom_end < umax else umax
    elif umax < top_start:
        smin, umax = lo, min(umax, bottom_end)
    elif bottom_end < umin:
        smax, umin = hi, max(umin, top_start)
    return umin, umax, smin, smax


def __reg_deduce_mixed_bounds(whole: Four, low: Four) -> Four:
    """64-bit bounds from the low half's: the least value cannot lie below its block plus the least low half, and so on."""
    umin, umax, smin, smax = whole
    u_lo, u_hi = low[0], low[1]
    at = umin & HIGH_HALF | u_lo
    if at > umin:
        umin = at
    at = umax & HIGH_HALF | u_hi
    if at < umax:
        umax = at
    at = smin & ~U32_MAX | u_lo
    if at > smin:
        smin = at
    at = smax & ~U32_MAX | u_hi
    if at < smax:
        smax = at
    return umin, umax, smin, smax


def __reg_deduce_bounds(var_off: Tnum, whole: Four, low: Four) -> tuple[Tnum, Four, Four]:
    """One round. The last rule is for sign extension: a non-negative low half in a value within s32 is the whole value."""
    low = __reg32_deduce_bounds(whole, low)
    whole = __reg_deduce_mixed_bounds(__reg64_deduce_bounds(whole), low)
    s_lo, s_hi = low[2], low[3]
    if s_lo >= 0 and whole[2] >= S32_MIN and whole[3] <= S32_MAX:
        whole = (s_lo, s_hi & U64_MAX, s_lo, s_hi)
        var_off = tnum_intersect(var_off, tnum_range(s_lo, s_hi & U64_MAX))
    return var_off, whole, low


def __reg_bound_offset(var_off: Tnum, whole: Four, low: Four) -> Tnum:
    """The known bits from the unsigned bounds, whole and low half."""
    value, mask = tnum_intersect(var_off, tnum_range(whole[0], whole[1]))
    low_value, low_mask = tnum_intersect(Tnum(value & U32_MAX, mask & U32_MAX), tnum_range(low[0], low[1]))
    return Tnum(value & HIGH_HALF | low_value & U32_MAX, mask & HIGH_HALF | low_mask & U32_MAX)


def _deduced(var_off: Tnum, whole: Four, low: Four) -> tuple[Tnum, Four, Four]:
    """Three rounds of deduction, then the known bits. A round that changes nothing makes the following ones idle."""
    first = second = __reg_deduce_bounds(var_off, whole, low)
    if first != (var_off, whole, low):
        second = __reg_deduce_bounds(*first)
        if second != first:
            second = __reg_deduce_bounds(*second)
    return __reg_bound_offset(*second), second[1], second[2]


def _set_numbers(reg: RegState, var_off: Tnum, whole: Four, low: Four) -> None:
    reg.var_off = var_off
    reg.umin_value, reg.umax_value, reg.smin_value, reg.smax_value = whole
    reg.u32_min_value, reg.u32_max_value, reg.s32_min_value, reg.s32_max_value = low


def _numbers(reg: RegState) -> tuple[Tnum, Four, Four]:
    return (
        reg.var_off,
        (reg.umin_value, reg.umax_value, reg.smin_value, reg.smax_value),
        (reg.u32_min_value, reg.u32_max_value, reg.s32_min_value, reg.s32_max_value),
    )


@lru_cache(maxsize=8192)
def _synced(var_off: Tnum, whole: Four, low: Four) -> tuple[Tnum, Four, Four]:
    """What the nine numbers become. Remembered: paths through one program meet the same numbers again."""
    reg = RegState()
    _set_numbers(reg, var_off, whole, low)
    __update_reg_bounds(reg)
    _set_numbers(reg, *_deduced(*_numbers(reg)))
    __update_reg_bounds(reg)
    return _numbers(reg)


def reg_bounds_sync(reg: RegState) -> None:
    """Carry what each of the nine numbers knows to the others: the kernel's order, three rounds of deduction."""
    reg.var_off, whole, low = _synced(
        reg.var_off,
        (reg.umin_value, reg.umax_value, reg.smin_value, reg.smax_value),
        (reg.u32_min_value, reg.u32_max_value, reg.s32_min_value, reg.s32_max_value),
    )
    reg.umin_value, reg.umax_value, reg.smin_value, reg.smax_value = whole
    reg.u32_min_value, reg.u32_max_value, reg.s32_min_value, reg.s32_max_value = low


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
