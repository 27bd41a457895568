"""A program made ready to replay: loaded on a simulated host, run by an engine, with a clock that follows the trace."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from netbpf.engine.base import Loaded
from netbpf.engine.choose import native_obstacle, stream_engine
from netbpf.env import SteppedEnv
from netbpf.maps.storage import MapBase
from netbpf.program import SOCKET_VIEW, VIEWS, ProgramSpec, VerifiedProgram

if TYPE_CHECKING:
    from netbpf.host.sim.process import SimProcess
    from netbpf.replay.filtered import Expression
    from netbpf.sources.load import ObjectOptions


def _begin_to_compile(engine: str | None) -> None:
    if engine in (None, "native") and not native_obstacle():
        from netbpf.engine.llvm.compiler import begin

        begin()


class Session:
    """``loaded`` takes batches, ``maps`` is what the program declared, by name. Leaving the context ends the process that
    held them. ``engine`` is a name, None for the fastest that runs here; ``use_cache`` and ``checked`` are the native engine's.
    Raises ProgramRejected, BpfError."""

    def __init__(
        self, spec: ProgramSpec, *, engine: str | None = None, seed: int = 1, use_cache: bool = True, checked: bool = False
    ) -> None:
        self.env = SteppedEnv(seed=seed)
        self.spec: ProgramSpec | None = spec  # None where it was remembered
        self.process: SimProcess | None = None
        self.maps: dict[str, MapBase] = {}
        self._start(self._load(spec), engine, use_cache, checked, VIEWS[spec.view])

    def _load(self, spec: ProgramSpec) -> VerifiedProgram:
        """By bpf(2) on a host of its own; a classic filter as SO_ATTACH_FILTER takes it, which needs no descriptor."""
        if spec.classic:
            from netbpf.verifier.classic import prove_classic

            return prove_classic(spec)
        from netbpf.host.loader import load_spec
        from netbpf.host.sim.host import SimHost

        self.process = SimHost(env=self.env).process()
        fds = load_spec(self.process, spec)
        self.maps = {name: self.process.map(fd) for name, fd in fds.map_fds.items()}
        return self.process.program(fds.prog_fd)

    def _start(self, program: VerifiedProgram, engine: str | None, use_cache: bool, checked: bool, view: str) -> None:
        chosen = stream_engine(engine, use_cache=use_cache, checked=checked)
        self.engine_name, self.program, self.view = chosen.name, program, view
        self.loaded: Loaded = chosen.load(program, self.env, view=view)

    @classmethod
    def of_filter(
        cls,
        expression: Expression,
        linktype: int = 1,
        *,
        engine: str | None = None,
        seed: int = 1,
        use_cache: bool = True,
        checked: bool = False,
        compile_ahead: bool = False,
    ) -> Self:
        """A session with a tcpdump expression over a capture of ``linktype`` (and what other link types occur in it).
        ``compile_ahead`` as of_file has it.

        Raises SourceError, ProgramRejected, UsageError without libpcap.
        """
        from netbpf.replay.filtered import FilteredStream

        if compile_ahead and not use_cache:
            _begin_to_compile(engine)
        made = cls.__new__(cls)
        made.env, made.spec, made.process, made.maps = SteppedEnv(seed=seed), None, None, {}
        chosen = stream_engine(engine, use_cache=use_cache, checked=checked)
        stream = FilteredStream(expression, chosen, made.env, linktype, use_cache=use_cache)
        made.engine_name, made.program, made.loaded = chosen.name, stream.program, stream
        made.view = VIEWS[expression.view]
        return made

    @classmethod
    def of_file(
        cls,
        path: str,
        options: ObjectOptions | None = None,
        *,
        engine: str | None = None,
        seed: int = 1,
        use_cache: bool = True,
        checked: bool = False,
        compile_ahead: bool = False,
    ) -> Self:
        """A session with the program of a file; one that was proved before is not proved again (see ``replay.remembered``).
        ``compile_ahead`` lets LLVM come up in a process of its own meanwhile: for commands, which have one thread.

        Raises SourceError, OSError, ProgramRejected, BpfError.
        """
        from netbpf.replay.remembered import key_of, recall, remember

        key = key_of(path, options) if use_cache else ""
        known = recall(key)
        if known is not None:
            made = cls.__new__(cls)
            made.env, made.spec, made.process, made.maps = SteppedEnv(seed=seed), None, None, known.maps
            made._start(known.program, engine, use_cache, checked, VIEWS[options.view if options else SOCKET_VIEW])
            return made
        if compile_ahead:
            _begin_to_compile(engine)
        from netbpf.sources.load import read_program

        spec = read_program(path, options)
        made = cls(spec, engine=engine, seed=seed, use_cache=use_cache, checked=checked)
        if spec.view == (options.view if options else SOCKET_VIEW):  # the key knows what was asked for, not what a text says
            remember(key, spec, made.program, made.maps)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self.process is not None:
            self.process.exit()
