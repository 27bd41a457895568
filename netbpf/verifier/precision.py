"""Which scalars matter exactly: precision marks, chased backwards along the path that was walked.

A scalar is imprecise until a rule depends on its bounds. Then every scalar it was computed from, back through the history
of jumps and the chain of checkpoints, is marked precise in those checkpoints, so that pruning compares its bounds.
Checks nothing; never refuses a program on purpose.
"""

from __future__ import annotations

from netbpf.isa.opcodes import BPF_REG_FP
from netbpf.verifier.backtrack import (
    REGMASK_ARGS,
    Backtrack,
    bits,
    fmt_reg_mask,
    fmt_stack_mask,
    walk_silently,
    walk_state,
    was_chased,
)
from netbpf.verifier.env import BPF_LOG_LEVEL2, VerifierEnv
from netbpf.verifier.log import print_verifier_state, verbose, verifier_bug
from netbpf.verifier.path import BPF_MAIN_FUNC
from netbpf.verifier.state import SCALAR_VALUE, STACK_SPILL, FuncState, RegState, StackSlot, VerifierState


def _precise(reg: RegState) -> RegState:
    copy = reg.copy()
    copy.precise = True
    return copy


def is_spilled_scalar(slot: StackSlot) -> bool:
    return slot.slot_type[7] == STACK_SPILL and slot.spilled_ptr.type == SCALAR_VALUE


def _mark_frame(func: FuncState, fr: int, bt: Backtrack) -> bool:
    """Mark in one frame of a checkpoint what is looked for, and look no further for what was marked already."""
    changed = False
    regs, mask = func.regs, bt.regs[fr]
    for i in bits(mask):
        reg = regs[i]
        if reg.type != SCALAR_VALUE or reg.precise:
            mask &= ~(1 << i)
        else:
            regs[i] = _precise(reg)
            changed = True
    bt.regs[fr] = mask
    mask = bt.slots[fr]
    for i in bits(mask):
        slot = func.stack[i]
        if not is_spilled_scalar(slot) or slot.spilled_ptr.precise:
            mask &= ~(1 << i)
        else:
            func.stack[i] = StackSlot(slot.slot_type, _precise(slot.spilled_ptr))
            changed = True
    bt.slots[fr] = mask
    return changed


def _mark_checkpoint(env: VerifierEnv, st: VerifierState, bt: Backtrack) -> bool:
    changed = False
    for fr in range(bt.frame, -1, -1):
        if bt.regs[fr] or bt.slots[fr]:
            changed |= _mark_frame(st.frame[fr], fr, bt)
        if env.log_level & BPF_LOG_LEVEL2:
            regs, slots = fmt_reg_mask(bt.regs[fr]), fmt_stack_mask(bt.slots[fr])
            verbose(env, f"mark_precise: frame{fr}: parent state regs={regs} stack={slots}: ")
            print_verifier_state(env, st, fr, True)
    return changed


def _mark_entry(env: VerifierEnv, st: VerifierState, bt: Backtrack) -> bool:
    """At the entry of a global function only its arguments may still be looked for; they are marked in ``st``."""
    frame = st.frame[0]
    entered_globally = st.curframe == 0 and frame.subprogno > 0 and frame.callsite == BPF_MAIN_FUNC
    if not entered_globally or bt.slots[bt.frame] or bt.regs[bt.frame] & ~REGMASK_ARGS:
        masks = f"reg_mask {bt.regs[bt.frame]:x} stack_mask {bt.slots[bt.frame]:x}"
        raise verifier_bug(env, f"backtracking func entry subprog {frame.subprogno} {masks}")
    changed = False
    for i in bits(bt.regs[bt.frame]):
        if frame.regs[i].type == SCALAR_VALUE:
            frame.regs[i] = _precise(frame.regs[i])
            changed = True
    return changed


def mark_chain_precision(env: VerifierEnv, regno: int) -> None:
    """The bounds of scalar ``regno`` of the current frame decide something: mark all they came from."""
    if not env.bpf_capable:
        return
    cur = env.cur_state
    assert cur is not None
    frame, mask = cur.curframe, 1 << regno
    if cur.frame[frame].regs[regno].type != SCALAR_VALUE:
        raise verifier_bug(env, "backtracking misuse")  # reached by a bpf_loop whose count is a pointer
    if not env.log_level & BPF_LOG_LEVEL2 and was_chased(env, cur, frame, mask):
        return
    bt = Backtrack(frame)
    bt.regs[frame] = mask
    mark_chain_precision_batch(env, cur, bt)


