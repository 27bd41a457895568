"""Topologies, clocks, polling and TCP under filters on a simulated machine, without privilege and without a kernel."""

from __future__ import annotations

import errno
import runpy
import socket
import struct
import threading
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support.packet_grid import MAC, PEER

import netbpf
from netbpf.abi import sockopt as so
from netbpf.env import SteppedEnv
from netbpf.errors import UsageError
from netbpf.host.sim.host import SimHost
from netbpf.host.sim.process import SimProcess
from netbpf.host.sim.socket import SimSocket
from netbpf.packet.inet import Tcp, build_ipv4, build_tcp, build_udp, parse_ipv4, parse_tcp

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "sockets.py"


@pytest.fixture
def wire() -> tuple[SimHost, SimProcess, SimProcess]:
    """A machine with a stepped clock and two namespaces on a veth pair."""
    host = SimHost(env=SteppedEnv())
    left, right = host.add_network(), host.add_network()
    host.add_pair("eth0", "eth0", network=left, far_network=right)
    for network, number in ((left, 1), (right, 2)):
        network.add_address(f"10.0.0.{number}/24", "eth0")
        network.add_address(f"fd00::{number}/64", "eth0")
    return host, host.process(network=left), host.process(network=right)


def connected(client: SimProcess, server: SimProcess, host: str = "10.0.0.2") -> tuple[SimSocket, SimSocket, SimSocket]:
    """Listener, client and the accepted socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = server.socket(family, socket.SOCK_STREAM)
    listener.bind((host, 80))
    listener.listen()
    sock = client.socket(family, socket.SOCK_STREAM)
    sock.connect((host, 80))
    child, _ = listener.accept()
    return listener, sock, child


def test_the_example_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    out = capsys.readouterr().out
    assert "UDP kept b'hello' and b'hi'" in out
    assert "TCP from 10.0.0.1 sent b'GET /'" in out
    assert "port 666: no answer" in out
    assert "UDP 3 packets" in out
    assert "shared port: b'0 for the first' b'2 for the third'" in out
    assert "TAP: b'from far' from ('192.0.2.9', 4000) answered by a frame of 50 bytes" in out


@pytest.mark.parametrize("host", ["10.0.0.2", "fd00::2"])
def test_namespaces_talk_over_a_pair(wire: tuple[SimHost, SimProcess, SimProcess], host: str) -> None:
    _, client, server = wire
    _, sock, child = connected(client, server, host)
    data = bytes(range(256)) * 1000
    sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(1)))
    sender.start()
    got = b""
    while piece := child.recv(10000):
        got += piece
    sender.join(10)
    assert got == data
    child.sendall(b"thanks")
    child.close()
    assert (sock.recv(100), sock.recv(100)) == (b"thanks", b"")
    sock.close()


def test_nobody_at_the_port(wire: tuple[SimHost, SimProcess, SimProcess]) -> None:
    _, client, _ = wire
    with client.socket(socket.AF_INET, socket.SOCK_STREAM) as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("10.0.0.2", 81))
    with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(("10.0.0.2", 81))
        udp.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            udp.send(b"x")
    with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, pytest.raises(OSError, match="ENETUNREACH"):
        udp.sendto(b"x", ("192.0.2.1", 9))


def test_a_dropped_segment_is_sent_again(wire: tuple[SimHost, SimProcess, SimProcess]) -> None:
    """A filter that drops the first two of every three segments: the stream arrives whole, by the clock."""
    host, client, server = wire
    _, sock, child = connected(client, server)
    every_third = """
.map turn array key=4 value=8 entries=1
    *(u32 *)(r10 - 4) = 0
    r2 = r10
    r2 += -4
    r1 = map[turn]
    call bpf_map_lookup_elem
    if r0 == 0 goto keep
    r1 = *(u64 *)(r0 + 0)
    r1 += 1
    *(u64 *)(r0 + 0) = r1
    r1 %= 3
    if r1 == 0 goto keep
    r0 = 0
    exit
keep:
    r0 = -1
    exit
