"""Reading by records, batches and windows, from every kind of source; what damage is told; progress."""

from __future__ import annotations

import gzip
import io
import os
import runpy
import struct
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from support.dissect import raw_packets
from support.vectors import ROOT

from netbpf.errors import CaptureError, UsageError
from netbpf.packet.batch import PacketBatch
from netbpf.packet.capture import CaptureReader, Window
from netbpf.packet.layout import RecordLayout
from netbpf.packet.open import open_capture
from netbpf.packet.record import Record

PCAPS = ROOT / "pcaps"
GOOD = sorted(p.name for p in PCAPS.iterdir() if p.suffix != ".md" and not p.name.startswith("damaged"))
DAMAGED = {
    "damaged.pcap": (46, 19793, "1514 bytes", "207 bytes"),
    "damaged.pcap.gz": (198, 4000, "the rest of the stream", "end of file"),
    "damaged.pcapng": (20, 3092, "at most 16777216 bytes", "4294967280"),
}


def records(source: object) -> tuple[list[Record], CaptureError | None]:
    """All records and the damage behind them."""
    got: list[Record] = []
    try:
        with open_capture(source) as reader:  # type: ignore[arg-type]
            got.extend(reader)
    except CaptureError as e:
        return got, e
    return got, None


def rows(batch: PacketBatch) -> Iterator[Record]:
    for i in range(len(batch)):
        yield Record(
            batch.first_number + i,
            batch.ts_ns[i],
            batch.wirelen[i],
            batch.data(i),
            batch.linktype,
            batch.interface[i],
            batch.direction[i],
        )


def from_batches(reader: CaptureReader, **limits: int) -> Iterator[Record]:
    for batch in reader.batches(**limits):
        yield from rows(batch)


def walk(window: Window, at_most: int = 1 << 30) -> Iterator[Record]:
    """What a native loop does with a window, by the layout alone."""
    layout, order = window.layout, "<" if window.layout.byteorder == "little" else ">"
    step = walk_pcap if layout.kind == "pcap" else walk_pcapng
    number, at = window.first_number, window.start
    while number - window.first_number < at_most and (found := step(window.buffer, at, window.end, layout, order)):
        size, ts_ns, wirelen, data, interface = found
        row = layout.interfaces[interface]
        yield Record(number, ts_ns, wirelen, data, row.linktype, layout.first_interface + interface)
        number, at = number + 1, at + size
    window.advance(at - window.start, number - window.first_number)


def walk_pcap(
    buffer: bytes | bytearray, at: int, end: int, layout: RecordLayout, order: str
) -> tuple[int, int, int, bytes, int] | None:
    if at + layout.header_bytes > end:
        return None
    seconds, fraction, caplen, wirelen = struct.unpack_from(order + "4I", buffer, at)
    if layout.wirelen_first:
        caplen, wirelen = wirelen, caplen
    size, row = layout.header_bytes + caplen, layout.interfaces[0]
    if caplen > layout.max_caplen or at + size > end:
        return None
    data = bytes(buffer[at + layout.header_bytes : at + size])[: row.snaplen]
    return size, seconds * 10**9 + fraction * row.ts_multiplier, wirelen, data, 0


