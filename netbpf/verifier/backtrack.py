"""The walk backwards along a path: from the registers and slots looked for after instructions to those looked for before.

Moves a Backtrack only: marks nothing, refuses nothing. ``walk_state`` writes the log's `mark_precise:` lines; below level 2
``walk_silently`` does the same work faster, and stops where an earlier walk was.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import (
    BPF_ABS,
    BPF_ALU,
    BPF_ALU64,
    BPF_ATOMIC,
    BPF_CALL,
    BPF_END,
    BPF_EXIT,
    BPF_IND,
    BPF_JA,
    BPF_JMP,
    BPF_LD,
    BPF_LDX,
    BPF_LOAD_ACQ,
    BPF_MOV,
    BPF_NEG,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_KFUNC_CALL,
    BPF_REG_FP,
    BPF_ST,
    BPF_STX,
    BPF_X,
)
from netbpf.verifier.env import BPF_LOG_LEVEL2, VerifierEnv
from netbpf.verifier.history import (
    INSN_F_DST_REG_STACK,
    INSN_F_FRAMENO_MASK,
    INSN_F_SPI_MASK,
    INSN_F_SPI_SHIFT,
    INSN_F_SRC_REG_STACK,
    INSN_F_STACK_ACCESS,
    JmpHistoryEntry,
    get_prev_insn_idx,
)
from netbpf.verifier.log import verbose, verbose_insn, verifier_bug
from netbpf.verifier.state import MAX_CALL_FRAMES, VerifierState
from netbpf.verifier.structure import LD_IMM64, find_subprog, is_sync_callback_calling_insn

REGMASK_ARGS: Final = 0x3E  # r1-r5
REGMASK_R0: Final = 1


# --- what is being looked for ------------------------------------------------------------------------------------


class Backtrack:
    """Registers and slots still looked for, one bit mask each per frame; ``frame`` is where the walk stands."""

    __slots__ = ("frame", "regs", "slots")

    def __init__(self, frame: int) -> None:
        self.frame = frame
        self.regs = [0] * MAX_CALL_FRAMES
        self.slots = [0] * MAX_CALL_FRAMES

    def empty(self) -> bool:
        return not any(self.regs) and not any(self.slots)

    def clear(self) -> None:
        """Nothing is looked for any more."""
        self.regs = [0] * MAX_CALL_FRAMES
        self.slots = [0] * MAX_CALL_FRAMES

    def is_alone(self) -> bool:
        """Only registers of the current frame are looked for."""
        return not any(self.slots) and sum(map(bool, self.regs)) == (self.regs[self.frame] != 0)

    def exit_subprog(self, env: VerifierEnv) -> None:
        """Into the caller. A way back does not see that a packet load left a function: the frames run out."""
        if self.frame == 0:
            raise verifier_bug(env, "subprog exit from frame 0")
        self.frame -= 1

    def enter_subprog(self, env: VerifierEnv) -> None:
        if self.frame == MAX_CALL_FRAMES - 1:
            raise verifier_bug(env, f"subprog enter from frame {self.frame}")
        self.frame += 1


def fmt_reg_mask(mask: int) -> str:
    """``r1,r6``."""
    return ",".join(f"r{i}" for i in range(mask.bit_length()) if mask >> i & 1)


def fmt_stack_mask(mask: int) -> str:
    """``-8,-24``: offsets from the frame pointer."""
    return ",".join(str(-8 * (i + 1)) for i in range(mask.bit_length()) if mask >> i & 1)


@lru_cache(maxsize=4096)
def bits(mask: int) -> tuple[int, ...]:
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)


def _sync_linked_regs(bt: Backtrack, hist: JmpHistoryEntry | None) -> None:
    """When one of the scalars linked at this instruction is looked for, all of them are."""
    if hist is None or not hist[3]:
        return
    regs, slots = bt.regs, bt.slots
    linked = hist[3]
    if not any((regs if is_reg else slots)[frameno] >> num & 1 for frameno, is_reg, num in linked):
        return
    for frameno, is_reg, num in linked:
        (regs if is_reg else slots)[frameno] |= 1 << num


# --- one instruction backwards -------------------------------------------------------------------------------------
# Each returns False where it cannot tell, and everything has to be precise.


def _back_alu(insn: Instruction, bt: Backtrack) -> bool:
    dst, frame = 1 << insn.dst, bt.frame
    if not bt.regs[frame] & dst:
        return True
    op = insn.code & 0xF0
    if op in (BPF_END, BPF_NEG):
        return True
    if op == BPF_MOV:
        bt.regs[frame] &= ~dst
    if insn.code & BPF_X and insn.src != BPF_REG_FP:
        bt.regs[frame] |= 1 << insn.src
    return True


def _back_load(insn: Instruction, hist: JmpHistoryEntry | None, bt: Backtrack) -> bool:
    dst = 1 << insn.dst
    if not bt.regs[bt.frame] & dst:
        return True
    bt.regs[bt.frame] &= ~dst
    flags = hist[2] if hist is not None else 0
    if flags & INSN_F_STACK_ACCESS:
        bt.slots[flags & INSN_F_FRAMENO_MASK] |= 1 << (flags >> INSN_F_SPI_SHIFT & INSN_F_SPI_MASK)
    return True


def _back_store(insn: Instruction, hist: JmpHistoryEntry | None, bt: Backtrack) -> bool:
    if bt.regs[bt.frame] >> insn.dst & 1:
        return False
    flags = hist[2] if hist is not None else 0
    if not flags & INSN_F_STACK_ACCESS:
        return True
    frameno = flags & INSN_F_FRAMENO_MASK
    slot = 1 << (flags >> INSN_F_SPI_SHIFT & INSN_F_SPI_MASK)
    if not bt.slots[frameno] & slot:
        return True
    bt.slots[frameno] &= ~slot
    if insn.code & 7 == BPF_STX:
        bt.regs[bt.frame] |= 1 << insn.src
    return True


def _expect(env: VerifierEnv, bt: Backtrack, regs_mask: int, what: str) -> None:
    """Only registers of ``regs_mask`` may still be looked for in this frame."""
    if bt.regs[bt.frame] & ~regs_mask:
        raise verifier_bug(env, f"{what} unexpected regs {bt.regs[bt.frame]:x}")


def _expect_no_slots(env: VerifierEnv, bt: Backtrack, what: str) -> None:
    """Nothing of this frame's stack may still be looked for where it is left."""
    if bt.slots[bt.frame]:
        raise verifier_bug(env, f"{what} leftover stack slots {bt.slots[bt.frame]:x}")


