"""The programs that benchmarks give to other JITs, and what they count beside ours on a trace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from netbpf.isa import opcodes as op
from netbpf.isa.instruction import decode

ROOT = Path(__file__).parents[2]
ATOMIC_ADD = op.BPF_STX | op.BPF_ATOMIC | op.BPF_DW
LOCKED = {"a": 1, "b": 0, "c": 2}


@pytest.fixture
def jit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import jit

    return jit


@pytest.mark.parametrize("kind", ["ubpf", "dpdk"])
@pytest.mark.parametrize("name", LOCKED)
def test_every_locked_addition_has_a_plain_form(jit: ModuleType, name: str, kind: str) -> None:
    prologue = jit.KINDS[kind].prologue
    for is_locked in (True, False):
        insns = decode(jit.instructions(name, prologue, is_locked))
        assert sum(i.code == ATOMIC_ADD for i in insns) == LOCKED[name] * is_locked


@pytest.mark.skipif(not shutil.which("cc") and not shutil.which("gcc"), reason="no C compiler")
def test_a_jit_counts_what_we_count_or_says_how_to_get_it() -> None:
    words = [sys.executable, "-m", "benchmarks.jit", "--traces", "pcaps", "--rounds", "1", "session.pcap"]
    told = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "ubpf: skipped: build https://github.com/iovisor/ubpf" in told
    if "dpdk: skipped: pkg-config knows no libdpdk" not in told:
        assert told.count("same in all: ") == len(LOCKED)
        assert told.count("; dpdk without locks ") == 2
