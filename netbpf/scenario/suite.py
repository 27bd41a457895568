"""Scenario files as a suite: which items there are (a case, a backend, an engine), and the result of each.

What the pytest plugin and ``netbpf test`` share. Knows cases, runs and checks; not how results are told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from netbpf.errors import BpfError, NetbpfError, SourceError, UsageError
from netbpf.scenario.check import Problem, check
from netbpf.scenario.compare import differences
from netbpf.scenario.model import SUFFIX, Case
from netbpf.scenario.run import Skipped, run_case

BACKENDS: Final = ("sim", "kernel", "both")
ENGINES: Final = ("interp", "native", "both")
PASSED, FAILED, SKIPPED, BROKEN = "passed", "failed", "skipped", "error"


@dataclass(frozen=True, slots=True)
class Item:
    """One case to run. ``agrees``: the kernel's outcome must be the simulator's, too."""

    case: Case
    backend: str
    engine: str = ""
    agrees: bool = False

    @property
    def place(self) -> str:
        """``sim-interp``, ``sim-native`` or ``kernel``."""
        return f"{self.backend}-{self.engine}" if self.engine else self.backend

    @property
    def id(self) -> str:
        """``https-sim-interp``; of the only case of a file ``sim-interp``."""
        return f"{self.case.id}-{self.place}" if self.case.id else self.place

    @property
    def name(self) -> str:
        """The file's name without its suffix, and the id."""
        return f"{os.path.basename(self.case.path).removesuffix(SUFFIX)}[{self.id}]"


@dataclass(frozen=True, slots=True)
class Result:
    """``status`` is passed, failed, skipped or error; ``reason`` is why it was skipped or what is wrong; ``problems`` and
    ``differences`` (of simulator and kernel) are what failed."""

    item: Item
    status: str
    seconds: float = 0.0
    reason: str = ""
    problems: tuple[Problem, ...] = ()
    differences: tuple[str, ...] = ()


def find_files(paths: Iterable[str]) -> Iterator[str]:
    """Scenario files: those named, and all below folders, in order. Raises UsageError for a path that is neither."""
    for path in paths:
        if os.path.isdir(path):
            for folder, below, names in os.walk(path):
                below[:] = sorted(d for d in below if not d.startswith("."))
                yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(SUFFIX))
        elif os.path.exists(path):
            yield path
        else:
            raise UsageError(f"{path}: no such file or folder")


def items_of(cases: Iterable[Case], backend: str = "sim", engine: str = "interp") -> Iterator[Item]:
    """The items of cases for ``--backend`` and ``--engine``, in the order of the cases."""
    engines = ("interp", "native") if engine == "both" else (engine,)
    for case in cases:
        if backend != "kernel":
            yield from (Item(case, "sim", e) for e in engines)
        if backend != "sim":
            yield Item(case, "kernel", agrees=backend == "both")


def check_engine(engine: str) -> None:
    """Raise UsageError where the native engine was asked for and cannot run here."""
    from netbpf.engine.choose import native_obstacle

    reason = native_obstacle() if engine != "interp" else ""
    if reason:
        raise UsageError(f"--engine {engine}: {reason}")


def run_item(item: Item) -> Result:
    """Run and check one item. An error in the scenario, its program or its files is a result, too."""
    started = time.perf_counter()
    told = _Told()
    try:
        status = _run(item, told)
    except Skipped as e:
        status, told.reason = SKIPPED, str(e)
    except (SourceError, NetbpfError, BpfError, OSError) as e:
        status, told.reason = BROKEN, str(e)
    seconds = time.perf_counter() - started
    return Result(item, status, seconds, told.reason, tuple(told.problems), tuple(told.differences))


@dataclass(slots=True)
class _Told:
    reason: str = ""
    problems: list[Problem] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def _run(item: Item, told: _Told) -> str:
    outcome = run_case(item.case, item.backend, item.engine, all_maps=item.agrees)
    told.problems = check(item.case, outcome)
    if item.agrees:
        told.differences = differences(item.case, run_case(item.case, all_maps=True), outcome)
    return FAILED if told.problems or told.differences else PASSED
