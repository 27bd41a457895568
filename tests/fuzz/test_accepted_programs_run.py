"""Soundness without a kernel: what the verifier accepts never faults in the interpreter, whatever packet and map it meets."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from support.generated_maps import new_map
from verifier_btf import LIBRARY
from verifier_programs import MAPS, generate

from netbpf.engine.base import UnsupportedProgram
from netbpf.env import SteppedEnv
from netbpf.errors import ProgramRejected
from netbpf.host.calls import BpfCalls
from netbpf.host.sim.host import SimHost
from netbpf.isa.instruction import decode

PROGRAMS, PACKETS = 300, 4


def runs(process: BpfCalls, fds: dict[str, int], record: dict[str, Any], btf_fd: int, rng: random.Random) -> bool:
    """Load and run on random packets; False for a refusal. A fault of the interpreter goes through."""
    code = list(decode(bytes.fromhex(record["insns"])))
    for index, name, *_ in record["map_relocs"]:
        code[index] = code[index]._replace(imm=fds[name])
    rows = {"btf_fd": btf_fd, "func_info": record.get("func_rows"), "line_info": record.get("line_rows") or ()}
    if any(insn.code & 7 in (5, 6) and insn.off < 0 for insn in code):
        return False  # a loop may take the verifier a million steps
    try:
        fd = process.prog_load(code, log_level=1, prog_flags=record["flags"], **(rows if "func_rows" in record else {}))
        for _ in range(PACKETS):
            process.prog_test_run(fd, rng.randbytes(rng.choice((14, 34, 64, 200))))
    except (ProgramRejected, UnsupportedProgram):  # refused, or a helper that no engine has a body for
        return False
    process.close(fd)
    return True


@pytest.mark.parametrize("seed", range(3))
def test_no_fault(seed: int) -> None:
    rng = random.Random(f"run {seed}")
    accepted = 0
    with SimHost(env=SteppedEnv(1), engine="interp").process() as process:
        btf_fd = process.btf_load(LIBRARY.bytes)
        fds = {name: new_map(process, name, record, btf_fd, rng) for name, record in MAPS.items()}
        for _ in range(PROGRAMS):
            accepted += runs(process, fds, generate(rng), btf_fd, rng)
    assert accepted > PROGRAMS // 6
