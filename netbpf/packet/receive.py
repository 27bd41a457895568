"""From a captured packet to the sk_buff that the kernel would hand to a packet socket: the one rule, for every engine.

Knows link types, Ethernet and VLAN tags; knows no program and no engine. What the kernel does on receive (eth_type_trans,
then the untagging in __netif_receive_skb_core, then packet_rcv) was observed on Linux 6.18 with a TAP device and AF_PACKET
sockets; tests/packet/test_receive_kernel.py asks again.

Views, that is, who looks:

- ``packet_raw``, AF_PACKET/SOCK_RAW: skb->data at the MAC header, the outer VLAN tag moved into metadata;
- ``packet_dgram``, AF_PACKET/SOCK_DGRAM: the same packet with skb->data at the network header;
- ``file``, what libpcap filters in a savefile: the captured bytes as they lie there, tags in line, no metadata.

The length rule for cut captures (caplen < wirelen): skb->len is that of the packet on the wire, less a tag moved out; bytes
that were on the wire and not captured are outside the packet for every load. Facts that would have stood in them read as
the least committal value: protocol 0, pkt_type HOST, vlan_tci 0. A capture that claims more bytes than were on the wire is
believed in the bytes.

A packet that the capture calls outbound (pcapng, cooked captures) is one that a packet socket sees on its way out:
PACKET_OUTGOING, ingress_ifindex 0. Its tag counts as metadata too, as where a VLAN device sent it.

Not every frame gets to a socket: what a device or the kernel drops before (an Ethernet frame under 14 bytes, a VLAN-tagged
one under 20, an IP packet of no known version on a device without link header) gives None.

Captures without Ethernet header are seen as if they came in from the device they were taken on:

- RAW, IPV4, IPV6: a TUN device. No MAC header of its own: both views start at the IP header, SKF_LL_OFF too.
- LINUX_SLL, SLL2 of an Ethernet or loopback device: a cooked capture has lost the Ethernet header that the kernel had, so
  one is made up: type and source as the capture tells, destination by packet type (the device's address for HOST, the
  broadcast address, the group of the IP destination for MULTICAST, zeros for others). Of any other device: no MAC header, as
  a TUN device.
- NULL, LOOP: the loopback device, its Ethernet header with addresses of zeros.
- Any other link type: the captured bytes from the link header on, as SOCK_RAW sees them; protocol 0, and no network header
  of its own (SKF_NET_OFF is SKF_LL_OFF).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from netbpf.abi.net import (
    ARPHRD_ETHER,
    ARPHRD_LOOPBACK,
    ARPHRD_NONE,
    DLT_RAW,
    DLT_RAW_OPENBSD,
    ETH_HLEN,
    ETH_P_802_2,
    ETH_P_802_3,
    ETH_P_802_3_MIN,
    ETH_P_IP,
    ETH_P_IPV6,
    LINK_HEADER_BYTES,
    LINKTYPE_ETHERNET,
    LINKTYPE_IPV4,
    LINKTYPE_IPV6,
    LINKTYPE_LINUX_SLL,
    LINKTYPE_LINUX_SLL2,
    LINKTYPE_LOOP,
    LINKTYPE_NULL,
    LINKTYPE_RAW,
    NULL_BYTES,
    PACKET_BROADCAST,
    PACKET_HOST,
    PACKET_MULTICAST,
    PACKET_OTHERHOST,
    PACKET_OUTGOING,
    SLL2_BYTES,
    SLL_BYTES,
    VLAN_HLEN,
    VLAN_PROTOCOLS,
    linktype_name,
)
from netbpf.errors import UsageError
from netbpf.packet.device import DEFAULT_DEVICE, Device
from netbpf.packet.record import OUTBOUND, Record
from netbpf.packet.skbuff import SkBuff

VIEWS: Final = ("packet_raw", "packet_dgram", "file")
BROADCAST_MAC: Final = b"\xff" * 6
NO_MAC: Final = bytes(6)
GROUP_MAC: Final = b"\x01" + bytes(5)  # a group nobody has told the name of
ETHERNET_LIKE: Final = frozenset({ARPHRD_ETHER, ARPHRD_LOOPBACK})
AF_INET: Final = 2
AF_INET6_OF_ANY_SYSTEM: Final = frozenset({10, 24, 28, 30})  # Linux, NetBSD/OpenBSD, FreeBSD, macOS
IP_VERSIONS: Final = {4: ETH_P_IP, 6: ETH_P_IPV6}


def receive(record: Record, device: Device = DEFAULT_DEVICE, view: str = "packet_raw") -> SkBuff | None:
    """The sk_buff of a record as ``view`` sees it; None where the kernel drops the frame before any socket.

    UsageError: an unknown view, or the network header of a link type that has no rule here.
    """
    if view == "file":
        return _as_in_file(record, device)
    if view not in VIEWS:
        raise UsageError(f"a view is one of {', '.join(VIEWS)}, not {view!r}")
    rule = LINK_RULES.get(record.linktype)
    if rule is None:
        if view == "packet_dgram":
            name = f"{record.linktype} ({linktype_name(record.linktype)})"
            raise UsageError(f"where the link header of link type {name} ends is not known: use the view 'packet_raw'")
        rule = _as_captured
    skb = rule(record, device)
    if skb is not None and view == "packet_dgram":
        skb.len -= skb.network_header
        skb.data_off = skb.network_header
    return skb


def is_receivable(linktype: int) -> bool:
    """Whether ``receive`` knows a link type's headers, as the view ``packet_dgram`` needs."""
    return linktype in LINK_RULES


