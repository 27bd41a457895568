"""When a path need not be walked further: checkpoints, their comparison with the current state, loops.

A checkpoint is a copy of the state kept at an instruction. A later state that the checkpoint covers is safe because the
checkpoint's paths were. Values are compared as far as they matter: dead registers and slots not at all, scalars by range
only where precise. In a loop a checkpoint is compared before its own paths have ended, so its marks are incomplete: what
was pruned against it (a back edge) is given the missing marks when the loop has been walked.
Knows states; knows no instruction's meaning.
"""

from __future__ import annotations

import errno
from itertools import takewhile
from operator import attrgetter
from typing import Final, NamedTuple

from netbpf.verifier import state as st
from netbpf.verifier.env import BPF_COMPLEXITY_LIMIT_STATES, BPF_LOG_LEVEL2, InsnAux, Reject, VerifierEnv
from netbpf.verifier.history import push_jmp_history
from netbpf.verifier.liveness import live_stack_mask
from netbpf.verifier.log import print_verifier_state, verbose, verbose_linfo
from netbpf.verifier.path import copy_verifier_state
from netbpf.verifier.precision import mark_all_scalars_imprecise, mark_all_scalars_precise, propagate_precision
from netbpf.verifier.regs import unknown_reg, unknown_reg_imprecise
from netbpf.verifier.state import (
    NOT_INIT,
    REG_NOT_INIT,
    SCALAR_VALUE,
    SLOT_INVALID,
    STACK_DYNPTR,
    STACK_INVALID,
    STACK_ITER,
    STACK_MISC,
    STACK_SPILL,
    STACK_ZERO,
    FuncState,
    RegState,
    StackSlot,
    VerifierState,
)

# how much two states must agree
NOT_EXACT: Final = 0  # the new one is covered by the old, in what matters
EXACT: Final = 1  # the same
RANGE_WITHIN: Final = 2  # covered, with every scalar taken as precise: for old states whose marks are incomplete

MAX_BACKEDGE_ITERS: Final = 64
MAX_JMP_HISTORY: Final = 40
_UNBOUND: Final = unknown_reg_imprecise()


class IdMap:
    """Which id of the old state stands for which of the new one: one to one."""

    __slots__ = ("old_to_cur", "taken", "tmp_id_gen")

    def __init__(self, id_gen: int) -> None:
        self.old_to_cur: dict[int, int] = {}
        self.taken: set[int] = set()
        self.tmp_id_gen = id_gen

    def check(self, old_id: int, cur_id: int) -> bool:
        """check_ids: both are 0, or they are paired, or pair them now."""
        if not old_id or not cur_id:
            return old_id == cur_id
        paired = self.old_to_cur.get(old_id)
        if paired is not None:
            return paired == cur_id
        if cur_id in self.taken:
            return False
        self.old_to_cur[old_id] = cur_id
        self.taken.add(cur_id)
        return True

    def check_scalar(self, old_id: int, cur_id: int) -> bool:
        """check_scalar_ids: an old scalar without id was linked to none, so anything goes; a new one is linked to none."""
        if not old_id:
            return True
        if not cur_id:
            self.tmp_id_gen += 1
            cur_id = self.tmp_id_gen
        return self.check(old_id, cur_id)


# --- registers --------------------------------------------------------------------------------------------------------

_POINTER_FIELDS: Final = ("type", "off", "range", "map_ptr", "map_uid", "mem_size", "subprogno", "btf_id", "ext")
_BOUND_FIELDS: Final = (
    "smin_value",
    "smax_value",
    "umin_value",
    "umax_value",
    "s32_min_value",
    "s32_max_value",
    "u32_min_value",
    "u32_max_value",
)
_pointer_part: Final = attrgetter(*_POINTER_FIELDS)
_value_part: Final = attrgetter(*_POINTER_FIELDS, "var_off", *_BOUND_FIELDS)
_looping_part: Final = attrgetter("umin_value", *_POINTER_FIELDS, "var_off", *_BOUND_FIELDS, "id", "ref_obj_id")


