"""What the code of a program has in common: its facts, what every function passes on, and what the functions have asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from netbpf.engine.llvm.abi import META
from netbpf.engine.llvm.checks import check_text
from netbpf.engine.llvm.ir import Function
from netbpf.engine.llvm.variant import SINGLE
from netbpf.isa.cfg import insn_starts, subprog_starts
from netbpf.isa.encoding import encoding_problem
from netbpf.isa.instruction import Program
from netbpf.isa.opcodes import BPF_CALL, BPF_JMP, BPF_X, MAX_BPF_STACK
from netbpf.program import InsnFacts, Subprog, VerifiedProgram

if TYPE_CHECKING:
    from netbpf.engine.llvm.split import Split
    from netbpf.engine.llvm.subprog import SubprogCode
    from netbpf.maps.base import Map

NO_FACTS: Final = InsnFacts(seen=True)


def insn_problem(insns: Program, pc: int, starts: frozenset[int] | None = None) -> str:
    """Why a program that no verifier saw cannot go on at ``pc``, or "". ``starts``: where its instructions begin, if known."""
    if pc >= len(insns):
        return "the program runs past its last instruction"
    starts = frozenset(insn_starts(insns)) if starts is None else starts
    if pc not in starts:
        return "the second half of a 64-bit immediate is no instruction"
    return encoding_problem(insns[pc], pc, len(insns), starts)


class Surroundings:
    """The parameters every function passes on: Args, Meta, packet, its lengths, map bases. The first MAC_BYTES of the packet are
    at ``%mac``, the others at ``%pkt`` + MAC_BYTES: a VLAN tag that was moved out may lie between them. ``alone``: nobody but
    this code touches the maps while it runs. LLVM is told so of the main program alone (``main_params``): other functions may be
    given addresses of values, which are not made from the map's there."""

    def __init__(self, maps: Sequence[Map], alone: bool) -> None:
        packet = ["ptr %a", "ptr %meta", "ptr %pkt", "ptr %mac", "i64 %len", "i64 %cap"]
        kinds = ["ptr noalias" if alone and not _may_be_inside(m, maps) else "ptr" for m in maps]
        self.main_params = ", ".join([*packet, *(f"{kind} %m{i}" for i, kind in enumerate(kinds))])
        self.params = ", ".join([*packet, *(f"ptr %m{i}" for i in range(len(maps)))])
        own = [f"ptr %m{i}" for i in range(len(maps))]
        self.passed = ", ".join([*packet, *own])
        self.passed_alone = ", ".join(["ptr %a", "ptr %meta", "ptr null", "ptr null", "i64 0", "i64 0", *own])  # without a packet


def _may_be_inside(m: Map, maps: Sequence[Map]) -> bool:
    """Whether the map may also be found in one of these, under another address."""
    templates = [outer.spec.inner for outer in maps if outer.spec.inner is not None]
    if not templates:
        return False
    from netbpf.maps.inner import template_shape

    return any(template_shape(template) == template_shape(m.spec) for template in templates)


class Lowerer:
    """One program. ``functions`` is the text of its subprograms, ``used_meta`` the Meta fields they read.

    ``kind`` is that of the variant: in "memory" R1 and R2 are those of Args, and there is no context; in "tail" the main one has
    the frame of Args. ``checked`` keeps every run-time check; ``calls_back``: Python may be called, and may touch maps.
    ``called_back`` tells whether it really may be.
    """

    def __init__(self, program: VerifiedProgram, kind: str, *, checked: bool, calls_back: bool) -> None:
        self.program, self.insns = program, program.insns
        self.checked, self.on_memory, self.goes_on = checked, kind == "memory", kind == "tail"
        self.subprogs = program_subprogs(program)
        self.called_back = self.wants_flat = False  # wants_flat: the packet in one piece
        self.may_fault = checked or calls_back
        self.around = Surroundings(program.maps, alone=not calls_back)
        self.used_meta: set[str] = set()
        self.written_meta: set[str] = set()  # of those, what it writes; but cb, which has bytes
        self.used_args: set[str] = set()
        self.used_inner: set[int] = set()  # maps of maps whose inner maps are operated on
        self.used_kernels: set[str] = set()  # modules of kernels that belong to no map
        self.walked: set[str] = set()  # tables, by the suffix of their functions, that bpf_for_each_map_elem goes through
        self.tallied: set[str] = set()  # maps, by the same, that are looked up for ``tally``
        # whether there may be any: where code runs once a branch costs nothing
        self.may_tally = bool(program.maps) and kind not in SINGLE and not self.may_fault and program.proved
        self.starts = frozenset[int]() if program.proved else frozenset(insn_starts(program.insns))
        self.reserves_elsewhere = _calls_by_number(program)  # whether records may come from a helper that Python runs
        self.split: Split | None = None  # where the main program is split, if it is
        self.in_lots = False  # and whether the loop runs it in lots
        self.start_of = {s.start: i for i, s in enumerate(self.subprogs)}

    def functions(self, main: SubprogCode | None = None) -> str:
        """LLVM text of every subprogram; the main one, ``main`` if that is given, is ``@prog``."""
        from netbpf.engine.llvm.instructions import SubprogLowerer

        main = SubprogLowerer(self, 0) if main is None else main
        texts = [main.text(), *(SubprogLowerer(self, i).text() for i in range(1, len(self.subprogs)))]
        return "\n".join([check_text(), *texts] if self.checked else texts)

    def facts(self, pc: int) -> InsnFacts:
        return self.program.facts[pc] if self.program.facts else NO_FACTS

    def meta(self, f: Function, field: str) -> str:
        """The value of a Meta field."""
        self.used_meta.add(field)
        return f.load(64, f.gep("%meta", META[field]), 8)


def program_subprogs(program: VerifiedProgram) -> tuple[Subprog, ...]:
    """The proved subprograms; of a program that no verifier saw, what its calls and function pointers name."""
    if program.proved:
        return program.subprogs
    starts = [s for s in subprog_starts(program.insns) if s < len(program.insns)]
    ends = [*starts[1:], len(program.insns)]
    return tuple(Subprog(start, end, MAX_BPF_STACK) for start, end in zip(starts, ends, strict=True))


def _calls_by_number(program: VerifiedProgram) -> bool:
    """Whether a call takes its helper from a register, as no verifier allows."""
    return any(i.code == BPF_JMP | BPF_CALL | BPF_X for i in program.insns)
