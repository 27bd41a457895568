"""The IP stack of a network namespace: its addresses, routes and groups, packets out; ``ip_input`` is the way in.

Routing is what addresses and connected networks give, plus routes set by hand. The link address of a neighbour is known without
ARP or neighbour discovery: the far end of a pair is looked at, other neighbours are learnt from what they send or set by hand.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from netbpf.abi.net import ARPHRD_LOOPBACK, ETH_P_IP, PACKET_LOOPBACK
from netbpf.errors import BpfError
from netbpf.host.sim.device import Arrival, NetDevice, Sent
from netbpf.host.sim.reassembly import Reassembler
from netbpf.packet.inet import fragment_ipv4, fragment_ipv6, ip_protocol, is_loopback, is_multicast
from netbpf.packet.skbuff import SkBuff

if TYPE_CHECKING:
    from netbpf.host.sim.network import Network

BROADCAST: Final = b"\xff" * 4
ALL_SYSTEMS: Final = socket.inet_aton("224.0.0.1")
SOLICITED: Final = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13]
ALL_NODES: Final = frozenset(socket.inet_pton(socket.AF_INET6, text) for text in ("ff02::1", "ff01::1"))


@dataclass(frozen=True, slots=True)
class IpPacket:
    """A packet for this machine: ``skb`` with its data at the transport header. ``to_many``: broadcast or multicast."""

    skb: SkBuff
    arrival: Arrival
    source: bytes
    target: bytes
    protocol: int
    to_many: bool

    @property
    def payload(self) -> bytes:
        return self.skb.head[self.skb.data_off :]


class Receiver(Protocol):
    """What takes packets of a protocol, or of all of them."""

    def receive(self, packet: IpPacket) -> bool:
        """Whether somebody wanted it."""


class Address(NamedTuple):
    """An address of a device."""

    device: NetDevice
    ip: bytes
    prefix: int


class Route(NamedTuple):
    """Packets to ``net``/``prefix`` leave by ``device``, to ``gateway`` where there is one."""

    net: bytes
    prefix: int
    device: NetDevice
    gateway: bytes | None = None


class Path(NamedTuple):
    """How a packet leaves: the device, the next hop's address, the source address it gets, whether it stays here (``local``)."""

    device: NetDevice
    next_hop: bytes
    source: bytes
    local: bool


def parse_address(text: str) -> tuple[bytes, int]:
    """``10.0.0.1/24`` or ``fe80::1``: (address, prefix length). Raises BpfError(EINVAL)."""
    host, _, prefix = text.partition("/")
    try:
        ip = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
        bits = int(prefix) if prefix else len(ip) * 8
    except (OSError, ValueError):
        raise BpfError(errno.EINVAL, f"EINVAL: {text!r} is no IP address") from None
    if not 0 <= bits <= len(ip) * 8:
        raise BpfError(errno.EINVAL, f"EINVAL: {text!r} has a prefix of {bits} bits")
    return ip, bits


def has_prefix(ip: bytes, net: bytes, bits: int) -> bool:
    """Whether both begin with the same ``bits``."""
    shift = len(ip) * 8 - bits
    return len(ip) == len(net) and int.from_bytes(ip) >> shift == int.from_bytes(net) >> shift


