"""The helpers on maps in native code, for maps whose kind is compiled. A body returns False where Python has to do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from netbpf.abi.maps import MapType
from netbpf.engine.llvm.checks import WRITE
from netbpf.engine.llvm.map_refs import MapRef, copied, cpu_operand, key_operand, map_kernel, native_map, room, value_operand
from netbpf.engine.llvm.shape import KEYED, LRU_TABLES, MAPS_OF_MAPS, PER_CPU, PUSHED, QUEUES, TABLES, TRIES

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode


# --- maps with keys ----------------------------------------------------------------------------------------------------------
def _lookup(s: SubprogCode, pc: int) -> bool:
    # a checked program's map that is found in another has to be told to its regions, which Python does
    m = native_map(s, pc, KEYED if s.owner.checked else KEYED | MAPS_OF_MAPS)
    if m is None:
        return False
    if m.spec.map_type in TRIES:
        s.set(0, map_kernel(s, "trie_lookup", m, copied(s, key_operand(s, pc, m), m.spec.key_size)))
    elif pc in s.tallies:
        s.set(0, _lookup_or(s, m, key_operand(s, pc, m), cpu_operand(s, m, PER_CPU)))
    else:
        s.set(0, _lookup_on(s, m, key_operand(s, pc, m), cpu_operand(s, m, PER_CPU)))
    return True


def _lookup_on(s: SubprogCode, m: MapRef, key: str, cpu: str) -> str:
    return s.f.op(f"call i64 @lookup{m.suffix}(ptr {m.base}, ptr {key}, i64 {cpu})")


def _lookup_or(s: SubprogCode, m: MapRef, key: str, cpu: str) -> str:
    """As ``_lookup_on``, but the spare value's address where nothing is found."""
    s.owner.tallied.add(m.suffix)
    return s.f.op(f"call i64 @lookup_or{m.suffix}(ptr {m.base}, ptr {key}, i64 {s.spare()}, i64 {cpu})")


def lookup_hashed(s: SubprogCode, pc: int, m: MapRef, key_hash: str) -> str:
    """The address that a look-up in a table gives, or 0; the hash of its key is known."""
    key, cpu = key_operand(s, pc, m), cpu_operand(s, m, PER_CPU)
    return s.f.op(f"call i64 @lookup_hashed{m.suffix}(ptr {m.base}, ptr {key}, i32 {key_hash}, i64 {cpu})")


def _lookup_percpu(s: SubprogCode, pc: int) -> bool:
    """As a lookup, of the CPU in R3; 0 where there is none."""
    m = native_map(s, pc, KEYED & PER_CPU)
    if m is None:
        return False
    f = s.f
    cpu, key = f.math("and", s.get(3), 0xFFFF_FFFF), key_operand(s, pc, m)
    s.set(0, "0")
    there, done = f.fresh_label("there"), f.fresh_label("looked")
    f.cond(f.test("ult", cpu, m.n_cpus), there, done)
    f.label(there)
    s.set(0, _lookup_on(s, m, key, cpu))
    f.label(done)
    return True


def _update(s: SubprogCode, pc: int) -> bool:
    m = native_map(s, pc, KEYED)
    if m is None:
        return False
    key, value, flags = key_operand(s, pc, m), value_operand(s, pc, m, 3), s.get(4)
    if m.spec.map_type in LRU_TABLES | TRIES:
        args = [copied(s, key, m.spec.key_size), copied(s, value, m.spec.value_size), flags]
        if m.spec.map_type in TRIES:
            s.set(0, map_kernel(s, "trie_update", m, *args))
        else:
            s.set(0, map_kernel(s, "lru_update", m, *args, cpu_operand(s, m, LRU_TABLES)))
        return True
    cpu = cpu_operand(s, m, PER_CPU | TABLES)  # a table keeps a spare element for each
    s.set(0, s.f.op(f"call i64 @update{m.suffix}(ptr {m.base}, ptr {key}, ptr {value}, i64 {flags}, i64 {cpu})"))
    return True


def _delete(s: SubprogCode, pc: int) -> bool:
    m = native_map(s, pc, KEYED)
    if m is None:
        return False
    key = key_operand(s, pc, m)
    if m.spec.map_type in LRU_TABLES | TRIES:
        name = "trie_delete" if m.spec.map_type in TRIES else "lru_delete"
        s.set(0, map_kernel(s, name, m, copied(s, key, m.spec.key_size)))
    else:
        s.set(0, s.f.op(f"call i64 @delete{m.suffix}(ptr {m.base}, ptr {key})"))
    return True


# --- maps without keys ---------------------------------------------------------------------------------------------------------
def _push(s: SubprogCode, pc: int) -> bool:
    m = native_map(s, pc, PUSHED)
    if m is None:
        return False
    s.set(0, map_kernel(s, "push", m, copied(s, value_operand(s, pc, m, 2), m.spec.value_size), s.get(3)))
    return True


def _pop(s: SubprogCode, pc: int) -> bool:
    m = native_map(s, pc, QUEUES)
    return m is not None and _taken(s, pc, m, "pop")


def _peek(s: SubprogCode, pc: int) -> bool:
    m = native_map(s, pc, PUSHED)
    if m is not None and m.spec.map_type == MapType.BLOOM_FILTER:
        s.set(0, map_kernel(s, "peek", m, copied(s, value_operand(s, pc, m, 2), m.spec.value_size)))
        return True
    return m is not None and _taken(s, pc, m, "peek")


def _taken(s: SubprogCode, pc: int, m: MapRef, name: str) -> bool:
    """What a queue or stack gives goes to R2, zeroes where it gives nothing."""
    size = m.spec.value_size
    to, taken = value_operand(s, pc, m, 2, WRITE), room(s, size)
    result = map_kernel(s, name, m, s.f.op(f"ptrtoint ptr {taken} to i64"))
    s.f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr align 8 {taken}, i64 {size}, i1 false)")
    s.set(0, result)
    return True


MAP_CALLS: Final[dict[str, Callable[[SubprogCode, int], bool]]] = {
    "map_lookup_elem": _lookup,
    "map_lookup_percpu_elem": _lookup_percpu,
    "map_update_elem": _update,
    "map_delete_elem": _delete,
    "map_push_elem": _push,
    "map_pop_elem": _pop,
    "map_peek_elem": _peek,
}
