"""Functions of an object joined to a program: the called ones behind the main one, references written into instructions.

The order is libbpf's: a called function stands where the first call to it was met, depth first. Knows sections, symbols,
relocations and the indexes of maps; no bytes of BTF.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from netbpf.ints import s32, u32
from netbpf.isa.instruction import INSN_BYTES, Instruction, Program, decode
from netbpf.isa.opcodes import (
    BPF_CALL,
    BPF_JMP,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_KFUNC_CALL,
    BPF_PSEUDO_MAP_IDX,
    BPF_PSEUDO_MAP_IDX_VALUE,
    is_ld_imm64,
)
from netbpf.sources.elf.debug import R_BPF_64_32, R_BPF_64_64
from netbpf.sources.elf.ext import Ext, Rows, rows_between
from netbpf.sources.elf.maps import MapTable
from netbpf.sources.elf.reader import SHN_UNDEF, STB_LOCAL, STB_WEAK, STT_FUNC, ElfFile, Relocation, Section

TEXT: Final = ".text"
MAX_INSNS: Final = 1 << 20  # of one program with all it calls; the kernel takes 1,000,000
MAX_CODE_BYTES: Final = MAX_INSNS * INSN_BYTES
_CALL: Final = BPF_JMP | BPF_CALL


class Function(NamedTuple):
    """Instructions [start, end) of a section, in slots."""

    section: int
    start: int
    end: int
    name: str
    is_program: bool  # may be loaded by itself: global, and not in .text


@dataclass(slots=True)
class Linked:
    """A program and what belongs to its instructions: rows of BTF.ext with pc in place of the section's slot."""

    insns: Program
    func_info: list[tuple[int, ...]] = field(default_factory=list)
    line_info: list[tuple[int, ...]] = field(default_factory=list)


CoreFixer = Callable[[list[Instruction], int, tuple[int, ...], str], None]  # code, pc in it, CO-RE row, where


