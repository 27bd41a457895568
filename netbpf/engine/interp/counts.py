"""How often each instruction ran and each conditional jump was taken, at little cost: only where control can come in or part is
anything counted, by ops laid over the program's own.

The rest follows from the graph: between two such places an instruction runs as often as the one before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from netbpf.engine.interp.machine import Machine, Op, Regs
from netbpf.isa import opcodes as op
from netbpf.isa.cfg import call_target, insn_starts, is_conditional, jump_target
from netbpf.isa.instruction import Program
from netbpf.program import VerifiedProgram

_BREAKS: Final = frozenset({op.BPF_JMP | op.BPF_CALL, op.BPF_JMP | op.BPF_CALL | op.BPF_X, op.BPF_JMP | op.BPF_EXIT})


class ProgramCounts(NamedTuple):
    """Of one program: by slot, how often the instruction ran; by slot of a conditional jump, how often it was taken."""

    program: VerifiedProgram
    hits: dict[int, int]
    taken: dict[int, int]


class RunCounts:
    """Counts of a machine's programs, also of those that tail calls link later, from now on."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._entries: list[int] = []
        self._taken: list[int] = []
        self._linker = machine.link
        machine.link = self._link
        self._cover()

    def _link(self, machine: Machine, program: VerifiedProgram) -> int:
        base = self._linker(machine, program)
        self._cover()
        return base

    def _cover(self) -> None:
        """Lay counting ops over programs that have none."""
        ops, entries, taken = self._machine.ops, self._entries, self._taken
        for link in self._machine.links:
            if link.base < len(entries):
                continue
            new = len(ops) - len(entries)
            entries += [0] * new
            taken += [0] * new
            insns, begins = link.program.insns, leaders(link.program)
            for slot in insn_starts(insns):
                pc = link.base + slot
                if is_conditional(insns[slot]):
                    ops[pc] = _counted_jump(ops[pc], taken, pc, pc + 1)
                if slot in begins:
                    ops[pc] = _counted(ops[pc], entries, pc)

    def counts(self) -> Iterator[ProgramCounts]:
        """What was counted so far, a program at a time."""
        for link in self._machine.links:
            begins, hits, taken, now = leaders(link.program), {}, {}, 0
            for slot in insn_starts(link.program.insns):
                pc = link.base + slot
                if slot in begins:
                    now = self._entries[pc]
                hits[slot] = now
                if is_conditional(link.program.insns[slot]):
                    taken[slot] = self._taken[pc]
            yield ProgramCounts(link.program, hits, taken)


def leaders(program: VerifiedProgram) -> frozenset[int]:
    """Slots that control may come to without running the one before, or not come to after it: all of them where no proof rules
    out faults."""
    starts = insn_starts(program.insns)
    return frozenset(starts if not program.proved else {0, *_entered(program.insns, starts)})


def _entered(insns: Program, starts: list[int]) -> Iterator[int]:
    for slot in starts:
        insn = insns[slot]
        target = jump_target(slot, insn)
        called = call_target(slot, insn)
        if called is not None:
            yield called
        if target is not None:
            yield target
        if target is not None or insn.code in _BREAKS or op.is_ld_abs(insn.code) or op.is_ld_ind(insn.code):
            yield slot + 1


def _counted(run: Op, counts: list[int], pc: int) -> Op:
    def counted(regs: Regs) -> int:
        counts[pc] += 1
        return run(regs)

    return _wrapping(counted, run)


def _counted_jump(run: Op, taken: list[int], pc: int, next_pc: int) -> Op:
    def counted(regs: Regs) -> int:
        to = run(regs)
        if to != next_pc:
            taken[pc] += 1
        return to

    return _wrapping(counted, run)


def _wrapping(outer: Any, inner: Op) -> Op:
    """``outer``, from which ``plain_op`` leads back to the program's own op."""
    outer.__wrapped__ = plain_op(inner)
    wrapped: Op = outer
    return wrapped


def plain_op(run: Op) -> Op:
    """The op without what counts."""
    plain: Op = getattr(run, "__wrapped__", run)
    return plain
