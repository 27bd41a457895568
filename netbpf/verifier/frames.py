"""Frames: calls of the program's own functions and their returns, and callbacks that helpers call.

A static function is walked in its caller's state, in a frame of its own; a global function is proved apart and here only
its arguments are checked. A callback is put aside as one more path; the helper's other outcome goes on at once.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from netbpf.abi.helpers import FUNC_IDS
from netbpf.ints import S64_MAX, S64_MIN
from netbpf.isa.instruction import Instruction
from netbpf.verifier import state as st
from netbpf.verifier.dynptr import DYNPTR_LOCAL, dynptr_reg
from netbpf.verifier.env import BPF_LOG_LEVEL, Reject, VerifierEnv
from netbpf.verifier.global_args import btf_check_subprog_call
from netbpf.verifier.liveness import bpf_update_live_stack
from netbpf.verifier.log import mark_reg_scratched, print_verifier_state, verbose
from netbpf.verifier.loops import find_prev_entry, widen_imprecise_scalars
from netbpf.verifier.map_funcs import FOR_EACH_MAPS
from netbpf.verifier.path import init_func_state, push_async_cb, push_stack
from netbpf.verifier.precision import mark_chain_precision
from netbpf.verifier.refs import clear_all_pkt_pointers, current
from netbpf.verifier.regs import cur_regs, known_reg, mark_reg_known_zero, mark_reg_unknown, unknown_reg, unknown_reg_imprecise
from netbpf.verifier.state import MAX_CALL_FRAMES, REG_NOT_INIT, FuncState, RegState, VerifierState, cur_func
from netbpf.verifier.structure import find_subprog

ENOTSUPP: Final = 524
SetCalleeState = Callable[[VerifierEnv, FuncState, FuncState, int], None]

ZERO_OR_ONE: Final = (0, 1)
ZERO: Final = (0, 0)


def _refuse(env: VerifierEnv, text: str, error: int) -> Reject:
    verbose(env, text)
    return Reject(error)


def clear_caller_saved_regs(env: VerifierEnv, regs: list[RegState]) -> None:
    """R0 to R5 are unreadable after a call."""
    for i in range(6):
        regs[i] = REG_NOT_INIT
    env.scratched_regs |= 0x3F


# --- return values ------------------------------------------------------------------------------------------------------


def retval_range_within(allowed: tuple[int, int], reg: RegState, return_32bit: bool) -> bool:
    """Whether every value the register may have is allowed."""
    low, high = allowed
    if return_32bit:
        return low <= reg.s32_min_value and reg.s32_max_value <= high
    return low <= reg.smin_value and reg.smax_value <= high


def verbose_invalid_scalar(env: VerifierEnv, reg: RegState, allowed: tuple[int, int], ctx: str, reg_name: str) -> None:
    """Say what a return value may be and what it should have been."""
    known = ""
    if reg.smin_value > S64_MIN:
        known += f" smin={reg.smin_value}"
    if reg.smax_value < S64_MAX:
        known += f" smax={reg.smax_value}"
    known = known or " unknown scalar value"
    verbose(env, f"{ctx} the register {reg_name} has{known} should have been in [{allowed[0]}, {allowed[1]}]\n")


# --- entering -----------------------------------------------------------------------------------------------------------


def setup_func_entry(env: VerifierEnv, subprog: int, callsite: int, set_callee: SetCalleeState, state: VerifierState) -> None:
    """A new innermost frame for ``subprog`` in ``state``. Raises Reject E2BIG beyond eight frames."""
    if state.curframe + 1 >= MAX_CALL_FRAMES:
        raise _refuse(env, f"the call stack of {state.curframe + 2} frames is too deep\n", errno.E2BIG)
    caller = state.frame[state.curframe]
    callee = init_func_state(env, callsite, state.curframe + 1, subprog)
    set_callee(env, caller, callee, callsite)
    state.frame.append(callee)
    state.curframe += 1


def _set_callee_state(env: VerifierEnv, caller: FuncState, callee: FuncState, insn_idx: int) -> None:
    """A function of the program gets the caller's R1 to R5."""
    callee.regs[1:6] = caller.regs[1:6]


