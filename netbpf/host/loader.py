"""A ProgramSpec onto a host: its maps made and filled, its program loaded, through the calls any user has.

The same steps on the simulator and on the real kernel; knows the Host protocol only.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from netbpf.abi.maps import MapType
from netbpf.errors import BpfError
from netbpf.host.base import Process
from netbpf.isa.instruction import Instruction, Program
from netbpf.isa.opcodes import (
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_IDX,
    BPF_PSEUDO_MAP_IDX_VALUE,
    BPF_PSEUDO_MAP_VALUE,
    is_ld_imm64,
)
from netbpf.maps.spec import MapSpec
from netbpf.program import MapDecl, ProgramSpec

_BY_FD = {BPF_PSEUDO_MAP_IDX: BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX_VALUE: BPF_PSEUDO_MAP_VALUE}


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """Descriptors of a loaded program, of its maps by name, and by name of the programs that slots of its maps hold."""

    prog_fd: int
    map_fds: dict[str, int]
    other_fds: dict[str, int] = field(default_factory=dict)


def load_spec(process: Process, spec: ProgramSpec, *, log_level: int = 0) -> LoadedSpec:
    """Make the maps, fill them, load the program and those its slots name. Raises BpfError, or ProgramRejected with the log;
    nothing stays open then."""
    loading = _Loading(process, spec)
    try:
        return loading.run(log_level)
    except BaseException:
        for fd in (*loading.map_fds, *loading.prog_fds.values()):
            process.close(fd)
        raise
    finally:
        if loading.btf_fd:
            process.close(loading.btf_fd)


def by_descriptor(insns: Program, fds: list[int]) -> Program:
    """The instructions with every index of a declared map replaced by that map's descriptor."""
    out, skip = list(insns), False
    for pc, insn in enumerate(insns):
        if skip:
            skip = False
        elif is_ld_imm64(insn.code):
            skip = True
            if insn.src in _BY_FD and 0 <= insn.imm < len(fds):
                out[pc] = Instruction(insn.code, insn.dst, _BY_FD[insn.src], insn.off, fds[insn.imm])
    return tuple(out)


class _Loading:
    """A spec on its way onto a host, and what is open by then."""

    def __init__(self, process: Process, spec: ProgramSpec) -> None:
        self.process, self.spec = process, spec
        self.btf_fd = 0
        self.map_fds: list[int] = []
        self.by_name: dict[str, int] = {}
        self.prog_fds: dict[str, int] = {}
        self.reused: set[str] = set()  # maps that were pinned already: their contents are theirs

    def run(self, log_level: int) -> LoadedSpec:
        process, spec = self.process, self.spec
        self.btf_fd = self._load_btf()
        for decl in spec.maps:
            self.map_fds.append(self._map(decl))
        self.by_name = {decl.spec.name: fd for decl, fd in zip(spec.maps, self.map_fds, strict=True)}
        for decl in spec.maps:
            if decl.slots and decl.spec.map_type != MapType.PROG_ARRAY:
                self._fill(decl, self.by_name)
        main = self.prog_fds[spec.name] = self._load(spec, log_level)
        for other in spec.others:
            if other.name not in self.prog_fds:
                self.prog_fds[other.name] = self._load(other, log_level)
        for decl in spec.maps:
            if decl.slots and decl.spec.map_type == MapType.PROG_ARRAY:
                self._fill(decl, self.prog_fds)
        for decl, fd in zip(spec.maps, self.map_fds, strict=True):
            if decl.pin_path and decl.spec.name not in self.reused:
                process.obj_pin(decl.pin_path, fd)
        return LoadedSpec(main, self.by_name, {name: fd for name, fd in self.prog_fds.items() if fd != main})

    def _load_btf(self) -> int:
        """The types' descriptor; 0 where there are none, or where the process may not load any: they are optional then."""
        if not self.spec.btf:
            return 0
        try:
            return self.process.btf_load(self.spec.btf)
        except BpfError as e:
            if e.errno != errno.EPERM:
                raise
            return 0

    def _load(self, spec: ProgramSpec, log_level: int) -> int:
        return self.process.prog_load(
            by_descriptor(spec.insns, self.map_fds),
            prog_type=spec.prog_type,
            license=spec.license,
            name=spec.name,
            log_level=log_level,
            prog_flags=spec.prog_flags,
            expected_attach_type=spec.expected_attach_type,
            btf_fd=self.btf_fd,
            func_info=spec.func_info if self.btf_fd else (),
            line_info=spec.line_info if self.btf_fd else (),
        )

    # --- maps ---------------------------------------------------------------------------------------------------------
    def _map(self, decl: MapDecl) -> int:
        """A map's descriptor: the pinned one where there is one, else a new one with its contents."""
        process = self.process
        if decl.pin_path:
            pinned = self._pinned(decl)
            if pinned is not None:
                self.reused.add(decl.spec.name)
                return pinned
        fd = self._create(decl)
        try:
            for key, value in decl.contents:
                process.map_update_elem(fd, key, value)
            if decl.frozen:
                process.map_freeze(fd)
        except BaseException:
            process.close(fd)
            raise
        return fd

    def _create(self, decl: MapDecl) -> int:
        spec = decl.spec
        if spec.map_type == MapType.PERF_EVENT_ARRAY and not spec.max_entries:
            spec = spec._replace(max_entries=self.process.possible_cpus)
        inner = spec.inner
        template = self.process.map_create(inner, btf_fd=self._btf_for(inner)) if inner is not None else 0
        try:
            return self.process.map_create(spec, inner_map_fd=template, btf_fd=self._btf_for(spec))
        finally:
            if template:
                self.process.close(template)

    def _btf_for(self, spec: MapSpec) -> int:
        return self.btf_fd if spec.btf_key_type_id or spec.btf_value_type_id else 0

    def _pinned(self, decl: MapDecl) -> int | None:
        """The descriptor of the map pinned where ``decl`` says, None where nothing is. EINVAL for a map of another shape."""
        try:
            fd = self.process.obj_get(decl.pin_path)
        except BpfError as e:
            if e.errno != errno.ENOENT:
                raise
            return None
        info, spec = self.process.map_info(fd), decl.spec
        have = (info.type, info.key_size, info.value_size, info.max_entries, info.map_flags)
        if have != (spec.map_type, spec.key_size, spec.value_size, spec.max_entries, spec.map_flags):
            self.process.close(fd)
            raise BpfError(errno.EINVAL, f"EINVAL: the map pinned at {decl.pin_path} has another shape than {spec.name!r}")
        return fd

    def _fill(self, decl: MapDecl, fds: dict[str, int]) -> None:
        """Put what the slots name into a map."""
        if decl.spec.name in self.reused:
            return
        for key, name in decl.slots:
            self.process.map_update_elem(self.by_name[decl.spec.name], key, fds[name].to_bytes(4, "little"))
