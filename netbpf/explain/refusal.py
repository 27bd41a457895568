"""A refusal in words: the C line, the instruction and its registers, the branches that led there, a hint, and a packet that walks
there where one was found. Pure: a diagnosis in, lines out."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from netbpf.explain.text import WIDTH, wrapped

MAX_BRANCHES: Final = 12
BYTES_A_LINE: Final = 16


def format_refusal(
    diagnosis: Mapping[str, Any], witness: Mapping[str, Any] | None = None, *, width: int = WIDTH
) -> Iterator[str]:
    """The lines, none longer than ``width``; ``witness`` as ``Witness.as_json`` gives it."""
    yield from wrapped(f"{diagnosis['errno']}: {diagnosis['message']}", width)
    for detail in diagnosis.get("details") or ():
        if detail != diagnosis["message"]:
            yield from _indented(detail, width)
    if diagnosis.get("insn") is not None:
        yield from _place(diagnosis, width)
    yield from _path(diagnosis.get("path") or [], width)
    if diagnosis.get("hint"):
        yield from wrapped(f"hint: {diagnosis['hint']}", width)
    if witness is not None:
        yield from _walker(witness, width)


def _place(diagnosis: Mapping[str, Any], width: int) -> Iterator[str]:
    yield from _line_of(diagnosis.get("line"), "at ", width)
    yield from _indented(f"insn {diagnosis['insn']}: {_bare(diagnosis['instruction'], diagnosis['insn'])}", width)
    for name, text in (diagnosis.get("registers") or {}).items():
        yield from _indented(f"{name} = {'not written yet' if text == '?' else text}", width, 4)


def _path(path: list[dict[str, Any]], width: int) -> Iterator[str]:
    """The last branches, each with its source line where that is another than the last one's."""
    if not path:
        return
    left_out = len(path) - MAX_BRANCHES
    yield "the path there:" if left_out <= 0 else f"the path there, after {left_out} more branches:"
    above = None
    for branch in path[-MAX_BRANCHES:]:
        line = branch.get("line")
        if line is not None and line != above:
            yield from _line_of(line, "", width)
        above = line
        way = "taken" if branch["taken"] else "not taken"
        yield from _indented(f"{branch['insn']:4d}: {_bare(branch['text'], branch['insn'])}   {way}", width)


def _line_of(line: Mapping[str, Any] | None, before: str, width: int) -> Iterator[str]:
    if line is not None:
        yield from wrapped(f"{before}{str(line['file']).rsplit('/', 1)[-1]}:{line['line']}: {line['text']}", width)


def _walker(witness: Mapping[str, Any], width: int) -> Iterator[str]:
    """The packet, and what became of the run that it made."""
    whole = bytes.fromhex(witness["packet"])
    yield from wrapped(f"a packet that walks it ({len(whole)} bytes, {witness['summary']}):", width)
    shown = whole[: max(len(whole.rstrip(b"\0")), 14)]
    for at in range(0, len(shown), BYTES_A_LINE):
        yield f"  {shown[at : at + BYTES_A_LINE].hex(' ')}"
    if len(shown) < len(whole):
        yield f"  and {len(whole) - len(shown)} bytes of zeros"
    for entry in witness["map_entries"]:
        yield from _indented(f"with an entry in {entry['map']} under {entry['key']}", width)
    if witness["fault"]:
        yield from wrapped(f"seen to run there unverified: {witness['fault']}", width)
    else:
        yield from wrapped("seen to run there unverified; this packet does no harm there, others may", width)


def _bare(text: str, insn: int) -> str:
    """An instruction without its opcode byte; a jump says the slot it reaches."""
    bare = text[5:] if text.startswith("(") else text
    return re.sub(r"goto pc([+-]\d+)", lambda match: f"goto {insn + 1 + int(match[1])}", bare)


def _indented(text: str, width: int, by: int = 2) -> Iterator[str]:
    indent = " " * by
    yield from textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False, drop_whitespace=True
    )