def _back_pseudo_call(env: VerifierEnv, idx: int, insn: Instruction, bt: Backtrack) -> bool:
    """Out of the callee: a static one leaves its arguments to the caller; a global one is opaque and sets r0."""
    frame = bt.frame
    subprog = find_subprog(env, idx + insn.imm + 1)
    if env.subprogs[subprog].is_global:
        _expect(env, bt, ~REGMASK_ARGS, "global subprog")
        bt.regs[frame] &= ~REGMASK_R0
        return True
    _expect(env, bt, REGMASK_ARGS, "static subprog")
    _expect_no_slots(env, bt, "static subprog")
    bt.exit_subprog(env)
    bt.regs[bt.frame] |= bt.regs[frame] & REGMASK_ARGS
    bt.regs[frame] = 0
    return True


def _back_call(env: VerifierEnv, idx: int, subseq_idx: int, insn: Instruction, bt: Backtrack) -> bool:
    if insn.src == BPF_PSEUDO_CALL:
        return _back_pseudo_call(env, idx, insn, bt)
    if idx != subseq_idx - 1 and is_sync_callback_calling_insn(insn):
        _expect(env, bt, REGMASK_ARGS, "callback")
        _expect_no_slots(env, bt, "callback")
        bt.regs[bt.frame] = 0  # a callback's arguments come from the helper
        bt.exit_subprog(env)
        return True
    if insn.src == BPF_PSEUDO_KFUNC_CALL and insn.imm == 0:
        return False
    bt.regs[bt.frame] &= ~REGMASK_R0
    _expect(env, bt, ~REGMASK_ARGS, "backtracking call")
    return True


def _back_exit(env: VerifierEnv, subseq_idx: int, bt: Backtrack) -> bool:
    """Into a callee or callback from behind; r0 is looked for there only when a call returned it."""
    if subseq_idx >= 0 and env.insn_aux[subseq_idx].calls_callback:
        bt.regs[bt.frame] &= ~REGMASK_ARGS
    _expect(env, bt, ~REGMASK_ARGS, "backtracking exit")
    caller = env.insns[subseq_idx - 1] if subseq_idx >= 1 else None
    from_call = caller is not None and caller.code == BPF_JMP | BPF_CALL and caller.src == BPF_PSEUDO_CALL
    r0_precise = from_call and bt.regs[bt.frame] & REGMASK_R0
    bt.regs[bt.frame] &= ~REGMASK_R0
    bt.enter_subprog(env)
    if r0_precise:
        bt.regs[bt.frame] |= REGMASK_R0
    return True


def _back_compare(insn: Instruction, hist: JmpHistoryEntry | None, bt: Backtrack) -> bool:
    if not insn.code & BPF_X:
        return True
    dst, src = 1 << insn.dst, 1 << insn.src
    if not bt.regs[bt.frame] & (dst | src):
        return True
    flags = hist[2] if hist is not None else 0
    if not flags & INSN_F_SRC_REG_STACK:
        bt.regs[bt.frame] |= src
    if not flags & INSN_F_DST_REG_STACK:
        bt.regs[bt.frame] |= dst
    return True


