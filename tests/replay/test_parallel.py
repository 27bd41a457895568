"""A replay on several cores gives what one core gives, to the bit: counts, intervals, the bytes of maps, the clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from support.programs_of import loaded_spec
from support.vectors import ROOT

from netbpf.cli.main import main
from netbpf.engine.llvm.engine import NativeEngine
from netbpf.env import SteppedEnv
from netbpf.packet import boundary, stream
from netbpf.packet.open import create_capture, open_capture
from netbpf.packet.record import Record
from netbpf.program import ProgramSpec
from netbpf.replay import parallel
from netbpf.replay.core import Replay
from netbpf.sources.asm import parse
from netbpf.sources.load import read_program

COUNTING = read_program(str(ROOT / "scenarios" / "counting.s"))
FLOWS = read_program(str(ROOT / "benchmarks" / "programs" / "flows.s"))
VERDICTS = parse("r6 = r1\nr0 = *(u16 *)skb[12]\nr0 &= 127\nexit\n")
# first the packets of every EtherType on a per-CPU array, and a table that is soon full
SMALL = parse("""
.map full hash key=4 value=8 entries=5
.map sizes percpu_array key=4 value=8 entries=4
    r6 = r1
    r0 = *(u8 *)skb[5]
    r0 &= 7
    *(u32 *)(r10 - 4) = r0
    r7 = *(u32 *)(r6 + 0)
    r1 = map[sizes]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto table
    lock *(u64 *)(r0 + 0) += r7
table:
    r1 = map[full]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto new
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    goto out
new:
    *(u64 *)(r10 - 16) = 1
    r1 = map[full]
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -16
    r4 = 0
    call bpf_map_update_elem
out:
    r0 = 0
    exit
""")
PROGRAMS = {"counting": COUNTING, "flows": FLOWS, "verdicts": VERDICTS, "small": SMALL}
CAPTURES = sorted(p for p in (ROOT / "pcaps").iterdir() if p.suffix in (".pcap", ".pcapng") and p.stat().st_size > 4096)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
    monkeypatch.setattr(stream, "MAPPED_FROM_BYTES", 1)
    monkeypatch.setattr(parallel, "CHUNK", 2048)
    monkeypatch.setattr(boundary, "REACH", 4096)


def replayed(spec: ProgramSpec, path: Path, make: Callable[..., Replay]) -> tuple[Any, ...]:
    program, env = loaded_spec(spec), SteppedEnv()
    maps: Any = {m.spec.name: m for m in program.maps}
    replay = make(NativeEngine().load(program, env), maps, interval_ns=300_000_000)
    intervals, damage = [], ""
    try:
        with open_capture(path) as reader:
            intervals += [astuple(i) for i in replay.run(reader)]
    except Exception as e:
        damage = str(e)
    return astuple(replay.totals), intervals, [bytes(m.memory) for m in program.maps], env.now_ns, damage, replay


def agree(spec: ProgramSpec, path: Path, jobs: int = 2) -> parallel.ParallelReplay:
    *want, _ = replayed(spec, path, Replay)
    *got, replay = replayed(spec, path, lambda *a, **k: parallel.ParallelReplay(*a, jobs=jobs, **k))
    assert got == want
    assert isinstance(replay, parallel.ParallelReplay)
    assert not replay.in_order_because
    return replay


@pytest.mark.parametrize("name", sorted(PROGRAMS))
@pytest.mark.parametrize("path", CAPTURES, ids=lambda p: p.name)
def test_captures(path: Path, name: str) -> None:
    agree(PROGRAMS[name], path)


def records(count: int, *, seed: int = 1, back: bool = False, inside: bool = False) -> list[Record]:
    """Packets whose time may go back, or that hold what looks like records of a capture."""
    rng, out, at = random.Random(seed), [], 1_700_000_000_000_000_000
    fake = (1_700_000_000).to_bytes(4, "little") + bytes(4) + (24).to_bytes(4, "little") * 2 + bytes(24)
    for n in range(1, count):
        at += rng.choice((1_000_000, 90_000_000)) * (-5 if back and rng.random() < 0.1 else 1)
        data = rng.randbytes(14) + (fake * 30 + bytes([255] * 7) if inside else rng.randbytes(rng.randrange(20, 200)))
        out.append(Record(n, at, len(data), data))
    return out


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
@pytest.mark.parametrize("kind", ["plain", "back", "inside"])
def test_what_only_order_can_tell(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"trace.{suffix}"
    with create_capture(path) as out:
        for record in records(400, back=kind == "back", inside=kind == "inside"):
            out.write(record)
    for spec in (FLOWS, SMALL):
        replay = agree(spec, path, jobs=3)
        if kind == "back" or (kind == "inside" and suffix == "pcap"):
            assert replay.chunks_again
        elif spec is FLOWS:
            assert replay.chunks_again < 4


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
@pytest.mark.parametrize("step", [700, 5000])
def test_chunks_that_are_mapped_step_by_step(step: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "CHUNK", 20_000)
    monkeypatch.setattr(parallel, "STEP", step)
    path = tmp_path / f"trace.{suffix}"
    with create_capture(path) as out:
        for record in records(900):
            out.write(record)
    assert not agree(FLOWS, path).chunks_again
    agree(SMALL, path)


@pytest.mark.parametrize(("size", "jobs", "chunks"), [
    (1, 2, 1), (2, 2, 2), (3, 2, 3), (9, 2, 4), (32, 2, 4), (33, 2, 6), (1000, 3, 126),
])  # fmt: skip
def test_as_many_chunks_for_each_job(size: int, jobs: int, chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A size in units of the smallest, of which the largest is 8."""
    monkeypatch.setattr(parallel, "CHUNK", 1 << 20)
    monkeypatch.setattr(parallel, "LARGEST_CHUNK", 8 << 20)
    assert -(-(size << 20) // parallel._chunk_bytes(size << 20, jobs)) == chunks


def test_the_command_says_why_it_runs_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "random.s"
    program.write_text("call bpf_get_prandom_u32\nexit\n")
    words = ["replay", str(ROOT / "pcaps" / "session.pcap"), "--prog", str(program), "--json"]
    told = []
    for jobs in ("1", "2"):
        assert main([*words, "--jobs", jobs]) == 0
        out = capsys.readouterr()
        told.append(out.out.partition('"seconds"')[0])
        assert ("in order, on one core: insn 0 calls bpf_get_prandom_u32" in out.err) == (jobs == "2")
    assert told[0] == told[1]
