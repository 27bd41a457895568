"""Where a program can be split: at its first look-up of a packet, with all that the rest of it reads from before.

What comes before, the beginning, reads nothing but the packet, the context and the frame, and writes to the frame alone: it may
run when packets before this one have not. Pure dataflow over the main program, as ``flow``; writes no code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from netbpf.abi.helpers import FUNC_IDS
from netbpf.engine.llvm.context import is_pointer
from netbpf.engine.llvm.flow import Known, called, live_registers, successors
from netbpf.engine.llvm.tally import LOOKUP
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import (
    BPF_ALU,
    BPF_ALU64,
    BPF_ATOMIC,
    BPF_CALL,
    BPF_EXIT,
    BPF_JCOND,
    BPF_JMP,
    BPF_JMP32,
    BPF_LD,
    BPF_LDX,
    BPF_LOAD_ACQ,
    BPF_MOV,
    BPF_STX,
    BPF_X,
    MAX_BPF_STACK,
    SIZE_BYTES,
    bpf_class,
    bpf_mode,
    bpf_op,
    bpf_size,
    bpf_src,
    is_ld_imm64,
)

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode

KEYED: Final = frozenset(FUNC_IDS[name] for name in ("map_lookup_elem", "map_update_elem", "map_delete_elem"))
READING: Final = frozenset(FUNC_IDS[name] for name in ("skb_load_bytes", "skb_load_bytes_relative"))
KEPT_REGISTERS: Final = range(6, 10)  # over a call
MOST_BYTES: Final = 256  # that are worth carrying from one half to the other


class Cut(NamedTuple):
    """A look-up that the program can go on from. ``known``: registers that hold the same in every run; ``saved``: those whose
    numbers have to be carried over; ``frame``: (offset from the frame pointer, size) of what may have been written, in words."""

    known: dict[int, Known]
    saved: tuple[int, ...]
    frame: tuple[tuple[int, int], ...]

    def size_bytes(self) -> int:
        return 8 * len(self.saved) + sum(size for _, size in self.frame)


class _Past(NamedTuple):
    """What may have happened on the way: ``local``, a mask of the registers that may hold an address of this run alone (its
    frame, its packet); ``written``, a mask of the bytes of the frame; ``lost``, whether something cannot be carried over."""

    local: int
    written: int
    lost: bool

    def joined(self, other: _Past) -> _Past:
        return _Past(self.local | other.local, self.written | other.written, self.lost or other.lost)


class Split:
    """``beginning``: the instructions that may run ahead; ``stops``: those at which it is over; ``cuts``: which of them the
    program can go on from, by pc; ``table``: of those that operate on one of ``tables`` with a key in a known place of the frame,
    which it is. ``verdict``: of a program that ends in its beginning, where it is always the same."""

    def __init__(self, s: SubprogCode, tables: tuple[int, ...]) -> None:
        self._s, self.tables = s, tables
        past = self._follow()
        self.stops = {pc for pc in past if not s.ends(pc) and not self._goes_on(pc)}
        self.beginning = past.keys() - self.stops
        self.verdict = self._verdict()
        found = {pc: s.map_index(pc, 1) for pc in sorted(self.stops) if called(s.insns[pc]) in KEYED and s.is_slot(pc, 2)}
        self.table = {pc: index for pc, index in found.items() if index in tables}
        looked_up = [pc for pc in self.table if called(s.insns[pc]) == LOOKUP]
        live = live_registers(s.insns, [pc for pc in s.states if not s.ends(pc)]) if looked_up else {}
        made = {pc: self._cut(past[pc], live.get(pc + 1, 0), s.states[pc]) for pc in looked_up}
        self.cuts = {pc: cut for pc, cut in made.items() if cut is not None}

    def number(self, pc: int) -> int:
        """Which of the cuts ``pc`` is."""
        return list(self.cuts).index(pc)

    def row_bytes(self) -> int:
        """What is carried over from any of them, with a word of what is told."""
        return 8 + max((cut.size_bytes() for cut in self.cuts.values()), default=0)

    def _verdict(self) -> int | None:
        s, told = self._s, set[Known | None]()
        for pc in self.beginning:
            i = s.insns[pc]
            if bpf_class(i.code) == BPF_LD and not is_ld_imm64(i.code):
                told.add(Known("num", 0))  # outside the packet
            elif bpf_class(i.code) == BPF_JMP and bpf_op(i.code) == BPF_EXIT:
                told.add(s.states[pc][0])
        one = told.pop() if len(told) == 1 else None
        return one.value & 0xFFFF_FFFF if one is not None and one.kind == "num" else None

    def _follow(self) -> dict[int, _Past]:
        """pc -> what may have happened before it, for all that can be reached without an end of the beginning."""
        s, start = self._s, self._s.subprog.start
        found = {start: _Past(1 << 10, 0, lost=False)}
        work = [start]
        while work:
            pc = work.pop()
            if s.ends(pc) or not self._goes_on(pc):
                continue
            after = self._step(pc, found[pc])
            for target in successors(s.insns, pc):
                old = found.get(target)
                new = after if old is None else old.joined(after)
                if new != old:
                    found[target] = new
                    work.append(target)
        return found

    def _goes_on(self, pc: int) -> bool:
        """Whether the instruction does nothing that others can see, nor reads what others write."""
        s, i = self._s, self._s.insns[pc]
        cls = bpf_class(i.code)
        if cls == BPF_JMP and bpf_op(i.code) == BPF_CALL:
            return called(i) in READING and s.is_slot(pc, 3) and self._size(pc) >= 0
        if cls == BPF_LDX:
            return s.is_ctx(pc, i.src) or s.is_slot(pc, i.src)
        if _is_atomic(i) and i.imm == BPF_LOAD_ACQ:
            return s.is_slot(pc, i.src)
        return cls in (BPF_LD, BPF_ALU, BPF_ALU64, BPF_JMP, BPF_JMP32) or s.is_slot(pc, i.dst)

    def _size(self, pc: int) -> int:
        """The bytes that a helper of READING writes; -1: not known."""
        known = self._s.known(pc, 4)
        return known.value if known is not None and known.kind == "num" else -1

    def _step(self, pc: int, past: _Past) -> _Past:
        """What may have happened after the instruction at ``pc``."""
        i = self._s.insns[pc]
        cls = bpf_class(i.code)
        if is_ld_imm64(i.code):
            return past._replace(local=past.local & ~(1 << i.dst))
        if cls in (BPF_ALU, BPF_ALU64):
            return past._replace(local=self._computed(i, past.local))
        if cls == BPF_LD:
            return past._replace(local=past.local & ~0x3F)
        if cls == BPF_LDX:
            return past._replace(local=self._loaded(pc, i, past))
        if cls in (BPF_JMP, BPF_JMP32):
            return self._jumped(pc, i, past)
        return self._stored(pc, i, past)

    def _computed(self, i: Instruction, local: int) -> int:
        kept = 0 if bpf_op(i.code) == BPF_MOV else local >> i.dst & 1
        other = local >> i.src & 1 if bpf_src(i.code) == BPF_X else 0
        return local & ~(1 << i.dst) | (kept | other) << i.dst

    def _loaded(self, pc: int, i: Instruction, past: _Past) -> int:
        is_local = is_pointer(self._s, pc, i) if self._s.is_ctx(pc, i.src) else past.lost
        return past.local & ~(1 << i.dst) | is_local << i.dst

    def _jumped(self, pc: int, i: Instruction, past: _Past) -> _Past:
        if bpf_op(i.code) == BPF_JCOND:
            return past._replace(lost=True)  # how often it may still jump is carried nowhere
        if bpf_op(i.code) == BPF_CALL:
            past = past._replace(local=past.local & ~0x3F)
            return self._write(pc, 3, 0, self._size(pc), past)
        return past

    def _stored(self, pc: int, i: Instruction, past: _Past) -> _Past:
        if _is_atomic(i):  # may be given what is in the frame
            if i.imm == BPF_LOAD_ACQ:
                return past._replace(local=past.local & ~(1 << i.dst) | past.lost << i.dst)
            past = past._replace(local=past.local | past.lost << i.src | past.lost)
        if bpf_class(i.code) == BPF_STX and past.local >> i.src & 1:
            past = past._replace(lost=True)
        return self._write(pc, i.dst, i.off, SIZE_BYTES[bpf_size(i.code)], past)

    def _write(self, pc: int, r: int, off: int, size: int, past: _Past) -> _Past:
        """After a write to the frame at R + ``off``."""
        known = self._s.known(pc, r)
        assert known is not None
        mask = ((1 << size) - 1) << (MAX_BPF_STACK + known.value + off)
        return past._replace(written=past.written | mask)

    def _cut(self, past: _Past, live: int, known: tuple[Known | None, ...]) -> Cut | None:
        """What goes from one half to the other; None where it cannot."""
        alive = [r for r in KEPT_REGISTERS if live >> r & 1]
        again = {r: k for r in alive if (k := known[r]) is not None}
        saved = tuple(r for r in alive if r not in again)
        if past.lost or any(past.local >> r & 1 for r in saved):
            return None
        cut = Cut(again, saved, tuple(_ranges(past.written)))
        return cut if cut.size_bytes() <= MOST_BYTES else None


def _is_atomic(i: Instruction) -> bool:
    return bpf_class(i.code) == BPF_STX and bpf_mode(i.code) == BPF_ATOMIC


def _ranges(written: int) -> list[tuple[int, int]]:
    """The words of the frame with bytes of a mask, as (offset from the frame pointer, size)."""
    out: list[tuple[int, int]] = []
    for at in range(-MAX_BPF_STACK, 0, 8):
        if written >> (MAX_BPF_STACK + at) & 0xFF:
            if out and sum(out[-1]) == at:
                out[-1] = (out[-1][0], out[-1][1] + 8)
            else:
                out.append((at, 8))
    return out
