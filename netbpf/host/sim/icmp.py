"""What the IP stack itself answers: echoes, that there is nobody at a port or protocol; and what it does with such answers."""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.net import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_UDP
from netbpf.errors import BpfError
from netbpf.host.sim.device import Sent
from netbpf.host.sim.ip_stack import IpPacket, IpStack
from netbpf.host.sim.reuseport import hash_of
from netbpf.host.sim.truesize import datagram_truesize
from netbpf.packet.inet import IPV6_HLEN, build_ipv4, build_ipv6, checksum, ones_sum, pseudo_sum

ECHO, ECHO_REPLY, UNREACHABLE = 8, 0, 3
ECHO6, ECHO_REPLY6, UNREACHABLE6, PARAMETER_PROBLEM6 = 128, 129, 1, 4
PROTOCOL_CODE, PORT_CODE, PORT_CODE6, NEXT_HEADER_CODE6 = 2, 3, 4, 1
INTERNET_CONTROL: Final = 0xC0  # the TOS of errors
QUOTED4: Final = 576 - 20 - 8  # bytes of the packet complained of that go back
QUOTED6: Final = 1280 - 40 - 8


class Icmp:
    """ICMP and ICMPv6 of one network namespace."""

    def __init__(self, ip: IpStack) -> None:
        self.ip = ip

    def receive(self, packet: IpPacket) -> bool:
        body = packet.payload
        if len(body) < 8 or not _is_sound(packet, body):
            return True
        if packet.protocol == IPPROTO_ICMP:
            if body[0] == ECHO and not packet.to_many:
                self._reply(packet, bytes((ECHO_REPLY, body[1], 0, 0)) + body[4:])
            elif body[0] == UNREACHABLE and body[1] == PORT_CODE:
                self._told(body[8:])
        elif body[0] == ECHO6:
            self._reply(packet, bytes((ECHO_REPLY6, body[1], 0, 0)) + body[4:])
        elif body[0] == UNREACHABLE6 and body[1] == PORT_CODE6:
            self._told(body[8:])
        return True

    def refuse_port(self, packet: IpPacket) -> None:
        """Nobody listens at the port."""
        codes = (UNREACHABLE, PORT_CODE) if len(packet.target) == 4 else (UNREACHABLE6, PORT_CODE6)
        self._complain(packet, *codes)

    def refuse_protocol(self, packet: IpPacket) -> None:
        """Nobody knows the protocol."""
        codes = (UNREACHABLE, PROTOCOL_CODE) if len(packet.target) == 4 else (PARAMETER_PROBLEM6, NEXT_HEADER_CODE6)
        self._complain(packet, *codes)

    def _complain(self, packet: IpPacket, kind: int, code: int) -> None:
        if packet.to_many or packet.skb.pkt_type:
            return
        about = packet.skb.head[packet.skb.network_header :][: QUOTED4 if len(packet.target) == 4 else QUOTED6]
        self._reply(packet, bytes((kind, code, 0, 0, 0, 0, 0, 0)) + about, INTERNET_CONTROL)

    def _reply(self, packet: IpPacket, body: bytes, tos: int = 0) -> None:
        """``body`` with its checksum back to who sent ``packet``, from the address it was sent to."""
        source, target = packet.target, packet.source
        try:
            path = self.ip.path(target)
        except BpfError:
            return
        if len(target) == 4:
            sealed = body[:2] + checksum(body).to_bytes(2) + body[4:]
            ident = self.ip.network.timers.env.random_u32()
            out = build_ipv4(source, target, IPPROTO_ICMP, sealed, ident=ident, fragment=0, tos=tos)
        else:
            value = checksum(body, pseudo_sum(source, target, IPPROTO_ICMPV6, len(body)))
            out = build_ipv6(
                source, target, IPPROTO_ICMPV6, body[:2] + value.to_bytes(2) + body[4:], flow=hash_of(source, target) & 0xFFFFF
            )
        flow = 0 if len(target) == 4 else hash_of(source, target)
        size = datagram_truesize(len(out) - len(body), len(body))
        self.ip.send(out, path, Sent(hash=flow, routed=path.local, truesize=size))

    def _told(self, about: bytes) -> None:
        """Somebody complained of the packet that ``about`` begins."""
        four = bool(about) and about[0] >> 4 == 4
        at, protocol_at, source_at = ((about[0] & 15) * 4, 9, 12) if four else (IPV6_HLEN, 6, 8)
        if len(about) < at + 8 or about[protocol_at] != IPPROTO_UDP:
            return
        size = 4 if four else 16
        source, target = about[source_at : source_at + size], about[source_at + size : source_at + 2 * size]
        ports = about[at : at + 4]
        self.ip.udp.refused(source, int.from_bytes(ports[:2]), target, int.from_bytes(ports[2:]), errno.ECONNREFUSED)


def _is_sound(packet: IpPacket, body: bytes) -> bool:
    if packet.protocol == IPPROTO_ICMP:
        return ones_sum(body) == 0xFFFF
    return ones_sum(body, pseudo_sum(packet.source, packet.target, IPPROTO_ICMPV6, len(body))) == 0xFFFF
