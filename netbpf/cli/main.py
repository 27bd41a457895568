"""The ``netbpf`` command: a table of subcommands, each imported only when it is asked for.

A subcommand module offers ``add_arguments(parser)`` and ``run(args) -> int``; ``examples`` has what is shown below its help.
Errors that netbpf raises become one message on stderr and the exit code their class carries; an interrupt exits 130.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from netbpf import __version__
from netbpf.errors import InternalError, NetbpfError

COMMANDS: dict[str, str] = {
    "replay": "run captures through a program: counts, verdicts, maps",
    "attach": "a program on live packets: a device, or a TAP made for it",
    "verify": "would this program load? the kernel verifier's verdict and log",
    "why": "the path of a packet through a program; where two packets part",
    "test": "run scenario files: programs, packets and what must come of them",
    "cover": "coverage of programs: a table, an HTML page, sums, lcov",
    "views": "the packets whose verdict differs between file and socket",
    "debug": "step through a capture forwards and backwards, with breakpoints",
    "disasm": "print a program as the kernel's log or bpftool does",
    "asm": "assemble a program to bytes",
}
EX_USAGE = 64
EX_SOFTWARE = 70
EX_IOERR = 74
EX_INTERRUPTED = 130

_EPILOG = """begin with:
  netbpf replay trace.pcap --filter tcp port 443
  netbpf replay trace.pcap --prog prog.o --report report.html
  netbpf replay --help

exit codes: 0 ok, 64 usage, 65 program refused, 66 capture refused,
70 our fault, 71 operating system, 74 input/output,
130 interrupted, 143 terminated; 1 a difference or a failed test"""


class _Parser(argparse.ArgumentParser):
    """argparse with this project's exit code for a wrong word."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; only ``command``'s own arguments are filled in (all of them when None, for the documentation)."""
    parser = _Parser(
        prog="netbpf",
        description="Linux socket filtering in user space: verified eBPF on captures, TAP devices\nand sockets.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"netbpf {__version__}")
    sub = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, summary in COMMANDS.items():
        p = sub.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command is None or command == name:
            importlib.import_module(f"netbpf.cli.{name}").add_arguments(p)
            p.epilog = _epilog(name, p.epilog)
    return parser


def _epilog(command: str, own: str | None) -> str | None:
    """Examples of a command, above what it says itself."""
    from netbpf.cli.examples import EXAMPLES

    lines = EXAMPLES.get(command, ())
    examples = "\n".join(["examples:", *(f"  {line}" for line in lines)]) if lines else None
    return "\n\n".join(part for part in (examples, own) if part) or None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((w for w in words if not w.startswith("-")), "")
    try:
        parser = build_parser(command)
        args = parser.parse_args(words)
    except SystemExit as e:  # argparse has printed its message
        return int(e.code or 0)
    if args.command is None:
        parser.print_help(sys.stderr)
        return EX_USAGE
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        code = int(importlib.import_module(f"netbpf.cli.{args.command}").run(args))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EX_INTERRUPTED
    except BrokenPipeError:
        # the reader of our output went away (| head): quiet, as other filters are
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_IOERR
    except InternalError as e:
        _complain(f"{e}\nThis is a bug in netbpf: please report it with the command and input that led here.")
        return e.exit_code
    except NetbpfError as e:
        _complain(str(e))
        return e.exit_code
    except OSError as e:
        _complain(f"{e.filename}: {e.strerror}" if e.filename else str(e))
        return EX_IOERR
    except Exception as e:
        if os.environ.get("NETBPF_DEBUG"):
            raise
        _complain(f"{type(e).__name__}: {e}\nThis is a bug in netbpf: please report it (NETBPF_DEBUG=1 shows the traceback).")
        return EX_SOFTWARE


def _complain(text: str) -> None:
    print(f"netbpf: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
