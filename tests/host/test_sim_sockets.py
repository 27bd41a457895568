"""Simulated packet sockets and devices, without privilege and without a kernel."""

from __future__ import annotations

import errno
import struct
import threading

import pytest
from support.packet_grid import FILTERS, MAC, PEER, counting

from netbpf.abi import sockopt as so
from netbpf.errors import BpfError
from netbpf.host.choose import get_host
from netbpf.host.lab import drain, open_packet_socket, send_and_gather
from netbpf.host.sim.host import SimHost
from netbpf.host.sim.process import SimProcess
from netbpf.host.sim.socket import SimSocket
from netbpf.host.sim.truesize import SENT_BY_SOCKET, WRITTEN_TO_TAP, skb_truesize
from netbpf.maps.spec import MapSpec
from netbpf.packet.record import Record

FRAME = MAC + PEER + b"\x08\0" + bytes(range(50))
TAGGED = MAC + PEER + bytes.fromhex("810020050800") + bytes(range(50))


@pytest.fixture
def host() -> SimHost:
    made = SimHost()
    made.add_device("eth0", mac=MAC)
    return made


@pytest.fixture
def process(host: SimHost) -> SimProcess:
    return host.process()


def listen(process: SimProcess, device: str = "eth0", kind: int = so.SOCK_RAW, proto: int = 3) -> SimSocket:
    sock = process.socket(so.AF_PACKET, kind, 0)
    sock.bind((device, proto))
    sock.setblocking(False)
    return sock


def attach(process: SimProcess, sock: SimSocket, name: str) -> None:
    sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, process.prog_load(FILTERS[name]))


@pytest.mark.parametrize(
    ("name", "length"), [("keep", 64), ("drop", None), ("one byte", 1), ("40 bytes", 40), ("low half 0", None), ("skb->len", 64)]
)
def test_the_verdict_is_a_number_of_bytes(host: SimHost, process: SimProcess, name: str, length: int | None) -> None:
    sock = listen(process)
    attach(process, sock, name)
    host.device("eth0").deliver(FRAME)
    assert [len(r.data) for r in drain(sock)] == ([] if length is None else [length])


def test_the_tag_goes_beside_the_packet(host: SimHost, process: SimProcess) -> None:
    sock = listen(process)
    sock.setsockopt(so.SOL_PACKET, so.PACKET_AUXDATA, 1)
    host.device("eth0").deliver(TAGGED)
    (got,) = drain(sock)
    assert got.data == FRAME
    status, length, snap, _, net, tci, tpid = struct.unpack("<IIIHHHH", got.auxdata)
    assert (status & so.TP_STATUS_VLAN_VALID, length, snap, net, tci, tpid) == (
        so.TP_STATUS_VLAN_VALID,
        64,
        64,
        14,
        0x2005,
        0x8100,
    )


def test_lo_shows_a_packet_twice(host: SimHost, process: SimProcess) -> None:
    sock = listen(process, "lo")
    host.device("lo").transmit(bytes(12) + FRAME[12:])
    assert [r.address[2] for r in drain(sock)] == [4, 0]
    sock.setsockopt(so.SOL_PACKET, so.PACKET_IGNORE_OUTGOING, 1)
    host.device("lo").transmit(bytes(12) + FRAME[12:])
    assert [r.address[2] for r in drain(sock)] == [0]


def test_datagram_sockets_have_no_link_header(host: SimHost, process: SimProcess) -> None:
    sock = listen(process, kind=so.SOCK_DGRAM)
    attach(process, sock, "40 bytes")
    host.device("eth0").deliver(FRAME)
    data, address = sock.recvfrom(1000)
    assert data == FRAME[14:54]
    assert address == ("eth0", 0x0800, 0, 1, PEER)


def test_sockets_hear_their_device_and_protocol(host: SimHost, process: SimProcess) -> None:
    host.add_device("eth1")
    heard = {
        "eth0": listen(process),
        "eth1": listen(process, "eth1"),
        "arp": listen(process, proto=0x0806),
        "everywhere": process.socket(so.AF_PACKET, so.SOCK_RAW, 0x0300),
        "nothing": process.socket(so.AF_PACKET, so.SOCK_RAW, 0),
    }
    heard["everywhere"].setblocking(False)
    heard["nothing"].setblocking(False)
    host.device("eth0").deliver(FRAME)
    host.device("eth1").deliver(FRAME[:12] + b"\x08\x06" + bytes(28))
    assert {name: len(drain(sock)) for name, sock in heard.items()} == {
        "eth0": 1,
        "eth1": 1,
        "arp": 0,
        "everywhere": 2,
        "nothing": 0,
    }


def test_a_filter_sees_each_packet_with_a_clean_cb(host: SimHost, process: SimProcess) -> None:
    from netbpf.isa import builders as b

    cb = b.assemble(
        b.BPF_LDX_MEM(b.BPF_W, b.BPF_REG_0, b.BPF_REG_1, 48),
        b.BPF_ALU64_IMM(b.BPF_ADD, b.BPF_REG_0, 5),
        b.BPF_STX_MEM(b.BPF_W, b.BPF_REG_1, b.BPF_REG_0, 48),
        b.BPF_EXIT_INSN(),
    )
    sock = listen(process)
    sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, process.prog_load(cb))
    host.device("eth0").deliver_all([FRAME] * 3)
    assert [len(r.data) for r in drain(sock)] == [5, 5, 5]


