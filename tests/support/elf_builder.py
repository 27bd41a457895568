"""ELF objects of BPF code put together by hand, for the ones that no compiler makes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

EXIT = bytes.fromhex("b7000000000000009500000000000000")  # r0 = 0; exit
PROGBITS, SYMTAB, STRTAB, NOBITS, REL = 1, 2, 3, 8, 9
ALLOC, CODE = 2, 6


@dataclass
class Builder:
    """``add`` sections, ``function`` symbols, ``relocate``; ``build`` gives the file. Section 1 holds every name."""

    sections: list[tuple[str, int, int, bytes, int, int, int]] = field(default_factory=list)  # .., size, link, info
    symbols: list[tuple[str, int, int, int, int]] = field(default_factory=list)  # name, info, section, value, size
    relocations: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)

    def add(self, name: str, content: bytes, *, kind: int = PROGBITS, flags: int = CODE, size: int | None = None) -> int:
        """The section's number."""
        self.sections.append((name, kind, flags, content, len(content) if size is None else size, 0, 0))
        return len(self.sections) + 1

    def symbol(self, name: str, section: int, value: int, size: int, *, kind: int = 2, bind: int = 1) -> int:
        """The symbol's number."""
        self.symbols.append((name, bind << 4 | kind, section, value, size))
        return len(self.symbols)

    def relocate(self, section: int, offset: int, kind: int, symbol: int) -> None:
        self.relocations.setdefault(section, []).append((offset, kind, symbol))

    def build(self) -> bytes:
        names, at = b"\0", {}
        for name in [s[0] for s in self.sections] + [s[0] for s in self.symbols]:
            if name and name not in at:
                at[name] = len(names)
                names += name.encode() + b"\0"
        symbols = bytes(24) + b"".join(
            struct.pack("<IBBHQQ", at.get(n, 0), info, 0, section, value, size) for n, info, section, value, size in self.symbols
        )
        rows = [("", STRTAB, 0, names, len(names), 0, 0), *self.sections, ("", SYMTAB, 0, symbols, len(symbols), 1, 1)]
        for target, relocations in self.relocations.items():
            content = b"".join(struct.pack("<QQ", offset, symbol << 32 | kind) for offset, kind, symbol in relocations)
            rows.append(("", REL, 0, content, len(content), len(self.sections) + 2, target))
        body, headers = bytearray(64), bytes(64)
        for name, kind, flags, content, size, link, info in rows:
            headers += struct.pack("<IIQQQQIIQQ", at.get(name, 0), kind, flags, 0, len(body), size, link, info, 8, 0)
            body += content
        ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
        head = struct.pack("<16sHHIQQQIHHHHHH", ident, 1, 247, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(rows) + 1, 1)
        return head + bytes(body[64:]) + headers
