"""The interpreter and the native engine behind simulated sockets: the same verdicts and records for the same frames."""

from __future__ import annotations

from typing import Any

from support.attaching import attach_bpf
from support.ip_grid import ADDRESSES, UDP_PORT, offset_filters, udp_frames
from support.packet_grid import MAC
from support.skb_recorder import SkbRecorder

from netbpf.env import SteppedEnv
from netbpf.host.sim.host import SimHost

KINDS = ((10, 2, 0), (2, 3, 17), (10, 3, 60), (17, 3, 0), (17, 2, 0))
FRAMES = list(udp_frames().values())


def outcomes(engine: str) -> list[Any]:
    """What sockets of every kind get of each frame, and what a filter sees of it."""
    out: list[Any] = []
    with SimHost(engine=engine, env=SteppedEnv()).lab(mac=MAC) as lab:
        for address in ADDRESSES:
            lab.add_address(address)
        socks = []
        for family, kind, proto in KINDS:
            sock = lab.process.socket(family, kind, proto)
            sock.bind((lab.device.name, 3) if family == 17 else ("", UDP_PORT))
            sock.setblocking(False)
            socks.append(sock)
        for prog in list(offset_filters().values())[::3]:
            for sock in socks:
                attach_bpf(lab, sock, prog)
            for frame in FRAMES[:200:8]:
                lab.device.deliver(frame)
                out += [_length(sock) for sock in socks]
        recorders = [SkbRecorder(lab.process) for _ in socks]
        for recorder, sock in zip(recorders, socks, strict=True):
            recorder.attach(sock)
        for frame in FRAMES:
            lab.device.deliver(frame)
            out += [seen for recorder in recorders for seen in recorder.seen()]
    return out


def _length(sock: Any) -> int | None:
    try:
        return len(sock.recv(1 << 17))
    except BlockingIOError:
        return None


def test_both_engines_agree() -> None:
    ours, native = outcomes("interp"), outcomes("native")
    assert ours == native
    assert len(ours) > 2000
