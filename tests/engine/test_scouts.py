"""Walking ahead of the packet loop: it finds records where there are some, reads nothing outside the window, changes nothing."""

from __future__ import annotations

import ctypes
import io
import mmap
import random
import struct
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engines import INTERP
from support.replays import replayed

from netbpf.engine.llvm import scouting
from netbpf.engine.llvm.compile import compile_object
from netbpf.engine.llvm.engine import NativeEngine
from netbpf.engine.llvm.ir import INTRINSICS
from netbpf.engine.llvm.kernels import scouts
from netbpf.engine.llvm.objfile import MappedCode
from netbpf.engine.llvm.scouted import emit_scouts
from netbpf.engine.llvm.variant import Variant
from netbpf.packet.pcap import PcapWriter
from netbpf.packet.pcapng import PcapngWriter
from netbpf.packet.record import Record

FUNCTIONS = {"begin": "preserve_mostcc ", "turn": "preserve_mostcc ", "step": ""}
START_NS = 1_700_000_000_000_000_000
LIBC = ctypes.CDLL(None)
PROT_NONE = 0
LENGTHS = """
    .map bytes array key=4 value=8 entries=4
    r6 = r1
    r0 = *(u8 *)skb[40]
    r0 &= 3
    *(u32 *)(r10 - 4) = r0
    r1 = map[bytes]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = *(u32 *)(r6 + 0)
    lock *(u64 *)(r0 + 0) += r1
out:
    r0 = 70
    exit
"""


