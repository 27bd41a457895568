"""Where a number in a register came from: packet bytes or a context field, and what was done to them since.

Followed along one run, as it runs: registers, spills, and bytes of the stack that a helper copied from the packet. Arithmetic is
not done again here: a transformation applies the interpreter's own op to a register file aside, so that what is told, and what
is solved for, is what is run. Knows no field name and no text but signs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from netbpf.engine.interp.machine import Op, Regs
from netbpf.ints import bswap
from netbpf.isa import opcodes as op
from netbpf.isa.disasm import ALU_SIGNS
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import MAX_BPF_REG, SIZE_BYTES, bpf_class, bpf_op, bpf_src

MAX_OPS: Final = 32  # a number that went through more is nobody's field any more
SWAP: Final = "swap"


class Source(NamedTuple):
    """``kind`` "packet": ``size`` bytes at ``off`` of the sk_buff's head, as a number in network order. "ctx": a field of the
    context, by ``name``."""

    kind: str
    off: int
    size: int
    name: str = ""


class Transform(NamedTuple):
    """One thing done to a number: ``sign`` and ``operand`` for the reader, ``apply`` for who wants the result."""

    sign: str
    operand: int
    apply: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Origin:
    """A number that step ``load`` brought from ``source``, and its ``ops`` since, oldest first."""

    load: int
    source: Source
    ops: tuple[Transform, ...] = ()

    def evaluate(self, raw: int) -> int:
        """What would be in the register, had the source been ``raw``."""
        for transform in self.ops:
            raw = transform.apply(raw)
        return raw

    def then(self, transform: Transform) -> Origin | None:
        """The number after one more transformation; None where there are too many to follow.

        A swap stays last as long as it can: of bytes loaded in the machine's order, what is said is said in network order.
        """
        last, width = self.ops[-1] if self.ops else None, self.source.size
        if last is not None and last.sign == SWAP:
            if transform.sign == SWAP and transform.operand == last.operand == width:
                return replace(self, ops=self.ops[:-1])
            if transform.sign in ("&", "|", "^") and transform.operand >> 8 * width == 0 and last.operand == width:
                swapped = _bitwise(transform.sign, bswap(transform.operand, width))
                return replace(self, ops=(*self.ops[:-1], swapped, last))
        return replace(self, ops=(*self.ops, transform)) if len(self.ops) < MAX_OPS else None


def swap_of(width_bytes: int) -> Transform:
    """The bytes of a number of that width in reverse order; what lies above is lost."""
    return Transform(SWAP, width_bytes, lambda v: bswap(v, width_bytes))


def _bitwise(sign: str, operand: int) -> Transform:
    apply: dict[str, Callable[[int], int]] = {
        "&": lambda v: v & operand,
        "|": lambda v: v | operand,
        "^": lambda v: v ^ operand,
    }
    return Transform(sign, operand, apply[sign])


def cut_to(size: int) -> Transform:
    """The low ``size`` bytes."""
    return _bitwise("&", (1 << 8 * size) - 1)


def transform_of(insn: Instruction, run: Op, reg: int, regs: Regs) -> Transform:
    """What ALU instruction ``insn``, whose op is ``run``, does to the number in its operand ``reg`` while the other operand is
    as in ``regs``."""
    other = insn.src if reg == insn.dst else insn.dst
    by_reg = bpf_src(insn.code) == op.BPF_X and bpf_op(insn.code) not in (op.BPF_END, op.BPF_NEG)
    held = regs[other] if by_reg else insn.imm

    def apply(value: int) -> int:
        scratch = [0] * MAX_BPF_REG
        if by_reg:
            scratch[other] = held
        scratch[reg] = value
        run(scratch)
        return scratch[insn.dst]

    if bpf_op(insn.code) == op.BPF_END:
        swaps = bpf_class(insn.code) == op.BPF_ALU64 or bpf_src(insn.code) == op.BPF_TO_BE
        return Transform(SWAP, insn.imm // 8, apply) if swaps else Transform("&", (1 << insn.imm) - 1, apply)
    sign = ALU_SIGNS[bpf_op(insn.code)].removesuffix("=")
    mask = 0xFFFF_FFFF if bpf_class(insn.code) == op.BPF_ALU else (1 << 64) - 1
    return Transform(sign, held & mask, apply)


COMMUTES: Final = frozenset({op.BPF_ADD, op.BPF_MUL, op.BPF_AND, op.BPF_OR, op.BPF_XOR})
_Frame = list["Origin | None"]


class Origins:
    """The origins of everything a run holds now."""

    __slots__ = ("_bytes", "_frames", "_spills", "regs")

    def __init__(self) -> None:
        self.regs: _Frame = [None] * MAX_BPF_REG
        self._frames: list[_Frame] = []
        self._spills: dict[tuple[int, int], Origin] = {}  # by address and size of the store
        self._bytes: dict[int, tuple[int, int]] = {}  # address -> (step, offset in the sk_buff's head)

    # --- registers ----------------------------------------------------------------------------------------------------
    def alu(self, insn: Instruction, run: Op, regs: Regs) -> None:
        """An ALU instruction is about to run."""
        dst, operation, is_wide = insn.dst, bpf_op(insn.code), bpf_class(insn.code) == op.BPF_ALU64
        by_reg = bpf_src(insn.code) == op.BPF_X and operation not in (op.BPF_END, op.BPF_NEG)
        if operation == op.BPF_MOV:
            self.regs[dst] = self._moved(insn, run, regs, is_wide) if by_reg else None
            return
        mine, other = self.regs[dst], self.regs[insn.src] if by_reg else None
        if mine is not None and other is None:
            self.regs[dst] = mine.then(transform_of(insn, run, dst, regs))
        elif mine is None and other is not None and operation in COMMUTES and insn.src != dst:
            self.regs[dst] = other.then(transform_of(insn, run, insn.src, regs))
        else:
            self.regs[dst] = None

    def _moved(self, insn: Instruction, run: Op, regs: Regs, is_wide: bool) -> Origin | None:
        known = self.regs[insn.src]
        if known is None or (is_wide and not insn.off):
            return known
        if not insn.off and (not known.ops or known.ops[-1].sign == SWAP) and known.source.size <= 4:
            return known  # a 32-bit move of what has no more bits
        return known.then(transform_of(insn, run, insn.src, regs)._replace(sign="cut", operand=insn.off or 32))

    def clear(self, *regs: int) -> None:
        """These registers get something else."""
        for reg in regs:
            self.regs[reg] = None

    def enter(self, frame_top: int) -> None:
        """A function is called: its frame is empty, R6 to R9 are the caller's again when it returns."""
        self._frames.append(self.regs[6:10])
        self.wipe(frame_top - op.MAX_BPF_STACK, op.MAX_BPF_STACK)

    def leave(self) -> None:
        """A function returns."""
        if self._frames:
            self.regs[6:10] = self._frames.pop()
        self.clear(1, 2, 3, 4, 5)

    # --- memory ---------------------------------------------------------------------------------------------------------
    def copied(self, address: int, step: int, off: int, size: int) -> None:
        """``size`` bytes of the packet at ``off`` were copied to ``address``."""
        self.wipe(address, size)
        for i in range(size):
            self._bytes[address + i] = (step, off + i)

    def store(self, address: int, size: int, reg: int | None) -> None:
        """A store of a register (None: of a number that has no origin)."""
        self.wipe(address, size)
        known = self.regs[reg] if reg is not None else None
        if known is not None:
            self._spills[address, size] = known

    def wipe(self, address: int, size: int) -> None:
        """These bytes get something else."""
        for at in range(address, address + size) if self._bytes else ():
            self._bytes.pop(at, None)
        for start, length in [spill for spill in self._spills if spill[0] < address + size and address < spill[0] + spill[1]]:
            del self._spills[start, length]

    def load(self, address: int, size: int) -> Origin | None:
        """What a load of ``size`` bytes gives."""
        spilled = self._spills.get((address, size))
        if spilled is not None:
            narrow = size >= min(spilled.source.size, 8) and (not spilled.ops or spilled.ops[-1].sign == SWAP)
            return spilled if size == 8 or narrow else spilled.then(cut_to(size))
        first = self._bytes.get(address)
        if first is None or any(self._bytes.get(address + i) != (first[0], first[1] + i) for i in range(size)):
            return None
        found = Origin(first[0], Source("packet", first[1], size))
        return found.then(swap_of(size)) if size > 1 else found


def load_size(insn: Instruction) -> int:
    """Bytes that a load or store moves."""
    return SIZE_BYTES[op.bpf_size(insn.code)]
