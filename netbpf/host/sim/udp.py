"""UDP: sockets, and which of them gets a datagram. The filter sees skb->data at the UDP header and may not cut into it."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any, Final

from netbpf.abi import sockopt as so
from netbpf.abi.net import IPPROTO_UDP
from netbpf.errors import BpfError
from netbpf.host.sim.inet_socket import InetSocket, take_port, to_plain
from netbpf.host.sim.ip_stack import IpPacket, IpStack, Path
from netbpf.host.sim.machine import Machine
from netbpf.host.sim.network import Network
from netbpf.host.sim.reuseport import hash_of, join_group
from netbpf.host.sim.sock import SHUT_RD, SHUT_WR, Queued, Wait
from netbpf.host.sim.truesize import datagram_truesize
from netbpf.packet.inet import IP_DF, UDP_HLEN, build_ipv4, build_ipv6, build_udp, is_multicast, ones_sum, pseudo_sum
from netbpf.packet.skbuff import SkBuff

MAX_PAYLOAD: Final = 0xFFFF - UDP_HLEN
CHECKED_AT_ONCE: Final = 76  # CHECKSUM_BREAK: a shorter datagram's checksum is verified before a socket is looked for


class UdpSocket(InetSocket):
    """One."""

    def __init__(self, family: int, machine: Machine, network: Network, uid: int = 0) -> None:
        super().__init__(family, machine, network, so.SOCK_DGRAM, IPPROTO_UDP, uid)
        self.no_check6_rx = False
        self.gave_back = 0  # bytes read and not yet taken off rmem

    def release(self) -> None:
        self.ip.udp.remove(self)
        if self.group is not None:
            self.group.leave(self)
        super().release()

    # --- where ------------------------------------------------------------------------------------------------------------
    def bind(self, address: Any) -> None:
        """Raises BpfError(EINVAL, EADDRNOTAVAIL, EADDRINUSE, EACCES)."""
        ip, port, scope = self.parse(address)
        self.check_bindable(ip, port)
        if self.port:
            raise BpfError(errno.EINVAL)
        if scope and ip[:2] == b"\xfe\x80":
            self.ifindex = scope
        self._bind(ip, port)

    def _bind(self, ip: bytes, port: int) -> None:
        before, self.local = self.local, ip
        try:
            self.port = self.ip.udp.add(self, port)
        except BpfError:
            self.local = before
            raise

    def autobind(self) -> None:
        if not self.port:
            self._bind(self.local, 0)

    def connect(self, address: Any, wait: Wait) -> None:
        """Only the peer's datagrams come in from now on; an address of AF_UNSPEC (None) takes it back."""
        if address is None:
            self.peer, self.peer_port = None, 0
            return
        ip, port, scope = self.parse(address)
        path = self.path_to(ip, scope)
        self.autobind()
        if not any(self.local):
            self.local = self.own_form(path.source)
        self.peer, self.peer_port = self.own_form(path.next_hop) if not any(ip) else ip, port

    def shutdown(self, how: int) -> None:
        self.shut |= how + 1
        self.notify()
        if self.peer is None:
            raise BpfError(errno.ENOTCONN)

    # --- out --------------------------------------------------------------------------------------------------------------
    def send(self, data: bytes, address: Any, wait: Wait, flags: int) -> int:
        """Raises BpfError(EDESTADDRREQ, EMSGSIZE, ENETUNREACH, EACCES, EPIPE, a pending error)."""
        if len(data) > 0xFFFF:
            raise BpfError(errno.EMSGSIZE)
        if self.error:
            raise BpfError(self.take_error())
        ip, port, path = self._destination(address)
        if self.shut & SHUT_WR:
            raise BpfError(errno.EPIPE)
        self.autobind()
        target = path.next_hop if path.local else to_plain(ip)
        hlen = 28 if len(target) == 4 else 48
        if len(data) + hlen - (0 if hlen == 28 else 40) > 0xFFFF:
            raise BpfError(errno.EMSGSIZE)
        self._transmit(data, target, port, path, hlen)
        return len(data)

    def _destination(self, address: Any) -> tuple[bytes, int, Path]:
        if address is None:
            if self.peer is None:
                raise BpfError(errno.EDESTADDRREQ)
            return self.peer, self.peer_port, self.path_to(self.peer)
        ip, port, scope = self.parse(address)
        if not port:
            raise BpfError(errno.EINVAL)
        return ip, port, self.path_to(ip, scope)

    def _transmit(self, data: bytes, target: bytes, port: int, path: Path, hlen: int) -> None:
        whole = len(data) + hlen <= path.device.mtu
        offloads = whole and (path.local or path.device.peer is not None)
        check = "none" if self.no_check else "partial" if offloads else "full"
        datagram = build_udp(path.source, target, self.port, port, data, check=check)
        if len(target) == 4:
            ident = self.machine.env.random_u32()
            fragment = IP_DF if whole and not is_multicast(target) else 0
            packet = build_ipv4(
                path.source, target, IPPROTO_UDP, datagram, ident=ident, fragment=fragment, ttl=self.hops(target), tos=self.tos
            )
        else:
            packet = build_ipv6(
                path.source,
                target,
                IPPROTO_UDP,
                datagram,
                hop_limit=self.hops(target),
                traffic_class=self.tos,
                flow=self.txhash & 0xFFFFF,
            )
        flow = self.txhash if self.peer is not None or len(target) == 16 else 0
        sent = self.sent(datagram_truesize(hlen, len(data)), path, partial=check == "partial", hash=flow)
        self.ip.send(packet, path, sent, loop=self.multicast_loop)

    # --- in ---------------------------------------------------------------------------------------------------------------
    def deliver(self, packet: IpPacket, is_sound: bool) -> None:
        """udp_queue_rcv_skb: with a filter the checksum counts now, without one when the datagram is read."""
        if self.filter.is_attached and not is_sound:
            self.drops += 1
            return
        keep = self.run_filter(packet.skb, UDP_HLEN)
        if keep is None:
            self.drops += 1
            return
        if not self._has_room_for(packet.arrival.truesize):
            self.drops += 1
            self.overflows += 1
            return
        skb = packet.skb
        sport = int.from_bytes(skb.head[skb.data_off : skb.data_off + 2])
        address = self.format(self.own_form(packet.source), sport, packet.arrival.device.ifindex)
        data = skb.head[skb.data_off + UDP_HLEN : skb.data_off + keep]
        self.enqueue(Queued(data, address, packet.arrival.truesize, self.dropcount(), self.packet_control(packet), is_sound))

    def _has_room_for(self, size: int) -> bool:
        """A datagram that finds the queue empty always has."""
        return not self.rmem or self.rmem + size <= self.rcvbuf

    def take(self, peek: bool, wait: Wait) -> Queued | None:
        """As ``Sock.take``, what has a wrong checksum passed over."""
        while True:
            item = super().take(peek, wait)
            if item is None or item.meta:
                return item
            if peek:
                self._drop_unsound()
            else:
                self.drops += 1

    def _drop_unsound(self) -> None:
        while self.queue and not self.queue[0].meta:
            self.drops += 1
            self.uncharge(self.queue.popleft().truesize)

    def is_readable(self) -> bool:
        self._drop_unsound()
        return super().is_readable()

    def uncharge(self, size: int) -> None:
        """udp_rmem_release: what was read is given back once it is a quarter of the buffer, or the queue is empty."""
        self.gave_back += size
        if self.queue and self.gave_back < self.rcvbuf >> 2:
            return
        self.rmem, self.gave_back = self.rmem - self.gave_back, 0


