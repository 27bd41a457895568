"""Conditional jumps: which way, and what each way knows.

Forks the path (`push_stack`), refines both sides' registers, carries what was learnt to the registers linked to them, and
turns maybe-NULL pointers into pointers or zero. The arithmetic of comparisons is `cond`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction
from netbpf.verifier import state as st
from netbpf.verifier.bounds import reg_bounds_sync
from netbpf.verifier.cond import FLIPPED, REVERSED, is_scalar_branch_taken, regs_refine_cond_op
from netbpf.verifier.env import BPF_LOG_LEVEL, Reject, VerifierEnv
from netbpf.verifier.history import INSN_F_DST_REG_STACK, INSN_F_SRC_REG_STACK, LinkedReg, push_jmp_history
from netbpf.verifier.log import print_insn_state, verbose
from netbpf.verifier.path import push_stack
from netbpf.verifier.precision import mark_chain_precision
from netbpf.verifier.regs import (
    SRC_OP,
    check_reg_arg,
    is_pointer_value,
    is_reg_const,
    known_reg,
    mark_ptr_not_null_reg,
    reg_bounds_sanity_check,
    reg_const_value,
    zext_32_to_64,
)
from netbpf.verifier.sanitize import sanitize_speculative_path
from netbpf.verifier.scalar_ops import scalar32_min_max_add, scalar_min_max_add
from netbpf.verifier.state import BPF_ADD_CONST, BPF_ADD_CONST32, SCALAR_VALUE, FuncState, RegState, StackSlot, VerifierState
from netbpf.verifier.tnum import tnum_add

LINKED_REGS_MAX: Final = 6
MAX_PACKET_OFF: Final = 0xFFFF
AT_PKT_END: Final = -1
BEYOND_PKT_END: Final = -2

# base types that are never NULL once PTR_MAYBE_NULL is gone
NEVER_NULL: Final = frozenset(
    {
        st.PTR_TO_SOCKET,
        st.PTR_TO_TCP_SOCK,
        st.PTR_TO_MAP_VALUE,
        st.PTR_TO_MAP_KEY,
        st.PTR_TO_SOCK_COMMON,
        st.PTR_TO_MEM,
        st.CONST_PTR_TO_MAP,
    }
)
_PACKET_TYPES: Final = frozenset({st.PTR_TO_PACKET, st.PTR_TO_PACKET_META})


# --- decided already? -------------------------------------------------------------------------------------------


def reg_not_null(reg: RegState) -> bool:
    t = reg.type
    if t & st.PTR_MAYBE_NULL:
        return False
    base = t & st.BASE_TYPE_MASK
    if base == st.PTR_TO_MEM:
        return not t & st.PTR_UNTRUSTED
    return base in NEVER_NULL or (base == st.PTR_TO_BTF_ID and bool(t & st.PTR_TRUSTED))


def reg_is_pkt_pointer_any(reg: RegState) -> bool:
    return reg.type & st.BASE_TYPE_MASK in _PACKET_TYPES or reg.type == st.PTR_TO_PACKET_END


def is_pkt_ptr_branch_taken(dst: RegState, src: RegState, opcode: int) -> int:
    """A packet pointer already known to stand at or behind the packet's end."""
    if src.type == st.PTR_TO_PACKET_END:
        pkt = dst
    elif dst.type == st.PTR_TO_PACKET_END:
        pkt, opcode = src, FLIPPED[opcode]
    else:
        return -1
    if pkt.range == BEYOND_PKT_END and opcode in (op.BPF_JLE, op.BPF_JGT):
        return int(opcode == op.BPF_JGT)
    if pkt.range < 0 and opcode in (op.BPF_JLT, op.BPF_JGE):
        return int(opcode == op.BPF_JGE)
    return -1


