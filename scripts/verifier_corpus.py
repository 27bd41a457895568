#!/usr/bin/env python3
"""Our verifier beside the kernel's recorded verdicts: four cells, errno, reason, `processed`, whole log and time.

    verifier_corpus.py FILE...                      a table per program type and privilege
    verifier_corpus.py FILE... --list false_accept  the programs of one cell: both_accept, both_reject, false_accept,
                                                    false_reject, or a disagreement: errno, reason, processed, log
    verifier_corpus.py FILE... --json               {prog_type: {privilege: {both_accept, ..., log_equal, seconds}}}
    verifier_corpus.py FILE... --show ID [--mode unpriv]   both logs of one program as a diff

`false_accept`: we accept and the kernel rejects. Exit code 1 when there is any, else 0. Files are JSON lines, plain or gzip,
in the form the vectors' README tells.
"""

from __future__ import annotations

import argparse
import difflib
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from verifier_records import SUPPORTED, Question, last_reason, mask_addresses, questions, read_records, same_log

CELLS = ("both_accept", "both_reject", "false_accept", "false_reject")
AGREEMENTS = ("errno", "reason", "processed", "log")


@dataclass
class Outcome:
    """How one answer of ours compares. An agreement is None where there is nothing to compare."""

    id: str
    prog_type: str
    privilege: str
    cell: str
    errno: bool | None
    reason: bool | None
    processed: bool | None
    log: bool | None
    seconds: float
    note: str


def _cell(ours: bool, kernel: bool) -> str:
    if ours == kernel:
        return "both_accept" if ours else "both_reject"
    return "false_accept" if ours else "false_reject"


def compare(question: Question) -> Outcome:
    """Verify at log level 1 and compare. An exception of ours is a refusal with errno -1, so that it shows."""
    from netbpf.verifier.check import verify

    want, start = question.expected, time.perf_counter()
    try:
        result = verify(question.request())
        errno, log, processed = result.errno, result.log, result.stats.insn_processed
    except Exception as e:
        frame = traceback.extract_tb(e.__traceback__)[-1]
        errno, processed = -1, -1
        log = f"{type(e).__name__}: {e} at {Path(frame.filename).name}:{frame.lineno}"
    seconds = time.perf_counter() - start
    cell = _cell(errno == 0, want.accepted)
    both_reject, agreed = cell == "both_reject", cell in ("both_accept", "both_reject")
    reason = last_reason(log)
    return Outcome(
        question.id,
        question.prog_type,
        question.privilege,
        cell,
        errno == want.errno if both_reject else None,
        reason == want.reason if both_reject and want.reason is not None else None,
        processed == want.processed if agreed and want.processed is not None else None,
        same_log(log, want.log) if want.log is not None else None,
        seconds,
        f"errno {errno} for {want.errno}, processed {processed} for {want.processed}: {reason!r} for {want.reason!r}",
    )


def select(files: Iterable[str], types: list[str], modes: list[str]) -> Iterator[Question]:
    for file in files:
        for record in read_records(file):
            if record["prog_type"] in types:
                yield from (q for q in questions(record) if q.privilege in modes)


def run(asked: list[Question], jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(compare, asked)
        return
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap(compare, asked, chunksize=8)


# --- reports ----------------------------------------------------------------------------------------------------


def summarise(outcomes: list[Outcome], types: list[str], modes: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    table: dict[str, dict[str, dict[str, float]]] = {}
    for prog_type in types:
        for mode in modes:
            rows = [o for o in outcomes if o.prog_type == prog_type and o.privilege == mode]
            if not rows:
                continue
            counts: dict[str, float] = {cell: sum(o.cell == cell for o in rows) for cell in CELLS}
            counts |= {f"{name}_equal": sum(getattr(o, name) is True for o in rows) for name in AGREEMENTS}
            counts["seconds"] = round(sum(o.seconds for o in rows), 3)
            table.setdefault(prog_type, {})[mode] = counts
    return table


def print_table(outcomes: list[Outcome], types: list[str], modes: list[str]) -> None:
    heads = ("accept", "reject", "WE accept", "we reject", "errno", "reason", "processed", "log", "seconds")
    print(f"{'type':16}{'privilege':10}" + "".join(f"{h:>12}" for h in heads))
    for prog_type, by_mode in summarise(outcomes, types, modes).items():
        for mode, counts in by_mode.items():
            rows = [o for o in outcomes if o.prog_type == prog_type and o.privilege == mode]
            cells = [str(counts[cell]) for cell in CELLS]
            for name in AGREEMENTS:
                asked = sum(getattr(o, name) is not None for o in rows)
                cells.append(f"{counts[f'{name}_equal']}/{asked}")
            cells.append(f"{counts['seconds']:.2f}")
            print(f"{prog_type:16}{mode:10}" + "".join(f"{c:>12}" for c in cells))


def print_list(outcomes: list[Outcome], what: str) -> None:
    for o in outcomes:
        if o.cell == what if what in CELLS else getattr(o, what) is False:
            print(f"{o.prog_type}/{o.privilege} {o.id}: {o.note}")


def print_diff(asked: list[Question], name: str) -> None:
    from netbpf.verifier.check import verify

    for question in asked:
        if question.id != name:
            continue
        result = verify(question.request())
        want = mask_addresses(question.expected.log or "").splitlines()
        print(f"--- {question.prog_type}/{question.privilege}: errno {result.errno}, kernel {question.expected.errno}")
        lines = difflib.unified_diff(want, mask_addresses(result.log).splitlines(), "kernel", "netbpf", lineterm="", n=4)
        print("\n".join(lines) or "logs equal")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="+", metavar="FILE")
    p.add_argument("--type", action="append", choices=SUPPORTED, help="only this program type (may be repeated)")
    p.add_argument("--mode", action="append", choices=["priv", "capbpf", "unpriv"], help="only this privilege")
    p.add_argument("--list", choices=[*CELLS, *AGREEMENTS], metavar="CELL")
    p.add_argument("--show", metavar="ID")
    p.add_argument("--json", action="store_true")
    p.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    a = p.parse_args()
    types, modes = a.type or SUPPORTED, a.mode or ["priv", "capbpf", "unpriv"]
    asked = list(select(a.files, types, modes))
    if a.show:
        print_diff(asked, a.show)
        return 0
    outcomes = list(run(asked, a.jobs))
    if a.list:
        print_list(outcomes, a.list)
    elif a.json:
        print(json.dumps(summarise(outcomes, types, modes), indent=1))
    else:
        print_table(outcomes, types, modes)
    return int(any(o.cell == "false_accept" for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
