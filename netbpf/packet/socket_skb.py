"""From what a socket hands out to the sk_buff its filter saw: the packet rebuilt from its bytes, PACKET_AUXDATA and address.

The inverse of what packet_rcv and packet_recvmsg, udp_recvmsg and raw_recvmsg do. Knows layouts only; no socket, no program.
What a socket does not hand out is not in the sk_buff: see each function.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from netbpf.abi import sockopt as so
from netbpf.abi.net import ARPHRD_ETHER, ETH_HLEN, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, PACKET_HOST, PACKET_OUTGOING
from netbpf.packet.skbuff import SkBuff

AUXDATA: Final = Struct("<IIIHHHH")  # struct tpacket_auxdata
IPPROTO_UDP: Final = 17
UDP_HLEN: Final = 8
_IPV4 = Struct(">BBHHHBBH4s4s")
_IPV6 = Struct(">IHBB16s16s")
_UDP = Struct(">HHHH")


class Auxdata(NamedTuple):
    """PACKET_AUXDATA: ``len`` is skb->len when the filter ran, ``snaplen`` what it left; ``net`` where the network header is,
    counted from the first byte handed out."""

    status: int
    len: int
    snaplen: int
    mac: int
    net: int
    vlan_tci: int
    vlan_tpid: int

    @classmethod
    def parse(cls, raw: bytes) -> Auxdata:
        """Raises struct.error for another size."""
        return cls(*AUXDATA.unpack(raw))

    def pack(self) -> bytes:
        return AUXDATA.pack(*self)


class LinkAddress(NamedTuple):
    """What struct sockaddr_ll tells of a packet; ``protocol`` in host order."""

    ifindex: int
    protocol: int
    pkt_type: int
    hatype: int = ARPHRD_ETHER


class Beside(NamedTuple):
    """What control messages tell of a packet, 0 where they do not: SO_RCVMARK, SO_RCVPRIORITY, SO_TIMESTAMPNS."""

    mark: int = 0
    priority: int = 0
    tstamp_ns: int = 0


NOTHING_BESIDE: Final = Beside()


def of_packet_socket(
    data: bytes,
    aux: Auxdata | None,
    address: LinkAddress,
    *,
    has_link_header: bool,
    queue_mapping: int = 0,
    beside: Beside = NOTHING_BESIDE,
) -> SkBuff:
    """The sk_buff of a packet that an AF_PACKET socket gave: ``data`` whole, its auxdata, its address.

    A SOCK_DGRAM socket (``has_link_header`` False) keeps the link header to itself: SKF_LL_OFF reaches nothing. Not handed out,
    and 0 here: hash, napi_id, tc_index, what GSO would need. ``queue_mapping`` is the caller's to know.
    """
    outgoing = address.pkt_type == PACKET_OUTGOING
    network = (aux.net if aux is not None else ETH_HLEN) if has_link_header else 0
    skb = SkBuff(
        data,
        max(aux.len, len(data)) if aux is not None else len(data),
        mac_header=0 if has_link_header else -1,
        network_header=network,
        transport_header=network,
        protocol=address.protocol,
        pkt_type=address.pkt_type,
        mark=beside.mark,
        priority=beside.priority,
        queue_mapping=0 if outgoing else queue_mapping,
        ifindex=address.ifindex,
        ingress_ifindex=0 if outgoing else address.ifindex,
        dev_type=address.hatype,
        tstamp=beside.tstamp_ns,
    )
    skb.wire_len = skb.len
    if aux is not None and aux.status & so.TP_STATUS_VLAN_VALID:
        skb.vlan_present, skb.vlan_tci = 1, aux.vlan_tci
        skb.vlan_proto = aux.vlan_tpid if aux.status & so.TP_STATUS_VLAN_TPID_VALID else ETH_P_8021Q
    return skb


class Endpoints(NamedTuple):
    """Of a datagram: addresses as packed bytes (4 or 16), ports, the TTL and the traffic class of its IP header."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    ttl: int = 64
    tos: int = 0
    ifindex: int = 0


def of_udp_socket(payload: bytes, ends: Endpoints, *, mark: int = 0) -> SkBuff:
    """The sk_buff at a UDP socket's filter: skb->data at the UDP header, the IP header reachable by SKF_NET_OFF.

    Headers are made anew from what the socket tells: no IP options or extension headers, identification 0, right checksums;
    there is no link header.
    """
    length = UDP_HLEN + len(payload)
    pseudo = ends.source + ends.destination + length.to_bytes(4) + IPPROTO_UDP.to_bytes(4)
    bare = _UDP.pack(ends.source_port, ends.destination_port, length & 0xFFFF, 0)
    checksum = internet_checksum(pseudo + bare + payload) or 0xFFFF
    ip = _ipv4(ends, length) if len(ends.source) == 4 else _ipv6(ends, length)
    head = ip + bare[:6] + checksum.to_bytes(2) + payload
    return SkBuff(
        head,
        length,
        data_off=len(ip),
        mac_header=-1,
        network_header=0,
        transport_header=len(ip),
        protocol=ETH_P_IP if len(ends.source) == 4 else ETH_P_IPV6,
        pkt_type=PACKET_HOST,
        mark=mark,
        ifindex=ends.ifindex,
        ingress_ifindex=ends.ifindex,
        wire_len=length,
    )


def _ipv4(ends: Endpoints, length: int) -> bytes:
    total = (20 + length) & 0xFFFF
    bare = _IPV4.pack(0x45, ends.tos, total, 0, 0x4000, ends.ttl, IPPROTO_UDP, 0, ends.source, ends.destination)
    return bare[:10] + internet_checksum(bare).to_bytes(2) + bare[12:]


def _ipv6(ends: Endpoints, length: int) -> bytes:
    return _IPV6.pack(6 << 28 | ends.tos << 20, length & 0xFFFF, IPPROTO_UDP, ends.ttl, ends.source, ends.destination)


def internet_checksum(data: bytes) -> int:
    """RFC 1071: the complement of the ones' complement sum of 16-bit words."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[i : i + 2]) for i in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def of_raw_ip_socket(packet: bytes, *, ifindex: int = 0, mark: int = 0) -> SkBuff:
    """The sk_buff at a raw IPv4 socket's filter: skb->data at the IP header, which the socket hands out whole."""
    return SkBuff(
        packet, len(packet), mac_header=-1, network_header=0, transport_header=(packet[0] & 15) * 4 if packet else 0,
        protocol=ETH_P_IP, mark=mark, ifindex=ifindex, ingress_ifindex=ifindex, wire_len=len(packet),
    )  # fmt: skip


def of_payload(data: bytes, *, mark: int = 0) -> SkBuff:
    """The sk_buff of a message without headers: AF_UNIX, AF_NETLINK, and raw IPv6, which hands none out."""
    return SkBuff(data, len(data), mac_header=-1, network_header=0, transport_header=0, mark=mark, wire_len=len(data))
