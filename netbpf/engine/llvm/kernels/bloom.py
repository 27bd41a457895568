"""The operations of ``maps.bloom_filter``; jhash is that of ``maps.jhash``."""

# ruff: noqa: F821  (the numbers of a map are known when it is compiled)
# mypy: disable-error-code="name-defined, no-any-return"

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import u8, u16, u32

BITS_OFF = 64
INITVAL = 0xDEADBEEF
ENOENT = 2
EINVAL = 22
LOW = 0xFFFF_FFFF


def rol(v: int, n: int) -> int:
    return ((v << n) | (v >> (32 - n))) & LOW


def tail(at: int, left: int) -> int:
    """Up to four bytes as a number."""
    if left >= 4:
        return u32[at]
    if left == 3:
        return u16[at] | u8[at + 2] << 16
    if left == 2:
        return u16[at]
    return u8[at] if left else 0


def jhash(value: int, seed: int) -> int:
    a = (INITVAL + VALUE_SIZE + seed) & LOW
    b = a
    c = a
    left = VALUE_SIZE
    at = value
    while left > 12:
        a = (a + u32[at]) & LOW
        b = (b + u32[at + 4]) & LOW
        c = (c + u32[at + 8]) & LOW
        a = ((a - c) & LOW) ^ rol(c, 4)
        c = (c + b) & LOW
        b = ((b - a) & LOW) ^ rol(a, 6)
        a = (a + c) & LOW
        c = ((c - b) & LOW) ^ rol(b, 8)
        b = (b + a) & LOW
        a = ((a - c) & LOW) ^ rol(c, 16)
        c = (c + b) & LOW
        b = ((b - a) & LOW) ^ rol(a, 19)
        a = (a + c) & LOW
        c = ((c - b) & LOW) ^ rol(b, 4)
        b = (b + a) & LOW
        at += 12
        left -= 12
    a = (a + tail(at, left)) & LOW
    if left > 4:
        b = (b + tail(at + 4, left - 4)) & LOW
    if left > 8:
        c = (c + tail(at + 8, left - 8)) & LOW
    c = ((c ^ b) - rol(b, 14)) & LOW
    a = ((a ^ c) - rol(c, 11)) & LOW
    b = ((b ^ a) - rol(a, 25)) & LOW
    c = ((c ^ b) - rol(b, 16)) & LOW
    a = ((a ^ c) - rol(c, 4)) & LOW
    b = ((b ^ a) - rol(a, 14)) & LOW
    return ((c ^ b) - rol(b, 24)) & LOW


def push(m: int, value: int, flags: int) -> int:
    if flags:
        return -EINVAL
    n = 0
    while n < NR_HASHES:
        bit = jhash(value, SEED + n) & BITSET_MASK
        u8[m + BITS_OFF + bit // 8] = u8[m + BITS_OFF + bit // 8] | 1 << bit % 8
        n += 1
    return 0


def peek(m: int, value: int) -> int:
    n = 0
    while n < NR_HASHES:
        bit = jhash(value, SEED + n) & BITSET_MASK
        if not (u8[m + BITS_OFF + bit // 8] >> bit % 8) & 1:
            return -ENOENT
        n += 1
    return 0
