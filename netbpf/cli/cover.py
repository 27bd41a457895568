"""``netbpf cover``: what coverage files say, added up, as a page for a browser, as an lcov tracefile."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from netbpf.errors import UsageError

if TYPE_CHECKING:
    from netbpf.explain.coverage import Coverage, ProgramCoverage

SUMMARY = "coverage of programs: a table, an HTML page, sums, lcov"
ACTIONS = ("report", "html", "merge", "lcov")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=ACTIONS,
        help="report: a table; html: a page with source, counts, verifier states; merge: one file of several; lcov: a tracefile",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="coverage files (replay --coverage, pytest --netbpf-cov)")
    parser.add_argument("-o", dest="output", metavar="OUT", help="where html, merge and lcov write")
    parser.add_argument("--missed", action="store_true", help="report: what never ran, and jumps that went one way only")
    parser.add_argument("--json", action="store_true", help="report: one JSON object, the shares of each program")
    parser.add_argument("--fail-under", type=float, metavar="PERCENT", help="report: exit 1 below this share of instructions")


def run(args: argparse.Namespace) -> int:
    """0; 1 where --fail-under is not met; 65 for a file that is none."""
    from netbpf.explain.coverage import Coverage

    total = Coverage()
    for path in args.files:
        total.merge(Coverage.load(path).programs)
    if args.action == "report":
        return _report(args, total)
    if args.output is None:
        raise UsageError(f"cover {args.action} needs -o OUT")
    if args.action == "merge":
        total.save(args.output)
    elif args.action == "html":
        from netbpf.report.coverage_page import render

        with open(args.output, "w", encoding="utf-8") as f:
            f.write(render(total.programs))
    else:
        from netbpf.explain.lcov import write_lcov

        for path in write_lcov(total.programs, args.output):
            print(f"netbpf: {path}: instructions of a program without source lines", file=sys.stderr)
    return 0


def _report(args: argparse.Namespace, total: Coverage) -> int:
    from netbpf.explain.coverage import Share
    from netbpf.explain.coverage_text import format_table

    programs = total.programs
    if args.json:
        print(json.dumps({"programs": [_shares(p) for p in programs]}))
    else:
        print("\n".join(format_table(programs, missed=args.missed)))
    found = Share(sum(p.instructions.hit for p in programs), sum(p.instructions.total for p in programs))
    if args.fail_under is not None and found.percent < args.fail_under:
        print(f"netbpf: {found.percent:.1f} % of the instructions ran, under {args.fail_under:g} %", file=sys.stderr)
        return 1
    return 0


def _shares(program: ProgramCoverage) -> dict[str, object]:
    """What the table says of a program."""
    shares = {
        "instructions": program.instructions, "branches": program.branches, "lines": program.source_lines,
        "functions": program.function_share,
    }  # fmt: skip
    told: dict[str, object] = {"digest": program.digest, "name": program.name, "path": program.path, "runs": program.runs}
    return told | {name: {"hit": share.hit, "total": share.total} for name, share in shares.items()}
