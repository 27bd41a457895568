"""The helpers on maps in native code, for maps whose kind is compiled. A body returns False where Python has to do it."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Final

from netbpf.abi.maps import MapType
from netbpf.engine.llvm.abi import ARGS
from netbpf.engine.llvm.checks import READ, WRITE
from netbpf.engine.llvm.shape import KEYED, LRU_TABLES, PER_CPU, PUSHED, QUEUES, RINGS, TABLES, TRIES
from netbpf.maps.check import PAGE_SIZE

if TYPE_CHECKING:
    from netbpf.engine.llvm.lower import SubprogLowerer
    from netbpf.maps.spec import MapSpec

RING_HEADER: Final = 8
RING_META_PAGES: Final = 3


def native_map(s: SubprogLowerer, pc: int, kinds: Set[int], register: int = 1) -> int:
    """Which of the program's maps a register names, if it is of one of these kinds; else -1."""
    index = s.map_index(pc, register)
    return index if index >= 0 and s.owner.program.maps[index].spec.map_type in kinds else -1


def _spec(s: SubprogLowerer, index: int) -> MapSpec:
    return s.owner.program.maps[index].spec


def _cpu(s: SubprogLowerer, index: int, kinds: Set[int]) -> str:
    """The CPU operand of an operation that asks for one in these kinds; else 0."""
    if _spec(s, index).map_type not in kinds:
        return "0"
    s.owner.used_args.add("cpu_id")
    return s.f.load(64, s.f.gep("%a", ARGS["cpu_id"]), 8)


def _key(s: SubprogLowerer, pc: int, index: int) -> str:
    """R2 as a pointer to a key."""
    return s.pointer(pc, 2, 0, _spec(s, index).key_size, READ)


def _value(s: SubprogLowerer, pc: int, index: int, register: int, access: int = READ) -> str:
    return s.pointer(pc, register, 0, _spec(s, index).value_size, access)


def _room(s: SubprogLowerer, size: int) -> str:
    """Memory of a call's own."""
    name = f"{s.f.name()}.room"
    s.f.lines.insert(2, f"  {name} = alloca [{size} x i8], align 8")
    return name


def _copied(s: SubprogLowerer, at: str, size: int) -> str:
    """Address of a copy: a kernel is not inlined, and the program's stack must not escape into it."""
    room = _room(s, size)
    s.f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr align 8 {room}, ptr {at}, i64 {size}, i1 false)")
    return s.f.op(f"ptrtoint ptr {room} to i64")


def _kernel(s: SubprogLowerer, name: str, index: int, *args: str) -> str:
    """Call a kernel of map ``index``."""
    memory = s.f.op(f"ptrtoint ptr %m{index} to i64")
    return s.f.op(f"call i64 @{name}{index}({', '.join(f'i64 {a}' for a in (memory, *args))})")


# --- maps with keys ----------------------------------------------------------------------------------------------------------
def _lookup(s: SubprogLowerer, pc: int) -> bool:
    index = native_map(s, pc, KEYED)
    if index < 0:
        return False
    if _spec(s, index).map_type in TRIES:
        s.set(0, _kernel(s, "trie_lookup", index, _copied(s, _key(s, pc, index), _spec(s, index).key_size)))
        return True
    cpu = _cpu(s, index, PER_CPU)
    s.set(0, s.f.op(f"call i64 @lookup{index}(ptr %m{index}, ptr {_key(s, pc, index)}, i64 {cpu})"))
    return True


def _lookup_percpu(s: SubprogLowerer, pc: int) -> bool:
    """As a lookup, of the CPU in R3; 0 where there is none."""
    index = native_map(s, pc, KEYED & PER_CPU)
    if index < 0:
        return False
    f = s.f
    cpu, key = f.math("and", s.get(3), 0xFFFF_FFFF), _key(s, pc, index)
    s.set(0, "0")
    there, done = f.fresh_label("there"), f.fresh_label("looked")
    f.cond(f.test("ult", cpu, s.owner.program.maps[index].n_cpus), there, done)  # type: ignore[attr-defined]
    f.label(there)
    s.set(0, f.op(f"call i64 @lookup{index}(ptr %m{index}, ptr {key}, i64 {cpu})"))
    f.label(done)
    return True


def _update(s: SubprogLowerer, pc: int) -> bool:
    index = native_map(s, pc, KEYED)
    if index < 0:
        return False
    spec, key, value, flags = _spec(s, index), _key(s, pc, index), _value(s, pc, index, 3), s.get(4)
    if spec.map_type in LRU_TABLES | TRIES:
        args = [_copied(s, key, spec.key_size), _copied(s, value, spec.value_size), flags]
        if spec.map_type in TRIES:
            s.set(0, _kernel(s, "trie_update", index, *args))
        else:
            s.set(0, _kernel(s, "lru_update", index, *args, _cpu(s, index, LRU_TABLES)))
        return True
    cpu = _cpu(s, index, PER_CPU | TABLES)  # a table keeps a spare element for each
    s.set(0, s.f.op(f"call i64 @update{index}(ptr %m{index}, ptr {key}, ptr {value}, i64 {flags}, i64 {cpu})"))
    return True


