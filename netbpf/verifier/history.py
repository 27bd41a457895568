"""What a path remembers of the way it came: where it jumped, which stack slots it touched, which scalars were linked.

A VerifierState's ``jmp_history`` holds entries since the last checkpoint; between two entries the path was a straight line.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from netbpf.verifier.env import VerifierEnv
from netbpf.verifier.state import VerifierState

# JmpHistoryEntry.flags: frame number | slot << 3 | what the instruction did
INSN_F_FRAMENO_MASK: Final = 0x7
INSN_F_SPI_MASK: Final = 0x3F
INSN_F_SPI_SHIFT: Final = 3
INSN_F_STACK_ACCESS: Final = 1 << 9
INSN_F_DST_REG_STACK: Final = 1 << 10  # the left operand of a comparison is no scalar
INSN_F_SRC_REG_STACK: Final = 1 << 11


class LinkedReg(NamedTuple):
    """A register or spilled scalar that shares an id with another: ``num`` is a register number, or a slot's."""

    frameno: int
    is_reg: bool
    num: int


# One instruction of the path that needs remembering, because a jump arrived here, or it touched the stack, or linked scalars:
# (instruction, the one before it, INSN_F_* flags, linked scalars). A bare tuple: one is made for nearly every jump.
JmpHistoryEntry = tuple[int, int, int, tuple[LinkedReg, ...]]


def insn_stack_access_flags(frameno: int, spi: int) -> int:
    """The history flags of an access to slot ``spi`` of frame ``frameno``."""
    return INSN_F_STACK_ACCESS | spi << INSN_F_SPI_SHIFT | frameno


def push_jmp_history(env: VerifierEnv, cur: VerifierState, insn_flags: int = 0, linked_regs: tuple[LinkedReg, ...] = ()) -> None:
    """Remember the current instruction in ``cur``'s history; a second call for it adds to the entry."""
    entry = env.cur_hist_ent
    if entry is not None:
        entry = (entry[0], entry[1], entry[2] | insn_flags, linked_regs)
        cur.jmp_history[-1] = entry
    else:
        entry = (env.insn_idx, env.prev_insn_idx, insn_flags, linked_regs)
        cur.jmp_history.append(entry)
    env.cur_hist_ent = entry


def get_prev_insn_idx(st: VerifierState, i: int, history: int) -> tuple[int, int]:
    """The instruction that ran before ``i`` within ``st``, and the history left; (-1, ...) at the state's beginning."""
    entries = st.jmp_history
    if i == st.first_insn_idx and (history == 0 or (history == 1 and entries[0][0] == i)):
        return -1, history
    if history and entries[history - 1][0] == i:
        return entries[history - 1][1], history - 1
    return i - 1, history
