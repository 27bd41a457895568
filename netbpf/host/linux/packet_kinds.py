"""How a real socket of each family is read so that its packets' sk_buffs can be rebuilt: options, control messages, addresses.

The layouts are ``packet.socket_skb``'s; here is what to ask the socket for. A kind is made for one socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from netbpf.abi import sockopt as so
from netbpf.errors import UsageError
from netbpf.packet.skbuff import SkBuff
from netbpf.packet.socket_skb import (
    AUXDATA,
    UDP_HLEN,
    Auxdata,
    Beside,
    Endpoints,
    LinkAddress,
    of_packet_socket,
    of_payload,
    of_raw_ip_socket,
    of_udp_socket,
)

Control = tuple[int, int, bytes]
Option = tuple[int, int]  # level, option that makes the kernel send a control message

SIOCGIFINDEX: Final = 0x8933
SIOCETHTOOL, ETHTOOL_GDRVINFO, DRVINFO_BYTES = 0x8946, 3, 196
SO_TIMESTAMPNS, SO_RCVMARK, SO_RCVPRIORITY, SO_PRIORITY = 35, 75, 82, 12
IP_TOS, IP_TTL, IP_PKTINFO, IP_RECVTTL, IP_RECVTOS = 1, 2, 8, 12, 13
IPV6_RECVPKTINFO, IPV6_PKTINFO, IPV6_RECVHOPLIMIT, IPV6_HOPLIMIT, IPV6_RECVTCLASS, IPV6_TCLASS = 49, 50, 51, 52, 66, 67
_PKTINFO = struct.Struct("@i4s4s")  # struct in_pktinfo: ifindex, local address, destination of the header
_PKTINFO6 = struct.Struct("@16si")


class Kind:
    """A socket whose messages are their own sk_buff. ``header_bytes`` is what the filter sees before the data and recv does not
    give; the verdict never cuts into it. ``wanted``: (option, the type of its control message)."""

    header_bytes = 0
    wanted: Sequence[tuple[Option, int]] = (((so.SOL_SOCKET, SO_RCVMARK), so.SO_MARK),)

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def skb(self, data: bytes, control: Sequence[Control], address: Any) -> SkBuff:
        """The sk_buff that the filter saw."""
        return of_payload(data, mark=_int(_message(control, so.SOL_SOCKET, so.SO_MARK)))

    def trimmed(self, control: Control, kept: int) -> Control:
        """A control message of a packet of which ``kept`` bytes were kept."""
        return control


class KnownDevice(NamedTuple):
    """What is asked of a device once. ``queue_mapping``: what its driver records of a packet that came in."""

    ifindex: int = 0
    queue_mapping: int = 0


def known_device(sock: socket.socket, name: str) -> KnownDevice:
    """A device in the socket's own namespace; zeros for one that is gone. A TAP or TUN device of one queue records queue 0 as 1;
    what a driver with more queues records, no socket tells."""
    request = struct.pack("16s24x", name.encode())
    try:
        ifindex = int(struct.unpack_from("i", fcntl.ioctl(sock, SIOCGIFINDEX, request), 16)[0])
    except OSError:
        return KnownDevice()
    info = ctypes.create_string_buffer(struct.pack("I", ETHTOOL_GDRVINFO), DRVINFO_BYTES)
    driver = b""
    with contextlib.suppress(OSError):
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", name.encode(), ctypes.addressof(info)))
        driver = info.raw[4:36].split(b"\0")[0]
    return KnownDevice(ifindex, int(driver == b"tun"))


class PacketKind(Kind):
    """AF_PACKET."""

    wanted = (
        ((so.SOL_PACKET, so.PACKET_AUXDATA), so.PACKET_AUXDATA),
        ((so.SOL_SOCKET, SO_RCVMARK), so.SO_MARK),
        ((so.SOL_SOCKET, SO_RCVPRIORITY), SO_PRIORITY),
    )

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._devices: dict[str, KnownDevice] = {}
        self.has_link_header = sock.type == socket.SOCK_RAW

    def skb(self, data: bytes, control: Sequence[Control], address: Any) -> SkBuff:
        raw = _message(control, so.SOL_PACKET, so.PACKET_AUXDATA)
        aux = Auxdata.parse(raw) if len(raw) == AUXDATA.size else None
        name, protocol, pkt_type, hatype, _ = address
        beside = Beside(
            _int(_message(control, so.SOL_SOCKET, so.SO_MARK)),
            _int(_message(control, so.SOL_SOCKET, SO_PRIORITY)),
            _timestamp(_message(control, so.SOL_SOCKET, SO_TIMESTAMPNS)),
        )
        device = self._device(name)
        link = LinkAddress(device.ifindex, protocol, pkt_type, hatype)
        return of_packet_socket(
            data, aux, link, has_link_header=self.has_link_header, queue_mapping=device.queue_mapping, beside=beside
        )

    def _device(self, name: str) -> KnownDevice:
        if name not in self._devices:
            self._devices[name] = known_device(self.sock, name)
        return self._devices[name]

    def trimmed(self, control: Control, kept: int) -> Control:
        if control[:2] != (so.SOL_PACKET, so.PACKET_AUXDATA) or len(control[2]) != AUXDATA.size:
            return control
        return (*control[:2], Auxdata.parse(control[2])._replace(snaplen=kept).pack())


class UdpKind(Kind):
    """AF_INET datagrams."""

    header_bytes = UDP_HLEN
    wanted = (
        *Kind.wanted,
        ((socket.IPPROTO_IP, IP_PKTINFO), IP_PKTINFO),
        ((socket.IPPROTO_IP, IP_RECVTTL), IP_TTL),
        ((socket.IPPROTO_IP, IP_RECVTOS), IP_TOS),
    )

    def skb(self, data: bytes, control: Sequence[Control], address: Any) -> SkBuff:
        info = _message(control, socket.IPPROTO_IP, IP_PKTINFO)
        ifindex, _, to = _PKTINFO.unpack(info) if len(info) == _PKTINFO.size else (0, b"", bytes(4))
        ends = Endpoints(
            socket.inet_aton(address[0]), address[1], to, self.sock.getsockname()[1],
            _int(_message(control, socket.IPPROTO_IP, IP_TTL)), _int(_message(control, socket.IPPROTO_IP, IP_TOS)), ifindex,
        )  # fmt: skip
        return of_udp_socket(data, ends, mark=_int(_message(control, so.SOL_SOCKET, so.SO_MARK)))


class Udp6Kind(Kind):
    """AF_INET6 datagrams."""

    header_bytes = UDP_HLEN
    wanted = (
        *Kind.wanted,
        ((socket.IPPROTO_IPV6, IPV6_RECVPKTINFO), IPV6_PKTINFO),
        ((socket.IPPROTO_IPV6, IPV6_RECVHOPLIMIT), IPV6_HOPLIMIT),
        ((socket.IPPROTO_IPV6, IPV6_RECVTCLASS), IPV6_TCLASS),
    )

    def skb(self, data: bytes, control: Sequence[Control], address: Any) -> SkBuff:
        info = _message(control, socket.IPPROTO_IPV6, IPV6_PKTINFO)
        to, ifindex = _PKTINFO6.unpack(info) if len(info) == _PKTINFO6.size else (bytes(16), 0)
        source = socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])
        ends = Endpoints(
            source, address[1], to, self.sock.getsockname()[1],
            _int(_message(control, socket.IPPROTO_IPV6, IPV6_HOPLIMIT)),
            _int(_message(control, socket.IPPROTO_IPV6, IPV6_TCLASS)), ifindex,
        )  # fmt: skip
        return of_udp_socket(data, ends, mark=_int(_message(control, so.SOL_SOCKET, so.SO_MARK)))


class RawIpKind(Kind):
    """AF_INET, SOCK_RAW: the IP header is part of the data."""

    wanted = (*Kind.wanted, ((socket.IPPROTO_IP, IP_PKTINFO), IP_PKTINFO))

    def skb(self, data: bytes, control: Sequence[Control], address: Any) -> SkBuff:
        info = _message(control, socket.IPPROTO_IP, IP_PKTINFO)
        ifindex = _PKTINFO.unpack(info)[0] if len(info) == _PKTINFO.size else 0
        return of_raw_ip_socket(data, ifindex=ifindex, mark=_int(_message(control, so.SOL_SOCKET, so.SO_MARK)))


_KINDS: Final[dict[tuple[int, int], type[Kind]]] = {
    (socket.AF_PACKET, socket.SOCK_RAW): PacketKind,
    (socket.AF_PACKET, socket.SOCK_DGRAM): PacketKind,
    (socket.AF_INET, socket.SOCK_DGRAM): UdpKind,
    (socket.AF_INET6, socket.SOCK_DGRAM): Udp6Kind,
    (socket.AF_INET, socket.SOCK_RAW): RawIpKind,
    (socket.AF_INET6, socket.SOCK_RAW): Kind,
    (socket.AF_UNIX, socket.SOCK_DGRAM): Kind,
    (socket.AF_UNIX, socket.SOCK_SEQPACKET): Kind,
    (socket.AF_NETLINK, socket.SOCK_RAW): Kind,
    (socket.AF_NETLINK, socket.SOCK_DGRAM): Kind,
}


def kind_of(sock: socket.socket) -> Kind:
    """How to read a socket. UsageError for one whose packets cannot be filtered in user space."""
    made = _KINDS.get((sock.family, sock.type))
    if made is None:
        why = "a stream has no packets" if sock.type == socket.SOCK_STREAM else "no rule says what its filter would see"
        raise UsageError(
            f"{sock.family.name}/{sock.type.name} cannot be filtered in user space: {why}; use backend='kernel'"
        )
    return made(sock)


def _message(control: Sequence[Control], level: int, kind: int) -> bytes:
    return next((data for lvl, what, data in control if (lvl, what) == (level, kind)), b"")


def _int(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")


def _timestamp(data: bytes) -> int:
    """struct timespec, in nanoseconds."""
    if len(data) != 16:
        return 0
    seconds, rest = struct.unpack("@qq", data)
    return int(seconds) * 1_000_000_000 + int(rest)
