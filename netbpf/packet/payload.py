"""Where a packet's payload starts behind its headers, as the kernel's flow dissector finds it (SKF_AD_PAY_OFFSET).

The dissector goes from header to header: link-layer ones by EtherType, then those of IP by protocol number, into tunnels
too. A rule for each header answers where to go on, or that the transport header is reached. Pure functions of an sk_buff.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from netbpf.abi.net import ETH_P_8021AD, ETH_P_8021Q, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6
from netbpf.packet.load import data_end
from netbpf.packet.skbuff import SkBuff

ETH_P_PPP_SES: Final = 0x8864
ETH_P_MPLS_UC: Final = 0x8847
ETH_P_MPLS_MC: Final = 0x8848
ETH_P_FCOE: Final = 0x8906
ETH_P_TEB: Final = 0x6558
ETH_P_RARP: Final = 0x8035
ETH_P_BATMAN: Final = 0x4305
ETH_P_TIPC: Final = 0x88CA
ETH_P_HSR: Final = 0x892F
ETH_P_PRP: Final = 0x88FB
ETH_P_1588: Final = 0x88F7
ETH_P_CFM: Final = 0x8902
MAX_HEADERS: Final = 15  # the dissector's own limit of turns
GRE_CSUM, GRE_ROUTING, GRE_KEY, GRE_SEQ, GRE_VERSION, GRE_ACK = 0x8000, 0x4000, 0x2000, 0x1000, 0x0007, 0x0080
GRE_PROTO_PPP: Final = 0x880B
PPP_TO_ETHERTYPE: Final = {0x0021: ETH_P_IP, 0x0057: ETH_P_IPV6, 0x0281: ETH_P_MPLS_UC, 0x0283: ETH_P_MPLS_MC}


class _Flow(NamedTuple):
    """What was found: offset of the transport header from skb->data, its protocol (0: none), a fragment but the first."""

    thoff: int
    ip_proto: int
    later_fragment: bool = False


class _Bad(Exception):
    """A header that is cut or makes no sense: the dissector gives up."""


class _Next(NamedTuple):
    """Go on at ``off`` with the header of EtherType ``proto``, or where it is -1 of IP protocol ``ip_proto``."""

    off: int
    proto: int = -1
    ip_proto: int = 0


def skb_get_poff(skb: SkBuff) -> int:
    """Offset of the payload from skb->data; 0 where the headers make no sense."""
    try:
        flow = _Dissector(skb).run()
    except _Bad:
        return 0
    if flow.later_fragment:
        return flow.thoff
    return flow.thoff + _transport_bytes(skb, flow)


def _transport_bytes(skb: SkBuff, flow: _Flow) -> int:
    """The length of the transport header; of TCP's as its data offset says, where that byte is there."""
    if flow.ip_proto != IPPROTO_TCP:
        return _TRANSPORT_BYTES.get(flow.ip_proto, 0)
    at = skb.data_off + flow.thoff + 12
    if at >= data_end(skb):
        return 0
    return max(20, (skb.head[at] & 0xF0) >> 2)


IPPROTO_TCP: Final = 6
_TRANSPORT_BYTES: Final = {
    1: 8,  # ICMP
    2: 8,  # IGMP
    17: 8,  # UDP
    33: 12,  # DCCP
    58: 8,  # ICMPv6
    132: 12,  # SCTP
    136: 8,  # UDP-Lite
}

_Step = _Next | _Flow


