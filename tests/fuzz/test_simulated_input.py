"""Frames that make no sense, into every kind of simulated socket: no exception comes out, whatever comes in."""

from __future__ import annotations

import random
from typing import Any

from support.ip_grid import ADDRESSES, PEER4, PEER6, TCP_PORT, UDP_PORT, US4, US6, ether, ping_frames, tcp, udp_frames
from support.packet_grid import MAC

from netbpf.abi import sockopt as so
from netbpf.env import SteppedEnv
from netbpf.host.sim.host import SimHost

RUNS = 6000
SEED = 20


def sockets(lab: Any) -> list[Any]:
    process = lab.process
    made = [process.socket(so.AF_PACKET, kind, 0) for kind in (so.SOCK_RAW, so.SOCK_DGRAM)]
    for sock in made:
        sock.bind((lab.device.name, 3))
    for proto in (0x2B, 1, 6, 17, 44, 58, 60):
        made += [process.socket(family, so.SOCK_RAW, proto) for family in (so.AF_INET, so.AF_INET6)]
    udp = process.socket(so.AF_INET6, so.SOCK_DGRAM, 0)
    udp.bind(("::", UDP_PORT))
    listener = process.socket(so.AF_INET6, so.SOCK_STREAM, 0)
    listener.bind(("::", TCP_PORT))
    listener.listen(100)
    made += [udp, listener]
    for sock in made:
        sock.setblocking(False)
    return made


def mutated(rng: random.Random, frame: bytes) -> bytes:
    """A few bytes changed, cut off, doubled or put in, most of them in the headers."""
    out = bytearray(frame[:600])
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(12, max(len(out), 13)) if rng.random() < 0.3 else rng.randrange(12, 80)
        act = rng.randrange(5)
        if act < 2 and at < len(out):
            out[at] = rng.choice((0, 1, 0x45, 0x60, 0xFF, rng.randrange(256), out[at] ^ 1 << rng.randrange(8)))
        elif act == 2:
            del out[at:]
        elif act == 3:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            del out[at : at + rng.randrange(1, 9)]
    return bytes(out)


def test_no_frame_breaks_anything() -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    host = SimHost(env=SteppedEnv(), engine="interp")
    with host.lab(mac=MAC) as lab:
        for address in ADDRESSES:
            lab.add_address(address)
        listening = sockets(lab)
        frames = [*udp_frames().values(), *ping_frames().values()]
        for flags in (0, 1, 2, 4, 16, 18, 17, 20):
            frames.append(ether(tcp(PEER4, US4, flags, port=TCP_PORT, data=b"data", options=b"\2\4\5\xb4")))
            frames.append(ether(tcp(PEER6, US6, flags, port=TCP_PORT, sport=4000 + flags)))
        for i in range(RUNS):
            lab.device.deliver(mutated(rng, rng.choice(frames)) if i % 10 else rng.choice(frames))
            if i % 100 == 0:
                host.step(0.3)
                for sock in listening:
                    _read(sock)


def _read(sock: Any) -> None:
    try:
        while True:
            if sock.type == so.SOCK_STREAM:
                sock.accept()[0].close()
            else:
                sock.recvfrom(70000)
    except (BlockingIOError, ConnectionError):
        return
