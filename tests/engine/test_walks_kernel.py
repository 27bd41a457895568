"""bpf_for_each_map_elem on tables that change under it: the interpreter shows keys in the order of the running kernel."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
from support.kernel import needs_kernel
from support.running import TCP_FRAME, loopback_skb
from support.walks import LOG_BYTES, steps, visited, walking

from netbpf.engine.interp.engine import InterpEngine
from netbpf.env import SteppedEnv
from netbpf.errors import BpfError
from netbpf.host.linux.host import LinuxHost, possible_cpus
from netbpf.host.loader import load_spec
from netbpf.host.sim.host import SimHost

pytestmark = needs_kernel

KINDS = [
    "hash key=4 value=8 entries=40 flags=64", "hash key=4 value=8 entries=40 flags=65", "hash key=4 value=8 entries=8 flags=64",
    "lru_hash key=4 value=8 entries=4000 flags=64", "percpu_hash key=4 value=8 entries=40 flags=64",
    "lru_percpu_hash key=4 value=8 entries=4000 flags=64",
]  # fmt: skip


class Side:
    """The program loaded by one host."""

    def __init__(self, host: Any, kind: str) -> None:
        self.process = host.process()
        self.fds = load_spec(self.process, walking(kind))
        self.copies = possible_cpus() if "percpu" in kind else 1

    def prepare(self, keys: list[int], table: bytes) -> None:
        """Put keys in where there is room, set the steps, clear the log."""
        maps = self.fds.map_fds
        for key in keys:
            with suppress(BpfError):
                self.process.map_update_elem(maps["m"], key.to_bytes(4, "little"), bytes([key, *bytes(7)]) * self.copies)
        self.process.map_update_elem(maps["log"], bytes(4), bytes(LOG_BYTES))
        self.process.map_update_elem(maps["steps"], bytes(4), table)

    def log(self) -> tuple[int, ...]:
        return visited(self.process.map_lookup_elem(self.fds.map_fds["log"], bytes(4)))


@pytest.mark.parametrize(("deletes", "updates"), [(0, 0), (0.5, 0), (0, 0.5), (0.3, 0.3)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_changes_is_walked_as_in_the_kernel(kind: str, deletes: float, updates: float) -> None:
    rng = random.Random(f"{kind} {deletes} {updates}")
    for _ in range(6):
        theirs, ours = Side(LinuxHost(), kind), Side(SimHost(env=SteppedEnv(), n_cpus=possible_cpus()), kind)
        loaded = InterpEngine().load(ours.process.program(ours.fds.prog_fd), SteppedEnv())
        with theirs.process:
            for _ in range(3):
                keys, table = [rng.randrange(30) for _ in range(20)], steps(rng, deletes, updates, 30)
                for side in (theirs, ours):
                    side.prepare(keys, table)
                count = theirs.process.prog_test_run(theirs.fds.prog_fd, TCP_FRAME).retval
                assert loaded.run_one(loopback_skb(TCP_FRAME)) == count
                assert ours.log() == theirs.log()
