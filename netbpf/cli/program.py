"""The options of every command that takes a program, and what they choose: a file in any form, or a tcpdump expression.

    --prog FILE | --filter EXPR...      --view file|socket      -O      --symbol --kconfig --btf (of clang objects)

A command calls ``add_program_arguments`` and, when it runs, ``chosen_program``; the choice gives a ``ProgramSpec`` or a
``Session``. Nothing of the readers is imported before that.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netbpf.cli.objects import add_object_arguments, object_options
from netbpf.errors import UsageError
from netbpf.program import FILE_VIEW, SOCKET_VIEW, VIEWS

if TYPE_CHECKING:
    from netbpf.program import ProgramSpec
    from netbpf.replay.session import Session
    from netbpf.sources.load import ObjectOptions

FORMS = "assembly (.s), raw instructions (.bin), a clang object (.o, FILE.o:NAME), a classic filter (-d, -dd, -ddd, bpf_asm)"
ETHERNET = 1


@dataclass(frozen=True)
class ProgramChoice:
    """What the user asked for. ``path`` is a file ("-": stdin), or "" where ``expression`` is a tcpdump expression. ``linktype``
    is what ``-y`` said, None where nothing did."""

    path: str
    options: ObjectOptions
    expression: str | None = None
    view: str = SOCKET_VIEW
    optimize: bool = True
    linktype: int | None = field(default=None)

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.path if self.expression is None else f"filter '{self.expression}'"

    def spec(self, linktype: int = ETHERNET) -> ProgramSpec:
        """The program, an expression compiled for captures of ``linktype`` (but where ``-y`` said another).

        Raises SourceError, ProgramRejected(EINVAL), UsageError, OSError.
        """
        from netbpf.sources.load import filter_program, read_program

        if self.expression is None:
            return read_program(self.path, self.options)
        chosen = linktype if self.linktype is None else self.linktype
        return filter_program(self.expression, chosen, view=self.view, optimize=self.optimize)

    def session(self, linktype: int = ETHERNET, **options: Any) -> Session:
        """A session ready to replay captures of ``linktype``; ``options`` as Session has them: engine, seed, use_cache, checked,
        compile_ahead.

        Raises what ``spec`` raises, and BpfError.
        """
        from netbpf.replay.session import Session

        if self.expression is None:
            return Session.of_file(self.path, self.options, **options)
        from netbpf.replay.filtered import Expression

        return Session.of_filter(Expression(self.expression, self.view, self.optimize), linktype, **options)


def add_program_arguments(parser: argparse.ArgumentParser, *, on_capture: bool = True, prog_option: bool = True) -> None:
    """``--prog``, ``--filter``, ``--view``, ``-O`` and the options of clang objects. ``on_capture``: a filter's link type is that
    of the capture; else ``-y`` tells it. ``prog_option``: programs are named by ``--prog``, not by the command's words."""
    if prog_option:
        parser.add_argument("--prog", metavar="PROG", help=f"the program: {FORMS}; - is stdin")
    parser.add_argument(
        "--filter",
        nargs="*",
        metavar="EXPR",
        help="a tcpdump expression instead, compiled by libpcap: the words up to the next option, as tcpdump takes them",
    )
    parser.add_argument(
        "--view",
        choices=tuple(VIEWS),
        help="who looks at the packets: socket, as the kernel has them at a packet socket, or file, as tcpdump -r has them "
        f"(default: {'file for --filter, else ' if on_capture else ''}socket)",
    )
    parser.add_argument("-O", dest="optimize", action="store_false", help="do not let libpcap optimize the expression")
    if not on_capture:
        parser.add_argument("-y", dest="linktype", metavar="DLT", help="data link type of the expression (default EN10MB)")
    add_object_arguments(parser)


def chosen_program(args: argparse.Namespace, *, filter_view: str = FILE_VIEW) -> ProgramChoice:
    """The one program of ``--prog`` or ``--filter``; ``filter_view`` is an expression's view where ``--view`` says none.

    Raises UsageError.
    """
    chosen = chosen_programs(args, [args.prog] if args.prog is not None else [], filter_view=filter_view)
    if not chosen:
        raise UsageError("which program? --prog FILE, or --filter EXPR with a tcpdump expression")
    return chosen[0]


def chosen_programs(args: argparse.Namespace, paths: Sequence[str], *, filter_view: str = FILE_VIEW) -> list[ProgramChoice]:
    """A choice for each file of ``paths``, or the one of ``--filter``. Raises UsageError for both."""
    options = object_options(args)
    if args.filter is None:
        return [ProgramChoice(path, options, view=options.view) for path in paths]
    if paths:
        raise UsageError("a program or --filter EXPR, not both")
    view = args.view or filter_view
    return [ProgramChoice("", options, " ".join(args.filter), view, args.optimize, _linktype(args))]


def _linktype(args: argparse.Namespace) -> int | None:
    name = getattr(args, "linktype", None)
    if name is None:
        return None
    from netbpf.sources.expr import linktype_of_name

    return linktype_of_name(name)
