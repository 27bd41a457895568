"""The format language of bpf_trace_printk and bpf_snprintf, as the kernel accepts and renders it.

    %[flags][width](c | s | d | i | u | x | X | ld | lld ... | p | px | pK | pS | ps | pB | pks | pus | pi4 | pI4 | pi6 | pI6)

flags are any of ``0``, ``+``, ``-`` and space; there is no precision. An int is 32 bits unless ``l`` or ``ll`` stands before it.
Flags and width are accepted and without effect where the kernel makes the text beforehand: pks, pus, pB, addresses of IP.
Two things differ, for want of a kernel: ``%p`` and ``%pK`` print the address itself, not its hash, and an address has no symbol.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from netbpf.engine.interp.machine import Machine
from netbpf.engine.interp.memory import Fault
from netbpf.ints import s32, s64, u32

MAX_BPRINTF_VARARGS: Final = 12
MAX_BPRINTF_BUF: Final = 1024
POINTER_DIGITS: Final = 16

_PRINTABLE: Final = re.compile(rb"[\x20-\x7e\t\n\v\f\r\x80-\xff]*")
_AFTER: Final = rb"(?=[\t-\r -/:-@\[-`{-~\xa0-\xbf\xd7\xf7]|\Z)"  # the end, a space or punctuation of the kernel's ctype
_CONVERSION: Final = re.compile(
    rb"%(?P<flags>[0+\- ]*)(?P<width>[1-9][0-9]*)?(?:"
    rb"(?P<ready>p[ku]s" + _AFTER + rb"|(?:p[iI][46]|pB))|(?P<string>s)" + _AFTER + rb"|(?P<symbol>p[sS])"
    rb"|(?P<pointer>p[xK]|p" + _AFTER + rb")|(?P<char>c)|(?P<long>l{0,2})(?P<int>[diuxX]))"
)
_SWALLOWED: Final = re.compile(rb"[0-9A-Za-z]*")  # what follows a %p conversion


class BadFormat(Exception):
    """The kernel returns -EINVAL for this format."""


class Spec(NamedTuple):
    """One conversion: how its argument becomes text, and how that is padded to ``width``."""

    render: Callable[[Machine, int], bytes]
    width: int
    is_left: bool
    is_zero_padded: bool

    def text(self, m: Machine, arg: int) -> bytes:
        body = self.render(m, arg)
        if self.is_left:
            return body.ljust(self.width)
        if not self.is_zero_padded:
            return body.rjust(self.width)
        sign = body[:1] if body[:1] in (b"-", b"+", b" ") else b""
        return sign + body[len(sign) :].rjust(self.width - len(sign), b"0")


def render(m: Machine, fmt: bytes, args: list[int]) -> bytes:
    """The text of ``fmt`` (without its NUL) with ``args``. Raises BadFormat."""
    parts = parse_format(fmt)
    if sum(isinstance(part, Spec) for part in parts) > len(args):
        raise BadFormat
    values = iter(args)
    text = b"".join(part.text(m, next(values)) if isinstance(part, Spec) else part for part in parts)
    return text[: MAX_BPRINTF_BUF - 1]


def parse_format(fmt: bytes) -> list[Spec | bytes]:
    """Literal text and conversions in order. Raises BadFormat."""
    if not _PRINTABLE.fullmatch(fmt):
        raise BadFormat
    parts: list[Spec | bytes] = []
    at = 0
    while at < len(fmt):
        percent = fmt.find(b"%", at)
        if percent < 0:
            percent = len(fmt)
        parts.append(fmt[at:percent])
        at = percent
        if fmt[at : at + 2] == b"%%":
            parts.append(b"%")
            at += 2
        elif at < len(fmt):
            spec, at = _conversion(fmt, at)
            parts.append(spec)
    return parts


def _conversion(fmt: bytes, at: int) -> tuple[Spec, int]:
    """The conversion at ``at``, and where the text goes on."""
    found = _CONVERSION.match(fmt, at)
    if found is None:
        raise BadFormat
    flags, width, kind = found["flags"], int(found["width"] or 0), found.lastgroup or ""
    is_left, is_zero_padded = b"-" in flags, b"0" in flags and kind in ("int", "pointer")
    if kind == "int":
        body = _integer(found["int"], len(found["long"]), flags)
    elif kind == "ready":
        body, width = _READY[found["ready"]], 0
    else:
        body = _RENDER[kind]
    if kind == "pointer" and not width:
        width, is_zero_padded = POINTER_DIGITS, True
    end = found.end()
    if kind in ("symbol", "pointer", "ready"):
        swallowed = _SWALLOWED.match(fmt, end)
        end = swallowed.end() if swallowed else end
    return Spec(body, width, is_left, is_zero_padded), end


# --- arguments to text --------------------------------------------------------------------------------------------------
def _integer(letter: bytes, longs: int, flags: bytes) -> Callable[[Machine, int], bytes]:
    if letter in (b"d", b"i"):
        narrow = s64 if longs else s32
        plus = b"+" if b"+" in flags else b" " if b" " in flags else b""

        def signed(m: Machine, arg: int) -> bytes:
            value = narrow(arg)
            return b"%d" % value if value < 0 else plus + b"%d" % value

        return signed
    template = {b"u": b"%d", b"x": b"%x", b"X": b"%X"}[letter]
    return lambda m, arg: template % (arg if longs else u32(arg))


def _char(m: Machine, arg: int) -> bytes:
    return bytes([arg & 0xFF])


def _string(m: Machine, arg: int) -> bytes:
    """Up to a NUL; nothing where the address is in no region."""
    text = bytearray()
    try:
        while len(text) < MAX_BPRINTF_BUF and (byte := m.memory.load(arg + len(text), 1)):
            text.append(byte)
    except Fault:
        return b""
    return bytes(text)


def _no_string(m: Machine, arg: int) -> bytes:
    """User memory is not there while a packet is received."""
    return b""


def _pointer(m: Machine, arg: int) -> bytes:
    return b"%x" % arg


def _symbol(m: Machine, arg: int) -> bytes:
    return b"0x%x" % arg


def _bytes_at(m: Machine, address: int, size: int) -> bytes:
    """Zeroes where the address is in no region."""
    try:
        return m.memory.read(address, size)
    except Fault:
        return bytes(size)


def _ip4_padded(m: Machine, arg: int) -> bytes:
    return b".".join(b"%03d" % byte for byte in _bytes_at(m, arg, 4))


def _ip4(m: Machine, arg: int) -> bytes:
    return b".".join(b"%d" % byte for byte in _bytes_at(m, arg, 4))


def _ip6_packed(m: Machine, arg: int) -> bytes:
    return _bytes_at(m, arg, 16).hex().encode()


def _ip6(m: Machine, arg: int) -> bytes:
    digits = _ip6_packed(m, arg)
    return b":".join(digits[i : i + 4] for i in range(0, 32, 4))


_READY: Final = {
    b"pks": _string,
    b"pus": _no_string,
    b"pB": _symbol,
    b"pi4": _ip4_padded,
    b"pI4": _ip4,
    b"pi6": _ip6_packed,
    b"pI6": _ip6,
}
_RENDER: Final = {"string": _string, "symbol": _symbol, "pointer": _pointer, "char": _char}
