"""Registers of the current frame: read and write checks, constructors of register states, predicates on their types.

Knows single registers; stack, memory and instructions' meaning are other rooms'. Constructors return shared values:
copy one before changing it.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.ints import U32_MAX, U64_MAX
from netbpf.isa.opcodes import BPF_REG_FP, MAX_BPF_REG
from netbpf.verifier import state as st
from netbpf.verifier.bounds import (
    __mark_reg32_unbounded,
    __mark_reg_unbounded,
    bounds_violation,
    reg_bounds_sync,
    set_known_bounds,
)
from netbpf.verifier.env import Reject, VerifierEnv
from netbpf.verifier.log import verbose
from netbpf.verifier.state import REG_NOT_INIT, RegState, Tnum
from netbpf.verifier.tnum import tnum_cast, tnum_range, tnum_subreg

SRC_OP: Final = 0
DST_OP: Final = 1
DST_OP_NO_MARK: Final = 2

CALLER_SAVED_REGS: Final = 6  # R0..R5


# --- constructors -----------------------------------------------------------------------------------------------


_SIGN64: Final = 1 << 63
_SIGN32: Final = 1 << 31


def _scalar(precise: bool) -> RegState:
    reg = RegState(st.SCALAR_VALUE)
    reg.precise = precise
    return reg


_UNKNOWN: Final = (_scalar(False), _scalar(True))


def _known(value: int, precise: bool) -> RegState:
    """In one go: half of all values made are known numbers."""
    value &= U64_MAX
    low = value & U32_MAX
    reg = RegState.__new__(RegState)
    reg.type = st.SCALAR_VALUE
    reg.off = reg.range = reg.map_uid = reg.mem_size = reg.subprogno = reg.btf_id = reg.id = reg.ref_obj_id = reg.frameno = 0
    reg.map_ptr = reg.ext = None
    reg.precise = precise
    reg.var_off = Tnum(value, 0)
    reg.umin_value = reg.umax_value = value
    reg.smin_value = reg.smax_value = (value ^ _SIGN64) - _SIGN64
    reg.u32_min_value = reg.u32_max_value = low
    reg.s32_min_value = reg.s32_max_value = (low ^ _SIGN32) - _SIGN32
    return reg


_SMALL_KNOWN: Final = {value: _known(value, False) for value in range(4097)}


def known_reg(value: int, precise: bool = False) -> RegState:
    """A scalar that is exactly ``value`` (taken modulo 2**64). Shared."""
    value &= U64_MAX
    if value <= 4096 and not precise:
        return _SMALL_KNOWN[value]
    return _known(value, precise)


def unknown_reg(env: VerifierEnv) -> RegState:
    """A scalar of which nothing is known; precise where the program may not use imprecise ones (no CAP_BPF). Shared."""
    return _UNKNOWN[not env.bpf_capable]


def unknown_reg_imprecise() -> RegState:
    return _UNKNOWN[0]


def _become(reg: RegState, model: RegState) -> None:
    """Make a draft equal to ``model``."""
    for name in RegState.__slots__:
        setattr(reg, name, getattr(model, name))


def ___mark_reg_known(reg: RegState, imm: int) -> None:
    """Only the value of a draft: the type, id and offset stay."""
    set_known_bounds(reg, imm & U64_MAX)


def __mark_reg_known(reg: RegState, imm: int) -> None:
    """A draft becomes the value ``imm``: id, offsets and kind-specific parts are cleared, type and ``precise`` stay."""
    precise, kind = reg.precise, reg.type
    _become(reg, REG_NOT_INIT)
    reg.precise, reg.type = precise, kind
    set_known_bounds(reg, imm & U64_MAX)


def __mark_reg32_known(reg: RegState, imm: int) -> None:
    """The low half of a draft is known."""
    low = imm & U32_MAX
    reg.var_off = Tnum(reg.var_off.value & ~U32_MAX | low, reg.var_off.mask & ~U32_MAX)
    reg.s32_min_value = reg.s32_max_value = (low ^ 1 << 31) - (1 << 31)
    reg.u32_min_value = reg.u32_max_value = low


def __mark_reg_known_zero(reg: RegState) -> None:
    __mark_reg_known(reg, 0)


def __mark_reg_const_zero(env: VerifierEnv, reg: RegState) -> None:
    """A draft becomes the scalar zero; zeroes are imprecise unless every scalar is precise (no CAP_BPF)."""
    _become(reg, known_reg(0, not env.bpf_capable))


def __mark_reg_unknown_imprecise(reg: RegState) -> None:
    _become(reg, _UNKNOWN[0])


def __mark_reg_unknown(env: VerifierEnv, reg: RegState) -> None:
    _become(reg, _UNKNOWN[not env.bpf_capable])


def __mark_reg_not_init(env: VerifierEnv, reg: RegState) -> None:
    _become(reg, REG_NOT_INIT)


def mark_reg_known_zero(env: VerifierEnv, regs: list[RegState], regno: int) -> None:
    """Zero offset and value; the type stays (callers make it a pointer next)."""
    reg = regs[regno].copy()
    __mark_reg_known_zero(reg)
    regs[regno] = reg


def mark_reg_unknown(env: VerifierEnv, regs: list[RegState], regno: int) -> None:
    regs[regno] = _UNKNOWN[not env.bpf_capable]


def mark_reg_not_init(env: VerifierEnv, regs: list[RegState], regno: int) -> None:
    regs[regno] = REG_NOT_INIT


def __mark_reg_s32_range(env: VerifierEnv, regs: list[RegState], regno: int, s32_min: int, s32_max: int) -> None:
    """The register's signed values, whole and low half, are within s32_min..s32_max."""
    reg = regs[regno].copy()
    reg.s32_min_value, reg.s32_max_value = max(reg.s32_min_value, s32_min), min(reg.s32_max_value, s32_max)
    reg.smin_value, reg.smax_value = max(reg.smin_value, s32_min), min(reg.smax_value, s32_max)
    reg_bounds_sync(reg)
    reg_bounds_sanity_check(env, reg, "s32_range")
    regs[regno] = reg