def test_a_cut_record_has_the_length_of_the_wire(host: SimHost, process: SimProcess) -> None:
    sock = listen(process)
    attach(process, sock, "skb->len")
    sock.setsockopt(so.SOL_PACKET, so.PACKET_AUXDATA, 1)
    host.device("eth0").deliver(Record(1, 0, 1000, FRAME))
    (got,) = drain(sock)
    assert len(got.data) == len(FRAME)
    assert struct.unpack_from("<I", got.auxdata, 4) == (1000,)


def test_full_buffer_drops_and_statistics_tell(host: SimHost, process: SimProcess) -> None:
    sock = listen(process)
    sock.setsockopt(so.SOL_SOCKET, so.SO_RCVBUF, 0)
    assert sock.getsockopt(so.SOL_SOCKET, so.SO_RCVBUF) == 2304
    host.device("eth0").deliver_all([FRAME] * 10)
    assert struct.unpack("<II", sock.getsockopt(so.SOL_PACKET, so.PACKET_STATISTICS, 8)) == (10, 7)
    assert len(drain(sock)) == 3
    assert struct.unpack("<II", sock.getsockopt(so.SOL_PACKET, so.PACKET_STATISTICS, 8)) == (0, 0)


@pytest.mark.parametrize(
    ("origin", "length", "size"),
    [
        (WRITTEN_TO_TAP, 14, 832),
        (WRITTEN_TO_TAP, 192, 832),
        (WRITTEN_TO_TAP, 193, 1280),
        (WRITTEN_TO_TAP, 1514, 2304),
        (WRITTEN_TO_TAP, 9000, 12544),
        (SENT_BY_SOCKET, 240, 832),
        (SENT_BY_SOCKET, 241, 1280),
        (SENT_BY_SOCKET, 4096, 4928),
        (SENT_BY_SOCKET, 16000, 17216),
    ],
)
def test_truesize_as_the_kernel_counts(origin: tuple[int, int], length: int, size: int) -> None:
    assert skb_truesize(length, *origin) == size


def test_errors_are_those_of_python_sockets(process: SimProcess) -> None:
    sock = listen(process)
    with pytest.raises(BlockingIOError):
        sock.recv(10)
    sock.settimeout(0.01)
    with pytest.raises(TimeoutError):
        sock.recv(10)
    sock.setsockopt(so.SOL_SOCKET, so.SO_LOCK_FILTER, 1)
    with pytest.raises(PermissionError) as caught:
        sock.setsockopt(so.SOL_SOCKET, so.SO_DETACH_BPF, 0)
    assert isinstance(caught.value, BpfError)
    with pytest.raises(OSError, match="EAFNOSUPPORT"):
        process.socket(40, 1, 0)
    with pytest.raises(ValueError, match="range"):
        sock.settimeout(-1)


def test_a_waiting_reader_is_woken(host: SimHost, process: SimProcess) -> None:
    sock = listen(process)
    sock.settimeout(10)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(sock.recv(2000)))
    reader.start()
    host.device("eth0").deliver(FRAME)
    reader.join(10)
    assert got == [FRAME]


def test_closing_wakes_a_waiting_reader(process: SimProcess) -> None:
    sock = listen(process)
    sock.settimeout(10)
    errors: list[int | None] = []

    def read() -> None:
        try:
            sock.recv(2000)
        except OSError as e:
            errors.append(e.errno)

    reader = threading.Thread(target=read)
    reader.start()
    process.exit()
    reader.join(10)
    assert errors in ([errno.EBADF], [errno.ESRCH])


def test_descriptors_of_sockets(process: SimProcess) -> None:
    with listen(process) as sock:
        number = sock.fileno()
        copy = sock.dup()
        assert process.fds()[-2:] == [number, copy.fileno()]
    assert sock.fileno() == -1
    sock.close()
    with pytest.raises(OSError, match="EBADF"):
        sock.recv(1)
    assert copy.getsockname()[0] == "eth0"
    left = copy.detach()
    assert copy.fileno() == -1
    process.close(left)
    with pytest.raises(OSError, match="ENOTSOCK"):
        SimSocket(process._task, 0, 17, 3, 0).recv(1)


def test_pairs_and_sending(host: SimHost, process: SimProcess) -> None:
    near, far = host.add_pair("veth0", "veth1")
    hears, sends = listen(process, "veth0"), listen(process, "veth1")
    assert sends.send(FRAME) == len(FRAME)
    assert [r.data for r in drain(hears)] == [FRAME]
    assert drain(sends) == []
    near.up = False
    with pytest.raises(OSError, match="ENETDOWN"):
        near.deliver(FRAME)
    with pytest.raises(OSError, match="EMSGSIZE"):
        sends.send(bytes(1519))
    assert far.peer is near
    host.device("eth0").transmit(FRAME)
    assert host.device("eth0").sent == [FRAME]


def test_a_laboratory_by_name() -> None:
    """What both hosts offer alike, here on ours: frames in one by one, and what became of each."""
    with get_host("sim").lab(mac=MAC) as lab:
        process = lab.process
        counts = process.map_create(MapSpec(1, 4, 8, 2))
        for proto in (6, 17):
            process.map_update_elem(counts, struct.pack("<I", proto), bytes(8))
        witness, sock = open_packet_socket(lab), open_packet_socket(lab)
        sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, process.prog_load(counting(counts)))
        tcp, udp = (FRAME[:23] + bytes([p]) + FRAME[24:] for p in (6, 17))
        outcomes = send_and_gather(lab, sock, [tcp, udp, tcp, FRAME[:10]], witness=witness)
        assert [o.seen for o in outcomes] == [1, 1, 1, 0]
        assert not any(o.received for o in outcomes)
        assert [process.map_lookup_elem(counts, struct.pack("<I", p))[0] for p in (6, 17)] == [2, 1]
