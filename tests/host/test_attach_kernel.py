"""`netbpf.attach` on real sockets: what comes out with our engine is what comes out with the program in the kernel."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kernel import needs_kernel
from support.packet_grid import FILTERS, MAC, capture_frames, own_frames

import netbpf
from netbpf.abi import sockopt as so
from netbpf.errors import UsageError
from netbpf.host.lab import Lab, drain, open_packet_socket
from netbpf.host.linux.host import LinuxHost
from netbpf.program import ProgramSpec
from netbpf.replay.snapshot import entries

pytestmark = needs_kernel
COUNTING = str(Path(__file__).parents[2] / "scenarios" / "counting.s")
FRAMES = [*own_frames().values(), *capture_frames(6).values()]
KEEP = "r0 = {}\nexit\n"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with LinuxHost().lab(mac=MAC) as made:
        yield made


def in_lab(lab: Lab, work: Callable[[], Any]) -> Any:
    """Run where the lab's namespace is."""
    return lab.process.run(work)  # type: ignore[attr-defined]  # a LinuxProcess


def deliver(lab: Lab, *frames: bytes) -> None:
    for frame in frames:
        lab.device.deliver(frame)


def ip_frame(size: int = 60, last: int = 0) -> bytes:
    return (MAC + bytes(6) + b"\x08\0\x45" + bytes(8) + b"\x11" + bytes(size))[: size - 1] + bytes([last])


def is_told_whole(frame: bytes, kind: str) -> bool:
    """Whether a SOCK_DGRAM socket tells all that its filter saw: not of a packet that ends with its link header, which does not
    come out, nor the protocol of one whose data begins inside a tag (see docs/differences.md)."""
    tags = sum(frame[at : at + 2] in (b"\x81\0", b"\x88\xa8") for at in (12, 16))
    return len(frame) not in (14, 18) and tags < (1 if kind == "lo" else 2)


# --- packet sockets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tap", "veth", "lo"])
@pytest.mark.parametrize("sock_type", [so.SOCK_RAW, so.SOCK_DGRAM], ids=["raw", "dgram"])
def test_every_filter_gives_what_the_kernel_gives(sock_type: int, kind: str) -> None:
    """Bytes, lengths, auxdata, addresses, of every frame of the grid; two sockets on one device, one filtered by us."""
    wrong = []
    frames = [f for f in FRAMES if sock_type == so.SOCK_RAW or is_told_whole(f, kind)]
    with LinuxHost().lab(mac=MAC, kind=kind) as lab:
        for name, insns in FILTERS.items():
            if sock_type == so.SOCK_DGRAM and name.startswith("ll "):
                continue
            spec = ProgramSpec(insns)
            plain = [open_packet_socket(lab, sock_type=sock_type) for _ in range(2)]
            with netbpf.attach(plain[0], spec) as ours, netbpf.attach(plain[1], spec, backend="kernel") as theirs:
                for frame in frames:
                    deliver(lab, frame)
                    mine, kernels = drain(ours), drain(theirs)
                    if mine != kernels:
                        wrong.append(f"{name} {frame[:20].hex()}:\n  sim    {mine!r:.300}\n  kernel {kernels!r:.300}")
                mine_told, told = ours.filter_stats, theirs.filter_stats
                assert (mine_told.packets, mine_told.accepted) == (told.packets, told.accepted), name
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong[:10])


def test_maps_and_counts(lab: Lab) -> None:
    with netbpf.attach(open_packet_socket(lab), COUNTING) as sock:
        deliver(lab, *FRAMES)
        assert drain(sock) == []
        stats = sock.filter_stats
        rows = dict(entries(sock.maps["counts"]))
    assert stats == sock.filter_stats  # kept after close
    assert stats.packets == stats.dropped > 100
    assert stats.kernel_drops == 0
    assert int.from_bytes(rows[b"\x11\0\0\0"], "little") > 20


