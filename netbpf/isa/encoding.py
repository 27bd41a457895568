"""Which encodings are instructions at all. What a program may do with them is the verifier's business.

Engines ask this of programs that no verifier saw, so it knows no engine.
"""

from __future__ import annotations

from typing import Final

from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import BPF_REG_FP, MAX_BPF_REG, SIZE_BYTES

_BINARY = (
    op.BPF_ADD, op.BPF_SUB, op.BPF_MUL, op.BPF_DIV, op.BPF_OR, op.BPF_AND, op.BPF_LSH, op.BPF_RSH, op.BPF_MOD, op.BPF_XOR,
    op.BPF_MOV, op.BPF_ARSH,
)  # fmt: skip
_BRANCHES = (
    op.BPF_JEQ, op.BPF_JGT, op.BPF_JGE, op.BPF_JSET, op.BPF_JNE, op.BPF_JSGT, op.BPF_JSGE, op.BPF_JLT, op.BPF_JLE,
    op.BPF_JSLT, op.BPF_JSLE,
)  # fmt: skip
_SOURCES = (op.BPF_K, op.BPF_X)

CODES: Final = frozenset(
    {
        *(cls | what | src for cls in (op.BPF_ALU, op.BPF_ALU64) for what in _BINARY for src in _SOURCES),
        op.BPF_ALU | op.BPF_NEG,
        op.BPF_ALU64 | op.BPF_NEG,
        op.BPF_ALU | op.BPF_END | op.BPF_TO_LE,
        op.BPF_ALU | op.BPF_END | op.BPF_TO_BE,
        op.BPF_ALU64 | op.BPF_END | op.BPF_TO_LE,
        *(cls | what | src for cls in (op.BPF_JMP, op.BPF_JMP32) for what in _BRANCHES for src in _SOURCES),
        op.BPF_JMP | op.BPF_JA,
        op.BPF_JMP32 | op.BPF_JA,
        op.BPF_JMP | op.BPF_JCOND,
        op.BPF_JMP | op.BPF_CALL,
        op.BPF_JMP | op.BPF_CALL | op.BPF_X,
        op.BPF_JMP | op.BPF_EXIT,
        *(op.BPF_LDX | op.BPF_MEM | size for size in SIZE_BYTES),
        *(op.BPF_LDX | op.BPF_MEMSX | size for size in SIZE_BYTES if size != op.BPF_DW),
        *(op.BPF_ST | op.BPF_MEM | size for size in SIZE_BYTES),
        *(op.BPF_STX | mode | size for mode in (op.BPF_MEM, op.BPF_ATOMIC) for size in SIZE_BYTES),
        *(op.BPF_LD | mode | size for mode in (op.BPF_ABS, op.BPF_IND) for size in SIZE_BYTES if size != op.BPF_DW),
        op.BPF_LD | op.BPF_IMM | op.BPF_DW,
    }
)
"""Every opcode byte of the instruction set, as engines run it."""

_SIGNED = (op.BPF_DIV, op.BPF_MOD)
_ORDERED = (op.BPF_LOAD_ACQ, op.BPF_STORE_REL)
_MODIFY = (op.BPF_ADD, op.BPF_AND, op.BPF_OR, op.BPF_XOR)
_ATOMIC_KINDS: Final = frozenset({*_MODIFY, *(kind | op.BPF_FETCH for kind in _MODIFY), op.BPF_XCHG, op.BPF_CMPXCHG})


def encoding_problem(insn: Instruction, slot: int, count: int, targets: frozenset[int]) -> str:
    """Why the instruction at ``slot`` of ``count`` cannot be run, or "". The verifier refuses all of these, and more.

    ``targets``: the slots where instructions start.
    """
    if insn.code not in CODES:
        return f"there is no opcode {insn.code:#04x}"
    if insn.dst >= MAX_BPF_REG or insn.src >= MAX_BPF_REG:
        return "there are only registers R0 to R10"
    kind = op.bpf_class(insn.code)
    if kind in (op.BPF_ALU, op.BPF_ALU64):
        return _alu_problem(insn)
    if kind in (op.BPF_JMP, op.BPF_JMP32):
        return _jump_problem(insn, slot, targets)
    if op.is_ld_imm64(insn.code) and slot + 1 == count:
        return "a 64-bit immediate takes two slots"
    if insn.code & 0xE7 == op.BPF_STX | op.BPF_ATOMIC:
        return _atomic_problem(insn)
    return "R10 is read-only" if kind in (op.BPF_LD, op.BPF_LDX) and insn.dst == BPF_REG_FP else ""


def _alu_problem(insn: Instruction) -> str:
    what = op.bpf_op(insn.code)
    if insn.dst == BPF_REG_FP:
        return "R10 is read-only"
    if what == op.BPF_END:
        return "" if insn.imm in (16, 32, 64) else f"there is no byte order of {insn.imm} bits"
    if what == op.BPF_MOV and op.bpf_src(insn.code) == op.BPF_X:
        widths = (0, 8, 16, 32) if op.bpf_class(insn.code) == op.BPF_ALU64 else (0, 8, 16)
        return "" if insn.off in widths else f"there is no move with offset {insn.off}"
    is_known = insn.off == 0 or (insn.off == 1 and what in _SIGNED)
    return "" if is_known else f"there is no such operation with offset {insn.off}"


def _jump_problem(insn: Instruction, slot: int, targets: frozenset[int]) -> str:
    what = op.bpf_op(insn.code)
    if what == op.BPF_EXIT or (what == op.BPF_CALL and insn.src != op.BPF_PSEUDO_CALL):
        return ""
    by_imm = what == op.BPF_CALL or insn.code == op.BPF_JMP32 | op.BPF_JA
    target = slot + 1 + (insn.imm if by_imm else insn.off)
    return "" if target in targets else f"the jump to {target} reaches no instruction"


def _atomic_problem(insn: Instruction) -> str:
    """Bytes and half-words are only for load-acquire and store-release."""
    size = SIZE_BYTES[op.bpf_size(insn.code)]
    is_known = insn.imm in _ORDERED or (size >= 4 and insn.imm in _ATOMIC_KINDS)
    return "" if is_known else f"there is no atomic operation {insn.imm:#x} on {size} bytes"
