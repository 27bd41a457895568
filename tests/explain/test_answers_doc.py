"""Every command and every piece of Python in docs/answers.md is run, in order; what it prints is what the page shows."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

import pytest
from support.vectors import ROOT

from netbpf.cli.main import main

PAGE = (ROOT / "docs" / "answers.md").read_text()
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE, re.MULTILINE)]
COMMANDS = [tuple(part.strip("\n").split("\n")) for block in BLOCKS for part in re.split(r"^\$ netbpf ", block, flags=re.M)[1:]]
PYTHON = [block for block in BLOCKS if block.lstrip().startswith(("from ", "import "))]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the repository and may be written to."""
    for name in ("pcaps", "scenarios", "tests", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shows(wanted: list[str], got: list[str]) -> bool:
    """Whether ``got`` is ``wanted``, in which a line ... stands for any lines."""
    if not wanted:
        return not got
    if wanted[0] == "...":
        return any(shows(wanted[1:], got[i:]) for i in range(len(got) + 1))
    return bool(got) and wanted[0].rstrip() == got[0].rstrip() and shows(wanted[1:], got[1:])


def test_commands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(COMMANDS) > 3
    for words, *wanted in COMMANDS:
        code = main(shlex.split(words))
        printed = capsys.readouterr()
        assert code in (0, 65), printed.err
        if wanted and wanted[-1] != "...":
            wanted.append("...")
        if wanted:
            assert shows(wanted, printed.out.splitlines()), f"netbpf {words} printed\n{printed.out}"


@pytest.mark.parametrize("text", PYTHON, ids=lambda text: text.strip().splitlines()[0])
def test_python(text: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(text, "docs/answers.md", "exec"), {})
    assert "counts[6]: 30 -> 31" in capsys.readouterr().out
