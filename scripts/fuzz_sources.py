#!/usr/bin/env python3
"""Damage files at random, byte by byte, and read them: an answer or one error of the reader's, no traceback, no hang, bounded
memory.

    scripts/fuzz_sources.py [--seconds 60] [--seed N] [--only objects|assembly|classic|btf|captures] [FILE...]

Without files: the objects of tests/data/objects and their BTF, the programs of scenarios/, classic filters in all spellings, and
the captures of pcaps/ (pcap, pcapng, gzip, and gzip of what was damaged before). Prints its seed; an input that breaks a
reader is kept in the directory told, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import random
import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from netbpf.btf import KIND_STRUCT, KIND_UNION, Btf, format_value  # noqa: E402
from netbpf.errors import BpfError, CaptureError, ProgramRejected, SourceError  # noqa: E402
from netbpf.isa.classic import encode_classic  # noqa: E402
from netbpf.packet.open import open_capture  # noqa: E402
from netbpf.packet.receive import receive  # noqa: E402
from netbpf.sources import cbpf  # noqa: E402
from netbpf.sources.elf import list_programs, read_object  # noqa: E402
from netbpf.sources.load import ELF_MAGIC, ObjectOptions, parse_program  # noqa: E402

SLOW_SECONDS = 5.0
MEMORY_BYTES = 2 << 30
EDGES = (0, 1, 2, 3, 4, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
MAX_TYPES = 1024
MAX_CAPTURE_BYTES = 256 << 10
BPF_ASM = """start: ldh [12]
    jne #0x800, drop
    ldx 4*([14]&0xf)
    ldh [x + 16]
    st M[3]
    ld vlan_tci
    and #0xfff
    tax
    ld M[3]
    jeq #443, keep, drop
keep: ret #-1   ; all of it
drop: ret #0
"""
FILTER = cbpf.parse(BPF_ASM)
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
        if ".pcap" in path:
            return read_capture(data)
        if path.endswith(".btf"):
            read_types(data)
        elif data.startswith(ELF_MAGIC):
            for entry in list_programs(data, path)[:8]:
                read_object(data, path, program=entry.name, kconfig=SETTINGS, kernel_btf=kernel_btf)
        else:
            for view in ("socket", "file"):
                parse_program(data, path, ObjectOptions(view=view))
    except SourceError as e:
        if e.path != path:
            raise RuntimeError(f"the error names {e.path!r}") from e
        return False
    except ProgramRejected:  # a classic filter that may not be
        return False
    return True


def read_capture(data: bytes) -> bool:
    """Every packet up to the damage, by records and by batches, and what each view makes of it."""
    counts = []
    for by_batches in (False, True):
        counts.append(0)
        try:
            reader = open_capture(io.BytesIO(data))
            records = (b.record(i) for b in reader.batches() for i in range(len(b))) if by_batches else iter(reader)
            for record in records:
                counts[-1] += 1
                if counts[-1] < 200:
                    receive(record)
                    receive(record, view="file")
        except CaptureError:
            damaged = True
        else:
            damaged = False
    if counts[0] != counts[1]:
        raise RuntimeError(f"{counts[0]} packets one by one, {counts[1]} in batches")
    return not damaged


def read_types(data: bytes) -> None:
    """Every type of a BTF blob, its size, name and members, a value of it as a map dump tells it, and the blob again."""
    try:
        types = Btf.parse(data)
    except BpfError as e:
        raise SourceError(str(e), path="types.btf") from None
    for number in range(1, min(len(types.types), MAX_TYPES)):
        with contextlib.suppress(BpfError):
            format_value(types, number, bytes(64))
            assert types.size(number) >= 0
            if types.types[number].kind in (KIND_STRUCT, KIND_UNION):
                assert len(list(types.members(number))) == len(types.types[number].rows)
            assert isinstance(types.name(number), str)
    if types.encode() and Btf.parse(types.encode()).types != types.types:
        raise RuntimeError("what is written again is another")


def seeds_of(only: str, types: bytes) -> list[tuple[str, bytes]]:
    """Name and content of what is damaged when no files are told."""
    classic = {
        "f.ddd": cbpf.format_ddd(FILTER), "f.dd": cbpf.format_dd(FILTER), "f.txt": cbpf.format_d(FILTER), "f.cbpf": BPF_ASM,
    }  # fmt: skip
    groups = {
        "objects": [(p.name, p.read_bytes()) for p in sorted((ROOT / "tests/data/objects").glob("*.o"))],
        "assembly": [(p.name, p.read_bytes()) for p in sorted((ROOT / "scenarios").glob("*.s"))],
        "classic": [*((name, text.encode()) for name, text in classic.items()), ("f.sock_filter", encode_classic(FILTER))],
        "btf": [("types.btf", types)],
        "captures": [
            (p.name, p.read_bytes()) for p in sorted((ROOT / "pcaps").glob("*.pcap*")) if p.stat().st_size < MAX_CAPTURE_BYTES
        ],
    }
    return [seed for name, seeds in groups.items() if only in ("", name) for seed in seeds]


def damaged(name: str, data: bytes, rng: random.Random) -> bytes:
    """A damaged copy; of a compressed capture now and then one whose content is damaged and whose compression is not."""
    if name.endswith(".gz") and rng.random() < 0.5:
        with contextlib.suppress(EOFError):  # one of the seeds is cut
            return gzip.compress(mutated(gzip.decompress(data), rng), 1)
    return mutated(data, rng)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", default="", choices=("", "objects", "assembly", "classic", "btf", "captures"))
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    kept = Path(tempfile.mkdtemp(prefix="netbpf-fuzz-"))
    types = kept / "types.btf"
    types.write_bytes(read_object((ROOT / "tests/data/objects/globals.o").read_bytes(), program="sum_up", kconfig=SETTINGS).btf)
    seeds = [(p.name, p.read_bytes()) for p in args.files] or seeds_of(args.only, types.read_bytes())
    rng, runs, accepted, broken = random.Random(args.seed), 0, 0, 0
    print(f"seed {args.seed}, {len(seeds)} files, what breaks is kept in {kept}")
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        name, data = rng.choice(seeds)
        broken_input = damaged(name, data, rng)
        started = time.process_time()  # a busy machine makes everything late
        try:
            accepted += read(broken_input, name, str(types))
        except Exception as e:  # anything else is what this script looks for
            problem = f"{type(e).__name__}: {e}"
        else:
            seconds = time.process_time() - started
            problem = f"{seconds:.1f} s" if seconds > SLOW_SECONDS else ""
        if problem:
            broken += 1
            (kept / f"{runs}-{name}").write_bytes(broken_input)
            print(f"{kept / f'{runs}-{name}'}: {problem}")
        runs += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{runs} inputs, {accepted} read, {runs - accepted - broken} refused, {broken} broke a reader; {peak} MiB at most")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
