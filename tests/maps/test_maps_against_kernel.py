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
    MapSpec(T.PERCPU_HASH, 4, 12, 20, Z | BPF_F_NO_PREALLOC),
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
        for _ in range(4):
            live = create(spec, n_cpus=n_cpus())
            run_both(theirs, Ours(live), keyed_steps(rng, keys, spec.value_size, theirs.user_value_size, 1500, FLAGS))
            break


@pytest.mark.parametrize("spec", [MapSpec(t, 0, v, n) for t in (T.QUEUE, T.STACK) for v, n in ((4, 3), (7, 8), (16, 1))], ids=name_of)
def test_keyless_sequences(spec: MapSpec) -> None:
    rng = random.Random(seed_of(spec))
    with pinned(), KernelMap(spec) as theirs:
        run_both(theirs, Ours(create(spec)), keyless_steps(rng, spec.value_size, 1500), compare_order=False)
