"""Instructions of the classes ALU and ALU64: their fields, their operands, and what they leave in dst.

Checks the instruction, chooses the rule by the operands' types, stores the new register. The arithmetic itself is
`scalar_ops` (numbers) and, for pointers, here; speculation is `sanitize`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from netbpf.ints import S32_MAX, S32_MIN, S64_MAX, S64_MIN, U32_MAX, U64_MAX, s32, s64
from netbpf.isa import opcodes as op
from netbpf.isa.disasm import ALU_SIGNS
from netbpf.isa.instruction import Instruction
from netbpf.verifier import sanitize
from netbpf.verifier import state as st
from netbpf.verifier.bounds import __mark_reg32_unbounded, bounds_violation, reg_bounds_sync
from netbpf.verifier.env import Reject, VerifierEnv
from netbpf.verifier.log import reg_type_str, verbose
from netbpf.verifier.path import push_stack
from netbpf.verifier.precision import mark_chain_precision
from netbpf.verifier.regs import (
    DST_OP,
    DST_OP_NO_MARK,
    SRC_OP,
    __mark_reg32_known,
    __mark_reg_known,
    check_reg_arg,
    coerce_reg_to_size_sx,
    coerce_subreg_to_size_sx,
    cur_regs,
    is_pointer_value,
    is_reg_const,
    known_reg,
    mark_reg_unknown,
    reg_bounds_sanity_check,
    reg_const_value,
    unknown_reg,
    zext_32_to_64,
)
from netbpf.verifier.scalar_ops import (
    FOLDED,
    adjust_scalar_numbers,
    fold_constants,
    is_safe_to_compute_dst_reg_range,
    scalar_byte_swap,
)
from netbpf.verifier.state import BPF_ADD_CONST, BPF_ADD_CONST32, BPF_ADD_CONST64, SCALAR_VALUE, RegState
from netbpf.verifier.tnum import tnum_add, tnum_sub

BPF_MAX_VAR_OFF: Final = 1 << 29
BPF_ADDR_SPACE_CAST: Final = 1

# base types of pointers that may be moved by any scalar
MOVABLE_POINTERS: Final = frozenset(
    {
        st.PTR_TO_CTX,
        st.PTR_TO_MAP_VALUE,
        st.PTR_TO_MAP_KEY,
        st.PTR_TO_STACK,
        st.PTR_TO_PACKET_META,
        st.PTR_TO_PACKET,
        st.PTR_TO_TP_BUFFER,
        st.PTR_TO_BTF_ID,
        st.PTR_TO_MEM,
        st.PTR_TO_BUF,
        st.PTR_TO_FUNC,
        st.CONST_PTR_TO_DYNPTR,
    }
)
PACKET_POINTERS: Final = frozenset({st.PTR_TO_PACKET, st.PTR_TO_PACKET_META})


def _refuse(env: VerifierEnv, text: str, error: int = errno.EACCES) -> Reject:
    verbose(env, text)
    return Reject(error)


# --- pointers ---------------------------------------------------------------------------------------------------


def check_reg_sane_offset(env: VerifierEnv, reg: RegState, ptr_type: int) -> None:
    """Offsets stay below 2**29, fixed, known and at the least, so that sums of them cannot overflow. Raises EINVAL."""
    value, smin = s64(reg.var_off.value), reg.smin_value
    name = reg_type_str(env, ptr_type)
    if not reg.var_off.mask and not -BPF_MAX_VAR_OFF < value < BPF_MAX_VAR_OFF:
        text = f"math between {name} pointer and {value} is not allowed\n"
    elif not -BPF_MAX_VAR_OFF < reg.off < BPF_MAX_VAR_OFF:
        text = f"{name} pointer offset {reg.off} is not allowed\n"
    elif smin == S64_MIN:
        text = f"math between {name} pointer and register with unbounded min value is not allowed\n"
    elif not -BPF_MAX_VAR_OFF < smin < BPF_MAX_VAR_OFF:
        text = f"value {smin} makes {name} pointer be out of bounds\n"
    else:
        return
    raise _refuse(env, text, errno.EINVAL)


def _check_movable(env: VerifierEnv, insn: Instruction, ptr: RegState, off: RegState) -> None:
    """Whether this kind of pointer may be moved by this offset at all."""
    known, base = not off.var_off.mask, ptr.type & st.BASE_TYPE_MASK
    if base in MOVABLE_POINTERS or (base == st.PTR_TO_FLOW_KEYS and known):
        return
    adds_zero = known and off.smin_value == 0 and insn.code & 0xF0 == op.BPF_ADD
    if base in (st.PTR_TO_FLOW_KEYS, st.CONST_PTR_TO_MAP) and adds_zero:
        return
    raise _refuse(env, f"R{insn.dst} pointer arithmetic on {reg_type_str(env, ptr.type)} prohibited\n")


def _impossible(off: RegState) -> bool:
    """Bounds that only a dead path can have."""
    if off.smin_value > off.smax_value or off.umin_value > off.umax_value:
        return True
    return not off.var_off.mask and (off.smin_value != off.smax_value or off.umin_value != off.umax_value)


def _ptr_add(env: VerifierEnv, dst: RegState, ptr: RegState, off: RegState) -> None:
    """``dst`` (a copy of ``ptr``) moves up: a known offset goes to ``off``, another into the bounds."""
    fixed = ptr.off + off.smin_value
    if not off.var_off.mask and S32_MIN <= fixed <= S32_MAX:
        dst.off = fixed
        return
    smin, smax = ptr.smin_value + off.smin_value, ptr.smax_value + off.smax_value
    umin, umax = ptr.umin_value + off.umin_value, ptr.umax_value + off.umax_value
    fits = smin >= S64_MIN and smax <= S64_MAX and smin <= S64_MAX and smax >= S64_MIN
    dst.smin_value, dst.smax_value = (smin, smax) if fits else (S64_MIN, S64_MAX)
    dst.umin_value, dst.umax_value = (umin, umax) if umin <= U64_MAX and umax <= U64_MAX else (0, U64_MAX)
    dst.var_off = tnum_add(ptr.var_off, off.var_off)
    if ptr.type & st.BASE_TYPE_MASK in PACKET_POINTERS:
        dst.id, dst.range = env.new_id(), 0


def _ptr_sub(env: VerifierEnv, dst: RegState, ptr: RegState, off: RegState) -> None:
    """``dst`` (a copy of ``ptr``) moves down; a packet's proven range outlasts only a move that cannot be upward."""
    fixed = ptr.off - off.smin_value
    if not off.var_off.mask and S32_MIN <= fixed <= S32_MAX:
        dst.off = fixed
        return
    smin, smax = ptr.smin_value - off.smax_value, ptr.smax_value - off.smin_value
    fits = smin >= S64_MIN and smax <= S64_MAX and smin <= S64_MAX and smax >= S64_MIN
    dst.smin_value, dst.smax_value = (smin, smax) if fits else (S64_MIN, S64_MAX)
    if ptr.umin_value < off.umax_value:
        dst.umin_value, dst.umax_value = 0, U64_MAX
    else:
        dst.umin_value, dst.umax_value = ptr.umin_value - off.umax_value, ptr.umax_value - off.umin_value
    dst.var_off = tnum_sub(ptr.var_off, off.var_off)
    if ptr.type & st.BASE_TYPE_MASK in PACKET_POINTERS:
        dst.id = env.new_id()
        if off.smin_value < 0:
            dst.range = 0


