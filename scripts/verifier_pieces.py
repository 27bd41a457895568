"""Pieces of generated programs for the verifier's less travelled rooms: variable stack offsets, linked scalars, slices of
dynptrs, references that cross calls, maps in maps, fields of map pointers, loops whose bounds matter later.

Each is a function of the builder (verifier_programs.Builder) with a weight in ``PIECES``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from netbpf.isa import opcodes as op

if TYPE_CHECKING:
    from verifier_programs import Builder

SIZES = (op.BPF_B, op.BPF_H, op.BPF_W, op.BPF_DW)
MOV, MOV_IMM, ADD, ADD_IMM, AND_IMM, CALL, EXIT = 0xBF, 0xB7, 0x0F, 0x07, 0x57, 0x85, 0x95
STRUCT_OFFSETS = (0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 80, 96, 120, 200, 256)


def _saved_register(b: Builder) -> int:
    return b.rng.randrange(6, 10)


def _bounded(b: Builder) -> int:
    """A scalar with bounds, signed at times."""
    reg = b.scalar()
    pick = b.rng.random()
    if pick < 0.7:
        b.emit(AND_IMM, reg, imm=b.rng.choice((1, 3, 7, 8, 15, 24, 31, 56)))
    elif pick < 0.9:
        b.emit(0x25, reg, off=0x4000, imm=b.rng.choice((3, 7, 16, 40)))
        if b.rng.random() < 0.3:
            b.emit(ADD_IMM, reg, imm=b.rng.choice((-8, -4, -16)))
    return reg


def var_stack(b: Builder) -> None:
    """A load, store or atomic at fp + constant + bounded scalar."""
    rng, index, reg = b.rng, _bounded(b), b.target()
    if reg == index:
        return
    if rng.random() < 0.6:
        for off in rng.sample((-8, -16, -24, -32, -40), 3):
            b.emit(op.BPF_ST | op.BPF_MEM | op.BPF_DW, 10, off=off, imm=rng.choice((0, 0, 1)))
            b.slots.add(off)
    b.emit(MOV, reg, 10)
    b.emit(ADD_IMM, reg, imm=rng.choice((-40, -32, -64, -16, -512)))
    b.emit(ADD if rng.random() < 0.9 else 0x1F, reg, index)
    b.became_pointer(reg, "fp")
    size, off = rng.choice(SIZES), rng.choice((0, 0, 0, 8, -8, 1))
    pick = rng.random()
    if pick < 0.4:
        dst = b.target()
        b.emit(op.BPF_LDX | op.BPF_MEM | size, dst, reg, off)
        b.became_scalar(dst)
    elif pick < 0.6:
        b.emit(op.BPF_STX | op.BPF_MEM | size, reg, rng.choice(sorted(b.scalars | set(b.pointers))), off)
    elif pick < 0.75:
        b.emit(op.BPF_ST | op.BPF_MEM | size, reg, off=off, imm=rng.choice((0, 0, 5)))
    elif pick < 0.85:
        b.atomic(reg, off)
    elif reg != 10:
        _map_call_with_key(b, reg)


def _map_call_with_key(b: Builder, key: int) -> None:
    b.save_ctx()
    b.emit(MOV, 2, key)
    b.load_map(1, b.rng.choice(("hash", "array")))
    b.emit(CALL, imm=b.rng.choice((1, 3)))
    b.clobber()
    b.became_scalar(0)


def linked(b: Builder) -> None:
    """Copies of one scalar, moved apart by constants, spilled at times; then one is compared and another one used."""
    rng, first = b.rng, b.scalar()
    others = [reg for reg in rng.sample((0, 2, 3, 4, 5, 6, 7, 8, 9), rng.randrange(1, 4)) if reg != first]
    for reg in others:
        b.emit(rng.choice((MOV, MOV, MOV, 0xBC)), reg, first)
        b.became_scalar(reg)
        if rng.random() < 0.6:
            b.emit(rng.choice((ADD_IMM, ADD_IMM, 0x04, 0x17)), reg, imm=rng.choice((1, 4, 8, -1, -8, 100, 0x7FFFFFFF)))
        if rng.random() < 0.2:
            off = rng.choice((-8, -16, -24))
            b.emit(op.BPF_STX | op.BPF_MEM | rng.choice((op.BPF_DW, op.BPF_W)), 10, reg, off)
            b.slots.add(off)
    group = [first, *others]
    b.jump(rng.choice(group), small=rng.random() < 0.8)
    if rng.random() < 0.5:
        b.jump(rng.choice(group), small=True)
    used = rng.choice(group)
    reg = next(r for r in (2, 3, 4, 5) if r != used)
    b.emit(MOV, reg, 10)
    b.emit(ADD_IMM, reg, imm=-64)
    b.emit(ADD, reg, used)
    b.became_pointer(reg, "fp")
    if rng.random() < 0.7:
        b.emit(op.BPF_ST | op.BPF_MEM | op.BPF_B, reg, off=0, imm=0)


def struct_field(b: Builder) -> None:
    """A field of the kernel's struct behind a map pointer, or of what it points to."""
    rng, reg = b.rng, _saved_register(b)
    b.load_map(reg, rng.choice(("hash", "array", "lru", "ring", "progs", "outer", "queue")))
    dst = b.target()
    b.emit(op.BPF_LDX | op.BPF_MEM | rng.choice((*SIZES, op.BPF_W)), dst, reg, rng.choice(STRUCT_OFFSETS))
    b.became_scalar(dst)
    if rng.random() < 0.3:
        b.emit(op.BPF_LDX | op.BPF_MEM | rng.choice(SIZES), dst, dst, rng.choice(STRUCT_OFFSETS))
    if rng.random() < 0.1:
        b.emit(op.BPF_STX | op.BPF_MEM | op.BPF_DW, reg, dst, 0)


