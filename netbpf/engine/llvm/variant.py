"""Which packet loop a piece of native code holds."""

from __future__ import annotations

from dataclasses import dataclass

from netbpf.packet.capture import RecordLayout


@dataclass(frozen=True, slots=True)
class Variant:
    """Where packets come from. ``kind``: "one" (a packet described by Args and Meta), "memory" (no packet: R1 and R2 of Args),
    "columns", "pcap", "pcapng".
    ``big_endian`` and what follows are the layout of a window's records. ``trace_clock``: the clock is each packet's
    timestamp. ``checked``: every run-time check is kept. Many packets are Ethernet frames, as
    AF_PACKET/SOCK_RAW sees them."""

    kind: str
    big_endian: bool = False
    header_bytes: int = 16
    wirelen_first: bool = False
    trace_clock: bool = True
    checked: bool = False

    @classmethod
    def of_layout(cls, layout: RecordLayout, trace_clock: bool, checked: bool = False) -> Variant:
        """The loop that walks records of this layout."""
        return cls(layout.kind, layout.byteorder == "big", layout.header_bytes, layout.wirelen_first, trace_clock, checked)
