"""Looking ahead at the keys of the next packets changes nothing that anybody can see."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from support.engines import INTERP
from support.programs_of import loaded_program
from support.replays import replayed

from netbpf.engine.llvm import ahead
from netbpf.engine.llvm.engine import NativeEngine
from netbpf.engine.llvm.module import module
from netbpf.engine.llvm.variant import Variant
from netbpf.packet import stream
from netbpf.packet.pcap import PcapWriter
from netbpf.packet.pcapng import PcapngWriter
from netbpf.packet.record import Record

ROOT = Path(__file__).parent.parent.parent
FLOWS = (ROOT / "benchmarks" / "programs" / "flows.s").read_text()
LRU_FLOWS = FLOWS.replace("flows hash key", "flows lru_hash key")
PER_CPU_FLOWS = FLOWS.replace("flows hash key", "flows percpu_hash key")

LOADED_KEYS = """
    .map big hash key=8 value=8 entries=70000
    .map other hash key=4 value=8 entries=70000
    r6 = r1
    r7 = *(u32 *)(r6 + 16)          ; protocol
    if r7 == 0x608 goto second
    r1 = r6
    r2 = 26
    r3 = r10
    r3 += -8
    r4 = 8
    call bpf_skb_load_bytes
    r1 = map[big]
    goto update
second:
    r0 = *(u32 *)skb[28]
    r0 &= 0xff
    *(u32 *)(r10 - 8) = r0
    r1 = map[other]
    r2 = r10
    r2 += -8
    call bpf_map_delete_elem
    r1 = map[other]
update:
    r2 = r10
    r2 += -8
    *(u64 *)(r10 - 16) = 7
    r3 = r10
    r3 += -16
    r4 = 0
    call bpf_map_update_elem
    r0 = 40
    exit
"""

AFTER_A_STORE = """
    .map seen hash key=4 value=8 entries=70000
    r6 = r1
    *(u32 *)(r6 + 48) = 5           ; cb[0]: what others can see
    r0 = *(u32 *)skb[26]
    *(u32 *)(r10 - 4) = r0
    r1 = map[seen]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r0 = *(u64 *)(r0 + 0)
out:
    exit
"""
PROGRAMS = {
    "flows": FLOWS, "lru": LRU_FLOWS, "per CPU": PER_CPU_FLOWS, "loaded keys": LOADED_KEYS, "after a store": AFTER_A_STORE,
}  # fmt: skip


def frame(rng: random.Random, hosts: int) -> bytes:
    tag = rng.choice((b"", b"", b"", b"\x81\x00\x00\x05"))
    ethertype = rng.choice((b"\x08\x00", b"\x08\x00", b"\x08\x00", b"\x86\xdd", b"\x08\x06"))
    host = rng.randrange(hosts).to_bytes(4, "big")
    ip = bytes([rng.choice((0x45, 0x46)), 0, 0, 60, 0, 1, rng.choice((0x40, 0x20)), rng.choice((0, 9)), 64])
    ip += bytes([rng.choice((1, 6, 17)), 0, 0])
    whole = rng.randbytes(12) + tag + ethertype + ip + b"\x0a\0\0\1" + host + bytes([0, 53, 1, 187]) + bytes(40)
    return whole[: rng.choice((len(whole), len(whole), len(whole), 13, 19, 33, 40))]


def capture(rng: random.Random, kind: str, packets: int, hosts: int) -> bytes:
    out = io.BytesIO()
    with (PcapngWriter if kind == "pcapng" else PcapWriter)(out) as writer:
        for n in range(1, packets + 1):
            data = frame(rng, hosts)
            writer.write(Record(n, 1_700_000_000_000_000_000 + n * 10_000_000, len(data), data, 1, 0, 0))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_changes(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "LARGE_BYTES", 1)  # look ahead as soon as there is anything
    monkeypatch.setattr(stream, "PIECE_BYTES", 5000)
    data = capture(random.Random(name), kind, 700, 90)
    assert replayed(NativeEngine(use_cache=False), PROGRAMS[name], data) == replayed(INTERP, PROGRAMS[name], data)


def test_a_table_that_grows_large_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PIECE_BYTES", 1 << 16)
    data = capture(random.Random(4), "pcap", 25_000, 1 << 20)
    assert replayed(NativeEngine(use_cache=False), FLOWS, data) == replayed(INTERP, FLOWS, data)


@pytest.mark.parametrize(("text", "kind", "looks"), [
    (FLOWS, "pcap", True), (LRU_FLOWS, "pcapng", True), (FLOWS, "columns", False), (FLOWS, "ring", False),
    (FLOWS.replace("entries=65536", "entries=1024"), "pcap", False),
])  # fmt: skip
def test_only_large_tables_of_windows_are_looked_up_ahead(text: str, kind: str, looks: bool) -> None:
    for results in (False, True):  # in lots, and where each packet's verdict is told
        made = module(loaded_program(text), Variant(kind, results=results)).text
        assert (("@ahead(" if results else "@drain(") in made) == looks
