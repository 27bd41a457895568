"""Classic BPF: one instruction (``struct sock_filter``), its opcode fields and the one encode/decode pair.

     0        2    3    4                 8
    +--------+----+----+-----------------+
    |  code  | jt | jf |        k        |     k is unsigned; byte order of the machine: little endian here
    +--------+----+----+-----------------+

An accumulator A, an index register X, sixteen words of scratch memory M[]. The class, size, mode and operation fields
are eBPF's (``isa.opcodes``) where the names are the same; the rest is here. linux/filter.h and linux/bpf_common.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from netbpf.errors import SourceError
from netbpf.isa.opcodes import (
    BPF_ABS,
    BPF_ADD,
    BPF_ALU,
    BPF_AND,
    BPF_B,
    BPF_DIV,
    BPF_H,
    BPF_IMM,
    BPF_IND,
    BPF_JA,
    BPF_JEQ,
    BPF_JGE,
    BPF_JGT,
    BPF_JMP,
    BPF_JSET,
    BPF_K,
    BPF_LD,
    BPF_LDX,
    BPF_LSH,
    BPF_MEM,
    BPF_MOD,
    BPF_MUL,
    BPF_NEG,
    BPF_OR,
    BPF_RSH,
    BPF_ST,
    BPF_STX,
    BPF_SUB,
    BPF_W,
    BPF_X,
    BPF_XOR,
)

BPF_RET: Final = 0x06
BPF_MISC: Final = 0x07
BPF_LEN: Final = 0x80  # mode of LD and LDX
BPF_MSH: Final = 0xA0  # mode of LDX: 4 * ([k] & 0xf)
BPF_A: Final = 0x10  # source of RET
BPF_TAX: Final = 0x00  # op of MISC
BPF_TXA: Final = 0x80
BPF_MEMWORDS: Final = 16
BPF_MAXINSNS: Final = 4096

_SLOT = struct.Struct("<HBBI")
SOCK_FILTER_BYTES: Final = _SLOT.size


class SockFilter(NamedTuple):
    """One instruction: ``code`` u16, ``jt`` and ``jf`` u8 distances from the next one, ``k`` u32."""

    code: int
    jt: int = 0
    jf: int = 0
    k: int = 0


ClassicProgram = tuple[SockFilter, ...]


def BPF_STMT(code: int, k: int) -> SockFilter:
    """The macro of linux/filter.h; a negative ``k`` becomes its u32."""
    return SockFilter(code, 0, 0, k & 0xFFFF_FFFF)


def BPF_JUMP(code: int, k: int, jt: int, jf: int) -> SockFilter:
    """The macro of linux/filter.h; a negative ``k`` becomes its u32."""
    return SockFilter(code, jt, jf, k & 0xFFFF_FFFF)


def encode_classic(insns: Iterable[SockFilter]) -> bytes:
    """The bytes of ``struct sock_filter[]``. Raises ValueError naming the instruction that does not fit its fields."""
    out = bytearray()
    for pc, insn in enumerate(insns):
        try:
            out += _SLOT.pack(*insn)
        except struct.error as e:
            raise ValueError(f"insn {pc}: {insn!r} does not fit: {e}") from None
    return bytes(out)


def decode_classic(data: bytes | bytearray | memoryview, path: str = "<filter>") -> ClassicProgram:
    """Every instruction of ``data``, which ``path`` names. Raises SourceError when its length is no multiple of 8."""
    if len(data) % SOCK_FILTER_BYTES:
        raise SourceError(f"{len(data)} bytes is no whole number of 8-byte classic instructions", path=path)
    return tuple(map(SockFilter._make, _SLOT.iter_unpack(data)))


_ALU_OPS: Final = (BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_MOD, BPF_AND, BPF_OR, BPF_XOR, BPF_LSH, BPF_RSH)
_JUMP_OPS: Final = (BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET)

CONDITIONAL_JUMPS: Final = frozenset(BPF_JMP | op | src for op in _JUMP_OPS for src in (BPF_K, BPF_X))
ALLOWED_CODES: Final = frozenset(
    {
        *(BPF_ALU | op | src for op in _ALU_OPS for src in (BPF_K, BPF_X)),
        BPF_ALU | BPF_NEG,
        *(BPF_LD | size | mode for size in (BPF_W, BPF_H, BPF_B) for mode in (BPF_ABS, BPF_IND)),
        *(BPF_LD | mode for mode in (BPF_LEN, BPF_IMM, BPF_MEM)),
        *(BPF_LDX | mode for mode in (BPF_LEN, BPF_IMM, BPF_MEM)),
        BPF_LDX | BPF_B | BPF_MSH,
        BPF_ST,
        BPF_STX,
        BPF_MISC | BPF_TAX,
        BPF_MISC | BPF_TXA,
        BPF_RET | BPF_K,
        BPF_RET | BPF_A,
        BPF_JMP | BPF_JA,
        *CONDITIONAL_JUMPS,
    }
)
"""The codes the kernel takes from user space."""


def is_abs_load(code: int) -> bool:
    """LD of a packet word, half-word or byte at a fixed offset (or, far below zero, of ancillary data)."""
    return code in (BPF_LD | BPF_W | BPF_ABS, BPF_LD | BPF_H | BPF_ABS, BPF_LD | BPF_B | BPF_ABS)
