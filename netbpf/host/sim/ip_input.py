"""An IP packet on its way in: what is damaged, not for us or from where it cannot come from is dropped; fragments wait for each
other; then raw sockets and the protocol see it with its data at the transport header.

As ip_rcv, ip_route_input, ip_local_deliver, ipv6_rcv and ip6_protocol_deliver_rcu of Linux 6.18 with default settings (no reverse
path filter, no forwarding) showed it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from netbpf.abi.net import ARPHRD_LOOPBACK, PACKET_HOST, PACKET_LOOPBACK, PACKET_OTHERHOST
from netbpf.host.sim.device import Arrival
from netbpf.host.sim.ip_stack import BROADCAST, IpPacket, IpStack
from netbpf.packet.inet import (
    IP_MF,
    IP_OFFSET_MASK,
    IPV4_HLEN,
    IPV6_HLEN,
    Ipv4,
    Ipv6,
    are_ipv4_options_sound,
    is_loopback,
    is_multicast,
    parse_ipv4,
    parse_ipv6,
)
from netbpf.packet.skbuff import SkBuff

HOPOPTS, ROUTING, FRAGMENT, NO_NEXT, DSTOPTS = 0, 43, 44, 59, 60
PAD1, PADN, ROUTER_ALERT, JUMBO = 0, 1, 5, 0xC2
UNKNOWN_ACTION: Final = 0xC0  # the two bits of an option's type that say what to do with it where it is not known
MAX_PAD: Final = 7


# --- IPv4 -----------------------------------------------------------------------------------------------------------------
def receive_ipv4(stack: IpStack, skb: SkBuff, arrival: Arrival) -> None:
    at = skb.network_header
    header = parse_ipv4(skb.head, at)
    if header is None or skb.pkt_type == PACKET_OTHERHOST:
        return
    options = skb.head[at + IPV4_HLEN : at + header.hlen]
    if options and not are_ipv4_options_sound(options):
        return
    skb = _cut(skb, at + header.length)
    if not _may_come_in_ipv4(stack, skb, header, arrival):
        return
    if not arrival.routed:
        stack.learn(skb, header.source)
    if header.fragment & (IP_MF | IP_OFFSET_MASK):
        whole = stack.fragments.add_ipv4(skb, arrival, header.hlen)
        if whole is None:
            return
        skb, arrival = whole
    to_many = is_multicast(header.target) or stack.is_broadcast(header.target, arrival.device)
    skb = _at_transport(skb, at + header.hlen)
    packet = IpPacket(skb, arrival, header.source, header.target, header.protocol, to_many)
    wanted = stack.raw.receive(packet)
    handler = stack.protocols.get(header.protocol) if header.protocol != 58 else None
    if handler is not None:
        handler.receive(packet)
    elif not wanted:
        stack.icmp.refuse_protocol(packet)


def _cut(skb: SkBuff, end: int) -> SkBuff:
    """Without what the link layer padded it with."""
    return replace(skb, head=skb.head[:end], len=end - skb.data_off)


def _at_transport(skb: SkBuff, at: int) -> SkBuff:
    return replace(skb, data_off=at, len=skb.len - (at - skb.data_off), transport_header=at)


def _may_come_in_ipv4(stack: IpStack, skb: SkBuff, header: Ipv4, arrival: Arrival) -> bool:
    """ip_route_input: for us, and from an address that others may have. What was sent to ourselves is believed."""
    source, target, device = header.source, header.target, arrival.device
    if arrival.routed or skb.pkt_type == PACKET_LOOPBACK:
        return True
    if is_multicast(source) or source == BROADCAST or is_loopback(source) or is_loopback(target):
        return False
    if is_multicast(target):
        return stack.is_joined(target, device) and not stack.is_local(source)
    if not any(source):
        return target == BROADCAST
    if stack.is_local(source):
        return False
    return target == BROADCAST or stack.is_local(target) or stack.is_broadcast(target, device)


# --- IPv6 -----------------------------------------------------------------------------------------------------------------
def receive_ipv6(stack: IpStack, skb: SkBuff, arrival: Arrival) -> None:
    at = skb.network_header
    header = parse_ipv6(skb.head, at)
    if header is None or skb.pkt_type == PACKET_OTHERHOST:
        return
    if header.length or header.next_header != HOPOPTS:
        skb = _cut(skb, at + IPV6_HLEN + header.length)
    if not _may_come_in_ipv6(stack, skb, header, arrival):
        return
    if not arrival.routed:
        stack.learn(skb, header.source)
    _deliver_ipv6(stack, skb, arrival, header)


def _may_come_in_ipv6(stack: IpStack, skb: SkBuff, header: Ipv6, arrival: Arrival) -> bool:
    source, target, device = header.source, header.target, arrival.device
    if arrival.routed or skb.pkt_type == PACKET_LOOPBACK:
        return True
    if is_multicast(source) or target == bytes(16):
        return False
    on_lo = device.type == ARPHRD_LOOPBACK
    if (is_loopback(source) or is_loopback(target)) and not on_lo:
        return False
    if is_multicast(target):
        return not on_lo and target[1] & 15 > 1 and stack.is_joined(target, device)
    return stack.is_local(target)


def _deliver_ipv6(stack: IpStack, skb: SkBuff, arrival: Arrival, header: Ipv6) -> None:
    """One header after the other: raw sockets of its number see each, then it is skipped or its protocol gets the rest."""
    network = skb.network_header
    next_at, at, number = network + 6, network + IPV6_HLEN, header.next_header
    if number == HOPOPTS:  # looked at before anything else, and hidden from raw sockets
        size = _options_size(skb, at, hop_by_hop=True)
        if size is None:
            return
        next_at, number, at = at, skb.head[at], at + size
    while True:
        packet = IpPacket(_at_transport(skb, at), arrival, header.source, header.target, number, is_multicast(header.target))
        wanted = stack.raw.receive(packet)
        handler = stack.protocols.get(number) if number != 1 else None
        if handler is not None:
            handler.receive(packet)
            return
        if number == FRAGMENT:
            step = _fragment(stack, skb, arrival, at, next_at)
            if step is None:
                return
            skb, arrival, at, number = step
            continue
        size = _extension_size(stack, packet, at, wanted)
        if size is None:
            return
        next_at, number, at = at, skb.head[at], at + size


def _fragment(stack: IpStack, skb: SkBuff, arrival: Arrival, at: int, next_at: int) -> tuple[SkBuff, Arrival, int, int] | None:
    """(packet, arrival, where its next header is, its number); None while pieces are missing."""
    if len(skb.head) < at + 8:
        return None
    if not int.from_bytes(skb.head[at + 2 : at + 4]) & 0xFFF9:  # a whole packet with a fragment header
        return skb, arrival, at + 8, skb.head[at]
    whole = stack.fragments.add_ipv6(skb, arrival, at, next_at)
    if whole is None:
        return None
    return *whole, at, whole[0].head[next_at]


def _extension_size(stack: IpStack, packet: IpPacket, at: int, wanted: bool) -> int | None:
    """Bytes of an extension header to skip; None where the packet ends here."""
    skb, number = packet.skb, packet.protocol
    if number == DSTOPTS:
        return _options_size(skb, at, hop_by_hop=False)
    if number == ROUTING:
        return _routing_size(skb, at)
    if number != NO_NEXT and not wanted:
        stack.icmp.refuse_protocol(packet)
    return None


def _header_size(skb: SkBuff, at: int) -> int | None:
    if len(skb.head) < at + 8:
        return None
    size = (skb.head[at + 1] + 1) * 8
    return size if len(skb.head) >= at + size else None


def _routing_size(skb: SkBuff, at: int) -> int | None:
    """Only one with no segments left is for us; the kernel takes no source routes of type 0."""
    size = _header_size(skb, at)
    return None if size is None or skb.head[at + 3] or skb.pkt_type != PACKET_HOST else size


def _options_size(skb: SkBuff, at: int, *, hop_by_hop: bool) -> int | None:
    """ip6_parse_tlv: the size of a header of options; None where one of them says to drop the packet."""
    size = _header_size(skb, at)
    if size is None:
        return None
    here, end, padded = at + 2, at + size, 0
    while here < end:
        kind = skb.head[here]
        if kind == PAD1:
            padded, here = padded + 1, here + 1
            if padded > MAX_PAD:
                return None
            continue
        if here + 2 > end or here + 2 + skb.head[here + 1] > end:
            return None
        length = 2 + skb.head[here + 1]
        if kind == PADN:
            padded += length
            if padded > MAX_PAD or any(skb.head[here + 2 : here + length]):
                return None
        elif not _is_option_fine(skb, here, hop_by_hop):
            return None
        else:
            padded = 0
        here += length
    return size


def _is_option_fine(skb: SkBuff, at: int, hop_by_hop: bool) -> bool:
    kind = skb.head[at]
    if hop_by_hop and kind == ROUTER_ALERT:
        return skb.head[at + 1] == 2
    return not kind & UNKNOWN_ACTION