def mark_ptr_not_null_reg(reg: RegState) -> None:
    """A draft pointer that may be NULL was found not to be; a value of a map-in-map becomes the inner map."""
    if reg.type & st.BASE_TYPE_MASK != st.PTR_TO_MAP_VALUE:
        reg.type &= ~st.PTR_MAYBE_NULL
        return
    inner = reg.map_ptr.inner
    if inner is not None:
        reg.type = st.CONST_PTR_TO_MAP
        reg.map_ptr = inner
        if not ASYNC_FIELDS.isdisjoint(inner.btf_record):
            reg.map_uid = reg.id
    else:
        reg.type = MAP_VALUE_TYPES.get(reg.map_ptr.spec.map_type, st.PTR_TO_MAP_VALUE)


# fields of a map value whose owner must be told apart from other inner maps (MapInfo.btf_record)
ASYNC_FIELDS: Final = frozenset({"timer", "workqueue", "task_work"})

# enum bpf_map_type whose looked-up value is a socket of the kernel, not bytes
MAP_VALUE_TYPES: Final[dict[int, int]] = {
    17: st.PTR_TO_XDP_SOCK,  # xskmap
    15: st.PTR_TO_SOCKET,  # sockmap
    18: st.PTR_TO_SOCKET,  # sockhash
}


# --- checks -----------------------------------------------------------------------------------------------------


def cur_regs(env: VerifierEnv) -> list[RegState]:
    state = env.cur_state
    assert state is not None
    return state.frame[state.curframe].regs


def reg_state(env: VerifierEnv, regno: int) -> RegState:
    return cur_regs(env)[regno]


def check_reg_arg(env: VerifierEnv, regno: int, t: int) -> None:
    """A register is read (SRC_OP), overwritten with an unknown scalar (DST_OP) or about to be written (DST_OP_NO_MARK).

    Raises Reject EINVAL for no such register, EACCES for an uninitialised one or a write to the frame pointer.
    """
    if regno >= MAX_BPF_REG:
        verbose(env, f"R{regno} is invalid\n")
        raise Reject(errno.EINVAL)
    env.scratched_regs |= 1 << regno
    regs = cur_regs(env)
    if t == SRC_OP:
        if regs[regno].type == st.NOT_INIT:
            verbose(env, f"R{regno} !read_ok\n")
            raise Reject(errno.EACCES)
        return
    if regno == BPF_REG_FP:
        verbose(env, "frame pointer is read only\n")
        raise Reject(errno.EACCES)
    if t == DST_OP:
        regs[regno] = _UNKNOWN[not env.bpf_capable]


def reg_bounds_sanity_check(env: VerifierEnv, reg: RegState, ctx: str) -> None:
    """Impossible bounds in a draft are the kernel's own fault: it forgets them, or with TEST_REG_INVARIANTS refuses (EFAULT)."""
    message = bounds_violation(reg)
    if not message:
        return
    ranges = (
        ("u64", reg.umin_value, reg.umax_value),
        ("s64", reg.smin_value & U64_MAX, reg.smax_value & U64_MAX),
        ("u32", reg.u32_min_value, reg.u32_max_value),
        ("s32", reg.s32_min_value & U32_MAX, reg.s32_max_value & U32_MAX),
    )
    numbers = " ".join(f"{name}=[{lo:#x}, {hi:#x}]" for name, lo, hi in ranges)
    bits = f"var_off=({reg.var_off.value:#x}, {reg.var_off.mask:#x})"
    verbose(env, f"verifier bug: REG INVARIANTS VIOLATION ({ctx}): {message} {numbers} {bits}\n")
    if env.test_reg_invariants:
        raise Reject(errno.EFAULT)
    __mark_reg_unbounded(reg)


def fixed_offset(reg: RegState) -> int:
    """The constant that a pointer's known bits add to ``off``. Bounds that were given up do not tell it."""
    value = reg.var_off.value
    return value - (1 << 64) if value >> 63 else value


# --- predicates -------------------------------------------------------------------------------------------------


def __is_pointer_value(allow_ptr_leaks: bool, reg: RegState) -> bool:
    return not allow_ptr_leaks and reg.type != st.SCALAR_VALUE


