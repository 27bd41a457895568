"""``Sock``: what every simulated socket has beside its protocol, as struct sock. A receive queue with its accounting, a filter,
errors, options. Families are subclasses; the Python face of them all is ``socket.SimSocket``.

Everything here and below is called with the machine's lock (``Machine.changed``) held.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from struct import Struct
from typing import Any, ClassVar, NamedTuple

from netbpf.abi import sockopt as so
from netbpf.errors import BpfError
from netbpf.host.sim.filter import SocketFilter
from netbpf.host.sim.machine import Machine
from netbpf.host.sim.network import Network
from netbpf.host.sim.objects import KObject
from netbpf.packet.skbuff import SkBuff

Control = tuple[int, int, bytes]  # level, type, data of a control message
U32 = Struct("<I")
MEMINFO = Struct("<9I")
SHUT_RD, SHUT_WR = 1, 2
_cookies = count(1)


class Queued(NamedTuple):
    """A message in a receive queue. ``dropcount`` is what SO_RXQ_OVFL tells with it, ``control`` what else goes with it."""

    data: bytes
    address: Any
    truesize: int
    dropcount: int = 0
    control: tuple[Control, ...] = ()
    meta: Any = None


class Delivered(NamedTuple):
    """What a receiving call gives: ``data`` cut to the caller's room, ``length`` before that."""

    data: bytes
    length: int
    control: tuple[Control, ...]
    flags: int
    address: Any


class Wait(NamedTuple):
    """Whether a call may wait, and for how many seconds (None: for ever)."""

    allowed: bool
    timeout_s: float | None = None


