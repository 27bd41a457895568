"""The main job: the manual page's example counts what scapy's own dissection counts, in each of its three forms."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.dissect import IP, count, first_layer, raw_packets
from support.vectors import ROOT

from netbpf.packet.open import open_capture
from netbpf.program import ProgramSpec
from netbpf.replay.core import Interval, Replay
from netbpf.replay.session import Session
from netbpf.sources.load import read_program

SCENARIO = ROOT / "scenarios" / "counting.s"
# scapy does not read Kuznetzov's modified format, and says other things of damaged files; tcpdump judges those
NOT_SCAPYS = ("modified", "damaged")
CAPTURES = sorted(p for p in (ROOT / "pcaps").iterdir() if ".pcap" in p.name and not p.name.startswith(NOT_SCAPYS))
REBUILT = ("cooked", "null", "loop")  # captures whose Ethernet header is made up again: byte 23 is the protocol of IPv4
ENGINES = ("interp", "native")
TCP, UDP = 6, 17
ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772
WITH_ETHERNET = (ARPHRD_ETHER, ARPHRD_LOOPBACK)


def replay(spec: ProgramSpec, capture: Path, engine: str) -> tuple[Replay, list[Interval], dict[int, int]]:
    """Run a capture to its end or its damage; the counters by protocol as well."""
    with Session(spec, engine=engine) as session, open_capture(str(capture)) as reader:
        run = Replay(session.loaded, session.maps)
        intervals = [*run.run(reader), run.finish()]
        counts = session.maps["counts"]
        return run, intervals, {k: int.from_bytes(counts.lookup_user(k.to_bytes(4, "little")), "little") for k in (TCP, UDP)}


def ip_protocols(capture: Path) -> Counter[int]:
    """IPv4 packets of Ethernet and loopback devices by protocol, by scapy."""
    layers = (first_layer(data, linktype) for _, _, data, linktype in raw_packets(capture))
    return Counter(p[IP].proto for p in layers if p.haslayer(IP) and getattr(p, "lladdrtype", ARPHRD_ETHER) in WITH_ETHERNET)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda p: p.name)
def test_counts_are_those_of_scapy(capture: Path, engine: str) -> None:
    wanted = count(capture)
    run, _, counts = replay(read_program(str(SCENARIO)), capture, engine)
    assert run.totals.packets == wanted.packets
    seen = ip_protocols(capture) if capture.name.startswith(REBUILT) else wanted.byte23
    assert counts == {TCP: seen[TCP], UDP: seen[UDP]}
    assert run.totals.dropped == wanted.packets, "the example keeps nothing"


@pytest.mark.parametrize("engine", ENGINES)
def test_lines_follow_the_seconds_of_the_trace(engine: str) -> None:
    wanted = count(ROOT / "pcaps" / "session.pcap")
    _, intervals, _ = replay(read_program(str(SCENARIO)), ROOT / "pcaps" / "session.pcap", engine)
    tcp = udp = 0
    for second, interval in enumerate(intervals):
        tcp += wanted.byte23_by_second.get(second, {}).get(TCP, 0)
        udp += wanted.byte23_by_second.get(second, {}).get(UDP, 0)
        assert interval.line == f"TCP {tcp} UDP {udp} packets"
        assert interval.counts.packets == wanted.seconds[second]


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "examples" / name))


def test_the_python_form_gives_the_lines_of_the_assembly_form(capsys: pytest.CaptureFixture[str]) -> None:
    capture = ROOT / "pcaps" / "session.pcap"
    example("counting.py")["main"](str(capture))
    _, intervals, _ = replay(read_program(str(SCENARIO)), capture, "interp")
    assert capsys.readouterr().out.splitlines() == [i.line for i in intervals]


def test_the_python_form_is_the_assembly_form() -> None:
    spec = read_program(str(SCENARIO))
    assert example("counting.py")["PROGRAM"].insns == spec.insns
