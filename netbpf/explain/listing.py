"""A program as its reader knows it: the text of each instruction with maps by name, its source line, its function.

Made once for a program; knows what BTF and the sources of programs tell, nothing of a run.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from netbpf.btf import Btf
from netbpf.isa import opcodes as op
from netbpf.isa.cfg import call_target, insn_starts, is_conditional, jump_target
from netbpf.isa.disasm import Names, format_insn, xlated_imm64
from netbpf.isa.instruction import Instruction, Program, encode
from netbpf.program import ProgramSpec, VerifiedProgram

LINE_SHIFT: Final = 10
COLUMN_MASK: Final = 0x3FF  # line_col of a line record


class SourceLine(NamedTuple):
    """A line of the program's source. ``line`` is 0 where only the text is known, as of a classic filter's instruction."""

    file: str
    line: int
    text: str
    column: int = 0

    @property
    def place(self) -> str:
        """``count.c:12``, "" where no line is known."""
        return f"{self.file.rsplit('/', 1)[-1]}:{self.line}" if self.line else ""

    def as_json(self) -> dict[str, Any]:
        return {"file": self.file, "line": self.line, "column": self.column, "text": self.text}


class Function(NamedTuple):
    """Slots [start, end)."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Listing:
    """``name`` is the program's, or its file's; ``maps`` the names of its maps by index."""

    name: str
    insns: Program
    maps: tuple[str, ...]
    lines: tuple[tuple[int, SourceLine], ...] = ()
    functions: tuple[Function, ...] = ()
    classic: bool = False

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Slots where an instruction begins."""
        return tuple(insn_starts(self.insns))

    @cached_property
    def digest(self) -> str:
        """What tells this program from others: its instructions and the names of its maps, whatever file they came from."""
        told = encode(self.insns) + repr((self.maps, self.classic)).encode()
        return hashlib.sha256(told).hexdigest()[:16]

    @cached_property
    def _names(self) -> Names:
        return Names(imm64=self._imm64, call=None)

    def _imm64(self, insn: Instruction, value: int) -> str | None:
        if insn.src in (op.BPF_PSEUDO_MAP_IDX, op.BPF_PSEUDO_MAP_IDX_VALUE) and (value & 0xFFFF_FFFF) < len(self.maps):
            name = self.maps[value & 0xFFFF_FFFF]
            return f"map[{name}]" + (f"[0]+{value >> 32}" if insn.src == op.BPF_PSEUDO_MAP_IDX_VALUE else "")
        return xlated_imm64(insn, value)

    def insn(self, pc: int) -> Instruction:
        return self.insns[pc]

    def text(self, pc: int, *, opcode: bool = False) -> str:
        """The instruction in the kernel's words: ``r0 = *(u8 *)skb[23]``, behind its opcode byte where wanted; jumps and calls
        of functions say the slot or function they reach."""
        insn = self.insns[pc]
        following = self.insns[pc + 1] if pc + 1 < len(self.insns) else None
        text = format_insn(insn, following, names=self._names)
        if not opcode and text.startswith("("):
            text = text[5:]
        target = jump_target(pc, insn)
        if target is not None:
            return f"{text.rpartition(' ')[0]} {target}"
        called = call_target(pc, insn)
        if called is not None and insn.code == op.BPF_JMP | op.BPF_CALL:
            return f"{text.rpartition(' ')[0]} {self.function_at(called).name}"
        if called is not None:
            return f"{text.partition(' = ')[0]} = &{self.function_at(called).name}"
        return text

    def source(self, pc: int) -> SourceLine | None:
        """The line that the instruction came from."""
        i = bisect_right(self.lines, pc, key=lambda row: row[0]) - 1
        return self.lines[i][1] if i >= 0 else None

    def function_at(self, pc: int) -> Function:
        i = bisect_right(self.functions, pc, key=lambda f: f.start) - 1
        return self.functions[i] if i >= 0 else Function("main", 0, len(self.insns))

    def is_conditional(self, pc: int) -> bool:
        """A jump that has two ways."""
        return is_conditional(self.insns[pc])


def listing_of(spec: ProgramSpec, name: str = "", program: VerifiedProgram | None = None) -> Listing:
    """The listing of a spec; ``program`` is what came of it, whose order of maps counts then. ``name`` is used where the spec has
    none."""
    insns = spec.insns if program is None else program.insns
    names = tuple(decl.spec.name for decl in spec.maps)
    maps = names if program is None else tuple(live.spec.name or f"map{live.map_id}" for live in program.maps)
    lines, named = _source(spec)
    functions = _functions(insns, named)
    return Listing(spec.name or name, insns, _full_names(maps, names), lines, functions, bool(spec.classic))


def _full_names(maps: tuple[str, ...], declared: tuple[str, ...]) -> tuple[str, ...]:
    """Names as the text has them, where the kernel cut them to 15 characters."""
    whole = {name[:15]: name for name in declared}
    return tuple(whole.get(name[:15], name) for name in maps)


def _source(spec: ProgramSpec) -> tuple[tuple[tuple[int, SourceLine], ...], dict[int, str]]:
    """(pc, line) in order, and names of functions by first slot."""
    if not spec.btf:
        return tuple((pc, SourceLine("", 0, " ".join(text.split()))) for pc, text in sorted(spec.source_lines)), {}
    btf = Btf.parse(spec.btf)
    lines = tuple(
        (pc, SourceLine(btf.string(file), line_col >> LINE_SHIFT, btf.string(text).strip(), line_col & COLUMN_MASK))
        for pc, file, text, line_col in spec.line_info
    )
    return lines, {pc: btf.name(type_id) for pc, type_id in spec.func_info}


def _functions(insns: Program, named: dict[int, str]) -> tuple[Function, ...]:
    """Functions by their first slots: the main one, and what is called or has its address taken."""
    begins = sorted({0, *(t for pc in insn_starts(insns) if (t := call_target(pc, insns[pc])) is not None)} | set(named))
    begins = [b for b in begins if 0 <= b < len(insns)] or [0]
    ends = [*begins[1:], len(insns)]
    return tuple(Function(named.get(b) or (f"func_{b}" if b else "main"), b, e) for b, e in zip(begins, ends, strict=True))


def numbered(listing: Listing) -> Iterator[tuple[int, str]]:
    """(slot, text) of every instruction."""
    return ((pc, listing.text(pc)) for pc in listing.starts)
