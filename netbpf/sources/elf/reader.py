"""A relocatable ELF64 file of BPF code: its sections, symbols and relocations, checked before they are believed.

Knows the file format and nothing of programs or maps. Every read is bounded by the file; what does not fit is one
SourceError that names the section and the offset. A reader of our own: it is this one page, it keeps the core free of
dependencies, and general readers neither bound their work on a damaged file nor say where the damage is.

    header:     e_ident[16], type, machine, version, entry, phoff, shoff, flags, ehsize, phentsize, phnum, shentsize, shnum,
                shstrndx
    section:    name, type, flags, addr, offset, size, link, info, addralign, entsize
    symbol:     name, info (type: 0-3, bind: 4-7), other (visibility: 0-1), shndx, value, size
    relocation: offset, info (type: 0-31, symbol: 32-63); the addend lies in the place that is relocated (REL)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Final, NamedTuple

from netbpf.errors import SourceError

EM_BPF: Final = 247
ET_REL: Final = 1
SHT_PROGBITS: Final = 1
SHT_SYMTAB: Final = 2
SHT_RELA: Final = 4
SHT_NOBITS: Final = 8
SHT_REL: Final = 9
SHF_ALLOC: Final = 2
SHF_EXECINSTR: Final = 4
SHN_UNDEF: Final = 0
SHN_LORESERVE: Final = 0xFF00
STB_LOCAL: Final = 0
STB_WEAK: Final = 2
STT_FUNC: Final = 2
STT_SECTION: Final = 3
STV_HIDDEN: Final = 2
STV_INTERNAL: Final = 1

MAX_SYMBOLS: Final = 1 << 18
MAX_NAME: Final = 4096

_IDENT: Final = 16
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QQ")


class Section(NamedTuple):
    """A section header. ``offset`` and ``size`` in bytes; a NOBITS section has no bytes in the file."""

    number: int
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int

    @property
    def is_code(self) -> bool:
        return self.type == SHT_PROGBITS and bool(self.flags & SHF_EXECINSTR)


class Symbol(NamedTuple):
    """A symbol; ``value`` is its offset in bytes in ``section`` (an index; 0: defined elsewhere)."""

    number: int
    name: str
    type: int
    bind: int
    visibility: int
    section: int
    value: int
    size: int


class Relocation(NamedTuple):
    offset: int
    type: int
    symbol: Symbol


class ElfFile:
    """A checked file. The constructor raises SourceError for what is no little-endian relocatable object of BPF code."""

    def __init__(self, data: bytes, path: str) -> None:
        self.data, self.path = data, path
        shoff, shnum, shstrndx = self._header()
        rows, names = self._section_rows(shoff, shnum)
        if shstrndx >= len(rows):
            raise self.damaged("ELF header", 62, f"the names of sections are in section {shstrndx} of {len(rows)}")
        table = rows[shstrndx]
        self.sections = [
            s._replace(name=self._string(table, at, f"the name of section {s.number}")) for s, at in zip(rows, names, strict=True)
        ]
        self.by_name = {s.name: s for s in reversed(self.sections)}

    def damaged(self, where: str, offset: int, text: str) -> SourceError:
        """The one error of this reader: ``where`` names a section, ``offset`` is in bytes from its beginning."""
        return SourceError(f"{where}, offset {offset:#x}: {text}", path=self.path)

    def wrong(self, section: Section, offset: int, text: str) -> SourceError:
        """The same, for a section."""
        return self.damaged(f"section {section.name!r}", offset, text)

    # --- header and sections ------------------------------------------------------------------------------------------
    def _header(self) -> tuple[int, int, int]:
        if len(self.data) < _IDENT:
            raise self.damaged("ELF header", len(self.data), f"the file ends after {len(self.data)} bytes")
        for at, wanted, text in ((4, 2, "no 64-bit object (ELFCLASS64)"), (6, 1, "unknown ELF version")):
            if self.data[at] != wanted:
                raise self.damaged("ELF header", at, f"{text}: byte is {self.data[at]}")
        if self.data[5] != 1:
            kind = "a big-endian object (bpfeb)" if self.data[5] == 2 else f"unknown byte order {self.data[5]}"
            raise self.damaged("ELF header", 5, f"{kind}: netbpf runs little-endian programs; build with clang -target bpfel")
        if len(self.data) < _HEADER.size:
            raise self.damaged("ELF header", len(self.data), f"the file ends after {len(self.data)} bytes")
        _, kind_, machine, _, _, _, shoff, _, _, _, _, shentsize, shnum, shstrndx = _HEADER.unpack_from(self.data)
        if machine != EM_BPF:
            raise self.damaged("ELF header", 18, f"machine {machine} is no BPF ({EM_BPF}); build with clang -target bpf")
        if kind_ != ET_REL:
            raise self.damaged("ELF header", 16, f"type {kind_} is no relocatable object ({ET_REL}); build with clang -c")
        if shentsize != _SECTION.size or not shnum:
            raise self.damaged("ELF header", 58, f"{shnum} section headers of {shentsize} bytes")
        return shoff, shnum, shstrndx

    def _section_rows(self, shoff: int, shnum: int) -> tuple[list[Section], list[int]]:
        """The sections, without names yet, and where each one's name is."""
        end = shoff + shnum * _SECTION.size
        if end > len(self.data):
            raise self.damaged("ELF header", 40, f"section headers end at byte {end}, the file at {len(self.data)}")
        rows, names = [], []
        for i, (name, kind, flags, _, offset, size, link, info, _, _) in enumerate(
            _SECTION.iter_unpack(memoryview(self.data)[shoff:end])
        ):
            if kind not in (0, SHT_NOBITS) and offset + size > len(self.data):
                text = f"bytes {offset} to {offset + size} of a file of {len(self.data)} bytes"
                raise self.damaged(f"section {i}", 0, text)
            rows.append(Section(i, "", kind, flags, offset, size, link, info))
            names.append(name)
        return rows, names

    def _string(self, table: Section, at: int, what: str) -> str:
        if table.type in (0, SHT_NOBITS) or at >= table.size:
            raise self.damaged(f"section {table.number}", at, f"{what} lies beyond its table of strings")
        begin = table.offset + at
        end = self.data.find(b"\0", begin, min(table.offset + table.size, begin + MAX_NAME))
        if end < 0:
            raise self.damaged(f"section {table.number}", at, f"{what} has no end")
        return self.data[begin:end].decode("utf-8", "replace")

    def content(self, section: Section) -> bytes:
        """The bytes of a section; none of a NOBITS one."""
        return b"" if section.type in (0, SHT_NOBITS) else self.data[section.offset : section.offset + section.size]

    def section(self, name: str) -> Section | None:
        return self.by_name.get(name)

    # --- symbols and relocations --------------------------------------------------------------------------------------
    @cached_property
    def symbols(self) -> list[Symbol]:
        tables = [s for s in self.sections if s.type == SHT_SYMTAB]
        if not tables:
            return []
        if len(tables) > 1:
            raise self.wrong(tables[1], 0, "a second symbol table")
        return list(self._symbols(tables[0]))

    def _symbols(self, table: Section) -> Iterator[Symbol]:
        if table.size % _SYMBOL.size or table.size // _SYMBOL.size > MAX_SYMBOLS:
            raise self.wrong(table, 0, f"{table.size} bytes: no whole number of symbols up to {MAX_SYMBOLS}")
        if table.link >= len(self.sections):
            raise self.wrong(table, 0, f"its names are in section {table.link} of {len(self.sections)}")
        names = self.sections[table.link]
        for i, (name, info, other, shndx, value, size) in enumerate(_SYMBOL.iter_unpack(self.content(table))):
            if SHN_LORESERVE > shndx >= len(self.sections):
                raise self.wrong(table, i * _SYMBOL.size, f"symbol {i} is in section {shndx} of {len(self.sections)}")
            text = self._string(names, name, f"the name of symbol {i}") if name else ""
            yield Symbol(i, text, info & 0xF, info >> 4, other & 3, shndx, value, size)

    @cached_property
    def _relocation_sections(self) -> dict[int, Section]:
        found: dict[int, Section] = {}
        for s in self.sections:
            if s.type not in (SHT_REL, SHT_RELA):
                continue
            if s.info >= len(self.sections):
                raise self.wrong(s, 0, f"relocates section {s.info} of {len(self.sections)}")
            if s.info in found:
                raise self.wrong(s, 0, f"a second one for section {self.sections[s.info].name!r}")
            found[s.info] = s
        return found

    def relocations(self, target: Section) -> list[Relocation]:
        """The relocations of ``target``, by offset."""
        section = self._relocation_sections.get(target.number)
        if section is None:
            return []
        if section.type == SHT_RELA:
            raise self.wrong(section, 0, "relocations with addends (RELA): BPF objects have REL")
        if section.size % _RELOCATION.size or section.size // _RELOCATION.size > MAX_SYMBOLS:
            raise self.wrong(section, 0, f"{section.size} bytes: no whole number of relocations up to {MAX_SYMBOLS}")
        return sorted(self._relocations(section, target), key=lambda r: r.offset)

    def _relocations(self, section: Section, target: Section) -> Iterator[Relocation]:
        for i, (offset, info) in enumerate(_RELOCATION.iter_unpack(self.content(section))):
            symbol, kind = info >> 32, info & 0xFFFF_FFFF
            if symbol >= len(self.symbols):
                raise self.wrong(section, i * _RELOCATION.size, f"symbol {symbol} of {len(self.symbols)}")
            if offset >= target.size:
                raise self.wrong(section, i * _RELOCATION.size, f"byte {offset} of {target.name!r}, which has {target.size}")
            yield Relocation(offset, kind, self.symbols[symbol])