def regs_exact(old: RegState, cur: RegState, idmap: IdMap) -> bool:
    if old is not cur and _value_part(old) != _value_part(cur):
        return False
    return idmap.check(old.id, cur.id) and idmap.check(old.ref_obj_id, cur.ref_obj_id)


def range_within(old: RegState, cur: RegState) -> bool:
    """Every value of ``cur``'s ranges lies in ``old``'s."""
    return (
        old.umin_value <= cur.umin_value
        and old.umax_value >= cur.umax_value
        and old.smin_value <= cur.smin_value
        and old.smax_value >= cur.smax_value
        and old.u32_min_value <= cur.u32_min_value
        and old.u32_max_value >= cur.u32_max_value
        and old.s32_min_value <= cur.s32_min_value
        and old.s32_max_value >= cur.s32_max_value
    )


def _covers(old: RegState, cur: RegState) -> bool:
    """range_within, and the bits ``old`` knows are the same in ``cur``."""
    if old is cur:
        return True
    if not range_within(old, cur):
        return False
    old_value, old_mask = old.var_off
    value, mask = cur.var_off
    return not mask & ~old_mask and old_value == value & ~old_mask


def _scalar_safe(env: VerifierEnv, old: RegState, cur: RegState, idmap: IdMap, exact: int) -> bool:
    if env.explore_alu_limits:
        return (old is cur or _value_part(old) == _value_part(cur)) and idmap.check_scalar(old.id, cur.id)
    if exact == NOT_EXACT and not old.precise:
        return True
    if old.id and ((old.id ^ cur.id) & st.BPF_ADD_CONST or (old.id & st.BPF_ADD_CONST and old.off != cur.off)):
        return False
    return _covers(old, cur) and idmap.check_scalar(old.id, cur.id)


def _memory_safe(env: VerifierEnv, old: RegState, cur: RegState, idmap: IdMap, exact: int) -> bool:
    if old is not cur and _pointer_part(old) != _pointer_part(cur):
        return False
    return _covers(old, cur) and idmap.check(old.id, cur.id) and idmap.check(old.ref_obj_id, cur.ref_obj_id)


def _packet_safe(env: VerifierEnv, old: RegState, cur: RegState, idmap: IdMap, exact: int) -> bool:
    return old.range <= cur.range and old.off == cur.off and idmap.check(old.id, cur.id) and _covers(old, cur)


def _stack_pointer_safe(env: VerifierEnv, old: RegState, cur: RegState, idmap: IdMap, exact: int) -> bool:
    return regs_exact(old, cur, idmap) and old.frameno == cur.frameno


def _exact_safe(env: VerifierEnv, old: RegState, cur: RegState, idmap: IdMap, exact: int) -> bool:
    return regs_exact(old, cur, idmap)


_SAFE_BY_TYPE: Final = {
    SCALAR_VALUE: _scalar_safe,
    st.PTR_TO_MAP_KEY: _memory_safe,
    st.PTR_TO_MAP_VALUE: _memory_safe,
    st.PTR_TO_MEM: _memory_safe,
    st.PTR_TO_BUF: _memory_safe,
    st.PTR_TO_TP_BUFFER: _memory_safe,
    st.PTR_TO_PACKET_META: _packet_safe,
    st.PTR_TO_PACKET: _packet_safe,
    st.PTR_TO_STACK: _stack_pointer_safe,
}


def regsafe(env: VerifierEnv, old: RegState, cur: RegState, idmap: IdMap, exact: int) -> bool:
    """What was safe with ``old`` is safe with ``cur``."""
    if exact == EXACT:
        return regs_exact(old, cur, idmap)
    if old.type == NOT_INIT and (exact == NOT_EXACT or cur.type == NOT_INIT):
        return True
    if old.type != cur.type:
        return False
    return _SAFE_BY_TYPE.get(old.type & st.BASE_TYPE_MASK, _exact_safe)(env, old, cur, idmap, exact)


# --- stack --------------------------------------------------------------------------------------------------------------


