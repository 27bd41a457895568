"""`netbpf views`: which packets the file and the socket disagree about, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.libpcap import needs_libpcap
from support.vectors import ROOT

from netbpf.cli.main import main
from netbpf.engine.choose import get_engine
from netbpf.env import SteppedEnv
from netbpf.packet.open import create_capture, open_capture
from netbpf.packet.record import Record
from netbpf.replay.filtered import Expression, FilteredStream

PCAPS = ROOT / "pcaps"
pytestmark = needs_libpcap


def views(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["views", *words])
    out, err = capsys.readouterr()
    return code, out, err


def differing(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    code, out, err = views(capsys, "--json", *words)
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()][:-1]


def test_a_moved_tag_is_told_with_the_load_that_met_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = views(capsys, str(PCAPS / "vlan.pcap"), "--filter", "vlan", "-c", "1")
    assert code == 0
    assert out.splitlines() == [
        "packet 1: file 262144, socket 0",
        "    at (000) ldh      [12]",
        "    0x8100 in the file, 0x800 at the socket",
        "    the 802.1Q tag (VLAN 5) is in the file's packet and beside the socket's: there the inner type 0x0800 is at 12 and"
        " all behind it 4 bytes earlier",
        "1 of 1 packets depend on the view",
    ]


def test_every_packet_that_differs_is_listed_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("vlan.pcap", "ip"), ("qinq.pcap", "vlan and vlan"), ("session.pcap", "tcp"), ("cooked2.pcap", "ip6")):
        kept = [_accepted(str(PCAPS / name), view, text) for view in ("file", "socket")]
        told = {row["number"] for row in differing(capsys, str(PCAPS / name), "--filter", text)}
        assert told == kept[0] ^ kept[1]


def _accepted(capture: str, view: str, text: str) -> set[int]:
    with open_capture(capture) as reader:
        stream = FilteredStream(Expression(text, view), get_engine("interp"), SteppedEnv(1), max(reader.linktype, 0))
        return {batch.first_number + i for batch in reader.batches() for i, v in enumerate(stream.run(batch).verdict) if v}


def test_ancillary_loads_and_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tagged = tmp_path / "tag.s"
    tagged.write_text("ld vlan_avail\njeq #1, keep, drop\nkeep: ret #-1\ndrop: ret #0\n")
    filter_file = tagged.rename(tmp_path / "tag.cbpf")
    [row, *_] = differing(capsys, str(PCAPS / "vlan.pcap"), "--prog", str(filter_file))
    assert (row["file"], row["socket"]) == (0, 0xFFFFFFFF)
    assert str(row["at"]).startswith("(000) ld")
    assert "ends the program with 0 in the file" in row["reasons"][0]  # type: ignore[index]
    length = tmp_path / "len.s"
    length.write_text("r0 = *(u32 *)(r1 + 0)\nexit\n")
    [row, *_] = differing(capsys, str(PCAPS / "vlan.pcap"), "--prog", str(length))
    assert int(str(row["file"])) == int(str(row["socket"])) + 4
    assert str(row["at"]).startswith("0: ")


def test_packets_no_socket_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "short.pcap"
    with create_capture(str(path)) as writer:
        writer.write(Record(1, 0, 13, bytes(13)))
        writer.write(Record(2, 0, 60, bytes(60)))
    [row] = differing(capsys, str(path), "--filter", "less 100")
    assert row["number"] == 1
    assert row["reasons"] == ["a frame of 13 bytes that the device or the kernel drops before any socket"]


def test_another_link_header(capsys: pytest.CaptureFixture[str]) -> None:
    rows = differing(capsys, str(PCAPS / "cooked2.pcap"), "--filter", "link[0] = 0x08")
    assert rows
    assert any("has an Ethernet header in place of the capture's link header" in str(row["reasons"]) for row in rows)
    assert any("is without the capture's link header" in str(row["reasons"]) for row in rows)


def test_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = views(capsys, str(PCAPS / "vlan.pcap"), "--filter", "ip6 protochain 6")
    assert (code, out) == (65, "")
    assert "at a socket the kernel refuses this filter: insn 18: jump to insn 4" in err
    assert views(capsys, str(PCAPS / "vlan.pcap"), "--view", "file", "--filter", "ip")[0] == 64
    code, out, err = views(capsys, str(PCAPS / "damaged.pcap"), "--filter", "ip")
    assert code == 66
    assert "packets depend on the view" in out
