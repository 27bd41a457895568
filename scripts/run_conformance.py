#!/usr/bin/env python3
"""Every program of bpf_conformance through scripts/bpf_conformance_plugin, a process each, as its runner does it; and the times.

    scripts/run_conformance.py [DIRECTORY] [--engine interp|native]

DIRECTORY holds the .data files (default: ../shared/vectors/conformance beside the checkout). Prints what failed, then how many
passed and the processor and wall time of a process: the median and the longest. Exit code 1 if any failed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
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


def run(test: ConformanceTest, engine: str) -> Outcome:
    words = [str(PLUGIN), *([spell(test.memory)] if test.memory else []), "--engine", engine]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, input=spell(encode(test.insns)) + "\n", capture_output=True, text=True, timeout=60)
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
    args = parser.parse_args()
    outcomes = {}
    for path in sorted(args.directory.glob("*.data")):
        outcomes[path.stem] = outcome = run(parse(path.read_text(), str(path)), args.engine)
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