class IpStack:
    """``protocols`` are handlers by IP protocol number; ``raw`` is asked before each of them."""

    def __init__(self, network: Network) -> None:
        from netbpf.host.sim.icmp import Icmp
        from netbpf.host.sim.raw_socket import RawTable
        from netbpf.host.sim.tcp_table import TcpTable
        from netbpf.host.sim.udp import UdpTable

        self.network = network
        self.addresses: list[Address] = []
        self.routes: list[Route] = []
        self.neighbours: dict[bytes, bytes] = {}
        self.groups: dict[tuple[int, bytes], int] = {}  # (ifindex, group) -> how many sockets joined it there
        self.fragments = Reassembler(network.timers)
        self.raw = RawTable(self)
        self.udp, self.tcp, self.icmp = UdpTable(self), TcpTable(self), Icmp(self)
        self.protocols: dict[int, Receiver] = {17: self.udp, 6: self.tcp, 1: self.icmp, 58: self.icmp}

    # --- addresses --------------------------------------------------------------------------------------------------------
    def add_address(self, text: str, device: NetDevice) -> None:
        """An address with its prefix on a device. Raises BpfError(EINVAL, EEXIST)."""
        ip, prefix = parse_address(text)
        if any(a.device is device and a.ip == ip for a in self.addresses):
            raise BpfError(errno.EEXIST)
        self.addresses.append(Address(device, ip, prefix))

    def add_route(self, net: str, device: NetDevice, via: str | None = None) -> None:
        """Packets to ``net`` leave by ``device``. Raises BpfError(EINVAL)."""
        ip, prefix = parse_address(net)
        self.routes.append(Route(ip, prefix, device, parse_address(via)[0] if via else None))

    def add_neighbour(self, address: str, mac: bytes) -> None:
        """Raises BpfError(EINVAL)."""
        self.neighbours[parse_address(address)[0]] = mac

    def is_local(self, ip: bytes) -> bool:
        """Whether it is one of ours. All of 127.0.0.0/8 is."""
        return any(a.ip == ip for a in self.addresses) or (len(ip) == 4 and ip[0] == 127)

    def is_broadcast(self, ip: bytes, device: NetDevice | None = None) -> bool:
        """Of all networks, or the last address of one that we are on."""
        return ip == BROADCAST or any(
            len(ip) == 4 == len(a.ip) and a.prefix < 31 and ip == _last(a) and device in (None, a.device) for a in self.addresses
        )

    def is_joined(self, group: bytes, device: NetDevice) -> bool:
        """Whether somebody here, or everybody, listens to a multicast group on a device."""
        return (
            group == ALL_SYSTEMS or group in ALL_NODES or self._solicits(group) or bool(self.groups.get((device.ifindex, group)))
        )

    def _solicits(self, group: bytes) -> bool:
        """The solicited-node group of one of our addresses."""
        return group[:13] == SOLICITED and any(a.ip[13:] == group[13:] for a in self.addresses if len(a.ip) == 16)

    def join(self, group: bytes, device: NetDevice, by: int = 1) -> None:
        """One socket more (or, ``by`` -1, less) wants a group's packets from a device."""
        key = (device.ifindex, group)
        self.groups[key] = self.groups.get(key, 0) + by

    # --- out --------------------------------------------------------------------------------------------------------------
    def path(self, target: bytes, ifindex: int = 0) -> Path:
        """Raises BpfError(ENETUNREACH)."""
        if self.is_local(target):
            lo = self.network.device("lo")
            return Path(lo, target, bytes((127, 0, 0, 1)) if is_loopback(target) and len(target) == 4 else target, True)
        candidates = [r for r in self._all_routes() if ifindex in (0, r.device.ifindex) and self._covers(r, target)]
        if not candidates:
            raise BpfError(errno.ENETUNREACH)
        route = max(candidates, key=lambda r: r.prefix)
        next_hop = route.gateway or target
        return Path(route.device, next_hop, self._source(next_hop, route.device), False)

    def _covers(self, route: Route, target: bytes) -> bool:
        """A group or the broadcast address goes out of any device with an address of its family."""
        everywhere = len(route.net) == len(target) and (is_multicast(target) or target == BROADCAST)
        return everywhere or has_prefix(target, route.net, route.prefix)

    def _all_routes(self) -> Iterator[Route]:
        yield from self.routes
        for a in self.addresses:
            if a.device.type != ARPHRD_LOOPBACK:
                yield Route(a.ip, a.prefix, a.device)

    def _source(self, next_hop: bytes, device: NetDevice) -> bytes:
        """The device's address in the next hop's network, else its first, else any of ours."""
        mine = [a for a in self.addresses if len(a.ip) == len(next_hop)]
        ranked = sorted(mine, key=lambda a: (a.device is not device, not has_prefix(next_hop, a.ip, a.prefix)))
        return ranked[0].ip if ranked else bytes(len(next_hop))

    def send(self, packet: bytes, path: Path, sent: Sent, *, loop: bool = True) -> None:
        """An IP packet out, in fragments where it must be. A broadcast is for us too; with ``loop``, a group that we joined."""
        device = path.device
        target = _target(packet)
        ours = is_multicast(target) and loop and self.is_joined(target, device)
        if not path.local and (ours or self.is_broadcast(target, device)):
            self._loop_back(packet, device, sent)
        header = self._link_address(path) + device.mac + ip_protocol(path.next_hop).to_bytes(2)
        ident = self.network.timers.env.random_u32()
        cut = fragment_ipv4(packet, device.mtu) if packet[0] >> 4 == 4 else fragment_ipv6(packet, device.mtu, ident)
        for piece in cut:
            if device.up:
                device.transmit(header + piece, sent)

    def _loop_back(self, packet: bytes, device: NetDevice, sent: Sent) -> None:
        """dev_loopback_xmit: a multicast packet that we sent, as one that came in."""
        head = bytes(12) + ip_protocol(_target(packet)).to_bytes(2) + packet
        skb = SkBuff(
            head=head, len=len(head), protocol=ip_protocol(_target(packet)), pkt_type=PACKET_LOOPBACK, ifindex=device.ifindex,
            ingress_ifindex=device.ifindex, dev_type=device.type, mark=sent.mark, priority=sent.priority,
        )  # fmt: skip
        self.receive(skb, Arrival(device, sent.truesize or 832, True, True))

    def _link_address(self, path: Path) -> bytes:
        """Of the next hop. One that nothing is known of is written to at all zeros, so that nobody takes it for his own."""
        device, hop = path.device, path.next_hop
        if path.local:
            return bytes(6)
        if hop == BROADCAST or self.is_broadcast(hop, device):
            return b"\xff" * 6
        if is_multicast(hop):
            return b"\x01\x00\x5e" + bytes((hop[1] & 0x7F,)) + hop[2:] if len(hop) == 4 else b"\x33\x33" + hop[12:]
        if device.peer is not None and device.peer.network.ip.is_local(hop):
            return device.peer.mac
        return self.neighbours.get(hop, bytes(6))

    # --- in ---------------------------------------------------------------------------------------------------------------
    def receive(self, skb: SkBuff, arrival: Arrival) -> None:
        """A packet of an IP protocol from a device."""
        from netbpf.host.sim.ip_input import receive_ipv4, receive_ipv6

        (receive_ipv4 if skb.protocol == ETH_P_IP else receive_ipv6)(self, skb, arrival)

    def learn(self, skb: SkBuff, source: bytes) -> None:
        """Who sends to us can be answered."""
        if skb.network_header >= 14 and not is_multicast(source):
            self.neighbours[source] = skb.head[skb.network_header - 8 : skb.network_header - 2]


def _last(address: Address) -> bytes:
    """The broadcast address of its network."""
    return (int.from_bytes(address.ip) | (1 << (32 - address.prefix)) - 1).to_bytes(4)


def _target(packet: bytes) -> bytes:
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