def _back_ld(insn: Instruction, bt: Backtrack) -> bool:
    dst = 1 << insn.dst
    if not bt.regs[bt.frame] & dst:
        return True
    bt.regs[bt.frame] &= ~dst
    return insn.code & 0xE0 not in (BPF_ABS, BPF_IND)


def is_atomic_load_insn(insn: Instruction) -> bool:
    return insn.code & 0xE7 == BPF_STX | BPF_ATOMIC and insn.imm == BPF_LOAD_ACQ


def backtrack_insn(env: VerifierEnv, idx: int, subseq_idx: int, hist: JmpHistoryEntry | None, bt: Backtrack) -> bool:
    """From what is looked for after instruction ``idx`` to what is looked for before it; False where it cannot tell.

    ``subseq_idx`` is the instruction that ran next.
    """
    insn = env.insns[idx]
    code = insn.code
    if code == 0:  # the second half of ld_imm64
        return True
    if env.log_level & BPF_LOG_LEVEL2:
        regs, slots = fmt_reg_mask(bt.regs[bt.frame]), fmt_stack_mask(bt.slots[bt.frame])
        verbose(env, f"mark_precise: frame{bt.frame}: regs={regs} stack={slots} before {idx}: ")
        verbose_insn(env, idx)
    _sync_linked_regs(bt, hist)
    known = _back_by_class(env, idx, subseq_idx, insn, hist, bt)
    if known and hist is not None and hist[3]:
        _sync_linked_regs(bt, hist)
    return known


def _back_by_class(
    env: VerifierEnv, idx: int, subseq_idx: int, insn: Instruction, hist: JmpHistoryEntry | None, bt: Backtrack
) -> bool:
    cls = insn.code & 7
    if cls in (BPF_ALU64, BPF_ALU):
        return _back_alu(insn, bt)
    if cls == BPF_LDX or is_atomic_load_insn(insn):
        return _back_load(insn, hist, bt)
    if cls in (BPF_STX, BPF_ST):
        return _back_store(insn, hist, bt)
    if cls == BPF_LD:
        return _back_ld(insn, bt)
    op = insn.code & 0xF0
    if op == BPF_CALL:
        return _back_call(env, idx, subseq_idx, insn, bt)
    if op == BPF_EXIT:
        return _back_exit(env, subseq_idx, bt)
    return _back_compare(insn, hist, bt)


# --- one state backwards ---------------------------------------------------------------------------------------------------


def walk_state(env: VerifierEnv, st: VerifierState, i: int, subseq_idx: int, skip_first: bool, bt: Backtrack) -> bool:
    """Walk ``st``'s instructions backwards from ``i`` until nothing is looked for; False where that cannot be told."""
    entries, history = st.jmp_history, len(st.jmp_history)
    while True:
        if skip_first:
            skip_first = False
        else:
            hist = entries[history - 1] if history and entries[history - 1][0] == i else None
            if not backtrack_insn(env, i, subseq_idx, hist, bt):
                return False
            if bt.empty():
                return True
        subseq_idx = i
        i, history = get_prev_insn_idx(st, i, history)
        if i < 0:
            return True


# --- the same, without words: fast ---------------------------------------------------------------------------------------

# what an instruction does, backwards, to the registers looked for in its frame, when it neither touches the stack nor has
# linked scalars: nothing; dst needs src too; dst comes from src; dst comes from elsewhere; both operands or none; dst may not be
# looked for; r0 comes from it; all the rest
_NOTHING, _ADDS_SRC, _COPIES_SRC, _SETS_DST, _COMPARES, _STORES, _CALLS, _OTHER = range(8)


def _back_kind(insn: Instruction) -> int:
    cls, kind, by_reg = insn.code & 7, insn.code & 0xF0, insn.code & BPF_X
    if insn.code == 0:
        return _NOTHING
    if cls in (BPF_ALU64, BPF_ALU):
        if kind in (BPF_END, BPF_NEG):
            return _NOTHING
        moves = kind == BPF_MOV
        if not by_reg or insn.src == BPF_REG_FP:
            return _SETS_DST if moves else _NOTHING
        return _COPIES_SRC if moves else _ADDS_SRC
    if cls == BPF_LDX or insn.code == LD_IMM64:
        return _SETS_DST
    if cls == BPF_ST or (cls == BPF_STX and not is_atomic_load_insn(insn)):
        return _STORES
    if kind == BPF_CALL and insn.src == 0 and not is_sync_callback_calling_insn(insn):
        return _CALLS
    if cls in (BPF_LD, BPF_STX) or kind in (BPF_CALL, BPF_EXIT):
        return _OTHER
    return _COMPARES if by_reg and kind != BPF_JA else _NOTHING


