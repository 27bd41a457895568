#!/usr/bin/env python3
"""Random and mutated programs, each loaded into the running kernel and judged by our verifier, under one of three privileges.

    verifier_fuzz.py --seconds 60 [--seed 1] [--from FILE...] [--keep DIFFERENCES.jsonl] [--max N]

Prints the four cells, the agreement of errno, reason, `processed` and whole log (level 2), the differences found (first of
each kind), and a count of the kernel's decisions by kind: how far the generator reached. `--from`: also mutate the programs of
such records. `--each`: before that, load each of them as it is, of whatever type, as a socket filter with several flags in
every privilege. `--keep`: append each differing program as a record for verifier_corpus.py. Where the kernel looks into its own
BTF the answers differ as docs/differences.md says; such programs are counted apart. Needs root. Exit code 1 on a false accept.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from kernel_oracle import Oracle, create_map, load_btf
from verifier_btf import LIBRARY
from verifier_programs import MAPS, generate, make_record, mutate
from verifier_records import AS_LOADED, PROG_TYPE_BY_NAME, MapType, last_reason, load_request, mask_addresses, read_records

import netbpf
from netbpf.isa.instruction import decode, encode
from netbpf.verifier.structure import LD_IMM64

KINDS_SHOWN = 400
BPF_LOG_STATS = 4
SOCKET_FILTER = PROG_TYPE_BY_NAME["socket_filter"]
SECONDS_EACH = 20
PACKAGE = str(Path(netbpf.__file__).parent)
LONG = 5_000  # instructions the kernel walked; longer walks are only counted, ours would take seconds
_NUMBERS = re.compile(r"0x[0-9a-f]+|-?\b\d+\b|\(0x.*?\)")
_REGISTERS = re.compile(r"\bR\d+\b")
_KERNEL_BTF = re.compile(r"CONFIG_DEBUG_INFO_BTF|needs the kernel's BTF")
FLAG_SETS = (0, 8, 128, 1, 2)  # of --each, beside the record's own
_OPERANDS = re.compile(r"^\d+: \(..\) .*")


def kind_of(errno: int, log: str) -> str:
    """A decision without its numbers and registers: ``EACCES R# !read_ok`` and so on."""
    if not errno:
        return "accept"
    reason = last_reason(log)
    if reason.startswith("old state: "):
        reason = "infinite loop detected"  # said before the states
    reason = _OPERANDS.sub("at an instruction", reason)
    return f"errno {errno}: " + _NUMBERS.sub("N", _REGISTERS.sub("R#", reason))[:110]


@dataclass
class Tally:
    """What was seen so far."""

    cells: Counter[str] = field(default_factory=Counter)
    privileges: Counter[str] = field(default_factory=Counter)
    agreements: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)


class MapSet:
    """Real maps for the records' descriptions, made once each."""

    def __init__(self) -> None:
        self.made: dict[str, int] = {}
        self.btf_fd = load_btf(LIBRARY.bytes)

    def btf(self, description: dict[str, Any]) -> tuple[int, int, int]:
        """Descriptor, key and value type for a map whose value BTF describes."""
        kind = next((k for k in LIBRARY.values if f"bpf_{k} " in (description.get("btf_value") or "")), None)
        return (self.btf_fd, LIBRARY.key, LIBRARY.values[kind]) if kind else (0, 0, 0)

    def extra(self, record: dict[str, Any]) -> tuple[Any, ...]:
        """What a record's BTF adds to the load."""
        if "btf_bytes" not in record:
            return ()
        return self.btf_fd, record["func_rows"], record.get("line_rows") or ()

    def fd(self, name: str, description: dict[str, Any]) -> int:
        key = name + json.dumps(description, sort_keys=True)
        if key not in self.made:
            inner = 0
            if description.get("inner"):
                inner = self.fd("", description["inner"])
            self.made[key] = create_map(
                description, int(MapType[description["type"].upper()]), name, inner, self.btf(description)
            )
        return self.made[key]

    def fds(self, record: dict[str, Any]) -> dict[str, int]:
        return {name: self.fd(name, description) for name, description in record["maps"].items()}

    def names_a_stranger(self, record: dict[str, Any]) -> bool:
        """Whether a mutated map reference happens to be an open descriptor that the record does not describe."""
        code, own = decode(self.patched(record)), set(self.fds(record).values())
        highest = max([*self.made.values(), self.btf_fd]) + 8
        return any(i.code == LD_IMM64 and i.src in (1, 2) and i.imm not in own and 2 < i.imm <= highest for i in code)

    def patched(self, record: dict[str, Any]) -> bytes:
        code = list(decode(bytes.fromhex(record["insns"])))
        for index, name, *_ in record["map_relocs"]:
            code[index] = code[index]._replace(imm=self.fd(name, record["maps"][name]))
        return encode(code)


