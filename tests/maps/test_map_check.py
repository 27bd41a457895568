"""Creation rules as rows: a spec and what BPF_MAP_CREATE of Linux 6.18 answers; and what only `create` can say."""

from __future__ import annotations

import errno

import pytest

from netbpf.abi.maps import MAP_KIND_BY_NAME, MAP_KINDS, MapType, map_type_name
from netbpf.errors import ENOTSUPP, BpfError
from netbpf.maps.check import check_spec
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec

T = MapType
INNER = MapSpec(T.ARRAY, 4, 4, 1)

ROWS = [
    (MapSpec(T.HASH, 4, 8, 256), 0),
    (MapSpec(T.HASH, 0, 8, 256), errno.EINVAL),
    (MapSpec(T.HASH, 4, 0, 256), errno.EINVAL),
    (MapSpec(T.HASH, 4, 8, 0), errno.EINVAL),
    (MapSpec(T.HASH, 4, 8, 256, map_extra=1), errno.EINVAL),
    (MapSpec(T.HASH, 4, (1 << 22) - 53, 1), 0),
    (MapSpec(T.HASH, 4, (1 << 22) - 52, 1), errno.E2BIG),
    (MapSpec(T.HASH, 4, 8, (1 << 27) + 1, 1), errno.E2BIG),
    (MapSpec(T.HASH, 4, 8, 256, 2), errno.EINVAL),
    (MapSpec(T.HASH, 4, 8, 256, 0x180), errno.EINVAL),
    (MapSpec(T.HASH, 4, 8, 256, 0x18), errno.EINVAL),
    (MapSpec(T.HASH, 4, 8, 256, 4, numa_node=1), errno.EINVAL),
    (MapSpec(T.HASH, 4, 8, 256, 4), 0),
    (MapSpec(T.PERCPU_HASH, 4, 8, 256, 4), errno.EINVAL),
    (MapSpec(T.PERCPU_HASH, 4, 32769, 256), errno.E2BIG),
    (MapSpec(T.LRU_HASH, 4, 8, 256, 1), ENOTSUPP),
    (MapSpec(T.LRU_HASH, 4, 8, 256, 2), 0),
    (MapSpec(T.ARRAY, 8, 8, 256), errno.EINVAL),
    (MapSpec(T.ARRAY, 4, 1 << 31, 1), errno.E2BIG),
    (MapSpec(T.ARRAY, 4, 8, 256, 1), errno.EINVAL),
    (MapSpec(T.ARRAY, 4, 8, 256, 0x400), 0),
    (MapSpec(T.PERCPU_ARRAY, 4, 8, 256, 0x400), errno.EINVAL),
    (MapSpec(T.PROG_ARRAY, 4, 8, 4), errno.EINVAL),
    (MapSpec(T.PROG_ARRAY, 4, 4, 4, 0x80), errno.EINVAL),
    (MapSpec(T.PERF_EVENT_ARRAY, 4, 4, 4, 0x800), 0),
    (MapSpec(T.ARRAY_OF_MAPS, 4, 4, 4), errno.EBADF),
    (MapSpec(T.ARRAY_OF_MAPS, 4, 4, 4, inner=INNER), 0),
    (MapSpec(T.HASH_OF_MAPS, 4, 4, 4, inner=MapSpec(T.PROG_ARRAY, 4, 4, 1)), ENOTSUPP),
    (MapSpec(T.HASH_OF_MAPS, 4, 4, 4, inner=MapSpec(T.ARRAY_OF_MAPS, 4, 4, 1, inner=INNER)), errno.EINVAL),
    (MapSpec(T.QUEUE, 4, 4, 4), errno.EINVAL),
    (MapSpec(T.QUEUE, 0, (1 << 22) + 1, 4), errno.E2BIG),
    (MapSpec(T.LPM_TRIE, 8, 8, 4), errno.EINVAL),
    (MapSpec(T.LPM_TRIE, 8, 8, 4, 1), 0),
    (MapSpec(T.LPM_TRIE, 261, 8, 4, 1), errno.EINVAL),
    (MapSpec(T.RINGBUF, 0, 0, 4096), 0),
    (MapSpec(T.RINGBUF, 0, 0, 4096 * 3), errno.EINVAL),
    (MapSpec(T.RINGBUF, 0, 0, 2048), errno.EINVAL),
    (MapSpec(T.BLOOM_FILTER, 0, 4, 4, map_extra=15), 0),
    (MapSpec(T.BLOOM_FILTER, 0, 4, 4, map_extra=16), errno.EINVAL),
    (MapSpec(T.BLOOM_FILTER, 0, (1 << 22) + 1, 0), errno.E2BIG),
    (MapSpec(T.SOCKMAP, 4, 4, 4), errno.EINVAL),
    (MapSpec(99, 4, 4, 4), errno.EINVAL),
]


