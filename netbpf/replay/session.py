"""A program made ready to replay: loaded on a simulated host, run by an engine, with a clock that follows the trace."""

from __future__ import annotations

from types import TracebackType

from netbpf.engine.base import Loaded
from netbpf.env import SteppedEnv
from netbpf.host.loader import load_spec
from netbpf.maps.storage import MapBase
from netbpf.program import ProgramSpec


class Session:
    """``loaded`` takes batches, ``maps`` is what the program declared, by name. Leaving the context ends the process that
    held them. ``engine`` is a name, None for the fastest that runs here; ``use_cache`` and ``checked`` are the native engine's.
    Raises ProgramRejected, BpfError."""

    def __init__(
        self, spec: ProgramSpec, *, engine: str | None = None, seed: int = 1, use_cache: bool = True, checked: bool = False
    ) -> None:
        from netbpf.engine.choose import stream_engine
        from netbpf.host.sim.host import SimHost

        self.env = SteppedEnv(seed=seed)
        self.process = SimHost(env=self.env).process()
        fds = load_spec(self.process, spec)
        chosen = stream_engine(engine, use_cache=use_cache, checked=checked)
        self.engine_name = chosen.name
        self.maps: dict[str, MapBase] = {name: self.process.map(fd) for name, fd in fds.map_fds.items()}
        self.loaded: Loaded = chosen.load(self.process.program(fds.prog_fd), self.env)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.process.exit()
