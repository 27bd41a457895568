"""bpf_conformance's ``.data`` files -> what a test runs and expects.

A file is sections that begin with ``-- name``; ``#`` starts a comment anywhere:

    -- asm       uBPF assembly                        -- raw      64-bit words, the instructions themselves (read first)
    -- mem       hex bytes; absent: no memory         -- result   r0 as 0x... or decimal
    -- error     the text an implementation fails with

Sections that are for people (``-- c``, ``-- no register offset``) are skipped. R1 is the memory's address, R2 its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from netbpf.errors import SourceError
from netbpf.ints import U64_MAX
from netbpf.isa.instruction import Program, decode
from netbpf.sources import ubpf_asm

SECTIONS = ("asm", "raw", "mem", "result", "error", "c", "no register offset")


class ConformanceTest(NamedTuple):
    """One file. ``memory`` is None where the test has none; ``result`` is the r0 expected, None where ``error`` is."""

    insns: Program
    memory: bytes | None
    result: int | None
    error: str | None


class _Row(NamedTuple):
    line: int
    text: str


def parse(text: str, path: str = "<data>") -> ConformanceTest:
    """The test in ``text``. Raises SourceError at the line that is wrong."""
    sections = _sections(text, path)
    if "asm" not in sections and "raw" not in sections:
        raise SourceError("neither '-- asm' nor '-- raw'", path=path)
    error = " ".join(row.text.strip() for row in sections.get("error", ())) or None
    result = _result(sections.get("result", []), path)
    if error is None and result is None:
        raise SourceError("neither '-- result' nor '-- error'", path=path)
    memory = _memory(sections["mem"], path) if "mem" in sections else None
    return ConformanceTest(_program(sections, path), memory, result, error)


def _sections(text: str, path: str) -> dict[str, list[_Row]]:
    sections: dict[str, list[_Row]] = {}
    rows: list[_Row] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.split("#", 1)[0].rstrip()
        if line.startswith("--"):
            name = line[2:].strip()
            if name not in SECTIONS:
                raise SourceError(f"unknown section '{name}': {', '.join(SECTIONS)}", path=path, line=number, source_line=raw)
            rows = sections.setdefault(name, [])
        elif line.strip():
            rows.append(_Row(number, line))
    return sections


def _program(sections: dict[str, list[_Row]], path: str) -> Program:
    if "raw" in sections:
        return decode(b"".join(word.to_bytes(8, "little") for word in _raw_words(sections["raw"], path)))
    rows = sections["asm"]
    padded = [""] * (rows[-1].line if rows else 0)  # so that errors have the file's line numbers
    for row in rows:
        padded[row.line - 1] = row.text
    return ubpf_asm.parse("\n".join(padded), path)


def _raw_words(rows: list[_Row], path: str) -> Iterator[int]:
    for row in rows:
        for word in row.text.split():
            yield _unsigned(word, row, path)


def _unsigned(word: str, row: _Row, path: str) -> int:
    try:
        value = int(word, 16 if word.lower().startswith("0x") else 10)
    except ValueError:
        value = -1
    if not 0 <= value <= U64_MAX:
        column = row.text.index(word) + 1
        raise SourceError(
            f"'{word}' is no 64-bit number", path=path, line=row.line, column=column, source_line=row.text, width=len(word)
        )
    return value


def _memory(rows: list[_Row], path: str) -> bytes:
    out = b""
    for row in rows:
        try:
            out += bytes.fromhex(row.text)
        except ValueError as e:
            raise SourceError(f"memory is bytes in hex: {e}", path=path, line=row.line, column=1, source_line=row.text) from None
    return out


def _result(rows: list[_Row], path: str) -> int | None:
    return _unsigned(rows[-1].text.strip(), rows[-1], path) if rows else None