def _move_pointer(env: VerifierEnv, insn: Instruction, dst: RegState, ptr: RegState, off: RegState, off_is_dst: bool) -> None:
    opcode = insn.code & 0xF0
    if opcode == op.BPF_ADD:
        _ptr_add(env, dst, ptr, off)
    elif opcode == op.BPF_SUB:
        if off_is_dst:
            raise _refuse(env, f"R{insn.dst} tried to subtract pointer from scalar\n")
        if ptr.type == st.PTR_TO_STACK:
            raise _refuse(env, f"R{insn.dst} subtraction from stack pointer prohibited\n")
        _ptr_sub(env, dst, ptr, off)
    elif opcode in (op.BPF_AND, op.BPF_OR, op.BPF_XOR):
        raise _refuse(env, f"R{insn.dst} bitwise operator {ALU_SIGNS[opcode]} on pointer prohibited\n")
    else:
        raise _refuse(env, f"R{insn.dst} pointer arithmetic with {ALU_SIGNS[opcode]} operator prohibited\n")


def _as_pointer(scalar: RegState, ptr: RegState) -> RegState:
    """What scalar += pointer starts from: the pointer, but the scalar's reference and frame (none: the kernel's fp[0])."""
    start = ptr.copy()
    start.ref_obj_id, start.frameno, start.precise = scalar.ref_obj_id, scalar.frameno, scalar.precise
    return start


