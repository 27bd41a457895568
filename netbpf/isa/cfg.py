"""Where control may go: targets of single instructions, subprograms, and the graph of basic blocks.

Pure functions of instructions, for engines, tools and printers. A target outside the program or inside an LD_IMM64 is
no edge: saying that it is wrong is the verifier's room.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import (
    BPF_CALL,
    BPF_EXIT,
    BPF_JA,
    BPF_JMP,
    BPF_JMP32,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_X,
    bpf_class,
    bpf_op,
    is_ld_imm64,
)

_EXIT = BPF_JMP | BPF_EXIT
_CALL = BPF_JMP | BPF_CALL
_GOTO = BPF_JMP | BPF_JA
_GOTOL = BPF_JMP32 | BPF_JA


def is_jump(insn: Instruction) -> bool:
    """Goto, gotol, may_goto or a conditional jump; not a call, not exit."""
    return bpf_class(insn.code) in (BPF_JMP, BPF_JMP32) and bpf_op(insn.code) not in (BPF_CALL, BPF_EXIT)


def is_conditional(insn: Instruction) -> bool:
    """A jump that has two ways: a comparison, or may_goto."""
    return is_jump(insn) and insn.code not in (_GOTO, _GOTOL)


def jump_target(pc: int, insn: Instruction) -> int | None:
    """The slot a jump at ``pc`` goes to when taken, in range or not; None for what is no jump."""
    if not is_jump(insn):
        return None
    return pc + 1 + (insn.imm if insn.code == _GOTOL else insn.off)


def call_target(pc: int, insn: Instruction) -> int | None:
    """The first slot of the subprogram that ``pc`` calls or takes the address of; None for anything else."""
    by_call = insn.code == _CALL and insn.src == BPF_PSEUDO_CALL
    if by_call or (is_ld_imm64(insn.code) and insn.src == BPF_PSEUDO_FUNC):
        return pc + 1 + insn.imm
    return None


def falls_through(insn: Instruction) -> bool:
    """Whether the next instruction may follow: false for exit, goto and gotol."""
    return insn.code not in (_EXIT, _GOTO, _GOTOL, _GOTO | BPF_X)


def insn_starts(insns: Sequence[Instruction]) -> list[int]:
    """The slots at which an instruction begins, in order: all but the second slots of LD_IMM64."""
    starts, pc = [], 0
    while pc < len(insns):
        starts.append(pc)
        pc += 2 if is_ld_imm64(insns[pc].code) else 1
    return starts


def subprog_starts(insns: Sequence[Instruction]) -> tuple[int, ...]:
    """The first slots of every subprogram, in order; the main program's 0 first (empty for an empty program)."""
    starts = insn_starts(insns)
    begins = set(starts)
    called = {call_target(pc, insns[pc]) for pc in starts}
    return tuple(sorted(t for t in called | {0} if t is not None and t in begins))


class Block(NamedTuple):
    """Slots [start, end) that run one after another. ``successors`` are starts of blocks: first the fall-through, then the
    jump's target (once, where both are the same). ``subprog`` is an index into :attr:`Cfg.subprogs`."""

    start: int
    end: int
    last: int
    successors: tuple[int, ...]
    subprog: int


class Cfg(NamedTuple):
    """The graph of a program: ``blocks`` by start, in program order; ``subprogs`` their first slots."""

    blocks: dict[int, Block]
    subprogs: tuple[int, ...]

    def reverse_postorder(self, entry: int = 0) -> tuple[int, ...]:
        """Starts of the blocks reachable from ``entry``, each before its successors except along back edges."""
        return self._walk(entry)[0]

    def loop_heads(self, entry: int = 0) -> frozenset[int]:
        """Starts of blocks that an edge leads back to, in depth-first order from ``entry``."""
        return self._walk(entry)[1]

    def _walk(self, entry: int) -> tuple[tuple[int, ...], frozenset[int]]:
        if entry not in self.blocks:
            return (), frozenset()
        post: list[int] = []
        heads: set[int] = set()
        seen, open_ = {entry}, {entry}
        stack = [(entry, iter(self.blocks[entry].successors))]
        while stack:
            start, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                open_.discard(start)
                post.append(start)
            elif following in open_:
                heads.add(following)
            elif following not in seen:
                seen.add(following)
                open_.add(following)
                stack.append((following, iter(self.blocks[following].successors)))
        return tuple(reversed(post)), frozenset(heads)


def build(insns: Sequence[Instruction]) -> Cfg:
    """The graph of ``insns``. Blocks cover every slot, reachable or not; a block never crosses a subprogram's start."""
    starts = insn_starts(insns)
    subprogs = subprog_starts(insns)
    leaders = _leaders(insns, starts, subprogs)
    blocks: dict[int, Block] = {}
    bounds = [*leaders, len(insns)]
    last_of = _last_insn(starts, bounds)
    subprog = 0
    for start, end in pairwise(bounds):
        while subprog + 1 < len(subprogs) and subprogs[subprog + 1] <= start:
            subprog += 1
        last = last_of[start]
        blocks[start] = Block(start, end, last, _successors(insns[last], last, end, leaders), subprog)
    return Cfg(blocks, subprogs)


def _leaders(insns: Sequence[Instruction], starts: list[int], subprogs: tuple[int, ...]) -> dict[int, None]:
    """Slots at which a block begins, in order (a dict for its quick look-up)."""
    begins = set(starts)
    found = set(subprogs)
    for pc in starts:
        insn = insns[pc]
        target = jump_target(pc, insn)
        if target is None and insn.code != _EXIT:
            continue
        found.update(t for t in (target, pc + 1) if t is not None and t in begins)
    return dict.fromkeys(sorted(found))


def _last_insn(starts: list[int], bounds: list[int]) -> dict[int, int]:
    """For each block the slot of its last instruction."""
    ends = iter(bounds[1:])
    begin, end, last = (bounds[0], next(ends), 0) if len(bounds) > 1 else (0, 0, 0)
    out: dict[int, int] = {}
    for pc in starts:
        if pc >= end:
            out[begin] = last
            begin, end = end, next(ends)
        last = pc
    if starts:
        out[begin] = last
    return out


def _successors(insn: Instruction, pc: int, end: int, leaders: dict[int, None]) -> tuple[int, ...]:
    target = jump_target(pc, insn)
    candidates = [end] if falls_through(insn) else []
    if target is not None and target not in candidates:
        candidates.append(target)
    return tuple(t for t in candidates if t in leaders)
