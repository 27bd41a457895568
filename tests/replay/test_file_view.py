"""The file view: a tcpdump expression on a capture keeps what libpcap keeps, whatever the link type and the engine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.libpcap import needs_libpcap, verdicts
from support.tcpdump import needs_tcpdump
from support.vectors import ROOT, vectors_dir

from netbpf.cli.main import main
from netbpf.engine.choose import get_engine
from netbpf.env import SteppedEnv
from netbpf.errors import CaptureError, SourceError
from netbpf.packet.open import open_capture
from netbpf.replay.filtered import Expression, FilteredStream

PCAPS = ROOT / "pcaps"
CAPTURES = sorted(p for p in PCAPS.iterdir() if ".pcap" in p.name)
TEXTS = [
    "", "ip", "ip6", "arp", "tcp", "udp port 53", "tcp port 443", "vlan", "vlan 5 and ip", "icmp or icmp6",
    "not ip", "ether broadcast", "host 10.0.0.1", "tcp[tcpflags] & tcp-syn != 0", "len > 100", "greater 200",
    "ip6 protochain 17", "mpls", "pppoes and ip", "portrange 1-1024", "net 192.168.0.0/16", "ip[0] & 0xf > 5",
    "inbound", "llc", "ether proto 0x88cc", "link[0] = 1",
]  # fmt: skip


def ours(stream: FilteredStream, path: Path) -> list[bool]:
    """Whether each packet of a capture is kept, up to the first damage."""
    answers: list[bool] = []
    with open_capture(str(path)) as reader:
        try:
            for batch in reader.batches():
                answers += [v != 0 for v in stream.run(batch).verdict]
        except CaptureError:
            pass
        except SourceError as e:  # interfaces of several link types, which libpcap does not read
            if "packets of link type" not in e.message:
                raise
    return answers


def agree(paths: list[Path], engine: str, texts: list[str], *, optimize: bool) -> int:
    """How many verdicts were compared and found equal."""
    streams: dict[tuple[str, int], FilteredStream] = {}
    compared = 0
    for path in paths:
        theirs = verdicts(path, texts, optimize=optimize)
        if theirs is None:
            continue
        with open_capture(str(path)) as reader:
            linktype = max(reader.linktype, 0)
        for text, answer in theirs.items():
            where = f"{path.name} (link type {linktype}): {text!r}"
            if isinstance(answer, str):
                with pytest.raises(SourceError) as refused:
                    Expression(text, optimize=optimize).prove(linktype, use_cache=False)
                assert answer in refused.value.message, where
                continue
            key = text, linktype
            if key not in streams:
                expression = Expression(text, optimize=optimize)
                streams[key] = FilteredStream(expression, get_engine(engine), SteppedEnv(1), linktype)
            mine = ours(streams[key], path)
            assert mine[: len(answer)] == [v != 0 for v in answer], where
            compared += len(answer)
    return compared


@needs_libpcap
@pytest.mark.parametrize("engine", ["interp", "native"])
def test_shipped_captures(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plain = [p for p in CAPTURES if p.suffix != ".gz"]
    assert agree(plain, engine, TEXTS if engine == "interp" else TEXTS[5:12], optimize=engine == "interp") > 3000


@pytest.mark.vectors
@needs_libpcap
@pytest.mark.parametrize("optimize", [True, False])
def test_every_link_type_of_tcpdumps_own_captures(optimize: bool) -> None:
    captures = sorted(p for p in (vectors_dir() / "pcaps").iterdir() if p.is_file())
    assert len(captures) > 400
    assert agree(captures, "interp", TEXTS if optimize else TEXTS[1:16:2], optimize=optimize) > 20_000


@needs_tcpdump
@pytest.mark.parametrize("text", ["tcp port 443", "vlan", "ip6 or arp", "greater 500 and not tcp"])
def test_the_command_counts_what_tcpdump_counts(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for capture in (ROOT / "pcaps" / name for name in ("session.pcap", "vlan.pcap", "qinq.pcap", "cooked2.pcap", "raw-ip.pcap")):
        theirs = subprocess.run(["tcpdump", "-r", str(capture), "--count", *text.split()], capture_output=True, text=True)
        for engine in ("interp", "native"):
            code = main(["replay", str(capture), "-q", "--engine", engine, "--filter", *text.split()])
            assert code == (65 if theirs.returncode else 0)
            if code:  # no VLAN support for Linux cooked v2
                assert capsys.readouterr().err.split(": ", 2)[2] in theirs.stderr
                continue
            accepted = capsys.readouterr().out.splitlines()[1].split()[0]
            assert accepted == theirs.stdout.split()[0], (capture.name, engine)


@needs_tcpdump
@pytest.mark.parametrize("name", ["vlan.pcap", "cooked2.pcap", "cut.pcap", "session.pcap"])
def test_what_is_written_is_what_tcpdump_writes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture, ours, theirs = PCAPS / name, tmp_path / "ours.pcap", tmp_path / "theirs.pcap"
    text = "vlan" if name == "vlan.pcap" else "ip"
    subprocess.run(["tcpdump", "-r", str(capture), "-w", str(theirs), text], check=True, capture_output=True)
    assert main(["replay", str(capture), "-q", "--filter", text, "-w", str(ours)]) == 0
    with open_capture(str(ours)) as mine, open_capture(str(theirs)) as wanted:
        kept = list(wanted)
        assert list(mine) == kept
        assert kept
        assert mine.linktype == wanted.linktype
