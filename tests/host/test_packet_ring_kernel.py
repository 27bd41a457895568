"""A TPACKET_V3 ring of the running kernel, worked off by native code: the kernel's own program counts the same."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kernel import needs_kernel
from support.packet_grid import FILTERS, MAC, capture_frames, own_frames

import netbpf
from netbpf.abi import sockopt as so
from netbpf.engine.choose import get_engine, native_obstacle
from netbpf.errors import UsageError
from netbpf.host.lab import Lab, open_packet_socket
from netbpf.host.linux.host import LinuxHost
from netbpf.host.linux.packet_ring import PacketRing, RingFilter, arrival_env, open_ring_socket
from netbpf.host.live_program import LiveProgram
from netbpf.packet.open import create_capture, open_capture
from netbpf.program import ProgramSpec
from netbpf.replay.snapshot import entries
from netbpf.sources.load import load

pytestmark = [*needs_kernel, pytest.mark.skipif(bool(native_obstacle()), reason=native_obstacle() or "native code runs here")]
FRAMES = [*own_frames().values(), *capture_frames(20).values()]
COUNTING = load(str(Path(__file__).parents[2] / "scenarios" / "counting.s"))


@pytest.fixture(params=["tap", "veth", "lo"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with LinuxHost().lab(mac=MAC, kind=request.param) as made:
        yield made


def ring_on(lab: Any, spec: ProgramSpec, output: Any = None) -> tuple[RingFilter, LiveProgram]:
    _, ring = lab.process.run(open_ring_socket, lab.device.name, 3, 5)
    live = LiveProgram(spec, get_engine("native"), arrival_env())
    return RingFilter(ring, live.loaded, output), live


def close(ring: RingFilter) -> None:
    ring.ring.close()
    ring.ring.socket.close()


def test_verdicts_are_the_kernels(lab: Lab) -> None:
    for name, insns in FILTERS.items():
        spec = ProgramSpec(insns)
        ours, _ = ring_on(lab, spec)
        with netbpf.attach(open_packet_socket(lab), spec, backend="kernel") as theirs:
            for frame in FRAMES:
                lab.device.deliver(frame)
            while ours.run(0.02):
                pass
            told, mine = theirs.filter_stats, ours.filter_stats
        close(ours)
        assert (mine.packets, mine.accepted, mine.kernel_drops) == (told.packets, told.accepted, 0), name
        assert (mine.packets or 0) > 100


def test_maps_clock_and_written_capture(lab: Lab, tmp_path: Path) -> None:
    out = create_capture(tmp_path / "o.pcap", 1)
    ours, live = ring_on(lab, COUNTING)
    keeper, _ = ring_on(lab, load("r0 = 40\nexit\n"), out)
    with netbpf.attach(open_packet_socket(lab), COUNTING, backend="kernel") as theirs:
        for frame in FRAMES:
            lab.device.deliver(frame)
        with out:
            while ours.run(0.1) + keeper.run(0.0):
                pass
        assert sorted(entries(live.maps["counts"])) == sorted(entries(theirs.maps["counts"]))
    with open_capture(tmp_path / "o.pcap") as reader:
        records = list(reader)
    assert len(records) == keeper.totals.accepted == keeper.totals.packets
    tagged = [r for r in records if r.data[12:14] in (b"\x81\0", b"\x88\xa8")]
    assert len(tagged) > 30
    assert {len(r.data) for r in records} <= {*range(14, 45)}
    first = next(f for f in FRAMES if len(f) > 60)
    assert any(r.data == first[: len(r.data)] and r.wirelen == len(first) for r in records)
    close(ours)
    close(keeper)


def test_what_is_lost_is_counted(lab: Lab) -> None:
    def small() -> tuple[socket.socket, PacketRing]:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        ring = PacketRing(sock, block_bytes=1 << 12, blocks=2, retire_ms=1)
        sock.bind((lab.device.name, 3))
        return sock, ring

    _, ring = lab.process.run(small)  # type: ignore[attr-defined]
    live = LiveProgram(COUNTING, get_engine("native"), arrival_env())
    ours = RingFilter(ring, live.loaded)
    sent = 400
    for _ in range(sent):
        lab.device.deliver(FRAMES[0])
    while ours.run(0.1):
        pass
    seen = sent * (2 if lab.device.name == "lo" else 1)
    assert (ours.filter_stats.packets or 0) + (ours.filter_stats.kernel_drops or 0) == seen
    assert (ours.filter_stats.kernel_drops or 0) > 100
    assert ring.statistics.freezes
    close(ours)
    assert ours.filter_stats.kernel_drops  # kept


def test_no_more_than_asked_for_and_no_ring_for_the_interpreter(lab: Lab) -> None:
    ours, _ = ring_on(lab, COUNTING)
    for _ in range(20):
        lab.device.deliver(FRAMES[0])
    assert ours.run(1, max_packets=7) == 7
    assert ours.totals.packets == 7
    with pytest.raises(UsageError, match="--engine native"):
        RingFilter(ours.ring, LiveProgram(COUNTING, get_engine("interp")).loaded)
    close(ours)


def test_the_device_goes_away(lab: Any) -> None:
    if lab.device.name == "lo":
        pytest.skip("lo stays")
    ours, _ = ring_on(lab, COUNTING)
    lab.device.deliver(FRAMES[0])
    assert ours.run(1) == 1
    lab.process.run(lab.device.close)
    lab.device.close = lambda: None
    with pytest.raises(OSError, match=r"Network is down|No such device"):
        ours.run(1)
    assert ours.filter_stats.packets == 1
    assert ours.ring.socket.getsockopt(so.SOL_SOCKET, so.SO_ERROR) == 0
    close(ours)


def test_a_socket_attached_with_a_ring(lab: Any) -> None:
    sock = lab.process.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    with netbpf.attach(sock, COUNTING, ring=True) as ringed:
        lab.process.run(lambda: ringed.bind((lab.device.name, 3)))
        for _ in range(30):
            lab.device.deliver(FRAMES[0])
        while ringed.run(0.3):
            pass
        assert ringed.filter_stats.packets == 30 * (2 if lab.device.name == "lo" else 1)
        assert entries(ringed.maps["counts"])
        with pytest.raises(UsageError, match="do not come out one by one"):
            ringed.recv(100)
        ringed.detach_filter()
        with pytest.raises(OSError, match="No such file"):
            ringed.run(0)
    with pytest.raises(OSError, match="closed"):
        ringed.run(0)
    assert ringed.filter_stats.packets
    for kind, word in ((socket.SOCK_DGRAM, "SOCK_RAW"), (socket.SOCK_RAW, "backend 'sim'")):
        other = lab.process.run(lambda kind=kind: socket.socket(socket.AF_PACKET, kind, 0))
        with other, pytest.raises(UsageError, match=word):
            netbpf.attach(other, COUNTING, ring=True, backend="both" if kind == socket.SOCK_RAW else "sim")
