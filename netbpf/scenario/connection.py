"""A TCP socket under test: a connection to a peer on the wire that speaks TCP by hand, so that every segment is the scenario's.

The handshake is over before the program is attached. A packet of the connection keeps what the scenario says of it, but for its
sequence and acknowledgement numbers: those are the next ones that the connection waits for, which nobody can know beforehand.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

from netbpf.abi import sockopt as so
from netbpf.abi.net import ETH_HLEN
from netbpf.errors import BpfError, UsageError
from netbpf.host.lab import Lab, drain, open_packet_socket
from netbpf.packet.inet import (
    IPV6_HLEN,
    Tcp,
    build_ipv4,
    build_ipv6,
    build_tcp,
    checksum,
    ip_protocol,
    parse_ipv4,
    parse_ipv6,
    parse_tcp,
    pseudo_sum,
)
from netbpf.packet.record import Record
from netbpf.scenario.listen import PREFIX, dropped, receive
from netbpf.scenario.model import SocketKind
from netbpf.scenario.outcome import Verdict

FIN, SYN, RST, ACK = 1, 2, 4, 16
TCP_PROTOCOL: Final = 6
FIRST_SEQ: Final = 1000
MSS: Final = bytes.fromhex("020405b4")  # 1460 bytes; neither timestamps nor scaled windows, which segments would have to follow
PEER_MAC: Final = bytes.fromhex("020000000002")
HANDSHAKE_S: Final = 1.0
U32: Final = 0xFFFF_FFFF


class Connection:
    """``listen.Listener`` of kind "tcp". Raises OSError where no connection comes about."""

    def __init__(self, lab: Lab, kind: SocketKind) -> None:
        lab.add_address(f"{kind.address}/{PREFIX[kind.family]}")
        self.lab, self.kind = lab, kind
        self.source, self.target = ip_address(kind.peer).packed, ip_address(kind.address).packed
        self.seq, self.ack, self.is_open = FIRST_SEQ, 0, True
        self.sock = self._connected()
        self._drops = dropped(self.sock)

    # --- the handshake ------------------------------------------------------------------------------------------------
    def _connected(self) -> Any:
        kind, process = self.kind, self.lab.process
        server, wire = process.socket(kind.family, so.SOCK_STREAM, 0), open_packet_socket(self.lab)
        try:
            server.setblocking(False)
            server.bind((kind.address, kind.port))
            server.listen(1)
            self._send(SYN, MSS)
            self.seq, self.ack = self.seq + 1, self._answer(wire).seq + 1 & U32
            self._send(ACK)
            made, _ = server.accept()
        finally:
            server.close()
            wire.close()
        made.setblocking(False)
        return made

    def _send(self, flags: int, options: bytes = b"") -> None:
        segment = Tcp(self.kind.peer_port, self.kind.port, self.seq, self.ack, flags, 8192, options)
        raw = build_tcp(self.source, self.target, segment)
        build = build_ipv4 if self.kind.family == so.AF_INET else build_ipv6
        packet = build(self.source, self.target, TCP_PROTOCOL, raw)
        self.lab.device.deliver(self.lab.device.mac + PEER_MAC + ip_protocol(self.source).to_bytes(2) + packet)

    def _answer(self, wire: Any) -> Tcp:
        """What the socket says to the SYN. Raises BpfError where it says nothing."""
        deadline = time.monotonic() + HANDSHAKE_S
        while time.monotonic() < deadline:
            for received in drain(wire):
                found = _segment(received.data)
                if found is not None and found[:2] == (self.target, self.source) and found[2].flags == SYN | ACK:
                    return found[2]
        raise BpfError(errno.ETIMEDOUT, "ETIMEDOUT: the TCP socket does not answer its peer")

    # --- packets ------------------------------------------------------------------------------------------------------
    def _own(self, frame: bytes) -> Tcp | None:
        """The segment in a frame of this connection; None for any other frame, or one that TCP refuses unread."""
        found = _segment(frame)
        if found is None or found[:2] != (self.source, self.target) or frame[:6] != self.lab.device.mac:
            return None
        segment, at = found[2], _tcp_at(frame)
        raw = frame[at : at + _tcp_length(frame)]
        is_sound = not checksum(raw, pseudo_sum(self.source, self.target, TCP_PROTOCOL, len(raw)))
        ports = (self.kind.peer_port, self.kind.port)
        return segment if is_sound and (segment.sport, segment.dport) == ports else None

    def as_sent(self, record: Record) -> Record:
        """Raises UsageError behind a FIN or RST: what a socket did with a segment cannot be told from outside then."""
        if self._own(record.data) is None:
            return record
        if not self.is_open:
            raise UsageError("the connection is at its end: no segment comes behind a FIN or RST that the socket got")
        frame, at = record.data, _tcp_at(record.data)
        end = at + _tcp_length(frame)
        numbers = self.seq.to_bytes(4) + self.ack.to_bytes(4)
        bare = frame[at : at + 4] + numbers + frame[at + 12 : at + 16] + bytes(2) + frame[at + 18 : end]
        total = checksum(bare, pseudo_sum(self.source, self.target, TCP_PROTOCOL, len(bare)))
        return record._replace(data=frame[:at] + bare[:16] + total.to_bytes(2) + bare[18:] + frame[end:])

    def put(self, record: Record) -> bool:
        return self.lab.device.deliver(record.data)

    def verdict(self, record: Record, wait: Callable[[Callable[[], int]], int]) -> Verdict:
        """What was read of a segment; one without data has passed where the socket counts no loss."""
        segment = self._own(record.data)
        got = self._read()
        before, self._drops = self._drops, dropped(self.sock)
        lost = self._drops > before
        if segment is None:
            return Verdict(lost, len(record.data), 0)
        length = segment.hlen + len(segment.data)
        passed = not lost and (bool(got) or not segment.data)
        self.seq = self.seq + got & U32
        self.is_open = not (passed and got == len(segment.data) and segment.flags & (FIN | RST))
        return Verdict(True, length, segment.hlen + got if passed else 0)

    def _read(self) -> int:
        """Bytes that the socket has for its reader; none of a connection that was reset."""
        try:
            return len(receive(self.sock) or b"")
        except ConnectionError:
            return 0

    def close(self) -> None:
        self.sock.close()


def _tcp_at(frame: bytes) -> int:
    """Where a segment begins, in an Ethernet frame of IPv4, or of IPv6 without extension headers."""
    return ETH_HLEN + (4 * (frame[ETH_HLEN] & 15) if frame[12:14] == b"\x08\0" else IPV6_HLEN)


def _tcp_length(frame: bytes) -> int:
    """Bytes of the segment by what the IP header says."""
    if frame[12:14] == b"\x08\0":
        return int.from_bytes(frame[16:18]) - 4 * (frame[ETH_HLEN] & 15)
    return int.from_bytes(frame[18:20])


def _segment(frame: bytes) -> tuple[bytes, bytes, Tcp] | None:
    """Source and target address and the segment of a frame; None where it has none, or a damaged one."""
    if frame[12:14] == b"\x08\0":
        ipv4 = parse_ipv4(frame, ETH_HLEN)
        if ipv4 is None or ipv4.protocol != TCP_PROTOCOL or ipv4.fragment & 0x3FFF:
            return None
        source, target = ipv4.source, ipv4.target
    else:
        ipv6 = parse_ipv6(frame, ETH_HLEN) if frame[12:14] == b"\x86\xdd" else None
        if ipv6 is None or ipv6.next_header != TCP_PROTOCOL:
            return None
        source, target = ipv6.source, ipv6.target
    at = _tcp_at(frame)
    raw = frame[at : at + _tcp_length(frame)]
    made = parse_tcp(raw)
    return None if made is None else (source, target, made)
