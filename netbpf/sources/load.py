"""A program in whatever form its user has it -> ProgramSpec, told by content first and suffix second.

Knows which reader takes which form; each reader is imported when its form is met.
"""

from __future__ import annotations

import sys
from pathlib import Path

from netbpf.errors import SourceError
from netbpf.isa.instruction import INSN_BYTES, decode
from netbpf.program import ProgramSpec

ELF_MAGIC = b"\x7fELF"
RAW_SUFFIXES = {".bin", ".insns"}
MAX_SOURCE_BYTES = 64 << 20


def read_program(path: str) -> ProgramSpec:
    """Read a program file; ``-`` is stdin.

    ``.s`` and any other text is assembly (docs/assembly.md); ``.bin`` and ``.insns`` are raw 8-byte instructions. Raises
    SourceError with the place, or OSError when the file can't be read.
    """
    data = sys.stdin.buffer.read(MAX_SOURCE_BYTES + 1) if path == "-" else _read(path)
    if len(data) > MAX_SOURCE_BYTES:
        raise SourceError(f"larger than {MAX_SOURCE_BYTES >> 20} MiB: no program is", path=path)
    return parse_program(data, path)


def parse_program(data: bytes, path: str = "<program>") -> ProgramSpec:
    """The program in ``data``; ``path`` names it in errors and its suffix helps where the bytes do not tell."""
    if data.startswith(ELF_MAGIC):
        raise SourceError("an ELF object: netbpf does not read these yet; disassemble it (llvm-objdump -d) to a .s file", path=path)
    if Path(path).suffix in RAW_SUFFIXES:
        return _raw(data, path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise SourceError(f"byte {e.start} is no UTF-8: a .s file is text; raw instructions go in a .bin file", path=path) from None
    from netbpf.sources.asm import parse

    return parse(text, path)


def _read(path: str) -> bytes:
    with open(path, "rb") as f:
        return f.read(MAX_SOURCE_BYTES + 1)


def _raw(data: bytes, path: str) -> ProgramSpec:
    if not data or len(data) % INSN_BYTES:
        raise SourceError(f"{len(data)} bytes is no whole number of 8-byte instructions", path=path)
    return ProgramSpec(decode(data), name=Path(path).stem)
