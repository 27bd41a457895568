"""Map operations as LLVM functions, specialised to one map: sizes, offsets, masks and seeds are constants in the code.

They work on the bytes that ``netbpf.maps`` states (maps.table, maps.array ...) by the same rules. Each array or table *i* gets

    i64 @lookup{i}(ptr m, ptr key, i64 cpu)                          address of the value, or 0
    i64 @lookup_hashed{i}(ptr m, ptr key, i32 hash, i64 cpu)         the same, of a table whose hash of the key is known
    i64 @update{i}(ptr m, ptr key, ptr value, i64 flags, i64 cpu)    0 or -errno; not the LRU kinds
    i64 @delete{i}(ptr m, ptr key)                                   0 or -errno; not the LRU kinds

    i64 @lookup_or{i}(ptr m, ptr key, i64 other, i64 cpu)            as a lookup, ``other`` in place of 0; not the LRU kinds

``m`` is the map's memory. ``lookup_or``, made where a program wants it (``tally``), has no branch but for an element that is not
its chain's first. What is longer, and the other kinds, are ``kernels``. A table that is walked has more functions
(``tables.Table.walk_text``); a map of maps has a lookup alone, that gives the handle of the map found. The maps inside one
share their code (``emit_inner``): what is not the same in all of them it reads from their memory, of an array from its handle,
its ``m``.
"""

from __future__ import annotations

import errno
from collections.abc import Set
from typing import Any, NamedTuple

from netbpf.abi.maps import MapType
from netbpf.engine.llvm.ir import Function, return_address
from netbpf.engine.llvm.kernel_maps import emit_kernels
from netbpf.engine.llvm.shape import ARRAYS, LRU_TABLES, PER_CPU, TABLES
from netbpf.engine.llvm.tables import HashOfMaps, Table
from netbpf.maps.base import BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST, Map
from netbpf.maps.create import create
from netbpf.maps.handle import ADDRESS_AT, CPU_STRIDE_AT, MAX_ENTRIES_AT


class Wanted(NamedTuple):
    """What of some maps alone is made, by their suffixes: tables that are walked, maps with ``lookup_or``."""

    walked: Set[str]
    tallied: Set[str]


def emit_map(index: int, m: Map, wanted: Wanted) -> str:
    """The functions of map ``index``."""
    return _emit(str(index), m, wanted, shared=False)


def emit_inner(outer_index: int, outer: Any, wanted: Wanted) -> str:
    """The functions of every map inside a map of maps, ``inner_suffix`` in their names."""
    layout = create(outer.spec.inner, n_cpus=outer.n_cpus)  # never holds anything
    return _emit(inner_suffix(outer_index), layout, wanted, shared=True)


def inner_suffix(outer_index: int) -> str:
    return f"{outer_index}.inner"


def _emit(suffix: str, m: Map, wanted: Wanted, *, shared: bool) -> str:
    kind = m.spec.map_type
    if kind in ARRAYS:
        array = _Array(suffix, m, shared)
        return "\n".join([array.text(), array.lookup_or_text() if suffix in wanted.tallied else ""])
    if kind == MapType.ARRAY_OF_MAPS:
        return _ArrayOfMaps(suffix, m, shared).text()
    if kind == MapType.HASH_OF_MAPS:
        return HashOfMaps(suffix, m, shared).text()
    table = Table(suffix, m, shared) if kind in TABLES | LRU_TABLES else None
    texts = [table.text()] if table else []
    if table and suffix in wanted.walked:
        texts.append(table.walk_text())
    if table and suffix in wanted.tallied:
        texts.append(table.lookup_or_text())
    return "\n".join([*texts, emit_kernels(suffix, m, shared=shared)])


class _Array:
    """ARRAY and PERCPU_ARRAY. With ``shared`` code for all like ``m`` but for their number of entries."""

    def __init__(self, suffix: str, m: Any, shared: bool) -> None:
        self.i, self.m, self.spec, self.shared = suffix, m, m.spec, shared
        self.per_cpu = m.spec.map_type in PER_CPU

    def _from_handle(self, f: Function, bits: int, at: int, own: int) -> str:
        return f.load(bits, f.gep("%m", at), bits // 8) if self.shared else str(own)

    def _address(self, f: Function, key: str) -> str:
        at = f.op(f"mul nuw i64 {f.zext(key, 32)}, {self.m.elem_size}")
        if self.per_cpu:
            stride = self._from_handle(f, 64, CPU_STRIDE_AT, self.m.cpu_stride)
            at = f.op(f"add i64 {at}, {f.op(f'mul i64 %cpu, {stride}')}")
        memory = f.op(f"load ptr, ptr {f.gep('%m', ADDRESS_AT)}, align 8") if self.shared else "%m"
        return f.gep(memory, at)

    def text(self) -> str:
        return "\n".join([self._lookup(), self._update(), self._delete()])

    def _in_range(self, f: Function, key: str) -> str:
        return f.op(f"icmp ult i32 {key}, {self._from_handle(f, 32, MAX_ENTRIES_AT, self.spec.max_entries)}")

    def _lookup(self) -> str:
        f = Function(f"define internal i64 @lookup{self.i}(ptr %m, ptr %key, i64 %cpu) alwaysinline nounwind")
        key = f.load(32, "%key")
        f.cond(self._in_range(f, key), "hit", "miss")
        f.label("hit")
        return_address(f, self._address(f, key))
        f.label("miss")
        f.ret("i64 0")
        return f.text()

    def lookup_or_text(self) -> str:
        f = Function(f"define internal i64 @lookup_or{self.i}(ptr %m, ptr %key, i64 %other, i64 %cpu) alwaysinline nounwind")
        key = f.load(32, "%key")
        found = f.op(f"ptrtoint ptr {self._address(f, key)} to i64")
        f.ret(f"i64 {f.unforeseen(self._in_range(f, key), 64, found, '%other')}")
        return f.text()

    def _update(self) -> str:
        f = Function(f"define internal i64 @update{self.i}(ptr %m, ptr %key, ptr %value, i64 %flags, i64 %cpu) nounwind")
        f.cond(f.test("ugt", f.math("and", "%flags", ~BPF_F_LOCK), BPF_EXIST), "einval", "range")
        f.label("range")
        key = f.load(32, "%key")
        f.cond(self._in_range(f, key), "exists", "e2big")
        f.label("exists")
        f.cond(f.test("ne", f.math("and", "%flags", BPF_NOEXIST), 0), "eexist", "unlocked")
        f.label("unlocked")
        f.cond(f.test("ne", f.math("and", "%flags", BPF_F_LOCK), 0), "einval", "write")
        f.label("write")
        f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {self._address(f, key)}, ptr %value, i64 {self.spec.value_size}, i1 false)")
        f.ret("i64 0")
        for name in ("einval", "e2big", "eexist"):
            f.label(name)
            f.ret(f"i64 {-getattr(errno, name.upper())}")
        return f.text()

    def _delete(self) -> str:
        f = Function(f"define internal i64 @delete{self.i}(ptr %m, ptr %key) nounwind")
        f.ret(f"i64 {-errno.EINVAL}")
        return f.text()


class _ArrayOfMaps(_Array):
    """The slots of ``maps.inner``, one after another."""

    def text(self) -> str:
        f = Function(f"define internal i64 @lookup{self.i}(ptr %m, ptr %key, i64 %cpu) alwaysinline nounwind")
        key = f.load(32, "%key")
        f.cond(self._in_range(f, key), "hit", "miss")
        f.label("hit")
        f.ret(f"i64 {f.load(64, self._address(f, key), 8)}")
        f.label("miss")
        f.ret("i64 0")
        return f.text()
