"""The grid for packet and AF_UNIX sockets: every offset base of eBPF and classic programs, every field of the context, on frames
of every sort and on datagrams; delivery, length, auxdata, address, map contents, on the simulator and the running kernel."""

from __future__ import annotations

import socket

import pytest
from support.attaching import attach_bpf, attach_classic
from support.both_labs import Log, same
from support.ip_grid import ADDRESSES, classic_offset_filters, offset_filters, ping_frames, udp_frames
from support.kernel import needs_kernel
from support.packet_grid import own_frames
from support.skb_recorder import SkbRecorder

from netbpf.abi import sockopt as so
from netbpf.host.lab import Lab, drain, open_packet_socket

pytestmark = needs_kernel
FRAMES = udp_frames()
OWN = own_frames()
MTU = 65521
LINEAR_BYTES = 4000  # a longer frame that a packet socket sends lies in pages (docs/differences.md)
TELLING = (
    *("ip4", "ip4 short", "ip6", "options long", "tag 81000000", "tag 88a8e006", "tag 8100200081002000"),
    *("tag 91000005 6",),
    *(
        "ext hop routing dest",
        "fragment in order 0",
        "fragment in order 2",
        "fragment in order 6 1",
        "first 35",
        "first 20 tagged",
    ),
)
types = pytest.mark.parametrize("sock_type", [so.SOCK_RAW, so.SOCK_DGRAM], ids=["raw", "dgram"])


def deliver(lab: Lab, kind: str, frame: bytes) -> None:
    lab.device.deliver(bytes(12) + frame[12:] if kind == "lo" and len(frame) >= 12 else frame)


@types
@pytest.mark.parametrize("kind", ["tap", "veth", "lo"])
def test_packet_sockets_every_field(kind: str, sock_type: int) -> None:
    def case(lab: Lab, log: Log) -> None:
        recorder = SkbRecorder(lab.process)
        sock = recorder.attach(open_packet_socket(lab, sock_type=sock_type))
        witness = open_packet_socket(lab)
        for name, frame in {**FRAMES, **OWN, **ping_frames()}.items():
            if len(frame) > (MTU if kind == "tap" else LINEAR_BYTES):
                continue
            deliver(lab, kind, frame)
            log(f"{name}: seen", lambda: recorder.seen(0.0 if kind == "tap" else 0.002))
            log(f"{name}: got", lambda: [(r.length, r.data[:60], r.auxdata, r.address[1:]) for r in drain(sock)])
            drain(witness)

    same(case, kind=kind, mtu=MTU if kind == "tap" else 9000)


@types
def test_packet_sockets_every_offset(sock_type: int) -> None:
    """A socket for each filter, all at once."""

    def case(lab: Lab, log: Log) -> None:
        socks = {}
        for name, prog in offset_filters().items():
            socks[f"eBPF {name}"] = sock = open_packet_socket(lab, sock_type=sock_type)
            attach_bpf(lab, sock, prog)
        for name, insns in classic_offset_filters().items():
            socks[f"classic {name}"] = sock = open_packet_socket(lab, sock_type=sock_type)
            attach_classic(sock, insns)
        for frame in TELLING:
            lab.device.deliver(FRAMES[frame])
            for name, sock in socks.items():
                log(f"{name} on {frame}", lambda s=sock: [(r.length, r.auxdata) for r in drain(s)])  # type: ignore[misc]

    same(case, mtu=MTU)


def test_unix_sockets_every_offset() -> None:
    """There is no link header: what reads it ends with 0."""

    def case(lab: Lab, log: Log) -> None:
        one, two = lab.process.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        two.setblocking(False)

        def attempt(name: str) -> None:
            for size in (0, 1, 9, 100, 3000):
                one.send(bytes(i & 0xFF for i in range(size)))
                log(f"{name} on {size}", lambda: len(two.recv(5000)))

        for name, prog in offset_filters().items():
            attach_bpf(lab, two, prog)
            attempt(f"eBPF {name}")
        for name, insns in classic_offset_filters().items():
            attach_classic(two, insns)
            attempt(f"classic {name}")

    same(case)


def test_sockets_of_all_kinds_hear_one_datagram() -> None:
    """Each has its own view of it, and its own verdict."""

    def case(lab: Lab, log: Log) -> None:
        socks, recorders = [], []
        for family, kind, proto in (
            (17, 3, 0),
            (17, 2, 0),
            (2, 3, 17),
            (10, 2, 0),
        ):  # the last hears IPv4 too: nothing is refused
            sock = lab.process.socket(family, kind, proto)
            sock.bind((lab.device.name, 3) if family == 17 else ("", 5000))
            sock.setblocking(False)
            recorders.append(SkbRecorder(lab.process))
            socks.append(recorders[-1].attach(sock))
        for name in TELLING:
            lab.device.deliver(FRAMES[name])
            for recorder, sock in zip(recorders, socks, strict=True):
                log(f"{name}: seen", recorder.seen)
                log(f"{name}: got", lambda s=sock: len(s.recv(5000)))  # type: ignore[misc]

    same(case, addresses=ADDRESSES)
