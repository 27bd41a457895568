"""What UDP, TCP and raw sockets have in common: addresses in Python's forms, binding, multicast groups, IP-level options.

Addresses are kept in the socket's own form: 4 bytes for AF_INET, 16 for AF_INET6 (an IPv4 one as ::ffff:a.b.c.d); zeros
are any.
"""

from __future__ import annotations

import errno
import socket
from struct import Struct
from typing import Any, Final

from netbpf.abi import sockopt as so
from netbpf.errors import BpfError
from netbpf.host.sim.device import Sent
from netbpf.host.sim.ip_stack import IpPacket, IpStack, Path
from netbpf.host.sim.machine import Machine
from netbpf.host.sim.network import Network
from netbpf.host.sim.reuseport import Group
from netbpf.host.sim.sock import Control, Sock
from netbpf.packet.inet import MAPPED, is_multicast

FIRST_UNPRIVILEGED_PORT: Final = 1024
EPHEMERAL: Final = range(32768, 61000)  # net.ipv4.ip_local_port_range
CONNECTED, CLOSED = 1, 7  # TCP_ESTABLISHED, TCP_CLOSE, of sockets that are not TCP's too
LOOPBACK4_IPV6: Final = 0x7F00_0006
LINK_LOCAL: Final = b"\xfe\x80"
NAMES: Final = {"": ("0.0.0.0", "::"), "localhost": ("127.0.0.1", "::1"), "<broadcast>": ("255.255.255.255", "")}
_PKTINFO4 = Struct("<I4s4s")
_PKTINFO6 = Struct("<16sI")
_INT = Struct("<i")


