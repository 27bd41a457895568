"""Calls and options of every kind of socket: results, errnos and exception classes on the simulator and on the running kernel."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from support.both_labs import Log, same
from support.kernel import needs_kernel

from netbpf.abi import sockopt as so
from netbpf.host.lab import Lab
from netbpf.isa import builders as b

pytestmark = needs_kernel
ADDRESSES = ("10.0.0.1/24", "fd00::1/64")
HOSTS = {so.AF_INET: "127.0.0.1", so.AF_INET6: "::1"}
Make = Callable[[Lab], Any]


def _open(family: int, kind: int, proto: int = 0) -> Make:
    return lambda lab: lab.process.socket(family, kind, proto)


KINDS: dict[str, Make] = {
    "udp": _open(so.AF_INET, so.SOCK_DGRAM),
    "udp6": _open(so.AF_INET6, so.SOCK_DGRAM),
    "tcp": _open(so.AF_INET, so.SOCK_STREAM),
    "tcp6": _open(so.AF_INET6, so.SOCK_STREAM),
    "raw": _open(so.AF_INET, so.SOCK_RAW, 99),
    "raw6": _open(so.AF_INET6, so.SOCK_RAW, 99),
    "unix": _open(so.AF_UNIX, so.SOCK_DGRAM),
    "packet": _open(so.AF_PACKET, so.SOCK_RAW),
    "packet dgram": _open(so.AF_PACKET, so.SOCK_DGRAM),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def verdict(lab: Lab, value: int) -> int:
    return lab.process.prog_load(b.assemble(b.BPF_MOV64_IMM(0, value), b.BPF_EXIT_INSN()))


def fprog(*insns: tuple[int, int, int, int]) -> tuple[Any, bytes]:
    """``struct sock_fprog``, and what must stay alive with it."""
    raw = b"".join(struct.pack("<HBBI", *insn) for insn in insns)
    kept = ctypes.create_string_buffer(raw, max(len(raw), 1))
    return kept, struct.pack("<HxxxxxxQ", len(insns), ctypes.addressof(kept))


@each_kind
def test_filter_options(kind: str) -> None:
    """Attach, replace, detach, lock, get: every errno of each."""

    def case(lab: Lab, log: Log) -> None:
        p, sock = lab.process, KINDS[kind](lab)
        good, cls = verdict(lab, 40), p.prog_load(b.assemble(b.BPF_MOV64_IMM(0, 0), b.BPF_EXIT_INSN()), prog_type=3)
        a_map = p.bpf(0, bytearray(struct.pack("<IIII", 2, 4, 4, 1)))
        option = lambda name, value: sock.setsockopt(so.SOL_SOCKET, name, value)  # noqa: E731
        log("detach nothing", lambda: option(so.SO_DETACH_FILTER, 0))
        values = {
            "no fd": 9999,
            "-1": -1,
            "a map": a_map,
            "a classifier": cls,
            "short": b"\1",
            "long": struct.pack("<ii", good, 0),
        }
        for label, value in {**values, "good": good, "again": good}.items():
            log(f"attach {label}", lambda v=value: option(so.SO_ATTACH_BPF, v))  # type: ignore[misc]
        log("get of eBPF", lambda: sock.getsockopt(so.SOL_SOCKET, so.SO_GET_FILTER, 9))
        kept, short = fprog((0x06, 0, 0, 20))
        log("classic", lambda: option(so.SO_ATTACH_FILTER, short))
        log("get", lambda: len(sock.getsockopt(so.SOL_SOCKET, so.SO_GET_FILTER, 9)))
        bad, refused = fprog((0xFF, 0, 0, 20))
        log("bad classic", lambda: option(so.SO_ATTACH_FILTER, refused))
        log("detach", lambda: option(so.SO_DETACH_BPF, 0))
        log("detach again", lambda: option(so.SO_DETACH_BPF, 0))
        log("lock", lambda: option(so.SO_LOCK_FILTER, 1))
        log("is locked", lambda: sock.getsockopt(so.SOL_SOCKET, so.SO_LOCK_FILTER))
        for name, value in (
            (so.SO_ATTACH_BPF, good),
            (so.SO_ATTACH_FILTER, short),
            (so.SO_DETACH_BPF, 0),
            (so.SO_LOCK_FILTER, 0),
        ):
            log(f"locked {name}", lambda n=name, v=value: option(n, v))  # type: ignore[misc]
        del kept, bad

    same(case, kind="lo", addresses=ADDRESSES)


@each_kind
def test_reuseport_options(kind: str) -> None:
    def case(lab: Lab, log: Log) -> None:
        good, cls = verdict(lab, 0), lab.process.prog_load(b.assemble(b.BPF_MOV64_IMM(0, 0), b.BPF_EXIT_INSN()), prog_type=3)
        kept, classic = fprog((0x06, 0, 0, 0))
        for shares in (0, 1):
            sock = KINDS[kind](lab)
            option = lambda name, value, s=sock: s.setsockopt(so.SOL_SOCKET, name, value)  # noqa: E731
            log("share", lambda o=option, v=shares: o(so.SO_REUSEPORT, v))  # type: ignore[misc]
            log("shares", lambda s=sock: s.getsockopt(so.SOL_SOCKET, so.SO_REUSEPORT))  # type: ignore[misc]
            steps = {
                "detach nothing": (so.SO_DETACH_REUSEPORT_BPF, 0),
                "no fd": (so.SO_ATTACH_REUSEPORT_EBPF, 999),
                "a classifier": (so.SO_ATTACH_REUSEPORT_EBPF, cls),
                "good": (so.SO_ATTACH_REUSEPORT_EBPF, good),
                "classic": (so.SO_ATTACH_REUSEPORT_CBPF, classic),
                "short": (so.SO_ATTACH_REUSEPORT_CBPF, classic[:8]),
                "detach": (so.SO_DETACH_REUSEPORT_BPF, 0),
                "detach again": (so.SO_DETACH_REUSEPORT_BPF, 0),
                "lock": (so.SO_LOCK_FILTER, 1),
                "locked": (so.SO_ATTACH_REUSEPORT_EBPF, good),
                "locked classic": (so.SO_ATTACH_REUSEPORT_CBPF, classic),
                "locked detach": (so.SO_DETACH_REUSEPORT_BPF, 0),
            }
            for label, (name, value) in steps.items():
                log(f"{shares} {label}", lambda o=option, n=name, v=value: o(n, v))  # type: ignore[misc]
        del kept

    same(case, kind="lo", addresses=ADDRESSES)


NUMBERS = (
    *(so.SO_REUSEADDR, so.SO_TYPE, so.SO_ERROR, so.SO_BROADCAST, so.SO_RCVBUF, so.SO_KEEPALIVE, so.SO_PRIORITY, so.SO_REUSEPORT),
    *(
        so.SO_ACCEPTCONN,
        so.SO_MARK,
        so.SO_PROTOCOL,
        so.SO_DOMAIN,
        so.SO_RXQ_OVFL,
        so.SO_LOCK_FILTER,
        so.SO_BINDTOIFINDEX,
        so.SO_SNDBUF,
    ),
)


@each_kind
def test_numbers(kind: str) -> None:
    """Options that are a number: what they are at first, after setting them, and what is no value for them."""

    def case(lab: Lab, log: Log) -> None:
        sock = KINDS[kind](lab)
        get = lambda name: sock.getsockopt(so.SOL_SOCKET, name)  # noqa: E731
        for name in NUMBERS:
            log(f"get {name}", lambda n=name: get(n))  # type: ignore[misc]
        for name in (so.SO_ATTACH_BPF, so.SO_ATTACH_REUSEPORT_EBPF, so.SO_RCVBUFFORCE, 9999):
            log(f"get {name}", lambda n=name: get(n))  # type: ignore[misc]
        for name in (so.SO_TYPE, so.SO_PROTOCOL, so.SO_DOMAIN, so.SO_ERROR, so.SO_ACCEPTCONN, so.SO_MEMINFO, 9999):
            log(f"set {name}", lambda n=name: sock.setsockopt(so.SOL_SOCKET, n, 1))  # type: ignore[misc]
        for name in (so.SO_REUSEADDR, so.SO_BROADCAST, so.SO_RXQ_OVFL, so.SO_MARK, so.SO_PRIORITY, so.SO_KEEPALIVE):
            for value in (1, 5, 0, b"\1", b""):
                log(f"set {name} {value!r}", lambda n=name, v=value: sock.setsockopt(so.SOL_SOCKET, n, v))  # type: ignore[misc]
                log("is", lambda n=name: get(n))  # type: ignore[misc]
        for name in (so.SO_RCVBUF, so.SO_SNDBUF, so.SO_RCVBUFFORCE, so.SO_SNDBUFFORCE):
            for value in (0, 5000, 100000, -1, 1 << 30):
                log(f"set {name} {value}", lambda n=name, v=value: sock.setsockopt(so.SOL_SOCKET, n, v))  # type: ignore[misc]
                log("is", lambda: (get(so.SO_RCVBUF), get(so.SO_SNDBUF)))
        for value in (b"lo", b"lo\0", b"nodev", b""):
            log(f"device {value!r}", lambda v=value: sock.setsockopt(so.SOL_SOCKET, so.SO_BINDTODEVICE, v))  # type: ignore[misc]
            log("is", lambda: sock.getsockopt(so.SOL_SOCKET, so.SO_BINDTODEVICE, 16))
        for value in (1, 99, -1, 0):
            log(f"ifindex {value}", lambda v=value: sock.setsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX, v))  # type: ignore[misc]
        for level in (so.SOL_PACKET, so.SOL_IP, so.SOL_TCP, so.SOL_UDP, 999):
            log(f"level {level}", lambda lv=level: sock.setsockopt(lv, 9999, 1))  # type: ignore[misc]

    same(case, kind="lo", addresses=ADDRESSES)


@pytest.mark.parametrize("kind", ["udp", "udp6", "tcp", "tcp6", "raw", "raw6"])
def test_binding_and_connecting(kind: str) -> None:
    def case(lab: Lab, log: Log) -> None:
        host = "10.0.0.1" if kind[-1] != "6" else "fd00::1"
        far = "8.8.8.8" if kind[-1] != "6" else "2001:db8::1"
        one = KINDS[kind](lab)
        one.setblocking(False)
        log("no name", one.getsockname)
        log("no peer", one.getpeername)
        for address in ((far, 5000), (host, 5000), (host, 5000)):
            log(f"bind {address}", lambda a=address: one.bind(a))  # type: ignore[misc]
            log("name", one.getsockname)
        for name, value in ((None, 0), (so.SO_REUSEADDR, 1), (so.SO_REUSEPORT, 1)):
            other = KINDS[kind](lab)
            if name is not None:
                other.setsockopt(so.SOL_SOCKET, name, value)
            log(f"same again with {name}", lambda o=other: o.bind((host, 5000)))  # type: ignore[misc]
            log(f"any with {name}", lambda o=other: o.bind(("", 5000)))  # type: ignore[misc]
        log("send to nobody", lambda: one.send(b"x"))
        log("no route", lambda: KINDS[kind](lab).connect((far, 9)))
        log("shutdown", lambda: one.shutdown(1))
        log("shutdown badly", lambda: one.shutdown(7))
        log("listen", lambda: KINDS[kind](lab).listen(1))
        log("accept", lambda: KINDS[kind](lab).accept())
        log("oob", lambda: one.recv(5, so.MSG_OOB))
        log("error queue", lambda: one.recv(5, so.MSG_ERRQUEUE))
        log("nothing", lambda: one.recv(5))

    same(case, addresses=ADDRESSES)


@pytest.mark.parametrize("family", HOSTS)
def test_udp_calls(family: int) -> None:
    def case(lab: Lab, log: Log) -> None:
        host = HOSTS[family]
        make = lambda: lab.process.socket(family, so.SOCK_DGRAM, 0)  # noqa: E731
        sock, sender = make(), make()
        sock.bind((host, 5000))
        sender.bind((host, 4000))
        send = lambda data=b"hello": sender.sendto(data, (host, 5000))  # noqa: E731
        sock.settimeout(1)
        for label, call in {
            "recv": lambda: sock.recv(100),
            "recv 2": lambda: sock.recv(2),
            "recv 0": lambda: sock.recv(0),
            "recvfrom": lambda: sock.recvfrom(100),
            "recvmsg": lambda: sock.recvmsg(100),
            "recvmsg 2": lambda: sock.recvmsg(2, 100),
            "recvmsg 2 trunc": lambda: sock.recvmsg_into([bytearray(2)], 100, so.MSG_TRUNC),
            "recv_into": lambda: sock.recv_into(bytearray(3)),
            "recvfrom_into": lambda: sock.recvfrom_into(bytearray(9), 2),
            "peek": lambda: (sock.recv(2, so.MSG_PEEK), sock.recv(100, so.MSG_PEEK), sock.recv(100)),
            "waitall": lambda: sock.recv(100, so.MSG_WAITALL),
            "dontwait": lambda: sock.recv(100, so.MSG_DONTWAIT),
        }.items():
            send()
            log(label, call)
        sock.setblocking(False)
        log("nothing", lambda: sock.recv(1))
        log("sendto with flags", lambda: sender.sendto(b"abc", so.MSG_DONTWAIT, (host, 5000)))
        log("sendmsg", lambda: sender.sendmsg([b"ab", bytearray(b"cd")], [], 0, (host, 5000)))
        log("both", lambda: (sock.recv(9), sock.recv(9)))
        log("too long", lambda: send(bytes(65536)))
        log("longest", lambda: send(bytes(65507)))
        sock.setsockopt(so.SOL_SOCKET, so.SO_RXQ_OVFL, 1)
        sock.setsockopt(so.SOL_SOCKET, so.SO_RCVBUF, 0)
        for _ in range(9):
            send(bytes(500))
        log("some kept", lambda: [sock.recvmsg(3, 100)[1:3] for _ in range(2)])
        send()
        log("told of drops", lambda: sock.recvmsg(100, 100)[:3])
        send()
        log("no room to tell", lambda: sock.recvmsg(100, 0)[:3])
        alone = make()
        alone.connect((host, 9))
        log("into the void", lambda: alone.send(b"x"))
        log("the error", lambda: alone.getsockopt(so.SOL_SOCKET, so.SO_ERROR))
        log("again", lambda: alone.send(b"x"))
        log("and when reading", lambda: alone.recv(1))
        connected = make()
        connected.bind((host, 5001))
        connected.connect((host, 4000))
        connected.setblocking(False)
        other = make()
        log("from another", lambda: other.sendto(b"no", (host, 5001)))
        log("from the peer", lambda: sender.sendto(b"yes", (host, 5001)))
        log("heard", lambda: connected.recvfrom(9))
        log("nothing else", lambda: connected.recvfrom(9))
        log("peer", connected.getpeername)
        log("shut", lambda: connected.shutdown(1))
        log("no more", lambda: connected.send(b"x"))

    same(case, kind="lo", addresses=ADDRESSES)


@pytest.mark.parametrize("family", HOSTS)
@pytest.mark.parametrize("size", [0, 200, 700, 1500, 4000, 20000])
def test_udp_receive_buffer(family: int, size: int) -> None:
    """How many datagrams fit, and what is given back by reading."""

    def case(lab: Lab, log: Log) -> None:
        host = HOSTS[family]
        sock, sender = (lab.process.socket(family, so.SOCK_DGRAM, 0) for _ in range(2))
        sock.bind((host, 5000))
        sock.setblocking(False)
        memory = lambda: struct.unpack("<9I", sock.getsockopt(so.SOL_SOCKET, so.SO_MEMINFO, 36))[::8]  # noqa: E731
        for wanted in (0, 5000, 30000):
            sock.setsockopt(so.SOL_SOCKET, so.SO_RCVBUF, wanted)
            for _ in range(80):
                sender.sendto(bytes(size), (host, 5000))
            log("full", memory)
            for i in range(40):
                log(f"read {i}", lambda: (len(sock.recv(1 << 16)), memory()))

    same(case, kind="lo", addresses=ADDRESSES)


def test_unix_calls() -> None:
    def case(lab: Lab, log: Log) -> None:
        make = lambda: lab.process.socket(so.AF_UNIX, so.SOCK_DGRAM, 0)  # noqa: E731
        one, two = lab.process.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.setblocking(False)
        two.setblocking(False)
        log("names", lambda: (one.getsockname(), one.getpeername()))
        log("how many fit", lambda: _fill(lambda: one.send(bytes(1000))))
        log("meanwhile", lambda: len(two.recv(2000)))
        log("one more", lambda: _fill(lambda: one.send(bytes(1000))))
        named, other = make(), make()
        named.bind(b"\0netbpf-test")
        other.setblocking(False)
        log("name", named.getsockname)
        log("taken", lambda: make().bind(b"\0netbpf-test"))
        log("bound twice", lambda: named.bind(b"\0another"))
        log("how many to a stranger", lambda: _fill(lambda: other.sendto(b"x", b"\0netbpf-test")))
        log("from whom", lambda: named.recvfrom(9))
        log("nobody", lambda: other.sendto(b"x", b"\0nobody"))
        log("no path", lambda: other.sendto(b"x", "/no/such/socket"))
        log("no destination", lambda: other.send(b"x"))
        log("too long", lambda: other.sendto(bytes(212992 - 31), b"\0netbpf-test"))
        log("listen", lambda: other.listen(1))
        log("accept", lambda: other.accept())
        log("oob", lambda: named.recv(1, so.MSG_OOB))
        other.connect(b"\0netbpf-test")
        log("peer", other.getpeername)
        log("to one that has a peer", lambda: make().sendto(b"x", b"\0x"))
        log("shut", lambda: two.shutdown(0))
        log("broken", lambda: one.send(b"x"))
        third, fourth = lab.process.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        third.close()
        log("to a closed one", lambda: fourth.send(b"x"))
        fourth.setblocking(False)
        log("from a closed one", lambda: fourth.recv(1))

    same(case)


def _fill(send: Callable[[], Any], most: int = 1000) -> int:
    for i in range(most):
        try:
            send()
        except BlockingIOError:
            return i
    return most


def test_packet_options() -> None:
    def case(lab: Lab, log: Log) -> None:
        sock = lab.process.socket(so.AF_PACKET, so.SOCK_RAW, 0)
        for version in (0, 1, 2, 3):
            log(f"version {version}", lambda v=version: sock.setsockopt(so.SOL_PACKET, so.PACKET_VERSION, v))  # type: ignore[misc]
            log("statistics", lambda: sock.getsockopt(so.SOL_PACKET, so.PACKET_STATISTICS, 40))
        for index, kind, size in ((1, 1, 0), (99, 1, 0), (1, 0, 6), (1, 0, 5), (1, 1, 7), (1, 9, 0), (1, 3, 6), (1, 2, 0)):
            mreq = struct.pack("<iHH8s", index, kind, size, b"\2" * size)
            for name in (so.PACKET_ADD_MEMBERSHIP, so.PACKET_DROP_MEMBERSHIP, so.PACKET_DROP_MEMBERSHIP):
                log(f"{name} {index} {kind} {size}", lambda n=name, m=mreq: sock.setsockopt(so.SOL_PACKET, n, m))  # type: ignore[misc]
        log("short", lambda: sock.setsockopt(so.SOL_PACKET, so.PACKET_ADD_MEMBERSHIP, bytes(8)))
        for name in (so.PACKET_AUXDATA, so.PACKET_ORIGDEV, so.PACKET_VERSION, so.PACKET_IGNORE_OUTGOING, 99):
            log(f"get {name}", lambda n=name: sock.getsockopt(so.SOL_PACKET, n))  # type: ignore[misc]
        sender = lab.process.socket(so.AF_PACKET, so.SOCK_DGRAM, 0)
        hears = lab.process.socket(so.AF_PACKET, so.SOCK_RAW, 0)
        hears.bind(("lo", 3))
        hears.setblocking(False)
        hears.setsockopt(so.SOL_PACKET, so.PACKET_AUXDATA, 1)
        addresses = (("lo", 0x800, 0, 1, b"\1\2\3\4\5\6"), ("lo", 0x88B5, 0, 1, b"\1\2\3\4\5\6\7\x08"))
        for address in addresses:
            log(f"send to {address}", lambda a=address: sender.sendto(b"payload", a))  # type: ignore[misc]
            log("seen", lambda: [hears.recvmsg(100, 100) for _ in range(2)])
        log("unbound", lambda: sender.send(b"x"))
        sender.bind(("lo", 0x88B5))
        log("bound", lambda: sender.send(b"x"))
        log("seen", lambda: [hears.recvmsg(100, 100)[0] for _ in range(2)])
        udp = lab.process.socket(so.AF_INET, so.SOCK_DGRAM, 0)
        udp.bind(("127.0.0.1", 4000))
        udp.sendto(b"x", ("127.0.0.1", 4000))
        log("checksum left to the device", lambda: [_aux(hears.recvmsg(100, 100)) for _ in range(2)])

    same(case, kind="lo", addresses=ADDRESSES)


def _aux(message: Any) -> tuple[bytes, list[Any], Any]:
    data, control, _, address = message
    return data[34:], control, address


def test_polling() -> None:
    """What poll(2) tells of each kind of socket, as things come in and end."""

    def case(lab: Lab, log: Log) -> None:
        p = lab.process

        def events(sock: Any, wait_ms: int = 50, wanted: int = 7) -> int:
            poller = p.poll()
            poller.register(sock, wanted)
            return sum(mask for _, mask in poller.poll(wait_ms))

        for name, make in KINDS.items():
            log(f"new {name}", lambda m=make: events(m(lab)))  # type: ignore[misc]
        udp = p.socket(so.AF_INET, so.SOCK_DGRAM, 0)
        udp.bind(("127.0.0.1", 5000))
        udp.connect(("127.0.0.1", 5000))
        udp.send(b"x")
        log("udp with data", lambda: events(udp))
        log("only readable", lambda: (events(udp, wanted=1), p.select([udp], [], [], 1)[0] == [udp]))
        udp.recv(9)
        log("nothing", lambda: (events(udp, 1, 1), p.select([udp], [], [], 0)))
        udp.shutdown(2)
        log("shut", lambda: events(udp))
        alone = p.socket(so.AF_INET, so.SOCK_DGRAM, 0)
        alone.connect(("127.0.0.1", 9))
        alone.send(b"x")
        log("an error", lambda: events(alone))
        listener = p.socket(so.AF_INET, so.SOCK_STREAM, 0)
        listener.bind(("127.0.0.1", 6000))
        listener.listen(2)
        log("listening", lambda: events(listener, 1))
        client = p.socket(so.AF_INET, so.SOCK_STREAM, 0)
        client.connect(("127.0.0.1", 6000))
        log("somebody knocks", lambda: events(listener))
        child, _ = listener.accept()
        log("connected", lambda: (events(child), events(client)))
        client.send(b"x")
        log("with data", lambda: (events(child, wanted=1), events(child)))
        child.recv(9)
        client.shutdown(1)
        log("half shut", lambda: (events(child, wanted=1), events(child), events(client)))
        child.close()
        log("both shut", lambda: (events(client, wanted=1), events(client)))
        refused = p.socket(so.AF_INET, so.SOCK_STREAM, 0)
        log("refused", lambda: refused.connect(("127.0.0.1", 9)))
        log("then", lambda: events(refused))
        one, two = p.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        log("pair", lambda: events(one))
        two.send(b"x")
        log("pair with data", lambda: events(one))

    same(case, kind="lo", addresses=ADDRESSES)
