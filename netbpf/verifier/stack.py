"""The stack of a frame, byte by byte: spills and fills, plain writes and reads, at fixed and at variable offsets.

Knows frames and slots; knows no other memory. Offsets are relative to the frame pointer (negative). Byte ``off`` is byte
``(-off - 1) % 8`` of slot ``(-off - 1) // 8``: a slot's byte 7 is its lowest address, where a spilled value begins.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.ints import S16_MIN
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import BPF_MEM, BPF_ST, MAX_BPF_STACK
from netbpf.verifier import state as st
from netbpf.verifier.alu import BPF_MAX_VAR_OFF, assign_scalar_id_before_mov
from netbpf.verifier.dynptr import destroy_if_dynptr_stack_slot
from netbpf.verifier.env import Reject, VerifierEnv
from netbpf.verifier.history import insn_stack_access_flags, push_jmp_history
from netbpf.verifier.liveness import bpf_mark_stack_read, bpf_mark_stack_write
from netbpf.verifier.log import mark_stack_slot_scratched, verbose, verbose_linfo
from netbpf.verifier.precision import mark_chain_precision
from netbpf.verifier.refs import current, owner
from netbpf.verifier.regs import (
    cur_regs,
    fixed_offset,
    known_reg,
    mark_reg_unknown,
    unknown_reg,
)
from netbpf.verifier.state import (
    BPF_REG_SIZE,
    REG_NOT_INIT,
    SCALAR_VALUE,
    SLOT_INVALID,
    STACK_DYNPTR,
    STACK_INVALID,
    STACK_MISC,
    STACK_SPILL,
    STACK_ZERO,
    FuncState,
    RegState,
    StackSlot,
    cur_func,
)
from netbpf.verifier.structure import subprog_end
from netbpf.verifier.tnum import tnum_strn

BPF_READ: Final = 1
BPF_WRITE: Final = 2

_SPILL_BYTE: Final = bytes([STACK_SPILL])
_FULL_SPILL: Final = _SPILL_BYTE * BPF_REG_SIZE
_UNSPILLABLE: Final = frozenset({st.NOT_INIT, SCALAR_VALUE, st.PTR_TO_TP_BUFFER, st.CONST_PTR_TO_DYNPTR})
_SPECIAL: Final = frozenset({STACK_SPILL, STACK_DYNPTR, st.STACK_ITER, st.STACK_IRQ_FLAG})
# byte kinds after a spill, dynptr ... in the slot lost its meaning
_SCRUBBED: Final = bytes(STACK_MISC if kind != STACK_INVALID else STACK_INVALID for kind in range(256))


def reg_width(reg: RegState) -> int:
    """get_reg_width: bits the unsigned value may need."""
    return reg.umax_value.bit_length()


def is_spillable_regtype(t: int) -> bool:
    return t & st.BASE_TYPE_MASK not in _UNSPILLABLE


def is_null(reg: RegState) -> bool:
    """register_is_null: the scalar zero."""
    return reg.type == SCALAR_VALUE and not reg.var_off.mask and not reg.var_off.value


def is_spilled_scalar(slot: StackSlot) -> bool:
    return slot.slot_type[7] == STACK_SPILL and slot.spilled_ptr.type == SCALAR_VALUE


def _refuse(env: VerifierEnv, text: str, error: int = errno.EACCES) -> Reject:
    verbose(env, text)
    return Reject(error)


# --- bounds ---------------------------------------------------------------------------------------------------------


def _out_of_stack(env: VerifierEnv, frame: FuncState, min_off: int, max_off: int, access_size: int, kind: int) -> int:
    """0, or the errno of an access to [min_off, max_off)."""
    lowest = -MAX_BPF_STACK if kind == BPF_WRITE or env.allow_uninit_stack else -len(frame.stack) * BPF_REG_SIZE
    if min_off < lowest or min_off > -1:
        return errno.EACCES
    if max_off > 0:
        return errno.EINVAL
    return errno.EFAULT if access_size < 0 else 0


def check_stack_access_within_bounds(env: VerifierEnv, regno: int, off: int, access_size: int, kind: int) -> None:
    """The bytes lie in the frame's 512, and for readers who may not see old stack in what was written. Grows the frame."""
    reg = cur_regs(env)[regno]
    frame = owner(env, reg)
    if not reg.var_off.mask and access_size > 0 and -len(frame.stack) * BPF_REG_SIZE <= reg.smin_value + off <= -access_size:
        return  # within what is there
    how = " read from" if kind == BPF_READ else " write to"
    fixed = not reg.var_off.mask
    if fixed:
        min_off = fixed_offset(reg) + off
        max_off = min_off + access_size
    else:
        if reg.smax_value >= BPF_MAX_VAR_OFF or reg.smin_value <= -BPF_MAX_VAR_OFF:
            raise _refuse(env, f"invalid unbounded variable-offset{how} stack R{regno}\n")
        min_off = reg.smin_value + off
        max_off = reg.smax_value + off + access_size
    error = _out_of_stack(env, frame, min_off, max_off, access_size, kind)
    if error:
        if fixed:
            raise _refuse(env, f"invalid{how} stack R{regno} off={min_off} size={access_size}\n", error)
        var_off = tnum_strn(reg.var_off)
        raise _refuse(env, f"invalid variable-offset{how} stack R{regno} var_off={var_off} off={off} size={access_size}\n", error)
    if -min_off > len(frame.stack) * BPF_REG_SIZE:
        grow_stack_state(env, frame, -min_off)


