"""Assembly text -> a proved program on a simulated host of its own."""

from __future__ import annotations

from netbpf.env import SteppedEnv
from netbpf.host.loader import load_spec
from netbpf.host.sim.host import SimHost
from netbpf.program import ProgramSpec, VerifiedProgram
from netbpf.sources.asm import parse


def loaded_program(text: str) -> VerifiedProgram:
    """The program with fresh maps. Raises ProgramRejected."""
    return loaded_spec(parse(text))


def loaded_spec(spec: ProgramSpec) -> VerifiedProgram:
    """A program with fresh maps. Raises ProgramRejected."""
    process = SimHost(env=SteppedEnv()).process()
    return process.program(load_spec(process, spec).prog_fd)