class InetSocket(Sock):
    """``local``/``port`` is where it is bound, ``peer``/``peer_port`` whom it is connected to (None: nobody)."""

    def __init__(self, family: int, machine: Machine, network: Network, sock_type: int, protocol: int, uid: int = 0) -> None:
        super().__init__(machine, network, sock_type, protocol, uid)
        self.family_number = family
        self.any = bytes(4 if family == so.AF_INET else 16)
        self.local, self.port = self.any, 0
        self.peer: bytes | None = None
        self.peer_port = 0
        self.v6only = self.pktinfo = self.recvttl = False
        self.multicast_all = self.multicast_loop = True
        self.ttl, self.tos, self.multicast_ttl, self.multicast_ifindex = 64, 0, 1, 0
        self.group: Group | None = None  # of those that share its port
        self.is_listening = False
        self.groups: set[tuple[int, bytes]] = set()  # (ifindex, group)
        self.may_bind_low = False
        self.txhash = machine.env.random_u32() | 1

    @property
    def family(self) -> int:  # type: ignore[override]
        return self.family_number

    @property
    def ip(self) -> IpStack:
        return self.network.ip

    @property
    def is_v6(self) -> bool:
        return len(self.any) == 16

    @property
    def is_hashed(self) -> bool:
        """Whether packets can find it."""
        return self.port != 0

    def release(self) -> None:
        for ifindex, group in self.groups:
            device = self.network.by_index(ifindex)
            if device is not None:
                self.ip.join(group, device, -1)
        super().release()

    # --- addresses --------------------------------------------------------------------------------------------------------
    def parse(self, address: Any) -> tuple[bytes, int, int]:
        """(address in this socket's form, port, scope id). Raises BpfError, OverflowError, TypeError as Python's sockets do."""
        if not isinstance(address, tuple) or len(address) < 2:
            raise TypeError(f"AF_INET{'6' if self.is_v6 else ''} address must be tuple, not {type(address).__name__}")
        host, port = address[:2]
        if not 0 <= port <= 0xFFFF:
            raise OverflowError("port must be 0-65535.")
        return self.own_form(self._resolve(host)), port, address[3] if len(address) > 3 else 0

    def _resolve(self, host: str) -> bytes:
        known = NAMES.get(host)
        text = (known[self.is_v6] if known else host).partition("%")[0]
        for family in (socket.AF_INET6, socket.AF_INET) if self.is_v6 else (socket.AF_INET,):
            try:
                return socket.inet_pton(family, text)
            except OSError:
                continue
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def own_form(self, ip: bytes) -> bytes:
        return MAPPED + ip if self.is_v6 and len(ip) == 4 else ip

    def format(self, ip: bytes, port: int, ifindex: int = 0) -> tuple[Any, ...]:
        """An address as Python's sockets give it."""
        if not self.is_v6:
            return socket.inet_ntop(socket.AF_INET, ip), port
        scope = ifindex if ip[:2] == LINK_LOCAL else 0
        return socket.inet_ntop(socket.AF_INET6, self.own_form(ip)), port, 0, scope

    def getsockname(self) -> Any:
        return self.format(self.local, self.port)

    def getpeername(self) -> Any:
        if self.peer is None:
            raise BpfError(errno.ENOTCONN)
        return self.format(self.peer, self.peer_port)

    def names(self) -> dict[str, Any]:
        out: dict[str, Any] = {"family": self.family, "local_port": self.port, "remote_port": self.peer_port}
        out["sk_bound_dev_if"] = self.ifindex
        out["sk_state"] = CLOSED if self.peer is None else CONNECTED
        out["local_ip4"], out["local_ip6"] = both_forms(self.local)
        if self.peer is not None:
            out["remote_ip4"], out["remote_ip6"] = both_forms(self.peer)
            if self.is_v6 and self.peer[:12] != MAPPED:
                out["remote_ip4"] = 0
        return out

    # --- binding ----------------------------------------------------------------------------------------------------------
    def check_bindable(self, ip: bytes, port: int) -> None:
        """Raises BpfError(EACCES, EADDRNOTAVAIL)."""
        plain = to_plain(ip)
        if any(plain) and not is_multicast(plain) and not self.ip.is_local(plain) and not self.ip.is_broadcast(plain):
            raise BpfError(errno.EADDRNOTAVAIL)
        if port and port < FIRST_UNPRIVILEGED_PORT and not self.may_bind_low:
            raise BpfError(errno.EACCES)

    def overlaps(self, other: InetSocket) -> bool:
        """Whether both would want the same packets, addresses and devices being what they are."""
        if self.ifindex and other.ifindex and self.ifindex != other.ifindex:
            return False
        for one, two in ((self, other), (other, self)):
            if one.is_v6 and one.v6only and not two.is_v6:
                return False
            if not any(one.local) and (one.is_v6 or not two.is_v6 or two.local[:12] == MAPPED or not any(two.local)):
                return True
        return to_plain(self.local) == to_plain(other.local)

    def score(self, packet: IpPacket, sport: int) -> int | None:
        """compute_score: how well a bound socket fits a packet to its port; None where it does not."""
        four = len(packet.target) == 4
        if (four and self.is_v6 and self.v6only) or (not four and not self.is_v6):
            return None
        points = 2 if four != self.is_v6 else 1
        if any(self.local):
            if to_plain(self.local) != packet.target:
                return None
            points += 100  # the kernel looks in the table of bound addresses first
        if self.peer is not None:
            if to_plain(self.peer) != packet.source or self.peer_port != sport:
                return None
            points += 8
        if self.ifindex:
            if self.ifindex != packet.arrival.device.ifindex:
                return None
            points += 4
        return points

    # --- out --------------------------------------------------------------------------------------------------------------
    def path_to(self, ip: bytes, scope: int = 0) -> Path:
        """How packets to ``ip`` (in the socket's form) leave. Raises BpfError(ENETUNREACH, EACCES)."""
        target = to_plain(ip)
        if not any(target):
            target = b"\x7f\0\0\1" if len(target) == 4 else bytes(15) + b"\1"  # any address is this machine
        ifindex = self.ifindex or scope or (self.multicast_ifindex if is_multicast(target) else 0)
        path = self.ip.path(target, ifindex)
        if self.ip.is_broadcast(target) and not self.broadcast:
            raise BpfError(errno.EACCES)
        if any(self.local) and not is_multicast(to_plain(self.local)):
            path = path._replace(source=to_plain(self.local))
        return path

    def sent(self, truesize: int | None, path: Path, *, partial: bool, hash: int = 0, gso_segs: int = 0) -> Sent:
        """What goes along with a packet of this socket."""
        return Sent(self.mark, self.priority, hash, gso_segs, partial, path.local, truesize)

    def hops(self, target: bytes) -> int:
        return self.multicast_ttl if is_multicast(target) else self.ttl

    # --- control messages -------------------------------------------------------------------------------------------------
    def packet_control(self, packet: IpPacket) -> tuple[Control, ...]:
        """IP_PKTINFO and IP_TTL (or IPv6's) of a packet, where asked for."""
        out: list[Control] = []
        ifindex, at = packet.arrival.device.ifindex, packet.skb.network_header
        if len(packet.target) == 4:
            if self.pktinfo:
                mine = self.ip.path(packet.source).source if packet.to_many else packet.target
                out.append((so.SOL_IP, so.IP_PKTINFO, _PKTINFO4.pack(ifindex, mine, packet.target)))
            if self.recvttl:
                out.append((so.SOL_IP, so.IP_TTL, _INT.pack(packet.skb.head[at + 8])))
            return tuple(out)
        if self.pktinfo:
            out.append((so.SOL_IPV6, so.IPV6_PKTINFO, _PKTINFO6.pack(packet.target, ifindex)))
        if self.recvttl:
            out.append((so.SOL_IPV6, so.IPV6_HOPLIMIT, _INT.pack(packet.skb.head[at + 7])))
        return tuple(out)

    # --- groups -----------------------------------------------------------------------------------------------------------
    def join_group(self, group: bytes, ifindex: int) -> None:
        """Raises BpfError(EINVAL, EADDRINUSE, ENODEV)."""
        if not is_multicast(group):
            raise BpfError(errno.EINVAL)
        device = self.network.by_index(ifindex) if ifindex else self.ip.path(group).device
        if device is None:
            raise BpfError(errno.ENODEV)
        key = (device.ifindex, group)
        if key in self.groups:
            raise BpfError(errno.EADDRINUSE)
        self.groups.add(key)
        self.ip.join(group, device)

    def leave_group(self, group: bytes, ifindex: int) -> None:
        """Raises BpfError(EADDRNOTAVAIL)."""
        key = next((k for k in self.groups if k[1] == group and ifindex in (0, k[0])), None)
        device = self.network.by_index(key[0]) if key else None
        if key is None or device is None:
            raise BpfError(errno.EADDRNOTAVAIL)
        self.groups.discard(key)
        self.ip.join(group, device, -1)

    def hears_group(self, packet: IpPacket) -> bool:
        """ip_mc_sf_allow: of a group it did not join itself too, unless it said that it does not want those, or is an IPv6 socket
        that hears IPv4."""
        if not is_multicast(packet.target):
            return True
        joined = (packet.arrival.device.ifindex, packet.target) in self.groups
        return joined or (self.multicast_all and len(packet.target) == len(self.any))


