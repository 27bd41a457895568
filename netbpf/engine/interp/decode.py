"""Programs to ops: every instruction is looked at once, when a program is loaded. Knows no run."""

from __future__ import annotations

from typing import Final

from netbpf.engine.base import UnsupportedProgram
from netbpf.engine.interp import alu, atomic, call_ops, jump, memory_ops, packet_ops
from netbpf.engine.interp.machine import Link, Machine, Op, Regs
from netbpf.engine.interp.memory import Fault
from netbpf.engine.interp.site import Maker, Site
from netbpf.isa import opcodes as op
from netbpf.isa.encoding import encoding_problem
from netbpf.isa.opcodes import BPF_REG_FP
from netbpf.program import VerifiedProgram

MAKERS: Final[dict[int, Maker]] = (
    alu.MAKERS | jump.MAKERS | memory_ops.MAKERS | atomic.MAKERS | packet_ops.MAKERS | call_ops.MAKERS
)
"""Maker by opcode byte, all of the ISA."""


def link(machine: Machine, program: VerifiedProgram) -> int:
    """Put ``program`` behind the programs that are in ``machine``; the pc it starts at. Raises UnsupportedProgram."""
    for known in machine.links:
        if known.program is program:
            return known.base
    base = len(machine.ops)
    machine.uses_stack |= any(BPF_REG_FP in (i.src, i.dst) for i in program.insns)
    machine.uses_may_goto |= any(i.code == op.BPF_JMP | op.BPF_JCOND for i in program.insns)
    machine.links.append(Link(base, program))
    try:
        ops = decode(machine, program, base)
    except UnsupportedProgram:
        machine.links.pop()
        raise
    machine.ops += ops
    return base


def decode(machine: Machine, program: VerifiedProgram, base: int) -> list[Op]:
    """An op for every slot, and one behind the last that faults."""
    insns, targets = program.insns, first_slots(program)
    ops: list[Op] = []
    for slot, insn in enumerate(insns):
        site = Site(insn, slot, base, program, machine)
        if slot not in targets:
            ops.append(_no_instruction("the second half of a 64-bit immediate is no instruction"))
        elif site.facts is not None and not site.facts.seen:
            ops.append(_no_instruction("the proof says that this instruction is never reached"))
        else:
            ops.append(_make(site, targets))
    return [*ops, _no_instruction("the program runs past its last instruction")]


def first_slots(program: VerifiedProgram) -> frozenset[int]:
    """Slots where an instruction starts."""
    insns, starts, slot = program.insns, set[int](), 0
    while slot < len(insns):
        starts.add(slot)
        slot += 2 if op.is_ld_imm64(insns[slot].code) else 1
    return frozenset(starts)


def _make(site: Site, targets: frozenset[int]) -> Op:
    """The op of one instruction. Raises UnsupportedProgram that names it.

    In a program that no verifier saw, dead code may hold anything: what it could not run is refused when it is reached.
    """
    insns, slot = site.program.insns, site.slot
    problem = encoding_problem(site.insn, slot, len(insns), targets)
    if problem and not site.program.proved:
        return _no_instruction(problem)
    try:
        if problem:
            raise UnsupportedProgram(problem)
        return MAKERS[site.insn.code](site)
    except (UnsupportedProgram, Fault) as refusal:
        from netbpf.isa.disasm import format_insn  # few programs are refused

        text = format_insn(site.insn, insns[slot + 1] if slot + 1 < len(insns) else None)
        raise UnsupportedProgram(f"insn {slot} ({text}): {refusal}") from None


def _no_instruction(message: str) -> Op:
    """What stands where no run may come."""

    def run(regs: Regs) -> int:
        raise Fault(message)

    return run
