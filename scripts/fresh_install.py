#!/usr/bin/env python3
"""From a clean machine: a virtual environment, this package with its native engine and pytest, a repository of one scenario
file, and pytest without any privilege. Prints what each took; exits 1 where a test fails or pytest takes 3 s or more (on a
machine that has more to do than it has processors: 3 s of processor time).

    scripts/fresh_install.py [--keep]

Needs a package index that pip can reach. Everything happens in a folder of its own, which is removed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 3.0
STORY = '''netbpf = 1
title = "UDP is counted and dropped, everything else gets through"
cases = [
  { id = "udp", proto = "11", wanted = "drop", count = 1 },
  { id = "tcp", proto = "06", wanted = "accept", count = 0 },
]

[program]
asm = """
.map seen array key=4 value=8 entries=1
    r6 = r1
    r0 = *(u8 *)skb[23]
    if r0 == 17 goto udp
    r0 = -1
    exit
udp:
    *(u32 *)(r10 - 4) = 0
    r2 = r10
    r2 += -4
    r1 = map[seen]
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
out:
    r0 = 0
    exit
"""

[[packet]]
hex = "020000000001 020000000002 0800 4500001c0001000040${proto}0000 0a000002 0a000001 0035003500080000"
expect = "${wanted}"

[expect.maps.seen]
entries = { 0 = "${count}" }
'''


class Took(NamedTuple):
    """Seconds on the clock and of processor time."""

    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        return f"{self.wall_s:.2f} s ({self.cpu_s:.2f} s of processor time)"


def timed(words: list[str], **options: object) -> Took:
    """What a command took. Raises CalledProcessError."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, **options)  # type: ignore[call-overload]  # passed through
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(time.perf_counter() - started, cpu)


def unprivileged(words: list[str]) -> list[str]:
    """The command without any capability, where this process has some."""
    if os.geteuid() != 0:
        return words
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        sys.exit("this runs as root, and setpriv (util-linux), which would drop its privileges, is not installed")
    return [setpriv, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", *words]


def check(folder: Path) -> int:
    python = str(folder / "venv" / "bin" / "python")
    venv.create(folder / "venv", with_pip=True)
    quiet = ["--quiet", "--disable-pip-version-check"]
    installed = timed([python, "-m", "pip", "install", *quiet, f"{ROOT}[native]", "pytest"])
    print(f"pip install '.[native]' pytest: {installed}", flush=True)
    repository = folder / "repository"
    repository.mkdir()
    (repository / "udp.scenario.toml").write_text(STORY)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
    is_busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    worst = 0.0
    for what, args in (
        ("pytest", []),
        ("pytest, again", []),
        ("pytest --netbpf-engine=both", ["--netbpf-engine=both"]),
    ):
        words = unprivileged([python, "-m", "pytest", "-q", *args])
        took = timed(words, cwd=repository, env=env)
        worst = max(worst, took.cpu_s if is_busy else took.wall_s)
        print(f"{what}: {took}", flush=True)
    print(f"limit: {LIMIT_S} s {'of processor time: this machine is busy' if is_busy else 'on the clock'}")
    return int(worst >= LIMIT_S)


def main() -> int:
    parser = argparse.ArgumentParser(description="install netbpf afresh and run one scenario by pytest")
    parser.add_argument("--keep", action="store_true", help="leave the folder, and print where it is")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="netbpf-fresh-"))
    try:
        return check(folder)
    except subprocess.CalledProcessError as e:
        print(f"failed with exit code {e.returncode}: {' '.join(map(str, e.cmd))}", file=sys.stderr)
        return 1
    finally:
        if args.keep:
            print(f"left in {folder}")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