def both_forms(ip: bytes) -> tuple[int, tuple[int, ...]]:
    """An address as struct sock shows it in both families: of IPv6 alone, IPv4 is 127.0.0.6; of IPv4, IPv6 is nothing."""
    words = tuple(int.from_bytes(ip[i : i + 4]) for i in range(0, 16, 4)) if len(ip) == 16 else (0, 0, 0, 0)
    four = int.from_bytes(ip[-4:]) if len(ip) == 4 or ip[:12] == MAPPED else LOOPBACK4_IPV6 if any(ip) else 0
    return four, words


def to_plain(ip: bytes) -> bytes:
    """An IPv4 address out of its IPv6 form."""
    return ip[12:] if len(ip) == 16 and ip[:12] == MAPPED else ip


def take_port(bound: dict[int, list[Any]], sock: InetSocket, port: int, clash: Any) -> int:
    """``port``, or a free one for 0, if ``clash(other)`` holds for none that has it. Raises BpfError(EADDRINUSE)."""
    if port:
        if any(clash(other) for other in bound.get(port, ())):
            raise BpfError(errno.EADDRINUSE)
        return port
    start = sock.machine.env.random_u32() % len(EPHEMERAL)
    for i in range(len(EPHEMERAL)):
        port = EPHEMERAL[(start + i) % len(EPHEMERAL)]
        if not bound.get(port):
            return port
    raise BpfError(errno.EADDRINUSE)
