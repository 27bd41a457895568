#!/usr/bin/env python3
"""Random programs that our verifier accepts, on random packets: the interpreter against the native engine, plain and checked.

    engine_fuzz.py --seconds 60 [--seed 1] [--packets 25] [--chains] [--keep DIFFERENCES.jsonl]

Compares R0, map bytes, trace lines, cb and clock after every packet, the columns of a whole batch, and what a replay of the
packets as a pcap leaves (where the native engine looks ahead at the keys of every table). Most programs are verified
without CAP_PERFMON, so that no address can reach a result; of the others, results that change with where things lie are left out.
Prints counts and the seed. Exit code 1 on a difference.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import signal
import sys
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engine_chains import random_chain, random_group
from engine_programs import random_text
from engine_runs import CHECKED, INTERP, NATIVE, Outcome, map_bytes, new_env, proved_program, reached_maps, run_loaded
from verifier_programs import generate, make_record, mutate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.random_calls import random_calls
from support.random_filters import random_filter
from support.split_programs import random_split
from support.tally_programs import random_tally

from netbpf.engine.base import UnsupportedProgram
from netbpf.engine.interp.engine import InterpEngine
from netbpf.engine.llvm import ahead
from netbpf.env import SteppedEnv
from netbpf.errors import EngineFault
from netbpf.isa.instruction import decode
from netbpf.packet.batch import PacketBatch
from netbpf.packet.open import open_capture
from netbpf.packet.pcap import PcapWriter
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff
from netbpf.program import VerifiedProgram
from netbpf.replay.core import Replay
from netbpf.replay.output import CaptureOutput

BOUNDED = InterpEngine(insn_limit=20_000)  # a run that is longer is left out
ETHERTYPES = (b"\x08\x00", b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00", b"\x88\xa8", b"\x00\x2e")
SIZES = (0, 1, 13, 14, 15, 19, 20, 21, 33, 34, 54, 60, 64, 100, 300)
SECONDS_EACH = 4


class TooLong(Exception):
    """A program that goes on for longer than the fuzzer waits."""


def random_record(rng: random.Random, number: int) -> Record:
    """An Ethernet frame, maybe tagged, cut, short or on its way out."""
    size = rng.choice(SIZES)
    head = rng.choice((b"\xff" * 6, b"\x01\x00\x5e\x00\x00\x01", b"\x02\x00\x00\x00\x00\x01")) + rng.randbytes(6)
    body = rng.choice(ETHERTYPES) + bytes([0x45, 0]) + bytes(7) + bytes([rng.choice((6, 17))]) + rng.randbytes(size)
    data = (head + body)[:size]
    return Record(number, 1_000_000_007 + 1000 * number, len(data) + rng.choice((0, 0, 0, 40)), data, 1, 0, rng.choice((0, 0, 2)))


def random_records(rng: random.Random, count: int) -> list[Record]:
    return [random_record(rng, n) for n in range(1, count + 1)]


def next_chain(rng: random.Random) -> dict[str, Any]:
    """Programs that tail calls lead through."""
    return random_chain(rng) if rng.random() < 0.6 else random_group(rng)


def next_record(rng: random.Random, recent: list[dict[str, Any]]) -> dict[str, Any]:
    """A chain, a program of map operations and calls, one that looks tables up early, one that only decides, one that counts
    what it finds, any new program, or a mutation of one that was accepted lately."""
    pick = rng.random()
    if pick < 0.2:
        return next_chain(rng)
    if pick < 0.4:
        return {"text": random_text(rng)}
    if pick < 0.5:
        return random_calls(rng)
    if pick < 0.6:
        return {"text": random_split(rng)}
    if pick < 0.7:
        return {"text": random_filter(rng)}
    if pick < 0.8:
        return {"text": random_tally(rng)}
    if not recent or rng.random() < 0.7:
        return generate(rng)
    base = rng.choice(recent)
    code, relocs = mutate(rng, list(decode(bytes.fromhex(base["insns"]))), base.get("map_relocs") or [])
    return make_record(code, relocs, base.get("flags") or 0, base.get("maps") or {})


def first_difference(want: list[Outcome], got: list[Outcome]) -> str:
    for n, (a, b) in enumerate(zip(want, got, strict=False)):
        for name, x, y in zip(a._fields, a, b, strict=True):
            if x != y:
                return f"packet {n}: {name}" + (f" {x} != {y}" if name == "r0" else "")
    return "" if len(want) == len(got) else "number of runs"


def batch_outcome(engine: Any, record: dict[str, Any], privilege: str, batch: PacketBatch) -> tuple[Any, ...]:
    """Columns, maps and clock after a whole batch, or where it faulted."""
    program, env = proved_program(record, privilege), new_env()
    assert program is not None
    maps = reached_maps(program)
    try:
        out = engine.load(program, env).run(batch)
    except EngineFault as fault:
        return ("fault", fault.pc)
    columns = (list(out.verdict), list(out.kept), bytes(out.trimmed))
    return (*columns, [map_bytes(m) for m in maps], env.now_ns, env.rng_state)


def written(records: list[Record]) -> bytes:
    """The packets as a pcap file."""
    out = io.BytesIO()
    with PcapWriter(out) as writer:
        for r in records:
            writer.write(r)
    return out.getvalue()


def replay_outcome(engine: Any, record: dict[str, Any], privilege: str, capture: bytes) -> tuple[Any, ...]:
    """Totals, maps, clock and what was written after a replay, or where it faulted."""
    program, env = proved_program(record, privilege), new_env()
    assert program is not None
    output, kept = CaptureOutput("kept.pcap"), io.BytesIO()
    output.writer = PcapWriter(kept)
    told = _replayed(engine, program, env, capture, output)
    return told if told[0] == "fault" else (*told, kept.getvalue())


def counted_outcome(engine: Any, record: dict[str, Any], privilege: str, capture: bytes) -> tuple[Any, ...]:
    """The same of a replay that writes nothing, as programs are run in lots then."""
    program, env = proved_program(record, privilege), new_env()
    assert program is not None
    return _replayed(engine, program, env, capture, None)


def _replayed(
    engine: Any, program: VerifiedProgram, env: SteppedEnv, capture: bytes, output: CaptureOutput | None
) -> tuple[Any, ...]:
    maps = reached_maps(program)
    replay = Replay(engine.load(program, env), {}, output=output)
    try:
        with open_capture(io.BytesIO(capture)) as reader:
            deque(replay.run(reader), 0)
    except EngineFault as fault:
        return ("fault", fault.pc)
    return replay.totals, [map_bytes(m) for m in maps], env.now_ns, env.rng_state


OUTCOMES = {"batch": batch_outcome, "replay": replay_outcome, "counted": counted_outcome}


class Fuzz:
    """One campaign: what was tried and what came of it."""

    def __init__(self, seed: int, packets: int, chains_only: bool) -> None:
        self.rng, self.packets, self.chains_only = random.Random(seed), packets, chains_only
        self.counts: Counter[str] = Counter()
        self.differences: list[tuple[str, dict[str, Any]]] = []
        self.recent: list[dict[str, Any]] = []
        self._elsewhere = ThreadPoolExecutor(1)  # its stack lies at other addresses

    def step(self) -> None:
        """One program, if the verifier takes it."""
        record = next_chain(self.rng) if self.chains_only else next_record(self.rng, self.recent)
        privilege = "capbpf" if "text" in record or self.rng.random() < 0.8 else "priv"
        for each in (record, *record.get("group", ())):
            each["prog_type"] = "socket_filter"
        signal.alarm(SECONDS_EACH)
        try:
            try:
                self._program(record, privilege)
            finally:
                signal.alarm(0)
        except TooLong:  # which may come while the alarm is turned off, too
            self.counts["took too long"] += 1

    def _program(self, record: dict[str, Any], privilege: str) -> None:
        if proved_program(record, privilege) is None:
            self.counts["refused by the verifier"] += 1
            return
        if "insns" in record:
            self.recent = [*self.recent[-200:], record]
        records = random_records(self.rng, self.packets)
        skbs = [skb for r in records if (skb := receive(r)) is not None]
        try:
            want = self._run(BOUNDED, record, privilege, skbs)
        except UnsupportedProgram:
            self.counts["without a body"] += 1
            return
        self.counts["programs"] += 1
        self.counts["pairs"] += len(want)
        checked = self.rng.random() < 0.4
        engine = CHECKED if checked else NATIVE
        cut_short = bool(want) and want[-1].r0 == "limit"
        if cut_short:
            self.counts["runs too long"] += 1
            want = want[:-1]
            skbs = skbs[: len(want)]
        if any(isinstance(o.r0, str) for o in want):
            self.counts["faults of the interpreter"] += 1
            self.differences.append((f"the interpreter: {want[-1].r0}", record))
            return
        self._compare(record, privilege, skbs, want, engine)
        if not cut_short and self.rng.random() < 0.35:
            self._compare_many("batch", record, privilege, PacketBatch.from_records(records), engine)
        elif not cut_short and self.rng.random() < 0.5:
            self._compare_many(self.rng.choice(("replay", "counted")), record, privilege, written(records), engine)

    def _run(self, engine: Any, record: dict[str, Any], privilege: str, skbs: list[SkBuff]) -> list[Outcome]:
        program = proved_program(record, privilege)
        assert program is not None
        return run_loaded(engine.load, program, skbs)

    def _compare(self, record: dict[str, Any], privilege: str, skbs: list[SkBuff], want: list[Outcome], engine: Any) -> None:
        got = self._run(engine, record, privilege, skbs)
        difference = first_difference(want, got)
        if not difference:
            return
        if privilege == "priv":
            again = self._elsewhere.submit(self._run, engine, record, privilege, skbs).result()
            if again != got or proved_program(record, "capbpf") is None:
                self.counts["results that tell addresses"] += 1
                return
        self.differences.append((f"{'checked' if engine is CHECKED else 'native'}, {privilege}: {difference}", record))

    def _compare_many(self, how: str, record: dict[str, Any], privilege: str, packets: Any, engine: Any) -> None:
        if privilege == "priv":
            return
        self.counts[how] += 1
        outcome = OUTCOMES[how]
        want, got = (outcome(e, record, privilege, packets) for e in (INTERP, engine))
        if want != got:
            which = [i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b]
            self.differences.append((f"{how}, {'checked' if engine is CHECKED else 'native'}: items {which}", record))


def _alarm(signum: int, frame: Any) -> None:
    raise TooLong


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--packets", type=int, default=25)
    p.add_argument("--chains", action="store_true", help="programs that tail calls lead through, no others")
    p.add_argument("--keep", metavar="FILE")
    a = p.parse_args()
    signal.signal(signal.SIGALRM, _alarm)
    ahead.LARGE_BYTES = 0
    fuzz, started = Fuzz(a.seed, a.packets, a.chains), time.monotonic()
    while time.monotonic() - started < a.seconds:
        fuzz.step()
    seconds = time.monotonic() - started
    c = fuzz.counts
    print(f"seed {a.seed}: {c['pairs']} program-input pairs of {c['programs']} programs in {seconds:.0f} s; {dict(c)}")
    for what, record in fuzz.differences[:20]:
        told = record.get("text") or record.get("insns") or f"{len(record['group'])} programs, which --keep keeps"
        print(f"  {what}: {told} {record.get('map_relocs') or ''}")
    if a.keep:
        with open(a.keep, "a") as f:
            f.writelines(json.dumps(record | {"difference": what}) + "\n" for what, record in fuzz.differences)
    print(f"{len(fuzz.differences)} differences")
    return int(bool(fuzz.differences))


if __name__ == "__main__":
    sys.exit(main())
