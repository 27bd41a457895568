"""Coverage as an lcov tracefile (geninfo(1)), which genhtml and editors read.

A program with line records is told by its source files. One without has no file that lines could be counted in: its disassembly
is written beside the tracefile, an instruction a line, and told by that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from netbpf.explain.coverage import ProgramCoverage

LISTINGS: Final = ".listings"


@dataclass(slots=True)
class _File:
    """One source file: hits by line, branches by (line, program, slot), functions by name: (line, hits)."""

    lines: dict[int, int] = field(default_factory=dict)
    branches: dict[tuple[int, str, int], tuple[int, int]] = field(default_factory=dict)
    functions: dict[str, tuple[int, int]] = field(default_factory=dict)


def format_lcov(programs: Iterable[ProgramCoverage], listings: str = "") -> tuple[str, dict[str, str]]:
    """(the tracefile, text by path of the listings it names). ``listings`` is the folder that those would be in."""
    files: dict[str, _File] = {}
    written: dict[str, str] = {}
    for program in programs:
        if any(source.line for _, source in program.lines):
            _by_source(program, files)
        else:
            path = os.path.join(listings, f"{program.name or 'program'}-{program.digest}.s")
            written[path] = "".join(f"{pc:4d}: {text}\n" for pc, text in program.insns)
            _by_listing(program, files.setdefault(path, _File()))
    return "".join(f"{line}\n" for line in _lines(files)), written


def write_lcov(programs: Iterable[ProgramCoverage], path: str) -> list[str]:
    """Write the tracefile and the listings it names, these in the folder ``PATH.listings``; their paths. Raises OSError."""
    folder = os.path.abspath(path) + LISTINGS
    text, written = format_lcov(programs, folder)
    if written:
        os.makedirs(folder, exist_ok=True)
    for name, content in written.items():
        with open(name, "w", encoding="utf-8") as f:
            f.write(content)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return list(written)


def _by_source(program: ProgramCoverage, files: dict[str, _File]) -> None:
    for row in program.line_hits():
        found = files.setdefault(_found(program, row.source.file), _File())
        found.lines[row.source.line] = found.lines.get(row.source.line, 0) + row.hits
        for pc, taken, not_taken in row.branches:
            found.branches[row.source.line, program.digest, pc] = taken, not_taken
    where = dict(program.lines)
    for function, hits in program.function_hits():
        source = next((where[pc] for pc in sorted(where) if function.start <= pc < function.end and where[pc].line), None)
        if source is not None:
            functions = files.setdefault(_found(program, source.file), _File()).functions
            line, before = functions.get(function.name, (source.line, 0))
            functions[function.name] = min(line, source.line), before + hits


def _found(program: ProgramCoverage, file: str) -> str:
    """Where a source file is: compilers tell it from the folder they ran in, which is often the program's own."""
    beside = os.path.join(os.path.dirname(os.path.abspath(program.path)), file)
    return os.path.normpath(beside) if not os.path.isabs(file) and os.path.exists(beside) else file


def _by_listing(program: ProgramCoverage, found: _File) -> None:
    line_of = {pc: i for i, (pc, _) in enumerate(program.insns, 1)}
    for pc in program.live:
        found.lines[line_of[pc]] = program.hits.get(pc, 0)
        if pc in program.jumps:
            found.branches[line_of[pc], program.digest, pc] = program.ways(pc)
    for function, hits in program.function_hits():
        found.functions[function.name] = line_of[function.start], hits


def _lines(files: dict[str, _File]) -> Iterator[str]:
    yield "TN:netbpf"
    for path in sorted(files):
        found = files[path]
        yield f"SF:{path}"
        yield from _functions(found)
        yield from _branches(found)
        yield from (f"DA:{line},{found.lines[line]}" for line in sorted(found.lines))
        yield f"LF:{len(found.lines)}"
        yield f"LH:{sum(n > 0 for n in found.lines.values())}"
        yield "end_of_record"


def _functions(found: _File) -> Iterator[str]:
    rows = sorted(found.functions.items())
    yield from (f"FN:{line},{name}" for name, (line, _) in rows)
    yield from (f"FNDA:{hits},{name}" for name, (_, hits) in rows)
    yield f"FNF:{len(rows)}"
    yield f"FNH:{sum(hits > 0 for _, (_, hits) in rows)}"


def _branches(found: _File) -> Iterator[str]:
    """A jump is a block of its own on its line, the way that is taken before the other; "-" where it never ran."""
    blocks: dict[int, int] = {}
    for (line, _, _), ways in sorted(found.branches.items()):
        block = blocks.setdefault(line, 0)
        blocks[line] += 1
        for number, way in enumerate(ways):
            yield f"BRDA:{line},{block},{number},{way if any(ways) else '-'}"
    yield f"BRF:{2 * len(found.branches)}"
    yield f"BRH:{sum(way > 0 for ways in found.branches.values() for way in ways)}"
