"""Where an instruction stands, which is all that a maker of ops gets. Knows no opcode.

A *maker* turns one instruction into an *op*. Every op takes the same steps: operands, check, effect, next pc. What can be known
before the run (register numbers, immediates, the next pc) is bound when the op is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from netbpf.engine.interp.machine import Machine, Op
from netbpf.isa.instruction import Instruction, imm64
from netbpf.program import InsnFacts, VerifiedProgram


class Site(NamedTuple):
    """Instruction ``insn`` at slot ``slot`` of ``program``, which is linked at ``base``."""

    insn: Instruction
    slot: int
    base: int
    program: VerifiedProgram
    machine: Machine

    @property
    def next_pc(self) -> int:
        return self.base + self.slot + 1

    def target(self, distance: int) -> int:
        """The pc that a jump over ``distance`` slots reaches."""
        return self.base + self.slot + 1 + distance

    @property
    def facts(self) -> InsnFacts | None:
        """What the proof found here; None in programs without one."""
        return self.program.facts[self.slot] if self.program.facts else None

    @property
    def imm64(self) -> int:
        """The 64-bit immediate of an LD_IMM64."""
        return imm64(self.insn, self.program.insns[self.slot + 1])


Maker = Callable[[Site], Op]
