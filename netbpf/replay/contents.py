"""What the maps of a loaded program hold, read through the calls any user has, in a form that two hosts can be compared in."""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterable
from typing import Final

from netbpf.abi.maps import MAP_KINDS, MapType
from netbpf.errors import BpfError
from netbpf.host.base import Process
from netbpf.host.loader import LoadedSpec
from netbpf.program import ProgramSpec

_TAKEN: Final = frozenset({MapType.QUEUE, MapType.STACK})  # read by taking elements out
_BY_OBJECT: Final = frozenset({MapType.PROG_ARRAY, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})  # values are ids
_UNREADABLE: Final = frozenset({MapType.BLOOM_FILTER, MapType.SK_STORAGE})

Entry = tuple[bytes, bytes]


class PerfEvents:
    """Perf events opened for the perf event arrays of a program, one a CPU."""

    def __init__(self, process: Process, spec: ProgramSpec, loaded: LoadedSpec) -> None:
        self.process = process
        self.fds: dict[str, list[int]] = {}
        for decl in spec.maps:
            if decl.spec.map_type == MapType.PERF_EVENT_ARRAY:
                self.fds[decl.spec.name] = self._open(loaded.map_fds[decl.spec.name], decl.spec.max_entries)

    def _open(self, map_fd: int, entries: int) -> list[int]:
        fds = []
        for cpu in range(min(self.process.possible_cpus, entries or self.process.possible_cpus)):
            try:
                fd = self.process.perf_event_open(cpu)
            except BpfError as e:
                if e.errno == _errno.ENODEV:  # a CPU that may come but is not there
                    continue
                raise
            self.process.map_update_elem(map_fd, cpu.to_bytes(4, "little"), fd.to_bytes(4, "little"))
            fds.append(fd)
        return fds

    def records(self, name: str) -> list[bytes]:
        """What was written, CPU by CPU; a record tells a loss as ``lost N``."""
        rows = [r for fd in self.fds[name] for r in self.process.perf_read(fd)]
        return [f"lost {r.lost}".encode() if r.lost else r.raw for r in rows]


def read_maps(
    process: Process, spec: ProgramSpec, loaded: LoadedSpec, events: PerfEvents | None = None
) -> dict[str, tuple[Entry, ...]]:
    """What the maps of a loaded program hold, as ``compare.HostRun.maps`` has it. Queues, stacks and rings are emptied by it."""
    out = {}
    for decl in spec.maps:
        name, kind = decl.spec.name, decl.spec.map_type
        if kind == MapType.PERF_EVENT_ARRAY:
            out[name] = _numbered(events.records(name) if events else ())
        else:
            out[name] = _read_map(process, kind, loaded.map_fds[name])
    return out


def _read_map(process: Process, kind: int, fd: int) -> tuple[Entry, ...]:
    if kind == MapType.RINGBUF:
        return _numbered(process.ringbuf_read(fd))
    if kind in _TAKEN:
        return _numbered(_take_all(process, fd))
    if kind in _UNREADABLE or kind not in MAP_KINDS:
        return ()
    rows = process.map_items(fd)
    return tuple(sorted((key, b"" if kind in _BY_OBJECT else value) for key, value in rows))


def _numbered(records: Iterable[bytes]) -> tuple[Entry, ...]:
    return tuple((i.to_bytes(4, "little"), record) for i, record in enumerate(records))


def _take_all(process: Process, fd: int) -> Iterable[bytes]:
    while True:
        try:
            yield process.map_lookup_and_delete_elem(fd, b"")
        except BpfError as e:
            if e.errno != _errno.ENOENT:
                raise
            return
