"""TCP segments from outside: a listener and its connections get frames from a TAP, every one of them through the filter, on the
simulator and on the running kernel. What goes out is read back, so that handshakes can be finished and answers compared."""

from __future__ import annotations

import struct
from typing import Any, Final

import pytest
from support.attaching import attach_bpf, attach_classic
from support.both_labs import Log, same
from support.ip_grid import (
    ADDRESSES,
    PEER4,
    PEER6,
    US4,
    US6,
    classic_offset_filters,
    ether,
    offset_filters,
    patched,
)
from support.kernel import needs_kernel
from support.skb_recorder import SkbRecorder

from netbpf.abi import sockopt as so
from netbpf.host.lab import Lab
from netbpf.isa import builders as b
from netbpf.packet.inet import Tcp, build_ipv4, build_ipv6, build_tcp, parse_tcp

pytestmark = needs_kernel
PORT, SPORT = 6000, 4000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MSS: Final = bytes.fromhex("020405b4")
PLAIN: Final = {so.AF_INET: (PEER4, US4), so.AF_INET6: (PEER6, US6)}
# these read the acknowledgement or the checksum: numbers that each host chooses for itself
RANDOM = ("data+6", "data+8", "data+9", "ind data+9", "ind back data+9", "net+26", "data+16", "link+60")
families = pytest.mark.parametrize("family", PLAIN)


def child_reads(child: Any, size: int) -> Any:
    return lambda: child.recv(size)


class Peer:
    """A host on the wire that speaks TCP by hand."""

    def __init__(self, lab: Lab, family: int, sport: int = SPORT) -> None:
        self.lab, self.family, self.sport = lab, family, sport
        self.seq, self.ack = 1000, 0
        self.hears = lab.process.socket(so.AF_PACKET, so.SOCK_RAW, 0)
        self.hears.bind((lab.device.name, 3))
        self.hears.settimeout(0.5)

    def segment(
        self, flags: int, data: bytes = b"", *, options: bytes = b"", seq: int | None = None, ack: int | None = None
    ) -> bytes:
        source, target = PLAIN[self.family]
        made = Tcp(
            self.sport, PORT, self.seq if seq is None else seq, self.ack if ack is None else ack, flags, 8192, options, data
        )
        raw = build_tcp(source, target, made)
        return ether(build_ipv4(source, target, 6, raw, ident=7) if len(source) == 4 else build_ipv6(source, target, 6, raw))

    def send(self, flags: int, data: bytes = b"", **kwargs: Any) -> None:
        self.lab.device.deliver(self.segment(flags, data, **kwargs))

    def hear(self) -> Tcp | None:
        """The next segment that goes out to this peer."""
        while True:
            try:
                frame, address = self.hears.recvfrom(4000)
            except TimeoutError:
                return None
            at = 34 if frame[12:14] == b"\x08\0" else 54
            protocol = frame[23] if at == 34 else frame[20]
            if address[2] == 4 and protocol == 6:
                return parse_tcp(frame[at : 14 + self._length(frame)])

    @staticmethod
    def _length(frame: bytes) -> int:
        return int.from_bytes(frame[16:18]) if frame[12:14] == b"\x08\0" else 40 + int.from_bytes(frame[18:20])

    def shake(self, options: bytes = MSS) -> str:
        """The handshake; what the answer to the SYN was."""
        self.send(SYN, options=options)
        answer = self.hear()
        if answer is None:
            return "no answer"
        self.seq, self.ack = self.seq + 1, answer.seq + 1 & 0xFFFF_FFFF
        self.send(ACK)
        return f"{answer.flags} {answer.ack} {answer.window} {mask(answer.options).hex()}"

    def told(self) -> str:
        """The next answer, numbers relative to the connection's."""
        answer = self.hear()
        if answer is None:
            return "nothing"
        return f"{answer.flags} +{(answer.seq - self.ack) & 0xFFFF_FFFF} {answer.ack} {len(answer.data)}"


def mask(options: bytes) -> bytes:
    """Options without the value of a timestamp."""
    at = options.find(b"\x08\x0a")
    return options if at < 0 else options[: at + 2] + bytes(4) + options[at + 6 :]


def listener(lab: Lab, family: int) -> Any:
    sock = lab.process.socket(family, so.SOCK_STREAM, 0)
    sock.bind(("", PORT))
    sock.listen(8)
    sock.settimeout(0.5)
    return sock


@families
def test_handshake_and_data(family: int) -> None:
    def case(lab: Lab, log: Log) -> None:
        recorder = SkbRecorder(lab.process)
        server = recorder.attach(listener(lab, family))
        for i, options in enumerate((MSS, b"", MSS + bytes.fromhex("01030307"), MSS + bytes.fromhex("0402080a0000000500000000"))):
            peer = Peer(lab, family, SPORT + i)
            log(f"handshake {options.hex()}", lambda p=peer, o=options: p.shake(o))  # type: ignore[misc]
            log("seen", recorder.seen)
            child, _ = server.accept()
            child.settimeout(0.5)
            if options.endswith(bytes(4)):
                child.close()
                continue  # what follows has no timestamps
            for data in (b"x", b"hello world", bytes(1000)):
                peer.send(ACK | PSH, data)
                peer.seq += len(data)
                log("seen", recorder.seen)
                log("read", child_reads(child, len(data)))
            peer.send(ACK | FIN)
            log("seen", recorder.seen)
            log("end", lambda s=child: s.recv(9))  # type: ignore[misc]
            child.close()

    same(case, addresses=ADDRESSES)


