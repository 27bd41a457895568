"""The helpers on maps in native code, for maps whose kind is compiled. A body returns False where Python has to do it."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from netbpf.abi.maps import MapType
from netbpf.engine.llvm.abi import ARGS
from netbpf.engine.llvm.checks import READ, WRITE
from netbpf.engine.llvm.maps import inner_suffix
from netbpf.engine.llvm.shape import (
    ARRAYS,
    KEYED,
    LRU_TABLES,
    MAPS_OF_MAPS,
    PER_CPU,
    PUSHED,
    QUEUES,
    RINGS,
    TABLES,
    TRIES,
)
from netbpf.isa.opcodes import MAX_BPF_STACK
from netbpf.maps.check import PAGE_SIZE
from netbpf.maps.handle import ADDRESS_AT
from netbpf.maps.spec import MapSpec

if TYPE_CHECKING:
    from netbpf.engine.llvm.lower import SubprogLowerer

RING_HEADER: Final = 8
RING_META_PAGES: Final = 3


class MapRef(NamedTuple):
    """The map of a call. ``suffix``: of the functions for it; ``base``: the pointer they take, see ``maps``; ``number``: which of
    the program's maps it is, -1 for one found in another."""

    suffix: str
    base: str
    spec: MapSpec
    n_cpus: int
    number: int


def native_map(s: SubprogLowerer, pc: int, kinds: Set[int], register: int = 1) -> MapRef | None:
    """The map that a register names, if it is known and of one of these kinds."""
    index = s.map_index(pc, register)
    if index >= 0:
        return own_map(s, index) if s.owner.program.maps[index].spec.map_type in kinds else None
    return _inner_map(s, s.inner_of(pc), kinds) if register == 1 else None


def own_map(s: SubprogLowerer, index: int) -> MapRef:
    live: Any = s.owner.program.maps[index]
    return MapRef(str(index), f"%m{index}", live.spec, live.n_cpus, index)


def _inner_map(s: SubprogLowerer, outer_index: int, kinds: Set[int]) -> MapRef | None:
    """The map that R1 names, one of those inside a map of maps."""
    outer: Any = s.owner.program.maps[outer_index] if outer_index >= 0 else None
    if outer is None or outer.spec.inner.map_type not in kinds:
        return None
    base = s.f.op(f"inttoptr i64 {s.get(1)} to ptr")
    if outer.spec.inner.map_type not in ARRAYS:
        base = s.f.op(f"load ptr, ptr {s.f.gep(base, ADDRESS_AT)}, align 8")
    return _inner_at(s, outer_index, base)


def _inner_at(s: SubprogLowerer, outer_index: int, base: str) -> MapRef:
    s.owner.used_inner.add(outer_index)
    outer: Any = s.owner.program.maps[outer_index]
    return MapRef(inner_suffix(outer_index), base, outer.spec.inner, outer.n_cpus, -1)


def cpu_operand(s: SubprogLowerer, m: MapRef, kinds: Set[int]) -> str:
    """The CPU operand of an operation that asks for one in these kinds; else 0."""
    if m.spec.map_type not in kinds:
        return "0"
    s.owner.used_args.add("cpu_id")
    return s.f.load(64, s.f.gep("%a", ARGS["cpu_id"]), 8)


def _key(s: SubprogLowerer, pc: int, m: MapRef) -> str:
    """R2 as a pointer to a key."""
    return s.pointer(pc, 2, 0, m.spec.key_size, READ)


def _value(s: SubprogLowerer, pc: int, m: MapRef, register: int, access: int = READ) -> str:
    return s.pointer(pc, register, 0, m.spec.value_size, access)


def room(s: SubprogLowerer, size: int) -> str:
    """Memory of a call's own."""
    name = f"{s.f.name()}.room"
    s.f.lines.insert(2, f"  {name} = alloca [{size} x i8], align 8")
    return name


def _copied(s: SubprogLowerer, at: str, size: int) -> str:
    """Address of a copy: a kernel is not inlined, and the program's stack must not escape into it."""
    copy = room(s, size)
    s.f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr align 8 {copy}, ptr {at}, i64 {size}, i1 false)")
    return s.f.op(f"ptrtoint ptr {copy} to i64")


def bytes_of(s: SubprogLowerer, pc: int, register: int, size_register: int) -> str:
    """Address of as many bytes at R as another register says; a copy, where that is a number small enough."""
    known = s.known(pc, size_register)
    if known and known.kind == "num" and 0 < known.value <= MAX_BPF_STACK:
        return _copied(s, s.pointer(pc, register, 0, known.value, READ), known.value)
    return s.f.op(f"ptrtoint ptr {s.pointer(pc, register, 0, s.get(size_register), READ)} to i64")


