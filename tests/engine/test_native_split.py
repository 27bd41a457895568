"""A program that is split at its first look-up, its beginning run ahead, does what the interpreter does: packet by packet, in
what is written, counted and kept in maps."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any, Literal

import pytest
from support.engines import INTERP
from support.programs_of import loaded_program
from support.replays import walk_windows
from support.split_cases import CUTS, HEAD, LOOK_UP, PROGRAMS
from support.split_programs import random_split

import netbpf.engine.llvm.windows as windows_module
from netbpf.engine.llvm import ahead
from netbpf.engine.llvm.engine import NativeEngine
from netbpf.engine.llvm.halves import SecondHalf
from netbpf.engine.llvm.lowerer import Lowerer
from netbpf.engine.llvm.module import module
from netbpf.engine.llvm.split import Cut, Split
from netbpf.engine.llvm.variant import Variant
from netbpf.engine.results import Totals, Verdicts
from netbpf.env import SteppedEnv
from netbpf.packet import stream
from netbpf.packet.open import open_capture
from netbpf.packet.pcap import PcapWriter
from netbpf.packet.pcapng import PcapngWriter
from netbpf.packet.record import Record
from netbpf.replay.core import Replay
from netbpf.replay.output import CaptureOutput

KINDS = ("pcap little", "pcap big", "pcapng little", "pcapng big")


@pytest.fixture(autouse=True)
def ahead_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "LARGE_BYTES", 0)


def frame(rng: random.Random, shortest: int) -> bytes:
    ethertype = rng.choice((b"\x08\x00", b"\x08\x00", b"\x81\x00\x00\x05\x08\x00", b"\x88\xa8\x20\x07\x86\xdd", b"\x00\x20"))
    first = rng.choice((b"\xff" * 6, b"\x01\x00\x5e\x00\x00\x01", b"\x02\x00\x00\x00\x00\x01"))
    whole = first + rng.randbytes(6) + ethertype + rng.randbytes(60)
    return whole[: rng.choice((80, 80, 80, 80, 80, 34, 26, shortest))]


def capture(rng: random.Random, kind: str, packets: int, shortest: int = 14) -> bytes:
    """Frames, some of them tagged, cut, or too short for native code; ticks of the clock between them."""
    form = PcapngWriter if kind.startswith("pcapng") else PcapWriter
    byteorder: Literal["little", "big"] = "little" if kind.endswith("little") else "big"
    out, now = io.BytesIO(), 1_700_000_000_000_000_000
    with form(out, byteorder=byteorder) as writer:
        for n in range(1, packets + 1):
            data = frame(rng, shortest)
            now += rng.choice((1_000_000, 1_000_000, 90_000_000))
            writer.write(Record(n, now, len(data) + rng.choice((0, 0, 9)), data, 1, rng.randrange(3), rng.randrange(3)))
    return out.getvalue()


def replayed(engine: Any, text: str, data: bytes, written_as: str, stop_after: int | None = None) -> tuple[Any, ...]:
    """Totals, intervals, maps, the clock and random numbers, and every accepted packet as it was cut; without output as well, as
    programs may be run in lots then."""
    whole = []
    for output in (CaptureOutput(f"out.{written_as}"), None):
        program, env, written = loaded_program(text), SteppedEnv(), io.BytesIO()
        replay = Replay(engine.load(program, env), {m.spec.name: m for m in program.maps}, output=output, limit=stop_after)
        with open_capture(io.BytesIO(data)) as reader:
            if output:
                output.writer = PcapngWriter(written) if written_as == "pcapng" else PcapWriter(written)
            intervals = list(replay.run(reader))
        maps = [bytes(m.memory) for m in program.maps]
        whole.append((replay.totals, intervals, maps, written.getvalue(), env.now_ns, env.rng_state))
    return tuple(whole)


def split_of(text: str) -> Split:
    program = loaded_program(text)
    lowerer = Lowerer(program, "pcap", checked=False, calls_back=False)
    return SecondHalf(lowerer, tuple(range(len(program.maps)))).split


@pytest.mark.parametrize("kind", ["pcap little", "pcapng big"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PIECE_BYTES", 5000)
    data, text = capture(random.Random(name), kind, 400), PROGRAMS[name]
    assert replayed(NativeEngine(use_cache=False), text, data, "pcap") == replayed(INTERP, text, data, "pcap")


@pytest.mark.parametrize(("name", "cuts"), CUTS.items())
def test_where_programs_are_split(name: str, cuts: int) -> None:
    assert len(split_of(PROGRAMS[name]).cuts) == cuts


@pytest.mark.parametrize("seed", range(16))
def test_random_programs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PIECE_BYTES", 5000)
    rng = random.Random(seed)
    text, data, written_as = random_split(rng), capture(rng, rng.choice(KINDS), 200), rng.choice(("pcap", "pcapng"))
    assert replayed(NativeEngine(use_cache=False), text, data, written_as) == replayed(INTERP, text, data, written_as)


@pytest.mark.parametrize("packets", [1, 31, 32, 33, 50, 64])
def test_a_limit_within_a_lot(packets: int) -> None:
    data, text = capture(random.Random(packets), "pcap little", 200), PROGRAMS["look-ups at several places"]
    engine = NativeEngine(use_cache=False)
    assert replayed(engine, text, data, "pcap", packets) == replayed(INTERP, text, data, "pcap", packets)


@pytest.mark.parametrize("name", ["one key again and again", "look-ups at several places", "the context before and behind"])
def test_every_verdict(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module._Columns, "rows", 50)
    data = capture(random.Random(3), "pcap little", 300, shortest=20)
    got, want, totals = Verdicts(), Verdicts(), Totals()
    loaded = NativeEngine(use_cache=False).load(loaded_program(PROGRAMS[name]), SteppedEnv())
    walk_windows(loaded, data, totals, got)
    with open_capture(io.BytesIO(data)) as reader:
        for batch in reader.batches():
            want = INTERP.load(loaded_program(PROGRAMS[name]), SteppedEnv()).run(batch)
    assert (got.verdict, got.kept, got.trimmed) == (want.verdict, want.kept, want.trimmed)


def test_sharded_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    data, text = capture(random.Random(6), "pcap little", 400, shortest=20), PROGRAMS["look-ups at several places"]

    def walked(shard: int) -> tuple[Totals, bytes]:
        program, totals = loaded_program(text), Totals()
        loaded = NativeEngine(use_cache=False).load(program, SteppedEnv())
        loaded.shard, loaded.shards = shard, 3
        walk_windows(loaded, data, totals)
        return totals, bytes(program.maps[0].memory)

    split = [walked(shard) for shard in range(3)]
    monkeypatch.setattr(ahead, "LARGE_BYTES", 1 << 40)  # whole programs
    assert split == [walked(shard) for shard in range(3)]
    assert sum(totals.packets for totals, _ in split) == 400


def test_what_a_flow_counter_carries_over() -> None:
    """The length in R8, and the key."""
    split = split_of((Path(__file__).parent.parent.parent / "benchmarks" / "programs" / "flows.s").read_text())
    assert list(split.cuts.values()) == [Cut({}, (8,), ((-16, 16),))]
    assert split.verdict == 0


@pytest.mark.parametrize(("ends", "verdict"), [
    ("r0 = 5\n exit", 5), ("r0 = -1\n exit", 0xFFFF_FFFF), ("r0 = 5\n if r7 & 2 goto e\n r0 = 6\n e:\n exit", None),
    ("r0 = r7\n exit", None), ("r0 = *(u8 *)skb[60]\n r0 = 5\n exit", None), ("r0 = *(u8 *)skb[60]\n r0 = 0\n exit", 0),
])  # fmt: skip
def test_the_verdict_of_programs_that_end_early(ends: str, verdict: int | None) -> None:
    text = f"{HEAD} r7 = *(u32 *)(r6 + 0)\n if r7 & 1 goto on\n {ends}\non:\n *(u64 *)(r10 - 8) = 0\n{LOOK_UP} r0 = 1\n exit"
    assert split_of(text).verdict == verdict
    data = capture(random.Random(7), "pcap little", 100, shortest=20)
    assert replayed(NativeEngine(use_cache=False), text, data, "pcap") == replayed(INTERP, text, data, "pcap")


IN_LOTS = {  # whether what comes behind the look-up does without the packet
    "one key again and again": True,
    "look-ups at several places": True,
    "the context before and behind": False,
    "what packets before left in the context": False,
    "what cannot be carried over": False,
    "a loop first": True,
    "stack that was never written": True,
    "time and numbers first": False,
}


@pytest.mark.parametrize(("name", "is_in_lots"), IN_LOTS.items())
def test_which_programs_run_in_lots(name: str, is_in_lots: bool) -> None:
    text = PROGRAMS[name]
    assert ("@drain(" in module(loaded_program(text), Variant("pcap")).text) == is_in_lots
    for more in ({"results": True}, {"output": "pcap"}):
        assert "@drain(" not in module(loaded_program(text), Variant("pcap", **more)).text


@pytest.mark.parametrize("packets", [1, 31, 32, 33, 63, 64, 65, 96, 97, 130])
def test_captures_that_end_within_a_lot(packets: int) -> None:
    text = PROGRAMS["one key again and again"]
    for kind in ("pcap little", "pcapng big"):
        data = capture(random.Random(packets), kind, packets, shortest=40)
        assert replayed(NativeEngine(use_cache=False), text, data, "pcap") == replayed(INTERP, text, data, "pcap")