def inner_map(b: Builder) -> None:
    """Through a map of maps: both lookups checked most times."""
    rng = b.rng
    b.save_ctx()
    for step in range(2):
        b.emit(op.BPF_ST | op.BPF_MEM | op.BPF_W, 10, off=-8, imm=rng.choice((0, 0, 1, 7)))
        b.slots.add(-8)
        if step:
            b.emit(MOV, 1, 0)
        else:
            b.load_map(1, "outer")
        b.emit(MOV, 2, 10)
        b.emit(ADD_IMM, 2, imm=-8)
        b.emit(CALL, imm=1 if rng.random() < 0.95 else rng.choice((2, 3, 87)))
        b.clobber()
        if rng.random() < 0.9:
            b.emit(0x15, 0, off=0x4000)
    keep = _saved_register(b)
    b.emit(MOV, keep, 0)
    b.became_pointer(keep, "value")
    b.became_pointer(0, "value")


def slices(b: Builder) -> None:
    """A dynptr over a record or a map value, a slice of it, and then: use, overwrite, release, in some order."""
    rng, at = b.rng, b.rng.choice((-16, -24, -32))
    b.save_ctx()
    ring = rng.random() < 0.6
    if ring:
        b.load_map(1, "ring")
        b.emit(MOV_IMM, 2, imm=rng.choice((8, 32)))
    else:
        b.load_map(1, "array", True)
        b.emit(MOV_IMM, 2, imm=rng.choice((8, 32, 64)))
    b.emit(MOV_IMM, 3, imm=0)
    b.emit(MOV, 4, 10)
    b.emit(ADD_IMM, 4, imm=at)
    b.emit(CALL, imm=198 if ring else 197)
    b.emit(MOV, 1, 10)
    b.emit(ADD_IMM, 1, imm=at)
    b.emit(MOV_IMM, 2, imm=rng.choice((0, 0, 4)))
    b.emit(MOV_IMM, 3, imm=rng.choice((4, 8, 8, 64)))
    b.emit(CALL, imm=203)
    b.clobber()
    keep = _saved_register(b)
    if rng.random() < 0.7:
        b.emit(0x15, 0, off=rng.choice((2, 3, 4)))
    b.emit(MOV, keep, 0)
    b.became_pointer(keep, "mem")
    steps = [_use_slice, _use_slice, _overwrite_dynptr, _use_slice]
    if ring:
        steps.append(_release_dynptr)
    for step in rng.sample(steps, rng.randrange(1, len(steps))):
        step(b, keep, at)
    if ring and rng.random() < 0.8:
        _release_dynptr(b, keep, at)
    if rng.random() < 0.3:
        _use_slice(b, keep, at)


