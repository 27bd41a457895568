"""Slots to bytes and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from support.programs import any_insn, programs

from netbpf.errors import SourceError
from netbpf.isa.instruction import Instruction, Program, decode, encode, imm64, split_imm64


@given(programs)
def test_decode_of_encode_is_the_program(insns: Program) -> None:
    assert decode(encode(insns)) == insns


@given(any_insn)
def test_bytes_are_the_fields_of_struct_bpf_insn(insn: Instruction) -> None:
    data = encode([insn])
    assert (data[0], data[1]) == (insn.code, insn.src << 4 | insn.dst)
    assert int.from_bytes(data[2:4], "little", signed=True) == insn.off
    assert int.from_bytes(data[4:], "little", signed=True) == insn.imm


@pytest.mark.parametrize("value", [0, 1, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1, 0x123456789ABCDEF0])
def test_64_bit_immediates_split_and_join(value: int) -> None:
    low, high = split_imm64(value)
    assert imm64(Instruction(0x18, 0, 0, 0, low), Instruction(0, 0, 0, 0, high)) == value


def test_half_a_slot_is_refused() -> None:
    with pytest.raises(SourceError, match="9 bytes is no whole number"):
        decode(bytes(9))


TOO_LARGE = [
    Instruction(256),
    Instruction(0, dst=16),
    Instruction(0, src=16),
    Instruction(0, off=1 << 15),
    Instruction(0, imm=1 << 31),
]


@pytest.mark.parametrize("insn", TOO_LARGE)
def test_a_field_too_large_names_its_slot(insn: Instruction) -> None:
    with pytest.raises(ValueError, match="insn 1"):
        encode([Instruction(0x95), insn])
