"""BPF_MAP_*_BATCH: many elements in one call, with the kernel's cursors, counts and errnos.

A hash table's cursor is the number of the next bucket (u32), and a call gives whole buckets; the other kinds' cursor is the
last key given. What is done before an error stays done, so results carry errno beside the count and nothing is raised.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

from netbpf.abi.maps import MapType
from netbpf.errors import ENOTSUPP, BpfError
from netbpf.maps.storage import MapBase
from netbpf.maps.table import HashTable

_ARRAYS: Final = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.ARRAY_OF_MAPS})
_TABLES: Final = frozenset({MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH, MapType.HASH_OF_MAPS})
_DELETABLE: Final = _TABLES | {MapType.LPM_TRIE}
_READABLE: Final = _DELETABLE | _ARRAYS


class BatchResult(NamedTuple):
    """``errno``: 0 or positive. ``done``: how many elements, None where the kernel leaves the caller's count alone.
    ``out_batch``: the cursor for the next call, None where it is not written."""

    errno: int
    done: int | None = None
    keys: tuple[bytes, ...] = ()
    values: tuple[bytes, ...] = ()
    out_batch: bytes | None = None


Give = Callable[[Sequence[bytes], Sequence[bytes]], None]


def lookup_batch(
    live: MapBase,
    count: int,
    in_batch: bytes | None = None,
    *,
    elem_flags: int = 0,
    flags: int = 0,
    delete: bool = False,
    give: Give | None = None,
) -> BatchResult:
    """BPF_MAP_LOOKUP_BATCH, or with ``delete`` BPF_MAP_LOOKUP_AND_DELETE_BATCH: up to ``count`` elements after ``in_batch``.

    ``give`` is handed keys and values as they are found, a bucket's at a time (deleted by then); what it raises ends the call.
    errno is ENOENT when the end was reached (with the last elements), ENOSPC when ``count`` is too small for one bucket.
    """
    if live.map_type not in (_TABLES if delete else _READABLE):
        return BatchResult(ENOTSUPP)
    if elem_flags:
        return BatchResult(errno.EINVAL)
    if not isinstance(live, HashTable):
        return _lookup_by_key(live, count, in_batch, give) if count else BatchResult(0)
    if flags:
        return BatchResult(errno.EINVAL)
    return _lookup_buckets(live, count, in_batch, delete, give) if count else BatchResult(0)


def _lookup_by_key(live: MapBase, count: int, previous: bytes | None, give: Give | None) -> BatchResult:
    keys: list[bytes] = []
    values: list[bytes] = []
    while len(keys) < count:
        key = live.next_key(previous)
        if key is None:
            return _result(errno.ENOENT, keys, values, previous)
        previous = key
        try:
            values.append(live.lookup_user(key))
        except BpfError as refused:
            if refused.errno != errno.ENOENT:
                return BatchResult(refused.args[0], 0)
            continue  # an entry of an array of maps that is not set
        keys.append(key)
        if give:
            give(keys[-1:], values[-1:])
    return _result(0, keys, values, previous)


def _result(error: int, keys: list[bytes], values: list[bytes], cursor: bytes | None) -> BatchResult:
    return BatchResult(error, len(keys), tuple(keys), tuple(values), cursor if keys else None)


def _lookup_buckets(live: HashTable, count: int, in_batch: bytes | None, delete: bool, give: Give | None) -> BatchResult:
    bucket = int.from_bytes(in_batch[:4], "little") if in_batch is not None else 0
    if bucket >= live.n_buckets:
        return BatchResult(errno.ENOENT, 0)
    keys: list[bytes] = []
    values: list[bytes] = []
    error = errno.ENOENT
    while bucket < live.n_buckets:
        elements = live.bucket_elements(bucket)
        if len(elements) > count - len(keys):
            error = 0 if keys else errno.ENOSPC
            break
        found = [live.key_of(i) for i in elements]
        read = [live.read_value(live.value_of(i)) for i in elements]
        keys, values = keys + found, values + read
        for key in found if delete else ():
            live.delete_user(key)
        if give:
            give(found, read)
        bucket += 1
    return BatchResult(error, len(keys), tuple(keys), tuple(values), bucket.to_bytes(4, "little"))


Update = Callable[[bytes, bytes, int], None]


def update_batch(
    live: MapBase, pairs: Iterable[tuple[bytes, bytes]], elem_flags: int = 0, update: Update | None = None
) -> BatchResult:
    """BPF_MAP_UPDATE_BATCH: up to the first update that is refused (``pairs`` may be read as it goes).
    ``update`` is how one pair is written, ``live.update_user`` unless the host must resolve descriptors first."""
    if live.map_type not in _READABLE:
        return BatchResult(ENOTSUPP)
    if elem_flags:
        return BatchResult(errno.EINVAL)
    put = update or live.update_user
    return _each(partial(put, key, value, 0) for key, value in pairs)


def delete_batch(
    live: MapBase, keys: Iterable[bytes], elem_flags: int = 0, delete: Callable[[bytes], None] | None = None
) -> BatchResult:
    """BPF_MAP_DELETE_BATCH: up to the first key that is refused. ``delete`` as ``update`` there."""
    if live.map_type not in _DELETABLE:
        return BatchResult(ENOTSUPP)
    if elem_flags:
        return BatchResult(errno.EINVAL)
    return _each(partial(delete or live.delete_user, key) for key in keys)


def _each(calls: Iterable[Callable[[], None]]) -> BatchResult:
    """Make the calls until one, or the next one's arguments, is refused; none at all leaves the caller's count alone."""
    done = 0
    try:
        for call in calls:
            call()
            done += 1
    except BpfError as refused:
        return BatchResult(refused.args[0], done)
    return BatchResult(0, done or None)
