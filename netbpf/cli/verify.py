"""``netbpf verify``: the verdict and the log of the kernel's verifier, without a kernel."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from netbpf.abi.caps import CAP_SETS
from netbpf.cli.program import FORMS, ProgramChoice, add_program_arguments, chosen_programs
from netbpf.errors import ProgramRejected, UsageError, errno_name
from netbpf.program import SOCKET_VIEW

if TYPE_CHECKING:
    from netbpf.program import ProgramSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("programs", nargs="*", metavar="PROG", help=f"{FORMS}; - is stdin")
    parser.add_argument(
        "--log-level",
        type=int,
        default=1,
        choices=(0, 1, 2, 4, 5, 6),
        help="1: the path to a refusal, 2: every state, 4: statistics",
    )
    parser.add_argument("--caps", choices=tuple(CAP_SETS), default="all", help="what the loading process may do (default all)")
    parser.add_argument("--json", action="store_true", help="one JSON object a program")
    add_program_arguments(parser, on_capture=False, prog_option=False)


def run(args: argparse.Namespace) -> int:
    """0 when every program would load, else 65."""
    choices, worst = chosen_programs(args, args.programs, filter_view=SOCKET_VIEW), 0
    if not choices:
        raise UsageError("verify takes programs, or --filter EXPR")
    for choice in choices:
        answer = _ask(choice, args.caps, args.log_level)
        if args.json:
            print(json.dumps(answer))
        else:
            _tell(choice.name, answer)
        if answer["errno"]:
            worst = ProgramRejected.exit_code
    return worst


def _ask(choice: ProgramChoice, caps: str, log_level: int) -> dict[str, Any]:
    from netbpf.host.loader import load_spec
    from netbpf.host.sim.host import SimHost
    from netbpf.verifier.releases import needed_release

    path, spec = choice.name, choice.spec()
    if spec.classic:
        return _ask_about_filter(path, spec, log_level)
    host, since = SimHost(unprivileged_bpf_disabled=0), needed_release(spec)
    with host.process(caps=CAP_SETS[caps]) as process:
        try:
            loaded = load_spec(process, spec, log_level=log_level)
        except ProgramRejected as e:
            return _answer(path, e.errno or 0, e.log, e.diagnosis) | {"needs_linux": since} | _walked(spec, e.diagnosis)
        return _answer(path, 0, process.load_log(loaded.prog_fd), None) | {"needs_linux": since}


def _walked(spec: ProgramSpec, diagnosis: Any) -> dict[str, Any]:
    """``witness``: a packet that walks to where the program was refused, None where none was found."""
    from netbpf.explain.witness import find_witness

    found = find_witness(spec, diagnosis) if diagnosis else None
    return {"witness": found.as_json() if found is not None else None}


def _answer(path: str, errno: int, log: str, diagnosis: Any) -> dict[str, Any]:
    verdict = "reject" if errno else "accept"
    return {"program": path, "verdict": verdict, "errno": errno, "log": log, "diagnosis": diagnosis}


def _ask_about_filter(path: str, spec: ProgramSpec, log_level: int) -> dict[str, Any]:
    """A classic filter, which any process may attach: what it was checked for before, its translation is proved for now."""
    from netbpf.verifier.classic import verify_classic

    result = verify_classic(spec, log_level=log_level)
    return _answer(path, result.errno, result.log, result.diagnosis)


def _tell(path: str, answer: dict[str, Any]) -> None:
    if answer["log"]:
        sys.stdout.write(answer["log"])
    if not answer["errno"]:
        print(f"{path}: accepted")
        return
    print(f"{path}: rejected with {errno_name(answer['errno'])}")
    if answer["diagnosis"]:
        from netbpf.explain.refusal import format_refusal

        print("\n".join(format_refusal(answer["diagnosis"], answer.get("witness"))))
