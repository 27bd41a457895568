"""STX | ATOMIC: read-modify-write in one step, compare and exchange, load-acquire and store-release.

One program runs at a time here, so every access is atomic and ordered as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import add, and_, or_, xor
from typing import Final

from netbpf.engine.interp.machine import Machine, Op, Regs
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


def _modify(site: Site) -> Op:
    """*(size *)(dst + off) OP= src; with BPF_FETCH src becomes what was there before."""
    dst, src, off, next_pc = site.insn.dst, site.insn.src, site.insn.off, site.next_pc
    size, fetch, machine = SIZE_BYTES[op.bpf_size(site.insn.code)], site.insn.imm & op.BPF_FETCH, site.machine
    apply, mask = MODIFY[site.insn.imm & ~op.BPF_FETCH], SIZE_MASK[size]
    unpack, pack, buffers = UINT[size].unpack_from, UINT[size].pack_into, site.machine.memory.buffers

    def run(regs: Regs) -> int:
        address = regs[dst] + off
        try:
            view, at = buffers[address >> NUMBER_SHIFT], address & OFFSET_MASK
            old = unpack(view, at)[0]
            pack(view, at, apply(old, regs[src]) & mask)
        except ACCESS_ERRORS:
            view, at = locate(machine, address, size)
            old = unpack(view, at)[0]
            pack(view, at, apply(old, regs[src]) & mask)
        if fetch:
            regs[src] = old
        return next_pc

    return run


def _compare_exchange(site: Site) -> Op:
    """If *(size *)(dst + off) is R0, src takes its place; R0 becomes what was there before."""
    dst, src, off, next_pc = site.insn.dst, site.insn.src, site.insn.off, site.next_pc
    size, machine = SIZE_BYTES[op.bpf_size(site.insn.code)], site.machine
    unpack, pack, mask = UINT[size].unpack_from, UINT[size].pack_into, SIZE_MASK[size]

    def run(regs: Regs) -> int:
        view, at = locate(machine, regs[dst] + off, size)
        old = unpack(view, at)[0]
        if old == regs[BPF_REG_0] & mask:
            pack(view, at, regs[src] & mask)
        regs[BPF_REG_0] = old
        return next_pc

    return run


def locate(machine: Machine, address: int, size: int) -> tuple[memoryview, int]:
    """The bytes to change, looked for the slow way. Raises Fault."""
    return machine.memory.buffer(u64(address), size, "atomic access")


def _makers() -> dict[int, Maker]:
    """Maker by code. Bytes and half-words are only for load-acquire and store-release."""
    return {op.BPF_STX | op.BPF_ATOMIC | size: atomic for size in SIZE_BYTES}


MAKERS: Final = _makers()
