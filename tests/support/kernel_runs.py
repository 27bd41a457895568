"""One program on the running kernel and in the interpreter, with maps of its own on both sides: R0 and the maps' bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from netbpf.engine.interp.engine import InterpEngine, InterpLoaded
from netbpf.env import SteppedEnv
from netbpf.host.linux.host import LinuxHost, LinuxProcess
from netbpf.isa.instruction import Instruction, Program
from netbpf.isa.opcodes import BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE, BPF_PSEUDO_MAP_VALUE
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec
from support.function_btf import btf_with_int_functions
from support.running import TCP_FRAME, loopback_skb, unproved

ARRAY = 2
RDONLY_PROG = 0x80
KEY0 = bytes(4)

MapRef = Callable[[int, int], tuple[Instruction, Instruction]]
"""(register, index of the map) -> LD_IMM64 of the map, or of its first value."""


def array_spec(value_size: int, flags: int = 0) -> MapSpec:
    return MapSpec(ARRAY, 4, value_size, 1, flags)


class Refs(NamedTuple):
    """How a program of one side names its maps."""

    map: MapRef
    value: MapRef


Code = Callable[[Refs], Sequence[Instruction]]


def _ld(src: int, imm: int, reg: int) -> tuple[Instruction, Instruction]:
    return Instruction(0x18, reg, src, 0, imm), Instruction(0)


class Both:
    """The same program, maps and packet on both sides. ``contents`` are values of key 0, by map index; those maps are frozen
    when read-only. ``functions`` are (slot, type id of ``btf_with_int_functions``) for programs that need function records."""

    def __init__(
        self,
        code: Code,
        specs: Sequence[MapSpec] = (),
        contents: dict[int, bytes] | None = None,
        functions: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.kernel: LinuxProcess = LinuxHost().process()
        self.fds = [self.kernel.map_create(s) for s in specs]
        self.live = [create(s) for s in specs]
        for i, value in (contents or {}).items():
            self.write(i, value)
            if specs[i].map_flags & RDONLY_PROG:
                self.kernel.map_freeze(self.fds[i])
        fds = self.fds
        theirs = Refs(lambda r, i: _ld(BPF_PSEUDO_MAP_FD, fds[i], r), lambda r, i: _ld(BPF_PSEUDO_MAP_VALUE, fds[i], r))
        ours = Refs(lambda r, i: _ld(BPF_PSEUDO_MAP_IDX, i, r), lambda r, i: _ld(BPF_PSEUDO_MAP_IDX_VALUE, i, r))
        btf = self.kernel.btf_load(btf_with_int_functions()) if functions else 0
        self.prog_fd = self.kernel.prog_load(tuple(code(theirs)), btf_fd=btf, func_info=functions)
        program: Program = tuple(code(ours))
        self.loaded: InterpLoaded = InterpEngine().load(unproved(program, tuple(self.live), prog_id=1), SteppedEnv(1))

    def write(self, index: int, value: bytes) -> None:
        """Set a map's value on both sides."""
        self.kernel.map_update_elem(self.fds[index], KEY0, value)
        self.live[index].update(KEY0, value)

    def read(self, index: int) -> tuple[bytes, bytes]:
        """A map's value: (the kernel's, ours)."""
        return self.kernel.map_lookup_elem(self.fds[index], KEY0), self.live[index].lookup_user(KEY0)

    def run(self, frame: bytes = TCP_FRAME) -> tuple[int, int]:
        """R0 as u32: (the kernel's, ours)."""
        return self.kernel.prog_test_run(self.prog_fd, frame).retval, self.loaded.run_one(loopback_skb(frame)) & 0xFFFF_FFFF

    def close(self) -> None:
        self.kernel.exit()

    def __enter__(self) -> Both:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
