"""The paths still to walk (env.stack) and how one is put aside, taken up and counted off.

Knows states and the log; knows no instruction. ``push_stack`` may be called from any room that forks a path.
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from netbpf.isa.opcodes import BPF_REG_FP
from netbpf.verifier.env import BPF_COMPLEXITY_LIMIT_JMP_SEQ, Reject, VerifierEnv
from netbpf.verifier.log import mark_verifier_state_scratched, verbose, vlog_reset
from netbpf.verifier.regs import __mark_reg_known_zero
from netbpf.verifier.state import MAX_CALL_FRAMES, PTR_TO_STACK, FuncState, RegState, VerifierState

BPF_MAIN_FUNC: Final = -1  # FuncState.callsite of the outermost frame


def _frame_pointer(frameno: int) -> RegState:
    reg = RegState(PTR_TO_STACK)
    __mark_reg_known_zero(reg)
    reg.frameno = frameno
    return reg


_FRAME_POINTERS: Final = tuple(_frame_pointer(i) for i in range(MAX_CALL_FRAMES))


def init_func_state(env: VerifierEnv, callsite: int, frameno: int, subprogno: int) -> FuncState:
    """A fresh frame: R10 is its frame pointer; every other register and the whole stack are uninitialised."""
    mark_verifier_state_scratched(env)
    frame = FuncState(callsite, frameno, subprogno)
    frame.regs[BPF_REG_FP] = _FRAME_POINTERS[frameno]
    return frame


class StackElem(NamedTuple):
    """A path put aside: where it goes on, where it came from, and how long the log was then."""

    state: VerifierState
    insn_idx: int
    prev_insn_idx: int
    log_pos: int


def copy_verifier_state(src: VerifierState) -> VerifierState:
    """A state of its own that keeps ``src``'s branch count and its history since the last checkpoint."""
    dst = src.copy()
    dst.branches = src.branches
    dst.jmp_history = src.jmp_history[:]
    return dst


def _push(env: VerifierEnv, state: VerifierState, insn_idx: int, prev_insn_idx: int, error: int = errno.EFAULT) -> None:
    env.stack.append(StackElem(state, insn_idx, prev_insn_idx, env.log_end_pos))
    if len(env.stack) > BPF_COMPLEXITY_LIMIT_JMP_SEQ:
        verbose(env, f"The sequence of {len(env.stack)} jumps is too complex.\n")
        raise Reject(error)


def push_stack(
    env: VerifierEnv, insn_idx: int, prev_insn_idx: int, speculative: bool, error: int = errno.EFAULT
) -> VerifierState:
    """Put a copy of the current state aside, to be walked from ``insn_idx``; the copy is returned to be refined.

    Raises Reject(``error``) when more than 8192 paths wait.
    """
    cur = env.cur_state
    assert cur is not None
    state = copy_verifier_state(cur)
    state.speculative |= speculative
    _push(env, state, insn_idx, prev_insn_idx, error)
    if state.parent is not None:
        state.parent.branches += 1
    return state


def push_async_cb(env: VerifierEnv, subprog: int, insn_idx: int, prev_insn_idx: int, is_sleepable: bool) -> VerifierState:
    """Put a fresh state aside that enters ``subprog`` as a callback which runs later, in no one's frame."""
    cur = env.cur_state
    assert cur is not None
    state = VerifierState()
    state.branches = 1
    state.in_sleepable = is_sleepable
    state.frame = [init_func_state(env, BPF_MAIN_FUNC, 0, subprog)]
    _push(env, state, insn_idx, prev_insn_idx)
    return state


def pop_stack(env: VerifierEnv, pop_log: bool) -> StackElem | None:
    """Take up the path put aside last, dropping what was logged since when ``pop_log``; None when no path waits."""
    if not env.stack:
        return None
    elem: StackElem = env.stack.pop()
    if pop_log:
        vlog_reset(env, elem.log_pos)
    env.cur_state = elem.state
    return elem
