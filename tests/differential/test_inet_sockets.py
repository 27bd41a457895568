"""UDP, TCP, raw IP and AF_UNIX sockets that talk over lo: what their filters see, what they receive and every errno,
on the simulator and on the running kernel."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from support.both_labs import Log, same
from support.kernel import needs_kernel
from support.skb_recorder import SkbRecorder

from netbpf.abi import sockopt as so
from netbpf.host.lab import Lab
from netbpf.isa import builders as b

pytestmark = needs_kernel
ADDRESSES = ("10.0.0.1/24", "fd00::1/64")
FAMILIES = [(so.AF_INET, "127.0.0.1"), (so.AF_INET6, "::1"), (so.AF_INET, "10.0.0.1"), (so.AF_INET6, "fd00::1")]
families = pytest.mark.parametrize(("family", "host"), FAMILIES, ids=[host for _, host in FAMILIES])
WAIT_S = 0.2


def verdict(lab: Lab, value: int) -> int:
    return lab.process.prog_load(b.assemble(b.BPF_MOV64_IMM(0, value), b.BPF_EXIT_INSN()))


def open_socket(lab: Lab, family: int, kind: int, proto: int = 0, address: Any = None) -> Any:
    made = lab.process.socket(family, kind, proto)
    if address is not None:
        made.bind(address)
    made.settimeout(2)
    return made


def drops(sock: Any) -> tuple[int, int]:
    """rmem and sk_drops."""
    values = struct.unpack("<9I", sock.getsockopt(so.SOL_SOCKET, so.SO_MEMINFO, 36))
    return values[0], values[8]


@families
def test_udp_filters(family: int, host: str) -> None:
    def case(lab: Lab, log: Log) -> None:
        recorder = SkbRecorder(lab.process)
        sock = recorder.attach(open_socket(lab, family, so.SOCK_DGRAM, 0, (host, 5000)))
        sender = open_socket(lab, family, so.SOCK_DGRAM, 0, (host, 4000))
        sender.sendto(b"hello", (host, 5000))
        log("unconnected", lambda: recorder.seen(WAIT_S))
        log("got", lambda: sock.recvfrom(100))
        sender.connect((host, 5000))
        sender.setsockopt(so.SOL_SOCKET, so.SO_MARK, 7)
        sender.setsockopt(so.SOL_SOCKET, so.SO_PRIORITY, 5)
        for size in (0, 1, 100, 1500, 9000, 15000):
            sender.send(bytes(size))
            log(f"connected {size}", lambda: recorder.seen(WAIT_S))
            log("counts", lambda: drops(sock))
            log("got", lambda: sock.recvfrom(70000))
        sock.setblocking(False)
        for value in (0, 1, 7, 8, 9, 12, 13, 100, -1):
            sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, verdict(lab, value))
            sender.send(b"hello")
            log(f"verdict {value}", lambda: sock.recvmsg(100, 100))
            log("counts", lambda: drops(sock))

    same(case, kind="lo", addresses=ADDRESSES)


@families
def test_raw_filters(family: int, host: str) -> None:
    def case(lab: Lab, log: Log) -> None:
        recorder = SkbRecorder(lab.process)
        raw = recorder.attach(open_socket(lab, family, so.SOCK_RAW, 17))
        ping = recorder.attach(open_socket(lab, family, so.SOCK_RAW, 58 if family == so.AF_INET6 else 1))
        other = open_socket(lab, family, so.SOCK_RAW, 99)
        other.setblocking(False)
        receiver = open_socket(lab, family, so.SOCK_DGRAM, 0, (host, 5000))
        sender = open_socket(lab, family, so.SOCK_DGRAM, 0, (host, 4000))
        sender.sendto(b"hello", (host, 5000))
        log("datagram", lambda: recorder.seen(WAIT_S))
        log("got", lambda: (len(raw.recv(100)), raw.gettimeout(), receiver.recv(9)))
        echo = (b"\x80" if family == so.AF_INET6 else b"\x08") + bytes.fromhex("00f7ff0000000000") + b"ping"
        log("echo", lambda: ping.sendto(echo, (host, 0)))
        log("seen", lambda: recorder.seen(WAIT_S))
        log("answers", lambda: [(len(d), a[0]) for d, a in (ping.recvfrom(100), ping.recvfrom(100))])
        raw.setblocking(False)
        for value in (0, 1, 19, 20, 28, -1):
            raw.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, verdict(lab, value))
            sender.sendto(b"hello", (host, 5000))
            log(f"verdict {value}", lambda: len(raw.recv(100)))
            log("counts", lambda: drops(raw))
        log("another protocol", lambda: other.recv(100))
        log("own", lambda: (other.sendto(b"x" * 30, (host, 0)), len(other.recv(100))))

    same(case, kind="lo", addresses=ADDRESSES)


@families
def test_tcp_filters(family: int, host: str) -> None:
    """The listener's filter sees the handshake, the accepted socket inherits it."""

    def case(lab: Lab, log: Log) -> None:
        recorder = SkbRecorder(lab.process)
        listener = recorder.attach(open_socket(lab, family, so.SOCK_STREAM, 0, (host, 6000)))
        listener.listen(3)
        client = open_socket(lab, family, so.SOCK_STREAM, 0, (host, 4001))
        log("connect", lambda: client.connect((host, 6000)))
        child, address = listener.accept()
        log("handshake", lambda: recorder.seen(WAIT_S))
        log("names", lambda: (address, child.getsockname(), child.getpeername(), client.getsockname(), client.getpeername()))
        for size in (1, 100, 20000):
            client.send(bytes(size))
            log(f"data {size}", lambda: recorder.seen(WAIT_S))
            log("read", lambda n=size: len(child.recv(n, so.MSG_WAITALL)))  # type: ignore[misc]
        for option in (so.SO_REUSEADDR, so.SO_TYPE, so.SO_ERROR, so.SO_RCVBUF, so.SO_ACCEPTCONN, so.SO_PROTOCOL, so.SO_DOMAIN):
            for which in (listener, child, client):
                log(f"option {option}", lambda s=which, o=option: s.getsockopt(so.SOL_SOCKET, o))  # type: ignore[misc]
        client.close()
        log("FIN", lambda: recorder.seen(WAIT_S))
        log("end", lambda: child.recv(10))
        log("to nobody", lambda: child.send(b"x"))
        log("RST", lambda: recorder.seen(WAIT_S))
        log("broken", lambda: child.send(b"x"))
        log("nothing", lambda: child.recv(5))
        child.close()

    same(case, kind="lo", addresses=ADDRESSES)


def test_unix_filters() -> None:
    def case(lab: Lab, log: Log) -> None:
        recorder = SkbRecorder(lab.process)
        one, two = lab.process.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        recorder.attach(two)
        two.setblocking(False)
        for size in (0, 1, 100, 5000, 100000):
            log(f"send {size}", lambda n=size: one.send(bytes(n)))  # type: ignore[misc]
            log("seen", lambda: recorder.seen(WAIT_S))
            log("got", lambda: [len(d) if isinstance(d, bytes) else d for d in two.recvmsg(200000, 100)])
        for value in (0, 1, 100, -1):
            two.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, verdict(lab, value))
            log("send", lambda: one.send(b"hello"))
            log(f"verdict {value}", lambda: two.recvmsg(100, 100))
            log("counts", lambda: drops(two))

    same(case)
