"""What a program that keeps a value pointer sees after an update or delete of that key; and what freezing forbids."""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest
from support.kernel import needs_kernel
from support.kernel_maps import HELPERS, KernelMap, insn, ld_map, load, n_cpus, pinned, run_once
from support.map_ops import outcome

from netbpf.abi.maps import BPF_F_MMAPABLE, MapType
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec

pytestmark = needs_kernel
T = MapType
A, B, C = (struct.pack("<I", n) for n in (1, 2, 3))


def read_stale(theirs: KernelMap, steps: list[tuple[str, bytes, bytes]]) -> bytes:
    """A program looks A up, does the steps, and reads 8 bytes through the pointer it kept; zeroes if A was not there."""
    with KernelMap(MapSpec(T.ARRAY, 4, 8, 1, BPF_F_MMAPABLE)) as result:
        body = b"".join(_step(theirs.fd, *step) for step in steps) + insn(0x79, 1, 7) + insn(0x7B, 6, 1)
        text = ld_map(6, result.fd, 2) + _step(theirs.fd, "lookup", A, b"") + insn(0xBF, 7, 0)
        text += insn(0x15, 7, 0, len(body) // 8, 0) + body + insn(0xB7) + insn(0x95)
        program = load(text)
        run_once(program)
        os.close(program)
        return result.lookup_user(bytes(4))


def _step(fd: int, op: str, key: bytes, value: bytes) -> bytes:
    """Key at fp-8, value at fp-16, then the helper."""
    low, high = struct.unpack("<ii", value or bytes(8))
    text = insn(0x62, 10, 0, -8, struct.unpack("<i", key)[0]) + insn(0x62, 10, 0, -16, low) + insn(0x62, 10, 0, -12, high)
    text += ld_map(1, fd) + insn(0xBF, 2, 10) + insn(0x07, 2, 0, 0, -8) + insn(0xBF, 3, 10) + insn(0x07, 3, 0, 0, -16)
    return text + insn(0xB7, 4) + insn(0x85, 0, 0, 0, HELPERS[op])


def ours_stale(live: Any, steps: list[tuple[str, bytes, bytes]]) -> bytes:
    at = live.lookup(A)
    for op, key, value in steps:
        live.update(key, value) if op == "update" else live.delete(key)
    return bytes(live.memory[at : at + 8]) if at >= 0 else bytes(8)


@pytest.mark.parametrize("kind", [T.HASH, T.PERCPU_HASH, T.LRU_HASH, T.LRU_PERCPU_HASH, T.ARRAY])
@pytest.mark.parametrize(
    "steps",
    [
        [("update", A, b"second..")],
        [("update", A, b"second.."), ("update", A, b"third...")],
        [("update", A, b"second.."), ("update", B, b"other...")],
        [("delete", A, b"")],
        [("delete", A, b""), ("update", B, b"other...")],
        [("delete", A, b""), ("update", C, b"new.....")],
        [("delete", A, b""), ("update", C, b"new....."), ("update", A, b"back....")],
    ],
)
def test_stale_pointers(kind: MapType, steps: list[tuple[str, bytes, bytes]]) -> None:
    spec = MapSpec(kind, 4, 8, 4 if kind == T.ARRAY else 8)
    with pinned(), KernelMap(spec) as theirs:
        live: Any = create(spec, n_cpus=n_cpus())
        for key, value in ((A, b"first..."), (B, b"b.......")):
            theirs.program("update", key, value)
            live.update(key, value)
        assert ours_stale(live, steps) == read_stale(theirs, steps)


FROZEN = [
    MapSpec(T.HASH, 4, 4, 8),
    MapSpec(T.ARRAY, 4, 4, 8),
    MapSpec(T.PERCPU_ARRAY, 4, 4, 8),
    MapSpec(T.LRU_HASH, 4, 4, 8),
    MapSpec(T.QUEUE, 0, 4, 8),
    MapSpec(T.BLOOM_FILTER, 0, 4, 8),
    MapSpec(T.LPM_TRIE, 8, 4, 8, 1),
    MapSpec(T.RINGBUF, 0, 0, 4096),
    MapSpec(T.PROG_ARRAY, 4, 4, 8),
]


@pytest.mark.parametrize("spec", FROZEN, ids=lambda spec: T(spec.map_type).name)
def test_frozen(spec: MapSpec) -> None:
    live: Any = create(spec, n_cpus=n_cpus())
    with KernelMap(spec) as theirs:
        key, value = bytes(spec.key_size), bytes(theirs.user_value_size)
        calls: list[tuple[str, tuple[Any, ...]]] = [("freeze", ()), ("freeze", ())]
        if spec.map_type != T.PROG_ARRAY:
            calls.insert(0, ("update_user", (key, value, 0)))
        calls += [("update_user", (key, value, flags)) for flags in (0, 1, 4, 9)] + [("delete_user", (key,))]
        calls += [("lookup_and_delete_user", (key, flags)) for flags in (0, 4)] + [("next_key", (key,))]
        if spec.map_type != T.BLOOM_FILTER:
            calls += [("lookup_user", (key, flags)) for flags in (0, 4)]
        for op, args in calls:
            assert outcome(getattr(live, op), *args) == outcome(getattr(theirs, op), *args), (op, args)
