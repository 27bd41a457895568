"""Every field of the context that a program may read holds in a native packet loop what it holds in the interpreter."""

from __future__ import annotations

import io
import random

import pytest
from support.engines import INTERP
from support.programs_of import loaded_program
from support.replays import walk_windows

from netbpf.abi.context import CTX_RULES, SK_BUFF_FIELDS, CtxField
from netbpf.abi.prog_types import PROG_TYPE_BY_NAME
from netbpf.engine.llvm.engine import NativeEngine
from netbpf.engine.results import Totals, Verdicts
from netbpf.env import SteppedEnv
from netbpf.packet.batch import PacketBatch
from netbpf.packet.pcap import PcapWriter
from netbpf.packet.record import Record

WORDS = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}


def records(seed: int, *, directed: bool) -> list[Record]:
    """Frames of all kinds, some with a tag, some on their way out, from several interfaces where that can be told."""
    rng, out = random.Random(seed), []
    for n in range(1, 60):
        first = rng.choice((b"\xff" * 6, b"\x01\x00\x5e\x00\x00\x01", b"\x02\x00\x00\x00\x00\x01"))
        ethertype = rng.choice((b"\x08\x00", b"\x81\x00\x00\x05\x08\x00", b"\x88\xa8\x20\x07\x86\xdd", b"\x00\x20"))
        data = first + rng.randbytes(6) + ethertype + rng.randbytes(60)
        interface, direction = (n % 2, n % 3) if directed else (0, 0)
        out.append(Record(n, 10**18 + n * 1_000_003_000, len(data) + n % 2, data, 1, interface, direction))
    return out


def text(prog_type: str, field: CtxField, at: int) -> str:
    word = WORDS.get(field.size, "u32")  # an array by its words
    return f".type {prog_type}\n r6 = r1\n r0 = *({word} *)(r6 + {at})\n r1 = r0\n r1 >>= 32\n r0 ^= r1\n r0 &= 0x7fffffff\n exit"


def readable(prog_type: str) -> list[CtxField]:
    rules = CTX_RULES[PROG_TYPE_BY_NAME[prog_type].type]
    return [f for f in SK_BUFF_FIELDS if f.name not in rules.hidden and f.name not in rules.pointers]


@pytest.mark.parametrize("prog_type", ["socket_filter", "sched_cls", "sched_act"])
def test_every_field(prog_type: str) -> None:
    batch, in_file = (PacketBatch.from_records(records(1, directed=d)) for d in (True, False))
    capture = io.BytesIO()
    with PcapWriter(capture, nanosecond=True) as writer:
        for record in records(1, directed=False):
            writer.write(record)
    for field in readable(prog_type):
        for at in range(field.off, field.off + field.size, field.size if field.size in WORDS else 4):
            source, native, walked = text(prog_type, field, at), NativeEngine(use_cache=False), Verdicts()
            want, got = (e.load(loaded_program(source), SteppedEnv()).run(batch).verdict for e in (INTERP, native))
            assert got == want, field.name
            walk_windows(native.load(loaded_program(source), SteppedEnv()), capture.getvalue(), Totals(), walked)
            assert walked.verdict == INTERP.load(loaded_program(source), SteppedEnv()).run(in_file).verdict, field.name