def map_kernel(s: SubprogLowerer, name: str, m: MapRef, *args: str) -> str:
    """Call a kernel of a map."""
    memory = s.f.op(f"ptrtoint ptr {m.base} to i64")
    return s.f.op(f"call i64 @{name}{m.suffix}({', '.join(f'i64 {a}' for a in (memory, *args))})")


# --- maps with keys ----------------------------------------------------------------------------------------------------------
def _lookup(s: SubprogLowerer, pc: int) -> bool:
    # a checked program's map that is found in another has to be told to its regions, which Python does
    m = native_map(s, pc, KEYED if s.owner.checked else KEYED | MAPS_OF_MAPS)
    if m is None:
        return False
    if m.spec.map_type in TRIES:
        s.set(0, map_kernel(s, "trie_lookup", m, _copied(s, _key(s, pc, m), m.spec.key_size)))
    else:
        s.set(0, _lookup_on(s, m, _key(s, pc, m), cpu_operand(s, m, PER_CPU)))
    return True


def _lookup_on(s: SubprogLowerer, m: MapRef, key: str, cpu: str) -> str:
    return s.f.op(f"call i64 @lookup{m.suffix}(ptr {m.base}, ptr {key}, i64 {cpu})")


def _lookup_percpu(s: SubprogLowerer, pc: int) -> bool:
    """As a lookup, of the CPU in R3; 0 where there is none."""
    m = native_map(s, pc, KEYED & PER_CPU)
    if m is None:
        return False
    f = s.f
    cpu, key = f.math("and", s.get(3), 0xFFFF_FFFF), _key(s, pc, m)
    s.set(0, "0")
    there, done = f.fresh_label("there"), f.fresh_label("looked")
    f.cond(f.test("ult", cpu, m.n_cpus), there, done)
    f.label(there)
    s.set(0, _lookup_on(s, m, key, cpu))
    f.label(done)
    return True


def _update(s: SubprogLowerer, pc: int) -> bool:
    m = native_map(s, pc, KEYED)
    if m is None:
        return False
    key, value, flags = _key(s, pc, m), _value(s, pc, m, 3), s.get(4)
    if m.spec.map_type in LRU_TABLES | TRIES:
        args = [_copied(s, key, m.spec.key_size), _copied(s, value, m.spec.value_size), flags]
        if m.spec.map_type in TRIES:
            s.set(0, map_kernel(s, "trie_update", m, *args))
        else:
            s.set(0, map_kernel(s, "lru_update", m, *args, cpu_operand(s, m, LRU_TABLES)))
        return True
    cpu = cpu_operand(s, m, PER_CPU | TABLES)  # a table keeps a spare element for each
    s.set(0, s.f.op(f"call i64 @update{m.suffix}(ptr {m.base}, ptr {key}, ptr {value}, i64 {flags}, i64 {cpu})"))
    return True


def _delete(s: SubprogLowerer, pc: int) -> bool:
    m = native_map(s, pc, KEYED)
    if m is None:
        return False
    key = _key(s, pc, m)
    if m.spec.map_type in LRU_TABLES | TRIES:
        name = "trie_delete" if m.spec.map_type in TRIES else "lru_delete"
        s.set(0, map_kernel(s, name, m, _copied(s, key, m.spec.key_size)))
    else:
        s.set(0, s.f.op(f"call i64 @delete{m.suffix}(ptr {m.base}, ptr {key})"))
    return True


# --- maps without keys ---------------------------------------------------------------------------------------------------------
def _push(s: SubprogLowerer, pc: int) -> bool:
    m = native_map(s, pc, PUSHED)
    if m is None:
        return False
    s.set(0, map_kernel(s, "push", m, _copied(s, _value(s, pc, m, 2), m.spec.value_size), s.get(3)))
    return True


def _pop(s: SubprogLowerer, pc: int) -> bool:
    m = native_map(s, pc, QUEUES)
    return m is not None and _taken(s, pc, m, "pop")


def _peek(s: SubprogLowerer, pc: int) -> bool:
    m = native_map(s, pc, PUSHED)
    if m is not None and m.spec.map_type == MapType.BLOOM_FILTER:
        s.set(0, map_kernel(s, "peek", m, _copied(s, _value(s, pc, m, 2), m.spec.value_size)))
        return True
    return m is not None and _taken(s, pc, m, "peek")


def _taken(s: SubprogLowerer, pc: int, m: MapRef, name: str) -> bool:
    """What a queue or stack gives goes to R2, zeroes where it gives nothing."""
    size = m.spec.value_size
    to, taken = _value(s, pc, m, 2, WRITE), room(s, size)
    result = map_kernel(s, name, m, s.f.op(f"ptrtoint ptr {taken} to i64"))
    s.f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr align 8 {taken}, i64 {size}, i1 false)")
    s.set(0, result)
    return True


