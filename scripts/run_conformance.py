#!/usr/bin/env python3
"""Every program of bpf_conformance through scripts/bpf_conformance_plugin, a process each, as its runner does it; and the times.

    scripts/run_conformance.py [DIRECTORY] [--engine interp|native] [--elf] [--cold]

DIRECTORY holds the .data files (default: ../shared/vectors/conformance beside the checkout). ``--elf`` hands the program over in
an object file, as the runner's option of that name does; ``--cold`` gives each process an empty cache, so that native code is
compiled every time. Prints what failed, then how many passed and the processor and wall time of a process: the median and the
longest. Exit code 1 if any failed.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from netbpf.isa.instruction import encode  # noqa: E402
from netbpf.sources.conformance import ConformanceTest, parse  # noqa: E402

PLUGIN = ROOT / "scripts" / "bpf_conformance_plugin"


class Outcome(NamedTuple):
    """One process: what was wrong ("" if nothing), seconds of processor time and by the clock."""

    wrong: str
    cpu_s: float
    wall_s: float


def spell(data: bytes) -> str:
    """Bytes as the runner writes them."""
    return "".join(f"{byte:02x}  " for byte in data)


def object_file(code: bytes) -> bytes:
    """An object with the code in .text, laid out as the runner's writer does: its symbols' names stand in .shstrtab."""
    names = b"\0.shstrtab\0.symtab\0.text\0main\0"
    name_at = {name: names.index(name) for name in (b".shstrtab", b".symtab", b".text", b"main")}
    symbols = bytes(24) + struct.pack("<IBBHQQ", name_at[b"main"], 0x12, 0, 3, 0, len(code))  # STB_GLOBAL, STT_FUNC
    rows, body = [bytes(64)], b""
    for name, kind, flags, data, link, info, entry in (
        (b".shstrtab", 3, 0, names, 0, 0, 0),
        (b".symtab", 2, 0, symbols, 1, 1, 24),
        (b".text", 1, 6, code, 0, 0, 0),
    ):
        rows.append(struct.pack("<IIQQQQIIQQ", name_at[name], kind, flags, 0, 64 + len(body), len(data), link, info, 8, entry))
        body += data + bytes(-len(data) % 8)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 1, 247, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(rows), 1)
    return ident + header + body + b"".join(rows)


def run(test: ConformanceTest, options: argparse.Namespace) -> Outcome:
    words = [str(PLUGIN), *([spell(test.memory)] if test.memory else []), "--engine", options.engine]
    words += ["--elf"] if options.elf else []
    code = encode(test.insns)
    program = spell(object_file(code) if options.elf else code) + "\n"
    with tempfile.TemporaryDirectory() as empty:
        env = {**os.environ, "XDG_CACHE_HOME": empty} if options.cold else None
        return measured(test, words, program, env)


def measured(test: ConformanceTest, words: list[str], program: str, env: dict[str, str] | None) -> Outcome:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, input=program, capture_output=True, text=True, timeout=60, env=env)
    after, wall_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if test.error is not None:
        ok = done.returncode != 0 and test.error in (done.stdout.strip(), done.stderr.strip())
    else:
        ok = done.returncode == 0 and int(done.stdout, 16) == test.result
    return Outcome("" if ok else f"exit {done.returncode}: {done.stdout}{done.stderr}".strip(), cpu_s, wall_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT.parent / "shared" / "vectors" / "conformance")
    parser.add_argument("--engine", choices=("interp", "native"), default="interp")
    parser.add_argument("--elf", action="store_true")
    parser.add_argument("--cold", action="store_true")
    args = parser.parse_args()
    outcomes = {}
    for path in sorted(args.directory.glob("*.data")):
        outcomes[path.stem] = outcome = run(parse(path.read_text(), str(path)), args)
        if outcome.wrong:
            print(f"{path.name}: {outcome.wrong}")
    if not outcomes:
        print(f"no .data files in {args.directory}", file=sys.stderr)
        return 64
    failed = sum(1 for o in outcomes.values() if o.wrong)
    print(f"{args.engine}: {len(outcomes) - failed} of {len(outcomes)} passed")
    for name in ("cpu_s", "wall_s"):
        times = [getattr(o, name) for o in outcomes.values()]
        print(f"{name}: median {statistics.median(times):.3f}, longest {max(times):.3f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
