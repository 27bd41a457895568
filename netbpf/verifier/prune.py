"""When a path need not be walked further: checkpoints, kept and looked through at prune points.

A checkpoint is a copy of the state kept at an instruction. A later state that the checkpoint covers is safe because the
checkpoint's paths were. Knows states; knows no instruction's meaning.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.verifier.env import BPF_COMPLEXITY_LIMIT_STATES, Reject, VerifierEnv
from netbpf.verifier.equality import (
    EXACT,
    NOT_EXACT,
    RANGE_WITHIN,
    frame_insn_idx,
    out_of_range,
    same_callsites,
    states_equal,
    states_maybe_looping,
    surely_differ,
)
from netbpf.verifier.history import push_jmp_history
from netbpf.verifier.liveness import live_stack_mask
from netbpf.verifier.log import print_verifier_state, verbose, verbose_linfo
from netbpf.verifier.loops import (
    add_scc_backedge,
    explored_state,
    incomplete_read_marks,
    maybe_enter_scc,
    maybe_exit_scc,
    update_peak_states,
)
from netbpf.verifier.path import copy_verifier_state
from netbpf.verifier.precision import mark_all_scalars_imprecise, propagate_precision
from netbpf.verifier.state import REG_NOT_INIT, SLOT_INVALID, VerifierState

MAX_JMP_HISTORY: Final = 40


def _maybe_free(env: VerifierEnv, state: VerifierState) -> None:
    if state.in_free_list and not state.branches and not incomplete_read_marks(env, state):
        env.free_list_size -= 1
        state.in_free_list = False


def update_branch_counts(env: VerifierEnv, state: VerifierState | None) -> None:
    """A path ended: its checkpoints have one branch less to wait for."""
    checkpoint: VerifierState | None = None
    while state is not None:
        state.branches -= 1
        if state.branches:
            break
        maybe_exit_scc(env, state)
        parent = state.parent
        if checkpoint is not None:
            _maybe_free(env, checkpoint)
        state = checkpoint = parent


def clean_verifier_state(env: VerifierEnv, state: VerifierState) -> None:
    """Forget what nobody reads from a finished checkpoint on."""
    state.cleaned = True
    for i in range(state.curframe + 1):
        func = state.frame[i]
        live = env.insn_aux[frame_insn_idx(state, i)].live_regs_before
        for regno in range(10):
            if not live >> regno & 1:
                func.regs[regno] = REG_NOT_INIT
        if func.stack:
            slots = live_stack_mask(env, state, i)
            for spi in range(len(func.stack)):
                if not slots >> spi & 1:
                    func.stack[spi] = SLOT_INVALID


def clean_live_states(env: VerifierEnv, states: list[VerifierState], insn_idx: int, cur: VerifierState) -> None:
    for old in states:
        if old.branches or old.cleaned or old.insn_idx != insn_idx or not same_callsites(old, cur):
            continue
        if not incomplete_read_marks(env, old):
            clean_verifier_state(env, old)


def _is_loop_hit(env: VerifierEnv, old: VerifierState, cur: VerifierState, insn_idx: int) -> bool:
    """``old`` waits for paths of its own, and the loop comes round to a state it covers."""
    if not env.insn_aux[insn_idx].calls_callback and old.may_goto_depth == cur.may_goto_depth:
        return False
    return not out_of_range(env, old, cur, insn_idx) and states_equal(env, old, cur, RANGE_WITHIN)


def _other_async_entry(old: VerifierState, cur: VerifierState) -> bool:
    """Both stand in a callback that runs later, entered at different times: equal states are no loop."""
    frame = old.frame[old.curframe]
    return frame.in_async_callback_fn and frame.async_entry_cnt != cur.frame[cur.curframe].async_entry_cnt


def _check_infinite_loop(env: VerifierEnv, old: VerifierState, cur: VerifierState, insn_idx: int) -> None:
    """The same state again while its paths have not ended: it will never end."""
    if env.insn_aux[insn_idx].calls_callback or _other_async_entry(old, cur):
        return
    if old.may_goto_depth != cur.may_goto_depth or old.callback_unroll_depth != cur.callback_unroll_depth:
        return
    if not states_equal(env, old, cur, EXACT):
        return
    verbose_linfo(env, insn_idx, "; ")
    verbose(env, f"infinite loop detected at insn {insn_idx}\n")
    verbose(env, "cur state:")
    print_verifier_state(env, cur, cur.curframe, True)
    verbose(env, "old state:")
    print_verifier_state(env, old, cur.curframe, True)
    raise Reject(errno.EINVAL)


def _prune(env: VerifierEnv, old: VerifierState, cur: VerifierState, insn_idx: int, loop: bool) -> None:
    """``old`` covers ``cur``: what was precise after it is precise before, and a loop's path is kept for later marks."""
    old.hit_cnt += 1
    if env.insn_aux[insn_idx].jmp_point:
        push_jmp_history(env, cur)
    propagate_precision(env, old, cur)
    if loop:
        backedge = copy_verifier_state(cur)
        backedge.equal_state = old
        backedge.insn_idx = insn_idx
        add_scc_backedge(env, old, backedge)


