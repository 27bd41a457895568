"""bpf_conformance's programs on the interpreter: R1 the memory, R2 its length, no verifier before it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.vectors import vectors_dir

from netbpf.engine.interp.engine import InterpEngine
from netbpf.env import SteppedEnv
from netbpf.errors import NetbpfError
from netbpf.program import VerifiedProgram
from netbpf.sources.conformance import ConformanceTest, parse

pytestmark = pytest.mark.vectors

FILES = sorted((vectors_dir() / "conformance").glob("*.data"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_program_gives_its_result(path: Path) -> None:
    test = parse(path.read_text(), str(path))
    got = outcome(test)
    if test.error is None:
        assert got == test.result, f"{path}: {got!r}, not {test.result!r}"
    else:
        assert isinstance(got, str), f"{path}: ended with {got}, should have failed with {test.error!r}"


def outcome(test: ConformanceTest) -> int | str:
    """R0, or the words of a refusal or fault."""
    try:
        loaded = InterpEngine().load(VerifiedProgram.unproved(test.insns), SteppedEnv(1))
        return loaded.run_memory(bytearray(test.memory or b""))
    except NetbpfError as e:
        return str(e)


def test_all_files_are_there() -> None:
    assert len(FILES) >= 225
