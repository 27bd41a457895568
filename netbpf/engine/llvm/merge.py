"""Maps of what some packets added, and merging them into the maps they stand for: native code for the maps of one program.

Only for programs whose effects commute (``engine.commute``). A delta map is a map of the same shape: empty where packets put new
keys, with the same keys and nothing in the slots that are added to where they don't.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from netbpf.engine.commute import MapEffects
from netbpf.engine.llvm import cache
from netbpf.engine.llvm.digest import sha256
from netbpf.engine.llvm.ir import INTRINSICS, Function
from netbpf.engine.llvm.kernels.language import External, compile_kernels
from netbpf.engine.llvm.objfile import MappedCode
from netbpf.engine.llvm.program import cache_key
from netbpf.engine.llvm.shape import ARRAYS
from netbpf.engine.llvm.tables import table_functions
from netbpf.engine.llvm.variant import Variant
from netbpf.maps.base import Map
from netbpf.maps.create import create
from netbpf.maps.table import SEED
from netbpf.program import VerifiedProgram

EXTERNALS: Final = {
    "find": External("find", ("ptr", "ptr", "i32"), "i32"),
    "add_slots": External("add_slots", ("i64", "i64"), "void"),
    "clear_slots": External("clear_slots", ("i64",), "void"),
}
_ENTRY: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)


class Merger:
    """Makes and merges the delta maps of a program. ``maps`` are what is merged into."""

    def __init__(self, program: VerifiedProgram, effects: tuple[MapEffects, ...], *, use_cache: bool) -> None:
        self._maps, self._effects = program.maps, effects
        self._changed = [i for i, e in enumerate(effects) if e.slots or e.inserts]
        self._code = MappedCode(_object(program, effects, use_cache))
        self._fits, self._merge, self._reset = (_ENTRY(self._code.functions[name]) for name in ("fits", "merge", "reset"))

    def new_maps(self) -> tuple[Map, ...]:
        """Delta maps; a map that no packet changes is the program's own."""
        made = tuple(self._delta(i, m) for i, m in enumerate(self._maps))
        self.reset(made)
        return made

    def _delta(self, index: int, m: Any) -> Map:
        if index not in self._changed:
            return m  # type: ignore[no-any-return]
        seed = int(m.u32[SEED]) if m.spec.map_type not in ARRAYS else 0
        made: Any = create(m.spec, n_cpus=m.n_cpus, seed=seed)
        if not self._effects[index].inserts:
            made.memory[:] = m.memory[:]
        return made  # type: ignore[no-any-return]

    def _call(self, function: Any, deltas: tuple[Map, ...]) -> int:
        addresses = [a for own, delta in zip(self._maps, deltas, strict=True) for a in (own.address, delta.address)]
        pairs = (ctypes.c_uint64 * max(1, len(addresses)))(*addresses)
        return int(function(ctypes.addressof(pairs)))

    def fits(self, deltas: tuple[Map, ...]) -> bool:
        """Whether no map was, or would have been, too full on the way; where not, the packets have to run again, in order."""
        return bool(self._call(self._fits, deltas))

    def merge(self, deltas: tuple[Map, ...]) -> None:
        """Add what ``deltas`` hold, and empty them."""
        self._call(self._merge, deltas)

    def reset(self, deltas: tuple[Map, ...]) -> None:
        """Empty them."""
        self._call(self._reset, deltas)


def _object(program: VerifiedProgram, effects: tuple[MapEffects, ...], use_cache: bool) -> bytes:
    told = f"merge {cache_key(program, Variant('merge'))} {effects}"
    return cached_object(told, lambda: _module(program, effects), use_cache)


def cached_object(told: str, text: Callable[[], str], use_cache: bool) -> bytes:
    """The compiled object of an LLVM text that calls nothing back; ``told`` is all that the text depends on."""
    key = sha256(told.encode()).hexdigest()
    entry = cache.read(key) if use_cache else None
    if entry is not None:
        return entry.code
    from netbpf.engine.llvm.compile import compile_object

    code = compile_object(text())
    if use_cache:
        cache.write(key, cache.Entry(code, False, False))
    return code


def _module(program: VerifiedProgram, effects: tuple[MapEffects, ...]) -> str:
    changed = [(i, m, e) for i, (m, e) in enumerate(zip(program.maps, effects, strict=True)) if e.slots or e.inserts]
    indexes, texts = [i for i, _, _ in changed], [_map_text(i, m, e) for i, m, e in changed]
    return "\n".join([INTRINSICS, *texts, _fits_text(indexes), *(_each_text(name, indexes) for name in ("merge", "reset"))])


def _map_text(index: int, m: Any, effects: MapEffects) -> str:
    is_array = m.spec.map_type in ARRAYS
    numbers = {
        "KEY_SIZE": m.spec.key_size, "VALUE_SIZE": m.spec.value_size, "MAX_ENTRIES": m.spec.max_entries,
        "PLANES": m.n_cpus if m.cpu_stride else 1, "CPU_STRIDE": m.cpu_stride, "INSERTS": effects.inserts,
        "ELEM_SIZE": m.elem_size,
    }  # fmt: skip
    if not is_array:
        numbers |= {
            "KEY_AT": m.key_at, "VALUE_OFF": m.value_off, "VALUE_STEP": m.value_step, "BUCKETS_OFF": int(m.u64[4]),
            "ELEMS_OFF": int(m.u64[5]), "BUCKET_MASK": m.n_buckets - 1,
        }  # fmt: skip
    name = "merge_array" if is_array else "merge_table"
    table = "" if is_array else table_functions(index, m)
    return "\n".join([table, _slots_text(index, effects), compile_kernels(name, str(index), numbers, EXTERNALS)])


def _slots_text(index: int, effects: MapEffects) -> str:
    add = Function(f"define internal void @add_slots{index}(i64 %base, i64 %delta) alwaysinline nounwind")
    clear = Function(f"define internal void @clear_slots{index}(i64 %delta) alwaysinline nounwind")
    for off, size in effects.slots:
        bits = 8 * size
        to, source = (add.op(f"inttoptr i64 {add.math('add', name, off)} to ptr") for name in ("%base", "%delta"))
        add.store(bits, add.op(f"add i{bits} {add.load(bits, to)}, {add.load(bits, source)}"), to)
        clear.store(bits, "0", clear.op(f"inttoptr i64 {clear.math('add', '%delta', off)} to ptr"))
    for f in (add, clear):
        f.ret("void")
    return f"{add.text()}\n{clear.text()}"


def _pair(f: Function, index: int) -> tuple[str, str]:
    base, delta = (f.load(64, f.gep("%pairs", 16 * index + 8 * k), 8) for k in range(2))
    return base, delta


def _fits_text(changed: list[int]) -> str:
    f = Function("define i64 @fits(ptr %pairs) nounwind")
    for index in changed:
        base, delta = _pair(f, index)
        ok = f.fresh_label("fits")
        f.cond(f.test("ne", f.op(f"call i64 @fits{index}(i64 {base}, i64 {delta})"), 0), ok, "full")
        f.label(ok)
    f.ret("i64 1")
    f.label("full")
    f.ret("i64 0")
    return f.text()


def _each_text(name: str, changed: list[int]) -> str:
    """``merge`` or ``reset`` of every map."""
    f = Function(f"define i64 @{name}(ptr %pairs) nounwind")
    for index in changed:
        base, delta = _pair(f, index)
        f.op(f"call i64 @{name}{index}({f'i64 {base}, ' if name == 'merge' else ''}i64 {delta})")
    f.ret("i64 0")
    return f.text()
