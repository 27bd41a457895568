"""Coverage for the terminal: a row a program, and what was missed. Pure: data in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from netbpf.explain.coverage import ProgramCoverage, Share

WIDTH: Final = 80
MAX_MISSED: Final = 12


def format_table(programs: Iterable[ProgramCoverage], *, missed: bool = False, width: int = WIDTH) -> Iterator[str]:
    """The table; ``missed`` adds the instructions and ways of jumps that never ran below each program."""
    rows = list(programs)
    name_width = width - 54
    yield f"{'program':<{name_width}} {'runs':>8} {'instructions':>15} {'branches':>14} {'lines':>13}".rstrip()
    for program in rows:
        yield _row(program_label(program), program.runs, program, name_width)
        if missed:
            yield from _missed(program, width)
    if len(rows) > 1:
        total = [_sum(shares) for shares in zip(*(_shares(p) for p in rows), strict=True)]
        yield _cells("all", sum(p.runs for p in rows), total, name_width)


def program_label(program: ProgramCoverage) -> str:
    """``flows.o:count``, as far as either is known and says more than the other."""
    name = program.path if program.path.startswith("filter ") else program.path.rsplit("/", 1)[-1]
    if not name or not program.name or program.name in (name, name.partition(".")[0], "filter"):
        return name or program.name or program.digest
    return f"{name}:{program.name}"


def _shares(program: ProgramCoverage) -> tuple[Share, Share, Share]:
    return program.instructions, program.branches, program.source_lines


def _row(label: str, runs: int, program: ProgramCoverage, name_width: int) -> str:
    return _cells(label, runs, _shares(program), name_width)


def _cells(label: str, runs: int, shares: Iterable[Share], name_width: int) -> str:
    instructions, branches, lines = shares
    text = label if len(label) <= name_width else ".." + label[-(name_width - 2) :]
    return f"{text:<{name_width}} {runs:>8} {_cell(instructions):>15} {_cell(branches):>14} {_cell(lines):>13}"


def _cell(share: Share) -> str:
    return f"{share} {share.percent:3.0f}%" if share.total else "-"


def _sum(shares: Iterable[Share]) -> Share:
    each = list(shares)
    return Share(sum(s.hit for s in each), sum(s.total for s in each))


# --- what was missed ------------------------------------------------------------------------------------------------------
def _missed(program: ProgramCoverage, width: int) -> Iterator[str]:
    texts, source = dict(program.insns), _source_of(program)
    told = [f"never ran: {place}" for place in _ranges(program, source)]
    for pc in program.jumps:
        taken, not_taken = program.ways(pc)
        if pc in program.live and taken + not_taken and not (taken and not_taken):
            told.append(f"{'always' if taken else 'never'} taken: {pc}: {texts[pc]}{source.get(pc, '')}")
    for line in told[:MAX_MISSED]:
        text = f"  {line}"
        yield text if len(text) <= width else text[: width - 2] + ".."
    if len(told) > MAX_MISSED:
        yield f"  and {len(told) - MAX_MISSED} more"


def _source_of(program: ProgramCoverage) -> dict[int, str]:
    """`` (flows.c:12)`` by slot, where a number is known."""
    return {pc: f" ({row.source.place})" for row in program.line_hits() for pc in row.pcs}


def _ranges(program: ProgramCoverage, source: dict[int, str]) -> Iterator[str]:
    """Instructions without a hit, those in a row together."""
    live, start, last = program.live, -1, -1
    for pc in (*live, -1):
        missed = pc >= 0 and not program.hits.get(pc, 0)
        if missed and start < 0:
            start = pc
        if not missed and start >= 0:
            yield (f"{start}" if start == last else f"{start}-{last}") + source.get(start, "")
            start = -1
        last = pc
