"""What a packet is, in one or two words: ``IPv4 TCP``, ``ARP``, ``EtherType 0x88cc``. For counting, so it must be quick.

Looks through VLAN tags and IPv6 extension headers; knows nothing of ports.
"""

from __future__ import annotations

from typing import Final

from netbpf.abi.net import (
    ETH_P_802_2,
    ETH_P_802_3,
    ETH_P_802_3_MIN,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    LINKTYPE_ETHERNET,
    VLAN_PROTOCOLS,
)
from netbpf.packet.batch import PacketBatch
from netbpf.packet.receive import receive
from netbpf.replay.snapshot import IP_PROTOCOLS

CUT: Final = "cut short"
LOOKED_AT_BYTES: Final = 128  # of a frame: enough for tags and a few extension headers
MAX_HEADERS: Final = 8
ETHER_TYPES: Final = {
    0: "unknown",
    ETH_P_802_3: "IPX",
    ETH_P_802_2: "LLC",
    ETH_P_ARP: "ARP",
    0x8035: "RARP",
    0x8847: "MPLS",
    0x8848: "MPLS multicast",
    0x8863: "PPPoE discovery",
    0x8864: "PPPoE",
    0x888E: "EAPOL",
    0x88CC: "LLDP",
    0x88F7: "PTP",
}
_EXTENSIONS: Final = frozenset({0, 43, 60, 135, 139, 140})  # headers of (length - 1) 8-byte units
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51


def labels(batch: PacketBatch) -> list[str]:
    """The label of each packet of a batch."""
    if batch.linktype != LINKTYPE_ETHERNET:
        return [_received(batch, i) for i in range(len(batch))]
    buffer, found = batch.buffer, []
    for at, caplen in zip(batch.offset, batch.caplen, strict=True):
        frame = bytes(buffer[at : at + min(caplen, LOOKED_AT_BYTES)])
        found.append(ethernet_label(frame))
    return found


def _received(batch: PacketBatch, i: int) -> str:
    skb = receive(batch.record(i))
    return "reaches no socket" if skb is None else network_label(skb.head, skb.network_header, skb.protocol)


def ethernet_label(frame: bytes) -> str:
    """The label of an Ethernet frame, tags in line."""
    at = 12
    kind = int.from_bytes(frame[12:14])
    while kind in VLAN_PROTOCOLS:
        at += 4
        kind = int.from_bytes(frame[at : at + 2])
    if len(frame) < at + 2:
        return CUT
    if kind < ETH_P_802_3_MIN:
        kind = ETH_P_802_2
    return network_label(frame, at + 2, kind)


def network_label(head: bytes, at: int, protocol: int) -> str:
    """The label of what begins at ``at``, of an EtherType."""
    while protocol in VLAN_PROTOCOLS:  # a second tag, behind the one the kernel has moved out
        protocol, at = int.from_bytes(head[at + 2 : at + 4]), at + 4
    if protocol == ETH_P_IP:
        return _ip_label("IPv4", head[at + 9]) if len(head) > at + 9 else f"IPv4 {CUT}"
    if protocol == ETH_P_IPV6:
        return _ipv6_label(head, at)
    return ETHER_TYPES.get(protocol) or f"EtherType 0x{protocol:04x}"


def _ip_label(version: str, number: int) -> str:
    return f"{version} {IP_PROTOCOLS.get(number) or f'protocol {number}'}"


def _ipv6_label(head: bytes, at: int) -> str:
    """Past the extension headers, as far as they were captured."""
    if len(head) < at + 40:
        return f"IPv6 {CUT}"
    number, at = head[at + 6], at + 40
    for _ in range(MAX_HEADERS):
        if len(head) < at + 2:
            break
        if number in _EXTENSIONS:
            number, at = head[at], at + 8 * (head[at + 1] + 1)
        elif number == _FRAGMENT:
            number, at = head[at], at + 8
        elif number == _AUTHENTICATION:
            number, at = head[at], at + 4 * (head[at + 1] + 2)
        else:
            break
    return _ip_label("IPv6", number)
