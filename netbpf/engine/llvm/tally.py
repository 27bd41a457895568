"""What a program does to a value if a look-up found it, and nothing else besides: count, mostly.

    call bpf_map_lookup_elem
    if r0 == 0 goto done
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    done:

Whether there is a value differs from packet to packet, and a branch that the processor does not foresee costs more than all of
this. So in a packet loop it has none: where nothing was found, the same is done to a value that nobody looks at. Pure dataflow
over the program, as ``split``; ``SubprogCode`` writes the code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from netbpf.abi.helpers import FUNC_IDS
from netbpf.engine.llvm.abi import SPARE_BYTES
from netbpf.engine.llvm.flow import atomic_result, called, successors
from netbpf.engine.llvm.shape import ARRAYS, TABLES
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import (
    BPF_ADD,
    BPF_ALU,
    BPF_ALU64,
    BPF_ATOMIC,
    BPF_DIV,
    BPF_JEQ,
    BPF_JMP,
    BPF_K,
    BPF_LD,
    BPF_LDX,
    BPF_LOAD_ACQ,
    BPF_MOD,
    BPF_MOV,
    BPF_ST,
    BPF_STX,
    BPF_X,
    bpf_class,
    bpf_mode,
    bpf_op,
    bpf_src,
    is_ld_imm64,
)

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode

MOST_INSNS: Final = 12  # that are done for nothing where nothing was found
LOOKUP: Final = FUNC_IDS["map_lookup_elem"]
KEPT: Final = range(6, 10)  # registers that somebody may read behind it, beside R0


class Tally(NamedTuple):
    """``test``: where it is asked whether something was found; ``end``: where the program goes on; ``written``: which of KEPT are
    written between them."""

    test: int
    end: int
    written: tuple[int, ...]


def tallies(s: SubprogCode) -> dict[int, Tally]:
    """By the pc of its look-up."""
    found = {pc: tally for pc in s.states if (tally := _tally(s, pc)) is not None}
    if not found:
        return found
    entered = [(pc, t) for pc in s.states if not s.ends(pc) for t in successors(s.insns, pc)]
    return {
        call: tally
        for call, tally in found.items()
        if not any(tally.test <= t < tally.end and not call <= pc < tally.end for pc, t in entered)
    }


def _tally(s: SubprogCode, call: int) -> Tally | None:
    test = call + 1
    if s.ends(call) or called(s.insns[call]) != LOOKUP or test not in s.states or s.ends(test):
        return None
    index, asks = s.map_index(call, 1), s.insns[test]
    spec = s.owner.program.maps[index].spec if index >= 0 else None
    if spec is None or spec.map_type not in ARRAYS | TABLES or spec.value_size > SPARE_BYTES:
        return None
    end = test + 1 + asks.off
    if asks.code != BPF_JMP | BPF_JEQ | BPF_K or (asks.dst, asks.imm) != (0, 0) or not test + 1 < end <= test + 1 + MOST_INSNS:
        return None
    values, written, pc = {0}, set[int](), test + 1
    while pc < end:
        i = s.insns[pc]
        if s.ends(pc) or not _is_harmless(s, pc, values):
            return None
        r = _written(i)
        if r is not None:
            written.add(r)
            values = values | {r} if _still_value(i, values) else values - {r}
        pc += 2 if is_ld_imm64(i.code) else 1
    return Tally(test, end, tuple(r for r in KEPT if r in written)) if pc == end else None


def _is_harmless(s: SubprogCode, pc: int, values: set[int]) -> bool:
    """Whether an instruction, ``values`` being the registers that point into the value, does nothing to anything else."""
    i = s.insns[pc]
    cls = bpf_class(i.code)
    if cls in (BPF_ALU, BPF_ALU64):
        return bpf_op(i.code) not in (BPF_DIV, BPF_MOD)
    if cls == BPF_LD:
        return is_ld_imm64(i.code) and i.src == 0
    if cls == BPF_LDX:
        return i.src in values or s.is_slot(pc, i.src) or s.is_ctx(pc, i.src)
    if cls == BPF_STX and bpf_mode(i.code) == BPF_ATOMIC and i.imm == BPF_LOAD_ACQ:
        return i.src in values
    return cls in (BPF_ST, BPF_STX) and i.dst in values


def _written(i: Instruction) -> int | None:
    """The register that an instruction writes, if it writes one."""
    cls = bpf_class(i.code)
    if cls == BPF_STX and bpf_mode(i.code) == BPF_ATOMIC:
        return atomic_result(i)
    return None if cls in (BPF_ST, BPF_STX) else i.dst


def _still_value(i: Instruction, values: set[int]) -> bool:
    """Whether what an instruction writes points into the value: a copy of such a pointer, or one moved on."""
    if bpf_class(i.code) != BPF_ALU64 or i.off:
        return False
    if bpf_op(i.code) == BPF_MOV:
        return bpf_src(i.code) == BPF_X and i.src in values
    return bpf_op(i.code) == BPF_ADD and i.dst in values
