"""The maps of an object: definitions in .maps (BTF) and in ``maps`` (struct bpf_map_def), and what their slots name.

A definition in .maps is a variable whose type says everything: ``__uint(name, n)`` is a pointer to an array of n,
``__type(name, t)`` a pointer to t, ``__array(values, t)`` an array of pointers to t. Knows types, sections and symbols; no
instruction.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from netbpf.abi.maps import MapType
from netbpf.btf import (
    KIND_ARRAY,
    KIND_DATASEC,
    KIND_ENUM,
    KIND_ENUM64,
    KIND_FUNC_PROTO,
    KIND_PTR,
    KIND_STRUCT,
    KIND_VAR,
    Btf,
    BtfType,
    Member,
)
from netbpf.maps.spec import MapSpec
from netbpf.program import MapDecl
from netbpf.sources.elf.debug import DATA_BYTES
from netbpf.sources.elf.reader import STT_FUNC, STT_SECTION, ElfFile, Relocation, Section

BTF_MAPS: Final = ".maps"
LEGACY_MAPS: Final = "maps"
PIN_DIR: Final = "/sys/fs/bpf"
LIBBPF_PIN_BY_NAME: Final = 1
PAGE_BYTES: Final = 4096
POINTER_BYTES: Final = 8
MAX_DEPTH: Final = 2  # a map, and the map in it
_LEGACY: Final = struct.Struct("<IIIII")
_U32_MAX: Final = (1 << 32) - 1
_MAPS_IN_MAPS: Final = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
_RINGS: Final = frozenset({MapType.RINGBUF, MapType.USER_RINGBUF})
# kinds that BPF_MAP_CREATE takes no types of keys and values for
_UNTYPED: Final = frozenset(
    {
        MapType.PERF_EVENT_ARRAY, MapType.CGROUP_ARRAY, MapType.STACK_TRACE, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS,
        MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP, MapType.XSKMAP, MapType.SOCKMAP, MapType.SOCKHASH,
        MapType.QUEUE, MapType.STACK, MapType.ARENA,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where a definition stands: ``offset`` bytes into ``section``; ``values_off`` where its slots begin, -1: no slots."""

    section: int
    offset: int
    size: int
    values_off: int = -1


@dataclass(slots=True)
class MapTable:
    """The maps of an object in order of their index, and where each was defined."""

    decls: list[MapDecl] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def add(self, decl: MapDecl, place: Place) -> None:
        self.decls.append(decl)
        self.places.append(place)

    def at(self, section: int, offset: int) -> int:
        """The index of the map defined at a place, or -1."""
        return next((i for i, p in enumerate(self.places) if p.section == section and p.offset == offset), -1)


# --- struct bpf_map_def -----------------------------------------------------------------------------------------------
def legacy_maps(elf: ElfFile, section: Section, table: MapTable) -> None:
    """The definitions in a ``maps`` section: type, key_size, value_size, max_entries, map_flags; the rest must be zeros."""
    names = sorted(
        (s for s in elf.symbols if s.section == section.number and s.name and s.type != STT_SECTION), key=lambda s: s.value
    )
    content = elf.content(section)
    if not names:
        raise elf.wrong(section, 0, "no symbol names a map")
    ends = [s.value for s in names[1:]] + [len(content)]
    for symbol, end in zip(names, ends, strict=True):
        row = content[symbol.value : end]
        if len(row) < _LEGACY.size:
            raise elf.wrong(section, symbol.value, f"map {symbol.name!r} has {len(row)} bytes, struct bpf_map_def {_LEGACY.size}")
        if any(row[_LEGACY.size :]):
            raise elf.wrong(
                section, symbol.value + _LEGACY.size, f"map {symbol.name!r} uses fields beyond map_flags: define it in .maps"
            )
        kind, key, value, entries, flags = _LEGACY.unpack_from(row)
        spec = MapSpec(kind, key, value, entries, flags, symbol.name)
        table.add(MapDecl(_adjusted(spec)), Place(section.number, symbol.value, len(row)))


# --- .maps ------------------------------------------------------------------------------------------------------------
def btf_maps(elf: ElfFile, section: Section, btf: Btf, table: MapTable) -> None:
    """The definitions in .maps, in the order of their places, and their slots."""
    datasec_id = btf.find(BTF_MAPS, KIND_DATASEC)
    datasec = btf.type(datasec_id) if datasec_id else None
    if datasec is None:
        raise elf.wrong(section, 0, "its maps have no types: build with clang -g")
    for type_id, offset, size in sorted(datasec.rows, key=lambda row: row[1]):
        var = btf.type(type_id)
        if var is None or var.kind != KIND_VAR:
            raise elf.wrong(section, offset, f"type {type_id} is no variable")
        if offset + size > section.size:
            raise elf.wrong(section, offset, f"a map of {size} bytes in a section of {section.size}")
        name = btf.string(var.name_off)
        definition = _Definition(elf, section, btf, offset, name)
        spec = definition.read(var.size_or_type, name, 0)
        pin_path = f"{PIN_DIR}/{name}" if definition.pinned else ""
        table.add(MapDecl(spec, pin_path=pin_path), Place(section.number, offset, size, definition.values_off))