def is_pointer_value(env: VerifierEnv, regno: int) -> bool:
    """The register holds what the program may not turn into a number."""
    return not env.allow_ptr_leaks and cur_regs(env)[regno].type != st.SCALAR_VALUE


def register_is_null(reg: RegState) -> bool:
    return reg.type == st.SCALAR_VALUE and reg.var_off == st.TNUM_ZERO


def is_reg_const(reg: RegState, subreg32: bool) -> bool:
    """A scalar all of whose bits (of the low half) are known."""
    return reg.type == st.SCALAR_VALUE and not reg.var_off.mask & (U32_MAX if subreg32 else U64_MAX)


def reg_const_value(reg: RegState, subreg32: bool) -> int:
    return reg.var_off.value & (U32_MAX if subreg32 else U64_MAX)


# --- widths -----------------------------------------------------------------------------------------------------


def zext_32_to_64(reg: RegState) -> None:
    """A draft whose low half was just computed: the high half becomes zero."""
    reg.var_off = Tnum(reg.var_off.value & U32_MAX, reg.var_off.mask & U32_MAX)
    reg.umin_value, reg.umax_value = reg.u32_min_value, reg.u32_max_value
    if reg.s32_min_value >= 0:
        reg.smin_value, reg.smax_value = reg.s32_min_value, reg.s32_max_value
    else:
        reg.smin_value, reg.smax_value = 0, U32_MAX
    reg_bounds_sync(reg)


def coerce_reg_to_size(reg: RegState, size: int) -> None:
    """A draft keeps its low ``size`` bytes, zero-extended."""
    reg.var_off = tnum_cast(reg.var_off, size)
    whole = (1 << size * 8) - 1
    if reg.umin_value & ~whole == reg.umax_value & ~whole:
        reg.umin_value &= whole
        reg.umax_value &= whole
    else:
        reg.umin_value, reg.umax_value = 0, whole
    reg.smin_value, reg.smax_value = reg.umin_value, reg.umax_value
    if size < 4:
        __mark_reg32_unbounded(reg)
    reg_bounds_sync(reg)


def _set_sext_unknown(reg: RegState, size: int) -> None:
    """Any sign-extended ``size``-byte value."""
    half = 1 << size * 8 - 1
    reg.var_off = Tnum(0, U64_MAX)
    reg.smin_value, reg.smax_value = -half, half - 1
    reg.umin_value, reg.umax_value = 0, U64_MAX
    reg.s32_min_value, reg.s32_max_value = -half, half - 1
    reg.u32_min_value, reg.u32_max_value = 0, U32_MAX


def _sext(value: int, size: int) -> int:
    half = 1 << size * 8 - 1
    return ((value & (half << 1) - 1) ^ half) - half


def coerce_reg_to_size_sx(reg: RegState, size: int) -> None:
    """A draft keeps its low ``size`` bytes, sign-extended to 64 bits."""
    if not reg.var_off.mask:
        set_known_bounds(reg, _sext(reg.var_off.value, size) & U64_MAX)
        return
    bits = size * 8
    lo, hi = reg.smin_value, reg.smax_value
    if lo >> bits == hi >> bits:
        low, high = _sext(lo, size), _sext(hi, size)
        low, high = min(low, high), max(low, high)
        if (low >= 0) == (high >= 0):
            reg.smin_value, reg.smax_value = low, high
            reg.umin_value, reg.umax_value = low & U64_MAX, high & U64_MAX
            reg.s32_min_value, reg.s32_max_value = low, high
            reg.u32_min_value, reg.u32_max_value = low & U32_MAX, high & U32_MAX
            reg.var_off = tnum_range(low & U64_MAX, high & U64_MAX)
            return
    _set_sext_unknown(reg, size)


def coerce_subreg_to_size_sx(reg: RegState, size: int) -> None:
    """The low half of a draft keeps its low ``size`` bytes, sign-extended to 32 bits."""
    low_value, low_mask = reg.var_off.value & U32_MAX, reg.var_off.mask & U32_MAX
    if not low_mask:
        value = _sext(low_value, size)
        reg.var_off = Tnum(value & U32_MAX, 0)
        reg.s32_min_value = reg.s32_max_value = value
        reg.u32_min_value = reg.u32_max_value = value & U32_MAX
        return
    bits = size * 8
    lo, hi = reg.s32_min_value, reg.s32_max_value
    if lo >> bits == hi >> bits:
        low, high = _sext(lo, size), _sext(hi, size)
        low, high = min(low, high), max(low, high)
        if (low >= 0) == (high >= 0):
            reg.s32_min_value, reg.s32_max_value = low, high
            reg.u32_min_value, reg.u32_max_value = low & U32_MAX, high & U32_MAX
            reg.var_off = tnum_subreg(tnum_range(low & U64_MAX, high & U64_MAX))
            return
    half = 1 << bits - 1
    reg.s32_min_value, reg.s32_max_value = -half, half - 1
    reg.u32_min_value, reg.u32_max_value = 0, U32_MAX
    reg.var_off = Tnum(0, U32_MAX)
