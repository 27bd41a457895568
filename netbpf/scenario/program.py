"""The program a scenario names -> ProgramSpec. Errors in a text inside the scenario point at its own line of the file."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NoReturn

from netbpf.errors import SourceError
from netbpf.program import ProgramSpec
from netbpf.scenario.model import Case, ProgramText
from netbpf.scenario.toml_map import Node
from netbpf.sources.load import ObjectOptions, filter_program, parse_program


def program_of(case: Case) -> ProgramSpec:
    """Raises SourceError, OSError, UsageError (no libpcap), ProgramRejected (a classic filter the kernel refuses)."""
    text, view = case.program, case.socket.view
    if text.form == "file":
        return _from_file(case, text)
    try:
        if text.form == "expr":
            return filter_program(text.text, view=view, optimize=text.optimize)
        suffix = ".s" if text.form == "asm" else ".cbpf"
        return parse_program(text.text.encode(), f"scenario{suffix}", ObjectOptions(view=view))
    except SourceError as e:
        _fail_inside(text.node, e)


def _from_file(case: Case, text: ProgramText) -> ProgramSpec:
    from netbpf.sources.load import read_program

    options = replace(text.options, view=case.socket.view)
    if options.btf:
        options = replace(options, btf=os.path.join(case.folder, options.btf))
    path = os.path.join(case.folder, text.text)
    try:
        return read_program(path, options)
    except FileNotFoundError as e:
        text.node.fail(f"there is no file {e.filename}")


def _fail_inside(node: Node, e: SourceError) -> NoReturn:
    """Raise the error at the line of the scenario that the text's line is on."""
    raw = node.text.text[node.start : node.end]
    if not e.line or raw[:3] not in ('"""', "'''") or "${" in raw:
        node.fail(e.message)
    starts_below = raw[3:5] == "\r\n" or raw[3:4] == "\n"
    line = node.text.place(node.start)[0] + e.line - (0 if starts_below else 1)
    column = e.column + (3 if e.line == 1 and not starts_below else 0)
    shown = node.text.line(line)
    raise SourceError(
        e.message, path=node.text.path, line=line, column=column, source_line=shown, width=min(e.width, len(shown))
    ) from None
