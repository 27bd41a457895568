"""``netbpf test``: scenario files run and checked, for those without a test suite."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netbpf.errors import SourceError, UsageError

if TYPE_CHECKING:
    from netbpf.scenario.suite import Item, Result
    from netbpf.scenario.update import Updater

EXIT_CODES = """exit codes: 0 all passed or were skipped, 1 some failed, 65 a file that is no
scenario, others as netbpf --help"""
EX_FAILED = 1
EX_INTERRUPTED = 130
WIDTH = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="*.scenario.toml files, or folders that have some")
    parser.add_argument(
        "--backend", default="sim", choices=("sim", "kernel", "both"),
        help="sim (default), kernel (needs root), or both, which must agree",
    )  # fmt: skip
    parser.add_argument(
        "--engine", default="interp", choices=("interp", "native", "both"), help="the simulator's: interp (default), native, both"
    )
    parser.add_argument("-k", dest="keyword", default="", metavar="TEXT", help="only items whose name has TEXT in it")
    parser.add_argument("--junit", metavar="FILE", help="write a JUnit XML report (- is stdout, which has nothing else then)")
    parser.add_argument("--update", action="store_true", help="rewrite expectations that are not met; comments are kept")
    parser.add_argument("--list", action="store_true", help="print the items and run none")
    parser.add_argument("--quiet", "-q", action="store_true", help="only failures and the last line")
    parser.epilog = EXIT_CODES


def run(args: argparse.Namespace) -> int:
    """0 when every item passed or was skipped, EX_FAILED when one failed, 65 when a file could not be read."""
    from netbpf.scenario.suite import check_engine

    if args.update and args.backend == "both":
        raise UsageError("--update rewrites what one backend says: --backend sim or --backend kernel")
    check_engine(args.engine)
    made = _Run(args)
    items = made.collect()
    if args.list:
        for item in items:
            print(item.name)
        return made.exit_code()
    return made.go(items)


@dataclass
class _Run:
    """One run of the command."""

    args: argparse.Namespace
    results: list[Result] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    updater: Updater | None = None
    interrupted: bool = False

    def collect(self) -> list[Item]:
        """Every item whose name has the keyword; files that are no scenarios are told at the end. Raises UsageError where
        there is nothing to run."""
        from netbpf.scenario.read import read_file
        from netbpf.scenario.suite import find_files, items_of

        items: list[Item] = []
        for path in find_files(self.args.paths):
            try:
                items += items_of(read_file(path), self.args.backend, self.args.engine)
            except SourceError as e:
                self.broken.append((path, str(e)))
        chosen = [item for item in items if self.args.keyword in item.name]
        if not chosen and not self.broken:
            raise UsageError(f"no item has {self.args.keyword!r} in its name" if items else "no *.scenario.toml file there")
        return chosen

    def go(self, items: list[Item]) -> int:
        from netbpf.scenario.suite import run_item
        from netbpf.scenario.update import Updater

        self.updater = Updater() if self.args.update else None
        try:
            for item in items:
                self._take(run_item(item))
        except KeyboardInterrupt:
            self.interrupted = True
        self._finish(len(items))
        return EX_INTERRUPTED if self.interrupted else self.exit_code()

    def _take(self, result: Result) -> None:
        from dataclasses import replace

        from netbpf.scenario.suite import PASSED

        if self.updater is not None and self.updater.take(result):
            result = replace(result, status=PASSED, problems=())
        self.results.append(result)
        self._tell(result)

    def _tell(self, result: Result) -> None:
        from netbpf.scenario.show import format_result
        from netbpf.scenario.suite import BROKEN, FAILED, SKIPPED

        if self.args.junit == "-":
            return
        word = {FAILED: "FAIL", BROKEN: "ERROR", SKIPPED: "skip"}.get(result.status, "ok")
        is_bad = result.status in (FAILED, BROKEN)
        if is_bad or not self.args.quiet:
            line = f"{word:5} {result.item.name}"
            print(f"{line} ({result.seconds:.2f} s)" if len(line) < WIDTH - 10 else line, flush=True)
        text = format_result(result)
        if text and (is_bad or not self.args.quiet):
            print("\n".join(f"      {line}".rstrip() for line in text.splitlines()), flush=True)

    def _finish(self, asked: int) -> None:
        from netbpf.scenario.junit import junit_xml
        from netbpf.scenario.suite import BROKEN, FAILED, PASSED, SKIPPED

        for path, why in self.broken:
            print(f"netbpf: {why}" if path in why else f"netbpf: {path}: {why}", file=sys.stderr)
        self._write_updates()
        if self.args.junit == "-":
            print(junit_xml(self.results, self.broken), end="")
            return
        if self.args.junit:
            with open(self.args.junit, "w", encoding="utf-8") as f:
                f.write(junit_xml(self.results, self.broken))
        count = {s: sum(r.status == s for r in self.results) for s in (PASSED, FAILED, BROKEN, SKIPPED)}
        told = [f"{n} {word}" for word, n in count.items() if n or word == PASSED]
        told += [f"{asked - len(self.results)} not run"] if self.interrupted else []
        print(f"{', '.join(told)} in {sum(r.seconds for r in self.results):.2f} s")

    def _write_updates(self) -> None:
        if self.updater is None:
            return
        for path in self.updater.write():
            print(f"rewritten: {path}", file=sys.stderr)
        for conflict in self.updater.conflicts:
            print(f"netbpf: {conflict}", file=sys.stderr)

    def exit_code(self) -> int:
        from netbpf.scenario.suite import BROKEN, FAILED

        if any(r.status in (FAILED, BROKEN) for r in self.results) or (self.updater and self.updater.conflicts):
            return EX_FAILED
        return SourceError.exit_code if self.broken else 0
