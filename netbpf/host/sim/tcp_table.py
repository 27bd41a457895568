"""Which connection or listener gets a TCP segment. The filter sees skb->data at the TCP header and may not cut into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netbpf.abi.net import IPPROTO_TCP, PACKET_HOST
from netbpf.errors import BpfError
from netbpf.host.sim.inet_socket import take_port
from netbpf.host.sim.ip_stack import IpPacket, IpStack
from netbpf.host.sim.reuseport import hash_of
from netbpf.host.sim.tcp_options import ACK, FIN, RST, SYN, seq_add
from netbpf.host.sim.tcp_state import SYN_RECV, TIME_WAIT, Connection, Key, send_segment
from netbpf.packet.inet import Tcp, ones_sum, parse_tcp, pseudo_sum

if TYPE_CHECKING:
    from netbpf.host.sim.tcp_socket import TcpSocket

CHECKED_AT_ONCE: Final = 76  # CHECKSUM_BREAK: a shorter segment's checksum is verified before a socket is looked for


class TcpTable:
    """The TCP sockets of a network namespace: ``bound`` by port, ``listeners`` newest first, ``connections`` by both ends."""

    def __init__(self, ip: IpStack) -> None:
        self.ip = ip
        self.bound: dict[int, list[TcpSocket]] = {}
        self.listeners: list[TcpSocket] = []
        self.connections: dict[Key, Connection] = {}

    # --- ports ------------------------------------------------------------------------------------------------------------
    def add(self, sock: TcpSocket, port: int) -> int:
        """Bind: the port. Raises BpfError(EADDRINUSE)."""
        port = take_port(self.bound, sock, port, lambda other: _clash(sock, other))
        self.bound.setdefault(port, []).insert(0, sock)
        return port

    def remove(self, sock: TcpSocket) -> None:
        if sock in self.bound.get(sock.port, ()):
            self.bound[sock.port].remove(sock)
        if sock in self.listeners:
            self.listeners.remove(sock)

    def forget(self, connection: Connection) -> None:
        if self.connections.get(connection.key) is connection:
            del self.connections[connection.key]

    # --- in ---------------------------------------------------------------------------------------------------------------
    def receive(self, packet: IpPacket) -> bool:
        """tcp_v4_rcv, tcp_v6_rcv."""
        skb = packet.skb
        segment = parse_tcp(packet.payload)
        if skb.pkt_type != PACKET_HOST or packet.to_many or segment is None:
            return True
        checked = packet.arrival.checked or skb.len <= CHECKED_AT_ONCE
        if checked and not is_sound(packet, skb.len):
            return True
        connection = self.connections.get((packet.target, segment.dport, packet.source, segment.sport))
        if connection is not None and connection.state == TIME_WAIT:
            if is_sound(packet, skb.len) and not segment.flags & RST:
                connection.acknowledge()
            return True
        sock = self._owner(connection) if connection is not None else self._listener(packet, segment)
        if sock is None and connection is None:
            if is_sound(packet, skb.len) and not segment.flags & RST:
                self._reset(packet, segment)
            return True
        keep = skb.len if sock is None else self._filter(sock, packet)
        cut = parse_tcp(packet.payload[:keep]) if keep else None
        if cut is not None and (checked or is_sound(packet, keep)):
            self._take(connection, sock, packet, cut)
        return True

    def _take(self, connection: Connection | None, sock: TcpSocket | None, packet: IpPacket, segment: Tcp) -> None:
        if connection is not None:
            connection.receive(segment)
        elif sock is not None:
            self._at_listener(sock, packet, segment)

    @staticmethod
    def _owner(connection: Connection) -> TcpSocket | None:
        """Whose filter a segment passes: until the handshake is over, the listener's."""
        return connection.listener if connection.state == SYN_RECV else connection.sock or connection.orphan

    @staticmethod
    def _filter(sock: TcpSocket, packet: IpPacket) -> int:
        """Bytes of the segment that the socket's filter keeps, the header at least; 0 drops it."""
        skb = packet.skb
        keep = sock.run_filter(skb, (skb.head[skb.data_off + 12] >> 4) * 4)
        if keep is None:
            sock.drops += 1
        return keep or 0

    def _listener(self, packet: IpPacket, segment: Tcp) -> TcpSocket | None:
        best, most = None, -1
        for sock in self.listeners:
            points = sock.score(packet, segment.sport) if sock.port == segment.dport else None
            if points is not None and points > most:
                best, most = sock, points
        if best is None or best.group is None:
            return best
        flow = hash_of(packet.source, packet.target, segment.sport, segment.dport)
        chosen = best.group.select(packet.skb, segment.hlen, flow)
        return next((sock for sock in self.listeners if sock is chosen), best)

    def _at_listener(self, sock: TcpSocket, packet: IpPacket, segment: Tcp) -> None:
        if segment.flags & RST:
            return
        if segment.flags & ACK:
            self._reset(packet, segment)
            return
        if not segment.flags & SYN or segment.flags & FIN or not sock.may_queue():
            return
        try:
            path = self.ip.path(packet.source)
        except BpfError:
            return
        key = (packet.target, segment.dport, packet.source, segment.sport)
        made = Connection(self.ip, key, path._replace(source=packet.target), None, sock)
        self.connections[key] = made
        made.take_syn(segment)

    def _reset(self, packet: IpPacket, segment: Tcp) -> None:
        """tcp_v4_send_reset: to a segment nobody waits for."""
        try:
            path = self.ip.path(packet.source)
        except BpfError:
            return
        if segment.flags & ACK:
            answer = Tcp(segment.dport, segment.sport, segment.ack, 0, RST, 0)
        else:
            length = len(segment.data) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
            answer = Tcp(segment.dport, segment.sport, 0, seq_add(segment.seq, length), RST | ACK, 0)
        send_segment(self.ip, path, packet.target, packet.source, answer, gso_segs=0)


def is_sound(packet: IpPacket, keep: int) -> bool:
    """Whether the checksum is right of what was kept. A long segment is verified only behind the filter, so that one which was
    cut there fails, as in the kernel."""
    if packet.arrival.checked:
        return True
    return ones_sum(packet.payload[:keep], pseudo_sum(packet.source, packet.target, IPPROTO_TCP, packet.skb.len)) == 0xFFFF


def _clash(sock: TcpSocket, other: TcpSocket) -> bool:
    if sock.reuseport and other.reuseport and sock.uid == other.uid:
        return False
    return not (sock.reuseaddr and other.reuseaddr and not other.is_listening) and sock.overlaps(other)
