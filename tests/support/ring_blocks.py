"""A block of a TPACKET_V3 ring as the kernel lays it out, from sk_buffs."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from netbpf.abi import sockopt as so
from netbpf.packet.ring import HEADER_BYTES, RESERVE_BYTES, ring_layout
from netbpf.packet.skbuff import SkBuff

DESCRIPTOR_BYTES = 48


class BuiltBlock:
    """``start`` and ``end`` of the packets in ``buffer``; a window that an engine can walk."""

    def __init__(self, skbs: Sequence[SkBuff], *, clock_offset_ns: int = 0) -> None:
        out, last = bytearray(DESCRIPTOR_BYTES), 0
        for i, skb in enumerate(skbs):
            last = len(out)
            out += record(skb, i)
        if skbs:
            out[last : last + 4] = bytes(4)
        struct.pack_into("<IIIIII", out, 0, 3, 0, 1, len(skbs), DESCRIPTOR_BYTES, len(out))
        self.buffer, self.start, self.end = out + bytes(64), DESCRIPTOR_BYTES, len(out)
        self.layout, self.first_number, self.left = ring_layout(1 << 20, clock_offset_ns), 1, len(skbs)

    def advance(self, size_bytes: int, records: int) -> None:
        self.start += size_bytes
        self.first_number += records
        self.left -= records


def record(skb: SkBuff, number: int) -> bytes:
    """A packet with its header, padded to 8 bytes. Its time is ``number`` seconds and as many nanoseconds."""
    mac = HEADER_BYTES + 20 + RESERVE_BYTES
    size = -(-(mac + len(skb.head)) // 8) * 8
    status = so.TP_STATUS_USER
    if skb.vlan_present:
        status |= so.TP_STATUS_VLAN_VALID | so.TP_STATUS_VLAN_TPID_VALID
    head = struct.pack(
        "<IIIIIIHHIIHH8x", size, number, number, len(skb.head), skb.len, status, mac, mac + skb.network_header, 0,
        skb.vlan_tci, skb.vlan_proto, 0,
    )  # fmt: skip
    address = struct.pack("<H2siHBB8s", 17, skb.protocol.to_bytes(2), skb.ifindex, skb.dev_type, skb.pkt_type, 6, bytes(8))
    return (head + address).ljust(mac, b"\0") + skb.head + bytes(size - mac - len(skb.head))
