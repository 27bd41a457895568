#!/usr/bin/env python3
"""Damage programs at random, byte by byte, and read them: an answer or one SourceError, no traceback, no hang, bounded memory.

    scripts/fuzz_sources.py [--seconds 60] [--seed N] [FILE...]

Without files, the objects of tests/data/objects and the programs of scenarios/. Prints its seed; an input that breaks a reader
is kept in the directory told, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from netbpf.errors import SourceError  # noqa: E402
from netbpf.sources.elf import list_programs, read_object  # noqa: E402
from netbpf.sources.load import ELF_MAGIC, parse_program  # noqa: E402

SLOW_SECONDS = 5.0
MEMORY_BYTES = 2 << 30
EDGES = (0, 1, 2, 3, 4, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
SETTINGS = {"CONFIG_BPF_SYSCALL": "y"}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """``data`` with one to eight damages: bytes, numbers at their edges, pieces moved, an end cut off."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        if not out:
            break
        at, kind = rng.randrange(len(out)), rng.randrange(6)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind == 2:
            _put(out, at & ~3, struct.pack("<I", rng.choice(EDGES)))
        elif kind == 3:
            _put(out, at & ~7, struct.pack("<Q", rng.choice((*EDGES, len(out), 1 << 63, (1 << 64) - 1))))
        elif kind == 4:
            size = rng.randint(1, 64)
            _put(out, rng.randrange(len(out)), bytes(out[at : at + size]))
        elif rng.random() < 0.2:
            del out[at:]
    return bytes(out)


def _put(out: bytearray, at: int, piece: bytes) -> None:
    room = len(out) - at
    out[at : at + len(piece)] = piece[:room]


def read(data: bytes, path: str, kernel_btf: str) -> bool:
    """Whether every reader of ``data`` had an answer other than a refusal. ``kernel_btf``: a small file of types."""
    try:
        if data.startswith(ELF_MAGIC):
            for entry in list_programs(data, path)[:8]:
                read_object(data, path, program=entry.name, kconfig=SETTINGS, kernel_btf=kernel_btf)
        else:
            parse_program(data, path)
    except SourceError as e:
        if e.path != path:
            raise RuntimeError(f"the error names {e.path!r}") from e
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    args = parser.parse_args()
    files = args.files or sorted([*(ROOT / "tests/data/objects").glob("*.o"), *(ROOT / "scenarios").glob("*.s")])
    seeds = [(p.name, p.read_bytes()) for p in files]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    kept = Path(tempfile.mkdtemp(prefix="netbpf-fuzz-"))
    types = kept / "types.btf"
    types.write_bytes(read_object((ROOT / "tests/data/objects/globals.o").read_bytes(), program="sum_up", kconfig=SETTINGS).btf)
    rng, runs, accepted, broken = random.Random(args.seed), 0, 0, 0
    print(f"seed {args.seed}, {len(seeds)} files, what breaks is kept in {kept}")
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        name, data = rng.choice(seeds)
        damaged = mutated(data, rng)
        started = time.monotonic()
        try:
            accepted += read(damaged, name, str(types))
        except Exception as e:  # anything else is what this script looks for
            problem = f"{type(e).__name__}: {e}"
        else:
            seconds = time.monotonic() - started
            problem = f"{seconds:.1f} s" if seconds > SLOW_SECONDS else ""
        if problem:
            broken += 1
            (kept / f"{runs}-{name}").write_bytes(damaged)
            print(f"{kept / f'{runs}-{name}'}: {problem}")
        runs += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{runs} inputs, {accepted} read, {runs - accepted - broken} refused, {broken} broke a reader; {peak} MiB at most")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
