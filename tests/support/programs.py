"""Hypothesis strategies for instructions and programs: every encodable slot, leaning to those that mean something."""

from __future__ import annotations

from hypothesis import strategies as st

from netbpf.isa.instruction import Instruction, Program

SIGNED_16 = st.integers(-(1 << 15), (1 << 15) - 1)
SIGNED_32 = st.integers(-(1 << 31), (1 << 31) - 1)
NIBBLE = st.integers(0, 15)

any_insn = st.builds(Instruction, st.integers(0, 255), NIBBLE, NIBBLE, SIGNED_16, SIGNED_32)

_ALU_AND_JUMPS = [code for code in range(256) if code & 7 in (4, 5, 6, 7)]
_LOADS_AND_STORES = [cls | size | mode for cls in (1, 2, 3) for size in (0, 8, 16, 24) for mode in (0x60, 0x80)]
_KNOWN_CODES = st.sampled_from([*_ALU_AND_JUMPS, *_LOADS_AND_STORES, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xC3, 0xDB, 0x8D, 0x18])
_ATOMICS_AND_WIDTHS = st.sampled_from([0, 1, 16, 32, 64, 0x41, 0x51, 0xA1, 0xE1, 0xF1, 0x100, 0x110])
_REGISTER = st.integers(0, 10)
_OFF = st.one_of(st.integers(-4, 4), st.sampled_from([8, 16, 32]), SIGNED_16)
_IMM = st.one_of(st.integers(-4, 4), _ATOMICS_AND_WIDTHS, SIGNED_32)

likely_insn = st.builds(Instruction, _KNOWN_CODES, _REGISTER, st.one_of(st.just(0), _REGISTER), _OFF, _IMM)
plain_insn = st.builds(Instruction, _KNOWN_CODES, _REGISTER, st.integers(0, 2), st.just(0), _IMM)


def _pair(dst: int, src: int, low: int, high: int) -> Program:
    return Instruction(0x18, dst, src, 0, low), Instruction(0, 0, 0, 0, high)


pair = st.builds(_pair, st.integers(0, 10), st.integers(0, 7), _IMM, st.one_of(st.just(0), SIGNED_32))


def _flat(parts: list[Program]) -> Program:
    return tuple(insn for part in parts for insn in part)


_single = st.one_of(plain_insn, likely_insn, any_insn).map(lambda insn: (insn,))
programs = st.lists(st.one_of(_single, pair), max_size=12).map(_flat)
