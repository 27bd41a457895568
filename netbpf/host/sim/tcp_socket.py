"""TCP sockets: connect, listen, accept, read, write, close. The connection itself is ``tcp_state.Connection``."""

from __future__ import annotations

import errno
from collections import deque
from typing import Any, Final

from netbpf.abi import sockopt as so
from netbpf.abi.net import IPPROTO_TCP
from netbpf.errors import BpfError
from netbpf.host.sim.inet_socket import InetSocket, both_forms, to_plain
from netbpf.host.sim.machine import Machine
from netbpf.host.sim.network import Network
from netbpf.host.sim.reuseport import join_group
from netbpf.host.sim.sock import SHUT_RD, SHUT_WR, Delivered, Sock, Wait
from netbpf.host.sim.tcp_state import CLOSE, FIN_WAIT2, LISTEN, SYN_SENT, TIME_WAIT, Connection
from netbpf.packet.inet import MAPPED

TCP_RCVBUF: Final = 131072  # net.ipv4.tcp_rmem, the middle number
TCP_SNDBUF: Final = 16384
SEND_ROOM: Final = 2_626_560  # what a send buffer has grown to once data flows
SOMAXCONN: Final = 4096
INHERITED: Final = (
    *("rcvbuf", "sndbuf", "mark", "priority", "ifindex", "rxq_ovfl", "reuseaddr", "reuseport", "nodelay", "v6only", "linger"),
)


