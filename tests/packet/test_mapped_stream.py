"""A capture that is mapped reads as one that is copied: records, windows, batches, damage; also as it grows, and from stdin."""

from __future__ import annotations

import fcntl
import io
import os
import socket
import sys
from pathlib import Path

import pytest
from support.vectors import ROOT

from netbpf.errors import CaptureError
from netbpf.packet import stream
from netbpf.packet.capture import Window
from netbpf.packet.open import open_capture
from netbpf.packet.record import Record

PCAPS = sorted(p for p in (ROOT / "pcaps").iterdir() if ".pcap" in p.name and p.suffix != ".gz")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are mapped on Linux")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("MAPPED_FROM_BYTES", 1), ("MAPPED_BYTES", 4096), ("HUGE_PAGE_BYTES", 4096), ("PIECE_BYTES", 900)):
        monkeypatch.setattr(stream, name, size)


def records(source: Path | io.BytesIO | str) -> tuple[list[Record], str]:
    """Windows that nobody walks in odd steps, every record by the batches between, and the damage."""
    found: list[Record] = []
    try:
        with open_capture(source) as reader:
            for piece in reader.windows():
                if not isinstance(piece, Window):
                    found += [piece.record(i) for i in range(len(piece))]
    except CaptureError as e:
        return found, str(e).partition(": ")[2]
    return found, ""


@pytest.mark.parametrize("path", PCAPS, ids=lambda p: p.name)
def test_mapped_and_copied_read_alike(path: Path) -> None:
    copied = records(io.BytesIO(path.read_bytes()))
    assert records(path) == copied
    with open_capture(path) as reader:
        assert isinstance(reader._stream, stream.MappedStream)


def test_standard_input_is_mapped_from_where_it_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "led.pcap"
    path.write_bytes(bytes(5000) + (ROOT / "pcaps" / "session.pcap").read_bytes())
    with open(path, "rb") as f:
        f.seek(5000)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(f))
        assert records("-") == records(ROOT / "pcaps" / "session.pcap")


def test_a_file_that_grows_is_read_on(tmp_path: Path) -> None:
    whole = (ROOT / "pcaps" / "session.pcap").read_bytes()
    path = tmp_path / "growing.pcap"
    path.write_bytes(whole[:20000])
    found = 0
    with open_capture(path) as reader:
        for piece in reader.windows():
            if not isinstance(piece, Window):
                found += len(piece)
                path.write_bytes(whole)
    assert found == len(records(io.BytesIO(whole))[0])


def test_a_pipe_is_made_to_hold_more() -> None:
    capture = (ROOT / "pcaps" / "session.pcap").read_bytes()
    out, into = os.pipe()
    with os.fdopen(out, "rb") as file, os.fdopen(into, "wb") as writer:
        before = fcntl.fcntl(out, fcntl.F_GETPIPE_SZ)
        writer.write(capture[: min(before, len(capture))])
        writer.flush()
        with open_capture(file):
            assert fcntl.fcntl(out, fcntl.F_GETPIPE_SZ) > before


def test_what_is_no_pipe_is_left_alone() -> None:
    source, other = socket.socketpair()
    with source, other, source.makefile("rb") as file:
        other.sendall((ROOT / "pcaps" / "session.pcap").read_bytes()[:4000])
        other.close()
        with pytest.raises(CaptureError), open_capture(file) as reader:
            assert list(reader)
