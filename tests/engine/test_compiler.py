"""LLVM in a process of its own makes what it makes here; where that process fails, it is done here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("llvmlite")

from netbpf.engine.llvm import compiler
from netbpf.engine.llvm.effort import BRISK, HASTY

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # its children have one thread

MODULE = "define i64 @run(ptr %a) {\n  %v = load i64, ptr %a\n  ret i64 %v\n}\n"


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a command: one thread, and a core to spare."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr("threading.active_count", lambda: 1)
    yield
    compiler._elsewhere("")
    assert compiler._waiting is None


def test_it_makes_the_same() -> None:
    here = compiler.compile_object(MODULE)
    compiler.begin()
    compiler.begin()  # it waits already
    assert compiler._waiting is not None
    assert compiler.compile_object(MODULE) == here
    assert compiler._waiting is None
    assert compiler.compile_object(MODULE) == here


ALONE = """
import os, sys
os.sched_getaffinity = lambda pid: {0, 1}
from netbpf.engine.llvm import compiler
compiler.begin()
sys.modules["netbpf.engine.llvm.compile"] = None  # here it cannot be done
print(len(compiler.compile_object(sys.argv[1])))
"""


def test_a_process_that_loads_llvm_itself_makes_it() -> None:
    """What it loads llvmlite without is not missed: nothing but time would tell."""
    made = subprocess.run([sys.executable, "-c", ALONE, MODULE], capture_output=True, text=True, check=True)
    assert int(made.stdout) == len(compiler.compile_object(MODULE))


@pytest.mark.parametrize("effort", [HASTY, BRISK])
def test_less_optimised_code_is_made_by_who_was_begun_for_it(effort: int) -> None:
    here, less = compiler.compile_object(MODULE), compiler.compile_object(MODULE, effort=effort)
    compiler.begin(effort=effort)
    assert compiler.compile_object(MODULE) == here
    assert compiler._waiting is not None
    assert compiler.compile_object(MODULE, effort=effort) == less
    assert compiler._waiting is None


def test_what_llvm_refuses_is_told_here() -> None:
    compiler.begin()
    with pytest.raises(RuntimeError, match="expected instruction opcode"):
        compiler.compile_object("define i64 @run() {\n  nonsense\n}\n")


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_was_killed(kill: signal.Signals) -> None:
    here = compiler.compile_object(MODULE)
    compiler.begin()
    assert compiler._waiting is not None
    os.kill(compiler._waiting.pid, kill)
    assert compiler.compile_object(MODULE) == here


def test_one_core_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    compiler.begin()
    assert compiler._waiting is None


def test_a_system_that_gives_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    compiler.begin()
    assert compiler._waiting is None
    assert compiler.compile_object(MODULE)


def test_a_process_with_threads_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.active_count", lambda: 2)
    compiler.begin()
    assert compiler._waiting is None