def _scalar_of_slot(env: VerifierEnv, slot: StackSlot) -> RegState | None:
    """The scalar that an 8-byte load of the slot gives: the one spilled, or any where all bytes are misc."""
    kinds = slot.slot_type
    if kinds[0] == STACK_SPILL:
        return slot.spilled_ptr if slot.spilled_ptr.type == SCALAR_VALUE else None
    misc = (STACK_MISC, STACK_INVALID) if env.allow_uninit_stack else (STACK_MISC,)
    return _UNBOUND if all(kind in misc for kind in kinds) else None


def _uninit_as_misc(kinds: bytes) -> bytes:
    return kinds.replace(b"\x02", b"\x00")


def _slot_content_safe(env: VerifierEnv, old: StackSlot, cur: StackSlot, idmap: IdMap, exact: int) -> bool:
    """Both slots are of the same kind: what they hold is compared."""
    kind = old.slot_type[7]
    if kind == STACK_SPILL:
        return regsafe(env, old.spilled_ptr, cur.spilled_ptr, idmap, exact)
    if kind in (STACK_DYNPTR, STACK_ITER, st.STACK_IRQ_FLAG):
        o, c = old.spilled_ptr, cur.spilled_ptr
        return o.ext == c.ext and idmap.check(o.ref_obj_id, c.ref_obj_id)
    return True


def _slot_safe(env: VerifierEnv, old: StackSlot, cur: StackSlot | None, idmap: IdMap, exact: int) -> bool:
    old_kinds = old.slot_type
    if exact == EXACT:
        cur_kinds = cur.slot_type if cur is not None else SLOT_INVALID.slot_type
        if old_kinds != cur_kinds and not (env.allow_uninit_stack and _uninit_as_misc(old_kinds) == _uninit_as_misc(cur_kinds)):
            return False
    if exact == RANGE_WITHIN and old_kinds != (cur.slot_type if cur is not None else SLOT_INVALID.slot_type):
        return False
    ignored = (STACK_INVALID, STACK_MISC) if env.allow_uninit_stack else (STACK_INVALID,)
    if all(kind in ignored for kind in old_kinds):
        return True
    if cur is None:
        return False
    if old_kinds[0] not in ignored:
        old_reg, cur_reg = _scalar_of_slot(env, old), _scalar_of_slot(env, cur)
        if old_reg is not None and cur_reg is not None:
            return regsafe(env, old_reg, cur_reg, idmap, exact)
    for old_kind, cur_kind in zip(old_kinds, cur.slot_type, strict=True):
        if old_kind == cur_kind or old_kind in ignored or (old_kind == STACK_MISC and cur_kind == STACK_ZERO):
            continue
        return False
    if old_kinds[7] != cur.slot_type[7]:
        return True
    return _slot_content_safe(env, old, cur, idmap, exact)


def stacksafe(env: VerifierEnv, old: FuncState, cur: FuncState, idmap: IdMap, exact: int) -> bool:
    """Every slot that ``old`` may have relied on is as good in ``cur``."""
    cur_stack = cur.stack
    n = len(cur_stack)
    for spi, old_slot in enumerate(old.stack):
        if old_slot is SLOT_INVALID and exact == NOT_EXACT:
            continue
        cur_slot = cur_stack[spi] if spi < n else None
        if old_slot is cur_slot and not old_slot.spilled_ptr.id and not old_slot.spilled_ptr.ref_obj_id:
            continue
        if not _slot_safe(env, old_slot, cur_slot, idmap, exact):
            return False
    return True


# --- whole states ---------------------------------------------------------------------------------------------------------


def refsafe(old: VerifierState, cur: VerifierState, idmap: IdMap) -> bool:
    """The same references and locks are held."""
    if old.refs is cur.refs and not old.refs and not old.active_locks and not cur.active_locks:
        return True
    if len(old.refs) != len(cur.refs) or old.active_locks != cur.active_locks:
        return False
    if old.active_preempt_locks != cur.active_preempt_locks or old.active_rcu_lock != cur.active_rcu_lock:
        return False
    if not idmap.check(old.active_irq_id, cur.active_irq_id) or not idmap.check(old.active_lock_id, cur.active_lock_id):
        return False
    if old.active_lock_ptr is not cur.active_lock_ptr:
        return False
    return all(
        idmap.check(o.id, c.id) and o.type == c.type and (o.type & ~(st.REF_TYPE_PTR | st.REF_TYPE_IRQ) == 0 or o.ptr is c.ptr)
        for o, c in zip(old.refs, cur.refs, strict=True)
    )


