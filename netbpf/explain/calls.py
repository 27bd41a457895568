"""Helper calls in words: each argument by what the helper's prototype says it is, and what came back.

Maps by name, keys and values by their types, memory as bytes, the context as ``ctx``. Knows prototypes and places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from netbpf.abi import arg_types as at
from netbpf.abi.helpers import FUNC_IDS, HELPERS, HelperProto
from netbpf.engine.interp.machine import Machine
from netbpf.engine.interp.memory import Fault, MapWindow
from netbpf.explain.places import Places, map_name, number, plain, result
from netbpf.ints import u32
from netbpf.isa.disasm import helper_name
from netbpf.maps.base import Map

Words = Callable[[bytes], str]
BASE_MASK: Final = 0xFF
MAX_TEXT: Final = 64
SIZES: Final = frozenset({at.ARG_CONST_SIZE, at.ARG_CONST_SIZE_OR_ZERO})
SKB_LOAD_BYTES: Final = FUNC_IDS["skb_load_bytes"]
SKB_LOAD_BYTES_RELATIVE: Final = FUNC_IDS["skb_load_bytes_relative"]
LOOKUPS: Final = frozenset({FUNC_IDS["map_lookup_elem"], FUNC_IDS["map_lookup_percpu_elem"]})
PERF_EVENT_OUTPUT: Final = FUNC_IDS["perf_event_output"]
KEYED_WRITES: Final = frozenset({FUNC_IDS["map_update_elem"], FUNC_IDS["map_delete_elem"]})
UNKEYED_WRITES: Final = {
    FUNC_IDS["map_push_elem"]: "pushed",
    FUNC_IDS["ringbuf_output"]: "wrote",
    PERF_EVENT_OUTPUT: "wrote",
    FUNC_IDS["map_pop_elem"]: "popped",
    FUNC_IDS["ringbuf_submit"]: "submitted",
}
"""Helpers that change a map without keys, and the word for it."""

_ARG_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "skb_load_bytes": ("skb", "offset", "to", "len"),
    "skb_load_bytes_relative": ("skb", "offset", "to", "len", "start_header"),
    "map_lookup_elem": ("map", "key"),
    "map_lookup_percpu_elem": ("map", "key", "cpu"),
    "map_update_elem": ("map", "key", "value", "flags"),
    "map_delete_elem": ("map", "key"),
    "map_push_elem": ("map", "value", "flags"),
    "map_pop_elem": ("map", "value"),
    "map_peek_elem": ("map", "value"),
    "for_each_map_elem": ("map", "callback", "ctx", "flags"),
    "loop": ("nr_loops", "callback", "ctx", "flags"),
    "perf_event_output": ("ctx", "map", "flags", "data", "size"),
    "ringbuf_output": ("ringbuf", "data", "size", "flags"),
    "ringbuf_reserve": ("ringbuf", "size", "flags"),
    "ringbuf_submit": ("data", "flags"),
    "ringbuf_discard": ("data", "flags"),
    "ringbuf_query": ("ringbuf", "flags"),
    "trace_printk": ("fmt", "fmt_size", "arg1", "arg2", "arg3"),
    "tail_call": ("ctx", "map", "index"),
}


class Written(NamedTuple):
    """Memory a call may write: ``size`` bytes at ``address``."""

    address: int
    size: int


class Calls:
    """The helper calls of one machine."""

    def __init__(self, machine: Machine, places: Places) -> None:
        self.machine, self.places = machine, places

    def name(self, func_id: int) -> str:
        """``map_lookup_elem``, without the bpf_ in front."""
        return (helper_name(func_id) or f"helper#{func_id}").removeprefix("bpf_")

    def arguments(self, func_id: int, regs: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
        """(name, value in words) of each argument that the helper has."""
        proto = HELPERS.get(func_id)
        if proto is None or not proto.args:
            return ()
        names = _ARG_NAMES.get(proto.name, ())
        live = self.map_of(proto, regs)
        return tuple(
            (names[i] if i < len(names) else f"arg{i + 1}", self._argument(proto, i, regs, live)) for i in range(len(proto.args))
        )

    def map_of(self, proto: HelperProto, regs: tuple[int, ...]) -> Map | None:
        """The map that the call is given."""
        for i, kind in enumerate(proto.args):
            if kind & BASE_MASK == at.ARG_CONST_MAP_PTR:
                window = self.window(regs[1 + i])
                return window.map if window is not None else None
        return None

    def window(self, address: int) -> MapWindow | None:
        """The values of the map whose address a register holds."""
        handle = self.machine.handles.get(address)
        return handle.window if handle is not None else None

    def _argument(self, proto: HelperProto, i: int, regs: tuple[int, ...], live: Map | None) -> str:
        kind, value = proto.args[i], regs[1 + i]
        base, places = kind & BASE_MASK, self.places
        if base == at.ARG_CONST_MAP_PTR:
            return map_name(live) if live is not None else places.describe(value)
        if not value and kind & at.PTR_MAYBE_NULL:
            return "NULL"
        if live is not None and base == at.ARG_PTR_TO_MAP_KEY:
            return self._bytes(value, live.spec.key_size, lambda data: places.key(live, data))
        if base == at.ARG_PTR_TO_MAP_VALUE and kind & at.MEM_UNINIT:
            return places.describe(value)
        if live is not None and base == at.ARG_PTR_TO_MAP_VALUE:
            return self._bytes(value, live.spec.value_size, lambda data: places.value(live, data))
        if base == at.ARG_PTR_TO_CONST_STR:
            return self._text(value, MAX_TEXT)
        if base == at.ARG_PTR_TO_MEM and not kind & at.MEM_UNINIT:
            return self._memory(proto, i, regs)
        return places.describe(value) if value >> 32 else number(value)

    def _memory(self, proto: HelperProto, i: int, regs: tuple[int, ...]) -> str:
        """Bytes that the helper reads, of the size that the next argument says."""
        size = u32(regs[2 + i]) if i + 1 < len(proto.args) and proto.args[i + 1] & BASE_MASK in SIZES else proto.fixed_size
        if proto.name in ("trace_printk", "trace_vprintk") and i == 0:
            return self._text(regs[1 + i], size)
        return self._bytes(regs[1 + i], size, plain) if size else self.places.describe(regs[1 + i])

    def _bytes(self, address: int, size: int, words: Words) -> str:
        data = self.places.read(address, size)
        return words(data) if data is not None else self.places.describe(address)

    def _text(self, address: int, size: int) -> str:
        """A string that ends at its zero byte or after ``size`` bytes."""
        try:
            view, at_ = self.machine.memory.buffer(address, 1, "read")
        except Fault:
            return self.places.describe(address)
        data = view[at_ : at_ + min(size, MAX_TEXT)].tobytes()
        return repr(data.partition(b"\0")[0].decode("utf-8", "replace"))

    # --- what a call does -----------------------------------------------------------------------------------------------
    def written(self, func_id: int, regs: tuple[int, ...]) -> list[Written]:
        """Memory that the helper writes through its arguments."""
        proto, found = HELPERS.get(func_id), []
        for i, kind in enumerate(proto.args if proto is not None else ()):
            if not kind & at.MEM_WRITE or proto is None:
                continue
            live = self.map_of(proto, regs)
            sized = i + 1 < len(proto.args) and proto.args[i + 1] & BASE_MASK in SIZES
            size = u32(regs[2 + i]) if sized else proto.fixed_size or (live.spec.value_size if live is not None else 16)
            found.append(Written(regs[1 + i], min(size, 512)))
        return found

    def result(self, func_id: int, value: int) -> str:
        """What came back in R0."""
        proto = HELPERS.get(func_id)
        if proto is None or proto.ret_type == at.RET_INTEGER:
            return result(value)
        if proto.ret_type == at.RET_VOID:
            return ""
        return self.places.describe(value) if value else "NULL"
