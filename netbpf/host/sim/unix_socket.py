"""AF_UNIX datagrams: sockets by path or abstract name, and pairs. The filter sees skb->data at the first byte sent; what it drops
the sender believes sent."""

from __future__ import annotations

import errno
from typing import Any, Final

from netbpf.abi import sockopt as so
from netbpf.errors import BpfError
from netbpf.host.sim.machine import Machine
from netbpf.host.sim.network import Network
from netbpf.host.sim.sock import SHUT_RD, SHUT_WR, Delivered, Queued, Sock, Wait
from netbpf.host.sim.truesize import unix_truesize
from netbpf.packet.skbuff import SkBuff

MAX_DGRAM_QLEN: Final = 10  # net.unix.max_dgram_qlen
PATH_BYTES: Final = 107


class UnixSocket(Sock):
    """SOCK_DGRAM (and SOCK_RAW, which is the same). ``name`` is the path, or the abstract name as bytes that begin with NUL."""

    family = so.AF_UNIX

    def __init__(self, machine: Machine, network: Network, uid: int = 0) -> None:
        super().__init__(machine, network, so.SOCK_DGRAM, 0, uid)
        self.name: str | bytes | None = None
        self.peer: UnixSocket | None = None
        self.wmem = 0  # what it sent and nobody has read

    def _key(self, address: Any) -> str | bytes:
        """A path as str, an abstract name as bytes. Raises TypeError as Python's sockets do."""
        if not isinstance(address, str | bytes | bytearray | memoryview):
            raise TypeError(f"a bytes-like object is required, not {type(address).__name__!r}")
        raw = address.encode() if isinstance(address, str) else bytes(address)
        if len(raw) > PATH_BYTES + (raw[:1] == b"\0"):
            raise BpfError(errno.EINVAL, "AF_UNIX path too long")
        return raw if raw[:1] == b"\0" else raw.decode()

    # --- where ------------------------------------------------------------------------------------------------------------
    def bind(self, address: Any) -> None:
        """Raises BpfError(EADDRINUSE, EINVAL). A path stays taken after its socket is closed, until ``SimHost.unlink``."""
        key = self._key(address) or self._autobind_name()
        if self.name is not None:
            raise BpfError(errno.EINVAL)
        if key in self.machine.unix_names:
            raise BpfError(errno.EADDRINUSE)
        self.machine.unix_names[key] = self
        self.name = key

    def _autobind_name(self) -> bytes:
        number = next(n for n in range(1 << 20) if b"\0%05x" % n not in self.machine.unix_names)
        return b"\0%05x" % number

    def connect(self, address: Any, wait: Wait) -> None:
        """Raises BpfError(ENOENT, ECONNREFUSED, EPERM)."""
        self.peer = None if address is None else self._find(address)

    def _find(self, address: Any) -> UnixSocket:
        key = self._key(address)
        if key not in self.machine.unix_names:
            raise BpfError(errno.ECONNREFUSED if isinstance(key, bytes) else errno.ENOENT)
        found: UnixSocket = self.machine.unix_names[key]
        if not found.refs:
            raise BpfError(errno.ECONNREFUSED)
        if found.peer is not None and found.peer is not self:
            raise BpfError(errno.EPERM)
        return found

    def getsockname(self) -> Any:
        return "" if self.name is None else self.name

    def getpeername(self) -> Any:
        if self.peer is None:
            raise BpfError(errno.ENOTCONN)
        return self.peer.getsockname()

    def shutdown(self, how: int) -> None:
        self.shut |= how + 1
        self.notify()

    def names(self) -> dict[str, Any]:
        return {"family": self.family, "sk_state": 7 if self.peer is None else 1}  # TCP_CLOSE, TCP_ESTABLISHED

    # --- out --------------------------------------------------------------------------------------------------------------
    def send(self, data: bytes, address: Any, wait: Wait, flags: int) -> int:
        """Raises BpfError(ENOTCONN, ENOENT, ECONNREFUSED, EMSGSIZE, EPIPE, EPERM, EAGAIN)."""
        if address is None and self.peer is None:
            raise BpfError(errno.ENOTCONN)
        if len(data) > self.sndbuf - 32:
            raise BpfError(errno.EMSGSIZE)
        if self.shut & SHUT_WR:
            raise BpfError(errno.EPIPE)
        self.wait_for(lambda: self.wmem < self.sndbuf, wait)
        other = self._find(address) if address is not None else self.peer
        assert other is not None
        if not other.refs:
            self.peer = None if other is self.peer else self.peer
            raise BpfError(errno.ECONNREFUSED)
        if other.peer is not None and other.peer is not self:
            raise BpfError(errno.EPERM)
        if other.shut & SHUT_RD:
            raise BpfError(errno.EPIPE)
        if other.peer is not self:
            self.wait_for(lambda: not other.is_full() or not other.refs, wait)
        other.deliver(data, self)
        return len(data)

    def deliver(self, data: bytes, sender: UnixSocket) -> None:
        skb = SkBuff(data, len(data), network_header=0, mac_header=-1, wire_len=len(data))
        keep = self.run_filter(skb)
        if keep is not None:
            size = unix_truesize(len(data))
            sender.wmem += size
            self.enqueue(Queued(data[:keep], sender.name, 0, meta=(sender, size)))

    def is_full(self) -> bool:
        return len(self.queue) > MAX_DGRAM_QLEN

    def is_writable(self) -> bool:
        return self.wmem < self.sndbuf and (self.peer is None or self.peer.peer is self or not self.peer.is_full())

    # --- in ---------------------------------------------------------------------------------------------------------------
    def receive(self, bufsize: int, flags: int, wait: Wait) -> Delivered:
        if flags & so.MSG_OOB:
            raise BpfError(errno.EOPNOTSUPP)
        return super().receive(bufsize, flags & ~so.MSG_ERRQUEUE, wait)

    def take(self, peek: bool, wait: Wait) -> Queued | None:
        item = super().take(peek, wait)
        if item is not None and not peek:
            sender, size = item.meta
            sender.wmem -= size
            self.notify()  # a sender may wait for room
        return item

    def release(self) -> None:
        for item in self.queue:
            item.meta[0].wmem -= item.meta[1]
        if isinstance(self.name, bytes):
            del self.machine.unix_names[self.name]
        super().release()


def make_pair(machine: Machine, network: Network, uid: int) -> tuple[UnixSocket, UnixSocket]:
    """socketpair(2)."""
    one, two = UnixSocket(machine, network, uid), UnixSocket(machine, network, uid)
    one.peer, two.peer = two, one
    return one, two
