"""bpf(2) batch commands: many elements a call. Two shapes, as in the kernel: hash kinds walk whole buckets and resume at a
bucket number; the others walk keys and resume at a key."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from netbpf.abi.commands import OFF_BATCH_COUNT, Cmd, MapBatchAttr
from netbpf.abi.maps import MapType
from netbpf.errors import ENOTSUPP, BpfError
from netbpf.host.sim.machine import Call
from netbpf.host.sim.map_commands import check_readable, check_writable, update_value
from netbpf.host.sim.objects import MapObject
from netbpf.maps.table import HashTable

_T = MapType
_HASHES: Final = frozenset({_T.HASH, _T.LRU_HASH, _T.PERCPU_HASH, _T.LRU_PERCPU_HASH})
_BY_KEY: Final = frozenset({_T.ARRAY, _T.PERCPU_ARRAY, _T.LPM_TRIE, _T.ARRAY_OF_MAPS, _T.HASH_OF_MAPS})
_CAN_LOOKUP: Final = _HASHES | _BY_KEY
_CAN_UPDATE: Final = _HASHES | _BY_KEY
_CAN_DELETE: Final = _HASHES | {_T.LPM_TRIE, _T.HASH_OF_MAPS}


def map_lookup_batch(call: Call, attr: MapBatchAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_readable(file)
    if obj.spec.map_type not in _CAN_LOOKUP:
        raise BpfError(ENOTSUPP)
    if isinstance(obj.map, HashTable) and obj.spec.map_type in _HASHES:
        return _walk_buckets(call, attr, obj.map, delete=False)
    return _walk_keys(call, attr, obj)


def map_lookup_and_delete_batch(call: Call, attr: MapBatchAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_readable(file)
    check_writable(file, obj)
    if not isinstance(obj.map, HashTable) or obj.spec.map_type not in _HASHES:
        raise BpfError(ENOTSUPP)
    return _walk_buckets(call, attr, obj.map, delete=True)


def map_update_batch(call: Call, attr: MapBatchAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_writable(file, obj)
    if obj.spec.map_type not in _CAN_UPDATE:
        raise BpfError(ENOTSUPP)
    _check_elem_flags(attr)
    key_size, value_size = obj.spec.key_size, obj.map.user_value_size

    def one(i: int) -> None:
        key = call.memory.read(attr.keys + i * key_size, key_size)
        value = call.memory.read(attr.values + i * value_size, value_size)
        update_value(call, obj, key, value, attr.elem_flags)

    return _count_through(call, attr, one)


def map_delete_batch(call: Call, attr: MapBatchAttr) -> int:
    file, obj = call.map_file(attr.map_fd)
    check_writable(file, obj)
    if obj.spec.map_type not in _CAN_DELETE:
        raise BpfError(ENOTSUPP)
    _check_elem_flags(attr)
    key_size = obj.spec.key_size

    def one(i: int) -> None:
        obj.map.delete_user(call.memory.read(attr.keys + i * key_size, key_size))

    return _count_through(call, attr, one)


def _check_elem_flags(attr: MapBatchAttr) -> None:
    """Only BPF_F_LOCK is known, and needs a bpf_spin_lock that no map here has."""
    if attr.elem_flags:
        raise BpfError(errno.EINVAL)


def _count_through(call: Call, attr: MapBatchAttr, one: Callable[[int], None]) -> int:
    """Elements in turn until one fails; ``count`` tells how many went well."""
    if not attr.n:
        return 0
    done, failure = 0, None
    try:
        while done < attr.n:
            one(done)
            done += 1
    except BpfError as e:
        failure = e
    call.put_u32(OFF_BATCH_COUNT, done)
    if failure is not None:
        raise failure
    return 0


def _walk_keys(call: Call, attr: MapBatchAttr, obj: MapObject) -> int:
    """generic_map_lookup_batch: the token is the last key given."""
    _check_elem_flags(attr)
    if not attr.n:
        return 0
    call.put_u32(OFF_BATCH_COUNT, 0)
    key_size, value_size = obj.spec.key_size, obj.map.user_value_size
    key = call.memory.read(attr.in_batch, key_size) if attr.in_batch else None
    done, ended = 0, False
    while done < attr.n:
        following = obj.map.next_key(key)
        if following is None:
            ended = True
            break
        key = following
        try:
            value = obj.map.lookup_user(key)
        except BpfError as e:
            if e.errno == errno.ENOENT:
                continue
            raise
        call.memory.write(attr.keys + done * key_size, key)
        call.memory.write(attr.values + done * value_size, value)
        done += 1
    call.put_u32(OFF_BATCH_COUNT, done)
    if done and key is not None:
        call.memory.write(attr.out_batch, key)
    if ended:
        raise BpfError(errno.ENOENT)
    return 0


def _walk_buckets(call: Call, attr: MapBatchAttr, table: HashTable, *, delete: bool) -> int:
    """Whole buckets while they fit; ENOSPC when not even the first does. The token is the next bucket's number, a u32."""
    _check_elem_flags(attr)
    if attr.flags:
        raise BpfError(errno.EINVAL)
    if not attr.n:
        return 0
    call.put_u32(OFF_BATCH_COUNT, 0)
    bucket = int.from_bytes(call.memory.read(attr.in_batch, 4), "little") if attr.in_batch else 0
    if bucket >= table.n_buckets:
        raise BpfError(errno.ENOENT)
    done, failure = 0, 0
    while bucket < table.n_buckets:
        keys = [table.key_of(i) for i in table.bucket_elements(bucket)]
        if len(keys) > attr.n - done:
            failure = 0 if done else errno.ENOSPC
            break
        values = [table.lookup_user(key) for key in keys]
        if delete:  # before they are copied out: a bad address loses them
            for key in keys:
                table.delete_user(key)
        for key, value in zip(keys, values, strict=True):
            call.memory.write(attr.keys + done * len(key), key)
            call.memory.write(attr.values + done * len(value), value)
            done += 1
        bucket += 1
    else:
        failure = errno.ENOENT
    call.memory.write(attr.out_batch, bucket.to_bytes(4, "little"))
    call.put_u32(OFF_BATCH_COUNT, done)
    if failure:
        raise BpfError(failure)
    return 0


BATCH_COMMANDS: Final[dict[int, Callable[[Call, Any], int]]] = {
    Cmd.BPF_MAP_LOOKUP_BATCH: map_lookup_batch,
    Cmd.BPF_MAP_LOOKUP_AND_DELETE_BATCH: map_lookup_and_delete_batch,
    Cmd.BPF_MAP_UPDATE_BATCH: map_update_batch,
    Cmd.BPF_MAP_DELETE_BATCH: map_delete_batch,
}