def test_both_agree_and_a_forged_difference_is_found(lab: Lab) -> None:
    def both(program: Any) -> Any:
        plain = open_packet_socket(lab)
        return in_lab(lab, lambda: netbpf.attach(plain, program, backend="both"))

    with both(COUNTING) as sock:
        deliver(lab, *FRAMES)
        drain(sock)
        assert sock.compare_maps() is None
        assert sock.not_compared == 0
        assert sock.filter_stats.packets == sock.twin.filter_stats.packets > 100
    with both("r0 = *(u32 *)(r1 + 0)\nr0 >>= 1\nexit\n") as sock:
        deliver(lab, *FRAMES)
        drain(sock)
        assert sock.difference is None
    with both("r0 = 40\nexit\n") as sock:
        sock._live.verdict = lambda skb: 40 + (skb.len == 66)
        deliver(lab, ip_frame(60), ip_frame(66), ip_frame(60))
        assert len(drain(sock)) == 3
        assert "packet 2" in str(sock.difference)
        assert "kept 41 of 66" in str(sock.difference)
        assert "kept 40 of 66" in str(sock.difference)
    with both("r0 = 0\nexit\n") as sock:
        sock._live.verdict = lambda skb: 9
        deliver(lab, ip_frame())
        drain(sock)
        assert "kernel  dropped" in str(sock.difference)


def test_a_full_buffer_shows_as_drops_and_not_as_a_difference(lab: Lab) -> None:
    plain = open_packet_socket(lab)
    plain.setsockopt(so.SOL_SOCKET, so.SO_RCVBUF, 1)
    with netbpf.attach(plain, KEEP.format(20)) as sock:
        deliver(lab, *[ip_frame()] * 100)
        got = len(drain(sock))
        stats = sock.filter_stats
        assert stats.accepted == stats.packets == got
        assert stats.kernel_drops == 100 - got > 50
        # the option itself still tells its user, once
        assert struct.unpack("<II", sock.getsockopt(so.SOL_PACKET, so.PACKET_STATISTICS, 8)) == (100, 100 - got)
        assert sock.getsockopt(so.SOL_PACKET, so.PACKET_STATISTICS, 8) == bytes(8)
    plain = open_packet_socket(lab)
    with in_lab(lab, lambda: netbpf.attach(plain, KEEP.format(20), backend="both")) as sock:
        sock._reader.setsockopt(so.SOL_SOCKET, so.SO_RCVBUF, 1)
        deliver(lab, *[ip_frame()] * 50)
        drain(sock)
        deliver(lab, ip_frame())
        drain(sock)
        assert sock.compare_maps() is None
        assert sock.not_compared > 20


def test_promises_of_a_socket_object(lab: Lab) -> None:
    """peek, truncation, buffers, timeouts, poll, context manager, as the kernel's filter would have them."""
    program = "r6 = r1\nr0 = *(u8 *)skb[59]\nif r0 == 0 goto drop\nr0 = 40\nexit\ndrop:\nr0 = 0\nexit\n"
    with netbpf.attach(open_packet_socket(lab), program) as sock:
        assert sock.fileno() > 0
        with pytest.raises(BlockingIOError):
            sock.recv(10)
        deliver(lab, ip_frame(last=0), ip_frame(last=1), ip_frame(last=0), ip_frame(last=2))
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        assert poll.poll(1000)
        assert len(sock.recv(100, socket.MSG_PEEK)) == 40
        assert len(sock.recv(5, socket.MSG_PEEK)) == 5
        assert sock.filter_stats.packets == 2  # judged once, however often it is looked at
        data, _, flags, address = sock.recvmsg(30)
        assert (len(data), flags & socket.MSG_TRUNC, address[0]) == (30, socket.MSG_TRUNC, "tap0")
        small = bytearray(8)
        assert sock.recv_into(small, 0, socket.MSG_TRUNC) == 40
        with pytest.raises(BlockingIOError):
            sock.recv(10)
        assert (sock.filter_stats.accepted, sock.filter_stats.dropped) == (2, 2)
        sock.settimeout(0.05)
        deliver(lab, ip_frame(last=0))
        before = time.monotonic()
        with pytest.raises(TimeoutError):
            sock.recv(10)
        assert 0.04 < time.monotonic() - before < 1
        with pytest.raises(TypeError):
            sock.recv()
    assert sock.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.recv(1)


