"""The pytest plugin: every ``*.scenario.toml`` is a file of tests, an item a case, backend and engine; and fixtures for tests
in Python.

Collects no other file. Imports nothing of netbpf until there is such a file or a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from netbpf.host.base import Process
    from netbpf.host.loader import LoadedSpec
    from netbpf.host.sim.host import SimHost
    from netbpf.scenario.suite import Item, Result
    from netbpf.scenario.update import Updater

SUFFIX = ".scenario.toml"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("netbpf", "socket programs (netbpf)")
    group.addoption(
        "--netbpf-backend",
        choices=("sim", "kernel", "both"),
        default="sim",
        help="sim (default), kernel, or both, which must agree",
    )
    group.addoption(
        "--netbpf-engine", choices=("interp", "native", "both"), default="interp", help="the simulator's engine (default interp)"
    )
    group.addoption(
        "--netbpf-update", action="store_true", help="rewrite expectations of scenarios that are not met; comments are kept"
    )


def pytest_configure(config: pytest.Config) -> None:
    _import_as_usual(config)
    if not config.getoption("netbpf_update"):
        return
    if getattr(config.option, "numprocesses", None) or hasattr(config, "workerinput"):
        raise pytest.UsageError("--netbpf-update writes files: run it without -n")
    if config.getoption("netbpf_backend") == "both":
        raise pytest.UsageError("--netbpf-update rewrites what one backend says: --netbpf-backend sim or kernel")


def _import_as_usual(config: pytest.Config) -> None:
    """pytest compiles every module of a package that has a plugin anew, for its asserts: two seconds of a first run, for nothing
    here. It has no word to decline that; without the attributes it only costs time."""
    hook = getattr(config.pluginmanager, "rewrite_hook", None)
    getattr(hook, "_must_rewrite", set()).discard("netbpf")
    getattr(hook, "_marked_for_rewrite_cache", {}).clear()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    if not file_path.name.endswith(SUFFIX):
        return None
    return ScenarioFile.from_parent(parent, path=file_path)


def pytest_sessionfinish(session: pytest.Session) -> None:
    updater: Updater | None = session.config.stash.get(_UPDATER, None)
    if updater is None:
        return
    written, reporter = updater.write(), session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.ensure_newline()
        for line in [*(f"rewritten: {path}" for path in written), *updater.conflicts]:
            reporter.write_line(f"netbpf: {line}")


_UPDATER = pytest.StashKey[Any]()


class ScenarioFile(pytest.File):
    """A scenario file and its items."""

    def collect(self) -> Iterator[ScenarioItem]:
        from netbpf.errors import NetbpfError
        from netbpf.scenario.read import read_file
        from netbpf.scenario.suite import check_engine, items_of

        option = self.config.getoption
        try:
            check_engine(option("netbpf_engine"))
            cases = read_file(_short(self.path, self.config))
        except NetbpfError as e:
            raise self.CollectError(str(e)) from None
        for item in items_of(cases, option("netbpf_backend"), option("netbpf_engine")):
            yield ScenarioItem.from_parent(self, name=item.id, item=item)


def _short(path: Path, config: pytest.Config) -> str:
    """The path as seen from where pytest was started."""
    try:
        return str(path.relative_to(config.invocation_params.dir))
    except ValueError:
        return str(path)


class ScenarioFailure(Exception):
    """A scenario that failed; the text is its report."""


class ScenarioItem(pytest.Item):
    """One case on one backend."""

    def __init__(self, *, item: Item, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.item = item

    def runtest(self) -> None:
        from netbpf.scenario.show import format_result
        from netbpf.scenario.suite import PASSED, SKIPPED, run_item

        result = run_item(self.item)
        if result.status == SKIPPED:
            pytest.skip(result.reason)
        if result.status != PASSED and not self._is_rewritten(result):
            raise ScenarioFailure(format_result(result))

    def _is_rewritten(self, result: Result) -> bool:
        if not self.config.getoption("netbpf_update"):
            return False
        from netbpf.scenario.update import Updater

        updater = self.config.stash.setdefault(_UPDATER, Updater())
        return bool(updater.take(result))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, ScenarioFailure):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        title = f": {self.item.case.title}" if self.item.case.title else ""
        return self.path, self.item.case.line - 1, f"{self.path.name.removesuffix(SUFFIX)}[{self.name}]{title}"


# --- fixtures -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bpf_host() -> SimHost:
    """A simulated machine of its own (``netbpf.host.sim.host.SimHost``), its clock standing at 0 until it is set:
    ``bpf_host.machine.env.set_time(ns)``."""
    from netbpf.env import SteppedEnv
    from netbpf.host.sim.host import SimHost

    return SimHost(env=SteppedEnv())


@pytest.fixture
def load_program(bpf_host: SimHost) -> Iterator[Callable[..., LoadedProgram]]:
    """``load_program(source, **options)`` loads a program, in any form that ``netbpf.load`` takes, on ``bpf_host``; what it
    returns has the process, descriptors of the program and of its maps by name, and ``run(packet)``."""
    with bpf_host.process() as process:
        yield lambda source, **options: _load(process, source, options)


class LoadedProgram:
    """A loaded program for a test in Python. ``process`` is a ``host.base.Process``; ``maps`` are descriptors by name."""

    def __init__(self, process: Process, spec: Any, fds: LoadedSpec) -> None:
        self.process, self.spec, self.fd, self.maps = process, spec, fds.prog_fd, dict(fds.map_fds)
        self._loaded: Any = None

    def lookup(self, name: str, key: bytes) -> bytes:
        """The value in a map. Raises BpfError(ENOENT)."""
        return self.process.map_lookup_elem(self.maps[name], key)

    def items(self, name: str) -> dict[bytes, bytes]:
        """The whole contents of a map."""
        return dict(self.process.map_items(self.maps[name]))

    def run(self, packet: bytes, **fields: Any) -> int:
        """The verdict for an Ethernet frame as AF_PACKET/SOCK_RAW sees it: bytes kept, 0 for a drop. ``fields`` of
        ``__sk_buff`` by name, in host order."""
        from netbpf.packet.receive import receive
        from netbpf.packet.record import Record

        skb = receive(Record(1, 0, len(packet), bytes(packet)))
        if skb is None:
            return 0
        for name, value in fields.items():
            setattr(skb, name, value)
        return min(int(self._live().run_one(skb)) & 0xFFFF_FFFF, skb.len)

    def _live(self) -> Any:
        if self._loaded is None:
            from netbpf.engine.choose import get_engine
            from netbpf.verifier.classic import prove_classic

            process: Any = self.process
            program = prove_classic(self.spec) if self.spec.classic else process.program(self.fd)
            self._loaded = get_engine(None).load(program, process.machine().env)
        return self._loaded


def _load(process: Process, source: Any, options: dict[str, Any]) -> LoadedProgram:
    from netbpf.host.attach import load_for_socket
    from netbpf.sources.load import load

    spec = load(source, **{"view": "socket", **options})
    return LoadedProgram(process, spec, load_for_socket(process, spec))


@pytest.fixture
def replay() -> Callable[..., Any]:
    """``replay(source, capture, engine=None, **options)`` runs a capture through a program; what it returns has ``totals``
    (packets, accepted, dropped, trimmed, bytes) and ``maps``, each map's contents as ``{key bytes: value bytes}``."""
    return _replay


def _replay(source: Any, capture: Any, *, engine: str | None = None, limit: int | None = None, **options: Any) -> Any:
    from types import SimpleNamespace

    from netbpf.packet.open import open_capture
    from netbpf.replay.core import Replay
    from netbpf.replay.session import Session
    from netbpf.replay.snapshot import entries
    from netbpf.sources.load import load

    spec = load(source, **{"view": "socket", **options})
    with Session(spec, engine=engine) as session, open_capture(capture) as reader:
        run = Replay(session.loaded, session.maps, limit=limit)
        for _ in run.run(reader):
            pass
        maps = {name: dict(entries(m)) for name, m in session.maps.items()}
    return SimpleNamespace(totals=run.totals, maps=maps)