def is_branch_taken(reg1: RegState, reg2: RegState, opcode: int, is_jmp32: bool) -> int:
    """1: always, 0: never, -1: both ways. A pointer is decided only against zero, when it cannot be NULL."""
    if reg1.type == SCALAR_VALUE and reg2.type == SCALAR_VALUE:
        return is_scalar_branch_taken(reg1, reg2, opcode, is_jmp32)
    if not is_jmp32 and reg_is_pkt_pointer_any(reg1) and reg_is_pkt_pointer_any(reg2):
        return is_pkt_ptr_branch_taken(reg1, reg2, opcode)
    if not is_reg_const(reg2, is_jmp32):
        reg1, reg2 = reg2, reg1
    if not is_reg_const(reg2, is_jmp32) or not reg_not_null(reg1) or reg_const_value(reg2, is_jmp32):
        return -1
    return {op.BPF_JEQ: 0, op.BPF_JNE: 1}.get(opcode, -1)


# --- what each side learns --------------------------------------------------------------------------------------


def _narrowed(dst: RegState, src: RegState, one: bool, opcode: int, is_jmp32: bool) -> tuple[RegState, RegState]:
    """Drafts of both, narrowed by ``dst op src``; one object for both when they are ``one`` register."""
    reg1 = dst.copy()
    reg2 = reg1 if one else src.copy()
    regs_refine_cond_op(reg1, reg2, opcode, is_jmp32)
    reg_bounds_sync(reg1)
    reg_bounds_sync(reg2)
    return reg1, reg2


def reg_set_min_max(
    env: VerifierEnv, dst: RegState, src: RegState, one: bool, opcode: int, is_jmp32: bool
) -> tuple[tuple[RegState, RegState], tuple[RegState, RegState]]:
    """((dst, src) where the jump is taken, (dst, src) where it is not), as new values; pointers stay what they are.

    ``one``: both operands are the same register.
    """
    if dst.type != SCALAR_VALUE or src.type != SCALAR_VALUE:
        return (dst, src), (dst, src)
    false = _narrowed(dst, src, one, REVERSED[opcode], is_jmp32)
    true = _narrowed(dst, src, one, opcode, is_jmp32)
    for pair, name in ((true, "true_reg"), (false, "false_reg")):
        for number, reg in enumerate(pair, 1):
            reg_bounds_sanity_check(env, reg, f"{name}{number}")
    return true, false


# --- linked scalars ---------------------------------------------------------------------------------------------


def _linked_id(reg: RegState) -> int:
    return reg.id & ~BPF_ADD_CONST


def _unlinked(reg: RegState) -> RegState:
    reg = reg.copy()
    reg.id = reg.off = 0
    return reg


def collect_linked_regs(env: VerifierEnv, vstate: VerifierState, reg_id: int, linked: list[LinkedReg]) -> None:
    """Append every live scalar of ``vstate`` that shares ``reg_id``; beyond the sixth it loses its id instead."""
    reg_id &= ~BPF_ADD_CONST
    for frameno in range(vstate.curframe, -1, -1):
        func = vstate.frame[frameno]
        regs, stack = func.regs, func.stack
        at = vstate.insn_idx if frameno == vstate.curframe else vstate.frame[frameno + 1].callsite
        live = env.insn_aux[at].live_regs_before
        for i in range(op.BPF_REG_FP):
            reg = regs[i]
            if live >> i & 1 and reg.id and reg.type == SCALAR_VALUE and _linked_id(reg) == reg_id:
                if len(linked) < LINKED_REGS_MAX:
                    linked.append(LinkedReg(frameno, True, i))
                else:
                    regs[i] = _unlinked(reg)
        for i, (types, reg) in enumerate(stack):
            if reg.id and reg.type == SCALAR_VALUE and types[-1] == st.STACK_SPILL and _linked_id(reg) == reg_id:
                if len(linked) < LINKED_REGS_MAX:
                    linked.append(LinkedReg(frameno, False, i))
                else:
                    stack[i] = StackSlot(types, _unlinked(reg))


