"""``SimSocket``: a simulated socket with the methods of ``socket.socket``, so that code written for that runs on ours.

Options are parsed and refused here as sock_setsockopt and packet_setsockopt do; what they change lives in the kernel-side
object. Only AF_PACKET is simulated so far: another family is refused with EAFNOSUPPORT.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from struct import Struct
from types import TracebackType
from typing import Any, Final

from netbpf.abi import sockopt as so
from netbpf.errors import BpfError
from netbpf.host.sim.machine import Task
from netbpf.host.sim.packet_socket import MIN_RCVBUF, PacketSocket, auxdata
from netbpf.host.sim.socket_errors import as_socket_error
from netbpf.isa.classic import SOCK_FILTER_BYTES

_INT = Struct("<i")
_FPROG = Struct("<H6xQ")  # struct sock_fprog
_TYPES: Final = frozenset({so.SOCK_DGRAM, so.SOCK_RAW})
_RECV_FLAGS: Final = so.MSG_PEEK | so.MSG_TRUNC | so.MSG_DONTWAIT | so.MSG_ERRQUEUE | so.MSG_CMSG_CLOEXEC
CMSG_HEADER_BYTES: Final = 16  # struct cmsghdr
PacketAddress = tuple[str, int, int, int, bytes]


def ntohs(value: int) -> int:
    return (value & 0xFF) << 8 | (value >> 8) & 0xFF


@as_socket_error
def open_socket(task: Task, family: int, sock_type: int, proto: int) -> SimSocket:
    """socket(2). ``proto`` of AF_PACKET is in network order, as for the system call. Raises BpfError."""
    if family != so.AF_PACKET:
        raise BpfError(errno.EAFNOSUPPORT)
    if sock_type & ~(so.SOCK_TYPE_MASK | so.SOCK_NONBLOCK | so.SOCK_CLOEXEC):
        raise BpfError(errno.EINVAL)
    if "CAP_NET_RAW" not in task.caps:
        raise BpfError(errno.EPERM)
    kind = sock_type & so.SOCK_TYPE_MASK
    if kind not in _TYPES:
        raise BpfError(errno.ESOCKTNOSUPPORT)
    kernel_side = PacketSocket(task.machine, task.network, kind, ntohs(proto))
    made = SimSocket(task, task.adopt(kernel_side), family, kind, proto)
    if sock_type & so.SOCK_NONBLOCK:
        made.setblocking(False)
    return made


class SimSocket:
    """One descriptor of a simulated packet socket. Errors are BpfError, which is an OSError."""

    def __init__(self, task: Task, fd: int, family: int, kind: int, proto: int) -> None:
        self._task, self._fd = task, fd
        self.family, self.type, self.proto = family, kind, proto
        self._timeout: float | None = None

    # --- descriptor -----------------------------------------------------------------------------------------------------
    def fileno(self) -> int:
        """Its number in its process; -1 once closed. It is no descriptor of this interpreter."""
        return self._fd

    def close(self) -> None:
        """A second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if self._task.alive:
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

    def _sock(self) -> PacketSocket:
        obj = self._task.fds.get(self._fd).obj
        if not isinstance(obj, PacketSocket):
            raise BpfError(errno.ENOTSOCK)
        return obj

    def filter_loaded(self) -> Any:
        """The attached program as the engine has it, an ``engine.base.Loaded``; None where nothing is attached."""
        return self._sock().filter.loaded

    # --- where it listens -----------------------------------------------------------------------------------------------
    @as_socket_error
    def bind(self, address: tuple[Any, ...]) -> None:
        """``(device name, protocol)``, as Python has AF_PACKET addresses; the protocol in host order. Raises BpfError(ENODEV)."""
        sock, name = self._sock(), address[0]
        sock.bind(self._task.network.device(name).ifindex, address[1] if len(address) > 1 else 0)

    @as_socket_error
    def getsockname(self) -> PacketAddress:
        sock = self._sock()
        device = self._task.network.by_index(sock.ifindex)
        return (device.name, sock.protocol, 0, device.type, device.mac) if device else ("", sock.protocol, 0, 0, b"")

    @as_socket_error
    def getpeername(self) -> PacketAddress:
        raise BpfError(errno.EOPNOTSUPP)

    @as_socket_error
    def listen(self, backlog: int = 0) -> None:
        raise BpfError(errno.EOPNOTSUPP)

    @as_socket_error
    def shutdown(self, how: int) -> None:
        raise BpfError(errno.EOPNOTSUPP)

    # --- waiting --------------------------------------------------------------------------------------------------------
    def settimeout(self, value: float | None) -> None:
        """Seconds a recv may wait; None for ever, 0 not at all."""
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        self._timeout = value

    def gettimeout(self) -> float | None:
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        return self._timeout != 0.0

    # --- receiving --------------------------------------------------------------------------------------------------------
    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """The next packet, cut to ``bufsize``."""
        return self.recvmsg(bufsize, 0, flags)[0]

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, PacketAddress]:
        data, _, _, address = self.recvmsg(bufsize, 0, flags)
        return data, address

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """Bytes written; with MSG_TRUNC the packet's length even where that is more."""
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    @as_socket_error
    def recvfrom_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> tuple[int, PacketAddress]:
        room = memoryview(buffer)[: nbytes or len(buffer)]
        packet, data, _, address = self._receive(len(room), flags)
        room[: len(data)] = data
        return (packet if flags & so.MSG_TRUNC else len(data)), address

    @as_socket_error
    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, PacketAddress]:
        """(data, ancillary data, flags, address). ``ancbufsize`` counts whole control messages as the system call does."""
        _, data, (control, told), address = self._receive(bufsize, flags, ancbufsize)
        return data, control, told, address

    @as_socket_error
    def recvmsg_into(
        self, buffers: Sequence[bytearray | memoryview], ancbufsize: int = 0, flags: int = 0
    ) -> tuple[int, list[tuple[int, int, bytes]], int, PacketAddress]:
        """As ``recvmsg``, the data scattered into ``buffers``; gives its length (with MSG_TRUNC the packet's) first."""
        views = [memoryview(b).cast("B") for b in buffers]
        length, data, (control, told), address = self._receive(sum(map(len, views)), flags, ancbufsize)
        at = 0
        for view in views:
            piece = data[at : at + len(view)]
            view[: len(piece)] = piece
            at += len(piece)
        return (length if flags & so.MSG_TRUNC else len(data)), control, told, address

    def _receive(
        self, bufsize: int, flags: int, ancbufsize: int = 0
    ) -> tuple[int, bytes, tuple[list[tuple[int, int, bytes]], int], PacketAddress]:
        if flags & ~_RECV_FLAGS:
            raise BpfError(errno.EINVAL)
        sock = self._sock()
        if flags & so.MSG_ERRQUEUE:  # nothing is ever put there
            raise BpfError(errno.EAGAIN)
        wait = bool(self._timeout) or (self._timeout is None and not flags & so.MSG_DONTWAIT)  # Python: the timeout first
        packet = sock.take(bool(flags & so.MSG_PEEK), wait, self._timeout)
        data = packet.data[:bufsize]
        told = so.MSG_TRUNC if len(packet.data) > bufsize else 0
        control: list[tuple[int, int, bytes]] = []
        if sock.auxdata:
            whole = auxdata(packet)
            room = max(ancbufsize - CMSG_HEADER_BYTES, 0)
            told |= so.MSG_CTRUNC if room < len(whole) else 0
            control = [(so.SOL_PACKET, so.PACKET_AUXDATA, whole[:room])] if ancbufsize >= CMSG_HEADER_BYTES else []
        address = (packet.device.name, packet.protocol, packet.pkt_type, packet.device.type, packet.source)
        return len(packet.data), data, (control, told), address

    # --- sending ----------------------------------------------------------------------------------------------------------
    @as_socket_error
    def send(self, data: bytes, flags: int = 0) -> int:
        """A frame out of the device it is bound to. Raises BpfError(ENXIO) where it is bound to none."""
        return self._transmit(data, self._sock().ifindex)

    @as_socket_error
    def sendto(self, data: bytes, address: tuple[Any, ...]) -> int:
        """A frame out of the device that ``address`` names."""
        return self._transmit(data, self._task.network.device(address[0]).ifindex)

    def _transmit(self, data: bytes, ifindex: int) -> int:
        device = self._task.network.by_index(ifindex)
        if device is None:
            raise BpfError(errno.ENXIO)
        if self.type != so.SOCK_RAW:
            raise BpfError(errno.EOPNOTSUPP, "a SOCK_DGRAM packet socket only receives here")
        device.transmit(bytes(data), self._sock())
        return len(data)

    # --- options ----------------------------------------------------------------------------------------------------------
    @as_socket_error
    def setsockopt(self, level: int, optname: int, value: int | bytes | None, optlen: int | None = None) -> None:
        """setsockopt(2). Raises BpfError."""
        sock, raw = self._sock(), _INT.pack(_signed(value)) if isinstance(value, int) else value
        setter = _SETTERS.get((level, optname))
        if setter is None:
            raise BpfError(errno.ENOPROTOOPT)
        if raw is None or len(raw) < _INT.size:
            raise BpfError(errno.EINVAL)
        setter(self._task, sock, bytes(raw))

    @as_socket_error
    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        """An int, or bytes where ``buflen`` is given. Raises BpfError."""
        if (level, optname) == (so.SOL_SOCKET, so.SO_GET_FILTER):
            count, insns = self._sock().filter.get_classic(buflen or _INT.size)
            return insns[:count] if buflen else count  # its length is told in instructions, and Python cuts the bytes to it
        getter = _GETTERS.get((level, optname))
        if getter is None:
            raise BpfError(errno.ENOPROTOOPT)
        raw = getter(self._sock())
        return raw[:buflen] if buflen else _INT.unpack_from(raw)[0]


