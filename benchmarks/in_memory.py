"""A socket filter as other user-space JITs can run it: packet loads become a check of the bound, a load and a swap.

The packet is where R6 points once the program has moved R1 there, R9 is its length (no filter here uses R9), and a packet load
that reaches past the end ends the program with 0. Map handles go: the helpers called know their map. 32-bit operations become
64-bit ones, for DPDK's verifier follows no pointer through them: programs whose 32-bit results overflow are not for this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction, Program

SIZES = {op.BPF_B: 1, op.BPF_H: 2, op.BPF_W: 4}
MOVE = op.BPF_ALU64 | op.BPF_MOV | op.BPF_X
ADD = op.BPF_ALU64 | op.BPF_ADD
PACKET, LENGTH = 6, 9
SCRATCH, TESTED = 1, 2  # a packet load leaves nothing in R1 to R5
TOO_SHORT = -1


class _Slot(NamedTuple):
    """An instruction, and where it jumps: an index of the program it comes from, TOO_SHORT, or None."""

    insn: Instruction
    target: int | None = None


class Helper(NamedTuple):
    """What stands for a helper on a map: its number, and how many arguments it takes, those after the map."""

    number: int
    arguments: int


def in_memory(insns: Program, helpers: Mapping[int, Helper]) -> Program:
    """``insns`` over memory; a call of helper H becomes one of ``helpers[H]``."""
    slots: list[_Slot] = []
    starts: dict[int, int] = {}
    for pc, insn in enumerate(insns):
        starts[pc] = len(slots)
        slots += _lowered(pc, insn, helpers)
    starts[TOO_SHORT] = len(slots)
    slots += [_Slot(Instruction(op.BPF_ALU64 | op.BPF_MOV)), _Slot(Instruction(op.BPF_JMP | op.BPF_EXIT))]
    return tuple(_aimed(slot, at, starts) for at, slot in enumerate(slots))


def _aimed(slot: _Slot, at: int, starts: Mapping[int, int]) -> Instruction:
    return slot.insn if slot.target is None else slot.insn._replace(off=starts[slot.target] - at - 1)


def _lowered(pc: int, insn: Instruction, helpers: Mapping[int, Helper]) -> Iterator[_Slot]:
    code = insn.code
    if op.is_ld_abs(code) or op.is_ld_ind(code):
        yield from _load(insn)
    elif code == op.BPF_LDX | op.BPF_MEM | op.BPF_W and insn.src == PACKET and insn.off == 0:
        yield _Slot(Instruction(MOVE, insn.dst, LENGTH))  # skb->len
    elif code == op.BPF_JMP | op.BPF_CALL:
        helper = helpers[insn.imm]
        yield from (_Slot(Instruction(MOVE, n, n + 1)) for n in range(1, 1 + helper.arguments))
        yield _Slot(insn._replace(imm=helper.number))
    elif op.bpf_class(code) in (op.BPF_JMP, op.BPF_JMP32) and code != op.BPF_JMP | op.BPF_EXIT:
        yield _Slot(insn._replace(code=op.BPF_JMP | code & ~0x7), pc + 1 + insn.off)  # what a load leaves has no upper half
    elif op.bpf_class(code) == op.BPF_ALU and op.bpf_op(code) != op.BPF_END:
        yield _Slot(insn._replace(code=op.BPF_ALU64 | code & ~0x7))
    elif not (op.is_ld_imm64(code) or code == 0):
        yield _Slot(insn)


def _load(insn: Instruction) -> Iterator[_Slot]:
    """R0 = the packet's bytes at ``imm``, or at ``imm`` behind a register's number, in the host's order."""
    size = op.bpf_size(insn.code)
    end = insn.imm + SIZES[size]
    at, off = PACKET, insn.imm
    if op.is_ld_abs(insn.code):
        yield _Slot(Instruction(op.BPF_JMP | op.BPF_JLT, LENGTH, imm=end), TOO_SHORT)
    else:
        yield _Slot(Instruction(MOVE, TESTED, insn.src))
        yield _Slot(Instruction(ADD, TESTED, imm=end))
        yield _Slot(Instruction(op.BPF_JMP | op.BPF_JGT | op.BPF_X, TESTED, LENGTH), TOO_SHORT)
        yield _Slot(Instruction(MOVE, SCRATCH, PACKET))
        yield _Slot(Instruction(ADD | op.BPF_X, SCRATCH, insn.src))
        at = SCRATCH
    yield _Slot(Instruction(op.BPF_LDX | op.BPF_MEM | size, 0, at, off))
    if size != op.BPF_B:
        yield _Slot(Instruction(op.BPF_ALU | op.BPF_END | op.BPF_TO_BE, 0, imm=8 * SIZES[size]))