def mark_chain_precision_batch(env: VerifierEnv, starting_state: VerifierState, bt: Backtrack) -> bool:
    """Chase everything in ``bt`` from the end of ``starting_state`` backwards; True when a checkpoint's mark changed."""
    if not env.bpf_capable or bt.empty():
        return False
    st, last_idx, subseq_idx = starting_state, starting_state.insn_idx, -1
    skip_first, changed = True, False
    walk = walk_state if env.log_level & BPF_LOG_LEVEL2 else walk_silently
    while True:
        if env.log_level & BPF_LOG_LEVEL2:
            indices = f"last_idx {last_idx} first_idx {st.first_insn_idx} subseq_idx {subseq_idx}"
            verbose(env, f"mark_precise: frame{bt.frame}: {indices} \n")
        if last_idx < 0:
            return _mark_entry(env, st, bt) or changed
        if not walk(env, st, last_idx, subseq_idx, skip_first, bt):
            mark_all_scalars_precise(env, starting_state)
            return changed
        if bt.empty():
            return changed
        skip_first, subseq_idx = False, st.first_insn_idx
        if st.parent is None:
            break
        st = st.parent
        changed |= _mark_checkpoint(env, st, bt)
        if bt.empty():
            return changed
        last_idx = st.last_insn_idx
    mark_all_scalars_precise(env, starting_state)
    return changed


# --- all of them -----------------------------------------------------------------------------------------------------


def mark_all_scalars_precise(env: VerifierEnv, st: VerifierState) -> None:
    """Where backtracking lost track: every scalar of every checkpoint before ``st`` is precise."""
    verbose_2 = bool(env.log_level & BPF_LOG_LEVEL2)
    if verbose_2:
        verbose(env, f"mark_precise: frame{st.curframe}: falling back to forcing all scalars precise\n")
    parent = st.parent
    while parent is not None:
        for i in range(parent.curframe + 1):
            _force_frame(env, parent.frame[i], i, verbose_2)
        parent = parent.parent


def _force_frame(env: VerifierEnv, func: FuncState, frameno: int, verbose_2: bool) -> None:
    for j in range(BPF_REG_FP):
        reg = func.regs[j]
        if reg.type == SCALAR_VALUE and not reg.precise:
            func.regs[j] = _precise(reg)
            if verbose_2:
                verbose(env, f"force_precise: frame{frameno}: forcing r{j} to be precise\n")
    for j, slot in enumerate(func.stack):
        if is_spilled_scalar(slot) and not slot.spilled_ptr.precise:
            func.stack[j] = StackSlot(slot.slot_type, _precise(slot.spilled_ptr))
            if verbose_2:
                verbose(env, f"force_precise: frame{frameno}: forcing fp{-(j + 1) * 8} to be precise\n")


def _imprecise(reg: RegState) -> RegState:
    copy = reg.copy()
    copy.precise = False
    return copy


def mark_all_scalars_imprecise(st: VerifierState) -> None:
    """Forget every mark in ``st``: a new checkpoint starts to earn its own."""
    for func in st.frame:
        regs = func.regs
        for j in range(BPF_REG_FP):
            reg = regs[j]
            if reg.precise and reg.type == SCALAR_VALUE:
                regs[j] = _imprecise(reg)
        for j, slot in enumerate(func.stack):
            if slot.spilled_ptr.precise and is_spilled_scalar(slot):
                func.stack[j] = StackSlot(slot.slot_type, _imprecise(slot.spilled_ptr))


def propagate_precision(env: VerifierEnv, old: VerifierState, cur: VerifierState) -> bool:
    """``cur`` equals the checkpoint ``old``: what must be precise there must be precise on ``cur``'s path too.

    True when a mark changed.
    """
    bt = Backtrack(cur.curframe)
    for fr in range(old.curframe, -1, -1):
        func = old.frame[fr]
        regs = [i for i in range(BPF_REG_FP) if func.regs[i].precise and func.regs[i].type == SCALAR_VALUE]
        slots = [i for i, slot in enumerate(func.stack) if slot.spilled_ptr.precise and is_spilled_scalar(slot)]
        bt.regs[fr] = sum(1 << i for i in regs)
        bt.slots[fr] = sum(1 << i for i in slots)
        if (regs or slots) and env.log_level & BPF_LOG_LEVEL2:
            names = [f"r{i}" for i in regs] + [f"fp{-8 * (i + 1)}" for i in slots]
            verbose(env, f"frame {fr}: propagating {','.join(names)}\n")
    return mark_chain_precision_batch(env, cur, bt)