@pytest.mark.parametrize(("spec", "refused"), ROWS)
def test_rows(spec: MapSpec, refused: int) -> None:
    assert check_spec(spec) == -refused
    if refused:
        with pytest.raises(BpfError) as caught:
            create(spec)
        assert caught.value.errno == refused
    else:
        assert create(spec).spec is spec


def test_privileges() -> None:
    nobody, bpf, admin = frozenset[str](), frozenset({"CAP_BPF"}), frozenset({"CAP_SYS_ADMIN"})
    hash_map, lru, zero_seed = MapSpec(T.HASH, 4, 8, 4), MapSpec(T.LRU_HASH, 4, 8, 4), MapSpec(T.HASH, 4, 8, 4, 0x40)
    assert check_spec(hash_map, caps=nobody) == -errno.EPERM
    assert check_spec(hash_map, caps=nobody, unprivileged_disabled=False) == 0
    assert check_spec(lru, caps=nobody, unprivileged_disabled=False) == -errno.EPERM
    assert check_spec(lru, caps=bpf) == check_spec(lru, caps=admin) == 0
    assert check_spec(zero_seed, caps=bpf) == -errno.EPERM
    assert check_spec(zero_seed, caps=admin) == 0
    assert check_spec(MapSpec(T.ARRAY, 4, 8, (1 << 31) + 1), caps=bpf) == -errno.E2BIG


def test_memory_limit() -> None:
    """Linux allocates at creation, unless the table is not preallocated."""
    for spec, refused in ((MapSpec(T.HASH, 4, 4096, 1000), True), (MapSpec(T.HASH, 4, 4096, 1000, 1), False)):
        if refused:
            with pytest.raises(BpfError, match="ENOMEM"):
                create(spec, memory_limit=1 << 20)
        else:
            create(spec, memory_limit=1 << 20)
    with pytest.raises(BpfError, match="ENOMEM"):
        create(MapSpec(T.ARRAY, 4, 1 << 30, 1 << 31))


def test_kinds_are_rows() -> None:
    assert [MAP_KINDS[n].type for n in range(len(MapType))] == list(MapType)
    assert MAP_KIND_BY_NAME["lpm_trie"].type == T.LPM_TRIE
    assert map_type_name(1) == "hash"
    assert map_type_name(99) == "type 99"


def test_every_kind_with_a_family_can_be_created() -> None:
    for kind in MAP_KINDS.values():
        if kind.family:
            key_size = {"queue": 0, "ringbuf": 0, "bloom": 0, "trie": 8}.get(kind.family, 4)
            value_size = 0 if kind.family == "ringbuf" else 4
            live = create(MapSpec(kind.type, key_size, value_size, 4096, 1 if kind.family == "trie" else 0, inner=INNER))
            assert live.map_type == kind.type


def test_freeze() -> None:
    live = create(MapSpec(T.ARRAY, 4, 8, 1))
    live.freeze()
    with pytest.raises(BpfError, match="EPERM"):
        live.update_user(bytes(4), bytes(8))
    with pytest.raises(BpfError, match="EPERM"):
        live.freeze()
    assert live.update(bytes(4), b"programs") == 0
    assert live.lookup_user(bytes(4)) == b"programs"
