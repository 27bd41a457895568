"""The second replay of a filter starts from what the first left behind, says the same, and imports next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.vectors import ROOT

from netbpf.engine.llvm import cache, scouting
from netbpf.packet.pcap import PcapWriter
from netbpf.packet.record import Record
from netbpf.replay import quick
from netbpf.sources.expr import find_libpcap

PCAPS = ROOT / "pcaps"
FILTER = ["--filter", "tcp", "and", "not", "net", "10.0.0.0/8"]
pytestmark = [
    pytest.mark.skipif(find_libpcap() is None, reason="libpcap is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="the quick start is Linux's"),
]


STARTED = (sys.executable, "-m", "netbpf")


def replay(
    capture: Path | str, *words: str, cache_home: Path, started: tuple[str, ...] = STARTED
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "XDG_CACHE_HOME": str(cache_home), "PYTHONPATH": str(ROOT)}
    command = [*started, "replay", str(capture), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def said(run: subprocess.CompletedProcess[str]) -> tuple[int, list[str], list[str]]:
    """Without the line that tells how long it took."""
    assert run.returncode != 70, run.stderr
    return run.returncode, [line for line in run.stdout.splitlines() if not line.startswith("engine")], run.stderr.splitlines()


def test_captures_of_every_sort_give_the_same_lines(tmp_path: Path) -> None:
    replay(PCAPS / "session.pcap", *FILTER, cache_home=tmp_path)
    assert any(name.name.startswith("quick-") for name in (tmp_path / "netbpf").iterdir())
    for capture in (PCAPS / f"{name}.pcap" for name in ("nanosecond", "big-endian", "vlan", "runts", "cut", "cooked")):
        want = said(replay(capture, *FILTER, "--no-cache", cache_home=tmp_path))
        assert said(replay(capture, *FILTER, cache_home=tmp_path)) == want, capture.name


TWO_CORES = "import os; os.sched_getaffinity = lambda pid: {0, 1}; from netbpf.cli.start import main; main()"


def traced(*words: str, cache_home: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """A replay where LLVM comes up on another core, and the modules that it imports, those of that process among them."""
    started = (sys.executable, "-X", "importtime", "-c", TWO_CORES)
    run = replay(PCAPS / "session.pcap", *words, cache_home=cache_home, started=started)
    return run, {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}


def test_a_filter_compiled_anew_imports_nothing_slow(tmp_path: Path) -> None:
    pytest.importorskip("llvmlite")
    _, imported = traced("--no-cache", *FILTER, cache_home=tmp_path)
    assert "netbpf.engine.llvm.loop" in imported
    assert not imported & {"argparse", "dataclasses", "importlib.resources", "inspect", "netbpf.cli.main", "netbpf.packet.skbuff"}


def test_nothing_large_is_imported(tmp_path: Path) -> None:
    replay(PCAPS / "session.pcap", *FILTER, cache_home=tmp_path)
    _, imported = traced(*FILTER, cache_home=tmp_path)
    assert "netbpf.replay.quick" in imported
    assert not imported & {"argparse", "ctypes", "dataclasses", "hashlib", "llvmlite", "netbpf.cli.main", "netbpf.replay.core"}


def test_a_program_that_changes_is_compiled_anew(tmp_path: Path) -> None:
    program = tmp_path / "p.s"
    for verdict in (0, 60):
        program.write_text(f"r0 = {verdict}\nexit\n")
        runs = [replay(PCAPS / "session.pcap", "--prog", str(program), cache_home=tmp_path) for _ in range(2)]
        assert said(runs[0]) == said(runs[1])
        assert ("0 accepted" in runs[1].stdout) == (verdict == 0)


def test_what_is_damaged_or_from_another_version_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    want = said(replay(PCAPS / "session.pcap", *FILTER, cache_home=tmp_path))
    (left,) = (tmp_path / "netbpf").glob("quick-*")
    assert quick._found(FILTER, False) is not None
    whole = left.read_bytes()
    left.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert quick._found(FILTER, False) is None
    assert said(replay(PCAPS / "session.pcap", *FILTER, cache_home=tmp_path)) == want
    cache.write_bytes(left.name, quick.marshal.dumps(([("another", 1, 2)], [], b"")))
    assert quick._found(FILTER, False) is None


def test_large_captures_of_large_packets_have_code_of_their_own(tmp_path: Path) -> None:
    assert quick.LARGE_FROM == scouting.SCOUTED_BYTES
    for packet_bytes, scouted in ((60, False), (1000, True)):
        path = tmp_path / f"{packet_bytes}.pcap"
        with open(path, "wb") as f, PcapWriter(f) as writer:
            for n in range(1, 80):
                writer.write(Record(n, n, packet_bytes, bytes(packet_bytes), 1, 0, 0))
        with open(path, "rb") as f:
            assert quick._wants_scouts(f.fileno(), 1) == scouted
            assert not quick._wants_scouts(f.fileno())
    assert quick._key(FILTER, True) != quick._key(FILTER, False)


@pytest.mark.parametrize("expression", ["host example", "port http", "net example", "ether host gateway"])
def test_names_are_looked_up_each_time(expression: str) -> None:
    assert not quick._is_steady(expression.split())


def test_a_large_file_is_walked_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    replay(PCAPS / "session.pcap", *FILTER, cache_home=tmp_path)
    capfd.readouterr()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(quick, "PIECE", 8192)
    assert quick.run(["replay", str(PCAPS / "session.pcap"), *FILTER]) == 0
    want = said(replay(PCAPS / "session.pcap", *FILTER, "--no-cache", cache_home=tmp_path))[1]
    assert capfd.readouterr().out.splitlines()[:2] == want


def test_the_first_replay_of_an_expression_does_without_the_command_line(tmp_path: Path) -> None:
    for words in (("--no-cache", *FILTER), FILTER):
        run, imported = traced(*words, cache_home=tmp_path)
        assert "netbpf.replay.first" in imported
        assert not imported & {"argparse", "netbpf.cli.main", "netbpf.replay.core", "netbpf.verifier.check", "subprocess"}
        assert (tmp_path / "netbpf").exists() == (words is FILTER)
    ordinary = replay(PCAPS / "session.pcap", "--quiet", *FILTER, cache_home=tmp_path)
    assert run.stdout.splitlines()[:2] == ordinary.stdout.splitlines()[:2]


@pytest.mark.parametrize("expression", [["tcp", "porrt", "80"], ["tcp port"], ["vlan", "and", ")"], []])
def test_what_is_wrong_with_an_expression_is_told_as_ever(expression: list[str], tmp_path: Path) -> None:
    run = replay(PCAPS / "session.pcap", "--filter", *expression, cache_home=tmp_path)
    if expression:
        assert (run.returncode, run.stdout) == (65, "")
        assert run.stderr.startswith("netbpf: <expression>: ")
    else:
        assert run.returncode == 0


def test_every_option_may_be_given(tmp_path: Path) -> None:
    """An option whose value is a list is one that a quick start does not know."""
    program = tmp_path / "p.s"
    program.write_text("r0 = 60\nexit\n")
    for options in (["--kconfig", "CONFIG_HZ=250"], ["--interval", "2"], ["--seed", "7"]):
        run = replay(PCAPS / "runts.pcap", "--prog", str(program), *options, cache_home=tmp_path)
        assert (run.returncode, run.stderr) == (0, ""), options