class _Definition:
    """One definition on its way from a struct type to a MapSpec."""

    def __init__(self, elf: ElfFile, section: Section, btf: Btf, offset: int, name: str) -> None:
        self.elf, self.section, self.btf, self.offset, self.name = elf, section, btf, offset, name
        self.pinned, self.values_off = False, -1

    def wrong(self, text: str) -> Exception:
        return self.elf.wrong(self.section, self.offset, f"map {self.name!r}: {text}")

    def read(self, struct_id: int, name: str, depth: int) -> MapSpec:
        """The spec of the struct type. ``depth`` is 1 for the map in a map."""
        btf = self.btf
        struct_id = btf.skip_modifiers(struct_id)
        t = btf.type(struct_id)
        if t is None or t.kind != KIND_STRUCT:
            raise self.wrong("its type is no struct of __uint and __type")
        found: dict[str, int] = {}
        inner: MapSpec | None = None
        for m in btf.members(struct_id):
            if m.name == "values":
                inner = self._values(m, t, depth)
            elif m.name == "pinning" and depth == 0:
                self._pinning(self._number(m))
            elif m.name in _FIELDS:
                found[m.name] = _FIELDS[m.name](self, m)
            else:
                raise self.wrong(f"unknown field {m.name!r}")
        return self._spec(found, name, inner)

    def _spec(self, found: dict[str, int], name: str, inner: MapSpec | None) -> MapSpec:
        if "type" not in found:
            raise self.wrong("it has no type")
        sizes = {}
        for what in ("key", "value"):
            type_id, stated = found.get(what, 0), found.get(f"{what}_size")
            size = self.btf.size(type_id) if type_id else stated or 0
            if type_id and (not size or size > _U32_MAX or stated not in (None, size)):
                raise self.wrong(f"{what} is {size} bytes by its type, {stated if stated is not None else 'no number'} as stated")
            sizes[what] = size
        if found["type"] in _MAPS_IN_MAPS:
            if inner is None:
                raise self.wrong("a map of maps needs __array(values, ...), the shape of the maps in it")
            sizes["value"] = sizes["value"] or 4
        elif found["type"] == MapType.PROG_ARRAY and self.values_off >= 0:
            sizes["value"] = sizes["value"] or 4
        typed = found["type"] not in _UNTYPED and "value" in found and ("key" in found or not sizes["key"])
        spec = MapSpec(
            found["type"],
            sizes["key"],
            sizes["value"],
            found.get("max_entries", 0),
            found.get("map_flags", 0),
            name,
            map_extra=found.get("map_extra", 0),
            numa_node=found.get("numa_node", 0),
            inner=inner if found["type"] in _MAPS_IN_MAPS else None,
            btf_key_type_id=found.get("key", 0) if typed else 0,
            btf_value_type_id=found.get("value", 0) if typed else 0,
        )
        return _adjusted(spec)

    # --- one field ----------------------------------------------------------------------------------------------------
    def _number(self, m: Member) -> int:
        """``__uint``: elements of the array pointed to; ``__ulong``: the one value of an enumeration."""
        t = self._type(m.type_id)
        if t is not None and t.kind in (KIND_ENUM, KIND_ENUM64) and t.rows:
            row = t.rows[0]
            return row[1] | row[2] << 32 if t.kind == KIND_ENUM64 else row[1] & _U32_MAX
        target = self._type(t.size_or_type) if t is not None and t.kind == KIND_PTR else None
        if target is None or target.kind != KIND_ARRAY:
            raise self.wrong(f"field {m.name!r} is no number: write __uint({m.name}, n)")
        return target.rows[0][2]

    def _pointed(self, m: Member) -> int:
        """``__type``: the type pointed to."""
        t = self._type(m.type_id)
        if t is None or t.kind != KIND_PTR:
            raise self.wrong(f"field {m.name!r} is no type: write __type({m.name}, t)")
        return t.size_or_type

    def _pinning(self, value: int) -> None:
        if value not in (0, LIBBPF_PIN_BY_NAME):
            raise self.wrong(f"pinning {value}: LIBBPF_PIN_BY_NAME ({LIBBPF_PIN_BY_NAME}) or none")
        self.pinned = value == LIBBPF_PIN_BY_NAME

    def _values(self, m: Member, owner: BtfType, depth: int) -> MapSpec | None:
        """``__array(values, ...)``: the map in the map; programs have none. It is the last field, and begins the slots."""
        if depth + 1 >= MAX_DEPTH:
            raise self.wrong("a map in a map in a map")
        array = self._type(m.type_id)
        pointer = self._type(array.rows[0][0]) if array is not None and array.kind == KIND_ARRAY else None
        target = self._type(pointer.size_or_type) if pointer is not None and pointer.kind == KIND_PTR else None
        last = owner.rows[-1][0] if owner.rows else -1
        if target is None or target.kind not in (KIND_STRUCT, KIND_FUNC_PROTO) or self.btf.string(last) != "values":
            raise self.wrong("'values' is no array of pointers to maps or functions at the end: write __array(values, t)")
        self.values_off = m.bit_offset // 8
        if target.kind == KIND_FUNC_PROTO:
            return None
        assert pointer is not None
        return self.read(pointer.size_or_type, f"{self.name}.inner", depth + 1)

    def _type(self, type_id: int) -> BtfType | None:
        return self.btf.type(self.btf.skip_modifiers(type_id))


