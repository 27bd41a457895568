"""What a capture holds by scapy's dissection: the count that the simulator's must equal, made without any of its code."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.config import conf  # noqa: E402
from scapy.layers.inet import IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether  # noqa: E402
from scapy.packet import Packet  # noqa: E402
from scapy.utils import RawPcapNgReader, RawPcapReader  # noqa: E402

VLAN_TYPES = (0x8100, 0x88A8)


@dataclass
class Count:
    """``packets`` and ``wire_bytes`` of the whole capture; ``undelivered``: Ethernet frames no socket gets (runts, cut tags);
    ``ip_protocols``: IPv4 packets by protocol behind at most one VLAN tag; ``byte23``: what the manual page's program
    (LD_ABS of byte 14 + 9, VLAN tag moved out) finds there; ``seconds``: packets by second since the first."""

    packets: int = 0
    wire_bytes: int = 0
    undelivered: int = 0
    ip_protocols: Counter[int] = field(default_factory=Counter)
    byte23: Counter[int] = field(default_factory=Counter)
    seconds: Counter[int] = field(default_factory=Counter)
    byte23_by_second: dict[int, Counter[int]] = field(default_factory=dict)
    has_tcp: int = 0
    has_udp: int = 0


def raw_packets(path: Path) -> list[tuple[int, int, bytes, int]]:
    """(ts_ns, wirelen, bytes, link type) of every packet, by scapy's raw readers."""
    packets = []
    with RawPcapReader(str(path)) as reader:
        ng = isinstance(reader, RawPcapNgReader)
        for data, meta in reader:
            if ng:
                ts_ns = ((meta.tshigh << 32 | meta.tslow) * 10**9 // meta.tsresol) if meta.tshigh is not None else 0
                packets.append((ts_ns, meta.wirelen, data, meta.linktype))
            else:
                unit = 1 if reader.nano else 1000
                packets.append((meta.sec * 10**9 + meta.usec * unit, meta.wirelen, data, reader.linktype))
    return packets


def count(path: Path) -> Count:
    """The counts of an Ethernet capture."""
    result, first_ns = Count(), None
    for ts_ns, wirelen, data, _linktype in raw_packets(path):
        first_ns = ts_ns if first_ns is None else first_ns
        second = (ts_ns - first_ns) // 10**9
        result.packets += 1
        result.wire_bytes += wirelen
        result.seconds[second] += 1
        frame = untagged(data)
        if frame is None:
            result.undelivered += 1
            continue
        received = Ether(frame)
        result.ip_protocols.update([received.payload.proto] if isinstance(received.payload, IP) else [])
        result.has_tcp += received.haslayer(TCP)
        result.has_udp += received.haslayer(UDP)
        if len(frame) > 23:
            result.byte23[frame[23]] += 1
            result.byte23_by_second.setdefault(second, Counter())[frame[23]] += 1
    return result


def untagged(data: bytes) -> bytes | None:
    """The frame a packet socket gets: its outer tag taken off by scapy's layers; None where it gets none."""
    if len(data) < 14:
        return None
    frame = Ether(data)
    if frame.type not in VLAN_TYPES if isinstance(frame, Ether) else True:
        return data
    if len(data) < 20:
        return None
    tag = frame.payload
    assert isinstance(tag, Dot1Q | Dot1AD)
    inner = bytes(tag.original)[4:] if tag.original else bytes(tag.payload)
    return data[:12] + tag.type.to_bytes(2, "big") + inner


def first_layer(data: bytes, linktype: int) -> Packet:
    """A packet dissected from its link type."""
    return conf.l2types[linktype](data)


__all__ = ["IP", "Count", "IPv6", "count", "first_layer", "raw_packets", "untagged"]
