#!/usr/bin/env python3
"""The manual page's example live: a TAP in a namespace, mixed traffic written in, and our counts beside the kernel's.

    scripts/live_counts.py [--frames 100000]

Listening by the ring, listening with `--backend kernel` and `both`, and in line with `both`: each prints how many packets it
judged, what the map counted and how long it took; exit 1 where counts are not equal, or packets were lost. The traffic is every
Ethernet frame of pcaps/ that a device takes, over and over. Needs root; whatever it makes is gone at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from netbpf.packet.open import create_capture, open_capture  # noqa: E402
from netbpf.packet.record import Record  # noqa: E402

LONGEST = 1514
SHORTEST = 20
WAYS = {
    "listening, sim (ring)": [],
    "listening, kernel": ["--backend", "kernel"],
    "listening, both": ["--backend", "both"],
    "in line, sim": ["--in-line", "--forward", "tap:nblive1"],
    "in line, both": ["--in-line", "--forward", "tap:nblive1", "--backend", "both"],
}


def frames() -> list[bytes]:
    """Every whole Ethernet frame of the shipped captures that a device of the usual MTU takes."""
    found = []
    for path in sorted((ROOT / "pcaps").glob("*.pcap*")):
        if "damaged" in path.name:
            continue
        with open_capture(path) as reader:
            found += [r.data for r in reader if r.linktype == 1 and r.caplen == r.wirelen and SHORTEST <= r.caplen <= LONGEST]
    return found


def write_traffic(path: Path, count: int) -> None:
    with create_capture(path, 1) as out:
        for number, frame in enumerate(islice(cycle(frames()), count), 1):
            out.write(Record(number, number * 1000, len(frame), frame))


def run(way: list[str], capture: Path) -> dict[str, Any]:
    """The last line of `netbpf attach --json`."""
    command = [sys.executable, "-m", "netbpf", "attach", "nblive0", "--tap", "--netns", f"nblive-{os.getpid()}"]
    command += ["--prog", str(ROOT / "scenarios" / "counting.s"), "--feed", str(capture), "--json", "--interval", "60", *way]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    count, wrong = parser.parse_args().frames, 0
    counts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        capture = Path(folder) / "mixed.pcap"
        write_traffic(capture, count)
        for name, way in WAYS.items():
            started = time.monotonic()
            told = run(way, capture)
            counts[name] = sorted((e["key"], e["value"]) for e in told["maps"]["counts"])
            words = " ".join(f"{int(k[:2], 16)}={int.from_bytes(bytes.fromhex(v), 'little')}" for k, v in counts[name])
            whole = told["packets"] == count and not told["kernel_drops"]
            agree = told.get("difference") is None
            wrong += not (whole and agree)
            print(
                f"{name}: {told['packets']} packets, {told['kernel_drops']} lost, {words}, {time.monotonic() - started:.1f} s"
                + ("" if agree else f": {told['difference']}"),
                flush=True,
            )
    equal = len({tuple(rows) for rows in counts.values()}) == 1
    print("all counts equal" if equal and not wrong else "NOT equal, or not whole")
    return 0 if equal and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