def test_auxdata_is_the_users_only_if_he_asked(lab: Lab) -> None:
    plain = in_lab(lab, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    in_lab(lab, lambda: plain.bind(("tap0", 3)))
    plain.settimeout(2)
    with netbpf.attach(plain, KEEP.format(30)) as sock:
        deliver(lab, ip_frame(), ip_frame())
        assert sock.getsockopt(so.SOL_PACKET, so.PACKET_AUXDATA) == 0
        assert sock.recvmsg(100, 200)[1] == []
        sock.setsockopt(so.SOL_PACKET, so.PACKET_AUXDATA, 1)
        assert sock.getsockopt(so.SOL_PACKET, so.PACKET_AUXDATA) == 1
        ((level, kind, aux),) = sock.recvmsg(100, 200)[1]
        assert (level, kind) == (so.SOL_PACKET, so.PACKET_AUXDATA)
        assert int.from_bytes(aux[4:8], "little") == 60
        assert int.from_bytes(aux[8:12], "little") == 30


@pytest.mark.parametrize("backend", ["sim", "kernel"])
def test_detached_mid_stream(lab: Lab, backend: str) -> None:
    with netbpf.attach(open_packet_socket(lab), KEEP.format(0), backend=backend) as sock:
        deliver(lab, ip_frame())
        assert drain(sock) == []
        sock.detach_filter()
        with pytest.raises(OSError, match="No such file"):
            sock.detach_filter()
        deliver(lab, ip_frame())
        assert [len(r.data) for r in drain(sock)] == [60]
        assert sock.filter_stats.packets == 1
        assert sock.filter_stats.dropped == (1 if backend == "sim" else 0)  # the kernel counts what passed, whoever let it


def test_a_reader_wakes_when_another_thread_closes(lab: Lab) -> None:
    plain = open_packet_socket(lab)
    plain.setblocking(True)
    sock = netbpf.attach(plain, KEEP.format(40))
    ended: list[BaseException] = []

    def read() -> None:
        try:
            while True:
                sock.recv(100)
        except OSError as e:
            ended.append(e)

    reader = threading.Thread(target=read)
    reader.start()
    deliver(lab, *[ip_frame()] * 5)
    time.sleep(0.1)
    sock.close()
    reader.join(5)
    assert not reader.is_alive()
    assert "Bad file descriptor" in str(ended[0])
    assert sock.filter_stats.packets == 5


def test_the_device_goes_away(lab: Lab) -> None:
    with netbpf.attach(open_packet_socket(lab), KEEP.format(40)) as sock:
        deliver(lab, *[ip_frame()] * 3)
        in_lab(lab, lab.device.close)  # type: ignore[attr-defined]
        got: list[bytes] = []
        with pytest.raises(OSError, match=r"Network is down|No such device"):
            got.extend(sock.recv(100) for _ in range(10))
        assert sock.filter_stats.accepted == len(got)
        lab.device.close = lambda: None  # type: ignore[attr-defined]


def test_a_dgram_socket_refuses_a_program_that_reads_the_link_header(lab: Lab) -> None:
    with (
        open_packet_socket(lab, sock_type=so.SOCK_DGRAM) as plain,
        pytest.raises(UsageError, match="insn 1 reads the link header"),
    ):
        netbpf.attach(plain, ProgramSpec(FILTERS["ll byte 5"]))


# --- other families -------------------------------------------------------------------------------------------------------

UDP_PROGRAMS = {
    "port": "r6 = r1\nr0 = *(u16 *)skb[2]\nexit\n",  # the destination port as a length
    "first byte": "r6 = r1\nr0 = *(u8 *)skb[8]\nexit\n",
    "protocol": "r6 = r1\nr0 = *(u8 *)skb[-1048567]\nexit\n",
    "source": "r6 = r1\nr0 = *(u8 *)skb[-1048561]\nr0 += 8\nexit\n",
    "length": "r0 = *(u32 *)(r1 + 0)\nr0 -= 1\nexit\n",
    "udp length": "r6 = r1\nr0 = *(u16 *)skb[4]\nr0 -= 2\nexit\n",
    "one": "r0 = 1\nexit\n",
    "none": "r0 = 0\nexit\n",
}


def udp_pair(family: int) -> tuple[socket.socket, socket.socket]:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    pair = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
    for sock in pair:
        sock.bind((host, 0))
        sock.setblocking(False)
    return pair[0], pair[1]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["udp4", "udp6"])