BackRow = tuple[int, int, int, int, bool]  # kind, dst bit, src bit, registers that make a stack access matter, jumped to


def _back_table(env: VerifierEnv) -> list[BackRow]:
    if not env.back_table:
        env.back_table = [_back_row(insn, aux.jmp_point) for insn, aux in zip(env.insns, env.insn_aux, strict=True)]
    return env.back_table


def _back_row(insn: Instruction, jumped_to: bool) -> BackRow:
    kind, dst, src = _back_kind(insn), 1 << insn.dst, 1 << insn.src
    return kind, dst, src, dst | src if kind == _COMPARES else dst, jumped_to


# A state's history only grows and marks only come, never go: what was chased once from some entry of a history on need not be
# chased again. ``VerifierState.bt_done`` holds such (entry, what was looked for); loops would else be walked back again at every
# jump. A key is one number where only registers of the current frame are looked for.


def _key(history: int, bt: Backtrack) -> Any:
    return history, bt.frame, tuple(bt.regs), tuple(bt.slots)


def was_chased(env: VerifierEnv, st: VerifierState, frame: int, mask: int) -> bool:
    """Whether the current state's history, walked back through plain instructions only, leads to where nothing is left to do.

    The commonest case by far: a loop's counter decides again whether the loop goes on.
    """
    done = st.bt_done
    if not done:
        return False
    entries, history, i, table = st.jmp_history, len(st.jmp_history), st.insn_idx, _back_table(env)
    frame <<= 16
    passed: list[int] = []
    while history:
        entry = entries[history - 1]
        if entry[0] == i:
            if history == 1 and i == st.first_insn_idx:
                return False
            i, history = entry[1], history - 1
            entry = entries[history - 1]
        else:
            i -= 1
        kind, dst, src, touched, jumped_to = table[i]
        if history and entry[0] == i:
            if entry[3] or (entry[2] and mask & touched):
                return False
            if jumped_to:
                key = history << 24 | frame | mask
                if key in done:
                    done.update(passed)
                    return True
                passed.append(key)
        if kind >= _COMPARES:
            if kind == _OTHER or mask & (dst | src if kind == _COMPARES else dst if kind == _STORES else REGMASK_ARGS):
                return False
            if kind == _CALLS:
                mask &= ~REGMASK_R0
        elif kind and mask & dst:
            mask = (mask if kind == _ADDS_SRC else mask & ~dst) | (0 if kind == _SETS_DST else src)
        if not mask:
            done.update(passed)
            return True
    return False


def walk_silently(env: VerifierEnv, st: VerifierState, i: int, subseq_idx: int, skip_first: bool, bt: Backtrack) -> bool:
    """As walk_state, but stops where it was before, and plain instructions are rows of a table."""
    entries, history, first_idx, table = st.jmp_history, len(st.jmp_history), st.first_insn_idx, _back_table(env)
    if st.bt_done is None:
        st.bt_done = set()
    done, frame, alone = st.bt_done, bt.frame, bt.is_alone()
    mask = bt.regs[frame]
    entry_idx = entries[history - 1][0] if history else -1
    while True:
        if skip_first:
            skip_first = False
        else:
            kind, dst, src, touched, jumped_to = table[i]
            entry = None
            if entry_idx == i:
                if jumped_to:
                    bt.regs[frame] = mask
                    key = history << 24 | frame << 16 | mask if alone else _key(history, bt)
                    if key in done:
                        bt.clear()
                        return True
                    done.add(key)
                entry = entries[history - 1]
                if entry[3] or (entry[2] and (not alone or mask & touched)):
                    kind = _OTHER
            if kind == _OTHER or (kind >= _STORES and mask & (dst if kind == _STORES else REGMASK_ARGS)):
                bt.regs[frame] = mask
                if not backtrack_insn(env, i, subseq_idx, entry, bt):
                    return False
                frame, alone = bt.frame, bt.is_alone()
                mask = bt.regs[frame]
            elif kind == _COMPARES:
                if mask & (dst | src):
                    mask |= dst | src
            elif kind == _CALLS:
                mask &= ~REGMASK_R0
            elif kind and mask & dst:
                if kind != _ADDS_SRC:
                    mask &= ~dst
                if kind != _SETS_DST:
                    mask |= src
            if not mask and alone:
                bt.regs[frame] = 0
                return True
        if i == first_idx and (history == 0 or (history == 1 and entry_idx == i)):
            bt.regs[frame] = mask
            return True
        subseq_idx = i
        if entry_idx == i:
            history -= 1
            i = entries[history][1]
            entry_idx = entries[history - 1][0] if history else -1
        else:
            i -= 1