def _look_through(
    env: VerifierEnv, states: list[VerifierState], cur: VerifierState, insn_idx: int, add: bool, few: bool
) -> tuple[bool, bool, int]:
    """Compare with every checkpoint, latest first: (covered by one, whether to make a new one, how many stand in the bucket).

    ``few``: too little was walked since the last checkpoint to add another in a loop.
    """
    aux, count = env.insn_aux[insn_idx], 0
    special = aux.force_checkpoint  # may_goto, or a call of a callback: nothing else has it
    frame = cur.curframe
    in_async, regs = cur.frame[frame].in_async_callback_fn, cur.frame[frame].regs
    mine = regs[aux.differs_at]  # the register that told two states here apart last time will most likely do so again
    for old in states[::-1]:
        count += 1
        if old.insn_idx != insn_idx:
            continue
        if old.branches:
            if special and not (in_async and _other_async_entry(old, cur)) and _is_loop_hit(env, old, cur, insn_idx):
                _prune(env, old, cur, insn_idx, not aux.calls_callback)
                return True, False, count
            if old.curframe == frame:
                his = old.frame[frame].regs[aux.differs_at]
                if his is mine or (his.umin_value == mine.umin_value and his.umax_value == mine.umax_value):
                    if states_maybe_looping(old, cur, aux):
                        _check_infinite_loop(env, old, cur, insn_idx)
                    mine = regs[aux.differs_at]
            if few:
                add = False
        elif not surely_differ(env, old, cur, insn_idx):
            loop = incomplete_read_marks(env, old)
            if states_equal(env, old, cur, RANGE_WITHIN if loop else NOT_EXACT):
                _prune(env, old, cur, insn_idx, loop)
                return True, False, count
        if add:
            old.miss_cnt += 1
        elif not special:
            continue
        n = 64 if special and old.branches else 3
        if old.miss_cnt > old.hit_cnt * n + n:
            _evict(env, states, old)
    return False, add, count


def _evict(env: VerifierEnv, states: list[VerifierState], old: VerifierState) -> None:
    old.in_free_list = True
    states.remove(old)
    env.free_list_size += 1
    env.explored_states_size -= 1
    _maybe_free(env, old)


def is_state_visited(env: VerifierEnv, insn_idx: int) -> bool:
    """True when a checkpoint at ``insn_idx`` covers the current state; else one may be made of it. Raises Reject for a loop."""
    cur, stats = env.cur_state, env.stats
    assert cur is not None
    jmps, insns = env.jmps_processed - env.prev_jmps_processed, stats.insn_processed - env.prev_insn_processed
    force = env.test_state_freq or env.insn_aux[insn_idx].force_checkpoint or len(cur.jmp_history) > MAX_JMP_HISTORY
    add = force or (jmps >= 2 and insns >= 8)
    states = explored_state(env, insn_idx, cur) if cur.curframe else env.explored_main[insn_idx]
    if states:
        for old in states:
            if not old.branches and not old.cleaned:
                clean_live_states(env, states, insn_idx, cur)
                break
        pruned, add, count = _look_through(env, states, cur, insn_idx, add, not force and jmps < 20 and insns < 100)
        if pruned:
            return True
        if stats.max_states_per_insn < count:
            stats.max_states_per_insn = count
        if not env.bpf_capable and count > BPF_COMPLEXITY_LIMIT_STATES:
            return False
    if add:
        _add_checkpoint(env, states, cur, insn_idx)
    return False


def _add_checkpoint(env: VerifierEnv, states: list[VerifierState], cur: VerifierState, insn_idx: int) -> None:
    stats = env.stats
    stats.total_states += 1
    env.explored_states_size += 1
    update_peak_states(env)
    env.prev_jmps_processed = env.jmps_processed
    env.prev_insn_processed = stats.insn_processed
    if env.bpf_capable:
        mark_all_scalars_imprecise(cur)
    new = copy_verifier_state(cur)
    new.insn_idx = insn_idx
    maybe_enter_scc(env, new)
    cur.parent = new
    cur.first_insn_idx = insn_idx
    cur.dfs_depth = new.dfs_depth + 1
    cur.jmp_history, cur.bt_done = [], None
    states.append(new)