def _linked_value(reg: RegState, known: RegState) -> RegState:
    """What ``reg`` is when ``known``, to which it is linked, was refined: the same, or the same at a constant distance.

    Distances in 32 and in 64 bits do not mix: then ``reg`` stays.
    """
    if (reg.id ^ known.id) & BPF_ADD_CONST == BPF_ADD_CONST:
        return reg
    if reg.off == known.off or not (reg.id | known.id) & BPF_ADD_CONST:
        return known
    moved = known.copy()
    moved.off, moved.id = reg.off, reg.id
    delta = known_reg(reg.off - known.off)
    scalar32_min_max_add(moved, delta)
    scalar_min_max_add(moved, delta)
    moved.var_off = tnum_add(moved.var_off, delta.var_off)
    if (reg.id | known.id) & BPF_ADD_CONST32:
        zext_32_to_64(moved)
    reg_bounds_sync(moved)
    return moved


def sync_linked_regs(vstate: VerifierState, known: RegState, linked: list[LinkedReg]) -> None:
    """``known`` was refined in ``vstate``: so are the scalars linked to it."""
    known_id = _linked_id(known)
    for frameno, is_reg, num in linked:
        func = vstate.frame[frameno]
        reg = func.regs[num] if is_reg else func.stack[num].spilled_ptr
        if reg.type != SCALAR_VALUE or reg is known or _linked_id(reg) != known_id:
            continue
        value = _linked_value(reg, known)
        if is_reg:
            func.regs[num] = value
        else:
            func.stack[num] = StackSlot(func.stack[num].slot_type, value)


# --- every register of a state ----------------------------------------------------------------------------------


def _map_regs(vstate: VerifierState, change: Callable[[RegState], RegState]) -> None:
    """Replace each register and spilled register of every frame by ``change(reg)``."""
    for func in vstate.frame[: vstate.curframe + 1]:
        _map_func_regs(func, change)


def _map_func_regs(func: FuncState, change: Callable[[RegState], RegState]) -> None:
    func.regs[:] = [change(reg) for reg in func.regs]
    for i, (types, reg) in enumerate(func.stack):
        if types[0] == st.STACK_SPILL:
            new = change(reg)
            if new is not reg:
                func.stack[i] = StackSlot(types, new)


# --- NULL -------------------------------------------------------------------------------------------------------


def reg_may_point_to_spin_lock(reg: RegState) -> bool:
    if reg.type & st.BASE_TYPE_MASK != st.PTR_TO_MAP_VALUE:
        return False
    return not LOCK_FIELDS.isdisjoint(reg.map_ptr.btf_record)


LOCK_FIELDS: Final = frozenset({"spin_lock", "res_spin_lock"})


def _null_or_not(env: VerifierEnv, reg: RegState, is_null: bool) -> RegState:
    """A register found to be NULL is the scalar 0; found not to be, it loses the doubt and (locks aside) its id."""
    if reg.smin_value or reg.smax_value or reg.var_off != st.TNUM_ZERO:
        return reg
    if reg.off and not reg.type & (st.MEM_ALLOC | st.NON_OWN_REF):
        return reg
    new = reg.copy()
    if is_null:
        new.type, new.id, new.ref_obj_id = SCALAR_VALUE, 0, 0
        new.precise |= not env.bpf_capable
        return new
    mark_ptr_not_null_reg(new)
    if not reg_may_point_to_spin_lock(new):
        new.id = 0
    return new


def mark_ptr_or_null_regs(env: VerifierEnv, vstate: VerifierState, regno: int, is_null: bool) -> None:
    """The pointer in ``regno``, and every copy of it, was compared with NULL. A reference that is NULL is none."""
    reg = vstate.frame[vstate.curframe].regs[regno]
    reg_id, ref_obj_id = reg.id, reg.ref_obj_id
    if is_null and ref_obj_id and ref_obj_id == reg_id:
        from netbpf.verifier.refs import release_reference_nomark

        release_reference_nomark(vstate, reg_id)

    def change(reg: RegState) -> RegState:
        if reg.id == reg_id and reg.type & st.PTR_MAYBE_NULL:
            return _null_or_not(env, reg, is_null)
        return reg

    _map_regs(vstate, change)


# --- packet pointers --------------------------------------------------------------------------------------------