class TcpSocket(InetSocket):
    """``connection`` once it is connecting; ``ready`` the connections that wait to be accepted, of a listener."""

    def __init__(self, family: int, machine: Machine, network: Network, uid: int = 0) -> None:
        super().__init__(family, machine, network, so.SOCK_STREAM, IPPROTO_TCP, uid)
        self.rcvbuf, self.sndbuf = TCP_RCVBUF, TCP_SNDBUF
        self.connection: Connection | None = None
        self.ready: deque[Connection] = deque()
        self.nodelay = self._told_connected = False
        self.backlog = 0

    @property
    def mss(self) -> int:
        return self.connection.mss if self.connection is not None else 536

    def release(self) -> None:
        """close(2): FIN behind what was written, or RST where something was not read, or SO_LINGER says so."""
        for waiting in self.ready:
            waiting.abort()
        self.ip.tcp.remove(self)
        if self.group is not None:
            self.group.leave(self)
        connection = self.connection
        if connection is not None and connection.state != CLOSE:
            connection.sock, connection.orphan = None, self
            if connection.inbox or self.linger == (1, 0) or connection.state == SYN_SENT:
                connection.abort()
            else:
                connection.finish()
            if connection.orphan is not None:
                if connection.state in (FIN_WAIT2, TIME_WAIT):
                    connection.let_go()
                return  # the filter stays until the peer's end has been heard
        super().release()

    @property
    def is_hashed(self) -> bool:
        return self.is_listening or self.connection is not None

    def names(self) -> dict[str, Any]:
        state = LISTEN if self.is_listening else CLOSE if self.connection is None else self.connection.state
        out = {**super().names(), "sk_state": state}
        if self.connection is not None and self.peer is not None:
            out["remote_ip4"] = both_forms(self.peer)[0]
            if not self.is_v6:  # the IPv6 side of a connection's addresses is kept too
                out["local_ip6"], out["remote_ip6"] = (both_forms(MAPPED + ip)[1] for ip in (self.local, self.peer))
        return out

    # --- where ------------------------------------------------------------------------------------------------------------
    def bind(self, address: Any) -> None:
        """Raises BpfError(EINVAL, EADDRNOTAVAIL, EADDRINUSE, EACCES)."""
        ip, port, _ = self.parse(address)
        self.check_bindable(ip, port)
        if self.port or self.connection is not None:
            raise BpfError(errno.EINVAL)
        self._bind(ip, port)

    def _bind(self, ip: bytes, port: int) -> None:
        before, self.local = self.local, ip
        try:
            self.port = self.ip.tcp.add(self, port)
        except BpfError:
            self.local = before
            raise

    def listen(self, backlog: int) -> None:
        if self.connection is not None:
            raise BpfError(errno.EINVAL)
        if not self.port:
            self._bind(self.local, 0)
        if not self.is_listening and any(self._hinders(other) for other in self.ip.tcp.bound[self.port]):
            raise BpfError(errno.EADDRINUSE)
        self.backlog = min(backlog & 0xFFFF_FFFF, SOMAXCONN)
        if not self.is_listening:
            join_group(self, self.ip.tcp.bound[self.port])
            self.is_listening = True
            self.ip.tcp.listeners.insert(0, self)

    def _hinders(self, other: TcpSocket) -> bool:
        """Whether another listener stands in the way."""
        shares = self.reuseport and other.reuseport and self.uid == other.uid
        return other is not self and other.is_listening and self.overlaps(other) and not shares

    def connect(self, address: Any, wait: Wait) -> None:
        """Raises BpfError(EINPROGRESS, EALREADY, EISCONN, ECONNREFUSED, ETIMEDOUT, ENETUNREACH)."""
        if self.is_listening:
            raise BpfError(errno.EISCONN)
        if self.connection is None or self.connection.state == CLOSE:
            self._start(address)
            if not wait.allowed:
                raise BpfError(errno.EINPROGRESS)
        elif self.connection.state == SYN_SENT and not wait.allowed:
            raise BpfError(errno.EALREADY)
        elif self._told_connected:
            raise BpfError(errno.EISCONN)
        connection = self.connection
        assert connection is not None
        self.wait_for(lambda: connection.state != SYN_SENT, wait)
        if self.error or connection.state == CLOSE:
            self.connection = self.peer = None  # and it may try again
            raise BpfError(self.take_error() or errno.ECONNABORTED)
        self._told_connected = True

    def _start(self, address: Any) -> None:
        ip, port, scope = self.parse(address)
        path = self.path_to(ip, scope)
        if not any(ip):
            ip = self.own_form(path.next_hop)
        source = self.local if any(self.local) else self.own_form(path.source)
        if not self.port:
            self._bind(source, 0)
        self.local, self.peer, self.peer_port = source, ip, port
        key = (to_plain(source), self.port, to_plain(ip), port)
        if key in self.ip.tcp.connections:
            raise BpfError(errno.EADDRNOTAVAIL)
        self.connection = self.ip.tcp.connections[key] = Connection(self.ip, key, path, self)
        self.connection.open()

    def getpeername(self) -> Any:
        if self.connection is None or self.connection.state in (CLOSE, SYN_SENT):
            raise BpfError(errno.ENOTCONN)
        return super().getpeername()

    # --- a listener -------------------------------------------------------------------------------------------------------
    def may_queue(self) -> bool:
        """Whether one more may knock."""
        return len(self.ready) <= self.backlog

    def take_child(self, connection: Connection) -> bool:
        """A handshake is over: the connection waits to be accepted. False where the queue is full."""
        if not self.may_queue() or not self.refs:
            return False
        connection.sock = self._child(connection)
        self.ready.append(connection)
        self.notify()
        return True

    def _child(self, connection: Connection) -> TcpSocket:
        """The socket of a connection accepted: what a listener has set, its filter too, goes on to it."""
        child = TcpSocket(self.family, self.machine, self.network, self.uid)
        for name in INHERITED:
            setattr(child, name, getattr(self, name))
        child.filter.share(self.filter)
        local, port, peer, peer_port = connection.key
        child.local, child.port = self.own_form(local), port
        child.peer, child.peer_port = self.own_form(peer), peer_port
        child.connection, child._told_connected = connection, True
        return child

    def accept(self, wait: Wait) -> tuple[Sock, Any]:
        """Raises BpfError(EINVAL, EAGAIN)."""
        if not self.is_listening:
            raise BpfError(errno.EINVAL)
        self.wait_for(lambda: self.ready, wait)
        child = self.ready.popleft().sock
        assert child is not None
        return child, child.getpeername_now()

    def getpeername_now(self) -> Any:
        """Also of a connection that its peer has closed again."""
        return super().getpeername()

    # --- reading and writing ----------------------------------------------------------------------------------------------
    def _down(self) -> int:
        """Which ways are shut, by this end, the other, or the end of the connection."""
        connection = self.connection
        if connection is None:
            return self.shut
        ended = SHUT_RD | SHUT_WR if connection.state == CLOSE else 0
        return self.shut | ended | (SHUT_RD if connection.at_end else 0) | (SHUT_WR if connection.fin_wanted else 0)

    def is_readable(self) -> bool:
        if self.is_listening:
            return bool(self.ready)
        return bool(self._down() & SHUT_RD or (self.connection is not None and self.connection.inbox))

    def is_writable(self) -> bool:
        connection = self.connection
        if self.is_listening or (connection is not None and connection.state == SYN_SENT):
            return False
        return connection is None or bool(self._down() & SHUT_WR) or len(connection.out) < SEND_ROOM

    def is_hung_up(self) -> bool:
        return not self.is_listening and (self.connection is None or self._down() == SHUT_RD | SHUT_WR)

    def receive(self, bufsize: int, flags: int, wait: Wait) -> Delivered:
        """Bytes in order; none at the end. Raises BpfError(ENOTCONN, EAGAIN, a pending error)."""
        self.check_flags(flags)
        if flags & so.MSG_OOB:
            raise BpfError(errno.EINVAL)
        connection = self.connection
        if connection is None:
            raise BpfError(errno.ENOTCONN)
        wanted = bufsize if flags & so.MSG_WAITALL and not flags & so.MSG_PEEK else min(bufsize, 1)
        if bufsize:
            self.wait_for(lambda: len(connection.inbox) >= wanted or connection.at_end or self.error or self.shut & SHUT_RD, wait)
        if not connection.inbox and self.error:
            raise BpfError(self.take_error())
        data = connection.read(bufsize, peek=bool(flags & so.MSG_PEEK))
        if flags & so.MSG_TRUNC:  # bytes are thrown away and only counted
            return Delivered(b"", len(data), (), 0, None)
        return Delivered(data, len(data), (), 0, None)

    def send(self, data: bytes, address: Any, wait: Wait, flags: int) -> int:
        """Raises BpfError(EPIPE, ENOTCONN, EAGAIN, a pending error)."""
        if self.error:
            raise BpfError(self.take_error())
        connection = self.connection
        if connection is not None and connection.state == SYN_SENT:
            self.wait_for(lambda: connection.state != SYN_SENT, wait)
        if connection is None or self.shut & SHUT_WR or connection.state == CLOSE or connection.fin_wanted:
            raise BpfError(self.take_error() or errno.EPIPE)
        self.wait_for(lambda: len(connection.out) < SEND_ROOM or connection.state == CLOSE, wait)
        if connection.state == CLOSE:
            raise BpfError(self.take_error() or errno.EPIPE)
        taken = data[: SEND_ROOM - len(connection.out)]
        connection.write(taken)
        return len(taken)

    def shutdown(self, how: int) -> None:
        if self.is_listening and how != 1:
            self.is_listening = False
            self.ip.tcp.listeners.remove(self)
            self.notify()
            return
        connection = self.connection
        if connection is None or connection.state in (CLOSE, SYN_SENT):
            raise BpfError(errno.ENOTCONN)
        self.shut |= how + 1
        if how + 1 & SHUT_WR:
            connection.finish()
        self.notify()

    def meminfo(self) -> bytes:
        self.rmem = len(self.connection.inbox) if self.connection is not None else 0
        return super().meminfo()
