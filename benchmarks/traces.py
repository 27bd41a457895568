"""Traces to measure on, from a seed: ``mixed`` (60 to 1514 bytes) and ``small`` (64), 50000 flows of TCP, UDP, ICMP, ARP and
IPv6, one in twenty with a VLAN tag; popular flows take most of the packets.

    python -m benchmarks.traces DIR [--mixed 5000000] [--small 10000000] [--seed 1]
"""

from __future__ import annotations

import argparse
import random
import struct
from pathlib import Path

FLOWS = 50_000
PORTS = (443, 443, 443, 80, 53, 22, 123, 8080)
FIRST_OCTETS = (10, 192, 172, 8, 93, 142)
SMALL_BYTES = 64
FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
LOT = 100_000
START_S = 1_700_000_000


def _mixed_size(rng: random.Random) -> int:
    pick = rng.random()
    if pick < 0.40:
        return 60
    if pick < 0.75:
        return rng.randrange(64, 600)
    return rng.randrange(600, 1400) if pick < 0.88 else 1514


def _address(rng: random.Random) -> bytes:
    return bytes([rng.choice(FIRST_OCTETS), rng.randrange(256), rng.randrange(256), rng.randrange(1, 255)])


def _ports(rng: random.Random) -> tuple[int, int]:
    client, server = rng.randrange(1024, 65536), rng.choice((*PORTS, rng.randrange(1024, 65536)))
    return (client, server) if rng.random() < 0.5 else (server, client)


def _transport(rng: random.Random, protocol: int, room: int) -> bytes:
    source, destination = _ports(rng)
    if protocol == 6:
        return struct.pack(">HHIIBBHHH", source, destination, rng.getrandbits(32), rng.getrandbits(32), 0x50, 0x10, 65535, 0, 0)
    if protocol == 17:
        return struct.pack(">HHHH", source, destination, max(room, 8), 0)
    return struct.pack(">BBHHH", 8, 0, 0, rng.getrandbits(16), 1)


def _frame(rng: random.Random, size: int) -> bytes:
    """One packet of a new flow, padded to ``size`` bytes."""
    link = bytes([2, 0, 0, 0, 0, rng.randrange(256), 2, 0, 0, 0, 1, rng.randrange(256)])
    if rng.random() < 0.05:
        link += b"\x81\x00" + struct.pack(">H", rng.randrange(1, 4095))
    kind = rng.random()
    if kind < 0.85:
        protocol = 6 if kind < 0.60 else 17 if kind < 0.80 else 1
        room = max(size - len(link) - 22, 20)
        ip = struct.pack(">BBHHHBBH", 0x45, 0, room + 20, 1, 0x4000, 64, protocol, 0) + _address(rng) + _address(rng)
        body = link + b"\x08\x00" + ip + _transport(rng, protocol, room)
    elif kind < 0.88:
        arp = struct.pack(">HHBBH", 1, 0x800, 6, 4, 1) + link[6:12] + _address(rng) + bytes(6) + _address(rng)
        body = link + b"\x08\x06" + arp
    else:
        protocol = rng.choice((6, 6, 17, 58))
        room = max(size - len(link) - 42, 20)
        prefix = b"\x20\x01\x0d\xb8"
        ip = struct.pack(">IHBB", 0x60000000, room, protocol, 64) + prefix + rng.randbytes(12) + prefix + rng.randbytes(12)
        body = link + b"\x86\xdd" + ip + _transport(rng, protocol, room)
    return body[:size].ljust(size, b"\x55")


def write_trace(path: Path, packets: int, kind: str, seed: int = 1) -> None:
    """A little-endian pcap of ``packets`` packets, 10 us apart, kind "mixed" or "small"."""
    rng = random.Random(seed)
    sizes = (lambda: SMALL_BYTES) if kind == "small" else (lambda: _mixed_size(rng))
    frames = [_frame(rng, sizes()) for _ in range(FLOWS)]
    rows = [struct.pack("<II", len(f), len(f)) + f for f in frames]
    stamp = struct.Struct("<II").pack
    pick, count = rng.random, len(rows)
    with open(path, "wb", buffering=1 << 22) as out:
        out.write(FILE_HEADER)
        for first in range(0, packets, LOT):
            second, lot = START_S + first // LOT, []
            for i in range(min(LOT, packets - first)):
                where = pick()
                lot.append(stamp(second, i * 10))
                lot.append(rows[int(count * where * where)])
            out.write(b"".join(lot))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("--mixed", type=int, default=5_000_000)
    p.add_argument("--small", type=int, default=10_000_000)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    write_trace(a.folder / "mixed.pcap", a.mixed, "mixed", a.seed)
    write_trace(a.folder / "small.pcap", a.small, "small", a.seed)
    write_trace(a.folder / "mixed-100k.pcap", 100_000, "mixed", a.seed)


if __name__ == "__main__":
    main()