def find_good_pkt_pointers(vstate: VerifierState, dst: RegState, ptr_type: int, range_right_open: bool) -> None:
    """``dst`` lies within the packet: every pointer of its id may reach as far as its fixed offset."""
    if dst.off < 0 or (dst.off == 0 and range_right_open):
        return
    if dst.umax_value > MAX_PACKET_OFF or dst.umax_value + dst.off > MAX_PACKET_OFF:
        return
    reach = dst.off + range_right_open

    def change(reg: RegState) -> RegState:
        if reg.type != ptr_type or reg.id != dst.id or reg.range >= reach:
            return reg
        reg = reg.copy()
        reg.range = reach
        return reg

    _map_regs(vstate, change)


def mark_pkt_end(vstate: VerifierState, regno: int, range_open: bool) -> None:
    """This packet pointer stands at the end of the packet, or behind it."""
    regs = vstate.frame[vstate.curframe].regs
    if regs[regno].type != st.PTR_TO_PACKET:
        return
    reg = regs[regno].copy()
    reg.range = BEYOND_PKT_END if range_open else AT_PKT_END
    regs[regno] = reg


def reg_is_init_pkt_pointer(reg: RegState, which: int) -> bool:
    return reg.type == which and not reg.off and not reg.id and reg.var_off == st.TNUM_ZERO


def _is_inner(reg: RegState, end: RegState) -> bool:
    """``reg`` points into the area that ``end`` bounds."""
    if reg.type == st.PTR_TO_PACKET:
        return end.type == st.PTR_TO_PACKET_END
    return reg.type == st.PTR_TO_PACKET_META and reg_is_init_pkt_pointer(end, st.PTR_TO_PACKET)


def try_match_pkt_pointers(
    insn: Instruction, dst: RegState, src: RegState, this_branch: VerifierState, other_branch: VerifierState
) -> bool:
    """A comparison of a packet pointer with its end proves a range on one side. False when it is no such comparison."""
    opcode = insn.code & 0xF0
    if not insn.code & op.BPF_X or insn.code & 7 == op.BPF_JMP32:
        return False
    if opcode not in (op.BPF_JGT, op.BPF_JGE, op.BPF_JLT, op.BPF_JLE):
        return False
    if _is_inner(dst, src):
        inner, regno = dst, insn.dst
    elif _is_inner(src, dst):
        inner, regno, opcode = src, insn.src, FLIPPED[opcode]
    else:
        return False
    # inner op end: below the end where "<" or "<=" holds; "end" itself is excluded by "<" being true or ">=" being false
    within, beyond = (other_branch, this_branch) if opcode in (op.BPF_JLT, op.BPF_JLE) else (this_branch, other_branch)
    strict = opcode in (op.BPF_JLT, op.BPF_JGE)
    find_good_pkt_pointers(within, inner, inner.type, strict)
    mark_pkt_end(beyond, regno, not strict)
    return True


# --- the instructions -------------------------------------------------------------------------------------------


def _check_may_goto(env: VerifierEnv, insn: Instruction) -> None:
    """Walk the jump now, the fall-through later; there a loop's imprecise scalars are widened."""
    from netbpf.verifier.loops import find_prev_entry, widen_imprecise_scalars

    if insn.code != op.BPF_JMP | op.BPF_JCOND or insn.src or insn.dst or insn.imm:
        verbose(env, f"invalid may_goto imm {insn.imm}\n")
        raise Reject(errno.EINVAL)
    state, idx = env.cur_state, env.insn_idx
    assert state is not None
    previous = find_prev_entry(env, state.parent, idx)
    queued = push_stack(env, idx + 1, idx, False, errno.ENOMEM)
    queued.may_goto_depth += 1
    if previous is not None:
        widen_imprecise_scalars(env, previous, queued)
    env.insn_idx += insn.off