def _call_global(env: VerifierEnv, subprog: int, args_error: int) -> None:
    """A global function is assumed to be right; only what it is given is looked at."""
    state = current(env)
    info = env.subprogs[subprog]
    if state.active_locks:
        text = "global function calls are not allowed while holding a lock,\nuse static function instead\n"
        raise _refuse(env, text, errno.EINVAL)
    if args_error:
        raise _refuse(env, f"Caller passes invalid args into func#{subprog} ('{info.name}')\n", args_error)
    if env.log_level & BPF_LOG_LEVEL:
        verbose(env, f"Func#{subprog} ('{info.name}') is global and assumed valid.\n")
    info.called = True
    regs = cur_func(state).regs
    clear_caller_saved_regs(env, regs)
    regs[0] = unknown_reg(env)


def check_func_call(env: VerifierEnv, insn: Instruction) -> None:
    """BPF_PSEUDO_CALL. Leaves env.insn_idx so that the next instruction walked is the callee's first (or, for a global
    function, the one after the call)."""
    insn_idx = env.insn_idx
    subprog = find_subprog(env, insn_idx + insn.imm + 1)
    state = current(env)
    caller = cur_func(state)
    args_error = btf_check_subprog_call(env, subprog, caller.regs)
    if args_error == errno.EFAULT:
        raise Reject(args_error)
    if env.subprogs[subprog].is_global:
        _call_global(env, subprog, args_error)
        return
    setup_func_entry(env, subprog, insn_idx, _set_callee_state, state)
    clear_caller_saved_regs(env, caller.regs)
    env.insn_idx = env.subprogs[subprog].start - 1
    if env.log_level & BPF_LOG_LEVEL:
        verbose(env, "caller:\n")
        print_verifier_state(env, state, caller.frameno, True)
        verbose(env, "callee:\n")
        print_verifier_state(env, state, state.curframe, True)


# --- leaving ------------------------------------------------------------------------------------------------------------


def _check_callback_return(env: VerifierEnv, callee: FuncState) -> None:
    r0 = callee.regs[0]
    if r0.type != st.SCALAR_VALUE:
        raise _refuse(env, "R0 not a scalar value\n", errno.EACCES)
    mark_chain_precision(env, 0)
    r0 = callee.regs[0]
    if not retval_range_within(callee.callback_ret_range, r0, False):
        verbose_invalid_scalar(env, r0, callee.callback_ret_range, "At callback return", "R0")
        raise Reject(errno.EINVAL)


def prepare_func_exit(env: VerifierEnv) -> None:
    """EXIT in an inner frame: go on in the caller after the call, or for a callback at the call again."""
    state = current(env)
    callee, caller = state.frame[state.curframe], state.frame[state.curframe - 1]
    bpf_update_live_stack(env)
    if callee.regs[0].type == st.PTR_TO_STACK:
        raise _refuse(env, "cannot return stack pointer to the caller\n", errno.EINVAL)
    if callee.in_callback_fn:
        _check_callback_return(env, callee)
        next_idx = callee.callsite
    else:
        caller.regs[0] = callee.regs[0]
        next_idx = callee.callsite + 1
    if env.log_level & BPF_LOG_LEVEL:
        verbose(env, "returning from callee:\n")
        print_verifier_state(env, state, callee.frameno, True)
        verbose(env, f"to caller at {next_idx}:\n")
        print_verifier_state(env, state, caller.frameno, True)
    state.frame.pop()
    state.curframe -= 1
    env.insn_idx = next_idx
    if callee.in_callback_fn:
        previous = find_prev_entry(env, state, next_idx)
        if previous is not None:
            widen_imprecise_scalars(env, previous, state)


def leave_by_tail_call(env: VerifierEnv) -> None:
    """A tail call in an inner frame that succeeds never comes back here: the caller goes on with whatever the other program
    returned. That is walked now; its failure, the next instruction, later."""
    push_stack(env, env.insn_idx + 1, env.insn_idx, False)
    clear_all_pkt_pointers(env)
    mark_reg_unknown(env, cur_regs(env), 0)
    prepare_func_exit(env)


def leave_by_packet_load(env: VerifierEnv) -> None:
    """LD_ABS or LD_IND in an inner frame: where the packet is too short it returns 0 to the caller. That is walked now; the
    load that finds its bytes, later."""
    mark_reg_scratched(env, 0)
    push_stack(env, env.insn_idx + 1, env.insn_idx, False)
    mark_reg_known_zero(env, cur_regs(env), 0)
    prepare_func_exit(env)


