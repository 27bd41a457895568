"""``netbpf disasm``: a program in the words of bpftool, of the verifier's log, or as text to assemble again; a classic filter
or a tcpdump expression in tcpdump's three forms."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from netbpf.cli.program import FORMS, ProgramChoice, add_program_arguments, chosen_programs
from netbpf.errors import UsageError
from netbpf.program import FILE_VIEW, SOCKET_VIEW

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
        help=f"{FORMS}; - is stdin",
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
    add_program_arguments(parser, on_capture=False, prog_option=False)


def run(args: argparse.Namespace) -> int:
    """0, or an error's exit code: 65 for what is no program."""
    choices = chosen_programs(args, args.programs, filter_view=SOCKET_VIEW)
    if not choices:
        raise UsageError("disasm takes programs, or --filter EXPR")
    for choice in choices:
        if len(choices) > 1:
            print(f"{choice.name}:")
        _print(_spec(choice, args.style), args)
    return 0


def _spec(choice: ProgramChoice, style: str) -> ProgramSpec:
    """The program; of an expression to be printed as tcpdump does it also where the kernel would refuse it."""
    if choice.expression is None or style not in CLASSIC_STYLES:
        return choice.spec()
    from netbpf.program import ProgramSpec
    from netbpf.sources.expr import compile_expression

    linktype = 1 if choice.linktype is None else choice.linktype
    in_file = choice.view == FILE_VIEW
    return ProgramSpec((), classic=compile_expression(choice.expression, linktype, savefile=in_file, optimize=choice.optimize))


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
