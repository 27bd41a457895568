"""``netbpf test``: what it prints, what it exits with, its JUnit report."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from netbpf.cli.main import main

FRAME = "020000000001 020000000002 0800 45 00 001c 0001 0000 40 11 0000 0a000002 0a000001 0035 0035 0008 0000"
HEAD = "netbpf = 1\ntitle = 'all of it'\n[program]\nasm = \"r0 = -1\\nexit\"\n"
GOOD = f"{HEAD}[[packet]]\nhex = '{FRAME}'\nexpect = 'accept'  # all\n"
BAD = GOOD.replace("'accept'", "'drop'")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_good_and_bad(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.scenario.toml").write_text(GOOD)
    assert main(["test", "."]) == 0
    told = capsys.readouterr().out
    assert told.startswith("ok    a[sim-interp] (")
    assert told.splitlines()[-1].startswith("1 passed in ")
    (folder / "b.scenario.toml").write_text(BAD)
    assert main(["test", "a.scenario.toml", "b.scenario.toml"]) == 1
    told = capsys.readouterr().out
    assert "FAIL  b[sim-interp]" in told
    assert "b.scenario.toml:7: packet 1: verdict" in told
    assert "1 passed, 1 failed in " in told
    assert all(len(line) <= 88 for line in told.splitlines())


def test_exit_codes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.scenario.toml").write_text(GOOD)
    (folder / "c.scenario.toml").write_text("netbpf = 1\n[program]\nfiel = 'x'\n")
    assert main(["test", "c.scenario.toml"]) == 65
    assert "c.scenario.toml:3:1: a program has no key 'fiel'; did you mean 'file'?" in capsys.readouterr().err
    assert main(["test", "."]) == 65
    assert main(["test", "nowhere"]) == 64
    assert main(["test", "a.scenario.toml", "-k", "nothing"]) == 64
    assert main(["test", "a.scenario.toml", "--update", "--backend", "both"]) == 64
    (folder / "d.scenario.toml").write_text("netbpf = 1\n[program]\nfile = 'none.s'\n")
    assert main(["test", "d.scenario.toml"]) == 1
    empty = folder / "empty"
    empty.mkdir()
    assert main(["test", str(empty)]) == 64


def test_help_says_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--help"]) == 0
    assert "1 some failed" in capsys.readouterr().out


def test_list_and_keyword(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.scenario.toml").write_text("cases = [{ id = 'x' }, { id = 'y' }]\n" + GOOD)
    assert main(["test", ".", "--list", "--engine", "both", "-k", "x-"]) == 0
    assert capsys.readouterr().out.split() == ["a[x-sim-interp]", "a[x-sim-native]"]


def test_update(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "b.scenario.toml"
    path.write_text(BAD)
    assert main(["test", ".", "--update"]) == 0
    assert "rewritten: ./b.scenario.toml" in capsys.readouterr().err
    assert path.read_text() == GOOD.replace("'accept'", '"accept"')


def test_two_cases_that_want_different_values(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "cases = [{ id = 'x', r0 = 0 }, { id = 'y', r0 = 7 }]\n" + BAD.replace("r0 = -1", "r0 = ${r0}").replace("'drop'", "3")
    (folder / "b.scenario.toml").write_text(text)
    assert main(["test", ".", "--update"]) == 1
    assert "x and y want different values here: make it a parameter" in capsys.readouterr().err


def test_junit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.scenario.toml").write_text(GOOD)
    (folder / "b.scenario.toml").write_text(BAD.replace("all of it", "<&>\\u0007"))
    (folder / "c.scenario.toml").write_text("netbpf = 3\n")
    (folder / "d.scenario.toml").write_text("netbpf = 1\n[program]\nfile = 'none.s'\n")
    assert main(["test", ".", "--junit", "out.xml", "-q"]) == 1
    capsys.readouterr()
    suite = ET.parse(folder / "out.xml").getroot()[0]
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4", "failures": "1", "errors": "2", "skipped": "0",
    }  # fmt: skip
    by_file = {case.get("classname"): case for case in suite}
    assert not list(by_file["./a.scenario.toml"])
    failure = by_file["./b.scenario.toml"][0]
    assert failure.tag == "failure"
    assert "got:      accept" in (failure.text or "")
    assert main(["test", "a.scenario.toml", "--junit", "-"]) == 0
    assert ET.fromstring(capsys.readouterr().out).tag == "testsuites"