def _signed(value: int) -> int:
    """As C takes an int: the low 32 bits."""
    return ((value & 0xFFFF_FFFF) ^ 0x8000_0000) - 0x8000_0000


def _set_attach_bpf(task: Task, sock: PacketSocket, raw: bytes) -> None:
    if len(raw) != 4:
        raise BpfError(errno.EINVAL)
    sock.filter.check_unlocked()
    sock.filter.attach(task.fds.get(_INT.unpack(raw)[0]).obj)


def _set_attach_filter(task: Task, sock: PacketSocket, raw: bytes) -> None:
    """``struct sock_fprog``: a count and an address in the process's memory."""
    if len(raw) != _FPROG.size:
        raise BpfError(errno.EINVAL)
    count, address = _FPROG.unpack(raw)
    sock.filter.check_unlocked()
    if not address:
        raise BpfError(errno.EINVAL)
    sock.filter.check_classic_length(count)
    sock.filter.attach_classic(task.memory.read(address, count * SOCK_FILTER_BYTES))


def _set_detach(task: Task, sock: PacketSocket, raw: bytes) -> None:
    sock.filter.detach()


def _set_lock(task: Task, sock: PacketSocket, raw: bytes) -> None:
    sock.filter.lock(bool(_INT.unpack_from(raw)[0]))