def _new(
    record: Record,
    device: Device,
    head: bytes,
    length: int,
    *,
    network: int,
    protocol: int,
    pkt_type: int,
    dev_type: int = ARPHRD_ETHER,
) -> SkBuff:
    """An sk_buff that starts at its MAC header, with what the device writes beside every packet."""
    ifindex = device.ifindex + record.interface
    incoming, queue = (0, 0) if pkt_type == PACKET_OUTGOING else (ifindex, device.queue_mapping)
    # By position, which takes half the time, and this is done for each packet. The transport header is where the network
    # header is: nobody has looked further when a packet socket runs its filter.
    return SkBuff(
        head, length, 0, 0, network, network, protocol, pkt_type,
        device.mark, device.priority, queue,
        0, 0, 0,  # no VLAN tag
        ifindex, incoming, dev_type, device.hash,
        0, 0,  # tc_index, tc_classid
        device.napi_id, record.ts_ns,
        0, 0,  # tstamp_type, hwtstamp
        length,
    )  # fmt: skip


# -- Ethernet ------------------------------------------------------------------------------------------------------


def _ethernet(record: Record, device: Device) -> SkBuff | None:
    outgoing = record.direction == OUTBOUND
    return _ethernet_of_type(record, device, PACKET_OUTGOING if outgoing else mac_pkt_type(record.data, device.mac))


def _ethernet_of_type(record: Record, device: Device, pkt_type: int) -> SkBuff | None:
    data, length = record.data, max(record.wirelen, len(record.data))
    if length < ETH_HLEN:
        return None
    protocol = frame_protocol(data)
    if protocol in VLAN_PROTOCOLS:
        return _untag(record, device, protocol, pkt_type)
    return _new(record, device, data, length, network=ETH_HLEN, protocol=protocol, pkt_type=pkt_type)


def _untag(record: Record, device: Device, tag_proto: int, pkt_type: int) -> SkBuff | None:
    """Move the outer tag out: the four bytes at 12 leave the frame, the inner type takes the place of the tag's."""
    data, length = record.data, max(record.wirelen, len(record.data))
    if length < ETH_HLEN + VLAN_HLEN + 2:  # the kernel looks two bytes further than the tag, and drops what lacks them
        return None
    head = data[:12] + data[16:]
    protocol = frame_protocol(head)
    skb = _new(record, device, head, length - VLAN_HLEN, network=ETH_HLEN, protocol=protocol, pkt_type=pkt_type)
    skb.vlan_present, skb.vlan_proto = 1, tag_proto
    skb.vlan_tci = int.from_bytes(data[14:16]) if len(data) >= 16 else 0
    return skb


def untag_again(skb: SkBuff) -> SkBuff | None:
    """The sk_buff of a frame whose first tag is gone and whose next one is moved out too; None where it is cut off."""
    if skb.len < ETH_HLEN + VLAN_HLEN + 2:
        return None
    head = skb.head[:12] + skb.head[16:]
    tci = int.from_bytes(skb.head[14:16]) if len(skb.head) >= 16 else 0
    return replace(
        skb, head=head, len=skb.len - VLAN_HLEN, protocol=frame_protocol(head), vlan_present=1, vlan_proto=skb.protocol,
        vlan_tci=tci,
    )  # fmt: skip