def _check_operands(env: VerifierEnv, insn: Instruction, state: VerifierState) -> RegState:
    """Fields and operands are legal; returns the source, a constant for an immediate."""
    check_reg_arg(env, insn.dst, SRC_OP)
    regs = state.frame[state.curframe].regs
    dst, flags = regs[insn.dst], 0
    by_register = insn.code & op.BPF_X
    if (by_register and insn.imm) or (not by_register and insn.src):
        verbose(env, "BPF_JMP/JMP32 uses reserved fields\n")
        raise Reject(errno.EINVAL)
    if by_register:
        check_reg_arg(env, insn.src, SRC_OP)
        src = regs[insn.src]
        both_packet = reg_is_pkt_pointer_any(dst) and reg_is_pkt_pointer_any(src)
        if not both_packet and is_pointer_value(env, insn.src):
            verbose(env, f"R{insn.src} pointer comparison prohibited\n")
            raise Reject(errno.EACCES)
        flags = INSN_F_SRC_REG_STACK if src.type == st.PTR_TO_STACK else 0
    else:
        src = known_reg(insn.imm)
    if dst.type == st.PTR_TO_STACK:
        flags |= INSN_F_DST_REG_STACK
    if flags:
        push_jmp_history(env, state, flags)
    return src


def _follow_predicted(env: VerifierEnv, insn: Instruction, state: VerifierState, taken: bool) -> None:
    """Only one way is possible; where programs may not speculate, the other is walked as a misprediction."""
    if not env.bypass_spec_v1:
        other = env.insn_idx + 1 + (0 if taken else insn.off)
        sanitize_speculative_path(env, insn, other, env.insn_idx)
    if env.log_level & BPF_LOG_LEVEL:
        print_insn_state(env, state, state.curframe)
    if taken:
        env.insn_idx += insn.off


def _collect(env: VerifierEnv, state: VerifierState, insn: Instruction, dst: RegState, src: RegState) -> list[LinkedReg]:
    """The scalars linked to the operands, remembered in the history for the precision walk."""
    linked: list[LinkedReg] = []
    if src.type == SCALAR_VALUE and src.id:
        collect_linked_regs(env, state, src.id, linked)
    if dst.type == SCALAR_VALUE and dst.id:
        collect_linked_regs(env, state, dst.id, linked)
    if len(linked) > 1:
        push_jmp_history(env, state, 0, tuple(linked))
    return linked


def _store_refined(vstate: VerifierState, insn: Instruction, pair: tuple[RegState, RegState], linked: list[LinkedReg]) -> None:
    """Store both operands of one side, then what their links imply, the source's first."""
    regs = vstate.frame[vstate.curframe].regs
    regs[insn.dst] = pair[0]
    if insn.code & op.BPF_X:
        regs[insn.src] = pair[1]
        if linked and regs[insn.src].type == SCALAR_VALUE and regs[insn.src].id:
            sync_linked_regs(vstate, regs[insn.src], linked)
    if linked and regs[insn.dst].type == SCALAR_VALUE and regs[insn.dst].id:
        sync_linked_regs(vstate, regs[insn.dst], linked)


def _lift_null_by_equality(insn: Instruction, regs: list[RegState], other_regs: list[RegState]) -> None:
    """A pointer that equals one which is not NULL is not NULL."""
    opcode = insn.code & 0xF0
    if opcode not in (op.BPF_JEQ, op.BPF_JNE) or insn.code & 7 == op.BPF_JMP32 or not insn.code & op.BPF_X:
        return
    dst, src = regs[insn.dst], regs[insn.src]
    if dst.type == SCALAR_VALUE or src.type == SCALAR_VALUE:
        return
    if (dst.type ^ src.type) & st.PTR_MAYBE_NULL == 0:
        return
    if st.PTR_TO_BTF_ID in (dst.type & st.BASE_TYPE_MASK, src.type & st.BASE_TYPE_MASK):
        return
    regno = insn.src if src.type & st.PTR_MAYBE_NULL else insn.dst
    equal_regs = other_regs if opcode == op.BPF_JEQ else regs
    lifted = equal_regs[regno].copy()
    mark_ptr_not_null_reg(lifted)
    equal_regs[regno] = lifted


