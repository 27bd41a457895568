"""Help that reads well: 80 columns, something for every option, a hand for those who type nothing."""

from __future__ import annotations

import argparse

import pytest

from netbpf.cli.examples import EXAMPLES
from netbpf.cli.main import COMMANDS, build_parser, main


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def commands() -> dict[str, argparse.ArgumentParser]:
    choices = next(a.choices for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(choices)


def test_nothing_typed_is_answered_with_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 64
    told = capsys.readouterr()
    assert told.out == ""
    assert all(f"  {name} " in told.err for name in COMMANDS)
    assert "begin with:" in told.err


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)], ids=lambda words: " ".join(words) or "netbpf")
def test_help_fits_eighty_columns(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    for action in commands()[name]._actions:
        assert action.help, f"netbpf {name}: {action.option_strings or action.dest} says nothing"
        assert action.help is argparse.SUPPRESS or not action.help.endswith("."), f"{action.dest}: a phrase, not a sentence"


def test_every_command_has_examples() -> None:
    """Which docs/cli.md shows too, and a test runs."""
    assert set(EXAMPLES) == set(COMMANDS)


def test_a_summary_takes_one_line() -> None:
    """In the list of commands, which begins a summary at column 14."""
    assert {name: text for name, text in COMMANDS.items() if len(text) > 80 - 14} == {}


def test_an_unknown_command_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reply"]) == 64
    assert "reply" in capsys.readouterr().err
