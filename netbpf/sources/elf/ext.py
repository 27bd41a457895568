"""The .BTF.ext section: which function, which source line and which CO-RE relocation belongs to which instruction.

    header: u16 magic 0xeb9f, u8 version, u8 flags, u32 hdr_len, then (u32 offset, u32 length), from the header's end, of the
            records of functions, of lines and (hdr_len >= 32) of CO-RE relocations
    each:   u32 bytes of a record, then for every section: u32 its name, u32 number of records, records
    record: u32 offset in bytes of the instruction in its section, then the words of its kind; longer records are cut

Knows no instruction: what it gives are rows by section, in instruction slots.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, NamedTuple

from netbpf.btf import Btf
from netbpf.isa.instruction import INSN_BYTES
from netbpf.sources.elf.reader import ElfFile, Section

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("<HBBI")
_TABLE: Final = struct.Struct("<II")
_SECTION_HEAD: Final = struct.Struct("<II")
_TABLES: Final = (("function", 2), ("line", 4), ("CO-RE", 4))  # (what, words of a record)
MAX_RECORD_BYTES: Final = 252

Rows = list[tuple[int, ...]]


class Ext(NamedTuple):
    """Rows by section name, sorted by their first word: the instruction's slot in the section."""

    funcs: dict[str, Rows]  # (slot, type id of a FUNC)
    lines: dict[str, Rows]  # (slot, file name, line text, line << 10 | column)
    cores: dict[str, Rows]  # (slot, type id, access string, kind)


def rows_between(rows: Rows, start: int, end: int) -> Rows:
    """The rows of the instructions [start, end)."""
    return rows[bisect_left(rows, (start,)) : bisect_left(rows, (end,))]


def read_ext(elf: ElfFile, section: Section, data: bytes, btf: Btf) -> Ext:
    """The rows of ``data``, the relocated bytes of ``section``. Raises SourceError with the offset of what is damaged."""
    if len(data) < _HEADER.size + 2 * _TABLE.size:
        raise elf.wrong(section, 0, f"its header needs {_HEADER.size + 2 * _TABLE.size} bytes, it has {len(data)}")
    magic, version, flags, hdr_len = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != 1 or flags:
        raise elf.wrong(section, 0, f"magic {magic:#x} version {version} flags {flags:#x}")
    if not _HEADER.size + 2 * _TABLE.size <= hdr_len <= len(data):
        raise elf.wrong(section, 4, f"a header of {hdr_len} bytes in a section of {len(data)}")
    tables: list[dict[str, Rows]] = [{}, {}, {}]
    for i, (what, words) in enumerate(_TABLES):
        at = _HEADER.size + i * _TABLE.size
        if at + _TABLE.size > hdr_len:
            break
        begin, length = _TABLE.unpack_from(data, at)
        if hdr_len + begin + length > len(data):
            raise elf.wrong(section, at, f"{what} records end at byte {hdr_len + begin + length} of {len(data)}")
        if length:
            reader = _Table(elf, section, data, what, words)
            for name_off, rows in reader.sections(hdr_len + begin, hdr_len + begin + length):
                tables[i].setdefault(btf.string(name_off), []).extend(rows)
    for table in tables:
        for rows in table.values():
            rows.sort()
    return Ext(*tables)


class _Table:
    """One of the three tables."""

    def __init__(self, elf: ElfFile, section: Section, data: bytes, what: str, words: int) -> None:
        self.elf, self.section, self.data, self.what, self.words = elf, section, data, what, words

    def sections(self, at: int, end: int) -> Iterator[tuple[int, Rows]]:
        """(offset of the section's name, rows), from the table at ``at``."""
        size = self._u32(at, end)
        if size < 4 * self.words or size > MAX_RECORD_BYTES or size % 4:
            raise self.elf.wrong(self.section, at, f"{self.what} records of {size} bytes")
        at += 4
        left = len(self.elf.sections)
        while at < end:
            left -= 1
            if left < 0:
                raise self.elf.wrong(self.section, at, f"{self.what} records of more sections than there are")
            self._u32(at + 4, end)
            name_off, count = _SECTION_HEAD.unpack_from(self.data, at)
            at += _SECTION_HEAD.size
            if at + count * size > end:
                raise self.elf.wrong(self.section, at, f"{count} {self.what} records reach beyond their table")
            yield name_off, list(self._rows(at, count, size))
            at += count * size

    def _rows(self, at: int, count: int, size: int) -> Iterator[tuple[int, ...]]:
        layout = struct.Struct(f"<{self.words}I")
        for start in range(at, at + count * size, size):
            row = layout.unpack_from(self.data, start)
            if row[0] % INSN_BYTES:
                raise self.elf.wrong(self.section, start, f"a {self.what} record within an instruction, at byte {row[0]}")
            yield (row[0] // INSN_BYTES, *row[1:])

    def _u32(self, at: int, end: int) -> int:
        if at + 4 > end:
            raise self.elf.wrong(self.section, at, f"the {self.what} records are cut short")
        return int.from_bytes(self.data[at : at + 4], "little")
