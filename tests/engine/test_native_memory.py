"""bpf_strncmp, bpf_strtol, bpf_strtoul and dynptrs in native code: what the interpreter answers and leaves, no call back."""

from __future__ import annotations

import errno
import random

import pytest
from support.engines import NATIVE, run_loaded
from support.programs_of import loaded_program
from test_native_maps import agree

from netbpf.engine.llvm.module import module
from netbpf.engine.llvm.variant import Variant
from netbpf.packet.skbuff import SkBuff

TEXT_BYTES = 80
LOAD = f"""
    r6 = r1
    r2 = 0
    r3 = r10
    r3 += -96
    r4 = {TEXT_BYTES}
    call bpf_skb_load_bytes
"""
NUMBER = """
    r1 = r10
    r1 += -96
    r2 = {size}
    r3 = {flags}
    r4 = r10
    r4 += -8
    call bpf_{name}
    r1 = *(u64 *)(r10 - 8)
    r0 *= 1000003
    r0 ^= r1
    exit
"""
STRNCMP = """
    r1 = r10
    r1 += -96
    r2 = {size}
    r3 = map[text][0]+0
    call bpf_strncmp
    exit
"""
DYNPTR = """
    r1 = map[m][0]+0
    r2 = 16
    r3 = {flags}
    r4 = r10
    r4 += -112
    call bpf_dynptr_from_mem
    r7 = r0
    r8 = *(u8 *)(r10 - 96)
    r9 = *(u8 *)(r10 - 95)
    r9 &= 31
    r1 = r10
    r1 += -112
    r2 = r8
    r3 = r10
    r3 += -88
    r4 = r9
    r5 = *(u8 *)(r10 - 94)
    call bpf_dynptr_write
    r7 *= 31
    r7 += r0
    r1 = r10
    r1 += -80
    r2 = r9
    r3 = r10
    r3 += -112
    r4 = *(u8 *)(r10 - 93)
    r5 = *(u8 *)(r10 - 94)
    call bpf_dynptr_read
    r7 *= 31
    r7 += r0
    r1 = *(u64 *)(r10 - 80)
    r7 += r1
    r1 = r10
    r1 += -112
    r2 = r8
    r3 = 8
    call bpf_dynptr_data
    if r0 == 0 goto out
    r1 = *(u64 *)(r0 + 0)
    r7 += r1
    *(u64 *)(r0 + 0) = r7
out:
    r0 = r7
    exit
"""
RECORDS = """
    r7 = *(u8 *)(r10 - 96)
    r8 = *(u8 *)(r10 - 95)
    r8 &= 3
    r1 = map[m]
    r2 = r7
    r2 *= 9
    r3 = 0
    if r8 != 3 goto reserve
    r3 = 1
reserve:
    r4 = r10
    r4 += -112
    call bpf_ringbuf_reserve_dynptr
    r9 = r0
    r1 = r10
    r1 += -112
    r2 = 3
    r3 = r10
    r3 += -88
    r4 = 16
    r5 = 0
    call bpf_dynptr_write
    r9 *= 31
    r9 += r0
    r1 = r10
    r1 += -112
    r2 = 0
    if r8 == 1 goto discard
    call bpf_ringbuf_submit_dynptr
    r0 = r9
    exit
discard:
    call bpf_ringbuf_discard_dynptr
    r0 = r9
    exit
"""


def packets(rng: random.Random, texts: list[bytes]) -> list[SkBuff]:
    out = []
    for text in texts:
        head = text[:TEXT_BYTES].ljust(TEXT_BYTES, rng.choice((b"\0", b"7", b"z")))
        out.append(SkBuff(head=head, len=len(head)))
    return out


def check(text: str, skbs: list[SkBuff]) -> None:
    agree(text, skbs, (NATIVE,))
    assert not module(loaded_program(text), Variant("one", trace_clock=True, checked=False)).calls_back


def number_text(rng: random.Random) -> bytes:
    """Something like a number, around the places where one ends or is too large."""
    if rng.random() < 0.4:
        value = rng.choice((1 << 63, (1 << 64) - 1, 1 << 64, 10, 0o777, 0xABCDEF)) + rng.randrange(-2, 3)
        form = rng.choice(("{}", "-{}", "{:x}", "0x{:x}", "-0X{:X}", "{:o}", "0{:o}", " \t{}", "\xa0-0{:o}"))
        return form.format(value).encode("latin1") + rng.choice((b"", b"z", b" ", b"\0", b"9"))
    return bytes(rng.choice(b" -0x12789afFzX\t\xa0") for _ in range(rng.randrange(1, 12))) + rng.choice((b"", b"0" * 70))


@pytest.mark.parametrize("name", ["strtol", "strtoul"])
@pytest.mark.parametrize(("flags", "size"), [(0, TEXT_BYTES), (8, TEXT_BYTES), (10, TEXT_BYTES), (16, TEXT_BYTES), (0, 3)])
def test_numbers(name: str, flags: int, size: int) -> None:
    rng = random.Random(f"{name} {flags} {size}")
    text = LOAD + NUMBER.format(name=name, size=size, flags=flags)
    check(text, packets(rng, [number_text(rng) for _ in range(250)]))


@pytest.mark.parametrize(("name", "flags"), [("strtol", 3), ("strtoul", 42)])
def test_bases_that_there_are_not(name: str, flags: int) -> None:
    text = LOAD + NUMBER.format(name=name, size=TEXT_BYTES, flags=flags)
    runs = run_loaded(NATIVE.load, loaded_program(text), packets(random.Random(1), [b"1", b"0x1"]))
    assert {o.r0 for o in runs} == {-errno.EINVAL * 1000003 & (1 << 64) - 1}


@pytest.mark.parametrize("size", [1, 5, 16])
def test_text_is_compared(size: int) -> None:
    rng = random.Random(size)
    words = [b"GET /", b"GET", b"GET\0x", b"GEX", b"FET", b"\xffET", b"GET /index.html\0", b""]
    text = '.map text array key=4 value=16 entries=1 flags=BPF_F_RDONLY_PROG frozen {\n    0: "GET /", ...\n}\n'
    check(text + LOAD + STRNCMP.format(size=size), packets(rng, words))


@pytest.mark.parametrize("flags", [0, 1])
def test_a_dynptr_of_a_maps_value(flags: int) -> None:
    rng = random.Random(flags)
    texts = [bytes([rng.randrange(20), rng.randrange(256), rng.choice((0, 0, 0, 1)), rng.randrange(18)]) for _ in range(200)]
    text = ".map m array key=4 value=16 entries=1\n" + LOAD + DYNPTR.format(flags=flags)
    check(text, packets(rng, [t + rng.randbytes(60) for t in texts]))


def test_records_of_a_ring_as_dynptrs() -> None:
    rng = random.Random(5)
    check(".map m ringbuf entries=4096\n" + LOAD + RECORDS, packets(rng, [rng.randbytes(TEXT_BYTES) for _ in range(60)]))
