"""What we read of good, broken and cut captures against what tcpdump reads."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from support.tcpdump import Seen, needs_tcpdump, tcpdump_read, wrapped
from support.vectors import ROOT, vectors_dir

from netbpf.errors import CaptureError
from netbpf.packet.open import open_capture

pytestmark = needs_tcpdump

# what libpcap 1.10 refuses and we read on purpose: kinds of link unknown to it, and pcapng beyond one interface
OURS_ALONE = (
    "unknown data link type",
    "no Interface Description Blocks",
    "different from the type of the first interface",
    "different from the snapshot length of the first interface",
    "different byte order",
    "resolution",
)


def ours(path: Path) -> tuple[list[Seen], str]:
    packets: list[Seen] = []
    try:
        with open_capture(path) as reader:
            packets.extend(Seen(wrapped(r.ts_ns), r.wirelen, r.data) for r in reader)
    except CaptureError as e:
        return packets, str(e)
    return packets, ""


def assert_as_tcpdump(path: Path) -> None:
    theirs, their_error = tcpdump_read(path)
    mine, my_error = ours(path)
    if any(reason in their_error for reason in OURS_ALONE):
        assert mine[: len(theirs)] == theirs
        return
    assert [p[1:] for p in mine] == [p[1:] for p in theirs], (their_error, my_error)
    assert bool(my_error) == bool(their_error), (their_error, my_error)
    assert [p.ts_ns for p in mine] == [p.ts_ns for p in theirs]


@pytest.mark.vectors
def test_the_packets_of_400_crafted_captures() -> None:
    paths = sorted((vectors_dir() / "pcaps").iterdir())
    assert len(paths) > 400
    for path in paths:
        assert_as_tcpdump(path)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to three wounds: a byte, a cut, a number that matters, bytes lost, bytes added."""
    wounded = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        near = min(len(wounded), rng.choice([24, 60, 200, len(wounded)]))
        at, kind = rng.randrange(len(wounded)), rng.randrange(5)
        if kind == 0:
            wounded[rng.randrange(near)] = rng.randrange(256)
        elif kind == 1:
            wounded = wounded[: at + 1]
        elif kind == 2:
            word = rng.choice(NUMBERS)
            at = rng.randrange(near) & ~3
            wounded[at : at + 4] = struct.pack("<I", word)
        elif kind == 3:
            del wounded[at : at + rng.randrange(1, 9)]
        else:
            wounded[at:at] = rng.randbytes(rng.randrange(1, 9))
        wounded = wounded or bytearray(b"\0")
    return bytes(wounded)


NUMBERS = (
    *(0, 1, 2, 3, 5, 6, 8, 10, 12, 16, 20, 28, 32, 33, 0xFFFF, 0x40000, 0x40001, 0x1000000, 0x1000004),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x0A0D0D0A),
)


@pytest.mark.parametrize("suffix", [".pcap", ".pcapng"])
def test_wounded_captures(suffix: str, tmp_path: Path) -> None:
    sources = [p for p in sorted((ROOT / "pcaps").iterdir()) if p.suffix == suffix and p.stat().st_size < 50_000]
    sources = [p for p in sources if not tcpdump_read(p)[1]]  # libpcap refuses several interfaces and mixed byte orders
    assert sources
    for seed in range(150):
        rng = random.Random(f"{suffix}{seed}")
        source = rng.choice(sources)
        path = tmp_path / f"{seed}-{source.name}"
        path.write_bytes(mutate(source.read_bytes(), rng))
        assert_as_tcpdump(path)
        path.unlink()


def pcap_header(
    magic: int = 0xA1B2C3D4, minor: int = 4, snaplen: int = 65535, linktype: int = 1, order: str = "<", major: int = 2
) -> bytes:
    return struct.pack(order + "IHHIIII", magic, major, minor, 0, 0, snaplen, linktype)


def pcap_record(
    caplen: int, wirelen: int, *, order: str = "<", extra: bytes = b"", fraction: int = 2, held: int | None = None
) -> bytes:
    return struct.pack(order + "IIII", 1, fraction, caplen, wirelen) + extra + b"\xaa" * (caplen if held is None else held)


ODD_FILES = {
    "longer than snaplen": pcap_header(snaplen=10) + pcap_record(60, 60) + pcap_record(5, 7),
    "longer than snaplen, cut behind it": pcap_header(snaplen=10) + pcap_record(60, 60, held=30),
    "longer than snaplen, cut before it": pcap_header(snaplen=10) + pcap_record(60, 60, held=6),
    "snaplen 0": pcap_header(snaplen=0) + pcap_record(60, 60),
    "snaplen negative": pcap_header(snaplen=0xFFFFFFFF) + pcap_record(60, 60),
    "captured more than was there": pcap_header() + pcap_record(60, 20) + pcap_record(5, 5),
    "as long as can be": pcap_header(snaplen=1 << 20) + pcap_record(262144, 262144),
    "too long": pcap_header(snaplen=1 << 20) + pcap_record(4, 4) + pcap_record(262145, 262145),
    "4 GB": pcap_header() + pcap_record(60, 60) + pcap_record(0xFFFFFFFF, 60, held=100),
    "long DBUS": pcap_header(linktype=231, snaplen=1 << 28) + pcap_record(300000, 300000),
    "long USBPcap": pcap_header(linktype=249, snaplen=1 << 28) + pcap_record(300000, 300000),
    "long EBHSCR": pcap_header(linktype=279, snaplen=1 << 28) + pcap_record(300000, 300000),
    "version 2.3, sorted": pcap_header(minor=3) + pcap_record(50, 60) + pcap_record(60, 50, held=50) + pcap_record(1, 1),
    "version 2.2, exchanged": pcap_header(minor=2) + pcap_record(80, 60, held=60) + pcap_record(5, 5),
    "version 543.0": pcap_header(major=543, minor=0) + pcap_record(80, 60, held=60),
    "version 2.5": pcap_header(minor=5) + pcap_record(60, 60),
    "version 1.0": pcap_header(major=1, minor=0) + pcap_record(60, 60),
    "version 3.0": pcap_header(major=3, minor=0) + pcap_record(60, 60),
    "modified": pcap_header(magic=0xA1B2CD34) + 2 * pcap_record(60, 60, extra=b"\1\0\0\0\0\x08\0\0"),
    "modified, longer than snaplen": pcap_header(magic=0xA1B2CD34, snaplen=20) + 2 * pcap_record(60, 60, extra=bytes(8)),
    "nanoseconds": pcap_header(magic=0xA1B23C4D) + pcap_record(60, 60, fraction=999999999),
    "more than a second of nanoseconds": pcap_header(magic=0xA1B23C4D) + pcap_record(60, 60, fraction=1999999999),
    "big-endian": pcap_header(order=">") + pcap_record(60, 60, order=">"),
    "big-endian nanoseconds": pcap_header(magic=0xA1B23C4D, order=">") + pcap_record(60, 60, order=">"),
    "FCS bits": pcap_header(linktype=0x24000001) + pcap_record(60, 60),
    "no packets": pcap_header(),
    "cut in the header": pcap_header()[:20],
    "cut in the magic": pcap_header()[:2],
    "empty": b"",
    "text": b"hello, world, I am no capture\n",
    "cut in a record header": pcap_header() + pcap_record(60, 60) + pcap_record(60, 60)[:10],
    "cut in a record": pcap_header() + pcap_record(60, 60) + pcap_record(60, 60)[:30],
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_pcap_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.pcap"
    path.write_bytes(ODD_FILES[name])
    assert_as_tcpdump(path)
