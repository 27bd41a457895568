"""Pointer arithmetic of programs that may not speculate past it (no CAP_PERFMON): limits, refusals and forked paths.

The kernel masks the offset of such an addition at run time so that a mispredicted path cannot leave the object. The mask
must be one per instruction, whatever path leads there, and what happens behind a mask that did cut is walked too, as a
speculative path. Here only what that means for the verdict: the `alu_state`/`alu_limit` of an instruction, and the forks.
"""

from __future__ import annotations

import errno
from enum import Enum
from typing import Final

from netbpf.ints import U32_MAX, s32
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import BPF_ADD, BPF_SUB, BPF_X, MAX_BPF_STACK
from netbpf.verifier import state as st
from netbpf.verifier.env import InsnAux, Reject, VerifierEnv
from netbpf.verifier.log import verbose
from netbpf.verifier.path import push_stack
from netbpf.verifier.regs import cur_regs, mark_reg_unknown
from netbpf.verifier.state import RegState
from netbpf.verifier.tnum import tnum_strn

BPF_ALU_SANITIZE_SRC: Final = 1
BPF_ALU_SANITIZE_DST: Final = 2
BPF_ALU_NEG_VALUE: Final = 4
BPF_ALU_NON_POINTER: Final = 8
BPF_ALU_IMMEDIATE: Final = 16


class Reason(Enum):
    """Why an operation cannot be masked. The text takes ``reg`` (the register at fault) and ``verb``."""

    BOUNDS = "R{reg} has unknown scalar with mixed signed bounds"
    TYPE = "R{reg} has pointer with unsupported alu operation"
    PATHS = "R{reg} tried to {verb} from different maps, paths or scalars"
    LIMIT = "R{reg} tried to {verb} beyond pointer bounds"


