"""Batch calls through bpf(2) and on our maps: cursors, counts, errnos and what came back."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from support.kernel import needs_kernel
from support.kernel_maps import (
    DELETE_BATCH,
    LOOKUP_AND_DELETE_BATCH,
    LOOKUP_BATCH,
    UPDATE_BATCH,
    KernelMap,
    info_id,
    n_cpus,
    pinned,
)

from netbpf.abi.maps import BPF_F_NO_COMMON_LRU, BPF_F_ZERO_SEED, MAP_KINDS, MapType
from netbpf.maps.batch import BatchResult, delete_batch, lookup_batch, update_batch
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec

pytestmark = needs_kernel
T, Z = MapType, BPF_F_ZERO_SEED

SPECS = [
    MapSpec(T.HASH, 4, 8, 40, Z),
    MapSpec(T.PERCPU_HASH, 4, 8, 40, Z),
    MapSpec(T.LRU_HASH, 4, 8, 40, Z),
    MapSpec(T.LRU_PERCPU_HASH, 4, 8, 40, Z | BPF_F_NO_COMMON_LRU),
    MapSpec(T.ARRAY, 4, 5, 9),
    MapSpec(T.PERCPU_ARRAY, 4, 8, 9),
    MapSpec(T.LPM_TRIE, 8, 8, 40, 1),
]
NO_BATCH = [T.QUEUE, T.STACK, T.BLOOM_FILTER, T.RINGBUF, T.PROG_ARRAY, T.PERF_EVENT_ARRAY]


def key_of(spec: MapSpec, n: int) -> bytes:
    return (32).to_bytes(4, "little") + n.to_bytes(4, "big") if spec.map_type == T.LPM_TRIE else n.to_bytes(4, "little")


Answer = tuple[int, int, bytes, bytes, bytes]


def same(theirs: KernelMap, count: int, answer: Answer, ours: BatchResult, cursor_size: int) -> bytes | None:
    """Assert that both answered alike; the kernel's cursor."""
    error, done, out, keys, values = answer
    assert ours.errno == error
    assert (count if ours.done is None else ours.done) == done
    if error not in (0, 2):
        return None
    assert b"".join(ours.keys) == keys[: len(ours.keys) * theirs.spec.key_size]
    assert b"".join(ours.values) == values[: len(ours.keys) * theirs.user_value_size]
    if ours.out_batch is not None:
        assert ours.out_batch == out[:cursor_size]
    return ours.out_batch


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: MAP_KINDS[spec.map_type].name)
def test_batches(spec: MapSpec) -> None:
    rng = random.Random(spec.map_type)
    live: Any = create(spec, n_cpus=n_cpus())
    with pinned(), KernelMap(spec) as theirs:
        cursor_size = 4 if "HASH" in T(spec.map_type).name else spec.key_size
        for _ in range(60):
            count = rng.choice((0, 1, 2, 5, 9, 20, 50))
            chosen = [key_of(spec, rng.randrange(60 if spec.max_entries > 9 else 10)) for _ in range(count)]
            values = [rng.randbytes(theirs.user_value_size) for _ in chosen]
            elem_flags = rng.choice((0, 0, 0, 0, 0, 1, 4))
            answer = theirs.batch(UPDATE_BATCH, count, keys=b"".join(chosen), values=b"".join(values), elem_flags=elem_flags)
            same(theirs, count, answer, update_batch(live, list(zip(chosen, values, strict=True)), elem_flags), cursor_size)
            cursor = None
            for _ in range(4):
                count, flags, delete = rng.choice((0, 1, 3, 8, 30, 100)), rng.choice((0, 0, 0, 0, 1)), rng.randrange(4) == 0
                command = LOOKUP_AND_DELETE_BATCH if delete else LOOKUP_BATCH
                answer = theirs.batch(command, count, in_batch=cursor, flags=flags)
                cursor = same(theirs, count, answer, lookup_batch(live, count, cursor, flags=flags, delete=delete), cursor_size)
            gone = rng.sample(chosen, len(chosen) // 4)
            answer = theirs.batch(DELETE_BATCH, len(gone), keys=b"".join(gone))
            same(theirs, len(gone), answer, delete_batch(live, gone), cursor_size)


@pytest.mark.parametrize("command", [LOOKUP_BATCH, LOOKUP_AND_DELETE_BATCH, UPDATE_BATCH, DELETE_BATCH])
@pytest.mark.parametrize("kind", NO_BATCH)
def test_kinds_without_batches(kind: MapType, command: int) -> None:
    keyless = kind in (T.QUEUE, T.STACK, T.BLOOM_FILTER, T.RINGBUF)
    spec = MapSpec(kind, 0 if keyless else 4, 0 if kind == T.RINGBUF else 4, 4096)
    live = create(spec)
    ours = {
        LOOKUP_BATCH: lambda: lookup_batch(live, 1),
        LOOKUP_AND_DELETE_BATCH: lambda: lookup_batch(live, 1, delete=True),
        UPDATE_BATCH: lambda: update_batch(live, [(bytes(4), bytes(4))]),
        DELETE_BATCH: lambda: delete_batch(live, [bytes(4)]),
    }[command]()
    with KernelMap(spec) as theirs:
        assert theirs.batch(command, 1, keys=bytes(4), values=bytes(4))[0] == ours.errno


@pytest.mark.parametrize("kind", [T.ARRAY_OF_MAPS, T.HASH_OF_MAPS])
def test_maps_of_maps(kind: MapType) -> None:
    inner = MapSpec(T.ARRAY, 4, 4, 1)
    spec = MapSpec(kind, 4, 4, 9, Z if kind == T.HASH_OF_MAPS else 0, inner=inner)
    live: Any = create(spec)
    with pinned(), KernelMap(spec) as theirs, KernelMap(inner) as held:
        map_id = info_id(held.fd)
        for n in (1, 2, 5, 7):
            theirs.update_user(n.to_bytes(4, "little"), held.fd.to_bytes(4, "little"))
            live.put(n.to_bytes(4, "little"), create(inner, map_id=map_id))
        for count in (1, 2, 3, 9):
            cursor = None
            for _ in range(6):
                answer = theirs.batch(LOOKUP_BATCH, count, in_batch=cursor)
                cursor = same(theirs, count, answer, lookup_batch(live, count, cursor), 4)
        keys = (3).to_bytes(4, "little") + (4).to_bytes(4, "little")
        answer = theirs.batch(UPDATE_BATCH, 2, keys=keys, values=held.fd.to_bytes(4, "little") + (9999).to_bytes(4, "little"))
        fds = {held.fd: create(inner, map_id=map_id)}

        def put(key: bytes, value: bytes, flags: int) -> None:
            fd = int.from_bytes(value, "little")
            if fd not in fds:
                live.update_user(key, value, flags)
            live.put(key, fds[fd], flags)

        pairs = [(keys[:4], held.fd.to_bytes(4, "little")), (keys[4:], (9999).to_bytes(4, "little"))]
        same(theirs, 2, answer, update_batch(live, pairs, update=put), 4)
        os.fstat(held.fd)
