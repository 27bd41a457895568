"""``netbpf why``: the path of single packets of a capture through a program, and where two of them part."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from netbpf.cli.program import ETHERNET, add_program_arguments, chosen_program
from netbpf.cli.progress import Progress
from netbpf.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from netbpf.explain.steps import Path

SUMMARY = "the path of a packet through a program: loads in protocol terms, branches, helper calls, the verdict"
MAX_PACKETS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("capture", metavar="CAPTURE", help="pcap or pcapng, plain or gzip; - is stdin")
    parser.add_argument(
        "-n", dest="numbers", action="append", default=[], metavar="N[-M]", help="the packet asked about, from 1; also 3,5,8-10"
    )
    parser.add_argument("--diff", nargs=2, type=int, metavar=("N", "M"), help="where the paths of two packets part")
    parser.add_argument("--steps", type=int, default=20000, metavar="N", help="steps kept of a path (default 20000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of bpf_get_prandom_u32 (default 1)")
    parser.add_argument("--json", action="store_true", help="a JSON object for each packet (docs/answers.md)")
    add_program_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 when every packet asked about was there, else 66."""
    from netbpf.explain.session import WatchedSession
    from netbpf.packet.open import open_capture

    wanted, choice = _wanted(args), chosen_program(args)
    with ExitStack() as stack:
        reader = stack.enter_context(open_capture(args.capture))
        spec = choice.spec(reader.linktype if reader.linktype >= 0 else ETHERNET)
        session = stack.enter_context(WatchedSession(spec, name=choice.name, seed=args.seed))
        progress = Progress()

        def tell(number: int) -> None:
            progress.update(number, *reader.progress())

        paths = _up_to_damage(session.paths(reader, set(wanted), max_steps=args.steps, on_packet=tell))
        found = _tell_diff(args, paths) if args.diff else _tell_each(args, paths, progress)
        progress.clear()
        missing = sorted(set(wanted) - found)
        if missing:
            print(f"netbpf: {args.capture} has {reader.packets} packets, and none numbered {_listed(missing)}", file=sys.stderr)
    return CaptureError.exit_code if missing else 0


def _wanted(args: argparse.Namespace) -> list[int]:
    """The packets asked about. Raises UsageError."""
    if args.diff:
        if args.numbers:
            raise UsageError("--diff N M names its packets: leave -n out")
        numbers = list(args.diff)
    else:
        numbers = [n for word in args.numbers for part in word.split(",") for n in _range(part)]
    if not numbers:
        raise UsageError("which packet? -n N, or --diff N M")
    if min(numbers) < 1:
        raise UsageError(f"packet {min(numbers)}: packet numbers start at 1")
    if args.steps < 2:
        raise UsageError(f"--steps {args.steps}: at least 2")
    return numbers


def _range(text: str) -> range:
    first, dash, last = text.partition("-")
    try:
        numbers = range(int(first), int(last if dash else first) + 1)
    except ValueError:
        raise UsageError(f"-n {text}: a packet number, or a range as 3-7") from None
    if not 0 < len(numbers) <= MAX_PACKETS:
        raise UsageError(f"-n {text}: a range goes upwards, over at most {MAX_PACKETS} packets")
    return numbers


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")


def _up_to_damage(paths: Iterator[Path]) -> Iterator[Path]:
    """Paths up to a damage of the capture, which is told."""
    try:
        yield from paths
    except CaptureError as e:
        print(f"netbpf: {e}", file=sys.stderr)


def _tell_each(args: argparse.Namespace, paths: Iterator[Path], progress: Progress) -> set[int]:
    from netbpf.explain.text import format_path

    found: set[int] = set()
    for path in paths:
        progress.clear()
        if args.json:
            print(json.dumps(path.as_json()))
        else:
            print("\n".join([*([""] if found else []), *format_path(path)]))
        found.add(path.number)
    return found


def _tell_diff(args: argparse.Namespace, paths: Iterator[Path]) -> set[int]:
    from netbpf.explain.diff import diff_json, format_diff

    found = {path.number: path for path in paths}
    left, right = (found.get(n) for n in args.diff)
    if left is not None and right is not None:
        print(json.dumps(diff_json(left, right)) if args.json else "\n".join(format_diff(left, right)))
    return set(found)