class Unmaskable(Exception):
    """Internal: ``sanitize_err`` words it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


def sanitize_needed(opcode: int) -> bool:
    return opcode in (BPF_ADD, BPF_SUB)


def can_skip_alu_sanitation(env: VerifierEnv, insn: Instruction) -> bool:
    """Nothing to mask: the program may speculate, the offset is in the instruction, or a barrier stands before it."""
    return env.bypass_spec_v1 or not insn.code & BPF_X or bool(env.insn_aux[env.insn_idx].nospec)


def sanitize_err(env: VerifierEnv, insn: Instruction, reason: Reason, off_is_dst: bool) -> Reject:
    """Log the refusal; the caller raises what this returns. The offset sits in dst or in src."""
    at_fault = {
        Reason.BOUNDS: insn.dst if off_is_dst else insn.src,
        Reason.TYPE: insn.src if off_is_dst else insn.dst,
    }.get(reason, insn.dst)
    text = reason.value.format(reg=at_fault, verb="add" if insn.code & 0xF0 == BPF_ADD else "sub")
    verbose(env, f"{text}, pointer arithmetic with it prohibited for !root\n")
    return Reject(errno.EACCES)


def update_alu_sanitation_state(aux: InsnAux, alu_state: int, alu_limit: int) -> None:
    """One mask per instruction: another path may not need another."""
    if aux.alu_state and (aux.alu_state != alu_state or aux.alu_limit != alu_limit):
        raise Unmaskable(Reason.PATHS)
    aux.alu_state, aux.alu_limit = alu_state, alu_limit


def sanitize_val_alu(env: VerifierEnv, insn: Instruction) -> None:
    """An addition of two scalars: the same instruction may not add to a pointer on another path."""
    if can_skip_alu_sanitation(env, insn):
        return
    try:
        update_alu_sanitation_state(env.insn_aux[env.insn_idx], BPF_ALU_NON_POINTER, 0)
    except Unmaskable as e:
        raise sanitize_err(env, insn, e.reason, False) from None


def sanitize_speculative_path(env: VerifierEnv, insn: Instruction | None, next_idx: int, curr_idx: int) -> None:
    """Fork a speculative path to ``next_idx``; behind a mispredicted compare ``insn`` its operands are unknown."""
    branch = push_stack(env, next_idx, curr_idx, True)
    if insn is None:
        return
    regs = branch.frame[branch.curframe].regs
    mark_reg_unknown(env, regs, insn.dst)
    if insn.code & BPF_X:
        mark_reg_unknown(env, regs, insn.src)


def retrieve_ptr_limit(ptr: RegState, mask_to_left: bool) -> int:
    """How far the pointer may move before it leaves its object, as u32."""
    if ptr.type == st.PTR_TO_STACK:
        # the frame pointer itself is out of bounds, yet a legal start to the left
        limit, end = -(ptr.var_off.value + ptr.off) & U32_MAX, MAX_BPF_STACK + mask_to_left
    elif ptr.type == st.PTR_TO_MAP_VALUE:
        limit = (ptr.smin_value if mask_to_left else ptr.umax_value) + ptr.off & U32_MAX
        end = ptr.map_ptr.spec.value_size
    else:
        raise Unmaskable(Reason.TYPE)
    if limit >= end:
        raise Unmaskable(Reason.LIMIT)
    return limit


class SanitizeInfo:
    """What the check before the operation hands to the one after it (struct bpf_sanitize_info)."""

    __slots__ = ("alu_limit", "alu_state", "mask_to_left")

    def __init__(self) -> None:
        self.alu_state = self.alu_limit = 0
        self.mask_to_left = False


def prepare_ptr_sanitation(
    env: VerifierEnv, insn: Instruction, ptr: RegState, off: RegState, ptr_is_dst: bool, info: SanitizeInfo
) -> None:
    """Before the operation: the direction and the limit, and a speculative path on which the mask made the offset zero.

    The current state must already hold dst as the operation begins (``ptr_is_dst``), else ``ptr`` stands in for it.
    """
    if can_skip_alu_sanitation(env, insn):
        return
    off_is_imm, off_is_neg = not off.var_off.mask, off.smin_value < 0
    state = env.cur_state
    assert state is not None
    if not state.speculative:
        if not off_is_imm and off_is_neg != (off.smax_value < 0):
            raise Unmaskable(Reason.BOUNDS)
        info.mask_to_left = off_is_neg == (insn.code & 0xF0 == BPF_ADD)
        info.alu_limit = retrieve_ptr_limit(ptr, info.mask_to_left)
        info.alu_state = (
            (BPF_ALU_NEG_VALUE if off_is_neg else 0)
            | (BPF_ALU_IMMEDIATE if off_is_imm else 0)
            | (BPF_ALU_SANITIZE_SRC if ptr_is_dst else BPF_ALU_SANITIZE_DST)
        )
        if not off_is_imm:
            env.explore_alu_limits = True
    if not off_is_imm:
        _fork_masked(env, insn, ptr, ptr_is_dst)


def _fork_masked(env: VerifierEnv, insn: Instruction, ptr: RegState, ptr_is_dst: bool) -> None:
    regs = cur_regs(env)
    kept = regs[insn.dst]
    if not ptr_is_dst:
        regs[insn.dst] = ptr
    try:
        sanitize_speculative_path(env, None, env.insn_idx + 1, env.insn_idx)
    except Reject:
        why = "could not be pushed for speculative verification, pointer arithmetic with it prohibited for !root"
        verbose(env, f"R{insn.dst} {why}\n")
        raise
    finally:
        regs[insn.dst] = kept


def commit_ptr_sanitation(env: VerifierEnv, insn: Instruction, moved: RegState, info: SanitizeInfo) -> None:
    """After the operation: the window is how far the pointer really moved; it becomes the instruction's mask."""
    state = env.cur_state
    assert state is not None
    if can_skip_alu_sanitation(env, insn) or state.speculative:
        return
    limit = retrieve_ptr_limit(moved, info.mask_to_left)
    narrowed = abs(s32(info.alu_limit - limit))
    update_alu_sanitation_state(env.insn_aux[env.insn_idx], info.alu_state, narrowed)


def check_stack_access_for_ptr_arithmetic(env: VerifierEnv, regno: int, reg: RegState, off: int) -> None:
    """A stack pointer that was moved must stay within the frame's 512 bytes, by a known distance."""
    if reg.var_off.mask:
        verbose(env, f"R{regno} variable stack access prohibited for !root, var_off={tnum_strn(reg.var_off)} off={off}\n")
    elif off >= 0 or off < -MAX_BPF_STACK:
        verbose(env, f"R{regno} stack pointer arithmetic goes out of range, prohibited for !root; off={off}\n")
    else:
        return
    raise Reject(errno.EACCES)


def sanitize_check_bounds(env: VerifierEnv, insn: Instruction, reg: RegState) -> None:
    """The moved pointer, already stored in dst, must point into its object where its kind can be masked."""
    if env.bypass_spec_v1:
        return
    if reg.type == st.PTR_TO_STACK:
        check_stack_access_for_ptr_arithmetic(env, insn.dst, reg, s32(reg.off + reg.var_off.value))
    elif reg.type == st.PTR_TO_MAP_VALUE:
        from netbpf.verifier.memory import ACCESS_HELPER, check_map_access

        try:
            check_map_access(env, insn.dst, reg.off, 1, False, ACCESS_HELPER)
        except Reject:
            verbose(env, f"R{insn.dst} pointer arithmetic of map value goes out of range, prohibited for !root\n")
            raise Reject(errno.EACCES) from None
