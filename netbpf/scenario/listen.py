"""The socket under test, and how it is known what it got of a packet: a packet socket, a UDP socket or a raw IP socket.

A packet or raw socket has a witness: a second one of its kind without a program, opened before it and so served after it. A UDP
socket has none (a datagram has one receiver): what its program drops is counted in SO_MEMINFO.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Protocol

from netbpf.abi import sockopt as so
from netbpf.abi.net import ETH_HLEN, ETH_P_IP, VLAN_HLEN, VLAN_PROTOCOLS
from netbpf.host.lab import Lab, Received, drain, open_packet_socket
from netbpf.packet.receive import frame_protocol
from netbpf.packet.record import Record
from netbpf.packet.socket_skb import AUXDATA
from netbpf.scenario.model import SocketKind
from netbpf.scenario.outcome import Verdict

MEMINFO: Final = Struct("<9I")
DROPS: Final = 8  # index in SO_MEMINFO
UDP_HEADER: Final = 8
IP6_HEADER: Final = 40
PREFIX: Final = {so.AF_INET: 24, so.AF_INET6: 64}
RECEIVE_BYTES: Final = 1 << 17


class Listener(Protocol):
    """``sock`` is where the program is attached."""

    sock: Any

    def verdict(self, record: Record, wait: Callable[[Callable[[], int]], int]) -> Verdict:
        """What became of a packet that was just delivered; ``wait`` asks again for a while, on a host where that helps."""

    def close(self) -> None: ...


def listen(lab: Lab, kind: SocketKind) -> Listener:
    """Open the socket that a scenario describes. Raises OSError."""
    if kind.kind == "udp":
        return UdpListener(lab, kind)
    if kind.kind == "raw":
        return RawListener(lab, kind)
    return PacketListener(lab, kind)


class PacketListener:
    """AF_PACKET."""

    def __init__(self, lab: Lab, kind: SocketKind) -> None:
        sock_type = so.SOCK_DGRAM if kind.kind == "packet_dgram" else so.SOCK_RAW
        self.witness = open_packet_socket(lab)
        self.sock = open_packet_socket(lab, sock_type=sock_type, protocol=kind.protocol)

    def verdict(self, record: Record, wait: Callable[[Callable[[], int]], int]) -> Verdict:
        seen = wait(lambda: len(drain(self.witness)))
        received = drain(self.sock)
        if received:
            return Verdict(True, _original_length(received[0]), len(received[0].data))
        return Verdict(bool(seen), len(record.data), 0)

    def close(self) -> None:
        self.sock.close()
        self.witness.close()


def _original_length(received: Received) -> int:
    """skb->len before the verdict."""
    return int(AUXDATA.unpack(received.auxdata)[1]) if len(received.auxdata) == AUXDATA.size else received.length


class UdpListener:
    """A UDP socket: the program sees the UDP header and what is behind it, and keeps the header in any case."""

    def __init__(self, lab: Lab, kind: SocketKind) -> None:
        lab.add_address(f"{kind.address}/{PREFIX[kind.family]}")
        self.sock = lab.process.socket(kind.family, so.SOCK_DGRAM, 0)
        self.sock.setblocking(False)
        self.sock.bind((kind.address, kind.port))
        self._drops = self._dropped()

    def _dropped(self) -> int:
        return int(MEMINFO.unpack(self.sock.getsockopt(so.SOL_SOCKET, so.SO_MEMINFO, MEMINFO.size))[DROPS])

    def verdict(self, record: Record, wait: Callable[[Callable[[], int]], int]) -> Verdict:
        got = _receive(self.sock)
        before, self._drops = self._drops, self._dropped()
        if got is None:
            return Verdict(self._drops > before, len(record.data), 0)
        kept = len(got) + UDP_HEADER
        return Verdict(True, max(kept, _ip_payload(record.data)), kept)

    def close(self) -> None:
        self.sock.close()


class RawListener:
    """A raw socket of one protocol: over IPv4 the program sees the IP header first, over IPv6 what is behind it."""

    def __init__(self, lab: Lab, kind: SocketKind) -> None:
        lab.add_address(f"{kind.address}/{PREFIX[kind.family]}")
        self.family = kind.family
        self.sock, self.witness = (lab.process.socket(kind.family, so.SOCK_RAW, kind.ip_protocol) for _ in range(2))
        for made in (self.sock, self.witness):
            made.setblocking(False)

    def verdict(self, record: Record, wait: Callable[[Callable[[], int]], int]) -> Verdict:
        seen, got = _receive(self.witness), _receive(self.sock)
        return Verdict(seen is not None, len(seen or b""), len(got or b""))

    def close(self) -> None:
        self.sock.close()
        self.witness.close()


def _receive(sock: Any) -> bytes | None:
    """The packet that waits in a socket; None where there is none."""
    try:
        return bytes(sock.recv(RECEIVE_BYTES))
    except BlockingIOError:
        return None


def _ip_payload(frame: bytes) -> int:
    """Bytes behind the IP header by what it says; 0 for a fragment, whose whole datagram is not told there."""
    at = ETH_HLEN
    protocol = frame_protocol(frame)
    while protocol in VLAN_PROTOCOLS and len(frame) >= at + VLAN_HLEN:
        protocol, at = int.from_bytes(frame[at + 2 : at + 4]), at + VLAN_HLEN
    header = frame[at : at + IP6_HEADER]
    if protocol == ETH_P_IP:
        is_fragment = int.from_bytes(header[6:8]) & 0x3FFF
        return 0 if is_fragment else int.from_bytes(header[2:4]) - 4 * (header[0] & 15)
    return int.from_bytes(header[4:6]) if header[6] == 17 else 0
