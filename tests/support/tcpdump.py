"""tcpdump -r as the judge of what a capture holds, and how tests skip without it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

needs_tcpdump = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
NANOSECOND_MAGICS = (b"\x0a\x0d\x0d\x0a", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d")


class Seen(NamedTuple):
    """A packet as tcpdump read it; ``ts_ns`` modulo the 32-bit seconds of the file it writes."""

    ts_ns: int
    wirelen: int
    data: bytes


def wrapped(ts_ns: int) -> int:
    """A time as it survives a pcap file: seconds modulo 2**32."""
    return ts_ns % (10**9 << 32)


def tcpdump_read(path: Path) -> tuple[list[Seen], str]:
    """The packets of ``path`` that tcpdump reads, and its error, empty if it read to the end."""
    with open(path, "rb") as f:
        nano = f.read(4) in NANOSECOND_MAGICS
    precision = ["--time-stamp-precision=nano"] if nano else []
    run = subprocess.run(["tcpdump", "-r", str(path), "-w", "-", *precision], capture_output=True, timeout=60)
    out, at, packets = run.stdout, 24, []
    while at + 16 <= len(out):
        seconds, fraction, caplen, wirelen = struct.unpack_from("<IIII", out, at)
        at += 16 + caplen
        ts_ns = seconds * 10**9 + fraction * (1 if nano else 1000)
        packets.append(Seen(wrapped(ts_ns), wirelen, out[at - caplen : at]))
    return packets, run.stderr.decode().strip().splitlines()[-1] if run.returncode else ""
