"""What a program has acquired and must give back: references (ring buffer records, dynptrs), and what dies with them.

Knows states; knows no helper. Walks over "every register of a state" are here too, because releasing is one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from netbpf.verifier.env import Reject, VerifierEnv
from netbpf.verifier.log import verbose
from netbpf.verifier.regs import unknown_reg
from netbpf.verifier.state import (
    PTR_TO_PACKET,
    PTR_TO_PACKET_END,
    PTR_TO_PACKET_META,
    REF_TYPE_PTR,
    REG_NOT_INIT,
    STACK_SPILL,
    FuncState,
    RefState,
    RegState,
    StackSlot,
    VerifierState,
    cur_func,
)

_PACKET_POINTERS: Final = frozenset({PTR_TO_PACKET, PTR_TO_PACKET_META, PTR_TO_PACKET_END})


def current(env: VerifierEnv) -> VerifierState:
    """The state being walked."""
    state = env.cur_state
    assert state is not None
    return state


def owner(env: VerifierEnv, reg: RegState) -> FuncState:
    """The frame a stack pointer points into."""
    return current(env).frame[reg.frameno]


def replace_regs(state: VerifierState, change: Callable[[RegState], RegState | None]) -> None:
    """Put ``change(reg)`` in the place of every register and spilled register of ``state`` for which it is not None."""
    for frame in state.frame:
        regs = frame.regs
        for i, reg in enumerate(regs):
            new = change(reg)
            if new is not None:
                regs[i] = new
        stack = frame.stack
        for spi, slot in enumerate(stack):
            if slot.slot_type[7] == STACK_SPILL:
                new = change(slot.spilled_ptr)
                if new is not None:
                    stack[spi] = StackSlot(slot.slot_type, new)


def invalid_reg(env: VerifierEnv) -> RegState:
    """What becomes of a register whose object is gone: its address is no secret to the privileged, unreadable to others."""
    return unknown_reg(env) if env.allow_ptr_leaks else REG_NOT_INIT


def acquire_reference(env: VerifierEnv, insn_idx: int) -> int:
    """A new reference, acquired at ``insn_idx``; returns its id."""
    state = current(env)
    ref_id = env.new_id()
    state.refs = (*state.refs, RefState(REF_TYPE_PTR, ref_id, insn_idx))
    return ref_id


def find_reference(state: VerifierState, ref_obj_id: int) -> bool:
    return any(ref.type == REF_TYPE_PTR and ref.id == ref_obj_id for ref in state.refs)


def release_reference_nomark(state: VerifierState, ref_obj_id: int) -> bool:
    """Forget the reference; False when it is not held."""
    if not find_reference(state, ref_obj_id):
        return False
    state.refs = tuple(ref for ref in state.refs if ref.type != REF_TYPE_PTR or ref.id != ref_obj_id)
    return True


def release_reference(env: VerifierEnv, ref_obj_id: int) -> bool:
    """Give a reference back: every register that carries it becomes invalid. False when it is not held."""
    state = current(env)
    if not release_reference_nomark(state, ref_obj_id):
        return False
    gone = invalid_reg(env)
    replace_regs(state, lambda reg: gone if reg.ref_obj_id == ref_obj_id else None)
    return True


def clear_all_pkt_pointers(env: VerifierEnv) -> None:
    """The packet may have moved: every pointer into it is invalid."""
    gone = invalid_reg(env)
    replace_regs(current(env), lambda reg: gone if reg.type in _PACKET_POINTERS else None)


def check_reference_leak(env: VerifierEnv, exception_exit: bool) -> bool:
    """Whether the outermost function ends with references held; each is named in the log."""
    state = current(env)
    if not exception_exit and cur_func(state).frameno:
        return False
    leaked = [ref for ref in state.refs if ref.type == REF_TYPE_PTR]
    for ref in leaked:
        verbose(env, f"Unreleased reference id={ref.id} alloc_insn={ref.insn_idx}\n")
    return bool(leaked)


def check_resource_leak(env: VerifierEnv, exception_exit: bool, check_lock: bool, prefix: str) -> None:
    """Nothing may be held at ``prefix`` (``BPF_EXIT instruction in main prog``, ``tail_call`` ...). Raises Reject EINVAL."""
    state = current(env)
    if not state.refs:
        return
    if check_reference_leak(env, exception_exit):
        verbose(env, f"{prefix} would lead to reference leak\n")
        raise Reject(errno.EINVAL)
    if check_lock and state.active_locks:
        verbose(env, f"{prefix} cannot be used inside bpf_spin_lock-ed region\n")
        raise Reject(errno.EINVAL)