def _as_socket_filter(record: dict[str, Any]) -> dict[str, Any]:
    told = {"prog_type": "socket_filter", "expected_attach_type": None, "source": AS_LOADED}
    maps = {"map_relocs": record.get("map_relocs") or [], "maps": record.get("maps") or {}}
    kept = {k: v for k, v in record.items() if k not in ("btf_bytes", "func_rows", "line_rows")}
    return kept | told | maps | {"flags": (record.get("flags") or 0) & sum(FLAG_SETS)}


def seed_records(files: list[str], every_type: bool = False) -> list[dict[str, Any]]:
    """Socket filters of the given files without what needs BTF; with ``every_type`` all programs, as socket filters."""
    chosen = []
    for file in files:
        for record in read_records(file):
            if not record.get("insns") or len(record["insns"]) > 16 * (3000 if every_type else 600):
                continue
            if not every_type and (record["prog_type"] != "socket_filter" or record.get("btf_needed")):
                continue
            maps = record.get("maps") or {}
            whole = all(name in maps for _, name, *_ in record.get("map_relocs") or [])
            if whole and (every_type or not any(m.get("btf") for m in maps.values())):
                chosen.append(_as_socket_filter(record))
    return chosen


def next_record(rng: random.Random, seeds: list[dict[str, Any]], recent: list[dict[str, Any]], privilege: str) -> dict[str, Any]:
    """A new program, or a mutation of a seed or of a program accepted lately."""
    pick = rng.random()
    pool = seeds if pick < 0.25 else recent if pick < 0.35 else []
    if not pool:
        return generate(rng, privilege != "unpriv")
    base = rng.choice(pool)
    code, relocs = mutate(rng, list(decode(bytes.fromhex(base["insns"]))), base.get("map_relocs") or [])
    return make_record(code, relocs, rng.choice((base.get("flags") or 0, 0, 8)), base.get("maps") or {})


def _too_long(signum: int, frame: Any) -> None:
    """Raises in our own code only: what a callback of the garbage collector raises is lost. The timer comes again."""
    if frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        raise TimeoutError(f"more than {SECONDS_EACH} seconds")


def ours(record: dict[str, Any], privilege: str, level: int, map_fds: dict[str, int] | None = None) -> tuple[int, str, int]:
    """(errno, log, processed); an exception of ours is errno -1 with the place in the log."""
    from netbpf.verifier.check import verify

    signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_EACH, 0.05)
    try:
        result = verify(load_request(record, record["prog_type"], privilege, level, map_fds))
    except Exception as e:
        frame = traceback.extract_tb(e.__traceback__)[-1]
        return -1, f"{type(e).__name__}: {e} at {Path(frame.filename).name}:{frame.lineno}", -1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return result.errno, result.log, result.stats.insn_processed


