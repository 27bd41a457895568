"""One case, run on the simulator and on the running kernel, and the two logs compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netbpf.host.linux.host import LinuxHost
from netbpf.host.sim.host import SimHost
from support.recorder import Recorder

Case = Callable[[Recorder], None]


def both(case: Case, *, caps: frozenset[str] | None = None, sim: SimHost | None = None, shown: int = 40) -> None:
    """Fails with the lines that differ. The simulator has as many CPUs as this machine."""
    kernel = LinuxHost()
    sim_host = sim or SimHost(n_cpus=kernel.process().possible_cpus)
    logs = [_run(host, case, caps) for host in (sim_host, kernel)]
    mine, theirs = logs
    wrong = [f"sim    {a}\nkernel {b}" for a, b in zip(mine, theirs, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {len(mine)} differ:\n" + "\n".join(wrong[:shown])


def _run(host: Any, case: Case, caps: frozenset[str] | None) -> list[str]:
    with host.process(caps=caps) as process:
        recorder = Recorder(process)
        case(recorder)
        return recorder.log