def adjust_ptr_min_max_vals(env: VerifierEnv, insn: Instruction, ptr: RegState, off: RegState, off_is_dst: bool) -> None:
    """``ptr op off`` into dst. ``off_is_dst``: the instruction was scalar += pointer."""
    regs, opcode = cur_regs(env), insn.code & 0xF0
    if _impossible(off):
        mark_reg_unknown(env, regs, insn.dst)
        return
    if insn.code & 7 != op.BPF_ALU64:
        if opcode == op.BPF_SUB and env.allow_ptr_leaks:
            mark_reg_unknown(env, regs, insn.dst)
            return
        raise _refuse(env, f"R{insn.dst} 32-bit pointer arithmetic prohibited\n")
    if ptr.type & st.PTR_MAYBE_NULL:
        name = reg_type_str(env, ptr.type)
        raise _refuse(env, f"R{insn.dst} pointer arithmetic on {name} prohibited, null-check it first\n")
    if ptr.type & st.BASE_TYPE_MASK == st.PTR_TO_MEM and ptr.type & st.PTR_UNTRUSTED:
        return  # read by probing loads: its offset means nothing
    _check_movable(env, insn, ptr, off)
    check_reg_sane_offset(env, off, ptr.type)
    check_reg_sane_offset(env, ptr, ptr.type)
    start = _as_pointer(regs[insn.dst], ptr) if off_is_dst else ptr.copy()
    __mark_reg32_unbounded(start)
    info = sanitize.SanitizeInfo()
    masked = not env.bypass_spec_v1 and sanitize.sanitize_needed(opcode)
    try:
        if masked:
            if not off_is_dst:
                regs[insn.dst] = start
            sanitize.prepare_ptr_sanitation(env, insn, ptr, off, not off_is_dst, info)
        moved = start.copy()
        _move_pointer(env, insn, moved, ptr, off, off_is_dst)
        check_reg_sane_offset(env, moved, ptr.type)
        reg_bounds_sync(moved)
        regs[insn.dst] = moved
        sanitize.sanitize_check_bounds(env, insn, moved)
        if masked:
            sanitize.commit_ptr_sanitation(env, insn, moved, info)
    except sanitize.Unmaskable as e:
        raise sanitize.sanitize_err(env, insn, e.reason, off_is_dst) from None


# --- scalars ----------------------------------------------------------------------------------------------------


def adjust_scalar_min_max_vals(env: VerifierEnv, insn: Instruction, dst: RegState, src: RegState) -> RegState:
    """The scalar that ``dst op src`` gives; neither operand is changed."""
    opcode, alu32 = insn.code & 0xF0, insn.code & 7 == op.BPF_ALU
    if not is_safe_to_compute_dst_reg_range(opcode, alu32, src):
        return unknown_reg(env)
    if not env.bypass_spec_v1 and sanitize.sanitize_needed(opcode):
        sanitize.sanitize_val_alu(env, insn)
    if not dst.var_off.mask and not src.var_off.mask and not dst.id:
        value = fold_constants(opcode, alu32, dst.var_off.value, src.var_off.value)
        if value is not None:
            return known_reg(value, dst.precise)
    result = dst.copy()
    if opcode in (op.BPF_AND, op.BPF_OR) and not src.var_off.mask:
        maybe_fork_scalars(env, insn, result)
    adjust_scalar_numbers(opcode, alu32, result, src)
    return result


def _unlinked(reg: RegState) -> RegState:
    reg = reg.copy()
    reg.id = reg.off = 0
    return reg


