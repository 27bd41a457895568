"""Which engine a replay takes where the native one cannot run, and what it says."""

from __future__ import annotations

import importlib.util
import os
from types import SimpleNamespace
from typing import Any

import pytest
from support.vectors import ROOT

from netbpf.cli.main import main
from netbpf.engine.choose import native_obstacle, stream_engine
from netbpf.errors import UsageError

WORDS = ["replay", str(ROOT / "pcaps" / "session.pcap"), "--prog", str(ROOT / "scenarios" / "counting.s"), "--no-cache"]


@pytest.fixture
def no_llvmlite(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def find(name: str, *rest: Any) -> Any:
        return None if name == "llvmlite" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)


@pytest.mark.usefixtures("no_llvmlite")
def test_without_llvmlite_the_interpreter_runs_and_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(WORDS) == 0
    out = capsys.readouterr()
    assert "engine interp" in out.out
    assert out.err.count("needs llvmlite") == 1
    assert len(out.err.splitlines()) == 1


def test_the_counts_are_those_of_the_native_engine(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    told = []
    for absent in (False, True):
        if absent:
            request.getfixturevalue("no_llvmlite")
        assert main(WORDS) == 0
        told.append([line for line in capsys.readouterr().out.splitlines() if not line.startswith("engine")])
    assert told[0] == told[1]


def test_another_machine_has_no_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="riscv64"))
    assert "riscv64" in native_obstacle()


@pytest.mark.usefixtures("no_llvmlite")
def test_checks_are_not_asked_of_the_interpreter_by_name() -> None:
    with pytest.raises(UsageError, match="always checks"):
        stream_engine("interp", checked=True)
