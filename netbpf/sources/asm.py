"""Program text <-> ProgramSpec: the words of the kernel's log and of bpftool, with labels, constants and maps.

``parse`` reads .s files, LLVM's BPF assembly, ``bpftool prog dump xlated`` and ``llvm-objdump -d`` listings and whole
verifier logs; ``format_program`` writes what ``parse`` reads back as the same program. docs/assembly.md is the language.

Knows the shape of a text: lines, numbers in front, labels, where they are settled. One instruction's grammar is in
``asm_insn``, directives are in ``asm_decl``, writing is in ``asm_format``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from netbpf.errors import SourceError
from netbpf.isa.instruction import decode
from netbpf.program import MapDecl, ProgramSpec
from netbpf.sources.asm_decl import Declarations, new_scope, program_head
from netbpf.sources.asm_format import format_program
from netbpf.sources.asm_insn import REGISTERS, Fixup, InsnReader, Scope
from netbpf.sources.lexer import IDENT, Cursor, Line, Token, did_you_mean, split_lines

__all__ = ["format_program", "parse"]

_NUMBERED = re.compile(r"\s*(\d{1,9}):(?=\s|\Z)\s*")
_OPCODE = re.compile(r"\s*\(([0-9a-f]{2})\)\s+")
_OBJDUMP_BYTES = re.compile(r"\s*((?:[0-9a-f]{2} ){7}[0-9a-f]{2}(?: (?:[0-9a-f]{2} ){7}[0-9a-f]{2})?)\s")
_OBJDUMP_LABEL = re.compile(r"\s*(?:[0-9a-f]{8,16} )?<([^>]+)>:\s*\Z")
_OBJDUMP_RELOCATION = re.compile(r"\s*([0-9a-f]{8,16}):\s+(R_BPF_\w+)\s+(\S+)")
_HEADING = re.compile(r".*:\s+file format elf\S*\s*\Z|Disassembly of section .*|[A-Za-z_].*\(.*\):\s*\Z")
_LABEL = re.compile(r"\s*(?:\d+:\s+)?([A-Za-z_.$][A-Za-z0-9_.$]*):")
_PROGRAM = re.compile(r"\s*\.program(?:\s|\Z)")
_LOG_MARK = re.compile(r"func#\d+ @\d+\Z|processed \d+ insns |Live regs before insn:")
# a jump's line may go on with the next state or with the complaint that ended the log
_LOG_INSN = re.compile(r"(\d+): (\([0-9a-f]{2}\) (?:[^;]*?goto pc[+-]\d+\b|.*?(?=\s*(?:;.*| \d+: .*)?\Z)))")
_LOG_LIVE = re.compile(r" +(?:\d+ +)?(\d+): [0-9.]{10} (\([0-9a-f]{2}\) .*?)\s*\Z")


def parse(text: str, path: str = "<text>") -> ProgramSpec:
    """The program in ``text``; ``path`` names it in errors. Raises SourceError with line, column and caret."""
    lines = list(split_lines(text))
    if any(_LOG_MARK.match(line.text) for line in lines):
        return _Assembler(path, new_scope()).run(_log_listing(lines, path))
    first, *rest = _programs(lines)
    main = _Assembler(path, new_scope()).run(first)
    if not rest:
        return main
    return main._replace(others=tuple(_other(main, chunk, path) for chunk in rest))


def _programs(lines: Iterable[Line]) -> list[list[Line]]:
    """The lines of each program: a new one begins at ``.program``."""
    chunks: list[list[Line]] = [[]]
    for line in lines:
        if _PROGRAM.match(line.blanked):
            chunks.append([])
        chunks[-1].append(line)
    return chunks


def _other(main: ProgramSpec, lines: list[Line], path: str) -> ProgramSpec:
    name, own = program_head(Cursor(lines[0], path))
    scope = new_scope()
    maps = () if own else main.maps
    for index, decl in enumerate(maps):
        scope.map_index.setdefault(decl.spec.name, index)
    return _Assembler(path, scope, maps, b"" if own else main.btf).run(lines[1:])._replace(name=name)


class _Assembler:
    """One program being read: slots so far, labels with their places, what the directives said."""

    def __init__(self, path: str, scope: Scope, maps: Sequence[MapDecl] = (), btf: bytes = b"") -> None:
        self.path = path
        self.scope = scope
        self.decls = Declarations(scope, maps, btf)
        self.insns = self.decls.insns
        self.labels: dict[str, int] = {}

    def run(self, lines: Iterable[Line]) -> ProgramSpec:
        lines = list(lines)
        self.scope.labels = frozenset(m[1] for line in lines if (m := _LABEL.match(line.blanked)))
        for line in lines:
            self._line(line)
        if self.decls.open_at is not None:
            cursor, name = self.decls.open_at
            cursor.fail(name, f"the contents of map '{name.text}' have no closing '}}'")
        for fixup, cursor in self.scope.fixups:
            self._settle(fixup, cursor)
        return self._spec()

    def _spec(self) -> ProgramSpec:
        d = self.decls
        return ProgramSpec(
            insns=tuple(self.insns),
            prog_type=d.prog_type,
            license=d.license,
            name=d.name,
            maps=tuple(d.maps),
            prog_flags=d.prog_flags,
            expected_attach_type=d.expected_attach_type,
            btf=d.btf,
            func_info=tuple(d.func_info),
            line_info=tuple(d.line_info),
            source_lines=tuple(d.source_lines),
            classic=tuple(d.classic),
            view=d.view,
        )

    # --- lines ------------------------------------------------------------------------------------------------------------

    def _line(self, line: Line) -> None:
        if self.decls.open_map >= 0:
            cursor = Cursor(line, self.path)
            if not cursor.ended():
                self.decls.entry(cursor)
            return
        if found := _OBJDUMP_LABEL.match(line.blanked):
            self._label(Token(IDENT, found[1], found.start(1) + 1), Cursor(line, self.path, len(line.blanked)))
        elif found := _OBJDUMP_RELOCATION.match(line.blanked):
            place = Token(IDENT, found[3], found.start(3) + 1)
            what = f"the instruction above needs '{found[3]}' ({found[2]}), which a listing does not hold: read the object itself"
            Cursor(line, self.path, len(line.blanked)).fail(place, what)
        elif not _HEADING.match(line.blanked):
            self._statement(line)

    def _statement(self, line: Line) -> None:
        start, code = 0, None
        if found := _NUMBERED.match(line.blanked):
            self._check_number(line, int(found[1]), found.start(1) + 1)
            start = found.end()
        if listed := _OBJDUMP_BYTES.match(line.blanked, start):
            self.insns.extend(decode(bytes.fromhex(listed[1])))
            return
        if byte := _OPCODE.match(line.blanked, start):
            code, start = int(byte[1], 16), byte.end()
        cursor = Cursor(line, self.path, start)
        while cursor.token.kind == IDENT and cursor.peek().text == ":":
            self._label(cursor.next(), cursor)
            cursor.next()
        if not cursor.ended():
            self._refuse_semicolons(cursor)
            self._content(cursor, code)

    def _content(self, cursor: Cursor, code: int | None) -> None:
        token = cursor.token
        if token.text.startswith(".") and token.kind == IDENT:
            self.decls.directive(cursor)
        elif token.kind == IDENT and cursor.peek().text == "=" and token.text not in REGISTERS:
            cursor.at += 2
            self.decls.define(cursor, token)
        else:
            self._instruction(cursor, code)

    def _instruction(self, cursor: Cursor, code: int | None) -> None:
        token = cursor.token
        slots = InsnReader(cursor, self.scope, len(self.insns), code).read()
        if code is not None and slots[0].code != code:
            cursor.fail(token, f"these words are opcode ({slots[0].code:02x}), the line says ({code:02x})")
        self.insns.extend(slots)

    def _check_number(self, line: Line, number: int, column: int) -> None:
        expected = len(self.insns)
        if number == expected:
            return
        missing = f"insn {expected}" if number == expected + 1 else f"insns {expected} to {number - 1}"
        why = f"{missing} missing before this line" if number > expected else f"this is insn {expected}"
        Cursor(line, self.path, len(line.blanked)).fail(Token("", str(number), column), f"{why}, the line says {number}")

    def _refuse_semicolons(self, cursor: Cursor) -> None:
        """``r0 = 0; exit;`` would lose its second half: ';' begins a comment, as in the kernel's log."""
        comment = cursor.comment
        if comment is not None and comment.text.startswith(";") and comment.text.rstrip().endswith(";"):
            cursor.fail(comment, "';' begins a comment: one instruction a line, without ';' behind it")

    # --- labels -----------------------------------------------------------------------------------------------------------

    def _label(self, token: Token, cursor: Cursor) -> None:
        if token.text in REGISTERS:
            cursor.fail(token, f"'{token.text}' is a register and can't be a label")
        if token.text in self.labels:
            cursor.fail(token, f"label '{token.text}' is at insn {self.labels[token.text]} already")
        self.labels[token.text] = len(self.insns)

    def _settle(self, fixup: Fixup, cursor: Cursor) -> None:
        """Write the distance to a label into the slot that waits for it."""
        name = fixup.label.text
        if name not in self.labels:
            self._unknown(fixup, cursor)
        target = self.labels[name]
        if target >= len(self.insns):
            cursor.fail(fixup.label, f"label '{name}' has no instruction behind it")
        distance = target - fixup.pc - 1
        insn = self.insns[fixup.pc]
        if fixup.field == "imm":
            self.insns[fixup.pc] = insn._replace(imm=distance)
        elif -(1 << 15) <= distance < 1 << 15:
            self.insns[fixup.pc] = insn._replace(off=distance)
        else:
            cursor.fail(fixup.label, f"'{name}' is {distance:+d} slots away, which 16 bits do not hold; 'gotol' reaches further")

    def _unknown(self, fixup: Fixup, cursor: Cursor) -> None:
        name = fixup.label.text
        is_call = self.insns[fixup.pc].code == 0x85
        candidates = [*self.labels, *(f"bpf_{helper}" for helper in self.scope.helpers)] if is_call else list(self.labels)
        what = "no helper and no label" if is_call else "no label"
        cursor.fail(fixup.label, f"'{name}' is {what} of this text{did_you_mean(name, candidates)}")


# --- verifier logs ------------------------------------------------------------------------------------------------------------


def _log_listing(lines: Iterable[Line], path: str) -> Iterator[Line]:
    """The instructions of a verifier log, once each and in order of their numbers.

    The table of live registers (log level 2) has them all; without it those that some path reached are there. An
    instruction that no line shows is missed by the numbers, which must be whole.
    """
    table = list(_log_lines(lines, _LOG_LIVE)) or list(_log_lines(lines, _LOG_INSN))
    found: dict[int, Line] = {}
    for number, line in table:
        found.setdefault(number, line)
    if not found:
        raise SourceError("a verifier log without one instruction: ask for log level 2", path=path)
    for number in sorted(found):
        yield found[number]


def _log_lines(lines: Iterable[Line], pattern: re.Pattern[str]) -> Iterator[tuple[int, Line]]:
    for line in lines:
        if found := pattern.match(line.blanked):
            column = found.start(1)
            kept = " " * column + f"{found[1]}: "
            yield int(found[1]), Line(line.number, line.text, kept.ljust(found.start(2)) + found[2])
