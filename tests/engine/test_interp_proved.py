"""The whole way in the simulator, verifier first, beside the kernel: its facts change what the interpreter does, and no more."""

from __future__ import annotations

import random
from struct import pack

import pytest
from support.kernel import needs_kernel
from support.kernel_runs import KEY0, Refs, array_spec
from support.random_programs import MAP_BYTES, VALUES, random_program
from support.running import ZERO64

from netbpf.env import SteppedEnv
from netbpf.errors import ProgramRejected
from netbpf.host.calls import BpfCalls
from netbpf.host.linux.host import LinuxHost
from netbpf.host.sim.host import SimHost
from netbpf.isa.builders import BPF_LD_MAP_FD, BPF_LD_MAP_VALUE

pytestmark = needs_kernel


def outcome(process: BpfCalls, seed: int) -> list[tuple[int, bytes]] | None:
    """R0 and the map's bytes after each run; None for a refusal."""
    map_fd = process.map_create(array_spec(MAP_BYTES))
    refs = Refs(lambda reg, _: BPF_LD_MAP_FD(reg, map_fd), lambda reg, _: BPF_LD_MAP_VALUE(reg, map_fd, 0))
    try:
        prog_fd = process.prog_load(tuple(random_program(seed, 24)(refs)))
    except ProgramRejected:
        return None
    inputs, found = random.Random(seed), []
    for _ in range(3):
        words = (inputs.choice((inputs.choice(VALUES), inputs.getrandbits(64))) for _ in range(4))
        process.map_update_elem(map_fd, KEY0, pack("<4Q", *words).ljust(MAP_BYTES, b"\0"))
        r0 = process.prog_test_run(prog_fd, ZERO64).retval
        found.append((r0, process.map_lookup_elem(map_fd, KEY0)))
    process.close(prog_fd)
    process.close(map_fd)
    return found


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_proved_programs_end_as_in_the_kernel(first: int) -> None:
    both = 0
    with LinuxHost().process() as kernel, SimHost(env=SteppedEnv(1), engine="interp").process() as here:
        for seed in range(first, first + 100):
            theirs, ours = outcome(kernel, seed), outcome(here, seed)
            if theirs is not None and ours is not None:
                assert ours == theirs, f"seed {seed}"
                both += 1
    assert both > 50