def grow_stack_state(env: VerifierEnv, frame: FuncState, size: int) -> None:
    """The frame has at least ``size`` bytes of stack, and its function needs as much."""
    slots = -(-size // BPF_REG_SIZE)
    missing = slots - len(frame.stack)
    if missing <= 0:
        return
    frame.stack.extend([SLOT_INVALID] * missing)
    info = env.subprogs[frame.subprogno]
    info.stack_depth = max(info.stack_depth, slots * BPF_REG_SIZE)


def check_fastcall_stack_contract(env: VerifierEnv, frame: FuncState, insn_idx: int, off: int) -> None:
    """Code outside a fastcall pattern touches stack that its spills use: the function's patterns are given up."""
    subprog = env.subprogs[frame.subprogno]
    if subprog.fastcall_stack_off <= off or env.insn_aux[insn_idx].fastcall_pattern:
        return
    subprog.fastcall_stack_off = S16_MIN
    for aux in env.insn_aux[subprog.start : subprog_end(env, frame.subprogno)]:
        aux.fastcall_pattern = False


# --- writing --------------------------------------------------------------------------------------------------------


# mark_stack_slot_misc: what byte kinds beside a narrow spill become
_BESIDE_SPILL: Final = bytes(kind if kind in (STACK_ZERO, STACK_INVALID) else STACK_MISC for kind in range(256))


def _save_register(frame: FuncState, spi: int, reg: RegState, size: int) -> None:
    """The slot's ``size`` low bytes hold ``reg``."""
    kinds = frame.stack[spi].slot_type
    if size == BPF_REG_SIZE:
        kinds = _FULL_SPILL
    else:
        beside = BPF_REG_SIZE - size
        kinds = kinds[:beside].translate(_BESIDE_SPILL) + _FULL_SPILL[beside:]
    frame.stack[spi] = StackSlot(kinds, reg)


def _without_object(kinds: bytes) -> bytes:
    """The slot's bytes once a spill or dynptr in it is given up: those that were written are of no special kind."""
    return kinds.translate(_SCRUBBED) if kinds[7] in _SPECIAL else kinds


def _write_plain(frame: FuncState, spi: int, first: int, size: int, kind: int) -> None:
    """``size`` bytes from byte ``first`` of the slot downwards become ``kind``; a spill there is no more."""
    out = bytearray(_without_object(frame.stack[spi].slot_type))
    for i in range(size):
        out[(first - i) % BPF_REG_SIZE] = kind
    frame.stack[spi] = StackSlot(bytes(out), REG_NOT_INIT)


def _need_barrier(env: VerifierEnv, kinds: bytes, first: int, size: int, reg: RegState | None, insn_idx: int) -> None:
    """A speculative load could still see what the slot held: the store is followed by a barrier."""
    if (reg is not None and is_spillable_regtype(reg.type)) or any(
        kinds[(first - i) % BPF_REG_SIZE] not in (STACK_MISC, STACK_ZERO) for i in range(size)
    ):
        env.insn_aux[insn_idx].nospec_result = True


def is_st_mem(insn: Instruction) -> bool:
    """is_bpf_st_mem: a store of an immediate."""
    return insn.code & 0xE7 == BPF_ST | BPF_MEM


def _spill_scalar(env: VerifierEnv, frame: FuncState, spi: int, regno: int, size: int) -> None:
    regs = cur_regs(env)
    reg = regs[regno]
    if reg_width(reg) <= size * 8:
        regs[regno] = reg = assign_scalar_id_before_mov(env, reg)
    elif reg.id:
        reg = reg.copy()
        reg.id = reg.off = 0
    _save_register(frame, spi, reg, size)


def _spill_pointer(env: VerifierEnv, frame: FuncState, spi: int, reg: RegState, size: int, insn_idx: int) -> None:
    if size != BPF_REG_SIZE:
        verbose_linfo(env, insn_idx, "; ")
        raise _refuse(env, "invalid size of register spill\n")
    if frame is not cur_func(current(env)) and reg.type == st.PTR_TO_STACK:
        raise _refuse(env, "cannot spill pointers to stack into stack frame of the caller\n", errno.EINVAL)
    _save_register(frame, spi, reg, size)


def _write_data(env: VerifierEnv, frame: FuncState, spi: int, off: int, size: int, reg: RegState | None, regno: int) -> None:
    """Bytes that are no spill: zeroes stay known as such."""
    insn = env.insns[env.insn_idx]
    kind = STACK_MISC
    zero = is_null(reg) if reg is not None else is_st_mem(insn) and insn.imm == 0
    if zero:
        if regno >= 0:  # an immediate zero comes from no register
            mark_chain_precision(env, regno)
        kind = STACK_ZERO
    _write_plain(frame, spi, (-off - 1) % BPF_REG_SIZE, size, kind)


def check_stack_write_fixed_off(env: VerifierEnv, frame: FuncState, off: int, size: int, value_regno: int, insn_idx: int) -> None:
    """Write register ``value_regno`` (or with -1 the instruction's immediate, or unknown bytes) at a known offset."""
    spi = (-off - 1) // BPF_REG_SIZE
    slot = frame.stack[spi]
    if (
        not env.allow_ptr_leaks
        and slot.slot_type[7] == STACK_SPILL
        and slot.spilled_ptr.type != SCALAR_VALUE
        and size != BPF_REG_SIZE
    ):
        raise _refuse(env, "attempt to corrupt spilled pointer on stack\n")
    reg = cur_regs(env)[value_regno] if value_regno >= 0 else None
    if not env.bypass_spec_v4:
        _need_barrier(env, slot.slot_type, (-off - 1) % BPF_REG_SIZE, size, reg, insn_idx)
    destroy_if_dynptr_stack_slot(env, frame, spi)
    if reg is not None:
        reg = cur_regs(env)[value_regno]  # it may have been a slice of the dynptr that is gone
    check_fastcall_stack_contract(env, frame, insn_idx, off)
    mark_stack_slot_scratched(env, spi)
    aligned = not off % BPF_REG_SIZE
    if aligned and size == BPF_REG_SIZE:
        bpf_mark_stack_write(env, frame.frameno, 1 << spi)
    if reg is not None and aligned and reg.type == SCALAR_VALUE and env.bpf_capable:
        _spill_scalar(env, frame, spi, value_regno, size)
    elif reg is None and aligned and env.bpf_capable and is_st_mem(env.insns[insn_idx]):
        _save_register(frame, spi, known_reg(env.insns[insn_idx].imm), size)
    elif reg is not None and is_spillable_regtype(reg.type):
        _spill_pointer(env, frame, spi, reg, size, insn_idx)
    else:
        _write_data(env, frame, spi, off, size, reg, value_regno)
        return
    push_jmp_history(env, current(env), insn_stack_access_flags(frame.frameno, spi))


def _write_byte_somewhere(env: VerifierEnv, frame: FuncState, at: int, zero: bool, insn_idx: int) -> bool:
    """A write may or may not hit byte ``at``. True when its being zero was relied on."""
    spi, byte = divmod(-at - 1, BPF_REG_SIZE)
    mark_stack_slot_scratched(env, spi)
    slot = frame.stack[spi]
    kind = slot.slot_type[byte]
    if not env.allow_ptr_leaks and kind not in (STACK_MISC, STACK_ZERO):
        raise _refuse(env, f"spilled ptr in range of var-offset stack write; insn {insn_idx}, ptr off: {at}", errno.EINVAL)
    if zero and kind == STACK_SPILL and is_spilled_scalar(slot) and slot.spilled_ptr.var_off == st.TNUM_ZERO:
        return True
    if kind == STACK_INVALID and not env.allow_uninit_stack:
        where = f"insn {insn_idx}, off: {at}"
        raise _refuse(env, f"uninit stack in range of var-offset write prohibited for !root; {where}", errno.EINVAL)
    kinds = bytearray(_without_object(slot.slot_type))
    stays_zero = zero and kinds[byte] == STACK_ZERO
    kinds[byte] = STACK_ZERO if stays_zero else STACK_MISC
    frame.stack[spi] = StackSlot(bytes(kinds), REG_NOT_INIT)
    return stays_zero


def check_stack_write_var_off(
    env: VerifierEnv, frame: FuncState, ptr_regno: int, off: int, size: int, value_regno: int, insn_idx: int
) -> None:
    """Write at an offset known only to lie in a range: every byte of the range may have changed."""
    regs = cur_regs(env)
    ptr = regs[ptr_regno]
    min_off, max_off = ptr.smin_value + off, ptr.smax_value + off + size
    insn = env.insns[insn_idx]
    zero = is_null(regs[value_regno]) if value_regno >= 0 else is_st_mem(insn) and insn.imm == 0
    for at in range(min_off, max_off):
        destroy_if_dynptr_stack_slot(env, frame, (-at - 1) // BPF_REG_SIZE)
    check_fastcall_stack_contract(env, frame, insn_idx, min_off)
    zero_used = False
    for at in range(min_off, max_off):
        zero_used |= _write_byte_somewhere(env, frame, at, zero, insn_idx)
    if zero_used and value_regno >= 0:
        mark_chain_precision(env, value_regno)


def check_stack_write(env: VerifierEnv, ptr_regno: int, off: int, size: int, value_regno: int, insn_idx: int) -> None:
    """Write through stack pointer ``ptr_regno``; bounds were checked."""
    reg = cur_regs(env)[ptr_regno]
    frame = owner(env, reg)
    if reg.var_off.mask:
        check_stack_write_var_off(env, frame, ptr_regno, off, size, value_regno, insn_idx)
    else:
        check_stack_write_fixed_off(env, frame, off + fixed_offset(reg), size, value_regno, insn_idx)


# --- reading --------------------------------------------------------------------------------------------------------


def mark_reg_stack_read(env: VerifierEnv, frame: FuncState, min_off: int, max_off: int, dst_regno: int) -> None:
    """The destination of a load of plain bytes: zero if all the bytes it may come from are, else unknown."""
    zero = True
    for at in range(min_off, max_off):
        spi, byte = divmod(-at - 1, BPF_REG_SIZE)
        mark_stack_slot_scratched(env, spi)
        if frame.stack[spi].slot_type[byte] != STACK_ZERO:
            zero = False
            break
    regs = cur_regs(env)
    if zero:
        regs[dst_regno] = known_reg(0, not env.bpf_capable)
    else:
        mark_reg_unknown(env, regs, dst_regno)


def _check_readable(env: VerifierEnv, kinds: bytes, off: int, size: int, spill_ok: bool) -> None:
    """Every byte read was written, or the reader may see old stack."""
    first = -off - 1
    for i in range(size):
        kind = kinds[(first - i) % BPF_REG_SIZE]
        if kind in (STACK_MISC, STACK_ZERO) or (kind == STACK_SPILL and spill_ok):
            continue
        if kind == STACK_INVALID and env.allow_uninit_stack:
            continue
        raise _refuse(env, f"invalid read from stack off {off}+{i} size {size}\n")


def _fill_part(env: VerifierEnv, frame: FuncState, spi: int, off: int, size: int, spill_size: int, dst_regno: int) -> bool:
    """Some bytes of a slot that holds a spilled scalar. False when the value is not the spilled one's."""
    slot = frame.stack[spi]
    reg = slot.spilled_ptr
    regs = cur_regs(env)
    if size <= spill_size and not off % BPF_REG_SIZE:
        if reg.id and reg_width(reg) > size * 8:
            reg = reg.copy()
            reg.id = 0
        regs[dst_regno] = reg
        return True
    _check_readable(env, slot.slot_type, off, size, True)
    first = -off - 1
    kinds = {slot.slot_type[(first - i) % BPF_REG_SIZE] for i in range(size)}
    if kinds == {STACK_SPILL} and reg.var_off == st.TNUM_ZERO:
        regs[dst_regno] = known_reg(0, not env.bpf_capable)
        return True
    if kinds == {STACK_ZERO}:
        regs[dst_regno] = known_reg(0, not env.bpf_capable)
    else:
        mark_reg_unknown(env, regs, dst_regno)
    return False


def _read_spill(env: VerifierEnv, frame: FuncState, spi: int, off: int, size: int, dst_regno: int) -> bool:
    """Read from a slot with a spilled register. True when this is a fill, which precision can follow."""
    kinds, reg = frame.stack[spi]
    spill_size = BPF_REG_SIZE - len(kinds.rstrip(_SPILL_BYTE))
    if size == BPF_REG_SIZE and spill_size == BPF_REG_SIZE:
        if dst_regno >= 0:
            cur_regs(env)[dst_regno] = reg
        elif reg.type != SCALAR_VALUE and not env.allow_ptr_leaks:
            raise _refuse(env, f"leaking pointer from stack off {off}\n")
        return True
    if reg.type != SCALAR_VALUE:
        verbose_linfo(env, env.insn_idx, "; ")
        raise _refuse(env, "invalid size of register fill\n")
    return dst_regno >= 0 and _fill_part(env, frame, spi, off, size, spill_size, dst_regno)


def check_stack_read_fixed_off(env: VerifierEnv, frame: FuncState, off: int, size: int, dst_regno: int) -> None:
    """Read at a known offset into ``dst_regno``; -1 only asks whether the bytes may be used as a number."""
    spi = (-off - 1) // BPF_REG_SIZE
    mark_stack_slot_scratched(env, spi)
    check_fastcall_stack_contract(env, frame, env.insn_idx, off)
    bpf_mark_stack_read(env, frame.frameno, env.insn_idx, 1 << spi)
    kinds = frame.stack[spi].slot_type
    if kinds[7] == STACK_SPILL:
        if not _read_spill(env, frame, spi, off, size, dst_regno):
            return
    else:
        _check_readable(env, kinds, off, size, False)
        if dst_regno >= 0:
            mark_reg_stack_read(env, frame, off, off + size, dst_regno)
        return
    push_jmp_history(env, current(env), insn_stack_access_flags(frame.frameno, spi))


def check_stack_read_var_off(env: VerifierEnv, ptr_regno: int, off: int, size: int, dst_regno: int) -> None:
    """Read at an offset known only to lie in a range: all of the range must be readable."""
    reg = cur_regs(env)[ptr_regno]
    frame = owner(env, reg)
    check_stack_range_initialized(env, ptr_regno, off, size, False, BPF_READ, False)
    min_off, max_off = reg.smin_value + off, reg.smax_value + off
    mark_reg_stack_read(env, frame, min_off, max_off + size, dst_regno)
    check_fastcall_stack_contract(env, frame, env.insn_idx, min_off)


def check_stack_read(env: VerifierEnv, ptr_regno: int, off: int, size: int, dst_regno: int) -> None:
    """Read through stack pointer ``ptr_regno``; bounds were checked."""
    reg = cur_regs(env)[ptr_regno]
    if not reg.var_off.mask:
        check_stack_read_fixed_off(env, owner(env, reg), off + fixed_offset(reg), size, dst_regno)
    elif dst_regno < 0:
        var_off = tnum_strn(reg.var_off)
        raise _refuse(
            env, f"variable offset stack pointer cannot be passed into helper function; var_off={var_off} off={off} size={size}\n"
        )
    else:
        check_stack_read_var_off(env, ptr_regno, off, size, dst_regno)


# --- ranges that helpers use -------------------------------------------------------------------------------------------


def _use_byte(env: VerifierEnv, frame: FuncState, spi: int, byte: int, clobber: bool) -> bool:
    """A helper reads (or, with ``clobber``, writes) one byte that must have been written. False when it was not."""
    slot = frame.stack[spi]
    kind = slot.slot_type[byte]
    if kind == STACK_MISC:
        return True
    if kind == STACK_ZERO or (kind == STACK_INVALID and env.allow_uninit_stack):
        if clobber:
            kinds = bytearray(slot.slot_type)
            kinds[byte] = STACK_MISC
            frame.stack[spi] = StackSlot(bytes(kinds), slot.spilled_ptr)
        return True
    if slot.slot_type[7] == STACK_SPILL and (slot.spilled_ptr.type == SCALAR_VALUE or env.allow_ptr_leaks):
        if clobber:
            frame.stack[spi] = StackSlot(slot.slot_type.translate(_SCRUBBED), unknown_reg(env))
        return True
    return False


def _check_no_dynptr(env: VerifierEnv, frame: FuncState, min_off: int, end: int) -> None:
    for at in range(min_off, end):
        spi, byte = divmod(-at - 1, BPF_REG_SIZE)
        if spi < len(frame.stack) and frame.stack[spi].slot_type[byte] == STACK_DYNPTR:
            raise _refuse(env, f"potential write to dynptr at off={at} disallowed\n")


def check_stack_range_initialized(
    env: VerifierEnv, regno: int, off: int, access_size: int, zero_size_allowed: bool, kind: int, raw_mode: bool
) -> bool:
    """A helper gets ``access_size`` bytes of stack. True when the range may be uninitialised and the helper will fill it."""
    reg = cur_regs(env)[regno]
    frame = owner(env, reg)
    if access_size == 0 and not zero_size_allowed:
        raise _refuse(env, "invalid zero-sized read\n")
    check_stack_access_within_bounds(env, regno, off, access_size, kind)
    fixed = not reg.var_off.mask
    if fixed:
        min_off = max_off = fixed_offset(reg) + off
    else:
        if not env.bypass_spec_v1:
            var_off = tnum_strn(reg.var_off)
            raise _refuse(env, f"R{regno} variable offset stack access prohibited for !root, var_off={var_off}\n")
        raw_mode = False
        min_off, max_off = reg.smin_value + off, reg.smax_value + off
    end = max_off + access_size
    if raw_mode:
        _check_no_dynptr(env, frame, min_off, end)
        return True
    for at in range(min_off, end):
        spi, byte = divmod(-at - 1, BPF_REG_SIZE)
        if spi >= len(frame.stack):
            raise _refuse(env, "allocated_stack too small\n", errno.EFAULT)
        if not _use_byte(env, frame, spi, byte, kind == BPF_WRITE):
            where = f"off {min_off}+{at - min_off}" if fixed else f"var_off {tnum_strn(reg.var_off)}+{at - min_off}"
            raise _refuse(env, f"invalid read from stack R{regno} {where} size {access_size}\n")
        bpf_mark_stack_read(env, reg.frameno, env.insn_idx, 1 << spi)
    return False