@pytest.mark.parametrize("name", UDP_PROGRAMS)
def test_udp(name: str, family: int) -> None:
    if family == socket.AF_INET6 and name in ("protocol", "source"):
        pytest.skip("an offset of the IPv4 header")
    answers = {}
    for backend in ("sim", "kernel"):
        plain, sender = udp_pair(family)
        with sender, netbpf.attach(plain, UDP_PROGRAMS[name], backend=backend) as sock:
            for size in (0, 1, 20, 200, 1400):
                sender.sendto(bytes([7]) * size, plain.getsockname())
            got = []
            try:
                while True:
                    data, _, flags, address = sock.recvmsg(2000)
                    got.append((data, flags, address == sender.getsockname()))
            except BlockingIOError:
                answers[backend] = got
    assert answers["sim"] == answers["kernel"]


def test_raw_ip_and_unix() -> None:
    answers: dict[str, list[bytes]] = {}
    program = "r6 = r1\nr0 = *(u8 *)skb[0]\nr0 &= 15\nr0 <<= 1\nexit\n"  # half the IP header
    for backend in ("sim", "kernel"):
        plain = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        plain.settimeout(2)
        with netbpf.attach(plain, program, backend=backend) as sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", 9))
            answers[backend] = [sock.recv(100)]
    assert answers["sim"][0][:4] == answers["kernel"][0][:4]
    assert len(answers["sim"][0]) == len(answers["kernel"][0]) == 10
    for backend in ("sim", "kernel"):
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        right.setblocking(False)
        with left, netbpf.attach(right, "r6 = r1\nr0 = *(u8 *)skb[0]\nexit\n", backend=backend) as sock:
            for first in (0, 3, 200):
                left.send(bytes([first]) + b"abcdefgh")
            assert sock.recv(100) == b"\x03ab"
            assert sock.recv(100) == b"\xc8abcdefgh"


def test_streams_are_refused_in_user_space() -> None:
    with socket.socket() as tcp, pytest.raises(UsageError, match="a stream has no packets"):
        netbpf.attach(tcp, KEEP.format(1))
    with socket.socket() as tcp, netbpf.attach(tcp, KEEP.format(1), backend="kernel") as sock:
        assert sock.filter_stats.packets == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, pytest.raises(UsageError, match="packet socket"):
        netbpf.attach(udp, KEEP.format(1), backend="both")


def test_every_form_of_a_program(lab: Lab, tmp_path: Path) -> None:
    classic = [(0x28, 0, 0, 12), (0x15, 0, 1, 0x800), (6, 0, 0, 20), (6, 0, 0, 0)]
    path = tmp_path / "keep.s"
    path.write_text(KEEP.format(20))
    for backend in ("sim", "kernel"):
        for program in (str(path), path, KEEP.format(20), netbpf.load(KEEP.format(20)), classic):
            with netbpf.attach(open_packet_socket(lab), program, backend=backend) as sock:
                deliver(lab, ip_frame())
                assert [len(r.data) for r in drain(sock)] == [20]


def test_an_expression(lab: Lab) -> None:
    arp = MAC + bytes(6) + bytes.fromhex("0806 0001 0800 06 04 0001") + bytes(20)
    for backend in ("sim", "kernel"):
        with netbpf.attach(open_packet_socket(lab), "arp", backend=backend) as sock:
            deliver(lab, arp, ip_frame())
            assert [r.data for r in drain(sock)] == [arp]