# --- ring buffers: in a checked program Python makes a record a region, and ends it --------------------------------------------
def ring_of(s: SubprogLowerer, pc: int) -> MapRef | None:
    """The ring buffer in R1, where native code may write to it."""
    return None if s.owner.checked or s.owner.reserves_elsewhere else native_map(s, pc, RINGS)


def _ring_output(s: SubprogLowerer, pc: int) -> bool:
    m = ring_of(s, pc)
    if m is None:
        return False
    s.set(0, map_kernel(s, "output", m, bytes_of(s, pc, 2, 3), s.get(3), s.get(4)))
    return True


def _ring_reserve(s: SubprogLowerer, pc: int) -> bool:
    m = ring_of(s, pc)
    if m is None:
        return False
    s.set(0, map_kernel(s, "reserve", m, s.get(2), s.get(3)))
    return True


def _ring_query(s: SubprogLowerer, pc: int) -> bool:
    m = ring_of(s, pc)
    if m is None:
        return False
    s.set(0, map_kernel(s, "query", m, s.get(2)))
    return True


def _ring_end(discard: int) -> Callable[[SubprogLowerer, int], bool]:
    """Submit or discard the record in R1."""

    def body(s: SubprogLowerer, pc: int) -> bool:
        if not ends_records(s):
            return False
        end_record(s, s.get(1), discard)
        s.set(0, "0")
        return True

    return body


def ends_records(s: SubprogLowerer) -> bool:
    """Whether the records of this program are reserved in native code."""
    return bool(_rings(s) or _outers_of_rings(s)) and not s.owner.checked and not s.owner.reserves_elsewhere


def _rings(s: SubprogLowerer) -> list[int]:
    return [i for i, m in enumerate(s.owner.program.maps) if m.spec.map_type in RINGS]


def _outers_of_rings(s: SubprogLowerer) -> list[int]:
    """The maps of maps with rings in them."""
    return [i for i, m in enumerate(s.owner.program.maps) if m.spec.inner is not None and m.spec.inner.map_type in RINGS]


def end_record(s: SubprogLowerer, sample: str, discard: int) -> None:
    """Submit or discard a record. Whose it is, its header tells: the distance from the ring's start in pages."""
    f = s.f
    header = f.math("sub", sample, RING_HEADER)
    pages = f.zext(f.load(32, f.op(f"inttoptr i64 {f.math('add', header, 4)} to ptr")), 32)
    data = f.math("sub", f.math("and", header, -PAGE_SIZE), f.math("mul", f.math("sub", pages, RING_META_PAGES), PAGE_SIZE))
    base = f.math("sub", data, 2 * PAGE_SIZE)
    done = f.fresh_label("ended")
    for index in _rings(s):
        mine, other = f.fresh_label("mine"), f.fresh_label("other")
        f.cond(f.test("eq", base, f.op(f"ptrtoint ptr %m{index} to i64")), mine, other)
        f.label(mine)
        map_kernel(s, "commit", own_map(s, index), sample, str(discard))
        f.br(done)
        f.label(other)
    for outer_index in _outers_of_rings(s)[:1]:  # the code of one serves the rings inside any
        map_kernel(s, "commit", _inner_at(s, outer_index, f.op(f"inttoptr i64 {base} to ptr")), sample, str(discard))
    f.br(done)
    f.label(done)


def _perf_output(s: SubprogLowerer, pc: int) -> bool:
    """R2 map, R3 flags, R4 data, R5 size; as many bytes of the packet as the flags say follow."""
    m = native_map(s, pc, frozenset({MapType.PERF_EVENT_ARRAY}), 2)
    if m is None:
        return False
    s.owner.wants_flat = True
    f, data = s.f, bytes_of(s, pc, 4, 5)
    packet = f.op("ptrtoint ptr %pkt to i64")
    cpu = cpu_operand(s, m, frozenset({MapType.PERF_EVENT_ARRAY}))
    s.set(0, map_kernel(s, "perf_output", m, s.get(3), data, s.get(5), packet, "%cap", cpu))
    return True


MAP_CALLS: Final[dict[str, Callable[[SubprogLowerer, int], bool]]] = {
    "map_lookup_elem": _lookup,
    "map_lookup_percpu_elem": _lookup_percpu,
    "map_update_elem": _update,
    "map_delete_elem": _delete,
    "map_push_elem": _push,
    "map_pop_elem": _pop,
    "map_peek_elem": _peek,
    "ringbuf_output": _ring_output,
    "ringbuf_reserve": _ring_reserve,
    "ringbuf_submit": _ring_end(0),
    "ringbuf_discard": _ring_end(1),
    "ringbuf_query": _ring_query,
    "perf_event_output": _perf_output,
}
