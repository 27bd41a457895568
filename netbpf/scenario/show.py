"""A result that is not good, as a reader of test output wants it: the line of the file, expected and got, the packet decoded,
the path the program took. Fits 80 columns where the facts do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from netbpf.errors import NetbpfError
from netbpf.packet.record import Record
from netbpf.replay.frames import hex_dump
from netbpf.scenario.check import Problem
from netbpf.scenario.packets import records_of
from netbpf.scenario.run import At
from netbpf.scenario.suite import BROKEN, Result

WIDTH: Final = 76
MOST_BYTES: Final = 128


def format_result(result: Result) -> str:
    """Everything about a failure, an error or a skip; empty for what passed."""
    if result.status == BROKEN or result.reason:
        return result.reason
    return "\n".join(_lines(result))


def _lines(result: Result) -> Iterator[str]:
    explained: set[tuple[int, int]] = set()
    for number, problem in enumerate(result.problems):
        if number:
            yield ""
        yield from format_problem(problem, result.item.case.path)
        at = problem.at
        if at is not None and (at.step, at.packet) not in explained and len(explained) < 3:
            explained.add((at.step, at.packet))
            yield from _packet(result, at)
    if result.differences:
        if result.problems:
            yield ""
        yield f"{result.item.case.path}: simulator and kernel differ"
        yield from (f"  {line}" for line in result.differences)


def format_problem(problem: Problem, path: str) -> Iterator[str]:
    """The place with its caret, expected and got."""
    node = problem.node
    line, column = node.text.place(node.start)
    shown = node.text.line(line)
    yield f"{path}:{line}: {problem.what}"
    yield f"  {shown.rstrip()}"
    yield f"  {' ' * (column - 1)}{'^' * max(1, min(node.end - node.start, len(shown) - column + 1))}"
    yield from _block("expected", problem.expected)
    yield from _block("got", problem.got)


def _block(word: str, text: str) -> Iterator[str]:
    first, *rest = text.split("\n")
    yield f"  {word + ':':9} {first}"
    yield from (f"{'':12}{line}" for line in rest)


def _packet(result: Result, at: At) -> Iterator[str]:
    """The packet decoded, and how the program went through it."""
    case = result.item.case
    record = _record(result, at)
    if record is not None:
        yield ""
        yield from (f"  {line}" for line in hex_dump(record.data, MOST_BYTES).splitlines())
        yield ""
    try:
        from netbpf.scenario.path import path_lines

        yield from (f"  {line}" for line in path_lines(case, at, width=WIDTH))
    except NetbpfError as e:
        yield f"  the path cannot be shown: {e}"


def _record(result: Result, at: At) -> Record | None:
    case = result.item.case
    for number, record in enumerate(records_of(case, case.steps[at.step])):
        if number == at.packet:
            return record
    return None
