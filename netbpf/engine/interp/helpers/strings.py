"""Text: bpf_strncmp, bpf_strtol, bpf_strtoul, bpf_snprintf, bpf_trace_printk, bpf_trace_vprintk."""

from __future__ import annotations

import errno
from typing import Final

from netbpf.engine.interp.helpers.body import Body
from netbpf.engine.interp.machine import Machine
from netbpf.engine.interp.printf import MAX_BPRINTF_VARARGS, BadFormat, render
from netbpf.engine.trace import TraceLine
from netbpf.ints import S64_MAX, U64_MAX, u32

MAX_NUMBER_CHARS: Final = 63
BASE_MASK: Final = 0x1F
DIGITS: Final = b"0123456789abcdef"
SPACES: Final = frozenset(b" \t\n\v\f\r\xa0")


def strncmp(m: Machine, s1: int, size: int, s2: int, r4: int, r5: int) -> int:
    """Below, above or at 0, as the first difference within ``size`` bytes and before a NUL."""
    for i in range(u32(size)):
        a, b = m.memory.load(s1 + i, 1), m.memory.load(s2 + i, 1)
        if a != b:
            return -1 if a < b else 1
        if not a:
            return 0
    return 0


# --- numbers ----------------------------------------------------------------------------------------------------------
class _BadNumber(Exception):
    """``errno`` of text that is no number."""

    def __init__(self, err: int) -> None:
        super().__init__(err)
        self.errno = err


def strtol(m: Machine, buf: int, size: int, flags: int, result: int, r5: int) -> int:
    return _convert(m, buf, size, flags, result, signed=True)


def strtoul(m: Machine, buf: int, size: int, flags: int, result: int, r5: int) -> int:
    return _convert(m, buf, size, flags, result, signed=False)


def _convert(m: Machine, buf: int, size: int, flags: int, result: int, *, signed: bool) -> int:
    """How many characters were the number, which goes to ``result``; on -errno that is 0."""
    m.memory.store(result, 8, 0)
    try:
        value, is_negative, used = parse_number(m.memory.read(buf, size), flags)
        if is_negative and not signed:
            return -errno.EINVAL
        if signed and value > S64_MAX + is_negative:
            return -errno.ERANGE
    except _BadNumber as bad:
        return -bad.errno
    m.memory.store(result, 8, -value if is_negative else value)
    return used


def parse_number(text: bytes, flags: int) -> tuple[int, bool, int]:
    """(magnitude, whether a minus stood before it, characters used) of a number in base ``flags``, 0 for C's notation."""
    base = flags & BASE_MASK
    if not text or base not in (0, 8, 10, 16) or flags & ~BASE_MASK:
        raise _BadNumber(errno.EINVAL)
    start = next((i for i, c in enumerate(text) if c not in SPACES), len(text))
    is_negative = text[start : start + 1] == b"-"
    start += is_negative
    digits = text[start : start + MAX_NUMBER_CHARS].lower()
    base, prefix = _base_of(digits, base)
    count = next((i for i, c in enumerate(digits[prefix:]) if c not in DIGITS[:base]), len(digits) - prefix)
    if not count:
        raise _BadNumber(errno.EINVAL)
    value = int(digits[prefix : prefix + count], base)
    if value > U64_MAX:
        raise _BadNumber(errno.ERANGE)
    return value, is_negative, start + prefix + count


def _base_of(digits: bytes, base: int) -> tuple[int, int]:
    """The base, and how many characters of ``digits`` are its prefix."""
    is_hex = digits[:2] == b"0x" and digits[2:3] != b"" and digits[2] in DIGITS
    if not base:
        base = (16 if is_hex else 8) if digits[:1] == b"0" else 10
    return base, 2 if base == 16 and digits[:2] == b"0x" else 0


# --- formatted text ---------------------------------------------------------------------------------------------------
def snprintf(m: Machine, buf: int, size: int, fmt: int, data: int, data_len: int) -> int:
    """The length of the whole text with its NUL; what fits goes to ``buf``, ended by a NUL."""
    size = u32(size)
    args = _vararg(m, data, data_len)
    if args is None:
        return -errno.EINVAL
    try:
        text = render(m, _format_at(m, fmt), args)
    except BadFormat:
        return -errno.EINVAL
    if size:
        m.memory.write(buf, text[: size - 1] + b"\0")
    return len(text) + 1


def trace_printk(m: Machine, fmt: int, fmt_size: int, a: int, b: int, c: int) -> int:
    return _trace(m, fmt, fmt_size, [a, b, c])


def trace_vprintk(m: Machine, fmt: int, fmt_size: int, data: int, data_len: int, r5: int) -> int:
    args = _vararg(m, data, data_len)
    return -errno.EINVAL if args is None else _trace(m, fmt, fmt_size, args)


def _trace(m: Machine, fmt: int, fmt_size: int, args: list[int]) -> int:
    """A line of the trace buffer; the length of its text."""
    text, nul, _ = m.memory.read(fmt, u32(fmt_size)).partition(b"\0")
    if not nul:
        return -errno.EINVAL
    try:
        line = render(m, text, args)
    except BadFormat:
        return -errno.EINVAL
    m.trace.write(TraceLine(m.env.ktime_ns(), m.cpu, line.decode("utf-8", "replace")))
    return len(line)


def _vararg(m: Machine, data: int, data_len: int) -> list[int] | None:
    """The u64 array of arguments; None when it is not one."""
    data_len = u32(data_len)
    if data_len % 8 or data_len > MAX_BPRINTF_VARARGS * 8 or (data_len and not data):
        return None
    return [m.memory.load(data + i, 8) for i in range(0, data_len, 8)]


def _format_at(m: Machine, address: int) -> bytes:
    """A constant string, which the verifier has seen to end."""
    text = bytearray()
    while byte := m.memory.load(address + len(text), 1):
        text.append(byte)
    return bytes(text)


BODIES: Final[dict[str, Body]] = {
    "strncmp": strncmp,
    "strtol": strtol,
    "strtoul": strtoul,
    "snprintf": snprintf,
    "trace_printk": trace_printk,
    "trace_vprintk": trace_vprintk,
}
