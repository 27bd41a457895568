"""A step of a run while it is being recorded: what is known of it so far, and how to find out the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from netbpf.engine.interp.machine import Regs
from netbpf.explain.steps import Branch, Call, Change, Load, Step, Test
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import bpf_class

_EXIT: Final = op.BPF_JMP | op.BPF_EXIT
_CALL: Final = op.BPF_JMP | op.BPF_CALL
ARITHMETIC: Final = frozenset({op.BPF_ALU, op.BPF_ALU64, op.BPF_LD})
"""Classes of instructions that leave a number in a register and do nothing else."""


class OpenStep:
    """A step that is not finished: what is known of it so far, and how to find out the rest."""

    __slots__ = (
        "branch", "call", "changes", "depth", "index", "insn", "load", "pc", "program", "regs", "settle", "slot",
        "stack", "store", "tests",
    )  # fmt: skip

    def __init__(self, index: int, program: int, slot: int, pc: int, depth: int, insn: Instruction, regs: Regs) -> None:
        self.index, self.program, self.slot, self.pc, self.depth, self.insn = index, program, slot, pc, depth, insn
        self.regs = tuple(regs)
        self.load: Load | None = None
        self.tests: list[Test] = []
        self.store = ""
        self.branch: Branch | None = None
        self.call: Call | None = None
        self.changes: list[Change] = []
        self.stack = b""
        self.settle: Callable[[Regs, int], None] | None = None

    @property
    def is_helper_call(self) -> bool:
        return self.insn.code == _CALL and self.insn.src == 0

    def has_left(self, next_pc: int) -> bool:
        """Whether the step left its function: an exit, or a packet load that missed."""
        code = self.insn.code
        return code == _EXIT or ((op.is_ld_abs(code) or op.is_ld_ind(code)) and next_pc != self.pc + 1)

    def frozen(self) -> Step:
        """The step as data."""
        load = self.load
        if load is not None and self.tests:
            load = Load(load.kind, load.what, load.at, load.off, load.size, load.value, load.shown, tuple(self.tests))
        is_result = self.store and bpf_class(self.insn.code) in ARITHMETIC
        changed = ((self.insn.dst, self.store),) if is_result else ()
        return Step(
            self.index, self.program, self.slot, self.depth, self.regs, changed, load, "" if is_result else self.store,
            self.branch, self.call, tuple(self.changes), self.stack,
        )  # fmt: skip