def frame_protocol(frame: bytes) -> int:
    """skb->protocol of an Ethernet frame: its type; for an 802.3 length, 802_3 if the payload starts with ffff (raw IPX),
    else 802_2. 0 where the type was not captured."""
    if len(frame) < ETH_HLEN:
        return 0
    kind = frame[12] << 8 | frame[13]
    if kind >= ETH_P_802_3_MIN:
        return kind
    return ETH_P_802_3 if frame[14:16] == b"\xff\xff" else ETH_P_802_2


def mac_pkt_type(frame: bytes, mac: bytes | None) -> int:
    """skb->pkt_type of an incoming Ethernet frame by its destination, for a device of address ``mac``."""
    if len(frame) < 6 or frame[:6] == mac:
        return PACKET_HOST
    if frame[0] & 1:
        return PACKET_BROADCAST if frame[:6] == BROADCAST_MAC else PACKET_MULTICAST
    return PACKET_HOST if mac is None else PACKET_OTHERHOST


# -- devices without a link header -----------------------------------------------------------------------------------


def _raw_ip(record: Record, device: Device) -> SkBuff | None:
    data, length = record.data, max(record.wirelen, len(record.data))
    protocol = IP_VERSIONS.get(data[0] >> 4, -1) if data else 0
    if length == 0 or protocol < 0:
        return None
    return _headerless(record, device, data, length, protocol, _direction_pkt_type(record))


def _headerless(record: Record, device: Device, data: bytes, length: int, protocol: int, pkt_type: int) -> SkBuff:
    return _new(record, device, data, length, network=0, protocol=protocol, pkt_type=pkt_type, dev_type=ARPHRD_NONE)


def _direction_pkt_type(record: Record) -> int:
    return PACKET_OUTGOING if record.direction == OUTBOUND else PACKET_HOST


# -- cooked captures ---------------------------------------------------------------------------------------------------


class CookedHeader(NamedTuple):
    """What an SLL or SLL2 header tells: its size in bytes, the packet type and protocol of the sk_buff, the type of the
    device, the sender's link address, and (SLL2) the index of the interface, else 0."""

    size: int
    pkt_type: int
    protocol: int
    dev_type: int
    source: bytes
    ifindex: int = 0


def parse_sll(data: bytes) -> CookedHeader:
    """The 16-byte header of LINKTYPE_LINUX_SLL: packet type, ARPHRD, address length, address, protocol, all big-endian."""
    pkt_type, dev_type, size = (int.from_bytes(data[i : i + 2]) for i in (0, 2, 4))
    return CookedHeader(SLL_BYTES, pkt_type, int.from_bytes(data[14:16]), dev_type, data[6 : 6 + min(size, 8)])


def parse_sll2(data: bytes) -> CookedHeader:
    """The 20-byte header of LINKTYPE_LINUX_SLL2: protocol, zeros, ifindex, ARPHRD, packet type, address length, address."""
    protocol, ifindex, dev_type = int.from_bytes(data[0:2]), int.from_bytes(data[4:8]), int.from_bytes(data[8:10])
    return CookedHeader(SLL2_BYTES, data[10], protocol, dev_type, data[12 : 12 + min(data[11], 8)], ifindex)


def _sll(record: Record, device: Device) -> SkBuff | None:
    return _cooked(record, device, SLL_BYTES, parse_sll)


def _sll2(record: Record, device: Device) -> SkBuff | None:
    return _cooked(record, device, SLL2_BYTES, parse_sll2)


def _cooked(record: Record, device: Device, size: int, parse: Callable[[bytes], CookedHeader]) -> SkBuff | None:
    data, length = record.data, max(record.wirelen, len(record.data)) - size
    if length < 0:
        return None
    if len(data) < size:  # the capture is cut inside the header: nothing is known
        return _headerless(record, device, b"", length, 0, PACKET_HOST)
    header, payload = parse(data), data[size:]
    if header.dev_type in ETHERNET_LIKE:
        skb = _ethernet_again(record, device, header, payload, length)
    else:
        skb = _headerless(record, device, payload, length, header.protocol, header.pkt_type)
    if skb is not None:
        skb.dev_type = header.dev_type
        skb.ifindex = header.ifindex or skb.ifindex
        skb.ingress_ifindex = skb.ifindex if skb.ingress_ifindex else 0
    return skb