def maybe_fork_scalars(env: VerifierEnv, insn: Instruction, dst: RegState) -> None:
    """A draft that is -1 or 0, the copies of a sign bit, about to be masked: walk the instruction for 0 later, go on with -1."""
    if (dst.smin_value, dst.smax_value) == (-1, 0):
        mark = __mark_reg_known
    elif (dst.s32_min_value, dst.s32_max_value) == (-1, 0):
        mark = __mark_reg32_known
    else:
        return
    zero = dst.copy()
    mark(zero, 0)
    mark(dst, -1)
    branch = push_stack(env, env.insn_idx, env.insn_idx, False)
    branch.frame[branch.curframe].regs[insn.dst] = zero


def _constant_delta(insn: Instruction, dst: RegState, src: RegState) -> int | None:
    """How far ``r += K`` or ``r -= K`` moves a register from those it was copied from; None where no such link can be kept.

    One link a register, and a distance that fits s32; in 32 bits only of a register whose high half is zero.
    """
    alu32, opcode = insn.code & 7 == op.BPF_ALU, insn.code & 0xF0
    if opcode not in (op.BPF_ADD, op.BPF_SUB) or not is_reg_const(src, alu32) or dst.id & BPF_ADD_CONST:
        return None
    if insn.code & op.BPF_X and insn.src == insn.dst:
        return None
    value = reg_const_value(src, alu32)
    delta = s32(value) if alu32 else s64(value)
    if not S32_MIN <= delta <= S32_MAX or (alu32 and dst.umax_value > U32_MAX):
        return None
    if opcode == op.BPF_SUB:
        return None if delta == S32_MIN else -delta
    return delta


def _link_constant_delta(env: VerifierEnv, insn: Instruction, result: RegState, dst: RegState, src: RegState) -> RegState:
    """``dst`` became ``result``. Moved by a constant, it stays linked to those it was copied from; otherwise it is unlinked."""
    if not result.id:
        return result
    delta = _constant_delta(insn, dst, src) if env.bpf_capable else None
    if delta is None:
        return _unlinked(result)
    result = result.copy()
    result.id |= BPF_ADD_CONST32 if insn.code & 7 == op.BPF_ALU else BPF_ADD_CONST64
    result.off = delta
    return result


def adjust_reg_min_max_vals(env: VerifierEnv, insn: Instruction) -> None:
    """Any operation of two operands: scalars, or a pointer and a scalar. Stores dst."""
    regs = cur_regs(env)
    dst = regs[insn.dst]
    by_register = insn.code & op.BPF_X
    src = regs[insn.src] if by_register else known_reg(insn.imm)
    if src.type != SCALAR_VALUE:
        if dst.type != SCALAR_VALUE:
            _check_pointer_pointer(env, insn)
        else:
            mark_chain_precision(env, insn.dst)
            adjust_ptr_min_max_vals(env, insn, src, regs[insn.dst], True)
        return
    if dst.type != SCALAR_VALUE:
        if by_register:
            mark_chain_precision(env, insn.src)
            src = regs[insn.src]
        adjust_ptr_min_max_vals(env, insn, dst, src, False)
        return
    if by_register and dst.precise:
        mark_chain_precision(env, insn.src)
        dst, src = regs[insn.dst], regs[insn.src]
    result = adjust_scalar_min_max_vals(env, insn, dst, src)
    regs[insn.dst] = _link_constant_delta(env, insn, result, dst, src)


def _check_pointer_pointer(env: VerifierEnv, insn: Instruction) -> None:
    """Two pointers: only their difference, where pointers may leak."""
    opcode = insn.code & 0xF0
    if opcode != op.BPF_SUB or not env.allow_ptr_leaks:
        raise _refuse(env, f"R{insn.dst} pointer {ALU_SIGNS[opcode]} pointer prohibited\n")
    mark_reg_unknown(env, cur_regs(env), insn.dst)


# --- the instructions -------------------------------------------------------------------------------------------


def _check_neg(env: VerifierEnv, insn: Instruction) -> None:
    if insn.code & op.BPF_X or insn.src or insn.off or insn.imm:
        raise _refuse(env, "BPF_NEG uses reserved fields\n", errno.EINVAL)
    _check_unary(env, insn)
    regs = cur_regs(env)
    if regs[insn.dst].type == SCALAR_VALUE:
        check_reg_arg(env, insn.dst, DST_OP_NO_MARK)
        result = adjust_scalar_min_max_vals(env, insn, regs[insn.dst], regs[insn.dst])
        regs[insn.dst] = _unlinked(result) if result.id else result
    else:
        check_reg_arg(env, insn.dst, DST_OP)


