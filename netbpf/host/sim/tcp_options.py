"""TCP's header options and sequence numbers: bytes <-> values (RFC 9293, 7323, 2018), in Linux's order and padding."""

from __future__ import annotations

from typing import Final, NamedTuple

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
SEQ_MASK: Final = 0xFFFF_FFFF
HALF: Final = 0x8000_0000
OPT_END, OPT_NOP, OPT_MSS, OPT_WSCALE, OPT_SACK_OK, OPT_TIMESTAMP = 0, 1, 2, 3, 4, 8
DEFAULT_MSS: Final = 536
WSCALE_MAX: Final = 14


class Options(NamedTuple):
    """Those that are used here; None where absent."""

    mss: int | None = None
    wscale: int | None = None
    sack_ok: bool = False
    timestamp: tuple[int, int] | None = None  # value, echo


def is_before(one: int, two: int) -> bool:
    """Whether sequence number ``one`` comes before ``two``."""
    return bool((one - two) & HALF)


def seq_add(seq: int, n: int) -> int:
    return (seq + n) & SEQ_MASK


def seq_diff(high: int, low: int) -> int:
    """Bytes from ``low`` to ``high``, signed."""
    return ((high - low + HALF) & SEQ_MASK) - HALF


def parse_options(raw: bytes) -> Options:
    """What is known of them; an option that does not fit ends the list."""
    found = Options()
    at = 0
    while at < len(raw) and raw[at] != OPT_END:
        if raw[at] == OPT_NOP:
            at += 1
            continue
        if at + 1 >= len(raw) or raw[at + 1] < 2 or at + raw[at + 1] > len(raw):
            break
        kind, body = raw[at], raw[at + 2 : at + raw[at + 1]]
        if kind == OPT_MSS and len(body) == 2:
            found = found._replace(mss=int.from_bytes(body))
        elif kind == OPT_WSCALE and len(body) == 1:
            found = found._replace(wscale=min(body[0], WSCALE_MAX))
        elif kind == OPT_SACK_OK and not body:
            found = found._replace(sack_ok=True)
        elif kind == OPT_TIMESTAMP and len(body) == 8:
            found = found._replace(timestamp=(int.from_bytes(body[:4]), int.from_bytes(body[4:])))
        at += raw[at + 1]
    return found


def build_options(options: Options) -> bytes:
    """Whole words: MSS; SACK permitted and timestamp in three words, either alone padded in front; window scale."""
    out = b""
    if options.mss is not None:
        out += bytes((OPT_MSS, 4)) + options.mss.to_bytes(2)
    if options.timestamp is not None:
        front = bytes((OPT_SACK_OK, 2)) if options.sack_ok else bytes((OPT_NOP, OPT_NOP))
        value, echo = options.timestamp
        out += front + bytes((OPT_TIMESTAMP, 10)) + value.to_bytes(4) + echo.to_bytes(4)
    elif options.sack_ok:
        out += bytes((OPT_NOP, OPT_NOP, OPT_SACK_OK, 2))
    if options.wscale is not None:
        out += bytes((OPT_NOP, OPT_WSCALE, 3, options.wscale))
    return out