def ask_kernel(oracle: Oracle, privilege: str, code: bytes, flags: int, level: int, extra: Any) -> tuple[int, str] | None:
    """(errno, log); None for a walk too long to compare. A program that may loop is tried without a full log first."""
    insns = decode(code)
    if any(i.code & 7 in (5, 6) and (i.off < 0 or i.imm < 0) for i in insns) or len(insns) > 400:
        log = oracle.ask(privilege, code, SOCKET_FILTER, flags, BPF_LOG_STATS, 0, extra)[1]
        if (processed_of(log) or 0) > LONG:
            return None
    return oracle.ask(privilege, code, SOCKET_FILTER, flags, level, 0, extra)


def crashes_the_kernel(mine: tuple[int, str, int]) -> bool:
    """Programs never to be asked: 6.18.44 writes out of bounds where its walk back leaves the outermost frame with an argument
    still looked for, which ends the asking process and may end the machine. What took us too long is not asked either."""
    return "subprog exit from frame 0" in mine[1] or (mine[0] < 0 and "TimeoutError" in mine[1])


def processed_of(log: str) -> int | None:
    found = re.search(r"^processed (\d+) insns", log, re.M)
    return int(found[1]) if found else None


def compare(tally: Tally, record: dict[str, Any], privilege: str, kernel: tuple[int, str], mine: tuple[int, str, int]) -> str:
    """Count one answer; returns what differs first, "" when all agrees."""
    k_errno, k_log = kernel
    m_errno, m_log, m_processed = mine
    tally.decisions[kind_of(k_errno, k_log)] += 1
    if _KERNEL_BTF.search(m_log):
        tally.cells["kernel's own BTF"] += 1
        return ""
    cell = {(0, 0): "both_accept", (1, 1): "both_reject", (0, 1): "false_accept", (1, 0): "false_reject"}[
        (int(m_errno != 0), int(k_errno != 0))
    ]
    tally.cells[cell] += 1
    if cell.startswith("false"):
        return cell
    checks = [("processed", m_processed == processed_of(k_log)), ("log", mask_addresses(m_log) == mask_addresses(k_log))]
    if k_errno:
        checks = [("errno", m_errno == k_errno), ("reason", last_reason(m_log) == last_reason(k_log)), *checks]
    for name, equal in checks:
        tally.compared[name] += 1
        tally.agreements[name] += equal
    return next((name for name, equal in checks if not equal), "")


def note_difference(
    tally: Tally, what: str, record: dict[str, Any], privilege: str, kernel: tuple[int, str], mine: tuple[int, str, int]
) -> dict[str, Any]:
    """The differing program as a record that verifier_corpus.py reads, counted under what differs."""
    k_errno, k_log = kernel
    said = {"verdict": "reject" if k_errno else "accept", "errno": k_errno, "processed": processed_of(k_log), "log": k_log}
    kept = record | {
        "source": AS_LOADED,
        "id": f"fuzz/{what}/{sum(tally.differences.values())}",
        privilege if privilege != "priv" else "kernel": said,
    }
    detail = kind_of(mine[0], mine[1]) if what != "log" else ""
    kind = f"{what}: kernel {kind_of(k_errno, k_log)} | ours {detail}"
    tally.differences[kind] += 1
    tally.examples.setdefault(kind, kept)
    return kept


def report(tally: Tally, count: int, seconds: float, seed: int) -> None:
    by_privilege = ", ".join(f"{name} {number}" for name, number in sorted(tally.privileges.items()))
    print(f"seed {seed}: {count} programs in {seconds:.0f} s ({count / seconds:.0f}/s): {by_privilege}")
    names = ("both_accept", "both_reject", "false_accept", "false_reject", "kernel's own BTF")
    print("  " + ", ".join(f"{name} {tally.cells[name]}" for name in names))
    print(
        "  "
        + ", ".join(f"{name} {tally.agreements[name]}/{tally.compared[name]}" for name in ("errno", "reason", "processed", "log"))
    )
    for kind, number in tally.differences.most_common(60):
        print(f"  differs {number:6} {kind}")
    print(f"decisions of the kernel by kind ({len(tally.decisions)} kinds):")
    for kind, number in tally.decisions.most_common(KINDS_SHOWN):
        print(f"  {number:8} {kind}")


