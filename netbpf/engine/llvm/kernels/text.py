"""bpf_strncmp, bpf_strtol and bpf_strtoul, as ``interp.helpers.strings`` has them."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import u8, u64

MAX_NUMBER_CHARS = 63
S64_MAX = 0x7FFF_FFFF_FFFF_FFFF
NO_DIGIT = 99
EINVAL = 22
ERANGE = 34


def compare(first: int, size: int, second: int) -> int:
    i = 0
    while i < size:
        a = u8[first + i]
        b = u8[second + i]
        if a != b:
            return -1 if a < b else 1
        if not a:
            return 0
        i += 1
    return 0


def is_space(c: int) -> int:
    return c == 32 or (c >= 9 and c <= 13) or c == 0xA0


def lower(at: int, end: int) -> int:
    """The character at ``at`` in lower case; 256 behind the text."""
    if at >= end:
        return 256
    c = u8[at]
    return c + 32 if c >= 65 and c <= 90 else c


def digit(c: int) -> int:
    if c >= 48 and c <= 57:
        return c - 48
    return c - 87 if c >= 97 and c <= 102 else NO_DIGIT


def number(text: int, size: int, flags: int, result: int, signed: int) -> int:
    """How many characters the number takes, or -errno; the number at ``result``."""
    u64[result] = 0
    base = flags
    if not size or (base != 0 and base != 8 and base != 10 and base != 16):
        return -EINVAL
    end = text + size
    at = text
    while at < end and is_space(u8[at]):
        at += 1
    negative = lower(at, end) == 45
    at += negative
    if at + MAX_NUMBER_CHARS < end:
        end = at + MAX_NUMBER_CHARS
    has_prefix = lower(at, end) == 48 and lower(at + 1, end) == 120
    if not base:
        base = 10
        if lower(at, end) == 48:
            base = 16 if has_prefix and digit(lower(at + 2, end)) != NO_DIGIT else 8
    if base == 16 and has_prefix:
        at += 2
    return digits(text, at, end, base, negative, result, signed)


def digits(text: int, start: int, end: int, base: int, negative: int, result: int, signed: int) -> int:
    at = start
    value = 0
    too_large = 0
    d = digit(lower(at, end))
    while d < base:
        if value > (-1 - d) // base:
            too_large = 1
        value = value * base + d
        at += 1
        d = digit(lower(at, end))
    if at == start:
        return -EINVAL
    if too_large:
        return -ERANGE
    if negative and not signed:
        return -EINVAL
    if signed and value > S64_MAX + negative:
        return -ERANGE
    u64[result] = -value if negative else value
    return at - text