class Code:
    """The functions of an object, by section, in order."""

    def __init__(self, elf: ElfFile) -> None:
        self.elf = elf
        self._insns: dict[int, Program] = {}
        self._relocations: dict[int, list[Relocation]] = {}

    @cached_property
    def functions(self) -> list[Function]:
        """Every function, in order of its section and place."""
        found = []
        for s in self.elf.symbols:
            if s.type != STT_FUNC or not 0 < s.section < len(self.elf.sections) or not self.elf.sections[s.section].is_code:
                continue
            section = self.elf.sections[s.section]
            if s.value % INSN_BYTES or s.size % INSN_BYTES or not s.size or s.value + s.size > section.size:
                raise self.elf.wrong(section, s.value, f"function {s.name!r} of {s.size} bytes, in a section of {section.size}")
            is_program = section.name != TEXT and s.bind != STB_LOCAL
            start = s.value // INSN_BYTES
            found.append(Function(s.section, start, start + s.size // INSN_BYTES, s.name, is_program))
        return sorted(found)

    @cached_property
    def _starts(self) -> dict[tuple[int, int], Function]:
        return {(f.section, f.start): f for f in reversed(self.functions)}

    @cached_property
    def programs(self) -> list[Function]:
        """What may be loaded: global functions outside .text, or the only one of .text when there is no other."""
        programs = [f for f in self.functions if f.is_program]
        return programs or (self.functions if len(self.functions) == 1 else [])

    def starting_at(self, section: int, slot: int) -> Function | None:
        return self._starts.get((section, slot))

    def insns(self, section: Section) -> Program:
        if section.number not in self._insns:
            if section.size % INSN_BYTES or section.size > MAX_CODE_BYTES:
                raise self.elf.wrong(section, 0, f"{section.size} bytes: no whole number of instructions up to {MAX_INSNS}")
            self._insns[section.number] = decode(self.elf.content(section))
        return self._insns[section.number]

    def relocations(self, section: Section, start: int, end: int) -> list[Relocation]:
        """The relocations of the slots [start, end)."""
        if section.number not in self._relocations:
            self._relocations[section.number] = self.elf.relocations(section)
        rows = self._relocations[section.number]
        low = bisect_left(rows, start * INSN_BYTES, key=_offset)
        return rows[low : bisect_left(rows, end * INSN_BYTES, key=_offset)]


def _offset(r: Relocation) -> int:
    return r.offset


class Linker:
    """Joins programs. ``kconfig`` are offsets by name in the map ``kconfig_index``; ``fix_core`` applies a CO-RE row;
    ``kernel_function`` gives the BTF id of a kernel function, 0 where there is none."""

    def __init__(
        self,
        code: Code,
        maps: MapTable,
        ext: Ext | None,
        *,
        kconfig: dict[str, int],
        fix_core: CoreFixer,
        kernel_function: Callable[[str], int],
    ) -> None:
        self.code, self.elf, self.ext, self.kconfig = code, code.elf, ext, kconfig
        self.fix_core, self.kernel_function = fix_core, kernel_function
        self.maps = {(p.section, p.offset): i for i, p in enumerate(maps.places) if p.section >= 0}
        self.data = {p.section: i for i, p in enumerate(maps.places) if maps.decls[i].spec.name and _is_data(self.elf, p.section)}
        self.kconfig_index = next((i for i, p in enumerate(maps.places) if p.section < 0), -1)
        self.left = MAX_INSNS

    def link(self, main: Function) -> Linked:
        """``main`` and all it calls. Raises SourceError with section and offset."""
        job = _Job(self)
        job.append(main)
        return job.finish()


def _is_data(elf: ElfFile, section: int) -> bool:
    return section >= 0 and elf.sections[section].name.startswith((".rodata", ".data", ".bss"))


class _Job:
    """One program being joined."""

    def __init__(self, linker: Linker) -> None:
        self.linker, self.elf, self.code = linker, linker.elf, linker.code
        self.out: list[Instruction] = []
        self.func_info: list[tuple[int, ...]] = []
        self.line_info: list[tuple[int, ...]] = []
        self.base: dict[Function, int] = {}
        self.references: list[tuple[int, Function]] = []  # (pc of a call or a pointer to code, what it names)

    def finish(self) -> Linked:
        for pc, callee in self.references:
            self.out[pc] = self.out[pc]._replace(imm=self.base[callee] - pc - 1)
        return Linked(tuple(self.out), self.func_info, self.line_info)

    def append(self, main: Function) -> None:
        """``main``, then depth first what it calls. No recursion: a chain of calls may be long."""
        stack = [iter(self._place(main))]
        while stack:
            callee = next(stack[-1], None)
            if callee is None:
                stack.pop()
            elif callee not in self.base:
                stack.append(iter(self._place(callee)))

    def _place(self, function: Function) -> list[Function]:
        """Put a function at the end; what it calls, in order."""
        linker, section = self.linker, self.elf.sections[function.section]
        size, base = function.end - function.start, len(self.out)
        linker.left -= size
        if linker.left < 0:
            text = f"more than {MAX_INSNS} instructions with all that is called"
            raise self.elf.wrong(section, function.start * INSN_BYTES, text)
        self.base[function] = base
        insns = list(self.code.insns(section)[function.start : function.end])
        if linker.ext is not None:
            self._debug_rows(linker.ext, section.name, function, insns)
        named = {}
        for r in self.code.relocations(section, function.start, function.end):
            slot, rest = divmod(r.offset, INSN_BYTES)
            if rest:
                raise self.elf.wrong(section, r.offset, "a relocation within an instruction")
            target = self._relocate(section, insns, slot - function.start, r)
            if target is not None:
                named[slot - function.start] = target
        called = list(self._calls(section, function, insns, named))
        self.out += insns
        return called

    def _debug_rows(self, ext: Ext, name: str, function: Function, insns: list[Instruction]) -> None:
        """The rows of this function, at their new places; CO-RE rows are applied."""
        start, shift = function.start, len(self.out) - function.start
        for rows, out in ((ext.funcs, self.func_info), (ext.lines, self.line_info)):
            out += [(row[0] + shift, *row[1:]) for row in rows_between(rows.get(name, _NO_ROWS), start, function.end)]
        for row in rows_between(ext.cores.get(name, _NO_ROWS), start, function.end):
            where = f"section {name!r}, offset {row[0] * INSN_BYTES:#x}"
            self.linker.fix_core(insns, row[0] - start, row, where)

    # --- references ---------------------------------------------------------------------------------------------------
    def _relocate(self, section: Section, insns: list[Instruction], pc: int, r: Relocation) -> Function | None:
        """Write a map's index into an instruction; of a call or pointer to code, the function named."""
        insn = insns[pc]
        if is_ld_imm64(insn.code) and r.type == R_BPF_64_64 and pc + 1 < len(insns):
            return self._relocate_imm64(section, insns, pc, r)
        if insn.code == _CALL and r.type == R_BPF_64_32:
            return self._relocate_call(section, insns, pc, r)
        raise self.elf.wrong(section, r.offset, f"a relocation of type {r.type} on an instruction of code {insn.code:#04x}")

    def _relocate_imm64(self, section: Section, insns: list[Instruction], pc: int, r: Relocation) -> Function | None:
        linker, symbol = self.linker, r.symbol
        insn, high = insns[pc], insns[pc + 1]
        addend = u32(insn.imm)
        offset = symbol.value + addend
        if symbol.section == SHN_UNDEF:
            self._extern(section, insns, pc, r)
        elif (symbol.section, offset) in linker.maps and symbol.section not in linker.data:
            insns[pc] = insn._replace(src=BPF_PSEUDO_MAP_IDX, imm=linker.maps[symbol.section, offset])
            insns[pc + 1] = high._replace(imm=0)
        elif symbol.section in linker.data:
            insns[pc] = insn._replace(src=BPF_PSEUDO_MAP_IDX_VALUE, imm=linker.data[symbol.section])
            insns[pc + 1] = high._replace(imm=s32(offset))
        elif self._is_code(symbol.section):
            insns[pc] = insn._replace(src=BPF_PSEUDO_FUNC)
            insns[pc + 1] = high._replace(imm=0)
            return self._function_at(section, r.offset, symbol.section, offset)
        else:
            raise self.elf.wrong(section, r.offset, f"{symbol.name or 'a symbol'!r} is no map, no global data and no function")
        return None

    def _relocate_call(self, section: Section, insns: list[Instruction], pc: int, r: Relocation) -> Function | None:
        insn, symbol = insns[pc], r.symbol
        if symbol.section != SHN_UNDEF:
            if not self._is_code(symbol.section):
                raise self.elf.wrong(section, r.offset, f"a call of {symbol.name!r}, which is no code")
            return self._function_at(section, r.offset, symbol.section, symbol.value + (insn.imm + 1) * INSN_BYTES)
        btf_id = self.linker.kernel_function(symbol.name)
        if not btf_id and symbol.bind != STB_WEAK:
            raise self.elf.wrong(section, r.offset, f"function {symbol.name!r} is neither in this object nor in the kernel's BTF")
        insns[pc] = insn._replace(src=BPF_PSEUDO_KFUNC_CALL, imm=btf_id) if btf_id else unresolved(insn)
        return None

    def _extern(self, section: Section, insns: list[Instruction], pc: int, r: Relocation) -> None:
        """A setting of .kconfig, or a weak symbol of the kernel, which is not there."""
        insn, high, name = insns[pc], insns[pc + 1], r.symbol.name
        if name in self.linker.kconfig:
            insns[pc] = insn._replace(src=BPF_PSEUDO_MAP_IDX_VALUE, imm=self.linker.kconfig_index)
            insns[pc + 1] = high._replace(imm=self.linker.kconfig[name])
        elif r.symbol.bind == STB_WEAK:
            insns[pc], insns[pc + 1] = insn._replace(imm=0), high._replace(imm=0)
        else:
            raise self.elf.wrong(section, r.offset, f"extern {name!r} is no setting of .kconfig; kernel symbols are not known")

    def _is_code(self, index: int) -> bool:
        return index < len(self.elf.sections) and self.elf.sections[index].is_code

    def _function_at(self, section: Section, at: int, target: int, offset: int) -> Function:
        function = self.code.starting_at(target, offset // INSN_BYTES) if offset % INSN_BYTES == 0 else None
        if function is None:
            raise self.elf.wrong(section, at, f"no function begins at {self.elf.sections[target].name!r}+{offset:#x}")
        return function

    def _calls(
        self, section: Section, function: Function, insns: list[Instruction], named: dict[int, Function]
    ) -> Iterator[Function]:
        """What the function names, in order, its calls of functions of its own section without a relocation among it."""
        base = len(self.out)
        for pc, insn in enumerate(insns):
            callee = named.get(pc)
            if callee is None and insn.code == _CALL and insn.src == BPF_PSEUDO_CALL:
                slot = function.start + pc
                callee = self._function_at(section, slot * INSN_BYTES, function.section, (slot + insn.imm + 1) * INSN_BYTES)
            if callee is not None:
                self.references.append((base + pc, callee))
                yield callee


UNRESOLVED_CALL: Final = 2002000000  # no helper has this number; the kernel's log shows it for a kernel function that is missing
_NO_ROWS: Final[Rows] = []


def unresolved(insn: Instruction) -> Instruction:
    """A call of a weak kernel function that is not there: refused by the verifier, unless it is dead code."""
    return insn._replace(src=0, imm=UNRESOLVED_CALL)
