"""What a native loop is told of the records of a capture, so that it walks them by itself. Facts only."""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_CAPLEN: Final = 262144  # libpcap's MAXIMUM_SNAPLEN: no packet of most link types is longer
LAYOUT_ROW_WORDS: Final = 6
"""u64 words that tell a native loop of one interface: whether it is usable, snaplen, multiplier, divisor (their product fits into
64 bits), offset_ns, and one more than its number in a written capture, 0 where it has none yet."""


class InterfaceLayout(NamedTuple):
    """How to read a packet of one interface: ``ts_ns = ticks * ts_multiplier // ts_divisor + ts_offset_ns``.
    ``snaplen`` is the effective limit, never 0."""

    linktype: int
    snaplen: int = MAX_CAPLEN
    ts_multiplier: int = 1000
    ts_divisor: int = 1
    ts_offset_ns: int = 0


class RecordLayout(NamedTuple):
    """The facts a loop outside Python needs to walk records by itself.

    ``kind`` "pcap": each record is a header of ``header_bytes`` whose first four 32-bit words are seconds, fraction,
    captured length and wire length (the last two exchanged where ``wirelen_first``), then the captured bytes; ``ts_ns`` is
    ``seconds * 10**9 + fraction * ts_multiplier``. Interface 0 says the rest; of a record longer than its ``snaplen`` only
    so many bytes count.

    ``kind`` "pcapng": each block is type, total length, body, total length again. Packet blocks (6 enhanced, 3 simple,
    2 obsolete) of a listed interface may be walked, and blocks without a packet passed over, but not those that describe a
    section or an interface (0x0a0d0d0a, 1). ``Record.interface`` is the block's interface plus ``first_interface``.

    ``kind`` "ring": a block of a TPACKET_V3 ring (``packet.ring``), ``ts_offset_ns`` what its times lack to be
    CLOCK_MONOTONIC's. Every record may be walked.

    Before any other record, before one whose captured length is over ``max_caplen``, and in pcapng before one whose captured
    length is over its interface's ``snaplen``, the walk stops: the reader deals with that one.
    """

    kind: str
    byteorder: str  # "little" or "big"
    header_bytes: int
    max_caplen: int
    interfaces: tuple[InterfaceLayout, ...]
    wirelen_first: bool = False
    first_interface: int = 0