class _Dissector:
    """One packet on its way through the headers. Offsets count from skb->data."""

    def __init__(self, skb: SkBuff) -> None:
        self.skb = skb
        self.data = skb.head[skb.data_off : data_end(skb)]
        self.tags_seen = 0
        self.ether_proto = 0  # of the header before: extension headers are IPv6's only

    def run(self) -> _Flow:
        skb = self.skb
        first = skb.vlan_proto if skb.vlan_present else skb.protocol
        step: _Step = _Next(skb.network_header - skb.data_off, first)
        for _ in range(MAX_HEADERS):
            if isinstance(step, _Flow):
                break
            step = self._header(step)
        flow = step if isinstance(step, _Flow) else _Flow(step.off, step.ip_proto)
        return flow._replace(thoff=min(flow.thoff & 0xFFFF, len(self.data) & 0xFFFF))  # the kernel compares as u16

    def _header(self, step: _Next) -> _Step:
        if step.proto >= 0:
            self.ether_proto = step.proto
            rule = _BY_ETHERTYPE.get(step.proto)
            if rule is None:
                raise _Bad
            return rule(self, step.off)
        by_ip = _BY_IP_PROTO.get(step.ip_proto)
        return _Flow(step.off, step.ip_proto) if by_ip is None else by_ip(self, step.off, step.ip_proto)

    def _bytes(self, off: int, size: int) -> bytes:
        at = self.skb.data_off + off  # the network header may lie before skb->data
        if at < 0 or off + size > len(self.data):
            raise _Bad
        return self.skb.head[at : at + size]

    def _u16(self, off: int) -> int:
        return int.from_bytes(self._bytes(off, 2))

    # --- headers told by an EtherType -------------------------------------------------------------------------------------

    def ipv4(self, off: int) -> _Step:
        header = self._bytes(off, 20)
        words = header[0] & 0xF
        if words < 5:
            raise _Bad
        fragment = int.from_bytes(header[6:8])
        after = off + 4 * words
        if fragment & 0x3FFF:
            return _Flow(after, header[9], fragment & 0x1FFF != 0)
        return _Next(after, ip_proto=header[9])

    def ipv6(self, off: int) -> _Step:
        return _Next(off + 40, ip_proto=self._bytes(off, 40)[6])

    def vlan(self, off: int) -> _Step:
        """The first tag may be beside the packet already; later ones are in it."""
        self.tags_seen += 1
        if self.tags_seen == 1 and self.skb.vlan_present:
            return _Next(off, self.skb.protocol)
        return _Next(off + 4, int.from_bytes(self._bytes(off, 4)[2:]))

    def pppoe(self, off: int) -> _Step:
        header = self._bytes(off, 8)
        if header[0] != 0x11 or header[1]:
            raise _Bad
        proto, after = int.from_bytes(header[6:]), off + 8
        if proto in PPP_TO_ETHERTYPE:
            return _Next(after, PPP_TO_ETHERTYPE[proto])
        if proto & 0x0101 != 0x0001:  # not even a PPP protocol's number, or one compressed to a byte
            raise _Bad
        return _Flow(after, 0)

    def mpls(self, off: int) -> _Step:
        return _Flow(off + 4, 0)

    def fcoe(self, off: int) -> _Step:
        self._bytes(off, 38)
        return _Flow(off + 38, 0)

    def ptp(self, off: int) -> _Step:
        self._bytes(off, 34)
        return _Flow(off + 34, 0)

    def tipc(self, off: int) -> _Step:
        self._bytes(off, 16)
        return _Flow(off, 0)

    def redundancy_tag(self, off: int) -> _Step:
        """HSR and PRP: six bytes, the last two the EtherType behind them."""
        return _Next(off + 6, int.from_bytes(self._bytes(off, 6)[4:]))

    def batman(self, off: int) -> _Step:
        """B.A.T.M.A.N. advanced: a unicast packet of version 15 holds an Ethernet frame."""
        header = self._bytes(off, 24)
        if header[:2] != b"\x40\x0f":
            raise _Bad
        return _Next(off + 24, int.from_bytes(header[22:]))

    def stop(self, off: int) -> _Step:
        return _Flow(off, 0)

    # --- headers told by an IP protocol -------------------------------------------------------------------------------------

    def gre(self, off: int, ip_proto: int) -> _Step:
        flags, proto = self._u16(off), self._u16(off + 2)
        version = flags & GRE_VERSION
        if flags & GRE_ROUTING or version > 1 or (version == 1 and not (proto == GRE_PROTO_PPP and flags & GRE_KEY)):
            return _Flow(off, ip_proto)
        after = off + 4 + 4 * sum(1 for bit in (GRE_CSUM, GRE_KEY, GRE_SEQ) if flags & bit)
        if version:
            return self._pptp(flags, after)
        if proto == ETH_P_TEB:
            return _Next(after + 14, int.from_bytes(self._bytes(after, 14)[12:]))
        return _Next(after, proto)

    def _pptp(self, flags: int, off: int) -> _Step:
        if flags & GRE_ACK:
            off += 4
        header = self._bytes(off, 4)
        proto = PPP_TO_ETHERTYPE.get(int.from_bytes(header[2:]))
        if proto not in (ETH_P_IP, ETH_P_IPV6):
            raise _Bad
        return _Next(off + 4, proto)

    def options(self, off: int, ip_proto: int) -> _Step:
        """Hop-by-hop, routing and destination options."""
        if self.ether_proto != ETH_P_IPV6:
            return _Flow(off, ip_proto)
        header = self._bytes(off, 2)
        return _Next(off + 8 * (header[1] + 1), ip_proto=header[0])

    def fragment(self, off: int, ip_proto: int) -> _Step:
        if self.ether_proto != ETH_P_IPV6:
            return _Flow(off, ip_proto)
        header = self._bytes(off, 8)
        return _Flow(off + 8, header[0], int.from_bytes(header[2:4]) & 0xFFF8 != 0)

    def ip_in_ip(self, off: int, ip_proto: int) -> _Step:
        return _Next(off, ETH_P_IP if ip_proto == 4 else ETH_P_IPV6)

    def mpls_in_ip(self, off: int, ip_proto: int) -> _Step:
        return _Next(off, ETH_P_MPLS_UC)


_BY_ETHERTYPE: Final[dict[int, Callable[[_Dissector, int], _Step]]] = {
    ETH_P_IP: _Dissector.ipv4,
    ETH_P_IPV6: _Dissector.ipv6,
    ETH_P_8021Q: _Dissector.vlan,
    ETH_P_8021AD: _Dissector.vlan,
    ETH_P_PPP_SES: _Dissector.pppoe,
    ETH_P_MPLS_UC: _Dissector.mpls,
    ETH_P_MPLS_MC: _Dissector.mpls,
    ETH_P_FCOE: _Dissector.fcoe,
    ETH_P_ARP: _Dissector.stop,
    ETH_P_RARP: _Dissector.stop,
    ETH_P_CFM: _Dissector.stop,
    ETH_P_TIPC: _Dissector.tipc,
    ETH_P_1588: _Dissector.ptp,
    ETH_P_HSR: _Dissector.redundancy_tag,
    ETH_P_PRP: _Dissector.redundancy_tag,
    ETH_P_BATMAN: _Dissector.batman,
}
_BY_IP_PROTO: Final[dict[int, Callable[[_Dissector, int, int], _Step]]] = {
    0: _Dissector.options,
    4: _Dissector.ip_in_ip,
    41: _Dissector.ip_in_ip,
    43: _Dissector.options,
    44: _Dissector.fragment,
    47: _Dissector.gre,
    60: _Dissector.options,
    137: _Dissector.mpls_in_ip,
}