def _set_rcvbuf(task: Task, sock: PacketSocket, raw: bytes) -> None:
    wanted = min(_INT.unpack_from(raw)[0] & 0xFFFF_FFFF, task.machine.sysctl.rmem_max)
    sock.rcvbuf = max(wanted * 2, MIN_RCVBUF)


def _set_rcvbuf_force(task: Task, sock: PacketSocket, raw: bytes) -> None:
    if not task.is_capable("CAP_NET_ADMIN"):
        raise BpfError(errno.EPERM)
    sock.rcvbuf = max(min(max(_INT.unpack_from(raw)[0], 0), 0x3FFF_FFFF) * 2, MIN_RCVBUF)


def _set_flag(name: str) -> Callable[[Task, PacketSocket, bytes], None]:
    def setter(task: Task, sock: PacketSocket, raw: bytes) -> None:
        setattr(sock, name, bool(_INT.unpack_from(raw)[0]))

    return setter


def _get_int(value: Callable[[PacketSocket], int]) -> Callable[[PacketSocket], bytes]:
    return lambda sock: _INT.pack(value(sock))


_SETTERS: Final[dict[tuple[int, int], Callable[[Task, PacketSocket, bytes], None]]] = {
    (so.SOL_SOCKET, so.SO_ATTACH_BPF): _set_attach_bpf,
    (so.SOL_SOCKET, so.SO_ATTACH_FILTER): _set_attach_filter,
    (so.SOL_SOCKET, so.SO_DETACH_BPF): _set_detach,
    (so.SOL_SOCKET, so.SO_LOCK_FILTER): _set_lock,
    (so.SOL_SOCKET, so.SO_RCVBUF): _set_rcvbuf,
    (so.SOL_SOCKET, so.SO_RCVBUFFORCE): _set_rcvbuf_force,
    (so.SOL_PACKET, so.PACKET_AUXDATA): _set_flag("auxdata"),
    (so.SOL_PACKET, so.PACKET_IGNORE_OUTGOING): _set_flag("ignore_outgoing"),
}
_GETTERS: Final[dict[tuple[int, int], Callable[[PacketSocket], bytes]]] = {
    (so.SOL_SOCKET, so.SO_LOCK_FILTER): _get_int(lambda s: int(s.filter.locked)),
    (so.SOL_SOCKET, so.SO_RCVBUF): _get_int(lambda s: s.rcvbuf),
    (so.SOL_SOCKET, so.SO_TYPE): _get_int(lambda s: s.type),
    (so.SOL_SOCKET, so.SO_DOMAIN): _get_int(lambda s: so.AF_PACKET),
    (so.SOL_SOCKET, so.SO_PROTOCOL): _get_int(lambda s: 0),  # what it listens to is getsockname's to tell
    (so.SOL_SOCKET, so.SO_ERROR): _get_int(lambda s: s.error),
    (so.SOL_PACKET, so.PACKET_AUXDATA): _get_int(lambda s: int(s.auxdata)),
    (so.SOL_PACKET, so.PACKET_IGNORE_OUTGOING): _get_int(lambda s: int(s.ignore_outgoing)),
    (so.SOL_PACKET, so.PACKET_STATISTICS): lambda s: s.statistics(),
}
