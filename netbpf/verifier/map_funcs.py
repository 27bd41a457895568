"""Which helpers take which kinds of maps.

A kind with a row in ``FUNCS_OF_MAP`` goes only into those helpers; a helper with a row in ``MAPS_OF_FUNC`` takes only
those kinds.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.helpers import FUNC_IDS, HELPERS
from netbpf.abi.maps import MapType
from netbpf.verifier.env import MapInfo, Reject, VerifierEnv
from netbpf.verifier.log import verbose


def _ids(names: str) -> frozenset[int]:
    return frozenset(FUNC_IDS[name] for name in names.split())


def _kinds(names: str) -> frozenset[int]:
    return frozenset(MapType[name] for name in names.split())


_LOCAL: Final = "map_lookup_elem map_update_elem map_delete_elem"

FUNCS_OF_MAP: Final[dict[int, frozenset[int]]] = {
    MapType.PROG_ARRAY: _ids("tail_call"),
    MapType.PERF_EVENT_ARRAY: _ids("perf_event_read perf_event_output skb_output perf_event_read_value xdp_output"),
    MapType.RINGBUF: _ids(
        "ringbuf_output ringbuf_reserve ringbuf_query ringbuf_reserve_dynptr ringbuf_submit_dynptr ringbuf_discard_dynptr"
    ),
    MapType.USER_RINGBUF: _ids("user_ringbuf_drain"),
    MapType.STACK_TRACE: _ids("get_stackid"),
    MapType.CGROUP_ARRAY: _ids("skb_under_cgroup current_task_under_cgroup"),
    MapType.CGROUP_STORAGE: _ids("get_local_storage"),
    MapType.PERCPU_CGROUP_STORAGE: _ids("get_local_storage"),
    MapType.DEVMAP: _ids("redirect_map map_lookup_elem"),
    MapType.DEVMAP_HASH: _ids("redirect_map map_lookup_elem"),
    MapType.CPUMAP: _ids("redirect_map"),
    MapType.XSKMAP: _ids("redirect_map map_lookup_elem"),
    MapType.ARRAY_OF_MAPS: _ids("map_lookup_elem"),
    MapType.HASH_OF_MAPS: _ids("map_lookup_elem"),
    MapType.SOCKMAP: _ids(
        "sk_redirect_map sock_map_update map_update_elem map_delete_elem msg_redirect_map sk_select_reuseport map_lookup_elem"
    ),
    MapType.SOCKHASH: _ids(
        "sk_redirect_hash sock_hash_update map_update_elem map_delete_elem msg_redirect_hash sk_select_reuseport map_lookup_elem"
    ),
    MapType.REUSEPORT_SOCKARRAY: _ids("sk_select_reuseport"),
    MapType.QUEUE: _ids("map_peek_elem map_pop_elem map_push_elem"),
    MapType.STACK: _ids("map_peek_elem map_pop_elem map_push_elem"),
    MapType.SK_STORAGE: _ids("sk_storage_get sk_storage_delete kptr_xchg"),
    MapType.INODE_STORAGE: _ids("inode_storage_get inode_storage_delete kptr_xchg"),
    MapType.TASK_STORAGE: _ids("task_storage_get task_storage_delete kptr_xchg"),
    MapType.CGRP_STORAGE: _ids("cgrp_storage_get cgrp_storage_delete kptr_xchg"),
    MapType.BLOOM_FILTER: _ids("map_peek_elem map_push_elem"),
}

_MAPS_OF: Final = (
    ("tail_call", "PROG_ARRAY"),
    ("perf_event_read perf_event_output perf_event_read_value skb_output xdp_output", "PERF_EVENT_ARRAY"),
    (
        "ringbuf_output ringbuf_reserve ringbuf_query ringbuf_reserve_dynptr ringbuf_submit_dynptr ringbuf_discard_dynptr",
        "RINGBUF",
    ),
    ("user_ringbuf_drain", "USER_RINGBUF"),
    ("get_stackid", "STACK_TRACE"),
    ("current_task_under_cgroup skb_under_cgroup", "CGROUP_ARRAY"),
    ("redirect_map", "DEVMAP DEVMAP_HASH CPUMAP XSKMAP"),
    ("sk_redirect_map msg_redirect_map sock_map_update", "SOCKMAP"),
    ("sk_redirect_hash msg_redirect_hash sock_hash_update", "SOCKHASH"),
    ("get_local_storage", "CGROUP_STORAGE PERCPU_CGROUP_STORAGE"),
    ("sk_select_reuseport", "REUSEPORT_SOCKARRAY SOCKMAP SOCKHASH"),
    ("map_pop_elem", "QUEUE STACK"),
    ("map_peek_elem map_push_elem", "QUEUE STACK BLOOM_FILTER"),
    ("map_lookup_percpu_elem", "PERCPU_ARRAY PERCPU_HASH LRU_PERCPU_HASH"),
    ("sk_storage_get sk_storage_delete", "SK_STORAGE"),
    ("inode_storage_get inode_storage_delete", "INODE_STORAGE"),
    ("task_storage_get task_storage_delete", "TASK_STORAGE"),
    ("cgrp_storage_get cgrp_storage_delete", "CGRP_STORAGE"),
)
MAPS_OF_FUNC: Final[dict[int, frozenset[int]]] = {func: _kinds(kinds) for funcs, kinds in _MAPS_OF for func in _ids(funcs)}

# kinds whose elements bpf_for_each_map_elem can walk
FOR_EACH_MAPS: Final = _kinds("HASH LRU_HASH PERCPU_HASH LRU_PERCPU_HASH ARRAY PERCPU_ARRAY")
# kinds in which a key below max_entries is always there
ELIDE_NULL_MAPS: Final = _kinds("ARRAY PERCPU_ARRAY")


def func_text(func_id: int) -> str:
    """``bpf_map_lookup_elem#1``, ``unknown#999``."""
    proto = HELPERS.get(func_id)
    return f"{proto.func_name if proto else 'unknown'}#{func_id}"


def check_map_func_compatibility(env: VerifierEnv, info: MapInfo | None, func_id: int) -> None:
    """Raises Reject(EINVAL) where the helper does not take this kind of map."""
    if info is None:
        return
    kind = info.spec.map_type
    if func_id in FUNCS_OF_MAP.get(kind, (func_id,)) and kind in MAPS_OF_FUNC.get(func_id, (kind,)):
        return
    verbose(env, f"cannot pass map_type {int(kind)} into func {func_text(func_id)}\n")
    raise Reject(errno.EINVAL)
