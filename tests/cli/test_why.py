"""``netbpf why`` as a user types it, and mistypes it."""

from __future__ import annotations

import json

import pytest
from support.vectors import ROOT

from netbpf.cli.main import main

SESSION, COUNTING = str(ROOT / "pcaps" / "session.pcap"), str(ROOT / "scenarios" / "counting.s")


def test_one_packet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", SESSION, "-n", "37", "--prog", COUNTING]) == 0
    out = capsys.readouterr().out
    assert out.startswith("packet 37: 54 bytes: IPv4 10.0.0.1 > 192.0.2.80 TCP 50001 > 443\n")
    assert "; counts[6]: 30 -> 31" in out
    assert out.endswith("verdict 0: dropped\n")


def test_several_packets_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", SESSION, "-n", "2-3,5", "-n", "9", "--prog", COUNTING, "--json"]) == 0
    assert [json.loads(line)["packet"] for line in capsys.readouterr().out.splitlines()] == [2, 3, 5, 9]


def test_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", SESSION, "--diff", "1", "37", "--prog", COUNTING]) == 0
    assert "the paths part at insn 8 of counting: if r0 == 0x0 goto 11" in capsys.readouterr().out
    assert main(["why", SESSION, "--diff", "1", "37", "--prog", COUNTING, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parted_at"]["pc"] == 8


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-n", "0"], 64, "start at 1"),
        (["-n", "x"], 64, "a packet number"),
        (["-n", "7-3"], 64, "goes upwards"),
        ([], 64, "which packet"),
        (["-n", "1", "--diff", "1", "2"], 64, "leave -n out"),
        (["-n", "1", "--steps", "1"], 64, "at least 2"),
        (["-n", "533"], 66, "has 532 packets, and none numbered 533"),
    ],
)
def test_what_is_refused(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", SESSION, "--prog", COUNTING, *words]) == code
    assert message in capsys.readouterr().err


def test_a_program_or_a_filter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", SESSION, "-n", "1"]) == 64
    assert "--prog" in capsys.readouterr().err