class Hunt:
    """Programs asked of both, one after the other; what was seen is in ``tally``."""

    def __init__(self, oracle: Oracle, maps: MapSet, keep: TextIO, level: int) -> None:
        self.oracle, self.maps, self.keep, self.level = oracle, maps, keep, level
        self.tally, self.count = Tally(), 0

    def ask(self, record: dict[str, Any], privilege: str) -> bool:
        """Compare one program; True where the kernel accepts it."""
        maps, tally = self.maps, self.tally
        if maps.names_a_stranger(record):
            tally.decisions["left out: another descriptor"] += 1
            return False
        mine = ours(record, privilege, self.level, maps.fds(record))
        if crashes_the_kernel(mine):
            tally.decisions["left out: the kernel might crash, or long"] += 1
            return False
        kernel = ask_kernel(self.oracle, privilege, maps.patched(record), record["flags"], self.level, maps.extra(record))
        if kernel is None:
            tally.decisions["left out: a long walk"] += 1
            return False
        what = compare(tally, record, privilege, kernel, mine)
        if what:
            self.keep.write(json.dumps(note_difference(tally, what, record, privilege, kernel, mine)) + "\n")
        self.count += 1
        tally.privileges[privilege] += 1
        return not kernel[0]

    def each(self, records: list[dict[str, Any]], modes: list[str]) -> None:
        """Every record as it is, with its own flags and others, in every privilege."""
        for record in records:
            if any(fd < 0 for fd in self.maps.fds(record).values()):
                self.tally.decisions["left out: a map that cannot be made"] += 1
                continue
            for flags in dict.fromkeys((record["flags"], *FLAG_SETS)):
                for privilege in modes:
                    self.ask(record | {"flags": flags}, privilege)

    def random(self, rng: random.Random, seeds: list[dict[str, Any]], modes: list[str], until: float, most: int) -> None:
        recent: list[dict[str, Any]] = []
        start = self.count
        while time.monotonic() < until and (not most or self.count - start < most):
            privilege = rng.choice(modes)
            record = next_record(rng, seeds, recent, privilege)
            if self.ask(record, privilege):
                recent = [*recent[-200:], record]


def _arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--max", type=int, default=0, help="stop after this many programs")
    p.add_argument("--from", dest="seeds", nargs="*", default=[], metavar="FILE")
    p.add_argument("--each", action="store_true", help="first every program of --from as it is")
    p.add_argument("--keep", metavar="FILE")
    p.add_argument("--mode", action="append", choices=["priv", "capbpf", "unpriv"])
    p.add_argument("--level", type=int, default=2)
    return p.parse_args()


def main() -> int:
    a = _arguments()
    maps, started = MapSet(), time.monotonic()
    modes = a.mode or ["priv", "priv", "capbpf", "unpriv", "unpriv"]
    seeds, whole = seed_records(a.seeds), seed_records(a.seeds, True) if a.each else []
    every_map = {"map_relocs": [[0, n, "fd", 0] for n in MAPS], "maps": MAPS, "insns": "00" * 8}
    for record in [every_map, *seeds, *whole]:
        maps.fds(record)  # the oracle's children inherit them
    with Oracle(sorted(set(modes))) as oracle, open(a.keep or "/dev/null", "a") as keep:
        hunt = Hunt(oracle, maps, keep, a.level)
        try:
            hunt.each(whole, sorted(set(modes)))
            hunt.random(random.Random(a.seed), seeds, modes, started + a.seconds, a.max)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
    report(hunt.tally, hunt.count, time.monotonic() - started, a.seed)
    return int(hunt.tally.cells["false_accept"] > 0)


if __name__ == "__main__":
    sys.exit(main())