"""
    filtered = netbpf.attach(child, every_third)
    child.setblocking(False)
    data = bytes(range(250)) * 40
    sock.sendall(data)
    got = bytearray()
    for _ in range(2000):
        try:
            got += child.recv(65536)
        except BlockingIOError:
            host.step(0.5)
        if len(got) == len(data):
            break
    assert bytes(got) == data
    assert filtered.filter_stats.dropped > 2


def test_no_answer_at_all_ends_in_a_timeout(wire: tuple[SimHost, SimProcess, SimProcess]) -> None:
    host, client, server = wire
    listener, _, _ = connected(client, server)
    netbpf.attach(listener, "r0 = 0\nexit\n")
    sock = client.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.connect(("10.0.0.2", 80))
    host.step(300)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT


def test_fragments_wait_no_longer_than_they_may(wire: tuple[SimHost, SimProcess, SimProcess]) -> None:
    """Half a datagram, half a minute, the other half: nothing. At once: all of it."""
    host, client, server = wire
    sock = server.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", 5000))
    sock.setblocking(False)
    sender = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(bytes(5000), ("10.0.0.2", 5000))
    assert len(sock.recv(9000)) == 5000
    device = server._task.network.device("eth0")
    peer = device.peer
    assert peer is not None
    source, target = (socket.inet_aton(f"10.0.0.{n}") for n in (1, 2))
    whole = build_udp(source, target, 1, 5000, bytes(64))
    first, rest = (
        build_ipv4(source, target, 17, part, ident=9, fragment=at) for part, at in ((whole[:40], 0x2000), (whole[40:], 5))
    )
    for wait, length in ((31, None), (29, 64)):
        peer.transmit(device.mac + peer.mac + b"\x08\0" + first)
        host.step(wait)
        peer.transmit(device.mac + peer.mac + b"\x08\0" + rest)
        if length is None:
            with pytest.raises(BlockingIOError):
                sock.recv(100)
            host.step(31)
        else:
            assert len(sock.recv(100)) == length


def test_a_clock_that_is_real_is_not_stepped() -> None:
    with pytest.raises(UsageError, match="SteppedEnv"):
        SimHost().step(1)


def test_polling(wire: tuple[SimHost, SimProcess, SimProcess]) -> None:
    _, client, server = wire
    listener, sock, child = connected(client, server)
    poller = server.poll()
    poller.register(child, 1)
    poller.register(listener.fileno(), 1)
    assert poller.poll(1) == []
    waker = threading.Timer(0.05, lambda: sock.sendall(b"x"))
    waker.start()
    assert poller.poll(10_000) == [(child.fileno(), 1)]
    readable, writable, urgent = server.select([child, listener], [child], [child], 5)
    assert (readable, writable, urgent) == ([child], [child], [])
    poller.unregister(child)
    with pytest.raises(FileNotFoundError):
        poller.modify(child, 1)
    child.recv(10)
    assert server.select([child], [], [], 0.01) == ([], [], [])
    number = child.fileno()
    child.close()
    poller.register(number, 1)
    assert poller.poll(0) == [(number, 32)]
    with pytest.raises(OSError, match="EBADF"):
        server.select([number], [], [], 0)


def test_a_card_takes_its_own_frames_unless_promiscuous() -> None:
    host = SimHost()
    card = host.add_device("eth0", mac=MAC, filters_mac=True)
    process = host.process()
    sock = process.socket(so.AF_PACKET, so.SOCK_RAW, 0)
    sock.bind(("eth0", 3))
    other = b"\x02\0\0\0\xff\x03" + PEER + b"\x08\0" + bytes(46)
    assert not card.deliver(other)
    assert card.deliver(MAC + other[6:])
    assert card.deliver(b"\xff" * 6 + other[6:])
    mreq = struct.pack("<iHH8s", card.ifindex, so.PACKET_MR_PROMISC, 0, b"")
    sock.setsockopt(so.SOL_PACKET, so.PACKET_ADD_MEMBERSHIP, mreq)
    assert card.deliver(other)
    sock.setsockopt(so.SOL_PACKET, so.PACKET_DROP_MEMBERSHIP, mreq)
    assert not card.deliver(other)
    sock.setsockopt(so.SOL_PACKET, so.PACKET_ADD_MEMBERSHIP, mreq)
    sock.close()
    assert not card.deliver(other)


def test_a_tap_carries_a_whole_connection() -> None:
    """A peer of ours behind a TAP, by hand: what goes out is on_sent's."""
    host = SimHost()
    tap = host.add_device("tap0", mac=MAC)
    host.machine.network.add_address("10.0.0.1/24", "tap0")
    out: list[bytes] = []
    tap.on_sent = out.append
    process = host.process()
    listener = process.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("", 80))
    listener.listen()
    source, target = socket.inet_aton("10.0.0.9"), socket.inet_aton("10.0.0.1")

    def send(seq: int, ack: int, flags: int, data: bytes = b"") -> None:
        segment = build_tcp(source, target, Tcp(4000, 80, seq, ack, flags, 8192, b"", data))
        tap.deliver(MAC + PEER + b"\x08\0" + build_ipv4(source, target, 6, segment))

    def answer() -> Any:
        frame = out.pop(0)
        header = parse_ipv4(frame, 14)
        assert frame[:6] == PEER
        assert header is not None
        return parse_tcp(frame[34 : 14 + header.length])

    send(100, 0, 2)
    syn_ack = answer()
    assert (syn_ack.flags, syn_ack.ack) == (0x12, 101)
    send(101, syn_ack.seq + 1, 0x10)
    child, peer = listener.accept()
    assert peer == ("10.0.0.9", 4000)
    send(101, syn_ack.seq + 1, 0x18, b"hello")
    assert child.recv(10) == b"hello"
    assert answer().ack == 106
    child.sendall(b"world")
    assert answer().data == b"world"
    child.close()
    assert answer().flags & 1


