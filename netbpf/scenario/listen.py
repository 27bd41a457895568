"""The socket under test, how a packet gets to it, and how it is known what it got: a packet, UDP, raw IP or AF_UNIX socket (a TCP
connection: ``connection``).

A packet or raw socket has a witness: a second one of its kind without a program, opened before it and so served after it. A UDP
socket has none (a datagram has one receiver): what its program drops is counted in SO_MEMINFO. An AF_UNIX socket sees all that
is sent to it.
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

    def as_sent(self, record: Record) -> Record:
        """The packet as it goes on its way now."""

    def put(self, record: Record) -> bool:
        """Send what ``as_sent`` gave on its way; False where the device or the kernel refuses it at once."""

    def verdict(self, record: Record, wait: Callable[[Callable[[], int]], int]) -> Verdict:
        """What became of a packet that was just delivered; ``wait`` asks again for a while, on a host where that helps."""

    def close(self) -> None: ...


def listen(lab: Lab, kind: SocketKind) -> Listener:
    """Open the socket that a scenario describes. Raises OSError."""
    if kind.kind == "udp":
        return UdpListener(lab, kind)
    if kind.kind == "raw":
        return RawListener(lab, kind)
    if kind.kind == "unix":
        return UnixListener(lab)
    if kind.kind == "tcp":
        from netbpf.scenario.connection import Connection

        return Connection(lab, kind)
    return PacketListener(lab, kind)


class _OnDevice:
    """Packets come in by the lab's device, as they are."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def as_sent(self, record: Record) -> Record:
        return record

    def put(self, record: Record) -> bool:
        return self.lab.device.deliver(record.data)


class PacketListener(_OnDevice):
    """AF_PACKET."""

    def __init__(self, lab: Lab, kind: SocketKind) -> None:
        super().__init__(lab)
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


class UdpListener(_OnDevice):
    """A UDP socket: the program sees the UDP header and what is behind it, and keeps the header in any case."""

    def __init__(self, lab: Lab, kind: SocketKind) -> None:
        super().__init__(lab)
        lab.add_address(f"{kind.address}/{PREFIX[kind.family]}")
        self.sock = lab.process.socket(kind.family, so.SOCK_DGRAM, 0)
        self.sock.setblocking(False)
        self.sock.bind((kind.address, kind.port))
        self._drops = dropped(self.sock)

    def verdict(self, record: Record, wait: Callable[[Callable[[], int]], int]) -> Verdict:
        got = receive(self.sock)
        before, self._drops = self._drops, dropped(self.sock)
        if got is None:
            return Verdict(self._drops > before, len(record.data), 0)
        kept = len(got) + UDP_HEADER
        return Verdict(True, max(kept, _ip_payload(record.data)), kept)

    def close(self) -> None:
        self.sock.close()


class RawListener(_OnDevice):
    """A raw socket of one protocol: over IPv4 the program sees the IP header first, over IPv6 what is behind it."""

    def __init__(self, lab: Lab, kind: SocketKind) -> None:
        super().__init__(lab)
        lab.add_address(f"{kind.address}/{PREFIX[kind.family]}")
        self.family = kind.family
        self.sock, self.witness = (lab.process.socket(kind.family, so.SOCK_RAW, kind.ip_protocol) for _ in range(2))
        for made in (self.sock, self.witness):
            made.setblocking(False)

    def verdict(self, record: Record, wait: Callable[[Callable[[], int]], int]) -> Verdict:
        seen, got = receive(self.witness), receive(self.sock)
        return Verdict(seen is not None, len(seen or b""), len(got or b""))

    def close(self) -> None:
        self.sock.close()
        self.witness.close()


class UnixListener:
    """One end of an AF_UNIX pair: a packet is the bytes that the other end sends as one datagram."""

    def __init__(self, lab: Lab) -> None:
        self.far, self.sock = lab.process.socketpair(so.AF_UNIX, so.SOCK_DGRAM)
        self.sock.setblocking(False)

    def as_sent(self, record: Record) -> Record:
        return record

    def put(self, record: Record) -> bool:
        self.far.send(record.data)
        return True

    def verdict(self, record: Record, wait: Callable[[Callable[[], int]], int]) -> Verdict:
        return Verdict(True, len(record.data), len(receive(self.sock) or b""))

    def close(self) -> None:
        self.sock.close()
        self.far.close()


def dropped(sock: Any) -> int:
    """Packets for a socket that it did not get, as SO_MEMINFO counts them."""
    return int(MEMINFO.unpack(sock.getsockopt(so.SOL_SOCKET, so.SO_MEMINFO, MEMINFO.size))[DROPS])


def receive(sock: Any) -> bytes | None:
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