def _check_end(env: VerifierEnv, insn: Instruction) -> None:
    bswap_with_source = insn.code & 7 == op.BPF_ALU64 and insn.code & op.BPF_X
    if insn.src or insn.off or insn.imm not in (16, 32, 64) or bswap_with_source:
        raise _refuse(env, "BPF_END uses reserved fields\n", errno.EINVAL)
    _check_unary(env, insn)
    regs = cur_regs(env)
    if regs[insn.dst].type != SCALAR_VALUE:
        check_reg_arg(env, insn.dst, DST_OP)
        return
    check_reg_arg(env, insn.dst, DST_OP_NO_MARK)
    result = regs[insn.dst].copy()
    scalar_byte_swap(result, insn.imm >> 3, insn.code != op.BPF_ALU | op.BPF_END | op.BPF_TO_LE)
    regs[insn.dst] = result


def _check_unary(env: VerifierEnv, insn: Instruction) -> None:
    check_reg_arg(env, insn.dst, SRC_OP)
    if is_pointer_value(env, insn.dst):
        raise _refuse(env, f"R{insn.dst} pointer arithmetic prohibited\n")


def _check_mov_imm(env: VerifierEnv, insn: Instruction) -> None:
    if insn.src or insn.off:
        raise _refuse(env, "BPF_MOV uses reserved fields\n", errno.EINVAL)
    check_reg_arg(env, insn.dst, DST_OP_NO_MARK)
    value = insn.imm if insn.code & 7 == op.BPF_ALU64 else insn.imm & U32_MAX
    cur_regs(env)[insn.dst] = known_reg(value, not env.bpf_capable)


def _check_mov_fields(env: VerifierEnv, insn: Instruction) -> None:
    if insn.code & 7 == op.BPF_ALU64 and insn.off == BPF_ADDR_SPACE_CAST:
        if insn.imm not in (1, 1 << 16):
            text = "addr_space_cast insn can only convert between address space 1 and 0\n"
        else:
            text = "addr_space_cast insn can only be used in a program that has an associated arena\n"
        raise _refuse(env, text, errno.EINVAL)
    widths = (0, 8, 16, 32) if insn.code & 7 == op.BPF_ALU64 else (0, 8, 16)
    if insn.off not in widths or insn.imm:
        raise _refuse(env, "BPF_MOV uses reserved fields\n", errno.EINVAL)


def _check_mov_reg(env: VerifierEnv, insn: Instruction) -> None:
    _check_mov_fields(env, insn)
    check_reg_arg(env, insn.src, SRC_OP)
    check_reg_arg(env, insn.dst, DST_OP_NO_MARK)
    regs = cur_regs(env)
    if insn.code & 7 == op.BPF_ALU64 and not insn.off:
        src = assign_scalar_id_before_mov(env, regs[insn.src])
        regs[insn.src] = src
        regs[insn.dst] = src
        return
    if is_pointer_value(env, insn.src):
        part = "sign-extension part" if insn.code & 7 == op.BPF_ALU64 else "partial copy"
        raise _refuse(env, f"R{insn.src} {part} of pointer\n")
    if regs[insn.src].type == SCALAR_VALUE:
        _narrow_copy(env, insn, regs)
        return
    mark_reg_unknown(env, regs, insn.dst)
    if insn.code & 7 == op.BPF_ALU:
        _zext_dst(regs, insn.dst)


def _zext_dst(regs: list[RegState], regno: int) -> None:
    reg = regs[regno].copy()
    zext_32_to_64(reg)
    regs[regno] = reg


