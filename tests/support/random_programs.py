"""Random programs of arithmetic, branches, stack and map bytes, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction as I
from support.kernel_runs import Code, Refs

VALUES = (
    0,
    1,
    2,
    7,
    31,
    32,
    63,
    64,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 63,
    (1 << 64) - 1,
)
IMMEDIATES = (0, 1, -1, 2, 7, 31, 32, 33, 63, 64, 0x7FFF_FFFF, -0x8000_0000, 0x1234_5678)
ALU_OPS = (
    op.BPF_ADD, op.BPF_SUB, op.BPF_MUL, op.BPF_DIV, op.BPF_OR, op.BPF_AND, op.BPF_LSH, op.BPF_RSH, op.BPF_MOD,
    op.BPF_XOR, op.BPF_ARSH,
)  # fmt: skip
SIGNABLE = (op.BPF_DIV, op.BPF_MOD)
SHIFTS = (op.BPF_LSH, op.BPF_RSH, op.BPF_ARSH)
JUMPS = (
    op.BPF_JEQ, op.BPF_JNE, op.BPF_JGT, op.BPF_JGE, op.BPF_JLT, op.BPF_JLE, op.BPF_JSET, op.BPF_JSGT,
    op.BPF_JSGE, op.BPF_JSLT, op.BPF_JSLE,
)  # fmt: skip
SCRATCH = (0, 2, 3, 4, 5, 7, 8)  # R6 is the map's value, R9 free, R1 the context
MAP_BYTES = 64


def random_alu(rng: random.Random) -> I:
    kind, what, dst = rng.choice((op.BPF_ALU, op.BPF_ALU64)), rng.choice(ALU_OPS), rng.choice(SCRATCH)
    width = 64 if kind == op.BPF_ALU64 else 32
    off = rng.randrange(2) if what in SIGNABLE else 0
    if rng.randrange(2):
        return I(kind | what | op.BPF_X, dst, rng.choice(SCRATCH), off)
    imm = rng.randrange(width) if what in SHIFTS else rng.choice(IMMEDIATES)
    return I(kind | what | op.BPF_K, dst, 0, off, imm or 1)


def random_move(rng: random.Random) -> I:
    dst, src = rng.choice(SCRATCH), rng.choice(SCRATCH)
    return rng.choice((
        I(0xBF, dst, src), I(0xBC, dst, src), I(0xB7, dst, imm=rng.choice(IMMEDIATES)), I(0xB4, dst, imm=rng.choice(IMMEDIATES)),
        I(0xBF, dst, src, rng.choice((8, 16, 32))), I(0xBC, dst, src, rng.choice((8, 16))), I(0x87, dst), I(0x84, dst),
        I(0xD4, dst, imm=rng.choice((16, 32, 64))), I(0xDC, dst, imm=rng.choice((16, 32, 64))),
            I(0xD7, dst, imm=rng.choice((16, 32, 64))),
    ))  # fmt: skip


def random_memory(rng: random.Random) -> I:
    """A load, store or atomic on 32 bytes of stack that were written before, or on the map's value."""
    size = rng.choice((op.BPF_B, op.BPF_H, op.BPF_W, op.BPF_DW))
    count = op.SIZE_BYTES[size]
    base, low = rng.choice(((10, -32), (6, 0)))
    off = low + rng.randrange(32 // count) * count
    reg = rng.choice(SCRATCH)
    kind = rng.randrange(6)
    if kind == 0:
        return I(op.BPF_LDX | op.BPF_MEM | size, reg, base, off)
    if kind == 1 and size != op.BPF_DW:
        return I(op.BPF_LDX | op.BPF_MEMSX | size, reg, base, off)
    if kind == 2:
        return I(op.BPF_ST | op.BPF_MEM | size, base, 0, off, rng.choice(IMMEDIATES))
    if kind == 3:
        acquire = rng.randrange(2)
        code = op.BPF_STX | op.BPF_ATOMIC | size
        return I(code, reg, base, off, op.BPF_LOAD_ACQ) if acquire else I(code, base, reg, off, op.BPF_STORE_REL)
    if kind == 4 and count >= 4:
        what = rng.choice((op.BPF_ADD, op.BPF_AND, op.BPF_OR, op.BPF_XOR, 0xE0, 0xF0))
        fetch = op.BPF_FETCH if what >= 0xE0 else rng.randrange(2)
        return I(op.BPF_STX | op.BPF_ATOMIC | size, base, reg, off, what | fetch)
    return I(op.BPF_STX | op.BPF_MEM | size, base, reg, off)


def random_jump(rng: random.Random, room: int) -> I:
    kind, what = rng.choice((op.BPF_JMP, op.BPF_JMP32)), rng.choice(JUMPS)
    off = rng.randrange(min(room, 6) + 1)
    if rng.randrange(8) == 0:
        return I(op.BPF_JMP | op.BPF_JA) if rng.randrange(2) else I(op.BPF_JMP32 | op.BPF_JA)  # further: dead code is refused
    if rng.randrange(2):
        return I(kind | what | op.BPF_X, rng.choice(SCRATCH), rng.choice(SCRATCH), off)
    return I(kind | what | op.BPF_K, rng.choice(SCRATCH), 0, off, rng.choice(IMMEDIATES))


def random_body(rng: random.Random, length: int) -> list[I]:
    makers = (random_alu, random_alu, random_move, random_memory)
    return [
        random_jump(rng, length - 1 - at) if rng.randrange(5) == 0 else rng.choice(makers)(rng) for at in range(length)
    ]  # fmt: skip


def random_program(seed: int, length: int) -> Code:
    """Registers from the map's value (so that nothing is known of them), a random body, R0's halves folded together."""

    def code(refs: Refs) -> Sequence[I]:
        rng = random.Random(seed)
        constants = [
            insn
            for reg in SCRATCH
            for value in [rng.choice(VALUES)]
            for insn in ([I(0x79, reg, 6, 8 * rng.randrange(4))] if rng.randrange(2) else imm64(reg, value))
        ]
        spill = [I(0x7B, 10, rng.choice(SCRATCH), -8 * i) for i in range(1, 5)]
        fold = [I(0x7B, 6, 0, 40), I(0xBF, 7, 0), I(0x77, 7, imm=32), I(0xAF, 0, 7), I(0x95)]
        return [*refs.value(6, 0), *constants, *spill, *random_body(rng, length), *fold]

    return code


def imm64(reg: int, value: int) -> list[I]:
    low, high = ((v & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000 for v in (value, value >> 32))
    return [I(0x18, reg, imm=low), I(0, imm=high)]
