"""One 8-byte slot of a program, and the one encode/decode pair.

     0        1         2          4                 8
    +--------+----+----+----------+-----------------+
    |  code  |dst |src |   off    |       imm       |     dst: low nibble, src: high nibble; little endian
    +--------+----+----+----------+-----------------+

A 64-bit immediate (LD_IMM64) takes two slots; the second has code 0 and the high half in ``imm``. So a
program is a tuple of slots and pc counts slots, as in the kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from netbpf.errors import SourceError
from netbpf.ints import s32, u32

_SLOT = struct.Struct("<BBhi")
INSN_BYTES = _SLOT.size


class Instruction(NamedTuple):
    """One slot. ``off`` is s16, ``imm`` is s32, ``dst`` and ``src`` are nibbles (a bad register number can be stated)."""

    code: int
    dst: int = 0
    src: int = 0
    off: int = 0
    imm: int = 0


Program = tuple[Instruction, ...]


def encode(insns: Iterable[Instruction]) -> bytes:
    """The bytes of ``struct bpf_insn[]``, little endian. Raises ValueError naming the slot that does not fit its fields."""
    out = bytearray()
    for pc, i in enumerate(insns):
        code, dst, src, off, imm = i
        if not (0 <= dst <= 15 and 0 <= src <= 15):
            raise ValueError(f"insn {pc}: {i!r} does not fit: a register number has 4 bits")
        try:
            out += _SLOT.pack(code, src << 4 | dst, off, imm)
        except struct.error as e:
            raise ValueError(f"insn {pc}: {i!r} does not fit: {e}") from None
    return bytes(out)


def decode(data: bytes | bytearray | memoryview) -> Program:
    """Every slot of ``data``. Raises SourceError when its length is no multiple of 8."""
    if len(data) % INSN_BYTES:
        raise SourceError(f"{len(data)} bytes is no whole number of 8-byte instructions ({len(data) % INSN_BYTES} left over)")
    return tuple(Instruction(code, regs & 0xF, regs >> 4, off, imm) for code, regs, off, imm in _SLOT.iter_unpack(data))


def imm64(lo: Instruction, hi: Instruction) -> int:
    """The 64-bit immediate (0 <= v < 2**64) of an LD_IMM64 pair."""
    return u32(lo.imm) | u32(hi.imm) << 32


def split_imm64(value: int) -> tuple[int, int]:
    """(low, high) halves as the s32 that ``imm`` holds."""
    return s32(value), s32(value >> 32)
