"""``replay --shard flow``: what is kept within a flow, what is lost across flows, and what is said of it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from support.programs_of import loaded_spec
from support.vectors import ROOT

from netbpf.cli.main import main
from netbpf.engine.commute import Commutes
from netbpf.engine.llvm.engine import NativeEngine
from netbpf.engine.llvm.flows import Flows
from netbpf.env import SteppedEnv
from netbpf.packet import stream
from netbpf.packet.open import open_capture
from netbpf.program import ProgramSpec
from netbpf.replay import sharded
from netbpf.replay.core import Replay
from netbpf.replay.snapshot import entries
from netbpf.sources.asm import parse

TEXT = (ROOT / "benchmarks" / "programs" / "flows.s").read_text()
# when a flow was seen last, and its longest gap, which also is the verdict: state that only order within the flow makes right
LAST_SEEN = TEXT.replace(
    """    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    lock *(u64 *)(r0 + 8) += r8
    r0 = 0
    exit
""",
    """    r9 = r0
    call bpf_ktime_get_ns
    r1 = *(u64 *)(r9 + 0)
    *(u64 *)(r9 + 0) = r0
    r0 -= r1
    r1 = *(u64 *)(r9 + 8)
    if r1 > r0 goto short
    *(u64 *)(r9 + 8) = r0
short:
    r0 &= 0xff
    exit
""",
).replace("    r1 = 1\n    *(u64 *)(r10 - 32) = r1\n", "    r8 = 0\n    call bpf_ktime_get_ns\n    *(u64 *)(r10 - 32) = r0\n")
# the number of packets so far decides every verdict
EVERY_SECOND = """
.map seen array key=4 value=8 entries=1
    *(u32 *)(r10 - 4) = 0
    r1 = map[seen]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = *(u64 *)(r0 + 0)
    r1 += 1
    *(u64 *)(r0 + 0) = r1
    r1 &= 1
    r0 = r1
    exit
out:
    r0 = 0
    exit
