"""The objects of tests/data/objects, read and run; what flows a capture holds by scapy's dissection."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from pathlib import Path

from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from netbpf.maps.base import Map
from netbpf.maps.dump import entries
from netbpf.packet.open import open_capture
from netbpf.program import ProgramSpec
from netbpf.replay.core import Replay
from netbpf.replay.session import Session
from netbpf.sources.elf import read_object
from support.dissect import IP, IPv6, raw_packets, untagged

OBJECTS = Path(__file__).parents[1] / "data" / "objects"
TYPES = OBJECTS / "types"
ODD_KERNEL = "core_bits"  # loads on a kernel of our own making only
NAMES = sorted(p.stem for p in OBJECTS.glob("*.c") if p.stem != ODD_KERNEL)
SETTINGS = {"CONFIG_BPF_SYSCALL": "y", "CONFIG_TUN": "m", "CONFIG_HZ": "250", "CONFIG_CC_VERSION_TEXT": '"clang"'}

Flow = tuple[int, int, int, int, int]  # source, destination, ports, protocol
Traffic = tuple[int, int]  # packets, bytes


def object_bytes(name: str, folder: Path = OBJECTS) -> bytes:
    return (folder / f"{name}.o").read_bytes()


def read(name: str, program: str | None = None, folder: Path = OBJECTS, kernel: str = "uapi") -> ProgramSpec:
    """A program of an object; ``kernel`` names its types, empty for the running kernel's."""
    kernel_btf = str(TYPES / f"{kernel}.o") if kernel else None
    return read_object(object_bytes(name, folder), f"{name}.o", program=program, kconfig=SETTINGS, kernel_btf=kernel_btf)


def replayed(spec: ProgramSpec, capture: Path, engine: str) -> tuple[Replay, dict[str, dict[bytes, bytes]]]:
    """A capture run to its end; the contents of every map with keys."""
    with Session(spec, engine=engine, use_cache=False) as session, open_capture(str(capture)) as reader:
        run = Replay(session.loaded, session.maps)
        for _ in run.run(reader):
            pass
        run.finish()
        return run, {name: _contents(m) for name, m in session.maps.items() if m.spec.key_size}


def _contents(m: Map) -> dict[bytes, bytes]:
    return {k: v for k, v in entries(m) if isinstance(v, bytes)}


def counters(contents: dict[bytes, bytes]) -> dict[int, int]:
    """u32 keys and u64 values, those that are not 0."""
    pairs = {int.from_bytes(k, "little"): int.from_bytes(v, "little") for k, v in contents.items()}
    return {k: v for k, v in pairs.items() if v}


def flows(contents: dict[bytes, bytes]) -> dict[Flow, Traffic]:
    """The map of struct flow -> struct traffic."""
    return {struct.unpack("<IIHHI", k): struct.unpack("<QQ", v) for k, v in contents.items()}  # type: ignore[misc]


def flows_by_scapy(capture: Path) -> dict[Flow, Traffic]:
    """The flows of an Ethernet capture, as flow_hash.c says: behind any VLAN tags, GRE apart."""
    packets: Counter[Flow] = Counter()
    sizes: Counter[Flow] = Counter()
    for _, wirelen, data, _ in raw_packets(capture):
        frame = untagged(data)
        flow = _flow(Ether(frame)) if frame is not None else None
        if flow is not None:
            packets[flow] += 1
            sizes[flow] += wirelen - (len(data) - len(frame or b""))
    return {flow: (packets[flow], sizes[flow]) for flow in packets}


def _flow(frame: Packet) -> Flow | None:
    packet = frame.payload
    while isinstance(packet, Dot1Q | Dot1AD):
        packet = packet.payload
    if isinstance(packet, IP):
        ends = int.from_bytes(_ip(packet.src), "big"), int.from_bytes(_ip(packet.dst), "big")
        protocol, later = packet.proto, packet.frag
    elif isinstance(packet, IPv6):
        ends, protocol, later = (_fold(packet.src), _fold(packet.dst)), packet.nh, 0
    else:
        return None
    ports = (0, 0)
    if protocol in (6, 17) and not later:
        ports = struct.unpack(">HH", bytes(packet.payload)[:4])
    return (*ends, *ports, protocol)


def _ip(text: str) -> bytes:
    return socket.inet_aton(text)


def _fold(text: str) -> int:
    a, b, c, d = struct.unpack(">4I", socket.inet_pton(socket.AF_INET6, text))
    return int(a ^ b ^ c ^ d)