def _delete(s: SubprogLowerer, pc: int) -> bool:
    index = native_map(s, pc, KEYED)
    if index < 0:
        return False
    spec, key = _spec(s, index), _key(s, pc, index)
    if spec.map_type in LRU_TABLES | TRIES:
        name = "trie_delete" if spec.map_type in TRIES else "lru_delete"
        s.set(0, _kernel(s, name, index, _copied(s, key, spec.key_size)))
    else:
        s.set(0, s.f.op(f"call i64 @delete{index}(ptr %m{index}, ptr {key})"))
    return True


# --- maps without keys ---------------------------------------------------------------------------------------------------------
def _push(s: SubprogLowerer, pc: int) -> bool:
    index = native_map(s, pc, PUSHED)
    if index >= 0:
        value = _copied(s, _value(s, pc, index, 2), _spec(s, index).value_size)
        s.set(0, _kernel(s, "push", index, value, s.get(3)))
    return index >= 0


def _pop(s: SubprogLowerer, pc: int) -> bool:
    index = native_map(s, pc, QUEUES)
    return index >= 0 and _taken(s, pc, index, "pop")


def _peek(s: SubprogLowerer, pc: int) -> bool:
    index = native_map(s, pc, PUSHED)
    if index >= 0 and _spec(s, index).map_type == MapType.BLOOM_FILTER:
        s.set(0, _kernel(s, "peek", index, _copied(s, _value(s, pc, index, 2), _spec(s, index).value_size)))
        return True
    return index >= 0 and _taken(s, pc, index, "peek")


def _taken(s: SubprogLowerer, pc: int, index: int, name: str) -> bool:
    """What a queue or stack gives goes to R2, zeroes where it gives nothing."""
    size = _spec(s, index).value_size
    to, room = _value(s, pc, index, 2, WRITE), _room(s, size)
    result = _kernel(s, name, index, s.f.op(f"ptrtoint ptr {room} to i64"))
    s.f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr align 8 {room}, i64 {size}, i1 false)")
    s.set(0, result)
    return True


# --- ring buffers: in a checked program Python makes a record a region, and ends it --------------------------------------------
def _ring(s: SubprogLowerer, pc: int) -> int:
    return -1 if s.owner.checked or s.owner.reserves_elsewhere else native_map(s, pc, RINGS)


def _ring_output(s: SubprogLowerer, pc: int) -> bool:
    index = _ring(s, pc)
    if index >= 0:
        known = s.known(pc, 3)
        if known and known.kind == "num" and 0 < known.value <= 512:
            data = _copied(s, s.pointer(pc, 2, 0, known.value, READ), known.value)
        else:
            data = s.get(2)
        s.set(0, _kernel(s, "output", index, data, s.get(3), s.get(4)))
    return index >= 0


def _ring_reserve(s: SubprogLowerer, pc: int) -> bool:
    index = _ring(s, pc)
    if index >= 0:
        s.set(0, _kernel(s, "reserve", index, s.get(2), s.get(3)))
    return index >= 0


def _ring_query(s: SubprogLowerer, pc: int) -> bool:
    index = _ring(s, pc)
    if index >= 0:
        s.set(0, _kernel(s, "query", index, s.get(2)))
    return index >= 0


def _ring_end(discard: int) -> Callable[[SubprogLowerer, int], bool]:
    """Submit or discard the record in R1. Whose it is, its header tells: the distance from the ring's start in pages."""

    def body(s: SubprogLowerer, pc: int) -> bool:
        rings = [i for i, m in enumerate(s.owner.program.maps) if m.spec.map_type in RINGS]
        if s.owner.checked or not rings or s.owner.reserves_elsewhere:
            return False
        f, sample = s.f, s.get(1)
        header = f.math("sub", sample, RING_HEADER)
        pages = f.zext(f.load(32, f.op(f"inttoptr i64 {f.math('add', header, 4)} to ptr")), 32)
        data = f.math("sub", f.math("and", header, -PAGE_SIZE), f.math("mul", f.math("sub", pages, RING_META_PAGES), PAGE_SIZE))
        base = f.math("sub", data, 2 * PAGE_SIZE)
        done = f.fresh_label("ended")
        for index in rings:
            mine, other = f.fresh_label("mine"), f.fresh_label("other")
            f.cond(f.test("eq", base, f.op(f"ptrtoint ptr %m{index} to i64")), mine, other)
            f.label(mine)
            _kernel(s, "commit", index, sample, str(discard))
            f.br(done)
            f.label(other)
        f.br(done)
        f.label(done)
        s.set(0, "0")
        return True

    return body


def _perf_output(s: SubprogLowerer, pc: int) -> bool:
    """R2 map, R3 flags, R4 data, R5 size; as many bytes of the packet as the flags say follow."""
    index = native_map(s, pc, frozenset({MapType.PERF_EVENT_ARRAY}), 2)
    if index < 0:
        return False
    s.owner.wants_flat = True
    f, known = s.f, s.known(pc, 5)
    if known and known.kind == "num" and 0 < known.value <= 512:
        data = _copied(s, s.pointer(pc, 4, 0, known.value, READ), known.value)
    else:
        data = f.op(f"ptrtoint ptr {s.pointer(pc, 4, 0, s.get(5), READ)} to i64")
    packet = f.op("ptrtoint ptr %pkt to i64")
    cpu = _cpu(s, index, frozenset({MapType.PERF_EVENT_ARRAY}))
    s.set(0, _kernel(s, "perf_output", index, s.get(3), data, s.get(5), packet, "%cap", cpu))
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
