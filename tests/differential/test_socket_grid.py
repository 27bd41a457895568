"""The grid: every kind of socket of an IP stack, every filter, every frame. Frames come in by a TAP, a veth and lo; the simulator
and the running kernel must agree on what is delivered, how long it is, from whom, on counts, and on what the filter saw."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from support.attaching import attach_bpf, attach_classic
from support.both_labs import Log, same
from support.ip_grid import (
    ADDRESSES,
    UDP_PORT,
    classic_offset_filters,
    offset_filters,
    ping_frames,
    udp_frames,
)
from support.kernel import needs_kernel
from support.skb_recorder import SkbRecorder

from netbpf.abi import sockopt as so
from netbpf.host.lab import Lab

pytestmark = needs_kernel
FRAMES = udp_frames()
PINGS = ping_frames()
MTU = 65521  # the most a TAP takes: frames as large as what segmentation offload makes
LINEAR_BYTES = 4000  # a longer frame that a packet socket sends lies in pages (docs/differences.md)
TELLING = (
    *("ip4", "ip4 short", "ip4 empty", "ip6", "ip6 short", "options long", "tag 81000000", "size 1400", "size 8000"),
    *(
        "ext hop routing dest",
        "fragment in order 3",
        "fragment in order 6 3",
        "wrong checksum",
        "net broadcast to all",
        "group 6 to group",
        "ext dest",
    ),
)
RAW_KINDS = {
    "udp": (so.AF_INET, 17),
    "icmp": (so.AF_INET, 1),
    "99": (so.AF_INET, 99),
    "udp6": (so.AF_INET6, 17),
    "icmp6": (so.AF_INET6, 58),
    "hop6": (so.AF_INET6, 0x2B),
    "fragment6": (so.AF_INET6, 44),
    "dest6": (so.AF_INET6, 60),
    "99 in 6": (so.AF_INET6, 99),
}


def udp_socket(lab: Lab, family: int = so.AF_INET6) -> Any:
    """On every address; an IPv6 one hears IPv4 too."""
    sock = lab.process.socket(family, so.SOCK_DGRAM, 0)
    sock.bind(("::" if family == so.AF_INET6 else "0.0.0.0", UDP_PORT))
    sock.setblocking(False)
    return sock


def raw_socket(lab: Lab, family: int, protocol: int) -> Any:
    sock = lab.process.socket(family, so.SOCK_RAW, protocol)
    sock.setsockopt(so.SOL_SOCKET, so.SO_RCVBUFFORCE, 1 << 22)
    sock.setblocking(False)
    return sock


def all_of(sock: Any) -> list[tuple[int, bytes, Any]]:
    """Everything that waits in a socket: lengths, how the data begins, from whom."""
    out = []
    while True:
        try:
            data, address = sock.recvfrom(1 << 17)
        except BlockingIOError:
            return out
        out.append((len(data), data[12:32], address))  # an IPv4 header's identification may be random


def counts(sock: Any) -> tuple[int, int]:
    values = struct.unpack("<9I", sock.getsockopt(so.SOL_SOCKET, so.SO_MEMINFO, 36))
    return values[0], values[8]


Make = Callable[[Lab], Any]
UDP_KINDS: dict[str, Make] = {"udp": lambda lab: udp_socket(lab, so.AF_INET), "udp6": udp_socket}


@pytest.mark.parametrize("with_filter", [False, True], ids=["plain", "filtered"])
@pytest.mark.parametrize("kind", UDP_KINDS)
def test_udp_every_frame(kind: str, with_filter: bool) -> None:
    """What the filter sees of each frame (all fields of the context, where data begins), what is received, what is counted."""

    def case(lab: Lab, log: Log) -> None:
        recorder, sock = SkbRecorder(lab.process), UDP_KINDS[kind](lab)
        if with_filter:
            recorder.attach(sock)
        for name, frame in FRAMES.items():
            lab.device.deliver(frame)
            log(f"{name}: seen", recorder.seen)
            log(f"{name}: counted", lambda: counts(sock))
            log(f"{name}: got", lambda: all_of(sock))

    same(case, addresses=ADDRESSES, mtu=MTU)


@pytest.mark.parametrize("kind", RAW_KINDS)
def test_raw_every_frame(kind: str) -> None:
    def case(lab: Lab, log: Log) -> None:
        recorder = SkbRecorder(lab.process)
        sock = recorder.attach(raw_socket(lab, *RAW_KINDS[kind]))
        plain = raw_socket(lab, *RAW_KINDS[kind])
        for name, frame in {**FRAMES, **PINGS}.items():
            lab.device.deliver(frame)
            log(f"{name}: seen", recorder.seen)
            log(f"{name}: counted", lambda: (counts(sock), counts(plain)))
            log(f"{name}: got", lambda: (all_of(sock), all_of(plain)))

    same(case, addresses=ADDRESSES, mtu=MTU)


@pytest.mark.parametrize("kind", UDP_KINDS)
def test_udp_every_offset(kind: str) -> None:
    """Programs of eBPF and of classic BPF that read at every base: their verdicts as lengths received."""

    def case(lab: Lab, log: Log) -> None:
        sock = UDP_KINDS[kind](lab)
        for name, prog in offset_filters().items():
            attach_bpf(lab, sock, prog)
            _try(lab, log, sock, f"eBPF {name}")
        for name, insns in classic_offset_filters().items():
            attach_classic(sock, insns)
            _try(lab, log, sock, f"classic {name}")

    same(case, addresses=ADDRESSES, mtu=MTU)


def _try(lab: Lab, log: Log, sock: Any, label: str) -> None:
    for frame in TELLING:
        lab.device.deliver(FRAMES[frame])
        log(f"{label} on {frame}", lambda: [length for length, _, _ in all_of(sock)])


@pytest.mark.parametrize("kind", ["udp", "udp6", "dest6", "icmp6"])
def test_raw_every_offset(kind: str) -> None:
    """A raw socket for each filter, all at once: each gets every packet."""

    def case(lab: Lab, log: Log) -> None:
        socks = {}
        for name, prog in offset_filters().items():
            sock = socks[f"eBPF {name}"] = raw_socket(lab, *RAW_KINDS[kind])
            attach_bpf(lab, sock, prog)
        for name, insns in classic_offset_filters().items():
            attach_classic(socks.setdefault(f"classic {name}", raw_socket(lab, *RAW_KINDS[kind])), insns)
        for frame in (*(FRAMES[name] for name in TELLING), *PINGS.values()):
            lab.device.deliver(frame)
            for name, sock in socks.items():
                log(name, lambda s=sock: [length for length, _, _ in all_of(s)])  # type: ignore[misc]

    same(case, addresses=ADDRESSES, mtu=MTU)


@pytest.mark.parametrize("kind", ["veth", "lo"])
def test_other_devices(kind: str) -> None:
    """On lo the kernel does not take a packet for its own address from outside; a veth is as a TAP."""

    def case(lab: Lab, log: Log) -> None:
        recorder = SkbRecorder(lab.process)
        sock = recorder.attach(udp_socket(lab))
        for name, frame in FRAMES.items():
            if len(frame) > LINEAR_BYTES:
                continue
            if kind == "lo":
                frame = bytes(12) + frame[12:]
            lab.device.deliver(frame)
            log(f"{name}: seen", lambda: recorder.seen(0.002))
            log(f"{name}: got", lambda: all_of(sock))

    same(case, kind=kind, addresses=ADDRESSES)