# --- callbacks ----------------------------------------------------------------------------------------------------------


def push_callback_call(env: VerifierEnv, insn_idx: int, subprog: int, set_callee: SetCalleeState) -> None:
    """Put the path into the callback aside; the current path is the one on which it is not called (again)."""
    state = current(env)
    caller = cur_func(state)
    if btf_check_subprog_call(env, subprog, caller.regs) == errno.EFAULT:
        raise Reject(errno.EFAULT)
    info = env.subprogs[subprog]
    info.is_cb = True
    queued = push_stack(env, info.start, insn_idx, False)
    setup_func_entry(env, subprog, insn_idx, set_callee, queued)
    queued.callback_unroll_depth += 1
    queued.frame[queued.curframe - 1].callback_depth += 1
    caller.callback_depth = 0


def push_async_callback_call(env: VerifierEnv, insn_idx: int, subprog: int, set_callee: SetCalleeState) -> None:
    """Put aside the path that runs the callback later, by itself."""
    caller = cur_func(current(env))
    if btf_check_subprog_call(env, subprog, caller.regs) == errno.EFAULT:
        raise Reject(errno.EFAULT)
    info = env.subprogs[subprog]
    info.is_cb = info.is_async_cb = True
    callee = push_async_cb(env, subprog, info.start, insn_idx, False).frame[0]
    callee.async_entry_cnt = caller.async_entry_cnt + 1
    set_callee(env, caller, callee, insn_idx)


def _pointer(kind: int, info: object) -> RegState:
    """An unmoved pointer into map ``info``."""
    reg = known_reg(0).copy()
    reg.type, reg.map_ptr = kind, info
    return reg


def set_map_elem_callback_state(env: VerifierEnv, caller: FuncState, callee: FuncState, insn_idx: int) -> None:
    """callback(map, key, value, ctx)"""
    info = caller.regs[1].map_ptr
    if info.spec.map_type not in FOR_EACH_MAPS:
        raise _refuse(env, "callback function not allowed for map\n", ENOTSUPP)
    regs = callee.regs
    regs[1] = caller.regs[1]
    regs[2] = _pointer(st.PTR_TO_MAP_KEY, info)
    regs[3] = _pointer(st.PTR_TO_MAP_VALUE, info)
    regs[4] = caller.regs[3]
    callee.in_callback_fn, callee.callback_ret_range = True, ZERO_OR_ONE


def set_loop_callback_state(env: VerifierEnv, caller: FuncState, callee: FuncState, insn_idx: int) -> None:
    """callback(index, ctx)"""
    callee.regs[1] = unknown_reg_imprecise()
    callee.regs[2] = caller.regs[3]
    callee.in_callback_fn, callee.callback_ret_range = True, ZERO_OR_ONE


def set_timer_callback_state(env: VerifierEnv, caller: FuncState, callee: FuncState, insn_idx: int) -> None:
    """callback(map, key, value), later"""
    info = caller.regs[1].map_ptr
    regs = callee.regs
    regs[1] = _pointer(st.CONST_PTR_TO_MAP, info)
    regs[2] = _pointer(st.PTR_TO_MAP_KEY, info)
    regs[3] = _pointer(st.PTR_TO_MAP_VALUE, info)
    callee.in_async_callback_fn, callee.callback_ret_range = True, ZERO


def set_user_ringbuf_callback_state(env: VerifierEnv, caller: FuncState, callee: FuncState, insn_idx: int) -> None:
    """callback(dynptr, ctx)"""
    callee.regs[1] = dynptr_reg(DYNPTR_LOCAL, True, env.new_id())
    callee.regs[2] = caller.regs[3]
    callee.in_callback_fn, callee.callback_ret_range = True, ZERO_OR_ONE


CALLBACK_HELPERS: Final[dict[int, SetCalleeState]] = {
    FUNC_IDS["for_each_map_elem"]: set_map_elem_callback_state,
    FUNC_IDS["loop"]: set_loop_callback_state,
    FUNC_IDS["user_ringbuf_drain"]: set_user_ringbuf_callback_state,
}
"""Helpers that call a function of the program at once, and what they call it with."""
