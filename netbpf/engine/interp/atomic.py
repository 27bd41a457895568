"""STX | ATOMIC: read-modify-write in one step, compare and exchange, load-acquire and store-release.

One program runs at a time here, so every access is atomic and ordered as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import add, and_, or_, xor
from typing import Final

from netbpf.engine.interp.machine import Op, Regs
from netbpf.engine.interp.memory import ACCESS_ERRORS, NUMBER_SHIFT, OFFSET_MASK, SIZE_MASK, UINT
from netbpf.engine.interp.memory_ops import load, store_x
from netbpf.engine.interp.site import Maker, Site
from netbpf.ints import u64
from netbpf.isa import opcodes as op
from netbpf.isa.opcodes import BPF_REG_0, SIZE_BYTES

Binary = Callable[[int, int], int]


def exchange(old: int, new: int) -> int:
    """BPF_XCHG as a function of both values."""
    return new


MODIFY: Final[dict[int, Binary]] = {
    op.BPF_ADD: add,
    op.BPF_AND: and_,
    op.BPF_OR: or_,
    op.BPF_XOR: xor,
    op.BPF_XCHG & ~op.BPF_FETCH: exchange,
}


def atomic(site: Site) -> Op:
    """The kind of atomic operation is in imm."""
    kind = site.insn.imm
    if kind == op.BPF_LOAD_ACQ:
        return load(site)
    if kind == op.BPF_STORE_REL:
        return store_x(site)
    return _compare_exchange(site) if kind == op.BPF_CMPXCHG else _modify(site)


Touch = Callable[[memoryview, int, Regs], None]


def _modify(site: Site) -> Op:
    """*(size *)(dst + off) OP= src; with BPF_FETCH src becomes what was there before."""
    src, size, fetch = site.insn.src, SIZE_BYTES[op.bpf_size(site.insn.code)], site.insn.imm & op.BPF_FETCH
    apply, mask = MODIFY[site.insn.imm & ~op.BPF_FETCH], SIZE_MASK[size]
    unpack, pack = UINT[size].unpack_from, UINT[size].pack_into

    def touch(view: memoryview, at: int, regs: Regs) -> None:
        old = unpack(view, at)[0]
        pack(view, at, apply(old, regs[src]) & mask)
        if fetch:
            regs[src] = old

    return _at_address(site, size, touch)


def _compare_exchange(site: Site) -> Op:
    """If *(size *)(dst + off) is R0, src takes its place; R0 becomes what was there before."""
    src, size = site.insn.src, SIZE_BYTES[op.bpf_size(site.insn.code)]
    unpack, pack, mask = UINT[size].unpack_from, UINT[size].pack_into, SIZE_MASK[size]

    def touch(view: memoryview, at: int, regs: Regs) -> None:
        old = unpack(view, at)[0]
        pack(view, at, (regs[src] if old == regs[BPF_REG_0] & mask else old) & mask)
        regs[BPF_REG_0] = old

    return _at_address(site, size, touch)


def _at_address(site: Site, size: int, touch: Touch) -> Op:
    """Find the bytes at dst + off, as ``memory_ops`` does, and ``touch`` them."""
    dst, off, next_pc = site.insn.dst, site.insn.off, site.next_pc
    buffers, locate = site.machine.memory.buffers, site.machine.memory.buffer

    def run(regs: Regs) -> int:
        address = regs[dst] + off
        try:
            touch(buffers[address >> NUMBER_SHIFT], address & OFFSET_MASK, regs)
        except ACCESS_ERRORS:
            touch(*locate(u64(address), size, "atomic access"), regs)
        return next_pc

    return run


def _makers() -> dict[int, Maker]:
    """Maker by code. Bytes and half-words are only for load-acquire and store-release."""
    return {op.BPF_STX | op.BPF_ATOMIC | size: atomic for size in SIZE_BYTES}


MAKERS: Final = _makers()


def is_atomic_kind(kind: int, size: int) -> bool:
    """Whether ``imm`` names an atomic operation on ``size`` bytes."""
    if kind in (op.BPF_LOAD_ACQ, op.BPF_STORE_REL):
        return True
    return size >= 4 and (kind == op.BPF_CMPXCHG or (kind != op.BPF_XCHG & ~op.BPF_FETCH and kind & ~op.BPF_FETCH in MODIFY))
