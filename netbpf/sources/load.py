"""A program in whatever form its user has it -> ProgramSpec, told by content first and suffix second.

Knows which reader takes which form; each reader is imported when its form is met. ``load`` is what Python users call,
``read_program`` what commands read files by, ``filter_program`` what a tcpdump expression becomes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from netbpf.errors import SourceError, UsageError
from netbpf.isa.instruction import INSN_BYTES, decode
from netbpf.program import FILE_VIEW, SOCKET_VIEW, VIEWS, ProgramSpec

ELF_MAGIC = b"\x7fELF"
RAW_SUFFIXES = {".bin", ".insns"}
ASM_SUFFIXES = {".s", ".S", ".asm", ".log"}
CLASSIC_BYTES_SUFFIX = ".sock_filter"
CLASSIC_SUFFIXES = {".cbpf", ".ddd"}
PROGRAM_SUFFIXES = RAW_SUFFIXES | ASM_SUFFIXES | CLASSIC_SUFFIXES | {CLASSIC_BYTES_SUFFIX, ".o"}
MAX_SOURCE_BYTES = 64 << 20
# how the first statement of assembly begins: a directive, a label, an instruction (numbered or not), a comment before any
_ASSEMBLY = re.compile(
    r"(?:\s|;[^\n]*\n|//[^\n]*\n|#[^\n]*\n|/\*.*?\*/)*"
    r"(?:\.[A-Za-z]|\d+:\s|func#|[A-Za-z_.$][\w.$]*:|\([0-9a-f]{2}\)\s|[rw]\d+\s*[-+*/%&|^<>s]*=|\*\(|lock\s|"
    r"(?:exit|call\s\S+|goto\s\S+|if\s+[rw]\d+.*)\s*(?:[;\n]|\Z))",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class ObjectOptions:
    """What a program needs beside its bytes. An object: ``program``, the symbol or section of the program wanted; ``kconfig``,
    values of externs in .kconfig; ``btf``, the file of kernel types for CO-RE, empty for the running kernel's. Any: ``view``,
    who looks at the packets it is for, by which a classic filter is read (``program.VIEWS``)."""

    program: str = ""
    kconfig: Mapping[str, str] = field(default_factory=dict)
    btf: str = ""
    view: str = SOCKET_VIEW


def load(
    source: str | os.PathLike[str] | bytes | ProgramSpec,
    *,
    view: str = "",
    linktype: int = 1,
    optimize: bool = True,
    program: str = "",
    kconfig: Mapping[str, str] | None = None,
    btf: str = "",
) -> ProgramSpec:
    """A program in any form, by content and suffix: a path (``FILE.o:NAME`` too), the bytes of a file, or text.

    Text is classic BPF or assembly where it looks so, else a tcpdump expression, compiled by libpcap for ``linktype`` (a
    LINKTYPE_* number), optimised or not. ``view`` is who will look at the packets: ``"socket"``, as the kernel has them at a
    packet socket, or ``"file"``, as libpcap reads a capture file; empty: "file" for an expression, else "socket".
    ``program``, ``kconfig`` and ``btf`` are a clang object's, see :class:`ObjectOptions`.

    Raises SourceError with the place, ProgramRejected(EINVAL) for a classic filter that is refused, UsageError for an unknown
    view or without libpcap, OSError when a file can't be read.
    """
    if view and view not in VIEWS:
        raise UsageError(f"a view is one of {', '.join(VIEWS)}, not {view!r}")
    if isinstance(source, ProgramSpec):
        return source
    options = ObjectOptions(program, kconfig or {}, btf, view or SOCKET_VIEW)
    if isinstance(source, bytes | bytearray | memoryview):
        return parse_program(bytes(source), "<program>", options)
    if not isinstance(source, str) or is_path(source):
        return read_program(os.fspath(source), options)
    source = source.removeprefix("\ufeff")
    if looks_like_program(source):
        return parse_program(source.encode(), "<program>", options)
    return filter_program(source, linktype, view=view or FILE_VIEW, optimize=optimize)


def is_path(text: str) -> bool:
    """Whether text means a file: one that is there, or a name with a program's suffix."""
    if "\n" in text or "\0" in text or len(text) > 4096:
        return False
    path, _ = split_object_name(text)
    return os.path.isfile(path) or (not re.search(r"\s", path) and Path(path).suffix in PROGRAM_SUFFIXES)


def looks_like_program(text: str) -> bool:
    """Whether text is assembly or classic BPF; a tcpdump expression begins with the words of neither."""
    from netbpf.sources import cbpf

    return _ASSEMBLY.match(text) is not None or cbpf.looks_classic(text)


def filter_program(text: str, linktype: int = 1, *, view: str = FILE_VIEW, optimize: bool = True) -> ProgramSpec:
    """What libpcap makes of a tcpdump expression for the packets of captures of ``linktype``, to be looked at in ``view``.

    At a packet socket the packets of some captures have another link header (see ``expr.socket_linktype``); the filter is
    compiled for that one. Raises SourceError, ProgramRejected(EINVAL), UsageError without libpcap.
    """
    from netbpf.sources.cbpf import to_spec
    from netbpf.sources.expr import compile_expression, socket_linktype

    in_file = view == FILE_VIEW
    seen = linktype if in_file else socket_linktype(linktype)
    return to_spec(compile_expression(text, seen, savefile=in_file, optimize=optimize), "filter", savefile=in_file)


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

        spec = read_object(data, path, program=options.program or None, kconfig=options.kconfig, kernel_btf=options.btf or None)
        return spec._replace(view=options.view)
    if options.program:
        raise SourceError(f"no clang object: it has no program {options.program!r} to choose", path=path)
    if Path(path).suffix in RAW_SUFFIXES:
        return _raw(data, path, options.view)
    if Path(path).suffix == CLASSIC_BYTES_SUFFIX:
        from netbpf.isa.classic import decode_classic
        from netbpf.sources import cbpf

        return cbpf.to_spec(decode_classic(data, path), Path(path).stem, savefile=options.view == FILE_VIEW)
    try:
        text = data.decode("utf-8-sig")  # some editors begin a text with its byte order mark
    except UnicodeDecodeError as e:
        raise SourceError(
            f"byte {e.start} is no UTF-8: a .s file is text; raw instructions go in a .bin file", path=path
        ) from None
    return _text(text, path, options.view)


def _text(text: str, path: str, view: str) -> ProgramSpec:
    """Classic BPF is told by its first word; all other text is assembly."""
    from netbpf.sources import cbpf

    if Path(path).suffix not in ASM_SUFFIXES and (Path(path).suffix in CLASSIC_SUFFIXES or cbpf.looks_classic(text)):
        name = Path(path).stem if path != "-" else ""
        return cbpf.to_spec(cbpf.parse(text, path), name, savefile=view == FILE_VIEW)
    from netbpf.sources.asm import parse

    spec = parse(text, path)
    return spec if view == SOCKET_VIEW or spec.classic else spec._replace(view=view)


def _read(path: str) -> bytes:
    with open(path, "rb") as f:
        return f.read(MAX_SOURCE_BYTES + 1)


def _raw(data: bytes, path: str, view: str) -> ProgramSpec:
    if not data or len(data) % INSN_BYTES:
        raise SourceError(f"{len(data)} bytes is no whole number of 8-byte instructions", path=path)
    return ProgramSpec(decode(data), name=Path(path).stem, view=view)