_FIELDS: Final[dict[str, Callable[[_Definition, Member], int]]] = {
    "type": _Definition._number,
    "max_entries": _Definition._number,
    "map_flags": _Definition._number,
    "numa_node": _Definition._number,
    "map_extra": _Definition._number,
    "key_size": _Definition._number,
    "value_size": _Definition._number,
    "key": _Definition._pointed,
    "value": _Definition._pointed,
}


def _adjusted(spec: MapSpec) -> MapSpec:
    """A ring's size is rounded up to the next power of two of pages, as libbpf does."""
    size = spec.max_entries
    if spec.map_type not in _RINGS or not size or (size % PAGE_BYTES == 0 and size & (size - 1) == 0):
        return spec
    rounded = max(PAGE_BYTES, 1 << (size - 1).bit_length())
    return spec._replace(max_entries=rounded) if rounded <= _U32_MAX else spec


# --- slots ------------------------------------------------------------------------------------------------------------
def fill_slots(elf: ElfFile, section: Section, table: MapTable) -> None:
    """Give each map of .maps what the relocations of its ``values`` name: (index as key, name of a map or function)."""
    functions = {(s.section, s.value): s.name for s in elf.symbols if s.type == STT_FUNC}
    maps = {(p.section, p.offset): d.spec.name for p, d in zip(table.places, table.decls, strict=True)}
    slots: dict[int, list[tuple[bytes, str]]] = {}
    content = elf.content(section)
    for at, r in _slot_relocations(elf, section, table):
        decl, place = table.decls[at], table.places[at]
        addend = int.from_bytes(content[r.offset : r.offset + POINTER_BYTES], "little")
        is_outer = decl.spec.map_type in _MAPS_IN_MAPS
        name = (maps if is_outer else functions).get((r.symbol.section, r.symbol.value + addend))
        if name is None:
            wanted = "map" if is_outer else "program"
            raise elf.wrong(section, r.offset, f"a slot of {decl.spec.name!r} names {r.symbol.name!r}, which is no {wanted}")
        index = (r.offset - place.offset - place.values_off) // POINTER_BYTES
        slots.setdefault(at, []).append((index.to_bytes(4, "little"), name))
    for at, rows in slots.items():
        decl = table.decls[at]
        if decl.spec.key_size != 4:
            raise elf.wrong(section, table.places[at].offset, f"map {decl.spec.name!r} has slots, and keys that are no u32")
        table.decls[at] = decl._replace(slots=tuple(rows))


def _slot_relocations(elf: ElfFile, section: Section, table: MapTable) -> Iterator[tuple[int, Relocation]]:
    """(index of the map, relocation of a slot of it)."""
    left = iter([i for i, p in enumerate(table.places) if p.section == section.number])
    current = next(left, -1)
    for r in elf.relocations(section):
        while current >= 0 and r.offset >= table.places[current].offset + table.places[current].size:
            current = next(left, -1)
        place = table.places[current]
        begin = place.offset + place.values_off
        is_slot = place.values_off >= 0 and r.offset >= begin and (r.offset - begin) % POINTER_BYTES == 0
        if current < 0 or not is_slot or DATA_BYTES.get(r.type) != POINTER_BYTES:
            raise elf.wrong(section, r.offset, "a relocation that is no slot of a map's values")
        yield current, r
