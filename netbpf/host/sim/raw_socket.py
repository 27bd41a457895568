"""Raw IP sockets: every packet of a protocol, before the protocol itself gets it. An IPv4 one sees the IP header first, an IPv6
one the header of its protocol."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any, Final

from netbpf.abi import sockopt as so
from netbpf.errors import BpfError
from netbpf.host.sim.inet_socket import InetSocket, to_plain
from netbpf.host.sim.ip_stack import IpPacket, IpStack
from netbpf.host.sim.machine import Machine
from netbpf.host.sim.network import Network
from netbpf.host.sim.sock import SHUT_WR, Queued, Wait
from netbpf.host.sim.truesize import datagram_truesize
from netbpf.packet.inet import IP_DF, IPV4_HLEN, build_ipv4, build_ipv6, checksum, ones_sum, pseudo_sum, seal_ipv4

IPPROTO_RAW: Final = 255
IPPROTO_ICMPV6: Final = 58


class RawSocket(InetSocket):
    """``hdrincl``: who sends gives the IP header too. ``checksum_at``: where an IPv6 protocol's checksum lies, None for none."""

    def __init__(self, family: int, machine: Machine, network: Network, protocol: int, uid: int = 0) -> None:
        super().__init__(family, machine, network, so.SOCK_RAW, protocol, uid)
        self.hdrincl, self.reuseaddr = protocol == IPPROTO_RAW, True
        self.checksum_at = 2 if self.is_v6 and protocol == IPPROTO_ICMPV6 else None
        self.port = protocol  # what getsockname tells in its place
        self.ip.raw.sockets.insert(0, self)

    def release(self) -> None:
        self.ip.raw.sockets.remove(self)
        super().release()

    def bind(self, address: Any) -> None:
        """Raises BpfError(EADDRNOTAVAIL)."""
        ip, _, scope = self.parse(address)
        self.check_bindable(ip, 0)
        self.local = ip
        self.ifindex = scope if ip[:2] == b"\xfe\x80" and scope else self.ifindex

    def connect(self, address: Any, wait: Wait) -> None:
        ip, port, scope = self.parse(address)
        path = self.path_to(ip, scope)
        if not any(self.local):
            self.local = self.own_form(path.source)
        self.peer, self.peer_port = ip, port

    def getsockname(self) -> Any:
        return self.format(self.local, self.protocol)

    def shutdown(self, how: int) -> None:
        self.shut |= how + 1
        self.notify()
        if self.peer is None:
            raise BpfError(errno.ENOTCONN)

    def names(self) -> dict[str, Any]:
        return {**super().names(), "local_port": self.protocol}

    # --- out --------------------------------------------------------------------------------------------------------------
    def send(self, data: bytes, address: Any, wait: Wait, flags: int) -> int:
        """Raises BpfError(EDESTADDRREQ, EMSGSIZE, EINVAL, ENETUNREACH, EPIPE)."""
        if len(data) > 0xFFFF:
            raise BpfError(errno.EMSGSIZE)
        if self.shut & SHUT_WR:
            raise BpfError(errno.EPIPE)
        if address is None and self.peer is None:
            raise BpfError(errno.EDESTADDRREQ)
        ip, scope = (self.parse(address)[0], self.parse(address)[2]) if address is not None else (self.peer or self.any, 0)
        path = self.path_to(ip, scope)
        target = path.next_hop if path.local else to_plain(ip)
        if self.hdrincl:
            packet = self._with_header(data, path.source, target)
        elif len(target) == 4:
            ident = self.machine.env.random_u32()
            packet = build_ipv4(
                path.source, target, self.protocol, data, ident=ident, fragment=self._df(data, path.device.mtu),
                ttl=self.hops(target), tos=self.tos,
            )  # fmt: skip
        else:
            packet = build_ipv6(
                path.source,
                target,
                self.protocol,
                self._sealed(data, path.source, target),
                hop_limit=self.hops(target),
                flow=self.txhash & 0xFFFFF,
            )
        size = datagram_truesize(len(packet) - len(data), len(data))
        sent = self.sent(size, path, partial=False, hash=self.txhash if len(target) == 16 else 0)
        self.ip.send(packet, path, sent, loop=self.multicast_loop)
        return len(data)

    @staticmethod
    def _df(data: bytes, mtu: int) -> int:
        return IP_DF if len(data) + IPV4_HLEN <= mtu else 0

    def _with_header(self, data: bytes, source: bytes, target: bytes) -> bytes:
        """What the kernel fills in of a header given: length and checksum always, source and identification where zero."""
        if len(target) == 16:
            return data
        hlen = (data[0] & 15) * 4 if data else 0
        if len(data) < IPV4_HLEN or hlen < 20 or len(data) < hlen:
            raise BpfError(errno.EINVAL)
        head = data[:2] + len(data).to_bytes(2) + data[4:12] + (data[12:16] if any(data[12:16]) else source) + data[16:hlen]
        if not any(head[4:6]):
            head = head[:4] + (self.machine.env.random_u32() & 0xFFFF).to_bytes(2) + head[6:]
        return seal_ipv4(head + data[hlen:])

    def _sealed(self, data: bytes, source: bytes, target: bytes) -> bytes:
        at = self.checksum_at
        if at is None:
            return data
        if len(data) < at + 2:
            raise BpfError(errno.EINVAL)
        bare = data[:at] + bytes(2) + data[at + 2 :]
        value = checksum(bare, pseudo_sum(source, target, self.protocol, len(bare)))
        return bare[:at] + (value or 0xFFFF).to_bytes(2) + bare[at + 2 :]

    def check_flags(self, flags: int) -> None:
        if flags & so.MSG_OOB:
            raise BpfError(errno.EOPNOTSUPP)
        super().check_flags(flags)

    # --- in ---------------------------------------------------------------------------------------------------------------
    def deliver(self, packet: IpPacket) -> None:
        skb = packet.skb
        if self.is_v6:
            if not self._is_sound(packet):
                self.drops += 1
                return
        else:
            at = skb.network_header
            skb = replace(skb, data_off=at, len=skb.len + skb.data_off - at)
        keep = self.run_filter(skb)
        if keep is not None and self.has_room():
            data = skb.head[skb.data_off : skb.data_off + keep]
            address = self.format(self.own_form(packet.source), 0, packet.arrival.device.ifindex)
            self.enqueue(Queued(data, address, packet.arrival.truesize, self.dropcount(), self.packet_control(packet)))

    def _is_sound(self, packet: IpPacket) -> bool:
        """The checksum of protocols whose socket knows where it lies."""
        if self.checksum_at is None or packet.arrival.checked:
            return True
        start = pseudo_sum(packet.source, packet.target, self.protocol, packet.skb.len)
        return ones_sum(packet.payload, start) == 0xFFFF


class RawTable:
    """The raw sockets of a network namespace, newest first."""

    def __init__(self, ip: IpStack) -> None:
        self.sockets: list[RawSocket] = []

    def receive(self, packet: IpPacket) -> bool:
        """Whether some socket is for the packet's protocol and addresses."""
        takers = [s for s in self.sockets if _wants(s, packet)]
        for sock in takers:
            sock.deliver(packet)
        return bool(takers)


def _wants(sock: RawSocket, packet: IpPacket) -> bool:
    return (
        sock.protocol == packet.protocol
        and sock.is_v6 == (len(packet.target) == 16)
        and (not any(sock.local) or to_plain(sock.local) == packet.target)
        and (sock.peer is None or to_plain(sock.peer) == packet.source)
        and sock.ifindex in (0, packet.arrival.device.ifindex)
        and sock.hears_group(packet)
    )