def _use_slice(b: Builder, reg: int, at: int) -> None:
    pick = b.rng.random()
    if pick < 0.4:
        dst = b.rng.randrange(0, 6)
        b.emit(op.BPF_LDX | op.BPF_MEM | b.rng.choice(SIZES), dst, reg, b.rng.choice((0, 0, 4)))
        b.became_scalar(dst)
    elif pick < 0.7:
        b.emit(op.BPF_ST | op.BPF_MEM | b.rng.choice(SIZES), reg, off=b.rng.choice((0, 0, 7)), imm=1)
    else:
        b.emit(op.BPF_STX | op.BPF_MEM | op.BPF_DW, 10, reg, -48)


def _overwrite_dynptr(b: Builder, reg: int, at: int) -> None:
    """Write over one of its slots: a number, the slice itself, or another dynptr."""
    pick, where = b.rng.random(), at + b.rng.choice((0, 8))
    if pick < 0.4:
        b.emit(op.BPF_ST | op.BPF_MEM | b.rng.choice((op.BPF_DW, op.BPF_B)), 10, off=where, imm=0)
    elif pick < 0.8:
        b.emit(op.BPF_STX | op.BPF_MEM | op.BPF_DW, 10, reg, where)
    else:
        b.load_map(1, "array", True)
        b.emit(MOV_IMM, 2, imm=8)
        b.emit(MOV_IMM, 3, imm=0)
        b.emit(MOV, 4, 10)
        b.emit(ADD_IMM, 4, imm=where)
        b.emit(CALL, imm=197)
        b.clobber()


def _release_dynptr(b: Builder, reg: int, at: int) -> None:
    b.emit(MOV, 1, 10)
    b.emit(ADD_IMM, 1, imm=at)
    b.emit(MOV_IMM, 2, imm=0)
    b.emit(CALL, imm=b.rng.choice((199, 200)))
    b.clobber()


def spilled_pointer(b: Builder) -> None:
    """A pointer through the stack, whole or spoiled on the way."""
    rng, off = b.rng, b.rng.choice((-8, -16, -24, -32))
    src, kind = rng.choice(sorted(b.pointers.items()))
    b.emit(op.BPF_STX | op.BPF_MEM | op.BPF_DW, 10, src, off)
    b.slots.add(off)
    pick = rng.random()
    if pick < 0.12:
        b.emit(op.BPF_ST | op.BPF_MEM | rng.choice(SIZES), 10, off=off + rng.choice((0, 4)), imm=0)
    elif pick < 0.2:
        b.emit(op.BPF_STX | op.BPF_ATOMIC | op.BPF_DW, 10, b.scalar(), off, rng.choice((0, 1, op.BPF_XCHG)))
    dst = b.target()
    b.emit(op.BPF_LDX | op.BPF_MEM | (op.BPF_DW if rng.random() < 0.9 else rng.choice(SIZES)), dst, 10, off)
    b.became_pointer(dst, kind)


