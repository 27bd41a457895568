#!/usr/bin/env python3
"""How fast captures are read in Python: our records and batches beside scapy's raw reader, on one trace in a file.

Run: benchmarks/reading.py [packets]. Prints packets a second of CPU time of each way and its ratio to scapy's.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from netbpf.packet.open import create_capture, open_capture
from netbpf.packet.record import Record

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

SIZES = (60, 60, 66, 120, 590, 1514)


def write_trace(path: Path, packets: int) -> None:
    frames = [bytes.fromhex("020000000001020000000002") + b"\x08\x00" + bytes(n - 14) for n in SIZES]
    with create_capture(path) as out:
        for i in range(packets):
            frame = frames[i * 7 % len(frames)]
            out.write(Record(i + 1, 1_700_000_000_000_000_000 + i * 1000, len(frame), frame))


def by_records(path: Path) -> int:
    with open_capture(path) as reader:
        return sum(1 for _ in reader)


def by_batches(path: Path) -> int:
    with open_capture(path) as reader:
        return sum(len(batch) for batch in reader.batches())


def by_scapy(path: Path) -> int:
    from scapy.utils import RawPcapReader

    with RawPcapReader(str(path)) as reader:
        return sum(1 for _ in reader)


def best_rate(read: Callable[[Path], int], path: Path, packets: int) -> float:
    """Packets a second, the best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        count = read(path)
        best = min(best, time.process_time() - start)
        if count != packets:
            raise SystemExit(f"{read.__name__} read {count} of {packets} packets")
    return packets / best


def main(packets: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for suffix in ("pcap", "pcapng"):
            path = Path(directory) / f"trace.{suffix}"
            write_trace(path, packets)
            rates = {read.__name__: best_rate(read, path, packets) for read in (by_scapy, by_records, by_batches)}
            for name, rate in rates.items():
                print(
                    f"{suffix:7} {name:11} {rate / 1e6:6.2f} M packets/s  {rate / rates['by_scapy']:5.2f} x scapy's RawPcapReader"
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300_000)
