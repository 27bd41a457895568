"""The programs that benchmarks give to other JITs, and what they count beside ours."""

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
PROGRAMS = "abc"
NO_JUMPS = (op.BPF_JMP | op.BPF_CALL, op.BPF_JMP | op.BPF_EXIT)
NEEDS_TCPDUMP = pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump to compile the filter")


@pytest.fixture
def jit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import jit

    return jit


@NEEDS_TCPDUMP
@pytest.mark.parametrize("kind", ["ubpf", "dpdk"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_form_of_a_program_loads_from_the_packet_as_only_sockets_can(jit: ModuleType, name: str, kind: str) -> None:
    for form in jit.FORMS:
        insns = decode(jit.instructions(name, jit.KINDS[kind].prologue, form))
        assert not any(op.bpf_class(i.code) == op.BPF_LD for i in insns)
        jumps = [pc + 1 + i.off for pc, i in enumerate(insns) if op.bpf_class(i.code) == op.BPF_JMP and i.code not in NO_JUMPS]
        assert jumps
        assert all(0 < target < len(insns) for target in jumps)


@NEEDS_TCPDUMP
@pytest.mark.skipif(not shutil.which("cc") and not shutil.which("gcc"), reason="no C compiler")
def test_a_jit_counts_what_we_count_or_says_how_to_get_it() -> None:
    words = [sys.executable, "-m", "benchmarks.jit", "--traces", "pcaps", "--rounds", "1", "session.pcap"]
    told = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "ubpf: skipped: build https://github.com/iovisor/ubpf" in told
    if "dpdk: skipped: pkg-config knows no libdpdk" not in told:
        assert told.count("same in all: ") == len(PROGRAMS)
        assert told.count("; dpdk by hand ") == len(PROGRAMS)