def loop_then_use(b: Builder) -> None:
    """A loop whose counter, or what it gathered, is an offset afterwards."""
    if not b.with_loops:
        return
    rng = b.rng
    counter, gathered = rng.sample(range(6, 10), 2)
    for reg in (counter, gathered):
        b.emit(MOV_IMM, reg, imm=0)
        b.became_scalar(reg)
    start = len(b.code)
    if rng.random() < 0.3:
        b.emit(0xE5, off=0x4000)
    if rng.random() < 0.5:
        b.emit(CALL, imm=7)
        b.clobber()
        b.emit(AND_IMM, 0, imm=rng.choice((1, 3)))
        b.emit(rng.choice((ADD, 0x4F, MOV)), gathered, 0)
    else:
        b.emit(rng.choice((ADD_IMM, 0x47, 0xB7)), gathered, imm=rng.choice((1, 2)))
    if rng.random() < 0.4:
        b.emit(rng.choice((0x25, 0x15, 0x65)), gathered, off=rng.choice((1, 0x4000)), imm=rng.randrange(1, 12))
    b.emit(ADD_IMM, counter, imm=1)
    b.emit(rng.choice((0xA5, 0xA5, 0x55, 0xA6)), counter, off=start - len(b.code) - 1, imm=rng.choice((2, 3, 4, 7)))
    if rng.random() < 0.7:
        b.emit(MOV, 2, 10)
        b.emit(ADD_IMM, 2, imm=-64)
        b.emit(ADD, 2, rng.choice((counter, gathered)))
        b.emit(op.BPF_ST | op.BPF_MEM | op.BPF_B, 2, off=0, imm=1)
        b.became_pointer(2, "fp")


def record_across_call(b: Builder) -> None:
    """A ring buffer record reserved here, handed to a function at times, and released on some paths."""
    rng, keep = b.rng, _saved_register(b)
    b.save_ctx()
    b.load_map(1, "ring")
    b.emit(MOV_IMM, 2, imm=16)
    b.emit(MOV_IMM, 3, imm=0)
    b.emit(CALL, imm=131)
    b.clobber()
    b.emit(MOV, keep, 0)
    b.became_pointer(keep, "mem")
    b.emit(0x15, keep, off=rng.choice((0x4000, 3, 4)))
    for _ in range(rng.randrange(0, 3)):
        rng.choice((b.subprogram, b.packet_load, b.alu, b.jump, b.store, b.tail_call))()
    if rng.random() < 0.3:
        b.emit(op.BPF_STX | op.BPF_MEM | op.BPF_DW, 10, keep, -8)
        b.emit(op.BPF_LDX | op.BPF_MEM | op.BPF_DW, keep, 10, -8)
    b.emit(MOV, 1, keep)
    b.emit(MOV_IMM, 2, imm=0)
    b.emit(CALL, imm=rng.choice((132, 133)))
    b.clobber()
    b.pointers.pop(keep, None)


def with_context(b: Builder) -> None:
    """A call of a function with the context, a pointer to this frame and a scalar, as real programs have them."""
    if not b.with_calls:
        return
    rng = b.rng
    b.save_ctx()
    b.need_ctx(1)
    if rng.random() < 0.7:
        b.emit(op.BPF_ST | op.BPF_MEM | op.BPF_DW, 10, off=-16, imm=rng.choice((0, 3)))
        b.slots.add(-16)
        b.emit(MOV, 2, 10)
        b.emit(ADD_IMM, 2, imm=-16)
    else:
        b.emit(MOV, 2, b.scalar())
    b.calls.append(len(b.code))
    b.emit(CALL, src=1)
    b.clobber()
    b.became_scalar(0)


Piece = Callable[["Builder"], None]

ANYONE: tuple[tuple[Piece, int], ...] = ((linked, 4), (spilled_pointer, 4), (inner_map, 2), (loop_then_use, 2))
PIECES: tuple[tuple[Piece, int], ...] = (
    *ANYONE,
    *((var_stack, 4), (struct_field, 2), (slices, 2), (record_across_call, 1), (with_context, 4)),
)
"""All of them; without CAP_BPF those of ``ANYONE`` alone do not end the verification at once."""
