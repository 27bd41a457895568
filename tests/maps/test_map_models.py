"""Every kind against a model of a few lines, under random operation sequences."""

from __future__ import annotations

import errno
import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.map_ops import outcome, walk

from netbpf.abi.maps import BPF_F_NO_COMMON_LRU, BPF_F_NO_PREALLOC, BPF_F_ZERO_SEED, MapType
from netbpf.maps.base import BPF_EXIST, BPF_NOEXIST
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec

T = MapType
N_CPUS = 3


class DictModel:
    """A hash map: a dict per CPU with one set of keys."""

    def __init__(self, spec: MapSpec) -> None:
        self.spec, self.values = spec, dict[bytes, list[bytes]]()

    def update(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        if flags > BPF_EXIST:
            return -errno.EINVAL
        if key in self.values and flags == BPF_NOEXIST:
            return -errno.EEXIST
        if key not in self.values and flags == BPF_EXIST:
            return -errno.ENOENT
        if key not in self.values and len(self.values) == self.spec.max_entries:
            return -errno.E2BIG
        self.values.setdefault(key, [bytes(self.spec.value_size)] * N_CPUS)
        self.values[key] = [value if n == cpu else old for n, old in enumerate(self.values[key])]
        return 0

    def delete(self, key: bytes) -> int:
        return 0 if self.values.pop(key, None) else -errno.ENOENT

    def get(self, key: bytes, cpu: int) -> bytes | None:
        return self.values[key][cpu] if key in self.values else None


def read(live: Any, key: bytes, cpu: int = 0) -> bytes | None:
    at = live.lookup(key, cpu)
    return None if at < 0 else live.memory[at : at + live.spec.value_size]


Op = tuple[str, int, int, int, int]
VERBS = st.sampled_from(("update", "update", "delete", "get"))
OPS = st.lists(st.tuples(VERBS, st.integers(0, 11), st.integers(0, 2**24), st.integers(0, 3), st.integers(0, 2)), max_size=120)
SHAPES = [(T.HASH, 4, 8), (T.HASH, 16, 3), (T.HASH, 7, 16), (T.PERCPU_HASH, 4, 8), (T.PERCPU_HASH, 9, 3)]
PREFIX_VERBS = st.sampled_from(("add", "add", "delete"))
PREFIX_OPS = st.lists(st.tuples(PREFIX_VERBS, st.integers(0, 17), st.integers(0, 0xFFFF)), max_size=60)


@pytest.mark.parametrize("flags", [0, BPF_F_NO_PREALLOC, BPF_F_ZERO_SEED])
@pytest.mark.parametrize(("kind", "key_size", "value_size"), SHAPES)
@settings(max_examples=25, deadline=None)
@given(ops=OPS)
def test_hash_tables(kind: MapType, key_size: int, value_size: int, flags: int, ops: list[Op]) -> None:
    spec = MapSpec(kind, key_size, value_size, 8, flags)
    live: Any = create(spec, n_cpus=N_CPUS)
    model = DictModel(spec)
    for op, k, v, update_flags, cpu in ops:
        cpu = cpu if kind == T.PERCPU_HASH else 0
        key, value = k.to_bytes(key_size, "little"), v.to_bytes(max(value_size, 4), "little")[:value_size]
        if op == "update":
            assert live.update(key, value, update_flags, cpu) == model.update(key, value, update_flags, cpu)
        elif op == "delete":
            assert live.delete(key) == model.delete(key)
        assert read(live, key, cpu) == model.get(key, cpu)
    assert sorted(walk(live)) == sorted(model.values)
    assert [key for key, _ in live.each()] == walk(live)


@pytest.mark.parametrize("kind", [T.ARRAY, T.PERCPU_ARRAY])
def test_arrays(kind: MapType) -> None:
    rng = random.Random(kind)
    spec = MapSpec(kind, 4, 5, 6)
    live: Any = create(spec, n_cpus=N_CPUS)
    cpus = N_CPUS if kind == T.PERCPU_ARRAY else 1
    model = {(index, cpu): bytes(5) for index in range(6) for cpu in range(cpus)}
    for _ in range(500):
        index, cpu, value, flags = rng.randrange(8), rng.randrange(cpus), rng.randbytes(5), rng.randrange(4)
        expected = -errno.EINVAL if flags > 2 else -errno.E2BIG if index > 5 else -errno.EEXIST if flags == 1 else 0
        assert live.update(index.to_bytes(4, "little"), value, flags, cpu) == expected
        if not expected:
            model[index, cpu] = value
        assert read(live, index.to_bytes(4, "little"), cpu) == model.get((index, cpu))
    assert live.delete(bytes(4)) == -errno.EINVAL
    assert walk(live) == [n.to_bytes(4, "little") for n in range(6)]


@pytest.mark.parametrize("kind", [T.QUEUE, T.STACK])
def test_queues(kind: MapType) -> None:
    rng = random.Random(kind)
    live: Any = create(MapSpec(kind, 0, 5, 4))
    model: deque[bytes] = deque()
    for _ in range(1000):
        if rng.randrange(5) < 3:
            value, flags = rng.randbytes(5), rng.choice((0, 2))
            full = len(model) == 4
            assert live.push(value, flags) == (-errno.E2BIG if full and not flags else 0)
            if full and flags:
                model.popleft()
            if not full or flags:
                model.append(value)
        else:
            taken = (model.popleft() if kind == T.QUEUE else model.pop()) if model else None
            assert live.peek() == taken
            assert live.pop() == taken
        assert live.values() == (list(model) if kind == T.QUEUE else list(model)[::-1])


@settings(max_examples=60, deadline=None)
@given(PREFIX_OPS, st.integers(0, 0xFFFF))
def test_trie(ops: list[tuple[str, int, int]], probe: int) -> None:
    live: Any = create(MapSpec(T.LPM_TRIE, 6, 4, 20, 1))
    model: dict[str, bytes] = {}
    for op, length, bits in ops:
        key, prefix = length.to_bytes(4, "little") + bits.to_bytes(2, "big"), f"{bits:016b}"[:length]
        value = random.Random(bits).randbytes(4)
        if length > 16:
            assert live.update(key, value) == live.delete(key) == -errno.EINVAL
        elif op == "add":
            full = prefix not in model and len(model) == 20
            assert live.update(key, value) == (-errno.ENOSPC if full else 0)
            if not full:
                model[prefix] = value
        else:
            assert live.delete(key) == (0 if model.pop(prefix, None) else -errno.ENOENT)
    for bits in (probe, *(bits for _, _, bits in ops)):
        matching = [prefix for prefix in model if f"{bits:016b}".startswith(prefix)]
        longest = model[max(matching, key=len)] if matching else None
        assert read(live, (16).to_bytes(4, "little") + bits.to_bytes(2, "big")) == longest
    keys = [f"{int.from_bytes(key[4:], 'big'):016b}"[: key[0]] for key in walk(live)]
    assert sorted(keys) == sorted(model)
    for n, key in enumerate(keys):
        assert not any(later.startswith(key) and later != key for later in keys[n:])


def test_a_bloom_filter_finds_what_was_pushed() -> None:
    rng = random.Random(5)
    live: Any = create(MapSpec(T.BLOOM_FILTER, 0, 6, 1000))
    pushed = [rng.randbytes(6) for _ in range(1000)]
    assert {live.push(value) for value in pushed} == {0}
    assert all(live.contains(value) for value in pushed)
    assert sum(live.contains(rng.randbytes(6)) for _ in range(1000)) < 60
    assert outcome(live.peek_user, pushed[0]) == ("ok", None)


@pytest.mark.parametrize("lists", [0, BPF_F_NO_COMMON_LRU])
@pytest.mark.parametrize("kind", [T.LRU_HASH, T.LRU_PERCPU_HASH])
def test_an_lru_never_refuses_and_keeps_what_is_used(kind: MapType, lists: int) -> None:
    """What it holds is what was last written; a key looked up all the time outlives those that are not."""
    rng = random.Random(kind)
    live: Any = create(MapSpec(kind, 4, 8, 60, lists), n_cpus=N_CPUS)
    model: dict[bytes, bytes] = {}
    hot = (1 << 20).to_bytes(4, "little")
    assert live.update(hot, bytes(8)) == 0
    for _ in range(3000):
        key, value, cpu = rng.randrange(500).to_bytes(4, "little"), rng.randbytes(8), rng.randrange(N_CPUS)
        assert live.update(key, value, 0, cpu if kind == T.LRU_HASH else 0) == 0
        model[key] = value
        if rng.randrange(10) == 0:
            live.delete(key)
            del model[key]
        assert live.lookup(hot) >= 0
    keys = walk(live)
    assert 10 < len(keys) <= 60
    assert all(read(live, key) == model[key] for key in keys if key != hot)


def test_ringbuf_keeps_order_and_room() -> None:
    rng = random.Random(9)
    live: Any = create(MapSpec(T.RINGBUF, 0, 0, 4096))
    sent: deque[bytes] = deque()
    open_records: deque[tuple[int, bytes, bool]] = deque()
    for _ in range(3000):
        choice = rng.randrange(5)
        if choice < 2:
            record = rng.randbytes(rng.choice((1, 8, 100, 700)))
            at = live.reserve(len(record))
            if at >= 0:
                live.memory[at : at + len(record)] = record
                open_records.append((at, record, rng.randrange(4) == 0))
        elif choice < 4 and open_records:
            at, record, discard = open_records.popleft()
            live.commit(at, discard=discard)
            if not discard:
                sent.append(record)
        else:
            for record in live.consume(rng.randrange(6)):
                assert record == sent.popleft()
    assert live.query(0) == live.query(3) - live.query(2) <= live.query(1) == 4096


def test_a_stale_value_pointer_stays_valid() -> None:
    """After a delete, or an update, an old pointer shows the old value until the element is used again."""
    live: Any = create(MapSpec(T.HASH, 4, 8, 4))
    live.update(b"aaaa", b"12345678")
    at = live.lookup(b"aaaa")
    live.update(b"aaaa", b"ABCDEFGH")
    assert live.memory[at : at + 8] == b"12345678"
    again = live.lookup(b"aaaa")
    live.delete(b"aaaa")
    assert live.memory[again : again + 8] == b"ABCDEFGH"


def test_a_table_without_preallocation_is_laid_out_within_reason() -> None:
    """Sixteen terabytes of entries: created, usable, and no page is touched before it is used."""
    live: Any = create(MapSpec(T.HASH, 4, 1 << 20, 1 << 24, BPF_F_NO_PREALLOC))
    assert live.update(b"aaaa", bytes(1 << 20)) == 0
    assert live.lookup(b"aaaa") > 0
    assert len(walk(live)) == 1