"""
CAPTURES = sorted(p for p in (ROOT / "pcaps").iterdir() if ".pcap" in p.name)


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))


def replayed(spec: ProgramSpec, path: Path, jobs: int) -> tuple[Any, Replay]:
    """(totals, entries of each map, the clock, what was wrong with the capture)."""
    program, env = loaded_spec(spec), SteppedEnv()
    maps: Any = {m.spec.name: m for m in program.maps}
    loaded = NativeEngine().load(program, env)
    replay = sharded.ShardedReplay(loaded, maps, jobs=jobs) if jobs > 1 else Replay(loaded, maps)
    if isinstance(replay, sharded.ShardedReplay):
        replay.reopen = lambda: open_capture(path)
    damage = ""
    try:
        with open_capture(path) as reader:
            for _ in replay.run(reader):
                pass
    except Exception as e:
        damage = str(e)
    return (replay.totals, {n: sorted(entries(m)) for n, m in maps.items()}, env.now_ns, damage), replay


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("name", ["flows", "last_seen"])
@pytest.mark.parametrize("path", CAPTURES, ids=lambda p: p.name)
def test_maps_keyed_by_flow_are_those_of_one_core(path: Path, name: str, mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if mapped:
        monkeypatch.setattr(stream, "MAPPED_FROM_BYTES", 1)
    if name == "flows":  # which would not need it
        monkeypatch.setattr(sharded, "commutes", lambda program: Commutes(reason="not asked"))
    spec = parse(TEXT if name == "flows" else LAST_SEEN)
    want, _ = replayed(spec, path, 1)
    got, replay = replayed(spec, path, 2)
    assert isinstance(replay, sharded.ShardedReplay)
    assert replay.sharded == sharded.Merged()
    assert got[:2] + got[3:] == want[:2] + want[3:]


def test_a_count_across_flows_is_that_of_one_core_alone() -> None:
    path = ROOT / "pcaps" / "many-sources.pcap"
    want, _ = replayed(parse(EVERY_SECOND), path, 1)
    got, replay = replayed(parse(EVERY_SECOND), path, 2)
    assert got[0].packets == want[0].packets
    assert isinstance(replay, sharded.ShardedReplay)
    assert replay.sharded == sharded.Merged(contested=1)
    (_, value), (_, whole) = got[1]["seen"][0], want[1]["seen"][0]
    assert 0 < int.from_bytes(value, "little") < int.from_bytes(whole, "little") == want[0].packets


def test_a_proof_needs_no_sharding() -> None:
    want, _ = replayed(parse(TEXT), ROOT / "pcaps" / "session.pcap", 1)
    got, replay = replayed(parse(TEXT), ROOT / "pcaps" / "session.pcap", 2)
    assert isinstance(replay, sharded.ShardedReplay)
    assert replay.sharded is None
    assert got == want


def ip4(one: bytes, other: bytes, ports: bytes, *, fragment: int = 0, tags: int = 0, protocol: int = 17) -> bytes:
    header = bytes([0x45, 0, 0, 28, 0, 0]) + fragment.to_bytes(2, "big") + bytes([64, protocol, 0, 0]) + one + other
    return bytes(12) + b"\x81\x00\x00\x05" * tags + b"\x08\x00" + header + ports + bytes(4)


def test_both_directions_tags_and_fragments() -> None:
    flows, rng = Flows(use_cache=False), random.Random(1)
    seen = set()
    for _ in range(200):
        one, other, here, there = (rng.randbytes(n) for n in (4, 4, 2, 2))
        number = flows(ip4(one, other, here + there), 1)
        seen.add(number % 2)
        assert number == flows(ip4(other, one, there + here), 1) == flows(ip4(one, other, here + there, tags=2), 1)
        assert number != flows(ip4(one, other, there + here), 1)
        first = flows(ip4(one, other, here + there, fragment=0x2000), 1)
        assert first == flows(ip4(other, one, rng.randbytes(4), fragment=0x00B9), 1) != number
        assert number == flows(ip4(one, other, here + there)[14:], 101)
        frame = rng.randbytes(12) + b"\x08\x06" + rng.randbytes(28)
        assert flows(frame, 1) == flows(frame[6:12] + frame[:6] + frame[12:14] + rng.randbytes(9), 1)
    assert seen == {0, 1}


@pytest.mark.parametrize("linktype", [0, 1, 101, 113, 276, 147])
def test_no_packet_is_too_short_or_too_odd(linktype: int) -> None:
    flows, rng = Flows(use_cache=False), random.Random(linktype)
    for _ in range(3000):
        data = bytearray(rng.randbytes(rng.randrange(90)))
        if len(data) > 20 and rng.random() < 0.7:
            data[12:15] = rng.choice((b"\x08\x00\x4f", b"\x86\xdd\x60", b"\x81\x00\x00", b"\x88\xa8\x00"))
        flows(bytes(data), linktype)


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "second.s"
    program.write_text(EVERY_SECOND)
    words = ["replay", str(ROOT / "pcaps" / "many-sources.pcap"), "--prog", str(program)]
    assert main([*words, "--shard", "flow"]) == 64
    assert "--jobs" in capsys.readouterr().err
    assert main([*words, "--shard", "flow", "--jobs", "2"]) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "sharded by flow on 2 cores" in err
    assert "several cores changed: 1" in err
    assert main([*words, "--shard", "flow", "--jobs", "2", "-c", "3"]) == 0
    assert "in order, on one core: the first packets" in capsys.readouterr().err


def test_a_queue_is_not_taken_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "queue.s"
    program.write_text(
        ".map q queue value=8 entries=9\n*(u64 *)(r10 - 8) = 7\nr1 = map[q]\nr2 = r10\nr2 += -8\nr3 = 0\n"
        "call bpf_map_push_elem\nr0 = 0\nexit\n"
    )
    words = ["replay", str(ROOT / "pcaps" / "session.pcap"), "--prog", str(program), "--jobs", "2", "--shard", "flow"]
    assert main(words) == 0
    assert "only arrays and hashes are sharded" in capsys.readouterr().err
