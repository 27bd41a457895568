"""Whether a later state is covered by an earlier one, as far as it matters: states_equal and its parts.

Values are compared as far as they matter: dead registers and slots not at all, scalars by range only where precise.
Pure: compares, changes nothing.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Final

from netbpf.verifier import state as st
from netbpf.verifier.env import InsnAux, VerifierEnv
from netbpf.verifier.regs import unknown_reg_imprecise
from netbpf.verifier.state import (
    NOT_INIT,
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
        return o.ext[:2] == c.ext[:2] and idmap.check(o.ref_obj_id, c.ref_obj_id)  # which dynptr it is does not matter
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


def surely_differ(env: VerifierEnv, old: VerifierState, cur: VerifierState, insn_idx: int) -> bool:
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


def out_of_range(env: VerifierEnv, old: VerifierState, cur: VerifierState, insn_idx: int) -> bool:
    """As surely_differ, for RANGE_WITHIN: every live scalar counts as precise."""
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
    """The current frame's registers are the same to the last bit: worth a closer look. Remembers which one was not."""
    if old.curframe != cur.curframe:
        return False
    for i, (o, c) in enumerate(zip(old.frame[old.curframe].regs, cur.frame[cur.curframe].regs, strict=True)):
        if o is not c and (o.umin_value != c.umin_value or _looping_part(o) != _looping_part(c)):
            aux.differs_at = i
            return False
    return True



def same_callsites(a: VerifierState, b: VerifierState) -> bool:
    return a.curframe == b.curframe and all(x.callsite == y.callsite for x, y in zip(a.frame, b.frame, strict=True))
