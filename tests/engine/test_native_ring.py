"""Blocks of a ring walked by native code: what the reference engine says of each packet's rebuilt sk_buff."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packet_grid import FILTERS, MAC, capture_frames, own_frames
from support.ring_blocks import BuiltBlock

from netbpf.engine.choose import get_engine, native_obstacle
from netbpf.engine.results import Totals, Verdicts
from netbpf.env import SteppedEnv
from netbpf.host.live_program import LiveProgram
from netbpf.packet.device import Device
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.ring import ring_packets
from netbpf.packet.skbuff import SkBuff
from netbpf.packet.socket_skb import of_packet_socket
from netbpf.program import ProgramSpec
from netbpf.replay.snapshot import entries
from netbpf.sources.load import parse_program, read_program

pytestmark = pytest.mark.skipif(bool(native_obstacle()), reason=native_obstacle() or "native code runs here")
NEVER = (1 << 64) - 1
FRAMES = [*own_frames().values(), *capture_frames(20).values()]
RECEIVED = [skb for f in FRAMES if (skb := receive(Record(1, 0, len(f), f), Device(MAC, 7, 0))) is not None]
OUTGOING = [
    replace(skb, pkt_type=4, ingress_ifindex=0, head=f, len=len(f), vlan_present=0, protocol=int.from_bytes(f[12:14]))
    for f, skb in ((f, RECEIVED[0]) for f in FRAMES if len(f) >= 14)
]
MORE = {
    "ifindex": "r0 = *(u32 *)(r1 + 40)\nexit\n",
    "ingress": "r0 = *(u32 *)(r1 + 36)\nr0 += 1\nexit\n",
    "clock": "call bpf_ktime_get_ns\nexit\n",
    "relative": "r2 = 0\nr3 = r10\nr3 += -8\nr4 = 4\nr5 = 1\n*(u64 *)(r10 - 8) = r2\ncall bpf_skb_load_bytes_relative\n"
    "r0 = *(u32 *)(r10 - 8)\nexit\n",
    "bytes": "r2 = 12\nr3 = r10\nr3 += -8\nr4 = 4\n*(u64 *)(r10 - 8) = r2\ncall bpf_skb_load_bytes\n"
    "r0 = *(u32 *)(r10 - 8)\nexit\n",
    "mac by index": "r6 = r1\nr7 = *(u32 *)(r1 + 0)\nr7 &= 15\nr0 = *(u8 *)skb[r7 + 0]\nexit\n",
}
PROGRAMS = {**{n: ProgramSpec(p) for n, p in FILTERS.items()}, **{n: parse_program(t.encode(), "p.s") for n, t in MORE.items()}}


def walk(spec: ProgramSpec, block: BuiltBlock, *, pieces: int = 1 << 30) -> tuple[list[int], Totals, LiveProgram]:
    live = LiveProgram(spec, get_engine("native"), SteppedEnv())
    live.loaded.device = Device(queue_mapping=0)  # type: ignore[attr-defined]
    totals, verdicts, n = Totals(), array("I"), block.left
    while block.left:
        most = min(pieces, block.left)
        out = Verdicts()
        live.loaded.walk(block, totals, stop_ns=NEVER, max_packets=most, verdicts=out)  # type: ignore[attr-defined]
        verdicts += out.verdict
    assert totals.packets == n
    return list(verdicts), totals, live


def reference(spec: ProgramSpec, block: BuiltBlock, offset_ns: int = 0) -> tuple[list[int], LiveProgram]:
    env = SteppedEnv()
    live, out = LiveProgram(spec, get_engine("interp"), env), []
    for packet in ring_packets(memoryview(block.buffer), block.start, block.left):
        env.set_time(packet.ts_ns + offset_ns)
        out.append(live.verdict(of_packet_socket(packet.data, packet.aux, packet.address, has_link_header=True)))
    return out, live


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_on_every_packet(name: str) -> None:
    spec, skbs = PROGRAMS[name], [*RECEIVED, *OUTGOING]
    expected, _ = reference(spec, BuiltBlock(skbs), 5)
    for pieces in (1 << 30, 7):
        got, totals, _ = walk(spec, BuiltBlock(skbs, clock_offset_ns=5), pieces=pieces)
        wrong = [(i, skbs[i].head[:20].hex(), a, b) for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b]
        assert not wrong, wrong[:5]
        assert totals.accepted == sum(map(bool, expected))
        assert totals.bytes == sum(s.len + 4 * s.vlan_present for s in skbs)


def test_maps_count_alike() -> None:
    spec = read_program("scenarios/counting.s")
    _, totals, native = walk(spec, BuiltBlock(RECEIVED))
    _, interp = reference(spec, BuiltBlock(RECEIVED))
    assert sorted(entries(native.maps["counts"])) == sorted(entries(interp.maps["counts"]))
    assert totals.dropped == len(RECEIVED)
    assert totals.last_ns == (len(RECEIVED) - 1) * (10**9 + 1)


def test_a_negative_clock_offset() -> None:
    spec = PROGRAMS["clock"]
    got, _, _ = walk(spec, BuiltBlock(RECEIVED[:9], clock_offset_ns=-3))
    assert got == reference(spec, BuiltBlock(RECEIVED[:9]), -3)[0]


def test_an_empty_block() -> None:
    assert walk(PROGRAMS["keep"], BuiltBlock([]))[1] == Totals()


ROW = st.tuples(st.binary(min_size=14, max_size=80), st.integers(0, 6), st.booleans(), st.integers(0, 0xFFFF))
LOOKING = ("word 30", "vlan_tci", "vlan_proto", "skb->len", "half 12", "net byte 9", "ll byte 5", "protocol", "bytes")


@settings(deadline=None, max_examples=30)
@given(st.lists(ROW, max_size=12))
def test_any_packets(rows: list[tuple[bytes, int, bool, int]]) -> None:
    """Whatever the bytes are, tagged or not: lengths, tags and loads come out as from the reference."""
    skbs = []
    for data, kind, tag, tci in rows:
        skb = SkBuff(data, len(data) + (7 if kind == 5 else 0), protocol=tci, pkt_type=kind, ifindex=3)
        skb.vlan_present, skb.vlan_tci, skb.vlan_proto = int(tag), tci * tag, 0x88A8 * tag
        skbs.append(skb)
    for name in LOOKING:
        assert walk(PROGRAMS[name], BuiltBlock(skbs))[0] == reference(PROGRAMS[name], BuiltBlock(skbs))[0], name
