"""A program that was proved before is taken from disk: the same results, and nothing that changed is taken for the same."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.vectors import ROOT

from netbpf.cli.main import main
from netbpf.engine.llvm import cache
from netbpf.replay.remembered import key_of, recall
from netbpf.replay.session import Session

SCENARIO = ROOT / "scenarios" / "counting.s"
CAPTURE = ROOT / "pcaps" / "session.pcap"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def report(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main(["replay", str(CAPTURE), "--prog", str(SCENARIO), "--json", *words]) == 0
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    return {name: value for name, value in told.items() if name not in ("seconds", "engine", "packets_per_second")}


def test_the_second_run_tells_what_the_first_told(capsys: pytest.CaptureFixture[str]) -> None:
    first = report(capsys)
    assert recall(key_of(str(SCENARIO), None)) is None, "kept under the options that the command gives"
    assert any(name.startswith("prog-") for name in os.listdir(cache.cache_dir()))
    assert report(capsys) == first
    assert report(capsys, "--no-cache") == first
    assert report(capsys, "--checked") == first
    assert report(capsys, "--engine", "interp") == first


def test_a_recalled_program_is_the_proved_one() -> None:
    first = Session.of_file(str(SCENARIO))
    again = Session.of_file(str(SCENARIO))
    assert again.process is None
    assert (again.program.insns, again.program.facts, again.program.subprogs) == (
        first.program.insns,
        first.program.facts,
        first.program.subprogs,
    )
    assert [m.spec for m in again.program.maps] == [m.spec for m in first.program.maps]
    assert [bytes(m.memory) for m in again.maps.values()] == [bytes(m.memory) for m in first.maps.values()]


def test_another_text_is_another_program(tmp_path: Path) -> None:
    path = tmp_path / "p.s"
    path.write_text("    r0 = 1\n    exit\n")
    Session.of_file(str(path))
    before = key_of(str(path), None)
    path.write_text("    r0 = 2\n    exit\n")
    assert key_of(str(path), None) != before
    assert Session.of_file(str(path)).program.insns[0].imm == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "open"])
def test_a_damaged_entry_is_ignored(damage: str) -> None:
    Session.of_file(str(SCENARIO))
    for name in os.listdir(cache.cache_dir()):
        path = Path(cache.cache_dir(), name)
        data = path.read_bytes()
        if damage == "flip":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif damage == "cut":
            path.write_bytes(data[: len(data) // 2])
        else:
            path.chmod(0o666)
    assert Session.of_file(str(SCENARIO)).process is not None
