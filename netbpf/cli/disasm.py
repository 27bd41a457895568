"""``netbpf disasm``: a program in the words of bpftool, of the verifier's log, or as text to assemble again; a classic filter
or a tcpdump expression in tcpdump's three forms."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from netbpf.cli.objects import add_object_arguments, object_options
from netbpf.errors import UsageError

if TYPE_CHECKING:
    from netbpf.program import ProgramSpec

SUMMARY = "print a program as the kernel's log or bpftool does, a classic filter as tcpdump does"
CLASSIC_STYLES = ("d", "dd", "ddd")
STYLES = ("xlated", "log", "asm", "c", "hex", *CLASSIC_STYLES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "programs",
        nargs="*",
        metavar="PROG",
        help="assembly (.s), raw instructions (.bin), clang objects, classic filters; - is stdin",
    )
    parser.add_argument(
        "--style",
        choices=STYLES,
        default="xlated",
        help="xlated: bpftool prog dump xlated; log: the verifier's log; asm: text to assemble again; c: struct bpf_insn; hex; "
        "d, dd, ddd: a classic filter as tcpdump prints it (default xlated; of a classic filter its translation)",
    )
    for style, words in (("d", "a listing"), ("dd", "a C array"), ("ddd", "decimal numbers")):
        parser.add_argument(f"-{style}", dest="style", action="store_const", const=style, help=f"a classic filter as {words}")
    parser.add_argument("--opcodes", action="store_true", help="the bytes of each instruction below it, as bpftool's opcodes")
    parser.add_argument("--no-source", action="store_true", help="no source lines, where the program has them")
    parser.add_argument("--filter", metavar="EXPR", help="a tcpdump expression in place of PROG, compiled by libpcap")
    parser.add_argument("-y", dest="linktype", metavar="DLT", default="EN10MB", help="its data link type (default EN10MB)")
    parser.add_argument("-O", dest="optimize", action="store_false", help="do not let libpcap optimize it")
    add_object_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0, or an error's exit code: 65 for what is no program."""
    from netbpf.sources.load import read_program

    if bool(args.programs) == (args.filter is not None):
        raise UsageError("disasm takes programs, or --filter EXPR")
    if args.filter is not None:
        _print(_compiled(args), args)
    options = object_options(args)
    for path in args.programs:
        if len(args.programs) > 1:
            print(f"{path}:")
        _print(read_program(path, options), args)
    return 0


def _compiled(args: argparse.Namespace) -> ProgramSpec:
    from netbpf.sources.cbpf import to_spec
    from netbpf.sources.expr import compile_expression, linktype_of_name

    insns = compile_expression(args.filter, linktype_of_name(args.linktype), optimize=args.optimize)
    if args.style in CLASSIC_STYLES:  # what the kernel would refuse can be printed all the same
        from netbpf.program import ProgramSpec

        return ProgramSpec((), classic=insns)
    return to_spec(insns)


def _print(spec: ProgramSpec, args: argparse.Namespace) -> None:
    for line in lines(spec, args.style, opcodes=args.opcodes, source=not args.no_source):
        print(line)


def _classic(spec: ProgramSpec, style: str) -> Iterator[str]:
    from netbpf.sources import cbpf

    if not spec.classic:
        raise UsageError(f"-{style} prints classic filters; this is an eBPF program")
    form = {"d": cbpf.format_d, "dd": cbpf.format_dd, "ddd": cbpf.format_ddd}[style]
    yield from form(spec.classic).splitlines()


def lines(spec: ProgramSpec, style: str, *, opcodes: bool = False, source: bool = True) -> Iterator[str]:
    """The program as ``style`` of :data:`STYLES`. ``opcodes`` adds the bytes of each slot to xlated lines, ``source`` the
    functions and lines of the source above theirs."""
    if style in CLASSIC_STYLES:
        yield from _classic(spec, style)
    elif style in ("c", "hex"):
        from netbpf.cli.asm import render

        yield from render(spec, style).decode().splitlines()
    elif style == "asm":
        from netbpf.sources.asm import format_program

        yield from format_program(spec).splitlines()
    else:
        from netbpf.sources.listing import listing

        yield from listing(spec, style, opcodes=opcodes, source=source)