@families
def test_what_nobody_waits_for(family: int) -> None:
    """Segments to no connection, and to a listener that is no SYN: answered with RST, or not at all."""

    def case(lab: Lab, log: Log) -> None:
        recorder = SkbRecorder(lab.process)
        server = recorder.attach(listener(lab, family))
        peer = Peer(lab, family)
        for flags in (ACK, RST, SYN | ACK, FIN, FIN | ACK, 0, SYN | RST, SYN | FIN):
            peer.send(flags, ack=77)
            log(f"flags {flags}", recorder.seen)
        good = peer.segment(SYN)
        at = 34 if family == so.AF_INET else 54
        damaged = {
            "short": good[:-1],
            "offset 4": patched(good, at + 12, b"\x40"),
            "offset 15": patched(good, at + 12, b"\xf0"),
            "wrong checksum": patched(good, at + 16, b"\1\2"),
            "to all": b"\xff" * 6 + good[6:],
            "to another": b"\2" * 6 + good[6:],
        }
        for name, frame in damaged.items():
            lab.device.deliver(frame)
            log(name, recorder.seen)
        server.setblocking(False)
        log("nobody", server.accept)

    same(case, addresses=ADDRESSES)


@families
def test_verdicts_cut_and_drop_segments(family: int) -> None:
    """0 drops a segment, n keeps n bytes of it with the TCP header at least: the rest must be sent again."""

    def case(lab: Lab, log: Log) -> None:
        server = listener(lab, family)
        peer = Peer(lab, family)
        peer.shake()
        child, _ = server.accept()
        child.setblocking(False)
        for value in (0, 1, 19, 20, 21, 25, 40, -1):
            prog = lab.process.prog_load(b.assemble(b.BPF_MOV64_IMM(0, value), b.BPF_EXIT_INSN()))
            child.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, prog)
            lab.process.close(prog)
            peer.send(ACK | PSH, b"0123456789")
            got = log(f"verdict {value}", lambda: child.recv(100))
            peer.seq += len(got or b"")
            log("counted", lambda: struct.unpack("<9I", child.getsockopt(so.SOL_SOCKET, so.SO_MEMINFO, 36))[8])
        child.close()

    same(case, addresses=ADDRESSES)


@families
def test_every_offset(family: int) -> None:
    """How much of the data each program of the grid lets through."""

    def case(lab: Lab, log: Log) -> None:
        server = listener(lab, family)
        peer = Peer(lab, family)
        peer.shake()
        child, _ = server.accept()
        child.setblocking(False)
        data = bytes(range(200))

        def attempt(name: str) -> None:
            peer.send(ACK | PSH, data)
            got = log(name, lambda: len(child.recv(1000)))
            peer.seq += got or 0

        for name, prog in offset_filters().items():
            if name in RANDOM:
                continue
            attach_bpf(lab, child, prog)
            attempt(f"eBPF {name}")
        for name, insns in classic_offset_filters().items():
            if name in RANDOM:
                continue
            attach_classic(child, insns)
            attempt(f"classic {name}")
        child.close()

    same(case, addresses=ADDRESSES)


def test_a_closed_socket_keeps_its_filter_until_the_end() -> None:
    """Its peer's acknowledgement of the FIN passes the filter still."""

    def case(lab: Lab, log: Log) -> None:
        server = listener(lab, so.AF_INET)
        peer = Peer(lab, so.AF_INET)
        peer.shake()
        child, _ = server.accept()
        recorder = SkbRecorder(lab.process)
        recorder.attach(child)
        child.close()
        log("FIN", peer.told)
        for i in range(3):
            peer.send(ACK, ack=peer.ack + (1 if i else 0))
            log("acknowledged", recorder.seen)
        peer.send(FIN | ACK, ack=peer.ack + 1)
        log("the other FIN", recorder.seen)
        log("answer", peer.told)

    same(case, addresses=ADDRESSES)


def test_out_of_order_and_reset() -> None:
    def case(lab: Lab, log: Log) -> None:
        server = listener(lab, so.AF_INET)
        peer = Peer(lab, so.AF_INET)
        peer.shake()
        child, _ = server.accept()
        child.setblocking(False)
        start = peer.seq
        peer.send(ACK, b"world", seq=start + 6)
        log("beyond a gap", lambda: child.recv(100))
        peer.send(ACK, b"hello ", seq=start)
        log("all of it", lambda: child.recv(100))
        peer.send(ACK, b"hello world", seq=start)
        log("seen before", lambda: child.recv(100))
        peer.send(ACK, b"orld!!", seq=start + 7)
        log("overlapping", lambda: child.recv(100))
        peer.send(RST, seq=start + 5000)
        log("a reset out of order", lambda: child.recv(100))
        peer.send(RST, seq=start + 13)
        log("a reset", lambda: child.recv(100))
        log("after it", lambda: child.recv(100))
        log("and sending", lambda: child.send(b"x"))
        child.close()

    same(case, addresses=ADDRESSES)
