"""A ProgramSpec onto a host: its maps made and filled, its program loaded, through the calls any user has.

The same steps on the simulator and on the real kernel; knows the Host protocol only.
"""

from __future__ import annotations

from dataclasses import dataclass

from netbpf.host.base import Process
from netbpf.isa.instruction import Instruction, Program
from netbpf.isa.opcodes import (
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_IDX,
    BPF_PSEUDO_MAP_IDX_VALUE,
    BPF_PSEUDO_MAP_VALUE,
    is_ld_imm64,
)
from netbpf.program import MapDecl, ProgramSpec

_BY_FD = {BPF_PSEUDO_MAP_IDX: BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX_VALUE: BPF_PSEUDO_MAP_VALUE}


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """Descriptors of a loaded program and of its maps by name."""

    prog_fd: int
    map_fds: dict[str, int]


def load_spec(process: Process, spec: ProgramSpec, *, log_level: int = 0) -> LoadedSpec:
    """Make the maps, fill them, load the program. Raises BpfError, or ProgramRejected with the log; nothing stays open then."""
    fds: list[int] = []
    try:
        for decl in spec.maps:
            fds.append(_make_map(process, decl))
        prog_fd = process.prog_load(
            by_descriptor(spec.insns, fds),
            prog_type=spec.prog_type,
            license=spec.license,
            name=spec.name,
            log_level=log_level,
            prog_flags=spec.prog_flags,
            expected_attach_type=spec.expected_attach_type,
        )
    except BaseException:
        for fd in fds:
            process.close(fd)
        raise
    return LoadedSpec(prog_fd, {decl.spec.name: fd for decl, fd in zip(spec.maps, fds, strict=True)})


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


def _make_map(process: Process, decl: MapDecl) -> int:
    fd = process.map_create(decl.spec)
    try:
        for key, value in decl.contents:
            process.map_update_elem(fd, key, value)
        if decl.frozen:
            process.map_freeze(fd)
    except BaseException:
        process.close(fd)
        raise
    return fd
