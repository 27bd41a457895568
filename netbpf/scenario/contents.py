"""What maps hold, read through bpf(2) without changing it: entries, elements of queues and stacks in the order in which they
are taken, members of bloom filters that were asked for, and inner maps of maps of maps, by names of their own: ``outer[1]``."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from netbpf.abi.maps import MapType
from netbpf.errors import BpfError
from netbpf.host.base import Process
from netbpf.scenario.codec import EVENTS, IN_ORDER, OF_MAPS, MapCodec
from netbpf.scenario.layout import LayoutError
from netbpf.scenario.model import MapExpect
from netbpf.scenario.toml_map import Node
from netbpf.scenario.write import render

Rows = tuple[tuple[bytes, bytes], ...]
_KEYS: Final = ("entries", "count")


def words_of(codec: MapCodec) -> tuple[str, ...]:
    """What can be expected of a map of this kind, beside ``match``; nothing of one that holds events."""
    kind = codec.spec.map_type
    if kind in EVENTS:
        return ()
    if kind in IN_ORDER:
        return ("elements", "count")
    if kind == MapType.BLOOM_FILTER:
        return ("has", "lacks")
    return ("inner", *_KEYS) if kind in OF_MAPS else _KEYS


def check_words(name: str, codec: MapCodec, wanted: MapExpect) -> None:
    """Raises SourceError where something is expected of a map that its kind does not have."""
    words = words_of(codec)
    if not words:
        wanted.node.fail_key(f"{name} has no keys and values: see expect.ring and expect.perf")
    for key, node in wanted.node.table.items():
        if key != "match" and key not in words:
            node.fail_key(f"of {name} can be expected: {', '.join(words)}")
    for said in (wanted.has, wanted.lacks, wanted.elements):
        for node in () if said is None else said.array:
            _check_value(name, codec, node)
    for key, inner in wanted.inner.items():
        assert codec.inner is not None
        check_words(inner_name(name, codec, key, inner.node), codec.inner, inner)


def _check_value(name: str, codec: MapCodec, node: Node) -> None:
    try:
        codec.value.encode(node.plain())
    except LayoutError as e:
        if not isinstance(node.plain(), dict):  # a table may leave fields out
            node.fail(f"{name}: {e}")


def inner_name(name: str, codec: MapCodec, key: str, node: Node) -> str:
    """What the inner map at a key that is said as text is called. Raises SourceError."""
    try:
        return f"{name}[{render(codec.said_key(codec.key_bytes(key, is_text=True)))}]"
    except LayoutError as e:
        node.fail_key(f"{name}: {e}")


@dataclass
class Reader:
    """Gathers ``rows`` of maps by name; ``codecs`` of inner maps. A bloom filter has a row for each value asked of it, empty
    where it is not in it."""

    process: Process
    rows: dict[str, Rows] = field(default_factory=dict)
    codecs: dict[str, MapCodec] = field(default_factory=dict)

    def read(self, name: str, codec: MapCodec, fd: int, wanted: MapExpect | None) -> None:
        """Raises BpfError. Maps that hold events are left out: reading takes those away."""
        kind = codec.spec.map_type
        if kind in EVENTS:
            return
        if kind in IN_ORDER:
            self.rows[name] = tuple((i.to_bytes(4), v) for i, v in enumerate(self._elements(fd, kind)))
        elif kind == MapType.BLOOM_FILTER:
            self.rows[name] = tuple(self._members(codec, fd, wanted))
        else:
            self.rows[name] = tuple(sorted(self.process.map_items(fd)))
        if codec.inner is not None:
            self._inner(name, codec, wanted)

    def _elements(self, fd: int, kind: int) -> list[bytes]:
        """All of them taken, and put back as they were."""
        found = list(self._taken(fd))
        for value in found if kind == MapType.QUEUE else reversed(found):
            self.process.map_update_elem(fd, b"", value)
        return found

    def _taken(self, fd: int) -> Iterator[bytes]:
        while True:
            try:
                yield self.process.map_lookup_and_delete_elem(fd, b"")
            except BpfError as e:
                if e.errno != errno.ENOENT:
                    raise
                return

    def _members(self, codec: MapCodec, fd: int, wanted: MapExpect | None) -> Iterator[tuple[bytes, bytes]]:
        for said in () if wanted is None else (wanted.has, wanted.lacks):
            for node in () if said is None else said.array:
                value = codec.value.encode(node.plain())
                yield value, value if self.process.map_has_value(fd, value) else b""

    def _inner(self, name: str, codec: MapCodec, wanted: MapExpect | None) -> None:
        """A map of maps shows ids of maps to user space."""
        assert codec.inner is not None
        asked = {} if wanted is None else {inner_name(name, codec, k, e.node): e for k, e in wanted.inner.items()}
        for key, map_id in self.rows[name]:
            fd = self.process.map_get_fd_by_id(int.from_bytes(map_id, "little"))
            inner = f"{name}[{render(codec.said_key(key))}]"
            self.codecs[inner] = codec.inner
            try:
                self.read(inner, codec.inner, fd, asked.get(inner))
            finally:
                self.process.close(fd)