def _ethernet_again(record: Record, device: Device, header: CookedHeader, payload: bytes, length: int) -> SkBuff | None:
    """The packet with the Ethernet header that the cooked capture has lost made up again."""
    kind = header.protocol if header.protocol >= ETH_P_802_3_MIN else min(length, ETH_P_802_3_MIN - 1)
    source = header.source.ljust(6, b"\0")[:6]
    frame = _destination(header, payload, device) + source + kind.to_bytes(2) + payload
    whole = record._replace(data=frame, wirelen=length + ETH_HLEN)
    skb = _ethernet_of_type(whole, device, header.pkt_type)
    if skb is not None and not skb.vlan_present:
        skb.protocol = header.protocol
    return skb


def _destination(header: CookedHeader, payload: bytes, device: Device) -> bytes:
    """A destination address that agrees with the packet type."""
    if header.pkt_type == PACKET_HOST and header.dev_type == ARPHRD_ETHER:
        return device.mac or NO_MAC
    if header.pkt_type == PACKET_BROADCAST:
        return BROADCAST_MAC
    if header.pkt_type != PACKET_MULTICAST:
        return NO_MAC
    if header.protocol == ETH_P_IP and len(payload) >= 20:
        return b"\x01\x00\x5e" + bytes([payload[17] & 0x7F]) + payload[18:20]
    if header.protocol == ETH_P_IPV6 and len(payload) >= 40:
        return b"\x33\x33" + payload[36:40]
    return GROUP_MAC


# -- BSD loopback ------------------------------------------------------------------------------------------------------


def _null(record: Record, device: Device) -> SkBuff | None:
    length = max(record.wirelen, len(record.data)) - NULL_BYTES
    if length < 0:
        return None
    if len(record.data) < NULL_BYTES:
        return _headerless(record, device, b"", length, 0, _direction_pkt_type(record))
    protocol = null_protocol(record.data, record.linktype)
    if not protocol:
        return None
    head = NO_MAC + NO_MAC + protocol.to_bytes(2) + record.data[NULL_BYTES:]
    return _new(
        record, device, head, length + ETH_HLEN, network=ETH_HLEN, protocol=protocol, pkt_type=_direction_pkt_type(record),
        dev_type=ARPHRD_LOOPBACK,
    )  # fmt: skip


def null_protocol(data: bytes, linktype: int) -> int:
    """ETH_P_IP or ETH_P_IPV6 by the address family in front of the packet, 0 for any other. In LOOP it is big-endian, in
    NULL in the order of the capturing machine, which a family's small number tells."""
    family = int.from_bytes(data[:4], "big")
    if linktype == LINKTYPE_NULL and family > 0xFFFF:
        family = int.from_bytes(data[:4], "little")
    if family in AF_INET6_OF_ANY_SYSTEM:
        return ETH_P_IPV6
    return ETH_P_IP if family == AF_INET else 0


LinkRule = Callable[[Record, Device], SkBuff | None]
LINK_RULES: Final[dict[int, LinkRule]] = {
    LINKTYPE_ETHERNET: _ethernet,
    DLT_RAW: _raw_ip,
    DLT_RAW_OPENBSD: _raw_ip,
    LINKTYPE_RAW: _raw_ip,
    LINKTYPE_IPV4: _raw_ip,
    LINKTYPE_IPV6: _raw_ip,
    LINKTYPE_LINUX_SLL: _sll,
    LINKTYPE_LINUX_SLL2: _sll2,
    LINKTYPE_NULL: _null,
    LINKTYPE_LOOP: _null,
}


def _as_captured(record: Record, device: Device) -> SkBuff:
    """Any other link type: SOCK_RAW sees the link header as it lies there; protocol and network header are not known."""
    return _headerless(record, device, record.data, max(record.wirelen, len(record.data)), 0, _direction_pkt_type(record))


# -- the view of a savefile --------------------------------------------------------------------------------------------

def _as_in_file(record: Record, device: Device) -> SkBuff:
    network = LINK_HEADER_BYTES.get(record.linktype, 0)
    pkt_type = _direction_pkt_type(record)
    protocol = 0
    if record.linktype == LINKTYPE_ETHERNET:
        protocol = frame_protocol(record.data)
        pkt_type = pkt_type or mac_pkt_type(record.data, device.mac)
    length = max(record.wirelen, len(record.data))
    return _new(record, device, record.data, length, network=network, protocol=protocol, pkt_type=pkt_type)
