"""The map that a helper is called with, and its other arguments, as native code passes them on."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Any, NamedTuple

from netbpf.engine.llvm.abi import ARGS
from netbpf.engine.llvm.checks import READ
from netbpf.engine.llvm.maps import inner_suffix
from netbpf.engine.llvm.shape import ARRAYS
from netbpf.isa.opcodes import MAX_BPF_STACK
from netbpf.maps.handle import ADDRESS_AT
from netbpf.maps.spec import MapSpec

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode


class MapRef(NamedTuple):
    """The map of a call. ``suffix``: of the functions for it; ``base``: the pointer they take, see ``maps``; ``number``: which of
    the program's maps it is, -1 for one found in another."""

    suffix: str
    base: str
    spec: MapSpec
    n_cpus: int
    number: int


def native_map(s: SubprogCode, pc: int, kinds: Set[int], register: int = 1) -> MapRef | None:
    """The map that a register names, if it is known and of one of these kinds."""
    index = s.map_index(pc, register)
    if index >= 0:
        return own_map(s, index) if s.owner.program.maps[index].spec.map_type in kinds else None
    return _inner_map(s, s.inner_of(pc), kinds) if register == 1 else None


def own_map(s: SubprogCode, index: int) -> MapRef:
    live: Any = s.owner.program.maps[index]
    return MapRef(str(index), f"%m{index}", live.spec, live.n_cpus, index)


def _inner_map(s: SubprogCode, outer_index: int, kinds: Set[int]) -> MapRef | None:
    """The map that R1 names, one of those inside a map of maps."""
    outer: Any = s.owner.program.maps[outer_index] if outer_index >= 0 else None
    if outer is None or outer.spec.inner.map_type not in kinds:
        return None
    base = s.f.op(f"inttoptr i64 {s.get(1)} to ptr")
    if outer.spec.inner.map_type not in ARRAYS:
        base = s.f.op(f"load ptr, ptr {s.f.gep(base, ADDRESS_AT)}, align 8")
    return inner_at(s, outer_index, base)


def inner_at(s: SubprogCode, outer_index: int, base: str) -> MapRef:
    s.owner.used_inner.add(outer_index)
    outer: Any = s.owner.program.maps[outer_index]
    return MapRef(inner_suffix(outer_index), base, outer.spec.inner, outer.n_cpus, -1)


def cpu_operand(s: SubprogCode, m: MapRef, kinds: Set[int]) -> str:
    """The CPU operand of an operation that asks for one in these kinds; else 0."""
    if m.spec.map_type not in kinds:
        return "0"
    s.owner.used_args.add("cpu_id")
    return s.f.load(64, s.f.gep("%a", ARGS["cpu_id"]), 8)


def key_operand(s: SubprogCode, pc: int, m: MapRef) -> str:
    """R2 as a pointer to a key."""
    return s.pointer(pc, 2, 0, m.spec.key_size, READ)


def value_operand(s: SubprogCode, pc: int, m: MapRef, register: int, access: int = READ) -> str:
    return s.pointer(pc, register, 0, m.spec.value_size, access)


def room(s: SubprogCode, size: int) -> str:
    """Memory of a call's own."""
    name = f"{s.f.name()}.room"
    s.f.lines.insert(2, f"  {name} = alloca [{size} x i8], align 8")
    return name


def copied(s: SubprogCode, at: str, size: int) -> str:
    """Address of a copy: a kernel is not inlined, and the program's stack must not escape into it."""
    copy = room(s, size)
    s.f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr align 8 {copy}, ptr {at}, i64 {size}, i1 false)")
    return s.f.op(f"ptrtoint ptr {copy} to i64")


def bytes_of(s: SubprogCode, pc: int, register: int, size_register: int) -> str:
    """Address of as many bytes at R as another register says; a copy, where that is a number small enough."""
    known = s.known(pc, size_register)
    if known and known.kind == "num" and 0 < known.value <= MAX_BPF_STACK:
        return copied(s, s.pointer(pc, register, 0, known.value, READ), known.value)
    return s.f.op(f"ptrtoint ptr {s.pointer(pc, register, 0, s.get(size_register), READ)} to i64")


def map_kernel(s: SubprogCode, name: str, m: MapRef, *args: str) -> str:
    """Call a kernel of a map."""
    memory = s.f.op(f"ptrtoint ptr {m.base} to i64")
    return s.f.op(f"call i64 @{name}{m.suffix}({', '.join(f'i64 {a}' for a in (memory, *args))})")
