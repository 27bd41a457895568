"""Filters that are compiled without branches say what they say with them."""

from __future__ import annotations

import random
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engines import INTERP
from support.expressions import EXPRESSIONS
from support.programs_of import loaded_program, loaded_spec
from support.random_filters import HEADER, random_filter

from netbpf.engine.llvm.engine import NativeEngine
from netbpf.engine.llvm.module import module
from netbpf.engine.llvm.variant import Variant
from netbpf.env import SteppedEnv
from netbpf.errors import NetbpfError
from netbpf.packet.batch import PacketBatch
from netbpf.packet.record import Record
from netbpf.program import VerifiedProgram
from netbpf.sources import cbpf
from netbpf.sources.expr import compile_expression, find_libpcap

NATIVE = NativeEngine(use_cache=False)
LOOP = Variant("pcap")


def is_straight(program: VerifiedProgram) -> bool:
    return "@careful" in module(program, LOOP).text


def frames(rng: random.Random, count: int) -> PacketBatch:
    """Headers of all sorts, whole and cut, with tags, options and fragments."""
    records = []
    for n in range(1, count + 1):
        tag = rng.choice((b"", b"", b"\x81\x00\x00\x05", b"\x88\xa8\x20\x07\x81\x00\x00\x05"))
        kind = rng.choice((b"\x08\x00", b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x00\x40"))
        words = rng.choice((5, 5, 6, 15))
        ip = bytes([0x40 | words, 0, 0, 99, 0, 1, rng.choice((0, 0x40, 0x20, 1)), 0, 64, rng.choice((1, 6, 6, 17, 58)), 0, 0])
        ip += bytes(rng.choice((10, 192, 0, 255)) for _ in range(8)) + bytes(4 * (words - 5))
        ports = b"".join(rng.choice((443, 53, 80, 9)).to_bytes(2, "big") for _ in range(2))
        six = bytes([0x60, 0, 0, 0, 0, 40, rng.choice((6, 17, 44, 58)), 64]) + rng.randbytes(32)
        whole = rng.randbytes(12) + tag + kind + (six if kind == b"\x86\xdd" else ip) + ports + rng.randbytes(20)
        data = whole[: rng.choice((len(whole), len(whole), len(whole), rng.randrange(len(whole) + 1)))]
        records.append(Record(n, 10**18 + n, len(data) + rng.choice((0, 0, 7)), data, 1, 0, 0))
    return PacketBatch.from_records(records)


def verdicts(engine: Any, program: VerifiedProgram, batch: PacketBatch, view: str) -> tuple[array[int], array[int], bytearray]:
    out = engine.load(program, SteppedEnv(), view=view).run(batch)
    return out.verdict, out.kept, out.trimmed


@pytest.mark.skipif(find_libpcap() is None, reason="libpcap is not installed")
@pytest.mark.parametrize(("view", "first"), [("packet_raw", 0), ("file", 1)])
def test_expressions(view: str, first: int) -> None:
    batch, straight = frames(random.Random(view), 300), 0
    for text in EXPRESSIONS[first::2]:
        try:
            program = loaded_spec(cbpf.to_spec(compile_expression(text)))
        except NetbpfError:
            continue
        straight += is_straight(program)
        assert verdicts(NATIVE, program, batch, view) == verdicts(INTERP, program, batch, view), text
    assert straight > 60


BATCH = frames(random.Random(2), 60)


@given(st.integers(0, 1 << 32))
@settings(max_examples=150, deadline=None)
def test_random_filters(seed: int) -> None:
    text = random_filter(random.Random(seed))
    try:
        program = loaded_program(text)
    except NetbpfError:
        return
    for view in ("packet_raw", "file"):
        assert verdicts(NATIVE, program, BATCH, view) == verdicts(INTERP, program, BATCH, view), text


def test_most_random_filters_are_straight() -> None:
    """Else the test above would show nothing."""
    straight = proved = 0
    for seed in range(60):
        try:
            program = loaded_program(random_filter(random.Random(seed)))
        except NetbpfError:
            continue
        proved += 1
        straight += is_straight(program)
    assert proved > 20
    assert straight > proved // 3


@pytest.mark.parametrize(("body", "expected"), [
    ("r0 = *(u8 *)skb[23]\nif r0 == 6 goto yes\nr0 = 0\nexit\nyes:\nr0 = 60\nexit", True),
    ("r0 = *(u8 *)skb[-4096]\nexit", False),  # SKF_AD_PROTOCOL
    ("r7 = *(u32 *)(r6 + 0)\nr0 = *(u8 *)skb[r7 + 14]\nexit", False),  # an offset that may be below zero
    ("r7 = *(u32 *)(r6 + 0)\nr7 &= 255\nr0 = *(u8 *)skb[r7 + 14]\nexit", True),
    ("r7 &= 15\nr0 = *(u8 *)skb[r7 + 3]\nexit", False),  # perhaps on both sides of a tag
    ("r0 = *(u8 *)skb[9]\nr7 = *(u32 *)(r6 + 0)\nr7 /= r0\nr0 = r7\nexit", False),
    ("*(u64 *)(r10 - 8) = 1\nr0 = 0\nexit", False),
    ("call 7\nexit", False),  # random
    ("r0 = *(u8 *)skb[9]\n" + "r0 += 1\n" * 60 + "exit", False),
])  # fmt: skip
def test_what_is_compiled_without_branches(body: str, expected: bool) -> None:
    program = loaded_program(HEADER + body + "\n")
    assert is_straight(program) == expected
    assert verdicts(NATIVE, program, BATCH, "packet_raw") == verdicts(INTERP, program, BATCH, "packet_raw")
