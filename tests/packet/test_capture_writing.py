"""What is written comes back the same, and a file never starts with half a header."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tcpdump import needs_tcpdump, tcpdump_read
from support.vectors import ROOT

from netbpf.errors import UsageError
from netbpf.packet.open import create_capture, open_capture
from netbpf.packet.pcap import PcapWriter
from netbpf.packet.pcapng import PcapngWriter
from netbpf.packet.record import Record

U32 = st.integers(0, 0xFFFFFFFF)
PACKETS = st.tuples(st.integers(0, (0xFFFFFFFF + 1) * 10**9 - 1), U32, st.binary(max_size=80))
ORDERS = st.sampled_from(["little", "big"])


def read(data: bytes) -> list[Record]:
    return list(open_capture(io.BytesIO(data)))


def records(packets: list[tuple[int, int, bytes]], linktype: int) -> list[Record]:
    return [Record(i + 1, ts_ns, wirelen, data, linktype) for i, (ts_ns, wirelen, data) in enumerate(packets)]


@given(packets=st.lists(PACKETS, max_size=8), linktype=st.integers(0, 0xFFFF), nanosecond=st.booleans(), order=ORDERS)
def test_pcap_round_trip(packets: list[tuple[int, int, bytes]], linktype: int, nanosecond: bool, order: str) -> None:
    out, wanted = io.BytesIO(), records(packets, linktype)
    with PcapWriter(out, linktype, nanosecond=nanosecond, byteorder=order) as writer:
        for record in wanted:
            writer.write(record)
    unit = 1 if nanosecond else 1000
    assert read(out.getvalue()) == [r._replace(ts_ns=r.ts_ns // unit * unit) for r in wanted]
    assert writer.packets == len(wanted)


NG_PACKETS = st.builds(
    Record,
    number=st.just(0),
    ts_ns=st.integers(0, 2**64 - 1),
    wirelen=U32,
    data=st.binary(max_size=80),
    linktype=st.sampled_from([0, 1, 101, 113, 65535]),
    interface=st.integers(0, 2),
    direction=st.integers(0, 2),
)


@given(packets=st.lists(NG_PACKETS, max_size=8), order=ORDERS)
def test_pcapng_round_trip(packets: list[Record], order: str) -> None:
    out = io.BytesIO()
    with PcapngWriter(out, byteorder=order) as writer:
        for record in packets:
            writer.write(record)
    back = read(out.getvalue())
    assert [r._replace(number=0, interface=0) for r in back] == [r._replace(interface=0) for r in packets]
    met = {(a.linktype, a.interface, b.interface) for a, b in zip(packets, back, strict=True)}
    assert len(met) == len({m[:2] for m in met}) == len({m[2] for m in met}), "an interface for an interface"


@pytest.mark.parametrize("format", ["pcap", "pcapng"])
def test_a_verdict_cuts(format: str) -> None:
    out = io.BytesIO()
    with create_capture(out, format=format) as writer:
        for length in (None, 0, 3, 100, -1):
            writer.write(Record(1, 5, 60, b"abcdef"), length)
    assert [(r.data, r.wirelen) for r in read(out.getvalue())] == [(d, 60) for d in (b"abcdef", b"", b"abc", b"abcdef", b"")]


@pytest.mark.parametrize("format", ["pcap", "pcapng"])
def test_the_header_is_there_at_once(format: str, tmp_path: Path) -> None:
    writer = create_capture(tmp_path / "x", format=format)
    assert read((tmp_path / "x").read_bytes()) == []
    writer.write(Record(1, 5, 60, b"abcdef"))
    writer.flush()
    assert len(read((tmp_path / "x").read_bytes())) == 1
    writer.close()


def test_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    with pytest.raises(UsageError, match="link types 0 to 65535"):
        PcapWriter(path, 65536)
    with pytest.raises(UsageError, match="pcap or pcapng"):
        create_capture(path, format="erf")
    assert not path.exists()
    with pytest.raises(UsageError, match="not int"):
        PcapWriter(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [Record(1, 0, 1, b"x", 101), Record(1, -1, 1, b"x"), Record(1, 2**32 * 10**9, 1, b"x")])
def test_what_pcap_cannot_hold(bad: Record) -> None:
    out = io.BytesIO()
    writer = PcapWriter(out)
    with pytest.raises(UsageError, match=r"one link type|from 1970 to 2106"):
        writer.write(bad)
    assert len(out.getvalue()) == 24


@pytest.mark.parametrize("bad", [Record(1, -1, 1, b"x"), Record(1, 2**64, 1, b"x"), Record(1, 0, 1, b"x", 65536)])
def test_what_pcapng_cannot_hold(bad: Record) -> None:
    out = io.BytesIO()
    with PcapngWriter(out) as writer, pytest.raises(UsageError, match=r"64 bits|link types"):
        writer.write(bad)
    assert len(out.getvalue()) == 28


def test_the_suffix_chooses_the_format(tmp_path: Path) -> None:
    for name, magic in (
        ("a.pcapng", b"\n\r\r\n"),
        ("a.pcap", struct.pack("<I", 0xA1B23C4D)),
        ("a", struct.pack("<I", 0xA1B23C4D)),
    ):
        create_capture(tmp_path / name).close()
        assert (tmp_path / name).read_bytes()[:4] == magic


def test_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out))
    with create_capture("-") as writer:
        writer.write(Record(1, 7, 60, b"abcdef"))
    assert [r.ts_ns for r in read(out.getvalue())] == [7]


@needs_tcpdump
@pytest.mark.parametrize("name", ["session.pcap", "vlan.pcap", "block-kinds.pcapng", "runts.pcap"])
@pytest.mark.parametrize("format", ["pcap", "pcapng"])
def test_tcpdump_reads_what_we_write(name: str, format: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    with open_capture(ROOT / "pcaps" / name) as reader:
        source = list(reader)
    with create_capture(path, format=format) as writer:
        for record in source:
            writer.write(record)
    packets, error = tcpdump_read(path)
    assert not error
    assert [tuple(p) for p in packets] == [(r.ts_ns, r.wirelen, r.data) for r in source]
