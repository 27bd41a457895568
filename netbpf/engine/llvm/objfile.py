"""An x86-64 ELF object made runnable: its sections mapped, its relocations applied, its functions found.

A small relocator of our own, so that cached code starts without llvmlite. It takes what LLVM emits for one
position-independent module that calls nothing but memcpy, memset and memmove; anything else is refused.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import Final, NamedTuple

SHT_PROGBITS, SHT_SYMTAB, SHT_RELA, SHT_NOBITS = 1, 2, 4, 8
SHF_ALLOC: Final = 2
EM_X86_64: Final = 62
R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32 = 1, 2, 4
_SHDR: Final = struct.Struct("<IIQQQQIIQQ")
_SYM: Final = struct.Struct("<IBBHQQ")
_RELA: Final = struct.Struct("<QQq")
_STUB: Final = struct.Struct("<HIQ")  # jmp *0(%rip); .quad target
_JMP_RIP: Final = 0x25FF
STUB_BYTES: Final = 16
LIBC: Final = frozenset({"memcpy", "memset", "memmove"})


class BadObject(Exception):
    """Not an object that this relocator can make run."""


class Section(NamedTuple):
    name: int
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entsize: int


class MappedCode:
    """Executable memory holding one object. ``functions`` are the addresses of its global ones, ``offsets`` where they are in
    memory; valid while this object lives."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        try:
            self._sections = self._read_sections()
            self.stubs: list[tuple[int, str]] = []  # where in memory the address of a libc function is, and which
            self.is_movable = True  # but for the stubs, the bytes of memory would do anywhere
            self.memory, self.functions = self._map()
            self.offsets = {name: at - self._address for name, at in self.functions.items()}
        except (struct.error, IndexError, ValueError, KeyError) as e:
            raise BadObject(f"damaged object: {e}") from e

    def _read_sections(self) -> list[Section]:
        d = self._data
        if d[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", d, 18)[0] != EM_X86_64:
            raise BadObject("no little-endian x86-64 ELF object")
        (offset,), (count,) = struct.unpack_from("<Q", d, 40), struct.unpack_from("<H", d, 60)
        return [Section(*_SHDR.unpack_from(d, offset + _SHDR.size * i)) for i in range(count)]

    def _string(self, table: Section, at: int) -> str:
        start = table.offset + at
        return self._data[start : self._data.index(b"\0", start)].decode("ascii")

    def _place(self) -> tuple[list[int | None], int]:
        """Offset of each section that is loaded (exception tables are not), and the bytes of them all."""
        names = self._sections[struct.unpack_from("<H", self._data, 62)[0]]
        bases: list[int | None] = []
        total = 0
        for s in self._sections:
            wanted = s.flags & SHF_ALLOC and s.size and self._string(names, s.name) != ".eh_frame"
            if not wanted:
                bases.append(None)
                continue
            total = -(-total // max(s.align, 1)) * max(s.align, 1)
            bases.append(total)
            total += s.size
        return bases, total

    def _map(self) -> tuple[mmap.mmap, dict[str, int]]:
        bases, total = self._place()
        stubs = -(-total // STUB_BYTES) * STUB_BYTES
        memory = mmap.mmap(-1, stubs + STUB_BYTES * len(LIBC), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pin = (ctypes.c_char * 1).from_buffer(memory)
        address = ctypes.addressof(pin)
        del pin
        self._address = address
        for s, base in zip(self._sections, bases, strict=True):
            if base is not None and s.type == SHT_PROGBITS:
                memory[base : base + s.size] = self._data[s.offset : s.offset + s.size]
        symbols = self._symbols(memory, bases, stubs)
        self._relocate(memory, address, bases, [at for _, at in symbols])
        _protect(address, len(memory))
        return memory, {name: address + at for name, at in symbols if name and at is not None}

    def _symbols(self, memory: mmap.mmap, bases: list[int | None], stubs: int) -> list[tuple[str, int | None]]:
        """(name, offset in memory) by index; a libc function is the stub that jumps to it."""
        table = next(s for s in self._sections if s.type == SHT_SYMTAB)
        strings = self._sections[table.link]
        out: list[tuple[str, int | None]] = []
        made: dict[str, int] = {}
        for i in range(table.size // _SYM.size):
            name_at, _info, _other, section, value, _size = _SYM.unpack_from(self._data, table.offset + _SYM.size * i)
            name = self._string(strings, name_at)
            if section == 0 and name in LIBC:
                if name not in made:
                    made[name] = stubs + STUB_BYTES * len(made)
                    _STUB.pack_into(memory, made[name], _JMP_RIP, 0, _libc_address(name))
                    self.stubs.append((made[name] + STUB_BYTES - 10, name))
                out.append((name, made[name]))
            elif 0 < section < len(bases) and bases[section] is not None:
                out.append((name, (bases[section] or 0) + value))
            else:
                out.append((name, None))
        return out

    def _relocate(self, memory: mmap.mmap, address: int, bases: list[int | None], symbols: list[int | None]) -> None:
        for s in self._sections:
            base = bases[s.info] if s.type == SHT_RELA else None
            if base is None:
                continue
            for i in range(s.size // _RELA.size):
                at, info, addend = _RELA.unpack_from(self._data, s.offset + _RELA.size * i)
                target = symbols[info >> 32]
                if target is None:
                    raise BadObject("the object refers to something outside it")
                self.is_movable &= info & 0xFFFF_FFFF != R_X86_64_64
                _apply(memory, address, base + at, info & 0xFFFF_FFFF, target + addend)


def _apply(memory: mmap.mmap, address: int, at: int, kind: int, target: int) -> None:
    if kind in (R_X86_64_PC32, R_X86_64_PLT32):
        struct.pack_into("<i", memory, at, target - at)
    elif kind == R_X86_64_64:
        struct.pack_into("<Q", memory, at, address + target)
    else:
        raise BadObject(f"relocation type {kind}")


def _libc_address(name: str) -> int:
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0


def _protect(address: int, size: int) -> None:
    """Readable and executable, no longer writable."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), 0x1 | 0x4):
        raise BadObject("the system refuses executable memory")
