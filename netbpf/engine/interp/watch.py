"""Hooks for ``InterpLoaded.watch``: counts per instruction, and a recorder of what a run did, for those who ask why."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from netbpf.engine.interp.machine import Hook, Regs
from netbpf.isa.opcodes import MAX_BPF_REG

DEFAULT_STEPS: Final = 1 << 20


class InsnCounts:
    """How often each pc was executed, over all runs watched."""

    __slots__ = ("by_pc",)

    def __init__(self) -> None:
        self.by_pc: Counter[int] = Counter()

    def __call__(self, pc: int, regs: Regs) -> None:
        self.by_pc[pc] += 1

    @property
    def total(self) -> int:
        return self.by_pc.total()


class Step(NamedTuple):
    """One instruction that is about to be executed, and R0 to R10 before it."""

    pc: int
    regs: tuple[int, ...]


class Change(NamedTuple):
    """A register that an instruction changed, and to what."""

    reg: int
    value: int


class StepRecorder:
    """The last ``limit`` steps of the runs watched; ``clear`` before a run to have it alone."""

    __slots__ = ("steps",)

    def __init__(self, limit: int = DEFAULT_STEPS) -> None:
        self.steps: deque[Step] = deque(maxlen=limit)

    def __call__(self, pc: int, regs: Regs) -> None:
        self.steps.append(Step(pc, tuple(regs)))

    def clear(self) -> None:
        self.steps.clear()

    def with_changes(self) -> Iterator[tuple[Step, tuple[Change, ...]]]:
        """Each step with what differs in the registers before the next one; nothing is known of the last."""
        steps = list(self.steps)
        for step, after in pairwise(steps):
            changed = (Change(r, after.regs[r]) for r in range(MAX_BPF_REG) if after.regs[r] != step.regs[r])
            yield step, tuple(changed)
        if steps:
            yield steps[-1], ()


def chain(*hooks: Hook) -> Hook:
    """One hook that calls several in order."""

    def call(pc: int, regs: Regs) -> None:
        for hook in hooks:
            hook(pc, regs)

    return call