def _narrow_copy(env: VerifierEnv, insn: Instruction, regs: list[RegState]) -> None:
    """A copy of a part: it stays linked to its source only where the part is the whole value."""
    alu32 = insn.code & 7 == op.BPF_ALU
    limit = 1 << (insn.off - 1) if insn.off else 1 << 32
    src = regs[insn.src]
    whole = src.umax_value < limit
    if whole:
        src = regs[insn.src] = assign_scalar_id_before_mov(env, src)
    dst = src.copy()
    if not whole:
        dst.id = dst.off = 0
    if not alu32:
        coerce_reg_to_size_sx(dst, insn.off >> 3)
    else:
        if insn.off:
            coerce_subreg_to_size_sx(dst, insn.off >> 3)
        zext_32_to_64(dst)
    regs[insn.dst] = dst


def assign_scalar_id_before_mov(env: VerifierEnv, src: RegState) -> RegState:
    """The source of a copy, with an id that the copy will share, so that what a branch learns of one holds for both."""
    if src.type != SCALAR_VALUE:
        return src
    if src.id & BPF_ADD_CONST:
        src = src.copy()
        src.id = src.off = 0
    if not src.id and src.var_off.mask:
        src = src.copy()
        src.id = env.new_id()
    return src


def _check_binary(env: VerifierEnv, insn: Instruction) -> None:
    code, dst, src, off, imm = insn
    opcode, by_register = code & 0xF0, code & op.BPF_X
    divides = opcode in (op.BPF_DIV, op.BPF_MOD)
    if (imm if by_register else src) or not (off == 0 or (off == 1 and divides)):
        raise _refuse(env, "BPF_ALU uses reserved fields\n", errno.EINVAL)
    if by_register:
        check_reg_arg(env, src, SRC_OP)
    check_reg_arg(env, dst, SRC_OP)
    if not by_register:
        if divides and imm == 0:
            raise _refuse(env, "div by zero\n", errno.EINVAL)
        width = 64 if code & 7 == op.BPF_ALU64 else 32
        if opcode in (op.BPF_LSH, op.BPF_RSH, op.BPF_ARSH) and not 0 <= imm < width:
            raise _refuse(env, f"invalid shift {imm}\n", errno.EINVAL)
    check_reg_arg(env, dst, DST_OP_NO_MARK)
    adjust_reg_min_max_vals(env, insn)


def _check_invalid(env: VerifierEnv, insn: Instruction) -> None:
    raise _refuse(env, f"invalid BPF_ALU opcode {insn.code & 0xF0:x}\n", errno.EINVAL)


def _handler(code: int) -> Callable[[VerifierEnv, Instruction], None]:
    opcode = code & 0xF0
    if opcode > op.BPF_END:
        return _check_invalid
    if opcode == op.BPF_MOV:
        return _check_mov_reg if code & op.BPF_X else _check_mov_imm
    return {op.BPF_NEG: _check_neg, op.BPF_END: _check_end}.get(opcode, _check_binary)


_HANDLERS: Final = tuple(_handler(code) for code in range(256))


def _fold_known(env: VerifierEnv, insn: Instruction) -> bool:
    """The commonest case in short: both operands are known numbers, and nothing else has to be looked at. True when done."""
    code, dst, src, off, imm = insn
    if off or dst > 9:
        return False
    regs = cur_regs(env)
    reg = regs[dst]
    if reg.type != SCALAR_VALUE or reg.var_off.mask or reg.id:
        return False
    if code & op.BPF_X:
        if imm or src > 9 or reg.precise:
            return False
        other = regs[src]
        if other.type != SCALAR_VALUE or other.var_off.mask:
            return False
        imm = other.umin_value
        env.scratched_regs |= 1 << src
    elif src:
        return False
    value = fold_constants(code & 0xF0, code & 7 == op.BPF_ALU, reg.umin_value, imm)
    if value is None:
        return False
    env.scratched_regs |= 1 << dst
    regs[dst] = known_reg(value, reg.precise)
    return True


def check_alu_op(env: VerifierEnv, insn: Instruction) -> None:
    """One instruction of class ALU or ALU64 at ``env.insn_idx``, on the current state."""
    if env.bypass_spec_v1 and insn.code & 0xF0 in FOLDED and _fold_known(env, insn):
        return
    _HANDLERS[insn.code](env, insn)
    regs = cur_regs(env)
    if bounds_violation(regs[insn.dst]):
        reg = regs[insn.dst].copy()
        reg_bounds_sanity_check(env, reg, "alu")
        regs[insn.dst] = reg
