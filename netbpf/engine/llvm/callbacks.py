"""The helpers that run a function of the program's own, in native code: bpf_loop and bpf_for_each_map_elem."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from netbpf.engine.llvm.map_refs import MapRef, cpu_operand, native_map
from netbpf.engine.llvm.shape import ARRAYS, LRU_TABLES, PER_CPU, TABLES
from netbpf.engine.llvm.subprog import BPF_MAX_LOOPS

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode


def _function(s: SubprogCode, pc: int, register: int) -> int:
    """Index of the subprogram that R names, or -1."""
    known = s.known(pc, register)
    return s.owner.start_of[known.value] if known and known.kind == "func" else -1


def _loop(s: SubprogCode, pc: int) -> bool:
    """bpf_loop(nr, callback, ctx, flags): how often the callback ran, at most BPF_MAX_LOOPS."""
    target = _function(s, pc, 2)
    if target < 0:
        raise s.unsupported(pc)
    f = s.f
    count = f.op(f"and i64 {s.get(1)}, 4294967295")
    ctx, flags = s.get(3), s.get(4)
    slot = f"%loop{pc}"
    f.lines.insert(2, f"  {slot} = alloca i64")
    begin, head, body, on, done = (f.fresh_label(n) for n in ("begin", "head", "body", "on", "done"))
    bad = f.select(f.op(f"icmp ne i64 {flags}, 0"), 64, str(-errno.EINVAL), str(-errno.E2BIG))
    s.set(0, bad)
    valid = f.op(f"and i1 {f.op(f'icmp eq i64 {flags}, 0')}, {f.op(f'icmp ule i64 {count}, {BPF_MAX_LOOPS}')}")
    f.cond(valid, begin, done)
    f.label(begin)
    f.store(64, "0", slot, 8)
    f.label(head)
    n = f.load(64, slot, 8)
    s.set(0, n)
    f.cond(f.op(f"icmp ult i64 {n}, {count}"), body, done)
    f.label(body)
    result = s.call_subprog(pc, target, [n, ctx])
    s.leave_on_fault()
    after = f.op(f"add i64 {n}, 1")
    f.store(64, after, slot, 8)
    s.set(0, after)
    f.cond(f.op(f"icmp eq i64 {result}, 0"), on, done)
    f.label(on)
    f.br(head)
    f.label(done)
    return True


# --- bpf_for_each_map_elem -------------------------------------------------------------------------------------------------
class _Walk(NamedTuple):
    """A walk at ``pc`` over a map: the function that is called on each element, its map and context, where to go in the end."""

    s: SubprogCode
    pc: int
    m: MapRef
    target: int
    named: str
    ctx: str
    cpu: str
    done: str

    def visit(self, key: str, value: str, on: str) -> None:
        """Call the function on an element, and go ``on`` unless it says that this was enough. R0 counts."""
        s = self.s
        result = s.call_subprog(self.pc, self.target, [self.named, key, value, self.ctx])
        s.leave_on_fault()
        s.set(0, s.f.math("add", s.get(0), 1))
        s.f.cond(s.f.test("eq", result, 0), on, self.done)

    def slot(self, name: str) -> str:
        """A number that is kept from one call of the function to the next, 0 at first."""
        slot = f"%{name}{self.pc}"
        self.s.f.lines.insert(2, f"  {slot} = alloca i64")
        self.s.f.store(64, "0", slot, 8)
        return slot


def _for_each(s: SubprogCode, pc: int) -> bool:
    """bpf_for_each_map_elem(map, callback, ctx, flags): how many elements were visited. In a checked program Python does it,
    which makes each key a region."""
    m, target = native_map(s, pc, ARRAYS | TABLES | LRU_TABLES), _function(s, pc, 2)
    if s.owner.checked or m is None or target < 0:
        return False
    f = s.f
    begin, done = f.fresh_label("begin"), f.fresh_label("done")
    walk = _Walk(s, pc, m, target, s.get(1), s.get(3), cpu_operand(s, m, PER_CPU), done)
    flags = s.get(4)
    s.set(0, str(-errno.EINVAL))
    f.cond(f.test("eq", flags, 0), begin, done)
    f.label(begin)
    s.set(0, "0")
    if m.spec.map_type in ARRAYS:
        _walk_array(walk)
    else:
        _walk_table(walk)
    f.label(done)
    return True


def _walk_array(w: _Walk) -> None:
    """One value after the other; the key is a number beside the map."""
    f, m = w.s.f, w.m
    index = w.slot("each")
    head, body, on = f.fresh_label("head"), f.fresh_label("body"), f.fresh_label("on")
    f.label(head)
    value = f.op(f"call i64 @lookup{m.suffix}(ptr {m.base}, ptr {index}, i64 {w.cpu})")
    f.cond(f.test("eq", value, 0), w.done, body)
    f.label(body)
    w.visit(f.op(f"ptrtoint ptr {index} to i64"), value, on)
    f.label(on)
    f.store(64, f.math("add", f.load(64, index, 8), 1), index, 8)
    f.br(head)


def _walk_table(w: _Walk) -> None:
    """Buckets in order, and each chain with an eye on the element after the one at hand, as ``maps.table`` has it."""
    f, m = w.s.f, w.m
    w.s.owner.walked.add(m.suffix)
    bucket, following = w.slot("bucket"), w.slot("following")
    head, body, on = f.fresh_label("head"), f.fresh_label("body"), f.fresh_label("on")
    f.label(head)
    first = f.op(f"call i64 @chain{m.suffix}(ptr {m.base}, ptr {bucket})")
    f.store(64, first, following, 8)
    f.cond(f.test("eq", first, 0), w.done, body)
    f.label(body)
    element = f.load(64, following, 8)
    f.store(64, f.op(f"call i64 @after{m.suffix}(ptr {m.base}, i64 {element})"), following, 8)
    key = f.op(f"call i64 @key{m.suffix}(ptr {m.base}, i64 {element})")
    w.visit(key, f.op(f"call i64 @value{m.suffix}(ptr {m.base}, i64 {element}, i64 {w.cpu})"), on)
    f.label(on)
    f.cond(f.test("eq", f.load(64, following, 8), 0), head, body)


CALLBACKS: Final[dict[str, Callable[[SubprogCode, int], bool]]] = {"loop": _loop, "for_each_map_elem": _for_each}
