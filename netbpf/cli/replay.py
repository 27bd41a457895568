"""``netbpf replay``: captures through a program, with the manual page's line for every second of trace time."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from netbpf.cli.program import ProgramChoice, add_program_arguments, chosen_program
from netbpf.cli.progress import Progress
from netbpf.errors import CaptureError, SourceError, UsageError
from netbpf.program import SOCKET_VIEW

if TYPE_CHECKING:
    from netbpf.cli.report_file import ReportFile
    from netbpf.packet.capture import CaptureReader
    from netbpf.replay.core import Interval, Replay
    from netbpf.replay.lab_session import LabSession
    from netbpf.replay.output import CaptureOutput
    from netbpf.replay.session import Session
    from netbpf.replay.sharded import ShardedReplay

EX_INTERRUPTED = 130
ETHERNET = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("captures", nargs="+", metavar="CAPTURE", help="pcap or pcapng, plain or gzip; - is stdin")
    parser.add_argument("-c", dest="count", type=int, metavar="N", help="stop after N packets")
    parser.add_argument(
        "-w", dest="write", metavar="OUT", help="write what was accepted, trimmed as the verdict says (.pcapng: pcapng)"
    )
    parser.add_argument("--report", metavar="OUT.html", help="write a page of plots, maps and hot instructions for a browser")
    parser.add_argument("--engine", default=None, choices=("native", "interp"), help="native (default) or interp, the reference")
    parser.add_argument(
        "--backend",
        choices=("sim", "kernel", "both"),
        default="sim",
        help="sim: ours (default); kernel: the running one, frames into a TAP of its own (root); both: the first difference",
    )
    parser.add_argument(
        "--jobs", "-j", type=int, default=1, metavar="N",
        help="run parts of large captures on N cores where the order of packets does not matter; the result is the same",
    )  # fmt: skip
    parser.add_argument(
        "--shard", choices=("flow",),
        help="with --jobs, where order matters: each core runs the packets of its flows (both directions), in order, on maps of "
        "its own, merged at the end; state across flows, order between flows and intervals are lost (docs/engines.md)",
    )  # fmt: skip
    parser.add_argument("--checked", action="store_true", help="native code keeps every run-time check")
    parser.add_argument("--no-cache", action="store_true", help="compile afresh, and keep nothing on disk")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds of trace time a line (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="seed of bpf_get_prandom_u32 (default 1)")
    parser.add_argument(
        "--dump",
        choices=("plain", "json", "pretty", "none"),
        default="plain",
        help="how maps are printed at the end, as bpftool does",
    )
    parser.add_argument("--coverage", metavar="FILE", help="add what ran, counted in the interpreter, to FILE (netbpf cover)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quiet", "-q", action="store_true", help="no line per interval")
    add_program_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Replay as the arguments say; the exit code."""
    _check(args)
    choice = chosen_program(args)
    with ExitStack() as stack:
        opened = _first_readable(args.captures) if choice.expression is not None else {}
        for reader in opened.values():
            stack.enter_context(reader)
        # a pcapng capture that has told of no interface has no link type: what comes is compiled for when it comes
        linktype = next((reader.linktype for reader in opened.values() if reader.linktype >= 0), ETHERNET)
        session = _session(args, choice, linktype)
        stack.enter_context(session)
        output = None
        if args.write:
            from netbpf.replay.output import CaptureOutput

            output = stack.enter_context(CaptureOutput(args.write, session.view))
        report = stack.enter_context(_report_file(args, session, choice, linktype)) if args.report else None
        run = _Run(args, session, output, report, opened)
        if args.backend == "sim":
            code = run.go()
            if not code and not args.no_cache and args.engine is None:
                from netbpf.replay.quick import leave

                leave(args, session.loaded)
            return code
        from netbpf.cli.backend import told_at_end

        lab = cast("LabSession", session)
        code = run.go() if lab.is_loaded else 0
        return code if code == EX_INTERRUPTED else told_at_end(lab, quiet=args.json) or code


def _report_file(args: argparse.Namespace, session: Session | LabSession, choice: ProgramChoice, linktype: int) -> ReportFile:
    from netbpf.cli.report_file import ReportFile

    return ReportFile(args, session, choice, linktype)


def _session(args: argparse.Namespace, choice: ProgramChoice, linktype: int) -> Session | LabSession:
    if args.coverage:
        from netbpf.explain.counted import CountedSession

        only = linktype if choice.expression is not None else None
        return CountedSession(choice.spec(linktype), args.coverage, path=choice.name, linktype=only, seed=args.seed)
    if args.backend == "sim":
        options = {"engine": args.engine, "seed": args.seed, "use_cache": not args.no_cache, "checked": args.checked}
        return choice.session(linktype, compile_ahead=True, **options)
    from netbpf.replay.lab_session import LabSession

    if choice.view != SOCKET_VIEW:
        if choice.expression is None or args.view:
            raise UsageError(f"--view {choice.view}: on a host packets come to a socket; leave out --backend, or --view")
        choice = replace(choice, view=SOCKET_VIEW)
    return LabSession(choice.spec(linktype), args.backend, engine=args.engine)


def _first_readable(paths: list[str]) -> dict[str, CaptureReader]:
    """The first capture that opens, whose link type an expression is compiled for; what is wrong with those before it is told
    when their turn comes."""
    from netbpf.packet.open import open_capture

    for path in paths:
        try:
            reader = open_capture(path)
        except CaptureError:
            if path == "-":  # it cannot be opened again
                raise
            continue
        return {path: reader}
    return {}


