"""``netbpf replay --report OUT.html``: the file, opened before the run so that a wrong path is told at once, written after it."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from netbpf.engine.results import Verdicts
from netbpf.packet.batch import PacketBatch
from netbpf.replay.core import Interval, Replay
from netbpf.replay.session import Session
from netbpf.report.collect import Collector, RunFacts
from netbpf.report.instructions import InsnCounter

if TYPE_CHECKING:
    from netbpf.cli.program import ProgramChoice
    from netbpf.replay.lab_session import LabSession


class ReportFile:
    """Collects a replay and writes its page; a context manager."""

    def __init__(self, args: argparse.Namespace, session: Session | LabSession, choice: ProgramChoice, linktype: int) -> None:
        self._args, self._session, self._program, self._stack = args, session, choice.name, ExitStack()
        self._file: TextIO = self._stack.enter_context(open(args.report, "w", encoding="utf-8"))  # noqa: SIM115
        spec = session.spec or choice.spec(linktype)  # a program that was known from an earlier run comes without its text
        counting = self._stack.enter_context(Session(spec, engine="interp", seed=args.seed))
        only = linktype if choice.expression is not None else None  # what an expression was compiled for
        self._collector = Collector(spec, session, InsnCounter(spec, counting, only))

    def add(self, batch: PacketBatch, verdicts: Verdicts) -> None:
        """A batch and what became of it: a sink of the replay."""
        self._collector.add(batch, verdicts)

    def tell(self, interval: Interval) -> None:
        """An interval has ended."""
        self._collector.tell(interval)

    def write(self, replay: Replay, seconds: float, warnings: list[str]) -> None:
        """Write the page of all that was collected."""
        from netbpf.report.replay_page import render

        args = self._args
        facts = RunFacts(args.captures, self._program, self._session.engine_name, seconds, warnings)
        self._file.write(render(self._collector.report(replay, facts)))
        if args.report not in ("/dev/stdout", "/dev/stderr"):
            print(f"report: {args.report}", file=sys.stderr if args.json else sys.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
