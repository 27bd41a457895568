"""``netbpf debug``: step through a capture, or one packet in hex, forwards and backwards; a screen on a terminal, else commands
from stdin, a line each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from netbpf.cli.program import ETHERNET, ProgramChoice, add_program_arguments, chosen_program
from netbpf.errors import UsageError

if TYPE_CHECKING:
    from netbpf.explain.debugger import Debugger
    from netbpf.packet.record import Record

EX_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("capture", nargs="?", metavar="CAPTURE", help="pcap or pcapng, plain or gzip")
    parser.add_argument("--hex", metavar="BYTES", help="one packet in hex instead of a capture, from its Ethernet header on")
    parser.add_argument("-n", dest="number", type=int, default=1, metavar="N", help="begin at packet N (default 1)")
    parser.add_argument("--plain", action="store_true", help="commands from stdin on a terminal too, no screen")
    parser.add_argument("--seed", type=int, default=1, help="seed of bpf_get_prandom_u32 (default 1)")
    add_program_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 when the user quits or the script ends."""
    from netbpf.explain.debugger import Debugger
    from netbpf.explain.session import WatchedSession

    if (args.capture is None) == (args.hex is None):
        raise UsageError("debug takes a capture, or --hex BYTES")
    if args.capture == "-":
        raise UsageError("debug reads its commands from stdin, and goes back in a capture: give a file")
    choice = chosen_program(args)
    spec = choice.spec(_linktype(args, choice))
    debugger = Debugger(
        lambda: WatchedSession(spec, name=choice.name, seed=args.seed),
        lambda: _records(args),
    )
    try:
        if args.number != 1:
            debugger.packet(args.number)
        if _has_screen() and not args.plain:
            from netbpf.cli.debug_terminal import show

            show(debugger)
        else:
            _script(debugger)
    finally:
        debugger.close()
    return 0


def _has_screen() -> bool:
    """Whether this is a terminal that can be painted on."""
    import importlib.util
    import os

    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return is_terminal and os.environ.get("TERM", "dumb") != "dumb" and importlib.util.find_spec("_curses") is not None


def _linktype(args: argparse.Namespace, choice: ProgramChoice) -> int:
    """What an expression is compiled for."""
    from netbpf.packet.open import open_capture

    if choice.expression is None or args.capture is None:
        return ETHERNET
    with open_capture(args.capture) as reader:
        return reader.linktype if reader.linktype >= 0 else ETHERNET


def _records(args: argparse.Namespace) -> Iterator[Record]:
    from netbpf.packet.open import open_capture
    from netbpf.packet.record import Record

    if args.hex is not None:
        data = packet_of_hex(args.hex)
        yield Record(1, 0, len(data), data)
        return
    with open_capture(args.capture) as reader:
        yield from reader


def packet_of_hex(text: str) -> bytes:
    """The bytes of hex digits with blanks, colons or line ends between them. Raises UsageError."""
    digits = "".join(text.replace(":", " ").split()).removeprefix("0x")
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise UsageError(f"--hex {text[:40]}: an even number of hex digits") from None


def _script(debugger: Debugger) -> None:
    """Commands from stdin to its end; each is shown before its answer unless a person typed it."""
    from netbpf.explain.debug_commands import Commands, Quit

    commands, typed = Commands(debugger), sys.stdin.isatty()
    print("\n".join(commands.run("w")), flush=True)
    while True:
        if typed:
            print("(netbpf) ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if not typed:
            print(f"> {line.strip()}")
        try:
            told = commands.run(line)
        except Quit:
            return
        except KeyboardInterrupt:
            told = ["interrupted", *commands.run("w")]
        if told:
            print("\n".join(told), flush=True)
