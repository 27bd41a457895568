"""Fixed-width integers on Python's unbounded ones. Knows nothing else.

Registers at rest are ``0 <= v < 2**64``; a signed or narrow view is spelled (``s64(v)``, ``u32(v)``).
"""

from __future__ import annotations

U8_MAX = 0xFF
U16_MAX = 0xFFFF
U32_MAX = 0xFFFF_FFFF
U64_MAX = 0xFFFF_FFFF_FFFF_FFFF
S16_MIN, S16_MAX = -(1 << 15), (1 << 15) - 1
S32_MIN, S32_MAX = -(1 << 31), (1 << 31) - 1
S64_MIN, S64_MAX = -(1 << 63), (1 << 63) - 1


def u8(v: int) -> int:
    return v & U8_MAX


def u16(v: int) -> int:
    return v & U16_MAX


def u32(v: int) -> int:
    return v & U32_MAX


def u64(v: int) -> int:
    return v & U64_MAX


def s8(v: int) -> int:
    return ((v & U8_MAX) ^ 0x80) - 0x80


def s16(v: int) -> int:
    return ((v & U16_MAX) ^ 0x8000) - 0x8000


def s32(v: int) -> int:
    return ((v & U32_MAX) ^ 0x8000_0000) - 0x8000_0000


def s64(v: int) -> int:
    return ((v & U64_MAX) ^ (1 << 63)) - (1 << 63)


def bswap(v: int, width_bytes: int) -> int:
    """The ``width_bytes`` low bytes of ``v`` in reverse order."""
    return int.from_bytes((v & ((1 << (8 * width_bytes)) - 1)).to_bytes(width_bytes, "little"), "big")


def round_up(v: int, step: int) -> int:
    """The least multiple of ``step`` that is >= ``v``."""
    return -(-v // step) * step