class UdpTable:
    """The UDP sockets of a network namespace by port, newest first."""

    def __init__(self, ip: IpStack) -> None:
        self.ip = ip
        self.bound: dict[int, list[UdpSocket]] = {}

    def add(self, sock: UdpSocket, port: int) -> int:
        """Bind: the port. Raises BpfError(EADDRINUSE)."""
        port = take_port(self.bound, sock, port, lambda other: _clash(sock, other))
        join_group(sock, self.bound.get(port, ()))
        self.bound.setdefault(port, []).insert(0, sock)
        return port

    def remove(self, sock: UdpSocket) -> None:
        if sock in self.bound.get(sock.port, ()):
            self.bound[sock.port].remove(sock)

    def receive(self, packet: IpPacket) -> bool:
        """__udp4_lib_rcv, __udp6_lib_rcv."""
        cut = _whole_datagram(packet)
        if cut is None:
            return False
        packet = cut
        sound = is_sound(packet)
        if not sound and packet.skb.len <= CHECKED_AT_ONCE:
            return False
        if packet.to_many:
            takers = [s for s in self.bound.get(_ports(packet)[1], ()) if _hears(s, packet)]
        else:
            found = self.lookup(packet)
            takers = [found] if found else []
        for sock in takers:
            if not _may_skip_checksum(sock, packet):
                continue
            sock.deliver(packet, sound)
        if not takers and sound and not packet.to_many:
            self.ip.icmp.refuse_port(packet)
        return bool(takers)

    def lookup(self, packet: IpPacket) -> UdpSocket | None:
        """The socket that fits best; of a group that shares a port, the member that its program or the flow's hash chooses."""
        sport, dport = _ports(packet)
        best, most = None, -1
        for sock in self.bound.get(dport, ()):
            points = sock.score(packet, sport)
            if points is not None and points > most:
                best, most = sock, points
        if best is None or best.group is None or best.peer is not None:
            return best
        chosen = best.group.select(packet.skb, UDP_HLEN, hash_of(packet.source, packet.target, sport, dport))
        return chosen if isinstance(chosen, UdpSocket) else best

    def refused(self, source: bytes, sport: int, target: bytes, dport: int, code: int) -> None:
        """An ICMP error about a datagram from ``source`` (ours) to ``target``."""
        for sock in self.bound.get(sport, ()):
            if sock.peer is not None and to_plain(sock.peer) == target and sock.peer_port == dport:
                sock.error = code
                sock.notify()


