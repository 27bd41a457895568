"""Instruction text against known lines of the kernel's log, and against the running kernel over every opcode."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from pathlib import Path

import pytest
from support.kernel import needs_kernel
from support.vectors import read_jsonl, vectors_dir

from netbpf.isa.disasm import Names, format_insn, format_insns
from netbpf.isa.instruction import Instruction as I
from netbpf.isa.instruction import decode, encode

KNOWN = [
    (I(0xB7, 0), "(b7) r0 = 0"),
    (I(0xB4, 3, 0, 0, -7), "(b4) w3 = -7"),
    (I(0xBF, 6, 1), "(bf) r6 = r1"),
    (I(0xBF, 1, 2, 8), "(bf) r1 = (s8)r2"),
    (I(0xBC, 1, 2, 16), "(bc) w1 = (s16)w2"),
    (I(0xBF, 1, 2, -1), "(bf) r1 = &(void __percpu *)(r2)"),
    (I(0xBF, 1, 2, 1, 0x10002), "(bf) r1 = addr_space_cast(r2, 1, 2)"),
    (I(0x37, 1, 0, 1, 3), "(37) r1 s/= 3"),
    (I(0x9C, 1, 2, 1), "(9c) w1 s%= w2"),
    (I(0xC7, 1, 0, 0, 32), "(c7) r1 s>>= 32"),
    (I(0x87, 1), "(87) r1 = -r1"),
    (I(0xD4, 1, 0, 0, 16), "(d4) r1 = le16 r1"),
    (I(0xDC, 1, 0, 0, 64), "(dc) r1 = be64 r1"),
    (I(0xD7, 1, 0, 0, 32), "(d7) r1 = bswap32 r1"),
    (I(0x30, 0, 0, 0, 23), "(30) r0 = *(u8 *)skb[23]"),
    (I(0x28, 0, 0, 0, -4096), "(28) r0 = *(u16 *)skb[-4096]"),
    (I(0x40, 0, 2, 0, 14), "(40) r0 = *(u32 *)skb[r2 + 14]"),
    (I(0x61, 7, 6), "(61) r7 = *(u32 *)(r6 +0)"),
    (I(0x91, 7, 6, -4), "(91) r7 = *(s8 *)(r6 -4)"),
    (I(0x63, 10, 0, -4), "(63) *(u32 *)(r10 -4) = r0"),
    (I(0x7A, 10, 0, -8, 5), "(7a) *(u64 *)(r10 -8) = 5"),
    (I(0xDB, 0, 1), "(db) lock *(u64 *)(r0 +0) += r1"),
    (I(0xC3, 0, 1, 0, 0x41), "(c3) r1 = atomic_fetch_or((u32 *)(r0 +0), r1)"),
    (I(0xDB, 0, 1, 8, 0xE1), "(db) r1 = atomic64_xchg((u64 *)(r0 +8), r1)"),
    (I(0xDB, 5, 1, 8, 0xF1), "(db) r0 = atomic64_cmpxchg((u64 *)(r5 +8), r0, r1)"),
    (I(0xD3, 5, 1, 8, 0x100), "(d3) r5 = load_acquire((u8 *)(r1 +8))"),
    (I(0xCB, 5, 1, 8, 0x110), "(cb) store_release((u16 *)(r5 +8), r1)"),
    (I(0xDB, 5, 1, 8, 2), "BUG_db"),
    (I(0x85, 0, 0, 0, 1), "(85) call bpf_map_lookup_elem#1"),
    (I(0x85, 0, 0, 0, 100000), "(85) call unknown#100000"),
    (I(0x85, 0, 1, 0, 3), "(85) call pc+3"),
    (I(0x85, 0, 2, 0, 7), "(85) call kernel-function#7"),
    (I(0x05, 0, 0, -2), "(05) goto pc-2"),
    (I(0x06, 0, 0, 0, 70000), "(06) gotol pc+70000"),
    (I(0xE5, 0, 0, 3), "(e5) may_goto pc+3"),
    (I(0x55, 1, 0, 2, -1), "(55) if r1 != 0xffffffff goto pc+2"),
    (I(0x6E, 1, 2, 2), "(6e) if w1 s> w2 goto pc+2"),
    (I(0x95), "(95) exit"),
    (I(0x00), "BUG_ld_00"),
    (I(0x01), "BUG_ldx_01"),
    (I(0x02), "BUG_st_02"),
    (I(0x03), "BUG_03"),
    (I(0xC2), "(c2) nospec"),
]


@pytest.mark.parametrize(("insn", "text"), KNOWN, ids=lambda v: v if isinstance(v, str) else "")
def test_known(insn: I, text: str) -> None:
    assert format_insn(insn) == text


def test_ld_imm64_takes_its_high_half_from_the_next_slot() -> None:
    lo, hi = I(0x18, 1, 0, 0, -0x70000000), I(0, 0, 0, 0, -1)
    assert format_insn(lo, hi) == "(18) r1 = 0xffffffff90000000"
    assert format_insn(lo) == "(18) r1 = 0x90000000"


@pytest.mark.parametrize(
    ("src", "verifier", "xlated"),
    [
        (0, "0x800000005", "0x800000005"),
        (1, "0x800000005", "map[id:5]"),
        (2, "0x800000005", "map[id:5][0]+8"),
        (3, "0x800000005", "0x800000005"),
        (4, "0x800000005", "subprog[+5]"),
        (6, "0x800000005", "map[idx:5]+8"),
    ],
)
def test_pseudo_sources(src: int, verifier: str, xlated: str) -> None:
    pair = I(0x18, 1, src, 0, 5), I(0, 0, 0, 0, 8)
    assert format_insn(*pair) == f"(18) r1 = {verifier}"
    assert format_insn(*pair, style="xlated") == f"(18) r1 = {xlated}"


def test_own_names() -> None:
    names = Names(imm64=lambda i, v: f"map[{v}]" if i.src else None, call=lambda i: f"{i.imm:+d}#main" if i.src else "f")
    assert format_insn(I(0x18, 1, 1, 0, 5), I(0), names=names) == "(18) r1 = map[5]"
    assert format_insn(I(0x18, 1, 0, 0, 5), I(0), names=names) == "(18) r1 = 0x5"
    assert format_insn(I(0x85, 0, 1, 0, 5), names=names) == "(85) call pc+5#main"
    assert format_insn(I(0x85, 0, 0, 0, 5), names=names) == "(85) call f#5"


def test_every_opcode_has_a_text() -> None:
    for code in range(256):
        for src in (0, 1, 2, 15):
            assert f"{code:02x}" in format_insn(I(code, 15, src, -1, -1))


def test_program_lines() -> None:
    insns = decode(bytes.fromhex("bf16000000000000 1801000005000000 0000000000000000 9500000000000000 18"[:-3].replace(" ", "")))
    assert list(format_insns(insns)) == ["   0: (bf) r6 = r1", "   1: (18) r1 = 0x5", "   3: (95) exit"]
    assert list(format_insns(insns, style="verifier", start=9)) == ["9: (bf) r6 = r1", "10: (18) r1 = 0x5", "12: (95) exit"]
    assert list(format_insns(insns[:2])) == ["   0: (bf) r6 = r1", "   1: (18) r1 = 0x5"]


_LOG_LINE = re.compile(r"(\d+): (\([0-9a-f]{2}\) (?:[^;]*?goto pc[+-]\d+\b|.*?(?=\s*(?:;.*| \d+: .*)?\Z)))")


@pytest.mark.vectors
def test_recorded_logs_say_the_same_words() -> None:
    seen = 0
    for record in read_jsonl(vectors_dir() / "verifier" / "selftests.jsonl.gz"):
        insns = decode(bytes.fromhex(record.get("insns") or ""))
        for line in filter(None, map(_LOG_LINE.match, record["kernel"].get("log", "").splitlines())):
            pc = int(line[1])
            insn, following = insns[pc], insns[pc + 1] if pc + 1 < len(insns) else None
            if not (insn.code == 0x18 and insn.src) and not (insn.code == 0x85 and insn.src == 2):  # addresses, BTF names
                assert format_insn(insn, following) == line[2], record["id"]
                seen += 1
    assert seen > 2500


# --- the running kernel -----------------------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)


def _log(insns: list[I]) -> str:
    """The level-2 log of loading ``insns`` as a socket filter."""
    code = encode(insns)
    buffer = ctypes.create_string_buffer
    held = [buffer(code, len(code)), buffer(b"GPL"), buffer(1 << 17)]
    at = [ctypes.addressof(h) for h in held]
    attr = struct.pack("<IIQQIIQ", 1, len(insns), at[0], at[1], 2, 1 << 17, at[2]).ljust(160, b"\0")
    fd = _libc.syscall({"x86_64": 321, "aarch64": 280}[os.uname().machine], 5, buffer(attr, 160), 160)
    if fd >= 0:
        os.close(fd)
    return ctypes.string_at(held[2]).decode("latin1")


# r7 is unknown, and the three branches make the tested slot and the two after it reachable whatever it does
_BEFORE = [I(0xBF, 6, 1), I(0x61, 7, 6), I(0xB7, 0), I(0xB7, 1, 0, 0, 1), I(0xB7, 2, 0, 0, 5), I(0xB7, 3), I(0x7B, 10, 0, -8)]
_BRANCHES = [I(0x55, 7, 0, 4, 1), I(0x55, 7, 0, 2, 2), I(0x55, 7, 0, 0, 3)]
_EXIT = I(0x95)
_LIVE_LINE = re.compile(r"^ +(?:\d+ +)?10: [0-9.]{10} (.*)$", re.M)
_FIELDS = [  # dst, src, off, imm
    *((1, 0, 0, 0), (1, 2, 0, 0), (1, 0, 1, -1), (10, 0, -8, 16), (10, 2, -8, 0), (1, 0, 0, 32), (1, 2, 1, 0), (1, 2, 0, -5)),
    *((1, 2, off, 0) for off in (8, 16, 32, -1)),
    (1, 2, 1, 0x10002),
    *((1, 2, 0, imm) for imm in (0x01, 0x40, 0x41, 0x50, 0x51, 0xA0, 0xA1, 0xE0, 0xE1, 0xF0, 0xF1, 0x100, 0x110)),
]


def _kernel_text(insn: I) -> str | None:
    """The kernel's text of ``insn``, from the table of live registers; None where a check refused it before that table."""
    if insn.code == 0x18:
        found = _LIVE_LINE.search(_log([*_BEFORE, I(0xB7, 4), I(0xB7, 4), I(0xB7, 4), insn, I(0, 0, 0, 0, 7), _EXIT]))
    else:
        found = _LIVE_LINE.search(_log([*_BEFORE, *_BRANCHES, insn, _EXIT, _EXIT]))
    return found[1] if found else None


@pytest.mark.kernel
@pytest.mark.parametrize("code", range(256), ids=lambda c: f"{c:02x}")
class TestKernel:
    pytestmark = needs_kernel

    def test_text(self, code: int) -> None:
        seen = 0
        for dst, src, off, imm in _FIELDS:
            insn = I(code, dst, src, off, imm)
            if code == 0x18 and Path(f"/proc/self/fd/{imm}").exists():
                continue  # the immediate is a descriptor, and a map of another test may stand there
            text = _kernel_text(insn)
            if text is not None and "kernel-function" not in format_insn(insn):
                seen += 1
                assert format_insn(insn, I(0, 0, 0, 0, 7)) == text, insn
        refusal = _log([I(code), _EXIT])
        assert seen or "unknown opcode" in refusal or "BPF_LDX uses reserved fields" in refusal
