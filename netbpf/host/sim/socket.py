"""``SimSocket``: a simulated socket with the methods of ``socket.socket``, so that code written for that runs on ours.

The Python face only: arguments, timeouts, buffers, exceptions. What a family does is in the kernel-side object (``sock.Sock``);
options are in ``sockopts``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Final

from netbpf.abi import sockopt as so
from netbpf.abi.net import IPPROTO_TCP, IPPROTO_UDP
from netbpf.errors import BpfError
from netbpf.host.sim.machine import Task
from netbpf.host.sim.packet_socket import PacketSocket
from netbpf.host.sim.raw_socket import RawSocket
from netbpf.host.sim.sock import Control, Delivered, Sock, Wait
from netbpf.host.sim.socket_errors import as_socket_error
from netbpf.host.sim.tcp_socket import TcpSocket
from netbpf.host.sim.udp import UdpSocket
from netbpf.host.sim.unix_socket import UnixSocket, make_pair

CMSG_HEADER_BYTES: Final = 16  # struct cmsghdr
CMSG_ALIGN: Final = 8
IPPROTO_MAX: Final = 263
_INT_BYTES: Final = 4


def ntohs(value: int) -> int:
    return (value & 0xFF) << 8 | (value >> 8) & 0xFF


@as_socket_error
def open_socket(task: Task, family: int, sock_type: int, proto: int) -> SimSocket:
    """socket(2). ``proto`` of AF_PACKET is in network order, as for the system call. Raises BpfError."""
    if sock_type & ~(so.SOCK_TYPE_MASK | so.SOCK_NONBLOCK | so.SOCK_CLOEXEC):
        raise BpfError(errno.EINVAL)
    make = {so.AF_PACKET: _packet, so.AF_INET: _inet, so.AF_INET6: _inet, so.AF_UNIX: _unix}.get(family)
    if make is None:
        raise BpfError(errno.EAFNOSUPPORT)
    with task.machine.changed:
        return _face(task, make(task, family, sock_type & so.SOCK_TYPE_MASK, proto), sock_type, proto)


@as_socket_error
def open_pair(task: Task, family: int, sock_type: int, proto: int) -> tuple[SimSocket, SimSocket]:
    """socketpair(2): AF_UNIX datagrams. Raises BpfError."""
    if family != so.AF_UNIX:
        raise BpfError(errno.EOPNOTSUPP if family in (so.AF_INET, so.AF_INET6, so.AF_PACKET) else errno.EAFNOSUPPORT)
    _check_unix(sock_type & so.SOCK_TYPE_MASK, proto)
    with task.machine.changed:
        one, two = make_pair(task.machine, task.network, task.uid)
        return _face(task, one, sock_type, proto), _face(task, two, sock_type, proto)


def _face(task: Task, kernel_side: Sock, sock_type: int, proto: int) -> SimSocket:
    made = SimSocket(task, task.adopt(kernel_side), kernel_side.family, sock_type & so.SOCK_TYPE_MASK, proto)
    if sock_type & so.SOCK_NONBLOCK:
        made.setblocking(False)
    return made


def _check_raw(task: Task) -> None:
    if "CAP_NET_RAW" not in task.caps:
        raise BpfError(errno.EPERM)


def _packet(task: Task, family: int, kind: int, proto: int) -> Sock:
    _check_raw(task)
    if kind not in (so.SOCK_DGRAM, so.SOCK_RAW):
        raise BpfError(errno.ESOCKTNOSUPPORT)
    return PacketSocket(task.machine, task.network, kind, ntohs(proto), task.uid)


def _inet(task: Task, family: int, kind: int, proto: int) -> Sock:
    if not 0 <= proto < IPPROTO_MAX:
        raise BpfError(errno.EINVAL)
    made: RawSocket | UdpSocket | TcpSocket
    if kind == so.SOCK_RAW:
        if not proto:
            raise BpfError(errno.EPROTONOSUPPORT)
        _check_raw(task)
        return RawSocket(family, task.machine, task.network, proto, task.uid)
    number = {so.SOCK_DGRAM: IPPROTO_UDP, so.SOCK_STREAM: IPPROTO_TCP}.get(kind)
    if number is None:
        raise BpfError(errno.ESOCKTNOSUPPORT)
    if proto not in (0, number):
        raise BpfError(errno.EPROTONOSUPPORT)
    cls = UdpSocket if kind == so.SOCK_DGRAM else TcpSocket
    made = cls(family, task.machine, task.network, task.uid)
    made.may_bind_low = task.is_capable("CAP_NET_BIND_SERVICE")
    return made


def _check_unix(kind: int, proto: int) -> None:
    if proto not in (0, so.AF_UNIX):
        raise BpfError(errno.EPROTONOSUPPORT)
    if kind not in (so.SOCK_DGRAM, so.SOCK_RAW):
        raise BpfError(errno.ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT: of AF_UNIX only datagrams are simulated")


def _unix(task: Task, family: int, kind: int, proto: int) -> Sock:
    _check_unix(kind, proto)
    return UnixSocket(task.machine, task.network, task.uid)


class SimSocket:
    """One descriptor of a simulated socket. Errors are BpfError, which is an OSError, in the classes Python has for them."""

    def __init__(self, task: Task, fd: int, family: int, kind: int, proto: int) -> None:
        self._task, self._fd = task, fd
        self.family, self.type, self.proto = family, kind, proto
        self._timeout: float | None = None
        self._io_refs, self._closed = 0, False  # files made of it keep it open

    # --- descriptor -----------------------------------------------------------------------------------------------------
    def fileno(self) -> int:
        """Its number in its process; -1 once closed. It is no descriptor of this interpreter."""
        return self._fd

    def close(self) -> None:
        """A second call does nothing. It stays open for files that ``makefile`` made."""
        self._closed = True
        if self._io_refs <= 0:
            self._close_now()

    def _decref_socketios(self) -> None:  # what socket.SocketIO calls when it is closed
        self._io_refs -= 1
        if self._closed and self._io_refs <= 0:
            self._close_now()

    def makefile(
        self, mode: str = "r", buffering: int | None = None, *, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None,
    ) -> Any:  # fmt: skip
        """A file that reads or writes the socket, as ``socket.makefile`` makes it."""
        import io
        import socket

        if not set(mode) <= set("rwb"):
            raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
        writing, reading = "w" in mode, "r" in mode or "w" not in mode
        raw: Any = socket.SocketIO(self, "r" * reading + "w" * writing)  # type: ignore[arg-type]
        self._io_refs += 1
        if buffering == 0:
            if "b" not in mode:
                raise ValueError("unbuffered streams must be binary")
            return raw
        size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 0 else buffering
        both = reading and writing
        kind = (
            io.BufferedRWPair(raw, raw, size)
            if both
            else io.BufferedReader(raw, size)
            if reading
            else io.BufferedWriter(raw, size)
        )
        return kind if "b" in mode else io.TextIOWrapper(kind, encoding, errors, newline)

    def _close_now(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if self._task.alive:
                with self._task.machine.changed:
                    self._task.fds.close(fd)

    def detach(self) -> int:
        """Forget the descriptor without closing it: its number."""
        fd, self._fd = self._fd, -1
        return fd

    @as_socket_error
    def dup(self) -> SimSocket:
        """Another descriptor of the same socket."""
        self._sock()
        return SimSocket(self._task, self._task.fds.dup(self._fd), self.family, self.type, self.proto)

    def __enter__(self) -> SimSocket:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SimSocket fd={self._fd}, family={self.family}, type={self.type}, proto={self.proto}>"

    def _sock(self) -> Sock:
        obj = self._task.fds.get(self._fd).obj
        if not isinstance(obj, Sock):
            raise BpfError(errno.ENOTSOCK)
        return obj

    def filter_loaded(self) -> Any:
        """The attached program as the engine has it, an ``engine.base.Loaded``; None where nothing is attached."""
        return self._sock().filter.loaded

    # --- where it listens, whom it talks to -------------------------------------------------------------------------------
    @as_socket_error
    def bind(self, address: Any) -> None:
        """An address in Python's form for the family. Raises BpfError."""
        with self._task.machine.changed:
            self._sock().bind(address)

    @as_socket_error
    def connect(self, address: Any) -> None:
        """Raises BpfError(EINPROGRESS) where it may not wait."""
        with self._task.machine.changed:
            self._sock().connect(address, self._wait(0))

    def connect_ex(self, address: Any) -> int:
        """``connect``, its errno given and not raised."""
        try:
            self.connect(address)
        except OSError as e:
            return e.errno or 0
        return 0

    @as_socket_error
    def listen(self, backlog: int = 128) -> None:
        with self._task.machine.changed:
            self._sock().listen(backlog)

    @as_socket_error
    def accept(self) -> tuple[SimSocket, Any]:
        """(a socket connected to who asked first, his address)."""
        with self._task.machine.changed:
            child, address = self._sock().accept(self._wait(0))
            return SimSocket(self._task, self._task.adopt(child), self.family, self.type, self.proto), address

    @as_socket_error
    def getsockname(self) -> Any:
        return self._sock().getsockname()

    @as_socket_error
    def getpeername(self) -> Any:
        return self._sock().getpeername()

    @as_socket_error
    def shutdown(self, how: int) -> None:
        """SHUT_RD 0, SHUT_WR 1 or SHUT_RDWR 2."""
        if not 0 <= how <= 2:
            raise BpfError(errno.EINVAL)
        with self._task.machine.changed:
            self._sock().shutdown(how)

    # --- waiting --------------------------------------------------------------------------------------------------------
    def settimeout(self, value: float | None) -> None:
        """Seconds a call may wait; None for ever, 0 not at all."""
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        self._timeout = None if value is None else float(value)

    def gettimeout(self) -> float | None:
        return self._timeout

    @property
    def timeout(self) -> float | None:
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        return self._timeout != 0.0

    def _wait(self, flags: int, option_s: float = 0.0) -> Wait:
        """With a timeout Python waits before it asks, whatever the flags say. ``option_s`` is the socket's own timeout, which
        counts where Python has none."""
        if self._timeout is not None:
            return Wait(bool(self._timeout), self._timeout)
        return Wait(not flags & so.MSG_DONTWAIT, option_s or None)

    # --- receiving --------------------------------------------------------------------------------------------------------
    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """The next message, or bytes of a stream, cut to ``bufsize``; for 0 nothing is asked, as Python has it."""
        return self.recvmsg(bufsize, 0, flags)[0] if bufsize else b""

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        data, _, _, address = self.recvmsg(bufsize, 0, flags)
        return data, address

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """Bytes written; with MSG_TRUNC the message's length even where that is more."""
        return self.recvfrom_into(buffer, nbytes, flags)[0] if len(buffer) else 0

    @as_socket_error
    def recvfrom_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        room = memoryview(buffer).cast("B")
        room = room[: nbytes or len(room)]
        got = self._receive(len(room), flags)
        room[: len(got.data)] = got.data
        return (got.length if flags & so.MSG_TRUNC else len(got.data)), got.address

    @as_socket_error
    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> tuple[bytes, list[Control], int, Any]:
        """(data, ancillary data, flags, address). ``ancbufsize`` counts whole control messages as the system call does."""
        got = self._receive(bufsize, flags)
        control, told = _control(got.control, ancbufsize)
        return got.data, control, got.flags | told, got.address

    @as_socket_error
    def recvmsg_into(
        self, buffers: Iterable[bytearray | memoryview], ancbufsize: int = 0, flags: int = 0
    ) -> tuple[int, list[Control], int, Any]:
        """As ``recvmsg``, the data scattered into ``buffers``; gives its length (with MSG_TRUNC the message's) first."""
        views = [memoryview(b).cast("B") for b in buffers]
        got = self._receive(sum(map(len, views)), flags)
        at = 0
        for view in views:
            piece = got.data[at : at + len(view)]
            view[: len(piece)] = piece
            at += len(piece)
        control, told = _control(got.control, ancbufsize)
        return (got.length if flags & so.MSG_TRUNC else len(got.data)), control, got.flags | told, got.address

    def _receive(self, bufsize: int, flags: int) -> Delivered:
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        with self._task.machine.changed:
            sock = self._sock()
            try:
                return sock.receive(bufsize, flags, self._wait(flags, sock.rcvtimeo))
            except TimeoutError as e:
                self._expired(e)
                raise

    def _expired(self, e: TimeoutError) -> None:
        """A wait is over: where the socket's own timeout did it, that is EAGAIN. Raises BpfError."""
        if self._timeout is None and e.errno is None:
            raise BpfError(errno.EAGAIN) from None

    # --- sending ----------------------------------------------------------------------------------------------------------
    @as_socket_error
    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """To whom it is connected (a packet socket: out of the device it is bound to). Bytes taken."""
        return self._send(bytes(data), None, flags)

    @as_socket_error
    def sendall(self, data: bytes | bytearray | memoryview, flags: int = 0) -> None:
        """``send`` until all is sent."""
        left = bytes(data)
        while left:
            left = left[self._send(left, None, flags) :]

    @as_socket_error
    def sendto(self, data: bytes | bytearray | memoryview, *rest: Any) -> int:
        """``sendto(data, address)`` or ``sendto(data, flags, address)``."""
        if not 1 <= len(rest) <= 2:
            raise TypeError(f"sendto() takes 2 or 3 arguments ({len(rest) + 1} given)")
        return self._send(bytes(data), rest[-1], rest[0] if len(rest) == 2 else 0)

    @as_socket_error
    def sendmsg(
        self, buffers: Iterable[bytes | bytearray | memoryview], ancdata: Sequence[Control] = (), flags: int = 0,
        address: Any = None,
    ) -> int:  # fmt: skip
        """One message of several buffers. Raises BpfError(EINVAL) for control messages: none is simulated on sending."""
        if ancdata:
            raise BpfError(errno.EINVAL)
        return self._send(b"".join(bytes(b) for b in buffers), address, flags)

    def _send(self, data: bytes, address: Any, flags: int) -> int:
        with self._task.machine.changed:
            sock = self._sock()
            if flags & so.MSG_OOB:
                raise BpfError(errno.EOPNOTSUPP)
            try:
                return sock.send(data, address, self._wait(flags, sock.sndtimeo), flags)
            except TimeoutError as e:
                self._expired(e)
                raise

    # --- options ----------------------------------------------------------------------------------------------------------
    @as_socket_error
    def setsockopt(self, level: int, optname: int, value: int | bytes | None, optlen: int | None = None) -> None:
        """setsockopt(2). Raises BpfError."""
        from netbpf.host.sim.sockopts import INT, setsockopt

        raw = INT.pack(_signed(value)) if isinstance(value, int) else value
        with self._task.machine.changed:
            setsockopt(self._task, self._sock(), level, optname, raw)

    @as_socket_error
    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        """An int, or bytes where ``buflen`` is given. Raises BpfError."""
        from netbpf.host.sim.sockopts import INT, getsockopt

        with self._task.machine.changed:
            sock = self._sock()
            if (level, optname) == (so.SOL_SOCKET, so.SO_GET_FILTER):
                count, insns = sock.filter.get_classic(buflen or _INT_BYTES)
                return insns[:count] if buflen else count  # its length is told in instructions, and Python cuts the bytes to it
            raw = getsockopt(sock, level, optname, buflen or _INT_BYTES)
        return raw[:buflen] if buflen else INT.unpack_from(raw)[0]


def _control(messages: Sequence[Control], room: int) -> tuple[list[Control], int]:
    """put_cmsg: what fits into ``room`` bytes, the last one cut where it must be, and MSG_CTRUNC then."""
    out: list[Control] = []
    for level, kind, data in messages:
        if room < CMSG_HEADER_BYTES:
            return out, so.MSG_CTRUNC
        kept = data[: room - CMSG_HEADER_BYTES]
        out.append((level, kind, kept))
        if len(kept) < len(data):
            return out, so.MSG_CTRUNC
        room -= CMSG_HEADER_BYTES + -(-len(data) // CMSG_ALIGN) * CMSG_ALIGN
    return out, 0


def _signed(value: int) -> int:
    """As C takes an int: the low 32 bits."""
    return ((value & 0xFFFF_FFFF) ^ 0x8000_0000) - 0x8000_0000