def test_scapy_packets_are_frames() -> None:
    scapy = pytest.importorskip("scapy.layers.inet")
    ether = pytest.importorskip("scapy.layers.l2").Ether
    host = SimHost()
    tap = host.add_device("tap0", mac=MAC)
    host.machine.network.add_address("10.0.0.1/24", "tap0")
    sock = host.process().socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", 7))
    mac = ":".join(f"{b:02x}" for b in MAC)
    tap.deliver(
        ether(dst=mac, src="02:00:00:00:00:02") / scapy.IP(src="10.0.0.2", dst="10.0.0.1") / scapy.UDP(sport=1, dport=7) / b"hi"
    )
    assert sock.recvfrom(10) == (b"hi", ("10.0.0.2", 1))


def test_a_file_of_a_socket(wire: tuple[SimHost, SimProcess, SimProcess]) -> None:
    _, client, server = wire
    _, sock, child = connected(client, server)
    with sock.makefile("rw") as file:
        sock.close()  # the file keeps it open
        file.write("GET /\n")
        file.flush()
        child.sendall(b"one\ntwo\n")
        child.shutdown(1)
        assert child.recv(100) == b"GET /\n"
        assert file.readlines() == ["one\n", "two\n"]
    assert child.recv(10) == b""
    assert child.makefile("rb", 0).read(1) == b""
    for mode, buffering in (("x", None), ("r", 0)):
        with pytest.raises(ValueError, match=r"mode|binary"):
            child.makefile(mode, buffering)


def test_a_timeout_of_the_socket_itself(wire: tuple[SimHost, SimProcess, SimProcess]) -> None:
    _, _, server = wire
    sock = server.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 0, 20_000))
    assert struct.unpack("qq", sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)) == (0, 20_000)
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    sock.settimeout(0.01)
    with pytest.raises(TimeoutError):
        sock.recv(1)


def test_addresses_that_are_none() -> None:
    """What Python refuses before the system call is refused alike."""
    process = SimHost().process()
    wrong: dict[int, tuple[Any, ...]] = {
        socket.AF_INET: ("127.0.0.1", ("127.0.0.1",), 5),
        socket.AF_INET6: ("::1", (), None),
        socket.AF_PACKET: ("lo", ("lo",), ("lo", "x"), (1, 3)),
        socket.AF_UNIX: (5, ("x", 1), None),
    }
    for family, addresses in wrong.items():
        makers: list[Any] = [process.socket, *([] if family == socket.AF_PACKET else [socket.socket])]
        for make, address in product(makers, addresses):
            with make(family, socket.SOCK_DGRAM) as sock, pytest.raises(TypeError):
                sock.bind(address)
    udp = process.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for port in (-1, 65536):
        with pytest.raises(OverflowError):
            udp.bind(("127.0.0.1", port))
    with pytest.raises(socket.gaierror):
        udp.bind(("no such host.", 1))
    with pytest.raises(TypeError):
        udp.sendto(b"x")
    with pytest.raises(ValueError, match="negative"):
        udp.recv(-1)


def test_paths_of_unix_sockets_stay_until_unlinked() -> None:
    host = SimHost()
    process = host.process()
    make = lambda: process.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # noqa: E731
    first, sender = make(), make()
    first.bind("/run/test.sock")
    sender.sendto(b"x", "/run/test.sock")
    assert first.recvfrom(10) == (b"x", None)
    first.close()
    with pytest.raises(ConnectionRefusedError):
        sender.sendto(b"x", "/run/test.sock")
    with pytest.raises(OSError, match="EADDRINUSE"):
        make().bind("/run/test.sock")
    host.unlink("/run/test.sock")
    with pytest.raises(FileNotFoundError):
        sender.sendto(b"x", "/run/test.sock")
    make().bind("/run/test.sock")
    with pytest.raises(OSError, match="ESOCKTNOSUPPORT"):
        process.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with pytest.raises(OSError, match="EINVAL"):
        sender.sendmsg([b"x"], [(1, 1, b"\0\0\0\0")], 0, "/run/test.sock")


def test_multicast_reaches_who_joined(wire: tuple[SimHost, SimProcess, SimProcess]) -> None:
    _, client, server = wire
    group, mreq = "239.1.1.1", socket.inet_aton("239.1.1.1") + socket.inet_aton("10.0.0.2")
    sock, other = (server.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for each in (sock, other):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(("", 5000))
        each.setblocking(False)
    sender = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"early", (group, 5000))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreq)
    sender.sendto(b"late", (group, 5000))
    assert sock.recv(10) == other.recv(10) == b"late"
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, mreq)
    sender.sendto(b"gone", (group, 5000))
    with pytest.raises(BlockingIOError):
        sock.recv(10)


def test_a_closed_socket_lets_its_program_and_port_go(wire: tuple[SimHost, SimProcess, SimProcess]) -> None:
    host, client, server = wire
    listener, sock, child = connected(client, server)
    netbpf.attach(child, "r0 = -1\nexit\n")
    assert len(host.prog_ids()) == 1
    for each in (child, sock, listener):
        each.close()
    assert host.prog_ids() == []
    host.step(120)
    again = server.socket(socket.AF_INET, socket.SOCK_STREAM)
    again.bind(("10.0.0.2", 80))
    again.listen()
