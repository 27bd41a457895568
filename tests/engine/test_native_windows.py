"""The packet loop over windows of random captures, whole and damaged: what the interpreter counts and writes, to the byte."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import pytest
from support.engines import CHECKED, INTERP, NATIVE
from support.programs_of import loaded_program
from support.replays import walk_windows

import netbpf.engine.llvm.windows as windows_module
from netbpf.engine.results import Totals, Verdicts
from netbpf.env import SteppedEnv
from netbpf.errors import CaptureError
from netbpf.packet import stream
from netbpf.packet.batch import PacketBatch
from netbpf.packet.open import open_capture
from netbpf.packet.pcap import PcapWriter
from netbpf.packet.pcapng import PcapngWriter
from netbpf.packet.record import Record
from netbpf.replay.core import Replay
from netbpf.replay.output import CaptureOutput

KEEPER = """
    .map m array key=4 value=8 entries=8
    r6 = r1
    r7 = *(u32 *)(r6 + 4)           ; pkt_type
    r8 = *(u32 *)(r6 + 40)          ; ifindex
    r7 += r8
    r0 = *(u16 *)skb[11]            ; across what lies before a tag and behind it
    r7 += r0
    r8 = r7
    r8 &= 7
    *(u32 *)(r10 - 4) = r8
    r1 = map[m]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    r0 = r7
    r0 &= 63
    exit
out:
    r0 = 0
    exit