def frame_insn_idx(state: VerifierState, frame: int) -> int:
    """Where a frame stands: at the state's instruction, or at the call it made."""
    return state.insn_idx if frame == state.curframe else state.frame[frame + 1].callsite


def func_states_equal(env: VerifierEnv, old: FuncState, cur: FuncState, insn_idx: int, idmap: IdMap, exact: int) -> bool:
    if old.callback_depth > cur.callback_depth:
        return False
    live = env.insn_aux[insn_idx].live_regs_before
    old_regs, cur_regs = old.regs, cur.regs
    for i in range(11):
        if live >> i & 1:
            o, c = old_regs[i], cur_regs[i]
            if o is c and not o.id and not o.ref_obj_id:
                continue
            if not regsafe(env, o, c, idmap, exact):
                return False
    return stacksafe(env, old, cur, idmap, exact)


def states_equal(env: VerifierEnv, old: VerifierState, cur: VerifierState, exact: int) -> bool:
    """The new state is covered by the old one (or the same, see ``exact``)."""
    if old.curframe != cur.curframe or (old.speculative and not cur.speculative) or old.in_sleepable != cur.in_sleepable:
        return False
    idmap = IdMap(env.id_gen)
    if not refsafe(old, cur, idmap):
        return False
    for i in range(old.curframe + 1):
        if old.frame[i].callsite != cur.frame[i].callsite:
            return False
        if not func_states_equal(env, old.frame[i], cur.frame[i], frame_insn_idx(old, i), idmap, exact):
            return False
    return True


def _surely_differ(env: VerifierEnv, old: VerifierState, cur: VerifierState, insn_idx: int) -> bool:
    """A quick look at the current frame's live registers: when it says True, states_equal would say False.

    Most comparisons end here, at a precise scalar whose range is not covered.
    """
    if old.curframe != cur.curframe:
        return True
    strict = env.explore_alu_limits
    old_regs, cur_regs = old.frame[old.curframe].regs, cur.frame[cur.curframe].regs
    for i in _live_numbers(env.insn_aux[insn_idx]):
        o, c = old_regs[i], cur_regs[i]
        if o is c:
            continue
        if o.type != c.type:
            if o.type != NOT_INIT:
                return True
        elif o.type == SCALAR_VALUE and (o.precise or strict):
            if o.umin_value > c.umin_value or o.umax_value < c.umax_value:
                return True
            if strict and (o.umin_value != c.umin_value or o.umax_value != c.umax_value):
                return True
    return False


def _live_numbers(aux: InsnAux) -> tuple[int, ...]:
    """The live registers before an instruction, one by one."""
    numbers = aux.live_numbers
    if numbers is None:
        numbers = aux.live_numbers = tuple(i for i in range(11) if aux.live_regs_before >> i & 1)
    return numbers


def _out_of_range(env: VerifierEnv, old: VerifierState, cur: VerifierState, insn_idx: int) -> bool:
    """As _surely_differ, for RANGE_WITHIN: every live scalar counts as precise."""
    if old.curframe != cur.curframe:
        return True
    strict = env.explore_alu_limits
    old_regs, cur_regs = old.frame[old.curframe].regs, cur.frame[cur.curframe].regs
    for i in _live_numbers(env.insn_aux[insn_idx]):
        o, c = old_regs[i], cur_regs[i]
        if o is c:
            continue
        if o.type != c.type:
            return True
        if o.type == SCALAR_VALUE:
            if o.umin_value > c.umin_value or o.umax_value < c.umax_value:
                return True
            if strict and (o.umin_value != c.umin_value or o.umax_value != c.umax_value):
                return True
    return False


