"""``netbpf disasm``: a program in the words of bpftool, of the verifier's log, or as text to assemble again."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from netbpf.cli.objects import add_object_arguments, object_options

if TYPE_CHECKING:
    from netbpf.isa.instruction import Instruction
    from netbpf.program import ProgramSpec

SUMMARY = "print a program as the kernel's log or bpftool does"
STYLES = ("xlated", "log", "asm", "c", "hex")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "programs", nargs="+", metavar="PROG", help="assembly (.s), raw instructions (.bin), clang objects; - is stdin"
    )
    parser.add_argument(
        "--style",
        choices=STYLES,
        default="xlated",
        help="xlated: bpftool prog dump xlated; log: the verifier's log; asm: text to assemble again; "
        "c: struct bpf_insn; hex (default xlated)",
    )
    parser.add_argument("--opcodes", action="store_true", help="the bytes of each instruction below it, as bpftool's opcodes")
    parser.add_argument("--no-source", action="store_true", help="no lines of the C source, where the program has them")
    add_object_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0, or an error's exit code: 65 for what is no program."""
    from netbpf.sources.load import read_program

    options = object_options(args)
    for path in args.programs:
        spec = read_program(path, options)
        if len(args.programs) > 1:
            print(f"{path}:")
        for line in lines(spec, args.style, opcodes=args.opcodes, source=not args.no_source):
            print(line)
    return 0


def lines(spec: ProgramSpec, style: str, *, opcodes: bool = False, source: bool = True) -> Iterator[str]:
    """The program as ``style`` of :data:`STYLES`. ``opcodes`` adds the bytes of each slot to xlated lines, ``source`` the
    functions and lines of the C source above theirs."""
    if style in ("c", "hex"):
        from netbpf.cli.asm import render

        yield from render(spec, style).decode().splitlines()
    elif style == "asm":
        from netbpf.sources.asm import format_program

        yield from format_program(spec).splitlines()
    else:
        yield from _listing(spec, style, opcodes, source)


def _listing(spec: ProgramSpec, style: str, opcodes: bool, source: bool) -> Iterator[str]:
    from netbpf.cli.source_lines import source_lines
    from netbpf.isa.cfg import insn_starts
    from netbpf.isa.disasm import Names, format_insn
    from netbpf.isa.instruction import encode
    from netbpf.isa.opcodes import is_ld_imm64

    names = Names(imm64=lambda insn, value: _map_name(spec, insn, value))
    numbered = "{:4d}: {}" if style == "xlated" else "{}: {}"
    above = source_lines(spec, style) if source and spec.btf else {}
    for pc in insn_starts(spec.insns):
        yield from above.get(pc, ())
        slots = spec.insns[pc : pc + 2] if is_ld_imm64(spec.insns[pc].code) else spec.insns[pc : pc + 1]
        yield numbered.format(pc, format_insn(slots[0], slots[-1] if len(slots) > 1 else None, names=names))
        if opcodes:
            yield f"       {encode(slots).hex(' ')}"


def _map_name(spec: ProgramSpec, insn: Instruction, value: int) -> str | None:
    """Maps by the names their declarations give; the rest as bpftool says it."""
    from netbpf.isa.disasm import xlated_imm64
    from netbpf.isa.opcodes import BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE

    index, offset = value & 0xFFFF_FFFF, value >> 32
    if index >= len(spec.maps) or insn.src not in (BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE):
        return xlated_imm64(insn, value)
    return f"map[{spec.maps[index].spec.name}]" + ("" if insn.src == BPF_PSEUDO_MAP_IDX else f"[0]+{offset}")
