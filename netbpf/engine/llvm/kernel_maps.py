"""The kernels of each kind of map, with the numbers of one map written in. See ``kernels.language``."""

from __future__ import annotations

from typing import Any, Final

from netbpf.abi.maps import BPF_F_NO_COMMON_LRU, MapType
from netbpf.engine.llvm.kernels.language import External, Loaded, Number, compile_kernels
from netbpf.engine.llvm.shape import LRU_TABLES, PER_CPU
from netbpf.ints import round_up
from netbpf.maps.lru import LISTS_SIZE, LOCAL_FREE_TARGET, LOCAL_NR_SCANS, LOCAL_SIZE, PERCPU_NR_SCANS

OF_TABLES: Final = {
    "key_hash": External("hash", ("ptr", "ptr"), "i32"),
    "find": External("find", ("ptr", "ptr", "i32"), "i32"),
    "unlink": External("unlink", ("ptr", "i32"), "void"),
}


def emit_kernels(suffix: str, m: Any, *, shared: bool) -> str:
    """The functions of a map that are kernels; "" for a kind without. With ``shared`` they serve all like it but for their number
    of entries, and what follows from that is read from the map's header."""
    kind = _MODULES.get(m.spec.map_type)
    if kind is None:
        return ""
    name, numbers = kind
    known = numbers(m) | (_HEADERS[name] if shared else {})
    return compile_kernels(name, suffix, known, OF_TABLES if m.spec.map_type in LRU_TABLES else {})


# the numbers of maps.table, maps.lpm_trie, maps.circular, maps.bloom_filter, maps.ringbuf that differ between maps inside one map
_HEADERS: Final = {
    "lru": {
        "TABLE_ENTRIES": Loaded(32, 12), "N_BUCKETS": Loaded(32, 16), "BUCKETS_OFF": Loaded(64, 32), "ELEMS_OFF": Loaded(64, 40),
        "VALUE_OFF": Loaded(64, 48), "CPU_STRIDE": Loaded(64, 56),
    },
    "trie": {"MAX_ENTRIES": Loaded(32, 16), "MAX_NODES": Loaded(32, 28)},
    "circular": {"SIZE": Loaded(32, 8)},
    "ring": {"MASK": Loaded(64, 4112)},
    "bloom": {"SEED": Loaded(32, 0), "NR_HASHES": Loaded(32, 4), "BITSET_MASK": Loaded(32, 8)},
}  # fmt: skip


def _sizes(m: Any) -> dict[str, Number]:
    return {"KEY_SIZE": m.spec.key_size, "VALUE_SIZE": m.spec.value_size, "MAX_ENTRIES": m.spec.max_entries, "N_CPUS": m.n_cpus}


def _lru(m: Any) -> dict[str, Number]:
    common = not m.spec.map_flags & BPF_F_NO_COMMON_LRU
    base = m.extra_off >> 2
    return _sizes(m) | {
        "COMMON": common, "BASE": base, "LISTS_WORDS": LISTS_SIZE >> 2, "LOCALS": base + (LISTS_SIZE >> 2),
        "LOCAL_WORDS": LOCAL_SIZE >> 2, "NR_SCANS": LOCAL_NR_SCANS if common else PERCPU_NR_SCANS,
        "LOCAL_FREE_TARGET": LOCAL_FREE_TARGET, "TABLE_ENTRIES": int(m.u32[3]),
        "BUCKETS_OFF": int(m.u64[4]), "N_BUCKETS": m.n_buckets, "ELEMS_OFF": int(m.u64[5]), "ELEM_SIZE": m.elem_size,
        "KEY_AT": m.key_at, "VALUE_OFF": m.value_off, "VALUE_STEP": m.value_step, "CPU_STRIDE": m.cpu_stride,
        "PER_CPU": m.spec.map_type in PER_CPU,
    }  # fmt: skip


def _trie(m: Any) -> dict[str, Number]:
    data_size = m.spec.key_size - 4
    return _sizes(m) | {
        "DATA_SIZE": data_size, "MAX_PREFIXLEN": 8 * data_size, "NODE_SIZE": int(m.u32[5]), "VALUE_AT": int(m.u32[6]),
        "MAX_NODES": int(m.u32[7]),
    }  # fmt: skip


def _circular(m: Any) -> dict[str, Number]:
    return _sizes(m) | {
        "SIZE": m.spec.max_entries + 1, "ELEM_SIZE": round_up(m.spec.value_size, 8), "TAKES_NEWEST": m.takes_newest,
    }  # fmt: skip


def _bloom(m: Any) -> dict[str, Number]:
    return _sizes(m) | {"SEED": int(m.u32[0]), "NR_HASHES": int(m.u32[1]), "BITSET_MASK": int(m.u32[2])}


def _ring(m: Any) -> dict[str, Number]:
    return {"MASK": m.spec.max_entries - 1}


_MODULES: Final[dict[int, tuple[str, Any]]] = {
    MapType.LRU_HASH: ("lru", _lru),
    MapType.LRU_PERCPU_HASH: ("lru", _lru),
    MapType.LPM_TRIE: ("trie", _trie),
    MapType.QUEUE: ("circular", _circular),
    MapType.STACK: ("circular", _circular),
    MapType.BLOOM_FILTER: ("bloom", _bloom),
    MapType.RINGBUF: ("ring", _ring),
    MapType.PERF_EVENT_ARRAY: ("perf", _sizes),
}
