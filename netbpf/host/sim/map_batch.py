"""bpf(2) batch commands: many elements a call. How elements are walked is ``maps.batch``; here are the caller's arrays, and
what comes back when one of them is at a bad address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from netbpf.abi.commands import OFF_BATCH_COUNT, MapBatchAttr
from netbpf.errors import BpfError
from netbpf.host.sim.machine import Call
from netbpf.host.sim.map_commands import check_readable, check_writable
from netbpf.host.sim.map_values import delete_value, update_value
from netbpf.host.sim.objects import MapObject
from netbpf.maps.batch import BatchResult, delete_batch, lookup_batch, update_batch
from netbpf.maps.table import HashTable

BUCKET_TOKEN_BYTES: Final = 4


def map_lookup_batch(call: Call, attr: MapBatchAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_readable(file)
    return _lookup(call, attr, obj, delete=False)


def map_lookup_and_delete_batch(call: Call, attr: MapBatchAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_readable(file)
    check_writable(file, obj)
    return _lookup(call, attr, obj, delete=True)


def _lookup(call: Call, attr: MapBatchAttr, obj: MapObject, *, delete: bool) -> int:
    refusal = lookup_batch(obj.map, 0, elem_flags=attr.elem_flags, flags=attr.flags, delete=delete)
    if refusal.errno:
        raise BpfError(refusal.errno)
    if not attr.n:
        return 0
    call.put_u32(OFF_BATCH_COUNT, 0)
    token_size = BUCKET_TOKEN_BYTES if isinstance(obj.map, HashTable) else obj.spec.key_size
    token = call.memory.read(attr.in_batch, token_size) if attr.in_batch else None
    writer = _Writer(call, attr)
    result = lookup_batch(
        obj.map, attr.n, token, elem_flags=attr.elem_flags, flags=attr.flags, delete=delete, give=writer.give
    )
    if isinstance(obj.map, HashTable):
        _tell_token(call, attr, result)
        return _answer(call, result)
    if result.done is not None:
        call.put_u32(OFF_BATCH_COUNT, result.done)
    _tell_token(call, attr, result)
    return _answer(call, result._replace(done=None))


def _tell_token(call: Call, attr: MapBatchAttr, result: BatchResult) -> None:
    """Where the next call goes on: told before the count by hash tables, after it by the others."""
    if result.out_batch is not None:
        call.memory.write(attr.out_batch, result.out_batch)


class _Writer:
    """Keys and values into the caller's arrays, one behind the other."""

    def __init__(self, call: Call, attr: MapBatchAttr) -> None:
        self._memory, self._keys, self._values = call.memory, attr.keys, attr.values

    def give(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        for key, value in zip(keys, values, strict=True):
            self._memory.write(self._keys, key)
            self._memory.write(self._values, value)
            self._keys += len(key)
            self._values += len(value)


def map_update_batch(call: Call, attr: MapBatchAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_writable(file, obj)

    def update(key: bytes, value: bytes, flags: int) -> None:
        update_value(call, obj, key, value, flags)

    return _answer(call, update_batch(obj.map, _pairs(call, attr, obj), attr.elem_flags, update))


def map_delete_batch(call: Call, attr: MapBatchAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_writable(file, obj)

    def delete(key: bytes) -> None:
        delete_value(obj, key)

    return _answer(call, delete_batch(obj.map, _keys(call, attr, obj), attr.elem_flags, delete))


def _keys(call: Call, attr: MapBatchAttr, obj: MapObject) -> Iterator[bytes]:
    size = obj.spec.key_size
    for i in range(attr.n):
        yield call.memory.read(attr.keys + i * size, size)


def _pairs(call: Call, attr: MapBatchAttr, obj: MapObject) -> Iterator[tuple[bytes, bytes]]:
    size = obj.map.user_value_size
    for i, key in enumerate(_keys(call, attr, obj)):
        yield key, call.memory.read(attr.values + i * size, size)


def _answer(call: Call, result: BatchResult) -> int:
    """How many were done, then the errno."""
    if result.done is not None:
        call.put_u32(OFF_BATCH_COUNT, result.done)
    if result.errno:
        raise BpfError(result.errno)
    return 0
