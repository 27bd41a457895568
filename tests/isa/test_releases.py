"""The release that brought each kind of instruction."""

from __future__ import annotations

import pytest

from netbpf.isa import builders as b
from netbpf.isa.instruction import Instruction
from netbpf.isa.releases import FEATURES, insn_since


@pytest.mark.parametrize(
    ("insn", "since"),
    [
        (b.BPF_MOV64_REG(1, 2), "3.18"),
        (b.BPF_XADD(b.BPF_DW, 0, 1, 0, 0), "3.18"),
        (b.BPF_LD_ABS(b.BPF_B, 23), "3.19"),
        (b.BPF_JMP_IMM(b.BPF_JLT, 1, 0, 2), "4.14"),
        (Instruction(0x85, 0, 1, 0, 3), "4.16"),
        (b.BPF_JMP32_IMM(b.BPF_JEQ, 1, 0, 2), "5.1"),
        (Instruction(0x18, 1, 2), "5.2"),
        (Instruction(0xDB, 1, 2, 0, 0x01), "5.12"),
        (Instruction(0x18, 1, 4), "5.13"),
        (Instruction(0xBF, 1, 2, 8), "6.6"),
        (Instruction(0x3F, 1, 2, 1), "6.6"),
        (Instruction(0xD7, 1, 0, 0, 16), "6.6"),
        (Instruction(0x06, 0, 0, 0, 3), "6.6"),
        (Instruction(0xE5, 0, 0, 3), "6.9"),
        (Instruction(0xDB, 1, 2, 0, 0x100), "6.15"),
    ],
)
def test_since(insn: Instruction, since: str) -> None:
    assert insn_since(insn) == since


def test_every_row_is_reached_by_some_instruction() -> None:
    codes = [
        Instruction(code, 1, src, off, imm)
        for code in range(256)
        for src in range(7)
        for off in (0, 1, 8)
        for imm in (0, 1, 16, 0x100)
    ]
    for feature in FEATURES:
        assert any(next((f for f in FEATURES if f.has(i)), None) is feature for i in codes), feature.name