def _check(args: argparse.Namespace) -> None:
    if args.count is not None and args.count < 1:
        raise UsageError(f"-c {args.count}: a count of packets is at least 1")
    if args.jobs < 1:
        raise UsageError(f"--jobs {args.jobs}: a number of cores is at least 1")
    if args.shard and args.jobs < 2:
        raise UsageError(f"--shard {args.shard} shares packets out among cores: say how many with --jobs N, at least 2")
    if not 1e-6 <= args.interval <= 1e9:
        raise UsageError(f"--interval {args.interval}: from 0.000001 to 1000000000 seconds")
    if args.coverage and (args.engine == "native" or args.backend != "sim"):
        raise UsageError("--coverage counts in the interpreter: leave out --engine native and --backend")
    if args.captures.count("-") > 1:
        raise UsageError("stdin (-) can be read once")


@dataclass
class _Run:
    """One run of the command: what it prints and when."""

    args: argparse.Namespace
    session: Session | LabSession
    output: CaptureOutput | None
    report: ReportFile | None
    opened: dict[str, CaptureReader]  # captures that were opened before their turn, by path
    intervals: list[Interval] = field(default_factory=list)
    errors: list[CaptureError | SourceError] = field(default_factory=list)

    def go(self) -> int:
        args, replay = self.args, self._replay()
        started, interrupted = time.perf_counter(), False
        try:
            for path in args.captures:
                self._capture(path, replay)
                if replay.finished:
                    break
        except KeyboardInterrupt:
            interrupted = True
        seconds = time.perf_counter() - started
        if replay.totals.packets:
            self._tell(replay.finish())
        self._finish(replay, seconds)
        if self.report:
            self.report.write(replay, seconds, [str(e) for e in self.errors] + (["Interrupted."] if interrupted else []))
        for error in self.errors:
            print(f"netbpf: {error}", file=sys.stderr)
        if interrupted:
            print("netbpf: interrupted: what is told above is what was done", file=sys.stderr)
            return EX_INTERRUPTED
        return self.errors[0].exit_code if self.errors else 0

    def _replay(self) -> Replay:
        from netbpf.replay.core import Replay

        args = self.args
        options: dict[str, Any] = {
            "interval_ns": self._interval_ns(), "limit": args.count, "sink": self.report.add if self.report else None,
            "output": self.output,
        }  # fmt: skip
        if args.jobs == 1:
            return Replay(self.session.loaded, self.session.maps, **options)
        options |= {"jobs": args.jobs, "use_cache": not args.no_cache}
        if args.shard:
            from netbpf.replay.sharded import ShardedReplay

            return ShardedReplay(self.session.loaded, self.session.maps, **options)
        from netbpf.replay.parallel import ParallelReplay

        return ParallelReplay(self.session.loaded, self.session.maps, **options)

    def _interval_ns(self) -> int:
        """The interval asked for; a quiet run tells nobody of any, and is not held up by them."""
        if self.args.quiet and not self.args.json and not self.report:
            from netbpf.replay.intervals import ONE_INTERVAL_NS

            return ONE_INTERVAL_NS
        seconds: float = self.args.interval
        return round(seconds * 1e9)

    def _capture(self, path: str, replay: Replay) -> None:
        """One capture; damage ends it and is told at the end, after all that was good."""
        from netbpf.packet.open import open_capture

        try:
            with self.opened.pop(path, None) or open_capture(path) as reader:
                progress = Progress()
                replay.on_progress = lambda: progress.update(replay.totals.packets, *reader.progress())
                if self.output:
                    self.output.begin(reader)
                if self.args.shard:
                    cast("ShardedReplay", replay).reopen = None if path == "-" else lambda: open_capture(path)
                try:
                    for interval in replay.run(reader):
                        progress.clear()
                        self._tell(interval)
                finally:
                    progress.clear()
                    self._tell_shards(path, replay)
            reason = getattr(replay, "in_order_because", "")
            if reason:
                print(f"netbpf: {path}: in order, on one core: {reason}", file=sys.stderr)
        except (CaptureError, SourceError) as e:  # SourceError: an expression that packets of a further link type cannot have
            self.errors.append(e)

    def _tell_shards(self, path: str, replay: Replay) -> None:
        """One line of what sharding did, where it was done."""
        merged = getattr(replay, "sharded", None)
        if merged is not None:
            lost = f", {merged.lost} entries found no room" if merged.lost else ""
            print(
                f"netbpf: {path}: sharded by flow on {self.args.jobs} cores: order between flows is lost, no state is shared "
                f"across flows; map keys that several cores changed: {merged.contested} (the last core's value is kept){lost}",
                file=sys.stderr,
            )

    def _tell(self, interval: Interval) -> None:
        if self.report:
            self.report.tell(interval)
        if self.args.json:
            self.intervals.append(interval)
        elif not self.args.quiet and interval.line:
            if interval.skipped:
                print(f"({interval.skipped} intervals without packets)")
            print(interval.line, flush=True)

    def _finish(self, replay: Replay, seconds: float) -> None:
        from netbpf.replay.report import json_report, totals_text

        engine = self.session.engine_name
        if self.args.json:
            report = json_report(replay, self.intervals, seconds, engine)
            if self.args.backend != "sim":
                found = cast("LabSession", self.session).finish()
                report |= {"backend": self.args.backend, "difference": found and found.as_dict()}
            print(json.dumps(report))
            return
        print(totals_text(replay, seconds, engine))
        if self.args.dump != "none":
            self._dump(replay)

    def _dump(self, replay: Replay) -> None:
        from netbpf.maps.dump import dump

        typed = {}
        if self.session.spec is not None and self.args.dump != "plain":
            from netbpf.replay.typed import map_formatters

            typed = map_formatters(self.session.spec)
        for name, m in replay.maps.items():
            print(f"\nmap {name}:")
            print(dump(m, self.args.dump, typed.get(name)))
