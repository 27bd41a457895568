"""Which packet loop a piece of native code holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from netbpf.abi.net import ETHERTYPE_AT, LINK_HEADER_BYTES
from netbpf.engine.llvm.effort import THOROUGH

if TYPE_CHECKING:
    from netbpf.packet.layout import RecordLayout

SINGLE: Final = frozenset({"one", "tail", "memory"})  # kinds that have no loop
NO_TYPE = 255  # as kernels.flow has it


class Variant(NamedTuple):
    """Where packets come from. ``kind``: "one" (a packet described by Args and Meta), "tail" (the same, by a tail call: in the
    frame of the program that made it), "memory" (no packet: R1 and R2 of Args), "columns", "pcap", "pcapng", "ring" (a block of a
    TPACKET_V3 ring).
    ``big_endian`` and what follows are the layout of a window's records. ``trace_clock``: the clock is each packet's
    timestamp. ``checked``: every run-time check is kept. ``in_file``: packets as a savefile holds them, tags in line; else
    as AF_PACKET/SOCK_RAW sees them. ``ethernet``: they are Ethernet frames, as those of a socket always are. ``results``: each
    packet's verdict goes into columns. ``output``: accepted packets are written, as "pcap" with fractions of
    ``output_unit_ns`` or as "pcapng"; "": they are not. ``sharded``: packets of other shards (by flow) are passed over.
    ``tolerant``: pcap records whose fraction is a second or more, or that hold more than the file's snaplen, are taken as they
    are meant. They are rare, and what they take costs the loop registers: without, it leaves at the first one.
    ``scouted``: the capture is large, so that scouts (``prefetch``) are worth compiling. ``effort``: of optimising."""

    kind: str
    big_endian: bool = False
    header_bytes: int = 16
    wirelen_first: bool = False
    trace_clock: bool = True
    checked: bool = False
    in_file: bool = False
    ethernet: bool = True
    results: bool = False
    output: str = ""
    output_unit_ns: int = 1
    sharded: bool = False
    tolerant: bool = False
    scouted: bool = False
    effort: int = THOROUGH

    @classmethod
    def of_layout(cls, layout: RecordLayout, like: Variant) -> Variant:
        """The loop that walks records of this layout, in all else as ``like``."""
        return like._replace(
            kind=layout.kind, big_endian=layout.byteorder == "big", header_bytes=layout.header_bytes,
            wirelen_first=layout.wirelen_first,
        )  # fmt: skip


def link_words(linktype: int) -> tuple[int, int]:
    """What ``kernels.flow`` is told of a link type: the bytes of its header, and where in it the EtherType is."""
    return LINK_HEADER_BYTES.get(linktype, 0), ETHERTYPE_AT.get(linktype, NO_TYPE)