def states_maybe_looping(old: VerifierState, cur: VerifierState, aux: InsnAux) -> bool:
    """The current frame's registers are the same to the last bit: worth a closer look.

    The register that differed last time at this instruction is looked at first.
    """
    if old.curframe != cur.curframe:
        return False
    old_regs, cur_regs = old.frame[old.curframe].regs, cur.frame[cur.curframe].regs
    o, c = old_regs[aux.differs_at], cur_regs[aux.differs_at]
    if o is not c and (o.umin_value != c.umin_value or o.umax_value != c.umax_value):
        return False
    for i, (o, c) in enumerate(zip(old_regs, cur_regs, strict=True)):
        if o is not c and (o.umin_value != c.umin_value or _looping_part(o) != _looping_part(c)):
            aux.differs_at = i
            return False
    return True


# --- loops ----------------------------------------------------------------------------------------------------------------


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


# --- branch counts and checkpoints' lives ----------------------------------------------------------------------------------


def update_peak_states(env: VerifierEnv) -> None:
    n = env.explored_states_size + env.free_list_size + env.num_backedges
    if n > env.stats.peak_states:
        env.stats.peak_states = n


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


def _same_callsites(a: VerifierState, b: VerifierState) -> bool:
    return a.curframe == b.curframe and all(x.callsite == y.callsite for x, y in zip(a.frame, b.frame, strict=True))


def clean_live_states(env: VerifierEnv, states: list[VerifierState], insn_idx: int, cur: VerifierState) -> None:
    for old in states:
        if old.branches or old.cleaned or old.insn_idx != insn_idx or not _same_callsites(old, cur):
            continue
        if not incomplete_read_marks(env, old):
            clean_verifier_state(env, old)


# --- at a prune point -------------------------------------------------------------------------------------------------------


def find_prev_entry(env: VerifierEnv, cur: VerifierState | None, insn_idx: int) -> VerifierState | None:
    """The latest checkpoint of ``insn_idx`` on the path to ``cur``: a loop's round before this one."""
    if cur is None or env.cur_state is None:
        return None
    for old in reversed(explored_state(env, insn_idx, env.cur_state)):
        if old.insn_idx == insn_idx and old.branches and old.dfs_depth < cur.dfs_depth and _same_callsites(old, cur):
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


def _is_loop_hit(env: VerifierEnv, old: VerifierState, cur: VerifierState, insn_idx: int) -> bool:
    """``old`` waits for paths of its own, and the loop comes round to a state it covers."""
    if not env.insn_aux[insn_idx].calls_callback and old.may_goto_depth == cur.may_goto_depth:
        return False
    return not _out_of_range(env, old, cur, insn_idx) and states_equal(env, old, cur, RANGE_WITHIN)


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
    in_async = cur.frame[cur.curframe].in_async_callback_fn
    for old in states[::-1]:
        count += 1
        if old.insn_idx != insn_idx:
            continue
        if old.branches:
            if special and not (in_async and _other_async_entry(old, cur)) and _is_loop_hit(env, old, cur, insn_idx):
                _prune(env, old, cur, insn_idx, not aux.calls_callback)
                return True, False, count
            if states_maybe_looping(old, cur, aux):
                _check_infinite_loop(env, old, cur, insn_idx)
            if few:
                add = False
        elif not _surely_differ(env, old, cur, insn_idx):
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


def explored_state(env: VerifierEnv, insn_idx: int, cur: VerifierState) -> list[VerifierState]:
    """The kernel's hash bucket: other instructions' checkpoints may stand in it, and are counted."""
    bucket = ((insn_idx ^ cur.frame[cur.curframe].callsite) & 0xFFFF_FFFF) % len(env.insns)
    states: list[VerifierState] = env.explored_states[bucket]
    return states


def is_state_visited(env: VerifierEnv, insn_idx: int) -> bool:
    """True when a checkpoint at ``insn_idx`` covers the current state; else one may be made of it. Raises Reject for a loop."""
    cur, stats = env.cur_state, env.stats
    assert cur is not None
    jmps, insns = env.jmps_processed - env.prev_jmps_processed, stats.insn_processed - env.prev_insn_processed
    force = env.test_state_freq or env.insn_aux[insn_idx].force_checkpoint or len(cur.jmp_history) > MAX_JMP_HISTORY
    add = force or (jmps >= 2 and insns >= 8)
    states = explored_state(env, insn_idx, cur)
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
