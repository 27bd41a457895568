"""A program in whatever form its user has it -> ProgramSpec, told by content first and suffix second.

Knows which reader takes which form; each reader is imported when its form is met.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from netbpf.errors import SourceError
from netbpf.isa.instruction import INSN_BYTES, decode
from netbpf.program import ProgramSpec

ELF_MAGIC = b"\x7fELF"
RAW_SUFFIXES = {".bin", ".insns"}
ASM_SUFFIXES = {".s", ".S", ".asm", ".log"}
CLASSIC_BYTES_SUFFIX = ".sock_filter"
CLASSIC_SUFFIXES = {".cbpf", ".ddd"}
MAX_SOURCE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ObjectOptions:
    """What an object needs beside its bytes. ``program``: the symbol or section of the program wanted; ``kconfig``: values of
    externs in .kconfig; ``btf``: the file of kernel types for CO-RE, empty for the running kernel's."""

    program: str = ""
    kconfig: Mapping[str, str] = field(default_factory=dict)
    btf: str = ""


def read_program(path: str, options: ObjectOptions | None = None) -> ProgramSpec:
    """Read a program file; ``-`` is stdin.

    A clang object is told by its first bytes; ``FILE.o:NAME`` is its program of that symbol or section. ``.bin`` and
    ``.insns`` are raw 8-byte instructions, ``.s`` is assembly (docs/assembly.md). Other text is classic BPF where its first
    words are (``tcpdump -d``, ``-dd``, ``-ddd``, bpf_asm; a filter of 8-byte structs is a ``.sock_filter``), else assembly.
    Raises SourceError with the place, ProgramRejected(EINVAL) for a classic filter the kernel refuses, or OSError when the
    file can't be read.
    """
    options = options or ObjectOptions()
    path, program = split_object_name(path)
    if program:
        options = replace(options, program=program)
    data = sys.stdin.buffer.read(MAX_SOURCE_BYTES + 1) if path == "-" else _read(path)
    if len(data) > MAX_SOURCE_BYTES:
        raise SourceError(f"larger than {MAX_SOURCE_BYTES >> 20} MiB: no program is", path=path)
    return parse_program(data, path, options)


def split_object_name(path: str) -> tuple[str, str]:
    """(file, name of the program in it) of ``FILE.o:NAME``; a file that is called so is that file."""
    stem, colon, name = path.partition(".o:")
    return (f"{stem}.o", name) if colon and not os.path.exists(path) else (path, "")


def parse_program(data: bytes, path: str = "<program>", options: ObjectOptions | None = None) -> ProgramSpec:
    """The program in ``data``; ``path`` names it in errors and its suffix helps where the bytes do not tell."""
    options = options or ObjectOptions()
    if data.startswith(ELF_MAGIC):
        from netbpf.sources.elf import read_object

        return read_object(data, path, program=options.program or None, kconfig=options.kconfig, kernel_btf=options.btf or None)
    if options.program:
        raise SourceError(f"no clang object: it has no program {options.program!r} to choose", path=path)
    if Path(path).suffix in RAW_SUFFIXES:
        return _raw(data, path)
    if Path(path).suffix == CLASSIC_BYTES_SUFFIX:
        from netbpf.isa.classic import decode_classic
        from netbpf.sources import cbpf

        return cbpf.to_spec(decode_classic(data), Path(path).stem)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise SourceError(
            f"byte {e.start} is no UTF-8: a .s file is text; raw instructions go in a .bin file", path=path
        ) from None
    return _text(text, path)


def _text(text: str, path: str) -> ProgramSpec:
    """Classic BPF is told by its first word; all other text is assembly."""
    from netbpf.sources import cbpf

    if Path(path).suffix not in ASM_SUFFIXES and (Path(path).suffix in CLASSIC_SUFFIXES or cbpf.looks_classic(text)):
        return cbpf.to_spec(cbpf.parse(text, path), Path(path).stem if path != "-" else "")
    from netbpf.sources.asm import parse

    return parse(text, path)


def _read(path: str) -> bytes:
    with open(path, "rb") as f:
        return f.read(MAX_SOURCE_BYTES + 1)


def _raw(data: bytes, path: str) -> ProgramSpec:
    if not data or len(data) % INSN_BYTES:
        raise SourceError(f"{len(data)} bytes is no whole number of 8-byte instructions", path=path)
    return ProgramSpec(decode(data), name=Path(path).stem)