class Sock(KObject, ABC):
    """Refcounted by its files. ``rmem`` is what its queue counts, ``drops`` sk_drops, ``overflows`` those of them that
    found the buffer full."""

    file_kind = "socket"
    family: ClassVar[int]

    def __init__(self, machine: Machine, network: Network, sock_type: int, protocol: int, uid: int = 0) -> None:
        super().__init__()
        self.machine, self.network, self.type, self.protocol, self.uid = machine, network, sock_type, protocol, uid
        self.filter = SocketFilter(machine)
        self.rcvbuf = self.sndbuf = machine.sysctl.rmem_default
        self.rmem = self.drops = self.overflows = self.error = self.mark = self.priority = self.ifindex = 0
        self.rxq_ovfl = self.reuseaddr = self.reuseport = self.broadcast = self.keepalive = False
        self.rcvtimeo = self.sndtimeo = 0.0  # seconds; 0: for ever
        self.linger = (0, 0)  # whether, and for how many seconds, close waits
        self.no_check = False
        self.shut = 0  # SHUT_RD | SHUT_WR
        self.queue: deque[Queued] = deque()
        self.cookie = next(_cookies)

    # --- what families do -------------------------------------------------------------------------------------------------
    @abstractmethod
    def bind(self, address: Any) -> None: ...

    @abstractmethod
    def getsockname(self) -> Any: ...

    @abstractmethod
    def send(self, data: bytes, address: Any, wait: Wait, flags: int) -> int:
        """``address`` None: to whom it is connected. Bytes taken."""

    def getpeername(self) -> Any:
        raise BpfError(errno.EOPNOTSUPP)

    def connect(self, address: Any, wait: Wait) -> None:
        raise BpfError(errno.EOPNOTSUPP)

    def listen(self, backlog: int) -> None:
        raise BpfError(errno.EOPNOTSUPP)

    def accept(self, wait: Wait) -> tuple[Sock, Any]:
        raise BpfError(errno.EOPNOTSUPP)

    def shutdown(self, how: int) -> None:
        raise BpfError(errno.EOPNOTSUPP)

    def file_closed(self) -> None:
        with self.machine.changed:  # a process ends without the lock
            super().file_closed()

    def release(self) -> None:
        self.filter.release()
        self.queue.clear()
        self.notify()

    # --- waiting ----------------------------------------------------------------------------------------------------------
    def notify(self) -> None:
        """Whoever waits looks again."""
        self.machine.changed.notify_all()

    def wait_for(self, ready: Callable[[], object], wait: Wait) -> None:
        """Until ``ready()``. Raises BpfError(EAGAIN, EBADF), TimeoutError."""
        self.machine.timers.run_due()
        if ready():
            return
        if not wait.allowed:
            raise BpfError(errno.EAGAIN)
        if not self.machine.timers.wait_for(lambda: ready() or not self.refs, wait.timeout_s):
            raise TimeoutError("timed out")
        if not self.refs:
            raise BpfError(errno.EBADF, "the socket was closed")

    def is_readable(self) -> bool:
        """Whether a recv would not wait. An error is told apart from that."""
        return bool(self.queue or self.shut & SHUT_RD)

    def is_writable(self) -> bool:
        """Whether a send would not wait."""
        return True

    def is_hung_up(self) -> bool:
        return self.shut == SHUT_RD | SHUT_WR

    def take_error(self) -> int:
        """sock_error: the pending errno, cleared."""
        pending, self.error = self.error, 0
        return pending

    # --- receiving --------------------------------------------------------------------------------------------------------
    def run_filter(self, skb: SkBuff, cap: int = 1) -> int | None:
        """sk_filter_trim_cap: bytes of the packet to keep, at least ``cap``; None drops it. The packet is this socket's."""
        if not self.filter.is_attached:
            return skb.len
        verdict = self.filter.run(
            replace(skb, has_sk=True, sk_cookie=self.cookie, sk_uid=self.uid, cb=bytearray(20), **self.names())
        )
        return min(skb.len, max(cap, verdict)) if verdict else None

    def names(self) -> dict[str, Any]:
        """Family, addresses and ports as SkBuff fields, for a filter that follows skb->sk."""
        return {"family": self.family}

    def has_room(self) -> bool:
        """Whether the receive buffer takes one more packet; its drop is counted where not."""
        if self.rmem >= self.rcvbuf:
            self.drops += 1
            self.overflows += 1
            return False
        return True

    def enqueue(self, item: Queued) -> None:
        self.rmem += item.truesize
        self.queue.append(item)
        self.notify()

    def receive(self, bufsize: int, flags: int, wait: Wait) -> Delivered:
        """recvmsg(2). Raises BpfError(EAGAIN, EINVAL, a pending error), TimeoutError."""
        self.check_flags(flags)
        item = self.take(bool(flags & so.MSG_PEEK), wait)
        if item is None:
            return Delivered(b"", 0, (), 0, None)
        told = so.MSG_TRUNC if len(item.data) > bufsize else 0
        return Delivered(item.data[:bufsize], len(item.data), self.control_of(item), told, item.address)

    def check_flags(self, flags: int) -> None:
        """Raises BpfError(EAGAIN): nothing is ever put into the error queue."""
        if flags & so.MSG_ERRQUEUE:
            raise BpfError(errno.EAGAIN)

    def control_of(self, item: Queued) -> tuple[Control, ...]:
        """Its control messages, in the kernel's order."""
        own = ((so.SOL_SOCKET, so.SO_RXQ_OVFL, U32.pack(item.dropcount)),) if self.rxq_ovfl and item.dropcount else ()
        return own + item.control

    def take(self, peek: bool, wait: Wait) -> Queued | None:
        """The next message, left in place where ``peek``; None at the end of what can come."""
        ends = self.shut & SHUT_RD and wait == (True, None)  # a call that may not wait, or not for ever, still has nothing
        self.wait_for(lambda: self.queue or self.error or ends, wait)
        if self.error:
            raise BpfError(self.take_error())
        if not self.queue:
            return None
        if peek:
            return self.peek()
        item = self.queue.popleft()
        self.uncharge(item.truesize)
        return item

    def peek(self) -> Queued:
        return self.queue[0]

    def uncharge(self, size: int) -> None:
        """A packet has left the queue."""
        self.rmem -= size

    def dropcount(self) -> int:
        """sk_drops, for a packet that is put into the queue now."""
        return self.drops if self.rxq_ovfl else 0

    def meminfo(self) -> bytes:
        """SO_MEMINFO: nine u32. What is sent is gone at once, and no memory is forward allocated."""
        return MEMINFO.pack(self.rmem, self.rcvbuf, 0, self.sndbuf, 0, 0, self.filter.charged, 0, self.drops)


def join(buffers: Sequence[bytes]) -> bytes:
    """The bytes of an iovec."""
    return b"".join(bytes(b) for b in buffers)