def _clash(sock: UdpSocket, other: UdpSocket) -> bool:
    if sock.reuseport and other.reuseport and sock.uid == other.uid:
        return False
    return not (sock.reuseaddr and other.reuseaddr) and sock.overlaps(other)


def _ports(packet: IpPacket) -> tuple[int, int]:
    at, head = packet.skb.data_off, packet.skb.head
    return int.from_bytes(head[at : at + 2]), int.from_bytes(head[at + 2 : at + 4])


def _whole_datagram(packet: IpPacket) -> IpPacket | None:
    """Cut to the length that the UDP header tells; None where that cannot be."""
    skb = packet.skb
    if skb.len < UDP_HLEN:
        return None
    length = int.from_bytes(skb.head[skb.data_off + 4 : skb.data_off + 6])
    if not length and len(packet.target) == 16:
        length = skb.len
    if not UDP_HLEN <= length <= skb.len:
        return None
    if length == skb.len:
        return packet
    return replace(packet, skb=replace(skb, head=skb.head[: skb.data_off + length], len=length))


def is_sound(packet: IpPacket) -> bool:
    """Whether the checksum is right, or need not be looked at."""
    skb = packet.skb
    if packet.arrival.checked or not any(skb.head[skb.data_off + 6 : skb.data_off + 8]):
        return True
    start = pseudo_sum(packet.source, packet.target, IPPROTO_UDP, skb.len)
    return ones_sum(skb.head[skb.data_off : skb.data_off + skb.len], start) == 0xFFFF


def _may_skip_checksum(sock: UdpSocket, packet: IpPacket) -> bool:
    """Over IPv6 a checksum of zero is an error, unless the socket says otherwise."""
    skb: SkBuff = packet.skb
    zero = not any(skb.head[skb.data_off + 6 : skb.data_off + 8])
    return len(packet.target) == 4 or not zero or packet.arrival.checked or sock.no_check6_rx


def _hears(sock: UdpSocket, packet: IpPacket) -> bool:
    return not sock.shut & SHUT_RD and sock.score(packet, _ports(packet)[0]) is not None and sock.hears_group(packet)
