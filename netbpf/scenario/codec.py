"""The maps of a loaded program as a scenario speaks of them: descriptor, kind, and the layouts of key and value.

A layout comes from the scenario's ``[maps.NAME]``, else from the types that the program's BTF declares, else nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from netbpf.abi.maps import MAP_KINDS, MapType
from netbpf.btf import Btf
from netbpf.ints import round_up
from netbpf.maps.spec import MapSpec
from netbpf.program import ProgramSpec
from netbpf.scenario.layout import Hex, Layout, LayoutError, Untyped, btf_layout, parse_layout
from netbpf.scenario.model import MapSetup

ARRAYS: Final = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
IN_ORDER: Final = frozenset({MapType.QUEUE, MapType.STACK})
OF_MAPS: Final = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
EVENTS: Final = frozenset({MapType.RINGBUF, MapType.PERF_EVENT_ARRAY})
OF_OBJECTS: Final = frozenset({MapType.PROG_ARRAY, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
PER_CPU: Final = "per_cpu"


@dataclass(frozen=True)
class MapCodec:
    """How one map's bytes are said. ``n_cpus`` copies are in a per-CPU value."""

    spec: MapSpec
    key: Layout
    value: Layout
    n_cpus: int
    inner: MapCodec | None = None  # of a map of maps

    @cached_property
    def is_per_cpu(self) -> bool:
        kind = MAP_KINDS.get(self.spec.map_type)
        return kind is not None and kind.per_cpu

    @cached_property
    def is_array(self) -> bool:
        return self.spec.map_type in ARRAYS

    # --- bytes of what is said ----------------------------------------------------------------------------------------
    def key_bytes(self, said: Any, *, is_text: bool) -> bytes:
        """Empty where nothing is said: queues, stacks and bloom filters have no keys. Raises LayoutError."""
        if said is None and not is_text:
            return b""
        return self.key.encode(self.key.of_key(said) if is_text else said)

    def value_bytes(self, said: Any) -> bytes:
        """As the system call takes it; a per-CPU value that is one value is CPU 0's. Raises LayoutError."""
        if not self.is_per_cpu:
            return self.value.encode(said)
        copies = said[PER_CPU] if _is_per_cpu(said) else [said]
        if not isinstance(copies, list) or len(copies) > self.n_cpus:
            raise LayoutError(f"{PER_CPU} is a list of at most {self.n_cpus} values, one a CPU")
        step = round_up(self.spec.value_size, 8)
        return b"".join(self.value.encode(c).ljust(step, b"\0") for c in copies).ljust(step * self.n_cpus, b"\0")

    # --- what is said of bytes ----------------------------------------------------------------------------------------
    def copies(self, value: bytes) -> list[bytes]:
        """Each CPU's value; the value itself of other kinds."""
        if not self.is_per_cpu:
            return [value]
        step, size = round_up(self.spec.value_size, 8), self.spec.value_size
        return [value[at : at + size] for at in range(0, len(value), step)]

    def said_value(self, value: bytes, like: Any = None) -> Any:
        """The value in a scenario's words, in the form of ``like`` where there are several: each CPU's, or their sum."""
        if not self.is_per_cpu:
            return self.value.decode(value)
        copies = [self.value.decode(c) for c in self.copies(value)]
        if not _is_per_cpu(like):
            return add_up(copies)
        while len(copies) > max(len(like[PER_CPU]), 1) and not any(self.copies(value)[len(copies) - 1]):
            copies.pop()
        return {PER_CPU: copies}

    def said_key(self, key: bytes) -> Any:
        return self.key.decode(key)

    def matches(self, said: Any, value: bytes, *, partly: bool) -> bool:
        """Whether a value is what is said of it. Raises LayoutError."""
        if not self.is_per_cpu:
            return self.value.matches(said, value, partly=partly)
        copies = self.copies(value)
        if _is_per_cpu(said):
            wanted = said[PER_CPU]
            if not isinstance(wanted, list) or len(wanted) > len(copies):
                raise LayoutError(f"{PER_CPU} is a list of at most {len(copies)} values, one a CPU")
            some = all(self.value.matches(w, c, partly=partly) for w, c in zip(wanted, copies, strict=False))
            return some and not any(any(c) for c in copies[len(wanted) :])
        total = add_up([self.value.decode(c) for c in copies])
        try:
            return self.value.matches(said, self.value.encode(total), partly=partly)
        except LayoutError:
            return bool(said == total)


def _is_per_cpu(said: Any) -> bool:
    return isinstance(said, dict) and set(said) == {PER_CPU}


def add_up(values: list[Any]) -> Any:
    """Values of several CPUs as one: numbers added, tables and lists piece by piece. Raises LayoutError for text that differs."""
    first = values[0]
    if isinstance(first, dict):
        return {key: add_up([v[key] for v in values]) for key in first}
    if isinstance(first, list):
        return [add_up(list(column)) for column in zip(*values, strict=True)]
    if isinstance(first, int | float) and not isinstance(first, bool):
        return sum(values)
    if any(v != first for v in values):
        raise LayoutError(f"the CPUs' values cannot be added: write {{ {PER_CPU} = [...] }}")
    return first


def codecs_of(spec: ProgramSpec, setups: Mapping[str, MapSetup], n_cpus: int) -> dict[str, MapCodec]:
    """A codec by map. Raises SourceError where a layout does not fit, or names a map that is none."""
    btf = Btf.parse(spec.btf) if spec.btf else None
    names = [decl.spec.name for decl in spec.maps]
    for name, setup in setups.items():
        if name not in names and setup.node is not None:
            setup.node.fail_key(no_map(name, names))
    return {decl.spec.name: _codec(decl.spec, setups.get(decl.spec.name, MapSetup()), btf, n_cpus) for decl in spec.maps}


def no_map(name: str, names: list[str]) -> str:
    """What to say of a name that no map of the program has."""
    from netbpf.sources.lexer import did_you_mean

    if not names:
        return f"the program has no maps, and none is called {name!r}"
    return f"the program has no map {name!r}{did_you_mean(name, names) or ': ' + ', '.join(names)}"


def _codec(spec: MapSpec, setup: MapSetup, btf: Btf | None, n_cpus: int) -> MapCodec:
    key = _layout(setup, "key", setup.key, btf, spec.btf_key_type_id, spec.key_size)
    if spec.map_type in EVENTS:
        return MapCodec(spec, key, parse_layout(setup.value) if setup.value else Hex(), n_cpus)
    inner = None if spec.inner is None else _codec(spec.inner, setup.inner or MapSetup(), btf, n_cpus)
    if spec.inner is None and setup.inner is not None and setup.inner.node is not None:
        setup.inner.node.fail_key(f"{spec.name} is no map of maps")
    value = _layout(setup, "value", setup.value, btf, spec.btf_value_type_id, spec.value_size)
    return MapCodec(spec, key, value, n_cpus, inner)


def _layout(setup: MapSetup, what: str, text: str, btf: Btf | None, type_id: int, size: int) -> Layout:
    if text:
        layout = parse_layout(text)
        if size and layout.size != size and setup.node is not None:
            setup.node.table[what].fail(f"this is {layout.size} bytes, the map's {what}s have {size}")
        return layout
    if btf is not None and type_id and size:
        try:
            typed = btf_layout(btf, type_id)
        except LayoutError:
            return Untyped(size)
        return typed if typed.size == size else Untyped(size)
    return Untyped(size)