"""

PIECE_LOADER = KEEPER.replace(
    "r0 = *(u16 *)skb[11]            ; across",
    "r1 = r6; r2 = 11; r3 = r10; r3 += -16; r4 = 2; *(u64 *)(r10 - 16) = 0".replace("; ", "\n    ")
    + "\n    call bpf_skb_load_bytes\n    r0 = *(u16 *)(r10 - 16)         ; across",
)


def record(rng: random.Random, number: int) -> Record:
    size = rng.choice((0, 14, 19, 20, 21, 60, 61, 62, 63, 200))
    ethertype = rng.choice((b"\x08\x00", b"\x81\x00", b"\x88\xa8", b"\x00\x20"))
    data = (rng.randbytes(12) + ethertype + rng.randbytes(200))[:size]
    ts_ns = 1_700_000_000_000_000_000 + number * 50_000_000
    return Record(number, ts_ns, size + rng.choice((0, 0, 9)), data, 1, rng.randrange(3), rng.randrange(3))


def block(order: str, kind: int, body: bytes) -> bytes:
    total = len(body) + 12
    return struct.pack(order + "II", kind, total) + body + struct.pack(order + "I", total)


def other_block(rng: random.Random, order: str) -> bytes:
    """A block that PcapngWriter never writes: simple, obsolete, unknown, with options, or of an odd interface."""
    data = rng.randbytes(rng.choice((0, 20, 33, 60)))
    padded = data + bytes(-len(data) % 4)
    words = struct.pack(order + "4I", rng.randrange(5), rng.randrange(1 << 32), len(data), len(data) + rng.randrange(3))
    interface = rng.choice((0, 0, 1, 2, 7))
    options = rng.choice((
        b"", struct.pack(order + "HH4xHH", 1, 4, 0, 0), struct.pack(order + "HHIHH", 2, 4, rng.randrange(4), 0, 0),
        struct.pack(order + "HHHH", 9, 60000, 0, 0),
    ))  # fmt: skip
    return rng.choice((
        block(order, 3, struct.pack(order + "I", len(data)) + padded),
        block(order, 2, struct.pack(order + "HH", interface, 0) + words + padded + options),
        block(order, 6, struct.pack(order + "I", interface) + words + padded + options),
        block(order, 0x0BAD, padded), block(order, 5, bytes(8)),
        block(order, 1, struct.pack(order + "HHIHHB3xHH", 1, 0, rng.choice((0, 64)), 9, 1, rng.choice((6, 9, 0x94)), 0, 0)),
    ))  # fmt: skip


def pcapng(rng: random.Random, *, damaged: bool) -> bytes:
    byteorder = rng.choice(("little", "big"))
    order, out = "<" if byteorder == "little" else ">", io.BytesIO()
    with PcapngWriter(out, byteorder=byteorder) as writer:
        for n in range(1, 120):
            writer.write(record(rng, n))
            if rng.random() < 0.2:
                writer.append_raw(memoryview(other_block(rng, order)), 0)
    return harmed(rng, out.getvalue()) if damaged else out.getvalue()


def pcap(rng: random.Random, *, damaged: bool) -> bytes:
    out = io.BytesIO()
    with PcapWriter(out, byteorder=rng.choice(("little", "big")), nanosecond=rng.random() < 0.5) as writer:
        for n in range(1, 150):
            writer.write(record(rng, n))
    return harmed(rng, out.getvalue()) if damaged else out.getvalue()


def harmed(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randrange(3)):
        at = rng.randrange(24, len(out))
        out[at] = rng.randrange(256)
    return bytes(out[: rng.randrange(len(out) // 2, len(out) + 1)])


def replayed(engine: Any, capture: bytes, suffix: str, text: str = KEEPER) -> tuple[Any, ...]:
    """Totals, intervals, map bytes, what was written, and the damage."""
    program, env, written, damage = loaded_program(text), SteppedEnv(), io.BytesIO(), ""
    output = CaptureOutput(f"out.{suffix}")
    maps = {"m": program.maps[0]}
    replay = Replay(engine.load(program, env), maps, output=output)  # type: ignore[arg-type]
    intervals = []
    try:
        with open_capture(io.BytesIO(capture)) as reader:
            output.writer = PcapngWriter(written) if suffix == "pcapng" else PcapWriter(written)
            intervals += list(replay.run(reader))
    except CaptureError as e:
        damage = str(e)
    assert output.writer is None or output.writer.packets == replay.totals.accepted
    return replay.totals, intervals, bytes(program.maps[0].memory), written.getvalue(), damage, env.now_ns


@pytest.mark.parametrize("kind", ["pcap", "pcapng", "damaged pcap", "damaged pcapng"])
def test_random_captures(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module, "OUTPUT_BYTES", 262144 + 1000)  # it fills
    monkeypatch.setattr(stream, "PIECE_BYTES", 2000)
    rng = random.Random(kind)
    for n in range(8):
        make = pcapng if "pcapng" in kind else pcap
        capture, suffix = make(rng, damaged="damaged" in kind), rng.choice(("pcap", "pcapng"))
        want = replayed(INTERP, capture, suffix)
        for engine in (NATIVE, CHECKED) if n % 4 == 0 else (NATIVE,):
            assert replayed(engine, capture, suffix) == want, f"capture {n}"


@pytest.mark.parametrize("make", [pcap, pcapng])
def test_a_program_that_wants_the_packet_in_one_piece(make: Any) -> None:
    rng = random.Random(make.__name__)
    for n in range(4):
        capture = make(rng, damaged=False)
        assert replayed(NATIVE, capture, "pcap", PIECE_LOADER) == replayed(INTERP, capture, "pcap", PIECE_LOADER), f"capture {n}"


def test_columns_of_a_walk_are_those_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module._Columns, "rows", 10)
    rng = random.Random(5)
    out = io.BytesIO()
    with PcapWriter(out) as writer:
        for n in range(1, 100):
            writer.write(record(rng, n)._replace(data=rng.randbytes(60), wirelen=60))
    got, want, totals = Verdicts(), Verdicts(), Totals()
    loaded = NATIVE.load(loaded_program(KEEPER), SteppedEnv())
    walk_windows(loaded, out.getvalue(), totals, got)
    with open_capture(io.BytesIO(out.getvalue())) as reader:
        for batch in reader.batches():
            want = INTERP.load(loaded_program(KEEPER), SteppedEnv()).run(batch)
    assert (got.verdict, got.kept, got.trimmed) == (want.verdict, want.kept, want.trimmed)
    assert totals.packets == len(got.verdict) == 99


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_strange_times_and_lengths(order: str, magic: int) -> None:
    """Fractions of a second and more, up to the last second that a record can have, packets longer than the snaplen."""
    rng = random.Random(magic)
    for first_s in (1_700_000_000, 0xFFFF_FFF0, 0):
        out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 90, 1)
        for n in range(400):
            fraction = rng.choice((rng.randrange(1_000_000), 999_999_999, 1_000_000, 1_000_000_000, 0xFFFF_FFFF, 0))
            caplen = rng.choice((20, 89, 90, 91, 700))
            out += struct.pack(order + "IIII", first_s + n // 26, fraction, caplen, rng.choice((caplen, 60, 1500)))
            out += rng.randbytes(12) + b"\x08\x00" + rng.randbytes(caplen - 14)
        suffix = "pcapng" if first_s > 1 << 31 else "pcap"  # which holds later times
        assert replayed(NATIVE, out, suffix) == replayed(INTERP, out, suffix)


def test_strange_records_alone_have_code_for_them() -> None:
    def walked(fraction: int, caplen: int) -> set[bool]:
        out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 90, 1)
        for n in range(50):
            size = caplen if n == 30 else 60
            out += struct.pack("<IIII", n, fraction if n == 40 else 0, size, size) + bytes(size)
        loaded, totals = NATIVE.load(loaded_program(KEEPER), SteppedEnv()), Totals()
        walk_windows(loaded, out, totals)
        assert totals.packets == 50
        return {v.tolerant for v in loaded._codes}

    assert walked(999_999, 90) == {False}
    assert walked(1_000_000, 90) == walked(0, 91) == {False, True}


@pytest.mark.parametrize("field", [8, 12, 32, 44])  # mark, queue_mapping, priority, tc_index
def test_what_a_program_writes_to_the_context_is_gone_with_the_packet(field: int) -> None:
    text = f".type sched_cls\n r6 = r1\n r0 = *(u32 *)(r6 + {field})\n r2 = 5\n *(u32 *)(r6 + {field}) = r2\n exit"
    batch = PacketBatch.from_records([Record(n, n, 60, bytes(60), 1, 0, n % 3) for n in range(1, 9)])
    got, want = (e.load(loaded_program(text), SteppedEnv()).run(batch).verdict for e in (NATIVE, INTERP))
    assert got == want
