"""Socket options: parsed and refused as sock_setsockopt, packet_setsockopt, do_ip_setsockopt and their like do.

Two tables, (level, name) -> what sets it and what tells it; what they change lives in the kernel-side socket. A row says for
which kinds of socket it is.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, NamedTuple, TypeVar

from netbpf.abi import sockopt as so
from netbpf.errors import BpfError
from netbpf.host.sim import truesize
from netbpf.host.sim.filter import SocketFilter
from netbpf.host.sim.inet_socket import InetSocket
from netbpf.host.sim.machine import Task
from netbpf.host.sim.packet_socket import MREQ, PacketSocket
from netbpf.host.sim.raw_socket import RawSocket
from netbpf.host.sim.reuseport import Group, group_for_program
from netbpf.host.sim.sock import Sock
from netbpf.host.sim.tcp_socket import TcpSocket
from netbpf.host.sim.udp import UdpSocket
from netbpf.isa.classic import SOCK_FILTER_BYTES

INT = Struct("<i")
FPROG = Struct("<H6xQ")  # struct sock_fprog
LINGER = Struct("<ii")
TIMEVAL = Struct("<qq")
S = TypeVar("S", bound=Sock)
ANY = (Sock,)
Setter = Callable[[Task, Any, bytes], None]
Getter = Callable[[Any], bytes]


class Option(NamedTuple):
    """``kinds`` are the sockets that know it; ``least`` is how many bytes a value must have."""

    kinds: tuple[type[Sock], ...]
    set: Setter | None
    get: Getter | None
    least: int = 4


def setsockopt(task: Task, sock: Sock, level: int, name: int, raw: bytes | None) -> None:
    """Raises BpfError(ENOPROTOOPT, EINVAL, and what the option says)."""
    option = OPTIONS.get((level, name))
    if option is None or option.set is None or not isinstance(sock, option.kinds):
        raise BpfError(_unknown(sock, level))
    if raw is None or len(raw) < option.least:
        raise BpfError(errno.EINVAL)
    option.set(task, sock, bytes(raw))


def getsockopt(sock: Sock, level: int, name: int, room: int) -> bytes:
    """Its bytes. Raises BpfError(ENOPROTOOPT)."""
    option = OPTIONS.get((level, name))
    if option is None or option.get is None or not isinstance(sock, option.kinds):
        raise BpfError(_unknown(sock, level))
    return option.get(sock)


def _unknown(sock: Sock, level: int) -> int:
    """AF_UNIX knows no level but SOL_SOCKET."""
    return errno.EOPNOTSUPP if sock.family == so.AF_UNIX and level != so.SOL_SOCKET else errno.ENOPROTOOPT


# --- filters --------------------------------------------------------------------------------------------------------------
def _fd(raw: bytes) -> int:
    if len(raw) != INT.size:
        raise BpfError(errno.EINVAL)
    return int(INT.unpack(raw)[0])


def _attach_bpf(task: Task, sock: Sock, raw: bytes) -> None:
    fd = _fd(raw)
    sock.filter.check_unlocked()
    sock.filter.attach(task.fds.get(fd).obj)


def _fprog(task: Task, sock: Sock, raw: bytes) -> bytes:
    """``struct sock_fprog``: a count and an address in the process's memory. The instructions' bytes."""
    if len(raw) != FPROG.size:
        raise BpfError(errno.EINVAL)
    count, address = FPROG.unpack(raw)
    sock.filter.check_unlocked()
    if not address:
        raise BpfError(errno.EINVAL)
    sock.filter.check_classic_length(count)
    return task.memory.read(address, count * SOCK_FILTER_BYTES)


def _attach_filter(task: Task, sock: Sock, raw: bytes) -> None:
    sock.filter.attach_classic(_fprog(task, sock, raw))


def _detach(task: Task, sock: Sock, raw: bytes) -> None:
    sock.filter.detach()


def _lock(task: Task, sock: Sock, raw: bytes) -> None:
    sock.filter.lock(bool(INT.unpack_from(raw)[0]))


# --- groups that share a port -------------------------------------------------------------------------------------------------
def _group(sock: Sock) -> Group:
    """Whose program is to be set. Raises BpfError(EINVAL) for a socket that shares no port."""
    if not isinstance(sock, UdpSocket | TcpSocket):
        raise BpfError(errno.EINVAL)
    return group_for_program(sock)


def _attach_reuseport_bpf(task: Task, sock: Sock, raw: bytes) -> None:
    fd = _fd(raw)
    sock.filter.check_unlocked()
    obj = task.fds.get(fd).obj
    SocketFilter.check_program(obj)
    _group(sock).program.attach(obj)


def _attach_reuseport_cbpf(task: Task, sock: Sock, raw: bytes) -> None:
    insns = _fprog(task, sock, raw)
    _group(sock).program.attach_classic(insns)


def _detach_reuseport(task: Task, sock: Sock, raw: bytes) -> None:
    group = sock.group if isinstance(sock, InetSocket) else None
    if group is None:
        raise BpfError(errno.ENOENT if sock.reuseport else errno.EINVAL)
    group.program.detach()


# --- numbers --------------------------------------------------------------------------------------------------------------
def _int(raw: bytes) -> int:
    return int(INT.unpack_from(raw)[0])


def _set_rcvbuf(task: Task, sock: Sock, raw: bytes) -> None:
    wanted = min(_int(raw) & 0xFFFF_FFFF, task.machine.sysctl.rmem_max)
    sock.rcvbuf = max(wanted * 2, truesize.MIN_RCVBUF)


def _set_sndbuf(task: Task, sock: Sock, raw: bytes) -> None:
    wanted = min(_int(raw) & 0xFFFF_FFFF, task.machine.sysctl.rmem_max)
    sock.sndbuf = max(wanted * 2, truesize.MIN_SNDBUF)


def _forced(name: str, least: int) -> Setter:
    def setter(task: Task, sock: Sock, raw: bytes) -> None:
        if not task.is_capable("CAP_NET_ADMIN"):
            raise BpfError(errno.EPERM)
        setattr(sock, name, max(min(max(_int(raw), 0), 0x3FFF_FFFF) * 2, least))

    return setter


def _set_mark(task: Task, sock: Sock, raw: bytes) -> None:
    if not task.is_capable("CAP_NET_ADMIN") and not task.is_capable("CAP_NET_RAW"):
        raise BpfError(errno.EPERM)
    sock.mark = _int(raw) & 0xFFFF_FFFF


def _set_priority(task: Task, sock: Sock, raw: bytes) -> None:
    value = _int(raw)
    if not 0 <= value <= 6 and not task.is_capable("CAP_NET_ADMIN") and not task.is_capable("CAP_NET_RAW"):
        raise BpfError(errno.EPERM)
    sock.priority = value & 0xFFFF_FFFF


def _bind_to_device(task: Task, sock: Sock, raw: bytes) -> None:
    name = raw.split(b"\0", 1)[0].decode()
    sock.ifindex = sock.network.device(name).ifindex if name else 0


def _set_reuseport(task: Task, sock: Sock, raw: bytes) -> None:
    if _int(raw) and not isinstance(sock, InetSocket):
        raise BpfError(errno.EOPNOTSUPP)
    sock.reuseport = bool(_int(raw))


def _device_name(sock: Sock) -> bytes:
    device = sock.network.by_index(sock.ifindex)
    return device.name.encode() + b"\0" if device else b""


def _bind_to_ifindex(task: Task, sock: Sock, raw: bytes) -> None:
    ifindex = _int(raw)
    if ifindex < 0:
        raise BpfError(errno.EINVAL)
    sock.ifindex = ifindex  # of a device that may come


def _set_linger(task: Task, sock: Sock, raw: bytes) -> None:
    on, seconds = LINGER.unpack_from(raw)
    sock.linger = (int(bool(on)), seconds)


def _error(sock: Sock) -> bytes:
    return INT.pack(sock.take_error())


def _flag(name: str, kinds: tuple[type[Sock], ...] = (Sock,)) -> Option:
    """An on/off attribute."""

    def setter(task: Task, sock: Sock, raw: bytes) -> None:
        setattr(sock, name, bool(_int(raw)))

    return Option(kinds, setter, lambda sock: INT.pack(int(getattr(sock, name))))


def _number(name: str, kinds: tuple[type[Sock], ...], low: int, high: int, default: int | None = None) -> Option:
    """An attribute within bounds; -1 is ``default`` where there is one. A single byte will do, as IP options allow."""

    def setter(task: Task, sock: Sock, raw: bytes) -> None:
        value = _int(raw) if len(raw) >= INT.size else raw[0]
        value = default if value == -1 and default is not None else value
        if not low <= value <= high:
            raise BpfError(errno.EINVAL)
        setattr(sock, name, value)

    return Option(kinds, setter, lambda sock: INT.pack(getattr(sock, name)), least=1)


def _told(value: Callable[[Any], int], kinds: tuple[type[Sock], ...] = (Sock,)) -> Option:
    return Option(kinds, None, lambda sock: INT.pack(value(sock)))


def _timeout(name: str) -> Option:
    """``struct timeval``; zeros are no timeout."""

    def setter(task: Task, sock: Sock, raw: bytes) -> None:
        seconds, micros = TIMEVAL.unpack_from(raw)
        if not 0 <= micros < 1_000_000:
            raise BpfError(errno.EDOM)
        setattr(sock, name, max(seconds + micros / 1e6, 0.0))

    def getter(sock: Sock) -> bytes:
        seconds = getattr(sock, name)
        return TIMEVAL.pack(int(seconds), round(seconds % 1 * 1e6))

    return Option(ANY, setter, getter, least=TIMEVAL.size)


# --- multicast ------------------------------------------------------------------------------------------------------------
def _mreq(sock: InetSocket, raw: bytes) -> tuple[bytes, int]:
    """struct ip_mreq or ip_mreqn: (group, ifindex)."""
    if len(raw) < 8:
        raise BpfError(errno.EINVAL)
    if len(raw) >= 12:
        ifindex = int.from_bytes(raw[8:12], "little")
        if ifindex:
            return raw[:4], ifindex
    return raw[:4], _ifindex_of(sock, raw[4:8])


def _ifindex_of(sock: InetSocket, ip: bytes) -> int:
    if not any(ip):
        return 0
    found = next((a.device.ifindex for a in sock.ip.addresses if a.ip == ip), None)
    if found is None:
        raise BpfError(errno.ENODEV)
    return found


def _join4(task: Task, sock: InetSocket, raw: bytes) -> None:
    sock.join_group(*_mreq(sock, raw))


def _leave4(task: Task, sock: InetSocket, raw: bytes) -> None:
    sock.leave_group(*_mreq(sock, raw))


def _join6(task: Task, sock: InetSocket, raw: bytes) -> None:
    sock.join_group(raw[:16], int.from_bytes(raw[16:20], "little"))


def _leave6(task: Task, sock: InetSocket, raw: bytes) -> None:
    sock.leave_group(raw[:16], int.from_bytes(raw[16:20], "little"))


def _multicast_if(task: Task, sock: InetSocket, raw: bytes) -> None:
    sock.multicast_ifindex = int.from_bytes(raw[8:12], "little") if len(raw) >= 12 else _ifindex_of(sock, raw[:4])


# --- packet sockets -------------------------------------------------------------------------------------------------------
def _add_membership(task: Task, sock: PacketSocket, raw: bytes) -> None:
    sock.join(*MREQ.unpack_from(raw))


def _drop_membership(task: Task, sock: PacketSocket, raw: bytes) -> None:
    sock.leave(*MREQ.unpack_from(raw))


_SOL = so.SOL_SOCKET
INET = (InetSocket,)
PACKET = (PacketSocket,)
OPTIONS: Final[dict[tuple[int, int], Option]] = {
    (_SOL, so.SO_ATTACH_BPF): Option(ANY, _attach_bpf, None),
    (_SOL, so.SO_ATTACH_FILTER): Option(ANY, _attach_filter, None),
    (_SOL, so.SO_DETACH_FILTER): Option(ANY, _detach, None),
    (_SOL, so.SO_LOCK_FILTER): Option(ANY, _lock, lambda s: INT.pack(int(s.filter.locked))),
    (_SOL, so.SO_ATTACH_REUSEPORT_EBPF): Option(ANY, _attach_reuseport_bpf, None),
    (_SOL, so.SO_ATTACH_REUSEPORT_CBPF): Option(ANY, _attach_reuseport_cbpf, None),
    (_SOL, so.SO_DETACH_REUSEPORT_BPF): Option(ANY, _detach_reuseport, None),
    (_SOL, so.SO_RCVBUF): Option(ANY, _set_rcvbuf, lambda s: INT.pack(s.rcvbuf)),
    (_SOL, so.SO_RCVBUFFORCE): Option(ANY, _forced("rcvbuf", truesize.MIN_RCVBUF), None),
    (_SOL, so.SO_SNDBUF): Option(ANY, _set_sndbuf, lambda s: INT.pack(s.sndbuf)),
    (_SOL, so.SO_SNDBUFFORCE): Option(ANY, _forced("sndbuf", truesize.MIN_SNDBUF), None),
    (_SOL, so.SO_MARK): Option(ANY, _set_mark, lambda s: s.mark.to_bytes(4, "little")),
    (_SOL, so.SO_PRIORITY): Option(ANY, _set_priority, lambda s: s.priority.to_bytes(4, "little")),
    (_SOL, so.SO_BINDTODEVICE): Option(ANY, _bind_to_device, _device_name, least=0),
    (_SOL, so.SO_BINDTOIFINDEX): Option(ANY, _bind_to_ifindex, lambda s: INT.pack(s.ifindex)),
    (_SOL, so.SO_REUSEADDR): _flag("reuseaddr"),
    (_SOL, so.SO_REUSEPORT): Option(ANY, _set_reuseport, lambda s: INT.pack(int(s.reuseport))),
    (_SOL, so.SO_BROADCAST): _flag("broadcast"),
    (_SOL, so.SO_KEEPALIVE): _flag("keepalive"),
    (_SOL, so.SO_RXQ_OVFL): _flag("rxq_ovfl"),
    (_SOL, so.SO_NO_CHECK): _flag("no_check"),
    (_SOL, so.SO_RCVTIMEO): _timeout("rcvtimeo"),
    (_SOL, so.SO_SNDTIMEO): _timeout("sndtimeo"),
    (_SOL, so.SO_LINGER): Option(ANY, _set_linger, lambda s: LINGER.pack(*getattr(s, "linger", (0, 0))), least=LINGER.size),
    (_SOL, so.SO_TYPE): _told(lambda s: s.type),
    (_SOL, so.SO_DOMAIN): _told(lambda s: s.family),
    (_SOL, so.SO_PROTOCOL): _told(lambda s: s.protocol),  # of AF_PACKET it is getsockname's to tell
    (_SOL, so.SO_ACCEPTCONN): _told(lambda s: int(isinstance(s, TcpSocket) and s.is_listening)),
    (_SOL, so.SO_ERROR): Option(ANY, None, _error),
    (_SOL, so.SO_MEMINFO): Option(ANY, None, lambda s: s.meminfo()),
    (_SOL, so.SO_COOKIE): Option(ANY, None, lambda s: s.cookie.to_bytes(8, "little")),
    (so.SOL_PACKET, so.PACKET_AUXDATA): _flag("auxdata", PACKET),
    (so.SOL_PACKET, so.PACKET_ORIGDEV): _flag("origdev", PACKET),
    (so.SOL_PACKET, so.PACKET_IGNORE_OUTGOING): _flag("ignore_outgoing", PACKET),
    (so.SOL_PACKET, so.PACKET_VERSION): _number("version", PACKET, 0, 2)._replace(least=4),
    (so.SOL_PACKET, so.PACKET_STATISTICS): Option(PACKET, None, lambda s: s.statistics()),
    (so.SOL_PACKET, so.PACKET_ADD_MEMBERSHIP): Option(PACKET, _add_membership, None, least=MREQ.size),
    (so.SOL_PACKET, so.PACKET_DROP_MEMBERSHIP): Option(PACKET, _drop_membership, None, least=MREQ.size),
    (so.SOL_IP, so.IP_TTL): _number("ttl", INET, 1, 255, 64),
    (so.SOL_IP, so.IP_TOS): _number("tos", INET, 0, 255),
    (so.SOL_IP, so.IP_HDRINCL): _flag("hdrincl", (RawSocket,)),
    (so.SOL_IP, so.IP_PKTINFO): _flag("pktinfo", INET),
    (so.SOL_IP, so.IP_RECVTTL): _flag("recvttl", INET),
    (so.SOL_IP, so.IP_MULTICAST_TTL): _number("multicast_ttl", INET, 0, 255, 1),
    (so.SOL_IP, so.IP_MULTICAST_LOOP): _flag("multicast_loop", INET)._replace(least=1),
    (so.SOL_IP, so.IP_MULTICAST_ALL): _flag("multicast_all", INET),
    (so.SOL_IP, so.IP_MULTICAST_IF): Option(INET, _multicast_if, None),
    (so.SOL_IP, so.IP_ADD_MEMBERSHIP): Option(INET, _join4, None, least=8),
    (so.SOL_IP, so.IP_DROP_MEMBERSHIP): Option(INET, _leave4, None, least=8),
    (so.SOL_IPV6, so.IPV6_V6ONLY): _flag("v6only", INET),
    (so.SOL_IPV6, so.IPV6_UNICAST_HOPS): _number("ttl", INET, 0, 255, 64),
    (so.SOL_IPV6, so.IPV6_TCLASS): _number("tos", INET, 0, 255, 0),
    (so.SOL_IPV6, so.IPV6_MULTICAST_HOPS): _number("multicast_ttl", INET, 0, 255, 1),
    (so.SOL_IPV6, so.IPV6_MULTICAST_LOOP): _flag("multicast_loop", INET),
    (so.SOL_IPV6, so.IPV6_MULTICAST_ALL): _flag("multicast_all", INET),
    (so.SOL_IPV6, so.IPV6_MULTICAST_IF): _number("multicast_ifindex", INET, 0, 0x7FFF_FFFF),
    (so.SOL_IPV6, so.IPV6_JOIN_GROUP): Option(INET, _join6, None, least=20),
    (so.SOL_IPV6, so.IPV6_LEAVE_GROUP): Option(INET, _leave6, None, least=20),
    (so.SOL_IPV6, so.IPV6_RECVPKTINFO): _flag("pktinfo", INET),
    (so.SOL_IPV6, so.IPV6_RECVHOPLIMIT): _flag("recvttl", INET),
    (so.SOL_UDP, so.UDP_NO_CHECK6_RX): _flag("no_check6_rx", (UdpSocket,)),
    (so.SOL_TCP, so.TCP_NODELAY): _flag("nodelay", (TcpSocket,)),
    (so.SOL_TCP, so.TCP_MAXSEG): _told(lambda s: s.mss, (TcpSocket,)),
}
