"""Maps whose values are maps, programs or perf events: what may be put in, what a lookup tells, in which order keys come."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.kernel import needs_kernel
from support.kernel_maps import KernelMap, info_id, insn, load, pinned
from support.map_ops import outcome, walk

from netbpf.abi.maps import BPF_F_INNER_MAP, BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG, BPF_F_ZERO_SEED, MapType
from netbpf.errors import BpfError
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec

pytestmark = needs_kernel
T, Z = MapType, BPF_F_ZERO_SEED
XDP = 6


def compare(theirs: KernelMap, ours: Any, objects: dict[int, Any], rng: random.Random, n_keys: int, steps: int) -> None:
    """Random puts of descriptors, deletes and lookups on both; ``objects`` says what a descriptor is to ours."""

    def put(key: bytes, fd: int, flags: int) -> None:
        ours.check_put(key, flags)
        if fd not in objects:
            raise BpfError(9)
        ours.put(key, objects[fd], flags)

    fds = [*objects, *objects, 99999]
    for n in range(steps):
        op = rng.choice(("put", "put", "delete", "lookup", "next_key", "take"))
        key, fd, flags = rng.randrange(n_keys).to_bytes(4, "little"), rng.choice(fds), rng.choice((0, 0, 0, 1, 2, 3, 4))
        calls: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = {
            "put": (lambda k, f, g: theirs.update_user(k, f.to_bytes(4, "little"), g), put, (key, fd, flags)),
            "delete": (theirs.delete_user, ours.delete_user, (key,)),
            "lookup": (theirs.lookup_user, ours.lookup_user, (key,)),
            "next_key": (theirs.next_key, ours.next_key, (key,)),
            "take": (theirs.lookup_and_delete_user, ours.lookup_and_delete_user, (key,)),
        }
        kernel, mine, args = calls[op]
        expected = outcome(kernel, *args)
        got = outcome(mine, *args)
        assert got == expected, (n, op, args, expected, got)
    assert walk(ours) == walk(theirs)


INNERS = [
    MapSpec(T.ARRAY, 4, 8, 4),
    MapSpec(T.ARRAY, 4, 8, 5),
    MapSpec(T.ARRAY, 4, 8, 4, BPF_F_INNER_MAP),
    MapSpec(T.ARRAY, 4, 8, 9, BPF_F_INNER_MAP),
    MapSpec(T.ARRAY, 4, 4, 4),
    MapSpec(T.HASH, 4, 8, 4),
    MapSpec(T.HASH, 4, 8, 40),
    MapSpec(T.HASH, 4, 8, 4, BPF_F_NO_PREALLOC),
    MapSpec(T.PERCPU_ARRAY, 4, 8, 4),
    MapSpec(T.PERCPU_ARRAY, 4, 8, 8),
    MapSpec(T.HASH, 4, 8, 4, BPF_F_RDONLY_PROG),
    MapSpec(T.LPM_TRIE, 8, 8, 4, 1),
    MapSpec(T.QUEUE, 0, 8, 4),
    MapSpec(T.QUEUE, 0, 8, 5),
    MapSpec(T.RINGBUF, 0, 0, 4096),
    MapSpec(T.RINGBUF, 0, 0, 8192),
    MapSpec(T.BLOOM_FILTER, 0, 8, 4, map_extra=1),
    MapSpec(T.BLOOM_FILTER, 0, 8, 9, map_extra=2),
    MapSpec(T.PERF_EVENT_ARRAY, 4, 4, 4),
    MapSpec(T.LRU_HASH, 4, 8, 4),
    MapSpec(T.LRU_PERCPU_HASH, 4, 8, 4),
]


@pytest.mark.parametrize("kind", [T.ARRAY_OF_MAPS, T.HASH_OF_MAPS])
@pytest.mark.parametrize("template", [0, 2, 5, 6, 9, 11, 12, 14, 16, 18, 19, 20])
def test_maps_of_maps(kind: MapType, template: int) -> None:
    spec = MapSpec(kind, 4, 4, 6, Z if kind == T.HASH_OF_MAPS else 0, inner=INNERS[template])
    rng = random.Random(template)
    inners = [KernelMap(inner) for inner in INNERS]
    objects = {inner.fd: create(inner.spec, map_id=info_id(inner.fd)) for inner in inners}
    with pinned(), KernelMap(spec) as theirs:
        compare(theirs, create(spec), objects, rng, 9, 300)
        for inner in inners:
            inner.close()


REFUSED = [*(MapSpec(t, 4, 4, 4, inner=INNERS[0]) for t in (12, 13)), MapSpec(T.PROG_ARRAY, 4, 4, 4), None]


@pytest.mark.parametrize("kind", [T.ARRAY_OF_MAPS, T.HASH_OF_MAPS])
@pytest.mark.parametrize("inner", REFUSED)
def test_templates_refused(kind: MapType, inner: MapSpec | None) -> None:
    spec = MapSpec(kind, 4, 4, 6, inner=inner)
    assert outcome(lambda: bool(create(spec))) == outcome(lambda: KernelMap(spec).close())


def test_prog_array() -> None:
    spec = MapSpec(T.PROG_ARRAY, 4, 4, 6)
    text = insn(0xB7) + insn(0x95)
    fds = [load(text), load(text), load(text, XDP)]
    objects = {fd: SimpleNamespace(prog_id=info_id(fd), prog_type=1 + 5 * (n == 2)) for n, fd in enumerate(fds)}
    with pinned(), KernelMap(spec) as theirs:
        compare(theirs, create(spec), objects, random.Random(1), 9, 300)
    for fd in fds:
        os.close(fd)


def test_perf_event_array_tells_nothing() -> None:
    spec = MapSpec(T.PERF_EVENT_ARRAY, 4, 4, 6)
    with KernelMap(spec) as theirs:
        compare(theirs, create(spec), {}, random.Random(2), 9, 100)