def walk_pcapng(
    buffer: bytes | bytearray, at: int, end: int, layout: RecordLayout, order: str
) -> tuple[int, int, int, bytes, int] | None:
    if at + 32 > end:
        return None
    kind, total, interface, high, low, caplen, wirelen = struct.unpack_from(order + "7I", buffer, at)
    if kind != 6 or interface >= len(layout.interfaces) or total != 32 + -(-caplen // 4) * 4 or at + total > end:
        return None
    row = layout.interfaces[interface]
    if caplen > row.snaplen or struct.unpack_from(order + "I", buffer, at + total - 4)[0] != total:
        return None
    ts_ns = (high << 32 | low) * row.ts_multiplier // row.ts_divisor + row.ts_offset_ns
    return total, ts_ns, wirelen, bytes(buffer[at + 28 : at + 28 + caplen]), interface


def from_windows(reader: CaptureReader, at_most: int = 1 << 30) -> Iterator[Record]:
    for part in reader.windows():
        yield from walk(part, at_most) if isinstance(part, Window) else rows(part)


# scapy knows no modified pcap, no obsolete blocks and time offsets of pcapng, and no packet over 65535 bytes
UNKNOWN_TO_SCAPY = ("modified.pcap", "block-kinds.pcapng", "sections.pcapng", "two-interfaces.pcapng", "jumbo.pcap")


@pytest.mark.parametrize("name", [name for name in GOOD if name not in UNKNOWN_TO_SCAPY])
def test_scapy_reads_the_same(name: str) -> None:
    got, damage = records(PCAPS / name)
    assert damage is None
    assert [(r.ts_ns, r.wirelen, r.data, r.linktype) for r in got] == raw_packets(PCAPS / name)


@pytest.mark.parametrize("name", [*GOOD, *DAMAGED])
def test_batches_and_windows_give_what_records_give(name: str) -> None:
    expected, damage = records(PCAPS / name)
    ways = {
        "batches": lambda r: from_batches(r),
        "small batches": lambda r: from_batches(r, max_packets=3),
        "short batches": lambda r: from_batches(r, max_bytes=100),
        "windows": lambda r: from_windows(r),
        "windows left early": lambda r: from_windows(r, 5),
    }
    for way, read in ways.items():
        got: list[Record] = []
        with open_capture(PCAPS / name) as reader:
            if damage is None:
                got.extend(read(reader))
            else:
                with pytest.raises(CaptureError) as caught:
                    got.extend(read(reader))
                assert str(caught.value) == str(damage), way
        assert got == expected, way


def test_the_ways_of_reading_share_one_position() -> None:
    expected, _ = records(PCAPS / "session.pcap")
    with open_capture(PCAPS / "session.pcap") as reader:
        got = [next(iter(reader)), next(iter(reader))]
        got += rows(next(iter(reader.batches(max_packets=10))))
        for part in reader.windows():
            assert isinstance(part, Window)
            got += walk(part, 20)
            if len(got) > 60:
                break
        got += reader
    assert got == expected


@pytest.mark.parametrize("name", ["session.pcap", "session.pcap.gz", "two-interfaces.pcapng"])
def test_a_pipe_a_file_object_and_stdin_read_as_a_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = records(PCAPS / name)
    data = (PCAPS / name).read_bytes()
    assert records(io.BytesIO(data))[0] == expected
    assert records(OnlyRead(data))[0] == expected
    read_end, write_end = os.pipe()

    def feed() -> None:
        with open(write_end, "wb", buffering=0) as out:
            for i in range(0, len(data), 4093):
                out.write(data[i : i + 4093])

    thread = threading.Thread(target=feed)
    thread.start()
    with open(read_end, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        assert records("-")[0] == expected
        thread.join()


class OnlyRead:
    """The least a file object can be, giving little at a time."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, n: int) -> bytes:
        return self._file.read(min(n, 1000))


def test_gzip_of_several_members_with_padding() -> None:
    data = (PCAPS / "session.pcap").read_bytes()
    expected, _ = records(io.BytesIO(data))
    joined = gzip.compress(data[:1000]) + gzip.compress(b"") + gzip.compress(data[1000:]) + bytes(512)
    assert records(io.BytesIO(joined)) == (expected, None)


def test_a_damaged_gzip_stream_gives_what_came_before() -> None:
    squeezed = bytearray(gzip.compress((PCAPS / "session.pcap").read_bytes()))
    squeezed[len(squeezed) // 2] ^= 0xFF
    expected, _ = records(PCAPS / "session.pcap")
    got, damage = records(io.BytesIO(bytes(squeezed)))
    assert damage is not None
    assert got == expected[: len(got)]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damage_tells_offset_wanted_and_got(name: str) -> None:
    packets, offset, wanted, got = DAMAGED[name]
    read, damage = records(PCAPS / name)
    assert damage is not None
    assert (len(read), damage.offset, damage.wanted, damage.got) == (packets, offset, wanted, got)
    assert damage.path == str(PCAPS / name)
    assert str(damage.offset) in str(damage)
    assert wanted in str(damage)


@pytest.mark.parametrize("name", GOOD)
def test_progress_ends_at_the_size(name: str) -> None:
    with open_capture(PCAPS / name) as reader:
        size, last = (PCAPS / name).stat().st_size, 0
        for i, record in enumerate(reader):
            assert record.number == i + 1 == reader.packets
            done = reader.progress()[0]
            assert last <= done <= size
            last = done
        assert reader.progress() == (size, size)


def test_progress_of_a_stream_has_no_size() -> None:
    with open_capture(io.BytesIO((PCAPS / "vlan.pcap").read_bytes())) as reader:
        assert reader.progress()[1] is None


def test_links_and_interfaces_of_pcapng() -> None:
    with open_capture(PCAPS / "two-interfaces.pcapng") as reader:
        assert (reader.format, reader.linktype) == ("pcapng", 1)
        got = list(reader)
    assert {(r.interface, r.linktype) for r in got} == {(0, 1), (1, 101)}
    assert {r.direction for r in got if r.interface == 0} == {1, 2}
    assert all(r.caplen <= 96 for r in got if r.interface == 1)
    times = [r.ts_ns for r in got]
    assert min(times) >= 1_700_000_000 * 10**9
    assert max(times) < 1_700_000_002 * 10**9
    pairs = [(a, b) for a, b in pairwise(got) if (a.interface, b.interface) == (0, 1)]
    assert pairs
    assert all(abs(b.ts_ns - a.ts_ns - 1_000_000) < 2000 for a, b in pairs), "the same packet a millisecond later"


def test_sections_keep_their_byte_order_and_count_interfaces_on() -> None:
    got, damage = records(PCAPS / "sections.pcapng")
    assert damage is None
    assert len(got) == 8
    assert [r.interface for r in got] == [0] * 4 + [1] * 4
    assert [(r.ts_ns, r.data, r.wirelen, r.direction) for r in got[:4]] == [
        (r.ts_ns, r.data, r.wirelen, r.direction) for r in got[4:]
    ]


def test_a_claim_of_gigabytes_allocates_nothing() -> None:
    header = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 0x7FFFFFFF, 249)  # USBPcap: 128 MB are believed
    claims = header + struct.pack("<IIII", 1, 2, 128 << 20, 128 << 20) + bytes(100)
    section = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    block = section + struct.pack("<II", 5, 16 << 20) + bytes(100)
    bomb = gzip.compress(header + bytes(200 << 20))
    for data in (claims, block, bomb):
        tracemalloc.start()
        try:
            got, damage = [], None
            try:
                for record in open_capture(io.BytesIO(data)):
                    got.append(len(record.data))
                    if len(got) > 1000:
                        break
            except CaptureError as e:
                damage = e
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
        assert damage is not None or len(got) > 1000


def test_what_is_no_capture(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"unknown file format: wanted .*, got 68656c6c"):
        open_capture(io.BytesIO(b"hello"))
    with pytest.raises(CaptureError, match="got 0 bytes"):
        open_capture(io.BytesIO(b""))
    with pytest.raises(FileNotFoundError):
        open_capture(tmp_path / "nothing.pcap")
    with pytest.raises(IsADirectoryError):
        open_capture(tmp_path)
    with pytest.raises(UsageError, match="not int"):
        open_capture(7)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="gave str"):
        open_capture(io.StringIO("text"))  # type: ignore[arg-type]


def test_a_non_blocking_stream_is_refused() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    with open(read_end, "rb", buffering=0) as pipe, pytest.raises(UsageError, match="blocking"):
        open_capture(pipe)
    os.close(write_end)


def test_a_given_file_is_left_open() -> None:
    given = io.BytesIO((PCAPS / "vlan.pcap").read_bytes())
    with open_capture(given):
        pass
    assert not given.closed


def test_the_captures_are_what_the_script_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["make_pcaps.py", str(tmp_path)])
    runpy.run_path(str(ROOT / "scripts" / "make_pcaps.py"), run_name="__main__")
    made = {p.name: p for p in tmp_path.iterdir()}
    assert set(made) == {p.name for p in PCAPS.iterdir()}
    for name, path in made.items():
        if not name.endswith((".gz", ".md")):  # how well deflate squeezes is not fixed
            assert path.read_bytes() == (PCAPS / name).read_bytes(), name