class Scouts:
    """Their functions on a window that ends where memory ends: a read beyond it is a crash."""

    def __init__(self, variant: Variant, window: bytes, chains: int = scouts.CHAINS) -> None:
        self.n_chains = chains
        wrappers = "\n".join(
            f"define i64 @{name}(i64 %s) {{\n  %r = call {how}i64 @{name}.scouts(i64 %s)\n  ret i64 %r\n}}"
            for name, how in FUNCTIONS.items()
        )
        self.code = MappedCode(compile_object("\n".join([INTRINSICS, emit_scouts(variant, chains), wrappers])))
        page = mmap.PAGESIZE
        size = -(-len(window) // page) * page
        self.memory = mmap.mmap(-1, size + page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        assert LIBC.mprotect(ctypes.c_void_p(start + size), ctypes.c_size_t(page), PROT_NONE) == 0
        self.memory[size - len(window) : size] = window
        self.at = start + size - len(window)
        self.state = (ctypes.c_uint64 * (scouts.STATE_BYTES // 8))()
        self.state[scouts.END >> 3] = start + size

    def call(self, name: str, at: int, packets: int = 0) -> int:
        self.state[scouts.AT >> 3], self.state[scouts.PACKETS >> 3] = self.at + at, packets
        return int(ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(self.code.functions[name])(ctypes.addressof(self.state)))

    def chain(self, k: int) -> int:
        """Where in the window a chain is."""
        return int(self.state[k]) - self.at

    def next_segment(self) -> int:
        return int(self.state[scouts.NEXT >> 3]) - self.at

    def asks(self, at: int) -> bool:
        """Whether the loop tells where it is when it comes to ``at``."""
        return self.at + at >= int(self.state[scouts.ASK_AT >> 3])

    def step(self, at: int) -> int:
        """A step of the chain whose turn it is, and where it is then."""
        k = int(self.state[scouts.TURN >> 3]) >> 3
        self.call("step", at)
        return self.chain(k)


def records(rng: random.Random, size: int, order: str, swapped: bool = False, header: int = 16) -> tuple[bytes, set[int]]:
    """Pcap records of 64 to 1514 bytes until there are ``size`` bytes of them, and where they begin."""
    out, begins = bytearray(), set()
    while len(out) < size:
        begins.add(len(out))
        caplen = rng.randrange(64, 1515)
        lengths = (caplen + 4, caplen) if swapped else (caplen, caplen + 4)
        second, fraction = divmod(len(out) * 100, 1_000_000)
        out += struct.pack(order + "IIII", 1_700_000_000 + second, fraction, *lengths)
        out += bytes(header - 16) + rng.randbytes(caplen)
    return bytes(out), begins


def blocks(rng: random.Random, size: int, order: str) -> tuple[bytes, set[int]]:
    """The same as enhanced packet blocks."""
    out, begins = bytearray(), set()
    while len(out) < size:
        begins.add(len(out))
        caplen = rng.randrange(64, 1515)
        total = 32 + (caplen + 3 & ~3)
        out += struct.pack(order + "7I", 6, total, 0, 0x60000, len(out), caplen, caplen)
        out += rng.randbytes(caplen).ljust(total - 32, b"\0") + struct.pack(order + "I", total)
    return bytes(out), begins


pcap, pcapng = (partial(Variant, kind, scouted=True) for kind in ("pcap", "pcapng"))
WINDOWS = {
    "little": (pcap(), lambda rng: records(rng, 5 << 20, "<")),
    "big": (pcap(big_endian=True), lambda rng: records(rng, 5 << 20, ">")),
    "modified": (pcap(header_bytes=24), lambda rng: records(rng, 5 << 20, "<", header=24)),
    "lengths exchanged": (pcap(wirelen_first=True), lambda rng: records(rng, 5 << 20, "<", swapped=True)),
    "pcapng": (pcapng(), lambda rng: blocks(rng, 5 << 20, "<")),
    "pcapng, big": (pcapng(big_endian=True), lambda rng: blocks(rng, 5 << 20, ">")),
}


@pytest.mark.parametrize("chains", [scouts.CHAINS, scouts.FEW_CHAINS])
@pytest.mark.parametrize("name", WINDOWS)
def test_records_are_met_before_the_loop_comes_to_them(name: str, chains: int) -> None:
    variant, make = WINDOWS[name]
    data, begins = make(random.Random(name))
    block_bytes = chains * scouts.SEGMENT
    s = Scouts(variant, data, chains)
    assert s.call("begin", 0) == 1
    met, order = {s.chain(k): 0 for k in range(chains)}, sorted(begins)
    for n, at in enumerate(order):
        if s.asks(at):
            assert s.call("turn", at, n) == 1
            assert min(at + block_bytes, len(data) - scouts.SLACK) <= s.next_segment() <= at + 2 * block_bytes + scouts.SEGMENT
        met.setdefault(s.step(at), n)
    ends = {int(until) - s.at for until in s.state[scouts.UNTIL >> 3 : (scouts.UNTIL >> 3) + chains]}
    assert set(met) <= begins | ends | {max(met)}
    later = [(n, at) for n, at in enumerate(order) if at >= 2 * block_bytes]  # what is before, ``begin`` has met
    in_time = [n - met[at] for n, at in later if met.get(at, n) < n]
    assert len(in_time) > 0.97 * len(later)
    assert sum(in_time) / len(in_time) < 0.9 * block_bytes / (len(data) / len(begins))


def test_python_and_native_code_agree_on_what_is_large() -> None:
    assert (scouting.LARGE, scouting.SAMPLE) == (scouts.LARGE, scouts.SAMPLE)


def test_small_records_are_left_alone() -> None:
    data = struct.pack("<IIII", 1_700_000_000, 5, 64, 64) + bytes(64)
    assert Scouts(pcap(), data * (3 * scouts.BLOCK // 80)).call("begin", 0) == 0


def test_records_become_small() -> None:
    data, begins = records(random.Random(3), 4 << 20, "<")
    s = Scouts(pcap(), data)
    assert s.call("begin", 0) == 1
    assert s.call("turn", min(b for b in begins if b >= scouts.SEGMENT), 10_000) == 1  # it is looked at once a block
    assert s.call("turn", min(b for b in begins if b >= scouts.BLOCK), 10_000) == 0


def test_records_are_no_longer_seen() -> None:
    data, _ = records(random.Random(4), 3 << 20, "<")
    s = Scouts(pcap(), data + random.Random(4).randbytes(4 << 20))
    assert s.call("begin", 0) == 1
    said = [s.call("turn", at, at >> 10) for at in range(scouts.SEGMENT, 5 << 20, scouts.SEGMENT)]
    assert said.index(0) * scouts.SEGMENT < len(data) + scouts.BLOCK


@pytest.mark.parametrize("variant", [v for v, _ in WINDOWS.values()], ids=list(WINDOWS))
@given(st.integers(0, 1 << 32), st.integers(0, 3 << 20))
@settings(max_examples=12, deadline=None)
def test_no_bytes_lead_out_of_the_window(variant: Variant, seed: int, at: int) -> None:
    rng = random.Random(seed)
    make = rng.choice([
        lambda: records(rng, 4096, "<")[0], lambda: blocks(rng, 4096, ">")[0], lambda: rng.randbytes(4096), lambda: bytes(4096),
    ])  # fmt: skip
    data = b"".join(make() for _ in range(rng.randrange(600, 1000)))[rng.randrange(64) :]
    s = Scouts(variant, data)
    at = min(at, len(data) - 16)
    if s.call("begin", at):
        for n in range(6):
            for _ in range(rng.randrange(3000)):
                s.call("step", at)
            at = min(at + scouts.SEGMENT * rng.randrange(1, 40), len(data) - 16)
            if not s.call("turn", at, n):
                break


def capture(rng: random.Random, kind: str, size: int) -> bytes:
    """Large packets, then small ones, then large ones; payloads hold what looks like records."""
    out, n = io.BytesIO(), 0
    with (PcapngWriter if kind == "pcapng" else PcapWriter)(out) as writer:
        while out.tell() < size:
            small = size * 4 // 10 < out.tell() < size * 6 // 10
            caplen = rng.randrange(60, 100) if small else rng.randrange(300, 1515)
            data = rng.randbytes(12) + b"\x08\x00" + rng.randbytes(caplen - 14)
            if rng.random() < 0.1 and caplen > 400:
                fake = struct.pack("<IIII", START_NS // 10**9, 1, rng.choice((0, 20, 1 << 17, 0xFFFF_FFFF)), 0xFFFF)
                data = data[:100] + fake + data[100 + len(fake) :]
            n += 1
            writer.write(Record(n, START_NS + n * 1_000_000, caplen, data, 1, 0, 0))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_nothing_changes(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scouting, "SCOUTED_BYTES", 1)
    path = tmp_path / "capture"
    path.write_bytes(capture(random.Random(kind), kind, 9 << 20))
    assert replayed(NativeEngine(use_cache=False), LENGTHS, path) == replayed(INTERP, LENGTHS, path)
