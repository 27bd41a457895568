"""Packet loads and tail calls in functions, which leave them early, and slices that die with their dynptr: asked of the running
kernel and of us, errno and the whole level-2 log."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support.kernel import needs_kernel

from netbpf.sources.asm import parse

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from kernel_oracle import Oracle
from verifier_btf import LIBRARY
from verifier_fuzz import MapSet, ours
from verifier_programs import make_record
from verifier_records import mask_addresses

pytestmark = needs_kernel
STATIC, GLOBAL = LIBRARY.statics[0], LIBRARY.globals[0]  # int f(struct __sk_buff *)
CALLBACK, VOID = LIBRARY.statics[8], LIBRARY.statics[9]

LOAD = "r6 = r1\nr0 = *(u8 *)skb[0]"
CALL = "call s\nr0 = 0\nexit\n"
POINTER = "r2 = r10\nr2 += -8\n*(u64 *)(r10 - 8) = 1\n"
RESERVE = "r1 = map[ring]\nr2 = 8\nr3 = 0\ncall bpf_ringbuf_reserve\nif r0 == 0 goto out\nr7 = r0\n"
SUBMIT = "r1 = r7\nr2 = 0\ncall bpf_ringbuf_submit\nout: r0 = 0\nexit\n"
TWO_WAYS = "r8 = *(u32 *)(r1 + 0)\nif r8 > 5 goto l\nr7 = 1\nl: call s\nr3 = *(u64 *)(r10 - 8)\nr0 = 0\nexit\n"
EACH = "*(u64 *)(r10 - 8) = r1\nr1 = 5\nr2 = subprog[s]\nr3 = r10\nr3 += -8\nr4 = 0\ncall bpf_loop\nr0 = 0\nexit\n"
TAIL = "r2 = map[progs]\nr3 = 1\ncall bpf_tail_call\n"
LOCAL = "r1 = map[array][0]\nr2 = 32\nr3 = 0\nr4 = r10\nr4 += -16\ncall bpf_dynptr_from_mem\n"
SLICE = LOCAL + "r1 = r10\nr1 += -16\nr2 = 0\nr3 = 8\ncall bpf_dynptr_data\n"

# text, and the kinds of its functions in order
PROGRAMS: dict[str, tuple[str, list[int]]] = {
    "once": (f"{CALL}s: {LOAD}\nr0 &= 3\nexit", [STATIC]),
    "global": (f"{CALL}s: {LOAD}\nr0 &= 3\nexit", [GLOBAL]),
    "void": (f"{CALL}s: {LOAD}\nr0 &= 3\nexit", [VOID]),
    "global calls static": (f"{CALL}s: {LOAD}\nr1 = r6\ncall t\nr0 &= 3\nexit\nt: {LOAD}\nexit", [GLOBAL, STATIC]),
    "two deep": (
        f"r8 = r1\ncall s\nr9 = r0\nr1 = r8\ncall s\nr0 += r9\nexit\ns: {LOAD}\nr7 = r0\nr1 = r6\ncall t\nr0 += r7\nexit\n"
        "t: r6 = r1\nr1 = 2\nr0 = *(u16 *)skb[r1 + 3]\nr0 <<= 1\nexit",
        [STATIC, STATIC],
    ),
    "in a loop": (f"r8 = r1\nr9 = 0\nl: r1 = r8\ncall s\nr9 += 1\nif r9 < 4 goto l\nr0 = 0\nexit\ns: {LOAD}\nexit", [STATIC]),
    "offset from what it returned": (
        f"r9 = r10\n*(u64 *)(r10 - 8) = 0\n*(u64 *)(r10 - 16) = 0\ncall s\nr0 <<= 1\nr9 += r0\nr0 = *(u8 *)(r9 - 12)\nexit\n"
        f"s: {LOAD}\nr0 &= 3\nexit",
        [STATIC],
    ),
    "the failure is out of bounds": (
        f"r9 = r10\ncall s\nr9 += r0\nr0 = *(u8 *)(r9 - 1)\nexit\ns: {LOAD}\nr0 |= 256\nexit",
        [STATIC],
    ),
    "writes the caller's slot": (f"{POINTER}{TWO_WAYS}s: r7 = r2\n{LOAD}\n*(u64 *)(r7 + 0) = 7\nr0 = 0\nexit", [STATIC]),
    "reads the caller's slot": (
        f"{POINTER}{TWO_WAYS}s: r7 = r2\n{LOAD}\nif r0 > 3 goto x\nr3 = *(u64 *)(r7 + 0)\nexit\nx: *(u64 *)(r7 + 0) = 7\nexit",
        [STATIC],
    ),
    "slot set on success only": (
        f"r7 = r10\nr7 += -16\nr2 = r7\ncall s\nr1 = *(u64 *)(r10 - 16)\nr0 = *(u32 *)(r1 + 0)\nexit\n"
        f"s: r7 = r2\n{LOAD}\n*(u64 *)(r7 + 0) = r6\nexit",
        [STATIC],
    ),
    "in a callback": (f"{EACH}s: r6 = *(u64 *)(r2 + 0)\nr0 = *(u8 *)skb[0]\nr0 = 1\nexit", [CALLBACK]),
    "a callback's value": (f"{EACH}s: r6 = *(u64 *)(r2 + 0)\nr0 = *(u8 *)skb[0]\nexit", [CALLBACK]),
    # where an argument is still looked for when the frames run out, the kernel writes out of bounds: no such program here
    "a slot looked for behind it": (
        f"r6 = r1\ncall s\nr9 = r10\nr9 += r0\nr0 = *(u8 *)(r9 - 9)\nexit\n"
        f"s: *(u64 *)(r10 - 8) = 3\n{LOAD}\nr3 = *(u64 *)(r10 - 8)\nif r3 == 4 goto e\nr0 &= 1\ne: exit",
        [STATIC],
    ),
    "record held": (f"{CALL}s: r6 = r1\n{RESERVE}r0 = *(u8 *)skb[0]\n{SUBMIT}", [STATIC]),
    "record held by the caller": (f"r6 = r1\n{RESERVE}r1 = r6\ncall s\n{SUBMIT}s: {LOAD}\nexit", [STATIC]),
    "tail call beside it": (
        f"{POINTER}{TWO_WAYS}s: r7 = r2\nr6 = r1\n{TAIL}*(u64 *)(r7 + 0) = 7\nr0 = *(u8 *)skb[1]\nexit",
        [STATIC],
    ),
    "slice over its dynptr": (f"{SLICE}*(u64 *)(r10 - 16) = r0\nr1 = *(u8 *)(r10 - 16)\nr0 = 0\nexit", []),
    "slice over its dynptr, checked": (
        f"{SLICE}if r0 == 0 goto e\n*(u64 *)(r10 - 8) = r0\nr1 = *(u8 *)(r0 + 0)\ne: r0 = 0\nexit",
        [],
    ),
    "narrow slice over its dynptr": (f"{SLICE}*(u32 *)(r10 - 12) = r0\nr0 = 0\nexit", []),
    # on a mispredicted way, by the kernel's own contradiction
    "pointer whose bounds were given up": (
        "*(u64 *)(r10 - 16) = 0\ncall bpf_get_prandom_u32\nr6 = r0\nr6 &= 3\nr7 = 1\nif r7 == 1 goto e\nr9 = r10\nr9 += -16\n"
        "r9 += r6\nr2 = r9\nr3 = *(u64 *)(r2 + 0)\n*(u32 *)(r2 + 4) = 1\ne: r0 = 0\nexit",
        [],
    ),
    "slice through an offset in a range": (
        f"call bpf_get_prandom_u32\nr6 = r0\nr6 &= 8\n{SLICE}r1 = r10\nr1 += -16\nr1 += r6\n*(u64 *)(r1 + 0) = r0\nr0 = 0\nexit",
        [],
    ),
}


def _record(text: str, functions: list[int], flags: int) -> dict[str, Any]:
    declared = [f".map {name} array key=4 value=64 entries=1\n" for name in ("array", "ring", "progs") if f"map[{name}]" in text]
    spec = parse("".join(declared) + text)
    code, relocs = list(spec.insns), []
    for i, insn in enumerate(code):
        if insn.code == 0x18 and insn.src != 4:
            name = spec.maps[insn.imm].spec.name
            relocs.append([i, name, "fd", 0])
            code[i] = insn._replace(src=2 if name == "array" else 1, imm=0)
    calls = [(i, insn) for i, insn in enumerate(code) if (insn.code, insn.src) in ((0x85, 1), (0x18, 4))]
    starts = sorted({i + insn.imm + 1 for i, insn in calls})
    rows = [(0, LIBRARY.main[0]), *zip(starts, functions, strict=True)]
    return make_record(code, relocs, flags) | {"btf_bytes": LIBRARY.bytes.hex(), "func_rows": rows}


@pytest.mark.parametrize("privilege", ["priv", "capbpf"])
def test_same_errno_and_log(privilege: str) -> None:
    maps = MapSet()
    records = [(name, _record(*program, flags)) for name, program in PROGRAMS.items() for flags in (0, 8)]
    codes = [maps.patched(record) for _, record in records]
    accepted = 0
    with Oracle([privilege]) as oracle:
        for (name, record), code in zip(records, codes, strict=True):
            errno, log = oracle.ask(privilege, code, flags=record["flags"], extra=maps.extra(record))
            mine = ours(record, privilege, 2, maps.fds(record))
            assert (mine[0], mask_addresses(mine[1])) == (errno, mask_addresses(log)), (name, record["flags"])
            accepted += not errno
    assert accepted > 10
