"""ProgramSpec (unproved, what a source gives) and VerifiedProgram (proved, what an engine takes).

The handshake between verifier and engines: the verifier makes a VerifiedProgram, engines accept nothing else, and
neither imports the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from netbpf.isa.instruction import Program

if TYPE_CHECKING:
    from netbpf.isa.classic import ClassicProgram
    from netbpf.maps.base import Map
    from netbpf.maps.spec import MapSpec

SOCKET_VIEW: Final = "socket"
FILE_VIEW: Final = "file"
VIEWS: Final = {SOCKET_VIEW: "packet_raw", FILE_VIEW: "file"}
"""The views that programs are written for, and what ``packet.receive`` calls them: a packet socket's, with the outer VLAN tag
beside the packet; and libpcap's on a capture file, with every tag in it."""


class MapDecl(NamedTuple):
    """A map a program text declares: its spec (``spec.name`` is how the text calls it) and its starting contents.

    ``slots`` are starting contents that are not bytes: (key, name of a map of this program, or of one of its ``others``).
    ``pin_path`` is where the map is pinned, and taken from when it is there already; empty for a map that is not.
    """

    spec: MapSpec
    contents: tuple[tuple[bytes, bytes], ...] = ()
    frozen: bool = False
    slots: tuple[tuple[bytes, str], ...] = ()
    pin_path: str = ""


class ProgramSpec(NamedTuple):
    """A program before BPF_PROG_LOAD.

    An LD_IMM64 that names a declared map has src BPF_PSEUDO_MAP_IDX (or _IDX_VALUE, with the offset in the second
    slot's imm) and its index in ``maps`` as imm. ``func_info`` and ``line_info`` are (pc, ...) rows; ``btf`` the raw
    BTF blob they refer to, or empty.
    """

    insns: Program
    prog_type: int = 1  # BPF_PROG_TYPE_SOCKET_FILTER
    license: str = "GPL"
    name: str = ""
    maps: tuple[MapDecl, ...] = ()
    prog_flags: int = 0
    expected_attach_type: int = 0
    btf: bytes = b""
    func_info: tuple[tuple[int, int], ...] = ()  # (pc, type_id)
    line_info: tuple[tuple[int, int, int, int], ...] = ()  # (pc, file_name_off, line_off, line_col)
    source_lines: tuple[tuple[int, str], ...] = ()  # (pc, text) where a source gave lines without BTF
    others: tuple[ProgramSpec, ...] = ()  # programs that slots of ``maps`` name; they share ``maps`` and ``btf``
    classic: ClassicProgram = ()  # the classic filter that ``insns`` translate; only these may call ``abi.classic_helpers``
    view: str = SOCKET_VIEW  # who looks at the packets it is for: a filter in FILE_VIEW means what libpcap reads in it


class InsnFacts(NamedTuple):
    """What the proof found at one pc, merged over every path that reached it.

    ``seen``: some path reaches it (else it is dead code). ``ptr``: the base kind of the pointer a load, store or atomic
    goes through ("ctx", "stack", "map_value", "mem", "mixed" where paths differ, "untrusted" where a load may go anywhere
    and gives 0 from a bad address, "" where none). ``map_index``: into
    ``VerifiedProgram.maps``, of that pointer or of a map helper's R1 (-1: none, or paths differ). ``inner_of``: where that is a
    map found in another, the first map of maps there with a template like it, else -1. ``const_key``: the value
    of a map helper's key when it is the same constant on every path, else None. ``stack_off``: constant offset from the
    frame pointer of a stack access, None when variable.
    """

    seen: bool = False
    ptr: str = ""
    map_index: int = -1
    const_key: int | None = None
    stack_off: int | None = None
    inner_of: int = -1


class Subprog(NamedTuple):
    """Instructions [start, end); ``stack_depth`` bytes of its own frame. Subprogram 0 is the main program."""

    start: int
    end: int
    stack_depth: int = 0
    name: str = ""
    is_callback: bool = False


class VerifiedProgram(NamedTuple):
    """A program the verifier accepted, with what it proved.

    ``insns``: as loaded, except that every map reference is BPF_PSEUDO_MAP_IDX(_VALUE) with an index into ``maps``.
    ``proved`` is False only for programs that skip the verifier on purpose (conformance suites); engines then keep every
    run-time check.
    """

    insns: Program
    prog_type: int
    maps: tuple[Map, ...] = ()
    subprogs: tuple[Subprog, ...] = ()
    facts: tuple[InsnFacts, ...] = ()
    license_gpl: bool = True
    name: str = ""
    prog_id: int = 0
    proved: bool = True
    source_lines: tuple[tuple[int, str], ...] = ()

    @classmethod
    def unproved(cls, insns: Program, prog_type: int = 1) -> VerifiedProgram:
        """Wrap instructions that no verifier saw, for suites that run raw programs."""
        return cls(insns, prog_type, subprogs=(Subprog(0, len(insns), 512),), proved=False)
