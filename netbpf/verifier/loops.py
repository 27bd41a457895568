"""Loops and the checkpoints in them: a path pruned inside a loop is a back edge, given its missing marks when the loop is done.

In a loop a checkpoint is compared before its own paths have ended, so its precision marks are incomplete. The loops are the
strongly connected components that ``flow.compute_scc`` numbered, told apart by the calls that led into them. Also here:
what a loop's next round may forget (``widen_imprecise_scalars``).
"""

from __future__ import annotations

from itertools import takewhile
from typing import Final, NamedTuple

from netbpf.verifier.env import BPF_LOG_LEVEL2, VerifierEnv
from netbpf.verifier.equality import IdMap, frame_insn_idx, regs_exact, same_callsites
from netbpf.verifier.log import verbose
from netbpf.verifier.precision import mark_all_scalars_precise, propagate_precision
from netbpf.verifier.regs import unknown_reg
from netbpf.verifier.state import SCALAR_VALUE, STACK_SPILL, RegState, StackSlot, VerifierState

MAX_BACKEDGE_ITERS: Final = 64


class SccVisit:
    """One entry into a loop by one chain of calls: the checkpoint it began with, and the paths pruned inside it."""

    __slots__ = ("key", "entry_state", "backedges")

    def __init__(self, key: SccCallchain) -> None:
        self.key = key
        self.entry_state: VerifierState | None = None
        self.backedges: list[VerifierState] = []


class SccCallchain(NamedTuple):
    """The calls that lead to the outermost frame that stands in a loop, and that loop."""

    callsites: tuple[int, ...]
    scc: int

    def __str__(self) -> str:
        """As the log has it, where a call at instruction 0 and what follows it are left out."""
        shown = takewhile(bool, self.callsites)
        return "(" + ",".join(str(i) for i in (*shown, self.scc)) + ")"


def compute_scc_callchain(env: VerifierEnv, state: VerifierState) -> SccCallchain | None:
    callsites: list[int] = []
    for i in range(state.curframe + 1):
        insn_idx = frame_insn_idx(state, i)
        scc = env.insn_aux[insn_idx].scc
        if scc:
            return SccCallchain(tuple(callsites), scc)
        callsites.append(insn_idx)
    return None


def _log_scc(env: VerifierEnv, what: str, key: SccCallchain) -> None:
    if env.log_level & BPF_LOG_LEVEL2:
        verbose(env, f"SCC {what} {key}\n")


def maybe_enter_scc(env: VerifierEnv, state: VerifierState) -> None:
    """A new checkpoint inside a loop may be the one that enters it."""
    key = compute_scc_callchain(env, state)
    if key is None:
        return
    visit = env.scc_visits.get(key)
    if visit is None:
        visit = env.scc_visits[key] = SccVisit(key)
    if visit.entry_state is None:
        visit.entry_state = state
        _log_scc(env, "enter", key)


def maybe_exit_scc(env: VerifierEnv, state: VerifierState) -> None:
    """All paths from ``state`` ended; when it entered a loop, the paths pruned in there get the marks they lacked."""
    key = compute_scc_callchain(env, state)
    visit = env.scc_visits.get(key) if key is not None else None
    if key is None or visit is None or visit.entry_state is not state:
        return
    _log_scc(env, "exit", key)
    visit.entry_state = None
    env.num_backedges -= len(visit.backedges)
    update_peak_states(env)
    propagate_backedges(env, visit)


def add_scc_backedge(env: VerifierEnv, old: VerifierState, backedge: VerifierState) -> None:
    key = compute_scc_callchain(env, old)
    assert key is not None  # only states with a visited loop are compared as loops
    _log_scc(env, "backedge", key)
    env.scc_visits[key].backedges.append(backedge)
    env.num_backedges += 1
    update_peak_states(env)


def propagate_backedges(env: VerifierEnv, visit: SccVisit) -> None:
    """Hand precision marks round the loop until nothing changes; all scalars when it takes too long."""
    backedges = visit.backedges[::-1]
    visit.backedges = []
    for _ in range(MAX_BACKEDGE_ITERS + 1):
        changed = False
        for backedge in backedges:
            assert backedge.equal_state is not None
            changed |= propagate_precision(env, backedge.equal_state, backedge)
        if not changed:
            return
    if env.log_level & BPF_LOG_LEVEL2:
        verbose(env, "propagate_backedges: too many iterations\n")
    for backedge in backedges:
        mark_all_scalars_precise(env, backedge)


def incomplete_read_marks(env: VerifierEnv, state: VerifierState) -> bool:
    """Its loop has paths that were pruned and still lack marks."""
    if not env.scc_visits:
        return False
    key = compute_scc_callchain(env, state)
    visit = env.scc_visits.get(key) if key is not None else None
    return visit is not None and bool(visit.backedges)


def find_prev_entry(env: VerifierEnv, cur: VerifierState | None, insn_idx: int) -> VerifierState | None:
    """The latest checkpoint of ``insn_idx`` on the path to ``cur``: a loop's round before this one."""
    if cur is None or env.cur_state is None:
        return None
    for old in reversed(explored_state(env, insn_idx, env.cur_state)):
        if old.insn_idx == insn_idx and old.branches and old.dfs_depth < cur.dfs_depth and same_callsites(old, cur):
            return old
    return None


def _widened(env: VerifierEnv, old: RegState, cur: RegState, idmap: IdMap) -> RegState:
    if old.type != SCALAR_VALUE or cur.type != SCALAR_VALUE or old.precise or cur.precise or regs_exact(old, cur, idmap):
        return cur
    return unknown_reg(env)


def widen_imprecise_scalars(env: VerifierEnv, old: VerifierState, cur: VerifierState) -> None:
    """Scalars of ``cur`` that changed since ``old`` and decided nothing become any number, so that the loop converges."""
    idmap = IdMap(env.id_gen)
    for fr in range(old.curframe, -1, -1):
        old_func, func = old.frame[fr], cur.frame[fr]
        for i in range(11):
            func.regs[i] = _widened(env, old_func.regs[i], func.regs[i], idmap)
        for i, (old_slot, slot) in enumerate(zip(old_func.stack, func.stack, strict=False)):
            if old_slot.slot_type[7] == STACK_SPILL and slot.slot_type[7] == STACK_SPILL:
                reg = _widened(env, old_slot.spilled_ptr, slot.spilled_ptr, idmap)
                if reg is not slot.spilled_ptr:
                    func.stack[i] = StackSlot(slot.slot_type, reg)


def forget_explored_states(env: VerifierEnv) -> None:
    """Empty buckets, for one function's walk. ``explored_main[i]`` is the bucket of instruction ``i`` in an outermost frame."""
    n = len(env.insns)
    env.explored_states = [[] for _ in range(n)]
    env.explored_main = [env.explored_states[(0xFFFF_FFFF - i) % n] for i in range(n)]


def explored_state(env: VerifierEnv, insn_idx: int, cur: VerifierState) -> list[VerifierState]:
    """The kernel's hash bucket: other instructions' checkpoints may stand in it, and are counted."""
    bucket = ((insn_idx ^ cur.frame[cur.curframe].callsite) & 0xFFFF_FFFF) % len(env.insns)
    states: list[VerifierState] = env.explored_states[bucket]
    return states


def update_peak_states(env: VerifierEnv) -> None:
    n = env.explored_states_size + env.free_list_size + env.num_backedges
    if n > env.stats.peak_states:
        env.stats.peak_states = n
