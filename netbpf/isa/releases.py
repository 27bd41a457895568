"""Which Linux release brought an instruction, as rows: the first that matches tells. Tables only.

From the release notes and the commits that brought each; 3.18 is the first release with eBPF.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction

FIRST_RELEASE: Final = "3.18"


class Feature(NamedTuple):
    """Instructions of one kind: ``name`` for messages, ``since`` a Linux release, ``has`` whether one is of the kind."""

    name: str
    since: str
    has: Callable[[Instruction], bool]


def _alu(i: Instruction) -> int:
    """The operation of an ALU or ALU64 instruction, -1 of any other."""
    return op.bpf_op(i.code) if op.bpf_class(i.code) in (op.BPF_ALU, op.BPF_ALU64) else -1


def _jmp(i: Instruction) -> int:
    """The operation of a JMP or JMP32 instruction, -1 of any other."""
    return op.bpf_op(i.code) if op.bpf_class(i.code) in (op.BPF_JMP, op.BPF_JMP32) else -1


def _atomic(i: Instruction) -> bool:
    return op.bpf_class(i.code) == op.BPF_STX and op.bpf_mode(i.code) == op.BPF_ATOMIC


def _imm64_of(src: int) -> Callable[[Instruction], bool]:
    return lambda i: op.is_ld_imm64(i.code) and i.src == src


_GOTOL: Final = op.BPF_JMP32 | op.BPF_JA

FEATURES: Final = (
    Feature("load-acquire, store-release", "6.15", lambda i: _atomic(i) and i.imm in (op.BPF_LOAD_ACQ, op.BPF_STORE_REL)),
    Feature("atomics that fetch; and, or, xor", "5.12", lambda i: _atomic(i) and i.imm != op.BPF_ADD),
    Feature("may_goto", "6.9", lambda i: _jmp(i) == op.BPF_JCOND),
    Feature("address space cast", "6.9", lambda i: op.bpf_class(i.code) == op.BPF_ALU64 and _alu(i) == op.BPF_MOV and i.off == 1),
    Feature("gotol", "6.6", lambda i: i.code == _GOTOL),
    Feature("sign-extending move", "6.6", lambda i: _alu(i) == op.BPF_MOV and i.off != 0),
    Feature("signed division", "6.6", lambda i: _alu(i) in (op.BPF_DIV, op.BPF_MOD) and i.off == 1),
    Feature("byte swap", "6.6", lambda i: op.bpf_class(i.code) == op.BPF_ALU64 and _alu(i) == op.BPF_END),
    Feature("sign-extending load", "6.6", lambda i: op.bpf_class(i.code) == op.BPF_LDX and op.bpf_mode(i.code) == op.BPF_MEMSX),
    Feature("map by index", "5.14", _imm64_of(op.BPF_PSEUDO_MAP_IDX)),
    Feature("map value by index", "5.14", _imm64_of(op.BPF_PSEUDO_MAP_IDX_VALUE)),
    Feature("callback address", "5.13", _imm64_of(op.BPF_PSEUDO_FUNC)),
    Feature("kernel symbol", "5.10", _imm64_of(op.BPF_PSEUDO_BTF_ID)),
    Feature("map value", "5.2", _imm64_of(op.BPF_PSEUDO_MAP_VALUE)),
    Feature("kernel function call", "5.13", lambda i: _jmp(i) == op.BPF_CALL and i.src == op.BPF_PSEUDO_KFUNC_CALL),
    Feature("function call", "4.16", lambda i: _jmp(i) == op.BPF_CALL and i.src == op.BPF_PSEUDO_CALL),
    Feature("32-bit comparison", "5.1", lambda i: op.bpf_class(i.code) == op.BPF_JMP32),
    Feature("less-than comparison", "4.14", lambda i: _jmp(i) in (op.BPF_JLT, op.BPF_JLE, op.BPF_JSLT, op.BPF_JSLE)),
    Feature("packet load", "3.19", lambda i: op.is_ld_abs(i.code) or op.is_ld_ind(i.code)),
)
"""Newest meaning first where one instruction could match several rows."""


def insn_since(insn: Instruction) -> str:
    """The release from which the verifier takes instructions of this kind."""
    return next((feature.since for feature in FEATURES if feature.has(insn)), FIRST_RELEASE)
