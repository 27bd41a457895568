"""A seeded generator of programs for the verifier: mostly sensible ones, built piece by piece, and mutations of them.

A program is a record as in the vectors (`insns` hex, `map_relocs`, `maps`), so that it can be kept, asked again and
compared by verifier_corpus.py. The pieces cover the rooms of the verifier: arithmetic, branches, stack, maps, context, packet
loads, helper calls, references, subprograms, loops; a piece that leaves a register in a bad state is welcome.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from verifier_btf import LIBRARY
from verifier_pieces import ANYONE
from verifier_pieces import PIECES as MORE_PIECES

from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction, encode

MAPS: dict[str, dict[str, Any]] = {
    "hash": {"type": "hash", "key_size": 8, "value_size": 48, "max_entries": 4, "map_flags": 0},
    "array": {"type": "array", "key_size": 4, "value_size": 64, "max_entries": 1, "map_flags": 0},
    "lru": {"type": "lru_hash", "key_size": 4, "value_size": 16, "max_entries": 4, "map_flags": 0},
    "percpu": {"type": "percpu_array", "key_size": 4, "value_size": 24, "max_entries": 2, "map_flags": 0},
    "queue": {"type": "queue", "key_size": 0, "value_size": 8, "max_entries": 4, "map_flags": 0},
    "progs": {"type": "prog_array", "key_size": 4, "value_size": 4, "max_entries": 4, "map_flags": 0},
    "ring": {"type": "ringbuf", "key_size": 0, "value_size": 0, "max_entries": 4096, "map_flags": 0},
    "rodata": {
        "type": "array",
        "key_size": 4,
        "value_size": 32,
        "max_entries": 1,
        "map_flags": 0x80,
        "internal": True,
        "contents": {"00000000": "0102030405060708f0ffffffffffffff00ff00ff8000000000000000ffffff7f"},
    },
    "ro_array": {"type": "array", "key_size": 4, "value_size": 48, "max_entries": 2, "map_flags": 0x80},
    "wo_array": {"type": "array", "key_size": 4, "value_size": 48, "max_entries": 2, "map_flags": 0x100},
    "outer": {
        "type": "array_of_maps",
        "key_size": 4,
        "value_size": 4,
        "max_entries": 2,
        "map_flags": 0,
        "inner": {"type": "array", "key_size": 4, "value_size": 8, "max_entries": 1, "map_flags": 0},
    },
}
MAPS["locked"] = {
    "type": "array",
    "key_size": 4,
    "value_size": 8,
    "max_entries": 1,
    "map_flags": 0,
    "btf": True,
    "btf_value": "struct locked { int count@0; bpf_spin_lock l@4; }",
}
MAPS["timed"] = {
    "type": "array",
    "key_size": 4,
    "value_size": 24,
    "max_entries": 1,
    "map_flags": 0,
    "btf": True,
    "btf_value": "struct timed { bpf_timer t@0; long count@16; }",
}
LOOKUP_MAPS = ("hash", "array", "array", "lru", "percpu", "ro_array", "wo_array", "outer")
RARE_MAPS = ("locked", "timed")
EDGES = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    256,
    0xFFFF,
    0x7FFFFFFF,
    -1,
    -2,
    -8,
    -128,
    -(1 << 31),
    1 << 30,
    0x1FFFFFFF,
)
SIZES = (op.BPF_B, op.BPF_H, op.BPF_W, op.BPF_DW)
BINARY_OPS = (
    *(
        op.BPF_ADD,
        op.BPF_SUB,
        op.BPF_MUL,
        op.BPF_AND,
        op.BPF_OR,
        op.BPF_XOR,
        op.BPF_LSH,
        op.BPF_RSH,
        op.BPF_ARSH,
        op.BPF_DIV,
        op.BPF_MOD,
    ),
    *(op.BPF_ADD, op.BPF_SUB, op.BPF_AND, op.BPF_AND, op.BPF_OR, op.BPF_LSH, op.BPF_RSH, op.BPF_ARSH),
)
JUMP_OPS = (
    *(op.BPF_JEQ, op.BPF_JNE, op.BPF_JGT, op.BPF_JGE, op.BPF_JLT, op.BPF_JLE),
    *(op.BPF_JSGT, op.BPF_JSGE, op.BPF_JSLT, op.BPF_JSLE, op.BPF_JSET),
)
CTX_FIELDS = (
    0,
    4,
    8,
    12,
    16,
    20,
    24,
    28,
    32,
    36,
    40,
    44,
    48,
    52,
    56,
    60,
    64,
    68,
    72,
    80,
    84,
    104,
    128,
    140,
    144,
    152,
    160,
    164,
    168,
    176,
    184,
)
READABLE = (0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 52, 56, 60, 64, 68)  # by a socket filter, in four bytes
SIZE_BYTES = op.SIZE_BYTES
SCALAR_CALLS = (5, 7, 8, 15, 34)  # ktime_get_ns, get_prandom_u32, get_smp_processor_id, get_current_uid_gid, get_hash_recalc
ATOMICS = (op.BPF_ADD, op.BPF_AND, op.BPF_OR, op.BPF_XOR, op.BPF_XCHG, op.BPF_CMPXCHG, op.BPF_LOAD_ACQ, op.BPF_STORE_REL)
FORWARD = 1 << 14  # off of a jump whose target is chosen at the end
FLAGS = (0, 0, 0, 0, 0, 1, 8, 8, 8, 128, 136, 2, 3, 4)


class Builder:
    """The program being written. ``kinds`` remembers roughly what each register holds: s(calar), p(ointer), or nothing."""

    def __init__(self, rng: random.Random, with_calls: bool, with_loops: bool) -> None:
        self.rng = rng
        self.with_loops = with_loops
        self.code: list[Instruction] = []
        self.relocs: list[list[Any]] = []
        self.scalars: set[int] = set()
        self.pointers: dict[int, str] = {1: "ctx", 10: "fp"}
        self.slots: set[int] = set()
        self.refill = False
        self.with_calls = with_calls
        self.calls: list[int] = []
        self.callbacks: list[int] = []

    # -- choices

    def emit(self, code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        self.code.append(Instruction(code, dst, src, off, imm))

    def imm(self) -> int:
        r = self.rng.random()
        if r < 0.6:
            return self.rng.choice(EDGES)
        if r < 0.8:
            return self.rng.randrange(-300, 300)
        return self.rng.randrange(-(1 << 31), 1 << 31)

    def scalar(self) -> int:
        """A register that holds a scalar; made when there is none."""
        if not self.scalars or self.rng.random() < 0.1:
            self.new_scalar()
        return self.rng.choice(sorted(self.scalars))

    def target(self) -> int:
        return self.rng.choice((0, 2, 3, 4, 5, 6, 7, 8, 9))

    def became_scalar(self, reg: int) -> None:
        self.pointers.pop(reg, None)
        if reg < 10:
            self.scalars.add(reg)

    def became_pointer(self, reg: int, kind: str) -> None:
        self.scalars.discard(reg)
        self.pointers[reg] = kind

    def clobber(self) -> None:
        """A call forgot R0 to R5; at times some are set again at once, so that later jumps find them set."""
        for reg in range(6):
            self.scalars.discard(reg)
            self.pointers.pop(reg, None)
        self.refill = self.rng.random() < 0.4

    def settle(self) -> None:
        """After a piece that ended in a call."""
        if self.refill:
            for reg in range(1, 6):
                if reg not in self.pointers:
                    self.emit(0xB7, reg, imm=self.imm())
                    self.became_scalar(reg)
            self.refill = False

    def prologue(self) -> None:
        """Give every register and a few slots a value, so that any jump is a legal one."""
        self.save_ctx()
        for reg in (0, 2, 3, 4, 5, 6, 7, 8, 9):
            if reg not in self.pointers:
                self.emit(0xB7, reg, imm=self.imm())
                self.became_scalar(reg)
        for off in (-8, -16, -24):
            self.emit(op.BPF_STX | op.BPF_MEM | op.BPF_DW, 10, self.rng.choice(sorted(self.scalars)), off)
            self.slots.add(off)

    def pointer(self, kind: str) -> int | None:
        found = [reg for reg, have in self.pointers.items() if have == kind]
        return self.rng.choice(found) if found else None

    def load_map(self, reg: int, name: str, value: bool = False, off: int = 0) -> None:
        self.relocs.append([len(self.code), name, "value" if value else "fd", off])
        self.emit(0x18, reg, op.BPF_PSEUDO_MAP_VALUE if value else op.BPF_PSEUDO_MAP_FD)
        self.emit(0, imm=off)
        self.became_pointer(reg, "value" if value else "map")

    def need_ctx(self, reg: int) -> None:
        have = self.pointer("ctx")
        if have is None:
            return
        if have != reg:
            self.emit(0xBF, reg, have)
            self.became_pointer(reg, "ctx")

    # -- pieces

    def new_scalar(self) -> None:
        rng, reg = self.rng, self.target()
        pick = rng.random()
        ctx = self.pointer("ctx")
        if pick < 0.35:
            self.emit(rng.choice((0xB7, 0xB4)), reg, imm=self.imm())
        elif pick < 0.55 and ctx is not None:
            self.emit(0x61, reg, ctx, rng.choice((0, 4, 8, 16, 20, 36, 48, 52)))
        elif pick < 0.7:
            self.emit(0x18, reg, imm=self.imm())
            self.emit(0, imm=self.imm())
        elif pick < 0.8 and (value := self.pointer("value")) is not None:
            self.emit(
                op.BPF_LDX | rng.choice((op.BPF_MEM, op.BPF_MEMSX)) | rng.choice(SIZES), reg, value, rng.randrange(0, 40, 4)
            )
        elif pick < 0.9 and self.slots:
            self.emit(op.BPF_LDX | op.BPF_MEM | rng.choice(SIZES), reg, 10, rng.choice(sorted(self.slots)))
        else:
            self.save_ctx()
            self.clobber()
            self.emit(0x85, imm=rng.choice(SCALAR_CALLS[:3]))
            reg = 0
        self.became_scalar(reg)

    def save_ctx(self) -> None:
        ctx = self.pointer("ctx")
        if ctx is not None and ctx < 6:
            keep = self.rng.randrange(6, 10)
            self.emit(0xBF, keep, ctx)
            self.became_pointer(keep, "ctx")

    def alu(self) -> None:
        rng = self.rng
        for _ in range(rng.randrange(1, 5)):
            reg = self.scalar()
            cls = rng.choice((op.BPF_ALU64, op.BPF_ALU64, op.BPF_ALU))
            code = rng.choice(BINARY_OPS)
            width = 64 if cls == op.BPF_ALU64 else 32
            off = 1 if code in (op.BPF_DIV, op.BPF_MOD) and rng.random() < 0.3 else 0
            if rng.random() < 0.6:
                imm = self.imm()
                if code in (op.BPF_LSH, op.BPF_RSH, op.BPF_ARSH) and rng.random() < 0.97:
                    imm = rng.choice((0, 1, 8, 16, 31, 32, 33, 48, 56, 63)) % width
                elif code in (op.BPF_DIV, op.BPF_MOD):
                    imm = imm or 3
                self.emit(cls | code | op.BPF_K, reg, off=off, imm=imm)
            else:
                self.emit(cls | code | op.BPF_X, reg, self.scalar(), off=off)

    def move(self) -> None:
        rng = self.rng
        src, dst = self.scalar(), self.target()
        pick = rng.random()
        if pick < 0.5:
            self.emit(0xBF, dst, src)
        elif pick < 0.65:
            self.emit(0xBC, dst, src)
        elif pick < 0.8:
            self.emit(
                *rng.choice(
                    ((0xBF, dst, src, 8), (0xBF, dst, src, 16), (0xBF, dst, src, 32), (0xBC, dst, src, 8), (0xBC, dst, src, 16))
                )
            )
        elif pick < 0.9:
            self.emit(rng.choice((0x87, 0x84)), src)
            return
        else:
            self.emit(rng.choice((0xD4, 0xDC, 0xD7)), src, imm=rng.choice((16, 32, 64)))
            return
        self.became_scalar(dst)

    def narrow(self) -> None:
        """Give a scalar bounds, often by a mask or a compare that leaves."""
        rng, reg = self.rng, self.scalar()
        if rng.random() < 0.4:
            self.emit(rng.choice((0x57, 0x54)), reg, imm=rng.choice((1, 3, 7, 8, 15, 31, 63, 255, 0xFF0, 0x7FFFFFFF)))
        else:
            self.jump(reg, small=rng.random() < 0.7)

    def jump(self, reg: int | None = None, small: bool = False) -> None:
        rng = self.rng
        reg = self.scalar() if reg is None else reg
        cls = rng.choice((op.BPF_JMP, op.BPF_JMP, op.BPF_JMP32))
        code = rng.choice(JUMP_OPS)
        if rng.random() < 0.65:
            self.emit(cls | code | op.BPF_K, reg, off=FORWARD, imm=rng.randrange(0, 64) if small else self.imm())
        else:
            self.emit(cls | code | op.BPF_X, reg, self.scalar(), off=FORWARD)

    def stack_off(self, size: int = op.BPF_DW) -> int:
        """A slot, mostly aligned for the access."""
        rng = self.rng
        step = 1 if rng.random() < 0.04 else SIZE_BYTES[size]
        return rng.choice((-8, -16, -24, -32, -40, -64)) + rng.randrange(0, 8, step)

    def store(self) -> None:
        rng = self.rng
        size = rng.choice((*SIZES, op.BPF_DW, op.BPF_DW))
        off = self.stack_off(size)
        pick = rng.random()
        if pick < 0.3:
            self.emit(op.BPF_ST | op.BPF_MEM | size, 10, off=off, imm=rng.choice((0, 0, 1, -1, self.imm())))
        elif pick < 0.85 or not self.pointers:
            self.emit(op.BPF_STX | op.BPF_MEM | size, 10, self.scalar(), off)
        else:
            self.emit(op.BPF_STX | op.BPF_MEM | op.BPF_DW, 10, rng.choice(sorted(self.pointers)), off & ~7)
        self.slots.add(off)

    def fill(self) -> None:
        rng = self.rng
        off = rng.choice(sorted(self.slots)) if self.slots else self.stack_off()
        sizes = [size for size in SIZES if off % SIZE_BYTES[size] == 0]
        size = rng.choice((*SIZES, op.BPF_DW)) if rng.random() < 0.05 else rng.choice(sizes)
        dst = self.target()
        mode = op.BPF_MEM if size == op.BPF_DW or rng.random() < 0.7 else op.BPF_MEMSX
        self.emit(op.BPF_LDX | mode | size, dst, 10, off)
        self.became_scalar(dst)

    def ctx_access(self) -> None:
        rng, ctx = self.rng, self.pointer("ctx")
        if ctx is None:
            return
        off = rng.choice(READABLE if rng.random() < 0.85 else CTX_FIELDS) if rng.random() < 0.97 else rng.randrange(-8, 260)
        size = op.BPF_W if rng.random() < 0.9 else rng.choice(SIZES)
        if rng.random() < 0.8:
            dst = self.target()
            self.emit(op.BPF_LDX | op.BPF_MEM | size, dst, ctx, off)
            self.became_scalar(dst)
        elif rng.random() < 0.7:
            self.emit(op.BPF_STX | op.BPF_MEM | size, ctx, self.scalar(), rng.choice((48, 52, 56, 60, 64, 48, 52, 8, 32)))
        else:
            self.emit(op.BPF_ST | op.BPF_MEM | size, ctx, off=rng.choice((48, 52, off)), imm=self.imm())

    def packet_load(self) -> None:
        rng = self.rng
        self.save_ctx()
        self.need_ctx(6)
        size = rng.choice((op.BPF_B, op.BPF_H, op.BPF_W))
        if rng.random() < 0.6:
            self.emit(op.BPF_LD | op.BPF_ABS | size, imm=rng.choice((0, 12, 14, 23, 100, -0x1000 + 4, -0x100000)))
        else:
            src = self.scalar()
            self.emit(op.BPF_LD | op.BPF_IND | size, src=src, imm=rng.choice((0, 14, -14)))
        self.clobber()
        self.became_scalar(0)

    def lookup(self) -> None:
        """A map value (or inner map) in R0 and a saved register, NULL checked most times."""
        rng = self.rng
        name = rng.choice(LOOKUP_MAPS if rng.random() < 0.97 else RARE_MAPS)
        if name == "array" and rng.random() < 0.25:
            self.load_map(
                self.rng.randrange(6, 10), rng.choice(("array", "rodata", "ro_array")), True, rng.choice((0, 0, 4, 16, 60))
            )
            return
        self.save_ctx()
        key = rng.choice((-8, -16))
        self.emit(0x7A if rng.random() < 0.8 else 0x62, 10, off=key, imm=rng.choice((0, 0, 1, 5)))
        self.slots.add(key)
        self.emit(0xBF, 2, 10)
        self.emit(0x07, 2, imm=key)
        self.load_map(1, name)
        self.emit(0x85, imm=1)
        self.clobber()
        self.became_pointer(0, "value")
        if rng.random() < 0.9:
            self.emit(rng.choice((0x15, 0x15, 0x15, 0x55)), 0, off=FORWARD)
        keep = rng.randrange(6, 10)
        if rng.random() < 0.8:
            self.emit(0xBF, keep, 0)
            self.became_pointer(keep, "value")

    def value_access(self) -> None:
        rng, value = self.rng, self.pointer("value")
        if value is None:
            self.lookup()
            return
        reg, off = value, rng.choice((0, 0, 4, 8, 16, 40, 44, 47, 63, -1))
        if rng.random() < 0.5:
            index = self.scalar()
            if rng.random() < 0.7:
                self.emit(0x57, index, imm=rng.choice((3, 7, 8, 15, 31, 63)))
            reg = self.target()
            if reg == index:
                self.emit(0x0F, reg, value)
            else:
                self.emit(0xBF, reg, value)
                self.emit(rng.choice((0x0F, 0x0F, 0x0F, 0x1F)), reg, index)
            self.became_pointer(reg, "value")
        size = rng.choice(SIZES)
        pick = rng.random()
        if pick < 0.45:
            dst = self.target()
            mode = op.BPF_MEM if size == op.BPF_DW else rng.choice((op.BPF_MEM, op.BPF_MEMSX))
            self.emit(op.BPF_LDX | mode | size, dst, reg, off)
            self.became_scalar(dst)
        elif pick < 0.75:
            self.emit(op.BPF_STX | op.BPF_MEM | size, reg, self.scalar(), off)
        elif pick < 0.85:
            self.emit(op.BPF_ST | op.BPF_MEM | size, reg, off=off, imm=self.imm())
        else:
            self.atomic(reg, off)

    def atomic(self, reg: int = 10, off: int | None = None) -> None:
        rng = self.rng
        off = (rng.choice(sorted(self.slots)) if self.slots else -8) if off is None else off
        imm = rng.choice(ATOMICS) | rng.choice((0, op.BPF_FETCH))
        other = self.scalar()
        size = rng.choice((op.BPF_W, op.BPF_DW)) if rng.random() < 0.98 else op.BPF_B
        if imm & ~op.BPF_FETCH == op.BPF_LOAD_ACQ:
            self.emit(op.BPF_STX | op.BPF_ATOMIC | size, other, reg, off, op.BPF_LOAD_ACQ)
        else:
            self.emit(op.BPF_STX | op.BPF_ATOMIC | size, reg, other, off, imm)

    def pointer_math(self) -> None:
        rng = self.rng
        movable = [reg for reg, kind in sorted(self.pointers.items()) if kind in ("fp", "value")]
        reg, src = self.target(), rng.choice(movable if rng.random() < 0.85 else sorted(self.pointers))
        self.emit(0xBF, reg, src)
        self.became_pointer(reg, self.pointers[src])
        for _ in range(rng.randrange(1, 3)):
            pick = rng.random()
            if pick < 0.6:
                self.emit(0x07, reg, imm=rng.choice((-8, -16, -24, 4, 8, -512, 1, -1, 1 << 29) if pick < 0.55 else (self.imm(),)))
            elif pick < 0.9:
                self.emit(rng.choice((0x0F, 0x0F, 0x1F)), reg, self.scalar())
            elif pick < 0.96:
                self.emit(
                    rng.choice((0x04, 0x1C, 0x57, 0x4F, 0x77, 0x2F, 0xAF)), reg, imm=self.imm()
                ) if rng.random() < 0.5 else self.emit(rng.choice((0x0C, 0x1C, 0x5F)), reg, self.scalar())
            else:
                self.emit(rng.choice((0x1F, 0x0F)), reg, rng.choice(sorted(self.pointers)))
        if rng.random() < 0.5:
            dst = self.target()
            self.emit(op.BPF_LDX | op.BPF_MEM | rng.choice(SIZES), dst, reg, rng.choice((0, -8, 4)))
            self.became_scalar(dst)
        elif rng.random() < 0.4:
            self.emit(op.BPF_STX | op.BPF_MEM | rng.choice(SIZES), reg, self.scalar(), rng.choice((0, -8, 4)))

    def pointer_compare(self) -> None:
        rng = self.rng
        a = rng.choice(sorted(self.pointers))
        code = rng.choice((op.BPF_JEQ, op.BPF_JNE, op.BPF_JGT, op.BPF_JLT, op.BPF_JSET))
        cls = rng.choice((op.BPF_JMP, op.BPF_JMP, op.BPF_JMP32))
        if rng.random() < 0.5:
            self.emit(cls | code, a, off=FORWARD, imm=rng.choice((0, 0, 1)))
        else:
            self.emit(cls | code | op.BPF_X, a, rng.choice(sorted(self.pointers) + sorted(self.scalars)), FORWARD)

    def memory_argument(self, reg: int) -> None:
        """A register pointing to some readable or writable memory."""
        rng = self.rng
        value = self.pointer("value")
        if value is not None and rng.random() < 0.4 and value != reg:
            self.emit(0xBF, reg, value)
        else:
            self.emit(0xBF, reg, 10)
            self.emit(0x07, reg, imm=rng.choice((-8, -16, -24, -32, -64, -520)))
        self.became_pointer(reg, "mem")

    def helper(self) -> None:
        """A call of some helper with arguments of about the right kinds."""
        rng = self.rng
        self.save_ctx()
        number, kinds = rng.choice(HELPER_ARGS)
        if rng.random() < 0.05:
            number = rng.randrange(0, 220)
        for reg, kind in enumerate(kinds, 1):
            if rng.random() < 0.03:
                continue
            if kind == "m":
                self.memory_argument(reg)
            elif kind == "c":
                self.need_ctx(reg)
            elif kind == "n":
                if rng.random() < 0.6:
                    self.emit(0xB7, reg, imm=rng.choice((0, 1, 4, 8, 8, 16, 24, 64)))
                else:
                    src = self.scalar()
                    self.emit(0xBF, reg, src)
                    self.emit(0x57, reg, imm=rng.choice((7, 15, 16, 63)))
            elif kind == "z":
                self.emit(0xB7, reg, imm=rng.choice((0, 0, 0, 1, 2, 3)))
            else:
                self.load_map(reg, kind if rng.random() < 0.95 else rng.choice(sorted(MAPS)))
        self.emit(0x85, imm=number)
        self.clobber()
        self.became_scalar(0)

    def ring(self) -> None:
        rng = self.rng
        self.save_ctx()
        self.load_map(1, "ring")
        self.emit(0xB7, 2, imm=rng.choice((8, 16, 64)))
        self.emit(0xB7, 3, imm=0)
        self.emit(0x85, imm=131)
        self.clobber()
        if rng.random() < 0.9:
            self.emit(0x55, 0, off=rng.choice((2, 2, FORWARD)))
            self.emit(0xB7, 0, imm=0)
            self.emit(0x95)
        keep = rng.randrange(6, 10)
        self.emit(0xBF, keep, 0)
        if rng.random() < 0.7:
            self.emit(op.BPF_ST | op.BPF_MEM | rng.choice(SIZES), keep, off=rng.choice((0, 4, 8, 60)), imm=1)
        if rng.random() < 0.9:
            self.emit(0xBF, 1, keep)
            self.emit(0xB7, 2, imm=0)
            self.emit(0x85, imm=rng.choice((132, 133)))
            self.clobber()
        self.scalars.discard(keep)
        self.pointers.pop(keep, None)

    def tail_call(self) -> None:
        self.save_ctx()
        self.need_ctx(1)
        self.load_map(2, "progs")
        self.emit(0xB7, 3, imm=self.rng.choice((0, 1, 7)))
        self.emit(0x85, imm=12)
        self.clobber()

    def subprogram(self) -> None:
        if not self.with_calls:
            return
        rng = self.rng
        self.save_ctx()
        for reg in range(1, rng.randrange(1, 4)):
            if rng.random() < 0.5:
                self.emit(0xBF, reg, self.scalar())
            else:
                self.emit(0xBF, reg, rng.choice(sorted(self.pointers)))
        self.calls.append(len(self.code))
        self.emit(0x85, src=1)
        self.clobber()
        self.became_scalar(0)

    def callback(self) -> None:
        """bpf_loop or bpf_for_each_map_elem with a function of this program."""
        if not self.with_calls:
            return
        rng = self.rng
        self.save_ctx()
        each = rng.random() < 0.4
        if each:
            self.load_map(1, rng.choice(("hash", "array", "percpu", "lru")))
        else:
            self.emit(0xB7, 1, imm=rng.choice((1, 2, 5, 100)))
        self.callbacks.append(len(self.code))
        self.emit(0x18, 2, op.BPF_PSEUDO_FUNC)
        self.emit(0)
        if rng.random() < 0.5:
            self.memory_argument(3)
        else:
            self.emit(0xB7, 3, imm=0)
        self.emit(0xB7, 4, imm=0)
        self.emit(0x85, imm=164 if each else 181)
        self.clobber()
        self.became_scalar(0)

    def dynptr(self) -> None:
        """A ring buffer record or local memory through a dynptr at fp-16 (or a wrong place), used and released most times."""
        rng = self.rng
        self.save_ctx()
        at = rng.choice((-16, -16, -32, -24))
        ring = rng.random() < 0.7
        if ring:
            self.load_map(1, "ring")
            self.emit(0xB7, 2, imm=rng.choice((8, 32)))
        else:
            self.lookup()
            value = self.pointer("value")
            if value is None:
                return
            self.emit(0xBF, 1, value)
            self.emit(0xB7, 2, imm=rng.choice((4, 8, 64)))
        self.emit(0xB7, 3, imm=0)
        self.emit(0xBF, 4, 10)
        self.emit(0x07, 4, imm=at)
        self.emit(0x85, imm=198 if ring else 197)
        for _ in range(rng.randrange(0, 3)):
            number = rng.choice((201, 202, 203))
            where = 3 if number == 201 else 1
            self.emit(0xBF, where, 10)
            self.emit(0x07, where, imm=at)
            if number == 203:
                self.emit(0xB7, 2, imm=0)
                self.emit(0xB7, 3, imm=8)
            elif number == 201:
                self.emit(0xBF, 1, 10)
                self.emit(0x07, 1, imm=rng.choice((-64, -40, at)))
                self.emit(0xB7, 2, imm=8)
                self.emit(0xB7, 4, imm=0)
                self.emit(0xB7, 5, imm=0)
            else:
                self.emit(0xB7, 2, imm=0)
                self.emit(0xBF, 3, 10)
                self.emit(0x07, 3, imm=rng.choice((-64, at)))
                self.emit(0xB7, 4, imm=8)
                self.emit(0xB7, 5, imm=0)
            self.emit(0x85, imm=number)
        if ring and rng.random() < 0.9:
            self.emit(0xBF, 1, 10)
            self.emit(0x07, 1, imm=at)
            self.emit(0xB7, 2, imm=0)
            self.emit(0x85, imm=rng.choice((199, 200)))
        self.clobber()
        self.became_scalar(0)

    def may_goto(self) -> None:
        if self.with_loops:
            self.emit(0xE5, off=self.rng.choice((FORWARD, FORWARD, 0, 1)))

    def loop(self) -> None:
        """A counted loop whose body is a few pieces."""
        if not self.with_loops:
            return
        rng, counter = self.rng, self.rng.randrange(6, 10)
        self.emit(0xB7, counter, imm=0)
        self.pointers.pop(counter, None)
        self.scalars.discard(counter)
        start = len(self.code)
        for _ in range(rng.randrange(0, 2)):
            rng.choice((self.alu, self.move, self.store, self.fill))()
            self.scalars.discard(counter)
        pick, limit = rng.random(), None
        if 0.6 < pick < 0.96 and self.scalars:
            limit = rng.choice(sorted(self.scalars))
            if pick < 0.94:
                self.emit(0x57, limit, imm=rng.choice((3, 7, 15)))
        self.emit(0x07, counter, imm=rng.choice((1, 1, 2, 3)) if rng.random() < 0.98 else rng.choice((0, -1)))
        back = start - len(self.code) - 1
        if limit is not None:
            self.emit(rng.choice((0xAD, 0xAD, 0x5D, 0xCD)), counter, limit, back)
        elif pick < 0.98:
            self.emit(rng.choice((0xA5, 0xA5, 0x55, 0xC5, 0xA6)), counter, off=back, imm=rng.choice((2, 3, 5, 10, 20)))
        else:
            self.emit(0xE5, off=rng.choice((1, 0)))
            self.emit(0x05, off=back - 1)
        self.scalars.add(counter)

    def exit(self) -> None:
        if self.rng.random() < 0.95:
            self.emit(0xB7, 0, imm=self.rng.choice((0, 1)))
        self.emit(0x95)

    PIECES: tuple[tuple[str, int], ...] = (
        *(("alu", 14), ("move", 9), ("narrow", 8), ("jump", 8), ("store", 8), ("fill", 7), ("new_scalar", 6)),
        *(("ctx_access", 4), ("packet_load", 2), ("lookup", 4), ("value_access", 8), ("atomic", 3), ("pointer_math", 5)),
        *(("pointer_compare", 2), ("helper", 4), ("ring", 1), ("tail_call", 1), ("subprogram", 4), ("loop", 2)),
        *(("callback", 2), ("dynptr", 1), ("may_goto", 1)),
    )

    def body(self, pieces: int) -> None:
        if self.rng.random() < 0.6:
            self.prologue()
        pieces_of: list[tuple[Callable[[Builder], None], int]] = [(getattr(Builder, name), n) for name, n in self.PIECES]
        more = MORE_PIECES if self.with_loops else ANYONE
        choices, weights = zip(*pieces_of, *more, strict=True)
        for piece in self.rng.choices(choices, weights, k=pieces):
            piece(self)
            self.settle()

    def finish(self) -> None:
        """Choose the targets of forward jumps: an instruction behind them, most often the end."""
        last = len(self.code) - 2 if len(self.code) > 1 and self.code[-2].code == 0xB7 else len(self.code) - 1
        starts = [i for i, insn in enumerate(self.code) if i == 0 or self.code[i - 1].code != 0x18]
        for i, insn in enumerate(self.code):
            if insn.off == FORWARD:
                behind = [s for s in starts if i < s <= last]
                near = behind[:8]
                pick = self.rng.random()
                goal = last if pick < 0.35 or not behind else self.rng.choice(near if pick < 0.8 else behind)
                self.code[i] = insn._replace(off=goal - i - 1)


# helper number, argument kinds: m(emory), n(umber/size), z(ero or flags), c(tx), or a map's name
HELPER_ARGS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (1, ("hash", "m")),
    (1, ("array", "m")),
    (2, ("hash", "m", "m", "z")),
    (2, ("array", "m", "m", "z")),
    (3, ("hash", "m")),
    (5, ()),
    (7, ()),
    (8, ()),
    (25, ("c", "progs", "z", "m", "n")),
    (26, ("c", "n", "m", "n")),
    (28, ("m", "n", "m", "n", "n")),
    (33, ("c",)),
    (34, ("c",)),
    (45, ("m", "n", "m")),
    (46, ("c",)),
    (47, ("c",)),
    (68, ("c", "n", "m", "n", "z")),
    (87, ("queue", "m", "z")),
    (88, ("queue", "m")),
    (89, ("queue", "m")),
    (105, ("m", "n", "z", "m")),
    (106, ("m", "n", "z", "m")),
    (125, ()),
    (130, ("ring", "m", "n", "z")),
    (131, ("ring", "n", "z")),
    (134, ("ring", "z")),
    (113, ("m", "n", "m")),
    (165, ("m", "n", "m", "m", "n")),
    (182, ("m", "n", "m")),
    (195, ("percpu", "m", "z")),
)


def _callback(rng: random.Random, with_loops: bool) -> Builder:
    """A function that bpf_loop or bpf_for_each_map_elem calls: (index, memory), or (map, key, value, memory)."""
    sub = Builder(rng, False, with_loops)
    sub.pointers = {10: "fp", 2: "mem"} if rng.random() < 0.6 else {10: "fp", 1: "map", 2: "mem", 3: "value", 4: "mem"}
    sub.scalars = {1} if len(sub.pointers) == 2 else set()
    if rng.random() < 0.5:
        off = rng.choice((0, 0, -8, 4))
        if rng.random() < 0.6:
            sub.emit(op.BPF_LDX | op.BPF_MEM | rng.choice(SIZES), 5, 2, off)
            sub.became_scalar(5)
        else:
            sub.emit(op.BPF_ST | op.BPF_MEM | rng.choice(SIZES), 2, off=off, imm=1)
    return sub


def _function(rng: random.Random, with_loops: bool, with_calls: bool) -> Builder:
    """A function that is called: with the context and this or that, or with anything."""
    sub = Builder(rng, with_calls, with_loops)
    sub.pointers = {10: "fp"}
    sub.scalars = {1, 2}
    if rng.random() < 0.6:
        sub.pointers[1] = "ctx" if rng.random() < 0.7 else "value"
        sub.scalars = {2}
        if rng.random() < 0.4:
            sub.pointers[2], sub.scalars = "mem", set()
            keep = rng.randrange(6, 10)
            sub.emit(0xBF, keep, 2)
            sub.pointers[keep] = "mem"
            if rng.random() < 0.7:
                sub.emit(rng.choice((op.BPF_ST, op.BPF_LDX)) | op.BPF_MEM | op.BPF_DW, keep, keep if keep > 8 else 10, -8)
    return sub


def _subprogram(rng: random.Random, with_loops: bool, with_calls: bool, called_back: bool) -> Builder:
    sub = _callback(rng, with_loops) if called_back else _function(rng, with_loops, with_calls)
    if sub.pointers.get(1) == "ctx" and rng.random() < 0.4:
        sub.packet_load()
    sub.body(rng.randrange(1, 6))
    sub.exit()
    sub.finish()
    return sub


def _line_rows(rng: random.Random, starts: list[int], length: int) -> list[list[int]]:
    rows = set(starts) | {rng.randrange(length) for _ in range(rng.randrange(0, 6))}
    return [[at, LIBRARY.file, rng.choice(LIBRARY.lines), rng.randrange(1, 9) << 10 | 5] for at in sorted(rows)]


def generate(rng: random.Random, capable: bool = True) -> dict[str, Any]:
    """A record with a new program: a main part and, at times, functions it calls or hands to helpers, with or without BTF.

    Where the loader is not ``capable`` of CAP_BPF, loops and calls come seldom: they end the verification at once.
    """
    bold = capable or rng.random() < 0.05
    with_calls = bold and rng.random() < 0.35
    main = Builder(rng, with_calls, bold)
    main.body(rng.randrange(1, 22) if rng.random() < 0.93 else rng.randrange(22, 80))
    main.exit()
    main.finish()
    code, relocs, starts, calls = main.code, main.relocs, [], [(0, main)]
    for number in range(rng.randrange(1, 4) if main.calls or main.callbacks else 0):
        sub = _subprogram(rng, bold, number < 2 and rng.random() < 0.3, bool(main.callbacks) and rng.random() < 0.6)
        starts.append(len(code))
        calls.append((len(code), sub))
        relocs = relocs + [[index + len(code), *rest] for index, *rest in sub.relocs]
        code = code + sub.code
    uncalled = list(starts)
    for at, part in calls:
        for call in (*part.calls, *part.callbacks):
            later = [start for start in starts if start > at] or starts
            goal = rng.choice(later if rng.random() < 0.97 else starts)
            goal = next((start for start in uncalled if start > at), goal)
            uncalled = [start for start in uncalled if start != goal]
            code[at + call] = code[at + call]._replace(imm=goal - (at + call) - 1)
    if rng.random() < 0.97:  # nothing calls the last ones: leave them out
        while starts and starts[-1] in uncalled:
            code = code[: starts.pop()]
        relocs = [row for row in relocs if row[0] < len(code)]
    record = make_record(code, relocs, rng.choice(FLAGS))
    if rng.random() < (0.7 if main.callbacks or main.calls else 0.05):
        kinds = [rng.choice(LIBRARY.statics if rng.random() < 0.6 else LIBRARY.globals) for _ in starts]
        record["btf_bytes"] = LIBRARY.bytes.hex()
        record["func_rows"] = [[0, rng.choice(LIBRARY.main)], *([at, kind] for at, kind in zip(starts, kinds, strict=True))]
        if rng.random() < 0.4:
            record["line_rows"] = _line_rows(rng, [0, *starts], len(code))
    return record


def make_record(
    code: list[Instruction], relocs: list[list[Any]], flags: int, maps: dict[str, Any] | None = None
) -> dict[str, Any]:
    names = {name for _, name, *_ in relocs}
    maps = MAPS if maps is None else maps
    return {
        "prog_type": "socket_filter",
        "flags": flags,
        "insns": encode(code).hex(),
        "map_relocs": relocs,
        "maps": {name: maps[name] for name in maps if name in names},
    }


def mutate(rng: random.Random, code: list[Instruction], relocs: list[list[Any]]) -> tuple[list[Instruction], list[list[Any]]]:
    """A few small changes of fields, order or length. Map references keep their instruction."""
    code, relocs = list(code), [list(r) for r in relocs]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        rng.choice(_MUTATIONS)(rng, code, relocs)
    for index, *_ in relocs:
        if index >= len(code):
            return code, [r for r in relocs if r[0] < len(code)]
    return code, relocs


def _clip(value: int, bits: int) -> int:
    half = 1 << bits - 1
    return (value + half) % (2 * half) - half


def _change_imm(rng: random.Random, code: list[Instruction], relocs: list[list[Any]]) -> None:
    i = rng.randrange(len(code))
    insn = code[i]
    value = rng.choice((insn.imm + 1, insn.imm - 1, -insn.imm, insn.imm ^ 1 << rng.randrange(32), rng.choice(EDGES)))
    code[i] = insn._replace(imm=_clip(value, 32))


def _change_off(rng: random.Random, code: list[Instruction], relocs: list[list[Any]]) -> None:
    i = rng.randrange(len(code))
    insn = code[i]
    value = rng.choice(
        (
            insn.off + 1,
            insn.off - 1,
            insn.off + 8,
            insn.off - 8,
            -insn.off,
            0,
            rng.randrange(-40, 40),
            rng.randrange(-32768, 32768),
        )
    )
    code[i] = insn._replace(off=_clip(value, 16))


def _change_register(rng: random.Random, code: list[Instruction], relocs: list[list[Any]]) -> None:
    i = rng.randrange(len(code))
    name = rng.choice(("dst", "src"))
    code[i] = code[i]._replace(**{name: rng.randrange(11 if rng.random() < 0.95 else 16)})


def _change_opcode(rng: random.Random, code: list[Instruction], relocs: list[list[Any]]) -> None:
    i = rng.randrange(len(code))
    insn = code[i]
    pick = rng.random()
    if pick < 0.4:
        new = insn.code & 0x0F | rng.randrange(16) << 4
    elif pick < 0.6:
        new = insn.code ^ op.BPF_X
    elif pick < 0.8:
        new = insn.code ^ rng.choice((1, 2, 3, 4, 0x10, 0x18))
    else:
        new = rng.randrange(256)
    code[i] = insn._replace(code=new)


def _swap(rng: random.Random, code: list[Instruction], relocs: list[list[Any]]) -> None:
    i, j = rng.randrange(len(code)), rng.randrange(len(code))
    code[i], code[j] = code[j], code[i]


def _delete(rng: random.Random, code: list[Instruction], relocs: list[list[Any]]) -> None:
    if len(code) > 1:
        i = rng.randrange(len(code))
        del code[i]
        _shift(relocs, i, -1)


def _duplicate(rng: random.Random, code: list[Instruction], relocs: list[list[Any]]) -> None:
    i, j = rng.randrange(len(code)), rng.randrange(len(code))
    code.insert(j, code[i])
    _shift(relocs, j, 1)


def _shift(relocs: list[list[Any]], at: int, by: int) -> None:
    relocs[:] = [[i + by if i >= at else i, *rest] for i, *rest in relocs if by > 0 or i != at]


_MUTATIONS = (
    *(
        _change_imm,
        _change_imm,
        _change_off,
        _change_off,
        _change_register,
        _change_register,
        _change_opcode,
        _swap,
        _delete,
        _duplicate,
    ),
)