def _compares_with_null(insn: Instruction, dst: RegState) -> bool:
    """``== 0`` or ``!= 0``, written as an immediate: a register that is zero is not looked at."""
    if insn.code not in (op.BPF_JMP | op.BPF_JEQ, op.BPF_JMP | op.BPF_JNE) or insn.imm:
        return False
    return bool(dst.type & st.PTR_MAYBE_NULL)


def _both_ways(env: VerifierEnv, insn: Instruction, this_branch: VerifierState, src: RegState) -> None:
    regs = this_branch.frame[this_branch.curframe].regs
    linked = _collect(env, this_branch, insn, regs[insn.dst], src)
    by_register = insn.code & op.BPF_X
    if by_register:
        src = regs[insn.src]
    other_branch = push_stack(env, env.insn_idx + insn.off + 1, env.insn_idx, False)
    other_regs = other_branch.frame[other_branch.curframe].regs
    one = bool(by_register) and insn.src == insn.dst
    true, false = reg_set_min_max(env, regs[insn.dst], src, one, insn.code & 0xF0, insn.code & 7 == op.BPF_JMP32)
    _store_refined(this_branch, insn, false, linked)
    _store_refined(other_branch, insn, true, linked)
    _lift_null_by_equality(insn, regs, other_regs)
    dst = regs[insn.dst]
    if by_register:
        src = regs[insn.src]
    if _compares_with_null(insn, dst):
        mark_ptr_or_null_regs(env, this_branch, insn.dst, insn.code & 0xF0 == op.BPF_JNE)
        mark_ptr_or_null_regs(env, other_branch, insn.dst, insn.code & 0xF0 == op.BPF_JEQ)
    elif not try_match_pkt_pointers(insn, dst, src, this_branch, other_branch) and is_pointer_value(env, insn.dst):
        verbose(env, f"R{insn.dst} pointer comparison prohibited\n")
        raise Reject(errno.EACCES)
    if env.log_level & BPF_LOG_LEVEL:
        print_insn_state(env, this_branch, this_branch.curframe)


def _follow_known(env: VerifierEnv, insn: Instruction, state: VerifierState) -> bool:
    """The commonest case in short: a known number beside an immediate, in 64 bits. True when done."""
    if insn.src or insn.dst > 9:
        return False
    reg = state.frame[state.curframe].regs[insn.dst]
    if reg.type != SCALAR_VALUE or reg.var_off.mask:
        return False
    taken = is_scalar_branch_taken(reg, known_reg(insn.imm), insn.code & 0xF0, False)
    mark_chain_precision(env, insn.dst)
    if taken:
        env.insn_idx += insn.off
    return True


_IN_SHORT: Final = frozenset(op.BPF_JMP | opcode | op.BPF_K for opcode in REVERSED)


def check_cond_jmp_op(env: VerifierEnv, insn: Instruction) -> None:
    """A conditional jump at ``env.insn_idx``, which this moves by ``off`` where only the jump is followed; the caller adds
    the step to the next slot."""
    opcode = insn.code & 0xF0
    if opcode == op.BPF_JA or opcode > op.BPF_JCOND:
        verbose(env, f"invalid BPF_JMP/JMP32 opcode {opcode:x}\n")
        raise Reject(errno.EINVAL)
    if opcode == op.BPF_JCOND:
        _check_may_goto(env, insn)
        return
    state = env.cur_state
    assert state is not None
    quiet = env.bypass_spec_v1 and not env.log_level
    if quiet and insn.code in _IN_SHORT and _follow_known(env, insn, state):
        return
    src = _check_operands(env, insn, state)
    regs = state.frame[state.curframe].regs
    taken = is_branch_taken(regs[insn.dst], src, opcode, insn.code & 7 == op.BPF_JMP32)
    if taken < 0:
        _both_ways(env, insn, state, src)
        return
    if regs[insn.dst].type == SCALAR_VALUE:
        mark_chain_precision(env, insn.dst)
    if insn.code & op.BPF_X and src.type == SCALAR_VALUE:
        mark_chain_precision(env, insn.src)
    _follow_predicted(env, insn, state, taken == 1)
