"""The same random sequences of operations through bpf(2) and on our maps: every result, errno, value and the order of keys."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from support.kernel import needs_kernel
from support.kernel_maps import KernelMap, n_cpus, pinned
from support.map_ops import Ours, keyed_steps, keyless_steps, outcome, walk

from netbpf.abi.maps import BPF_F_NO_COMMON_LRU, BPF_F_NO_PREALLOC, BPF_F_ZERO_SEED, MapType
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec

pytestmark = needs_kernel

T = MapType
Z = BPF_F_ZERO_SEED
FLAGS = (0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 8)

KEYED = [
    MapSpec(T.HASH, 4, 8, 10, Z),
    MapSpec(T.HASH, 16, 16, 50, Z),
    MapSpec(T.HASH, 5, 3, 7, Z),
    MapSpec(T.HASH, 4, 8, 33, Z | BPF_F_NO_PREALLOC),
    MapSpec(T.PERCPU_HASH, 4, 8, 10, Z),
    MapSpec(T.PERCPU_HASH, 13, 5, 20, Z),
    MapSpec(T.PERCPU_HASH, 4, 16, 20, Z | BPF_F_NO_PREALLOC),
    MapSpec(T.ARRAY, 4, 8, 10),
    MapSpec(T.ARRAY, 4, 5, 3),
    MapSpec(T.PERCPU_ARRAY, 4, 8, 10),
    MapSpec(T.PERCPU_ARRAY, 4, 3, 5),
    MapSpec(T.LRU_HASH, 4, 8, 10, Z),
    MapSpec(T.LRU_HASH, 4, 8, 1, Z),
    MapSpec(T.LRU_HASH, 4, 8, 2, Z),
    MapSpec(T.LRU_HASH, 4, 8, 100, Z),
    MapSpec(T.LRU_HASH, 4, 8, 1000, Z),
    MapSpec(T.LRU_HASH, 4, 8, 10, Z | BPF_F_NO_COMMON_LRU),
    MapSpec(T.LRU_HASH, 4, 8, 101, Z | BPF_F_NO_COMMON_LRU),
    MapSpec(T.LRU_PERCPU_HASH, 4, 8, 10, Z),
    MapSpec(T.LRU_PERCPU_HASH, 4, 6, 100, Z),
    MapSpec(T.LRU_PERCPU_HASH, 4, 8, 10, Z | BPF_F_NO_COMMON_LRU),
]


def name_of(spec: MapSpec) -> str:
    return f"{T(spec.map_type).name}-{spec.key_size}-{spec.value_size}-{spec.max_entries}-{spec.map_flags:#x}"


def seed_of(spec: MapSpec) -> int:
    return zlib.crc32(repr(spec).encode())


def run_both(theirs: Any, ours: Any, steps: Any, compare_order: bool = True) -> None:
    done = []
    for op, args in steps:
        done.append((op, args))
        expected, got = outcome(getattr(theirs, op), *args), outcome(getattr(ours, op), *args)
        assert got == expected, f"after {len(done)} steps {op}{args}: kernel {expected}, ours {got}; last {done[-4:]}"
    if compare_order:
        keys = walk(theirs)
        assert walk(ours) == keys
        for key in keys:
            assert outcome(ours.lookup_user, key) == outcome(theirs.lookup_user, key)


@pytest.mark.parametrize("spec", KEYED, ids=name_of)
def test_keyed_sequences(spec: MapSpec) -> None:
    rng = random.Random(seed_of(spec))
    indexed = spec.map_type in (T.ARRAY, T.PERCPU_ARRAY)
    n_keys = spec.max_entries * 2 + 1
    keys = [i.to_bytes(4, "little") if indexed else rng.randbytes(spec.key_size) for i in range(n_keys)]
    with pinned(), KernelMap(spec) as theirs:
        live = create(spec, n_cpus=n_cpus())
        run_both(theirs, Ours(live), keyed_steps(rng, keys, spec.value_size, theirs.user_value_size, 1500, FLAGS))


MULTI_CPU = (T.LRU_HASH, T.LRU_PERCPU_HASH, T.PERCPU_HASH, T.PERCPU_ARRAY)


@pytest.mark.parametrize("spec", [spec for spec in KEYED if spec.map_type in MULTI_CPU], ids=name_of)
def test_programs_on_two_cpus(spec: MapSpec) -> None:
    """User space stays on CPU 0; a program may run on another: whose copy, whose lists.

    A PERCPU_HASH of Linux frees elements to the CPU that deleted them, so that what the padding of a new value holds would
    differ: there only values without padding are compared.
    """
    if spec.map_type == T.PERCPU_HASH:
        spec = spec._replace(value_size=16)
    if n_cpus() < 2:
        pytest.skip("needs two CPUs")
    rng = random.Random(seed_of(spec))
    keys = [i.to_bytes(spec.key_size, "little") for i in range(spec.max_entries * 2)]
    live = Ours(create(spec, n_cpus=n_cpus()))
    with KernelMap(spec) as theirs:
        for step in keyed_steps(rng, keys, spec.value_size, theirs.user_value_size, 400, FLAGS):
            live.cpu = rng.randrange(2) if step[0] == "program" else 0
            with pinned(live.cpu):
                run_both(theirs, live, [step], compare_order=False)
        run_both(theirs, live, [])


def trie_keys(rng: random.Random, data_size: int, count: int) -> list[bytes]:
    """Prefixes that share their beginnings, with bits set behind the prefix too, and a few that are too long."""
    stems = [rng.randbytes(data_size) for _ in range(4)]
    lengths = [*range(data_size * 8 + 1), data_size * 8, data_size * 8, data_size * 8 + 1]
    keys = []
    for _ in range(count):
        data = bytearray(rng.choice(stems))
        data[rng.randrange(data_size)] ^= 1 << rng.randrange(8)
        keys.append(rng.choice(lengths).to_bytes(4, "little") + data)
    return keys


TRIES = [MapSpec(T.LPM_TRIE, 4 + n, 6, entries, 1) for n, entries in ((4, 20), (4, 500), (1, 30), (16, 100), (3, 1))]


@pytest.mark.parametrize("spec", TRIES, ids=name_of)
def test_trie_sequences(spec: MapSpec) -> None:
    rng = random.Random(seed_of(spec))
    keys = trie_keys(rng, spec.key_size - 4, min(spec.max_entries * 2 + 2, 150))
    with pinned(), KernelMap(spec) as theirs:
        run_both(theirs, Ours(create(spec)), keyed_steps(rng, keys, 6, 6, 3000, FLAGS))


@pytest.mark.parametrize("value_size", [3, 4, 8, 13])
@pytest.mark.parametrize("extra", [0, 1, 4, 15])
def test_bloom_filter(value_size: int, extra: int) -> None:
    """The same values are found, false ones included: with ZERO_SEED the bits are the kernel's own."""
    spec = MapSpec(T.BLOOM_FILTER, 0, value_size, 50, Z, map_extra=extra)
    rng = random.Random(extra)
    live = Ours(create(spec))
    with pinned(), KernelMap(spec) as theirs:
        pushes = [("program", ("push", b"", rng.randbytes(value_size), rng.choice((0, 0, 0, 1, 2, 4)))) for _ in range(30)]
        pushes += [("update_user", (b"", rng.randbytes(value_size), rng.choice((0, 0, 1, 2, 4)))) for _ in range(30)]
        run_both(theirs, live, pushes, compare_order=False)
        peeks = [("program", ("peek", b"", rng.randbytes(value_size), 0)) for _ in range(300)]
        peeks += [("peek_user", (rng.randbytes(value_size), rng.choice((0, 0, 0, 4)))) for _ in range(300)]
        peeks += [("delete_user", (b"",)), ("next_key", (None,)), ("lookup_and_delete_user", (b"", 0))]
        run_both(theirs, live, peeks, compare_order=False)


QUEUES = [MapSpec(kind, 0, size, entries) for kind in (T.QUEUE, T.STACK) for size, entries in ((4, 3), (7, 8), (16, 1))]


@pytest.mark.parametrize("spec", QUEUES, ids=name_of)
def test_keyless_sequences(spec: MapSpec) -> None:
    rng = random.Random(seed_of(spec))
    with pinned(), KernelMap(spec) as theirs:
        run_both(theirs, Ours(create(spec)), keyless_steps(rng, spec.value_size, 1500), compare_order=False)
