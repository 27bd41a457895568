"""A program proved on a simulated host of its own and made live by an engine, for packets that come from somewhere else.

Knows no socket and no device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from netbpf.engine.base import Engine, Loaded
from netbpf.env import Env, SystemEnv
from netbpf.maps.base import ReadableMap
from netbpf.packet.skbuff import SkBuff
from netbpf.program import ProgramSpec, VerifiedProgram

if TYPE_CHECKING:
    from netbpf.host.sim.process import SimProcess

U32_MAX = 0xFFFF_FFFF


class LiveProgram:
    """``loaded`` is what the engine made of it, ``maps`` are its maps by name. Raises ProgramRejected, BpfError, UsageError."""

    def __init__(self, spec: ProgramSpec, engine: Engine, env: Env | None = None) -> None:
        self.spec, self.engine_name = spec, engine.name
        self.env: Env = env or SystemEnv()
        self.process: SimProcess | None = None
        self.maps: Mapping[str, ReadableMap] = {}
        self.program = self._prove()
        self.loaded: Loaded = engine.load(self.program, self.env)

    def _prove(self) -> VerifiedProgram:
        """By bpf(2) on a host of its own; a classic filter as SO_ATTACH_FILTER takes it, which needs no descriptor."""
        if self.spec.classic:
            from netbpf.verifier.classic import prove_classic

            return prove_classic(self.spec)
        from netbpf.host.loader import load_spec
        from netbpf.host.sim.host import SimHost

        self.process = SimHost(env=self.env).process()
        fds = load_spec(self.process, self.spec)
        self.maps = {name: self.process.map(fd) for name, fd in fds.map_fds.items()}
        return self.process.program(fds.prog_fd)

    def verdict(self, skb: SkBuff) -> int:
        """Bytes to keep, u32; 0 drops. Raises EngineFault."""
        return self.loaded.run_one(skb) & U32_MAX
