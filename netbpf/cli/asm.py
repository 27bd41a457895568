"""``netbpf asm``: program text to the bytes of its instructions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from netbpf.cli.program import FORMS, add_program_arguments, chosen_programs
from netbpf.errors import UsageError
from netbpf.program import SOCKET_VIEW

if TYPE_CHECKING:
    from netbpf.program import ProgramSpec

SUMMARY = "assemble a program to bytes"
FORMATS = ("bin", "hex", "c")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("program", nargs="?", metavar="PROG", help=f"{FORMS}; - is stdin")
    parser.add_argument("-o", dest="output", metavar="OUT", help="write here instead of stdout")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="bin: 8 bytes a slot; hex: one slot a line; c: initializers of struct bpf_insn (default bin, hex on a terminal)",
    )
    add_program_arguments(parser, on_capture=False, prog_option=False)


def run(args: argparse.Namespace) -> int:
    """0, or an error's exit code: 65 for text that is no program."""
    choices = chosen_programs(args, [args.program] if args.program is not None else [], filter_view=SOCKET_VIEW)
    if not choices:
        raise UsageError("asm takes a program, or --filter EXPR")
    spec = choices[0].spec()
    kind = args.format or ("hex" if args.output is None and sys.stdout.isatty() else "bin")
    data = render(spec, kind)
    if args.output is not None:
        Path(args.output).write_bytes(data)
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    if spec.maps:
        names = ", ".join(decl.spec.name or '""' for decl in spec.maps)
        print(f"netbpf: the bytes name maps by index only (from 0: {names}); their declarations are not in them", file=sys.stderr)
    return 0


def render(spec: ProgramSpec, kind: str) -> bytes:
    """The instructions of ``spec`` as ``kind`` of :data:`FORMATS`."""
    from netbpf.isa.instruction import encode

    if kind == "bin":
        return encode(spec.insns)
    if kind == "hex":
        return "".join(f"{encode([insn]).hex()}\n" for insn in spec.insns).encode()
    if kind == "c":
        return c_array(spec).encode()
    raise UsageError(f"unknown format '{kind}'")


def c_array(spec: ProgramSpec) -> str:
    """The slots as C initializers of ``struct bpf_insn``, each with the kernel's words behind it."""
    from netbpf.isa.cfg import insn_starts
    from netbpf.isa.disasm import format_insn

    words = {}
    for pc in insn_starts(spec.insns):
        following = spec.insns[pc + 1] if pc + 1 < len(spec.insns) else None
        words[pc] = f" /* {pc}: {format_insn(spec.insns[pc], following, style='xlated')} */"
    row = "{{ .code = {:#04x}, .dst_reg = {}, .src_reg = {}, .off = {}, .imm = {} }},{}\n"
    return "".join(row.format(*insn, words.get(pc, "")) for pc, insn in enumerate(spec.insns))
