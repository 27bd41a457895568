"""LDX, LDX with sign extension, ST, STX: loads and stores of 1, 2, 4, 8 bytes.

Three ways to the same bytes, the first that fits: through R10 at a constant, aligned offset the frame is found by R10 itself;
where the proof found a context pointer the field is read; anything else goes through ``AddressSpace.buffers``, where an address
without a region, or too near its end, raises and is looked at again in the slow way, which explains the fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from netbpf.engine.interp.machine import Op, Regs
from netbpf.engine.interp.memory import ACCESS_ERRORS, CTX_ADDRESS, NUMBER_SHIFT, OFFSET_MASK, SIZE_MASK, UINT, Fault
from netbpf.engine.interp.site import Maker, Site
from netbpf.ints import U64_MAX
from netbpf.isa import opcodes as op
from netbpf.isa.opcodes import BPF_REG_FP, MAX_BPF_STACK, SIZE_BYTES

Unpack = Callable[[Any, int], tuple[int, ...]]


# --- dst = *(size *)(src + off) ---------------------------------------------------------------------------------------
def load(site: Site) -> Op:
    size = SIZE_BYTES[op.bpf_size(site.insn.code)]
    if is_frame_access(site.insn.src, site.insn.off, size):
        return _load_frame(site, size)
    if site.facts is not None and site.facts.ptr == "ctx":
        return _load_context(site, size)
    return _load_anywhere(site, size)


def _load_anywhere(site: Site, size: int) -> Op:
    untrusted = site.facts is not None and site.facts.ptr == "untrusted"
    return _load_probing(site, size) if untrusted else _load_memory(site, UINT[size].unpack_from, size)


def load_signed(site: Site) -> Op:
    """Sign-extended to 64 bits."""
    size = SIZE_BYTES[op.bpf_size(site.insn.code)]
    dst, next_pc = site.insn.dst, site.next_pc
    unsigned, sign = _load_anywhere(site, size), 1 << (8 * size - 1)

    def run(regs: Regs) -> int:
        unsigned(regs)
        regs[dst] = ((regs[dst] ^ sign) - sign) & U64_MAX
        return next_pc

    return run


def _load_memory(site: Site, unpack: Unpack, size: int) -> Op:
    dst, src, off, next_pc = site.insn.dst, site.insn.src, site.insn.off, site.next_pc
    buffers, slow = site.machine.memory.buffers, site.machine.load

    def run(regs: Regs) -> int:
        address = regs[src] + off
        try:
            regs[dst] = unpack(buffers[address >> NUMBER_SHIFT], address & OFFSET_MASK)[0]
        except ACCESS_ERRORS:
            regs[dst] = slow(address, size)
        return next_pc

    return run


def _load_probing(site: Site, size: int) -> Op:
    """Through a pointer of which nothing is proved: 0 where nothing lies, as the kernel's fault handler gives."""
    dst, src, off, next_pc, slow = site.insn.dst, site.insn.src, site.insn.off, site.next_pc, site.machine.load

    def run(regs: Regs) -> int:
        try:
            regs[dst] = slow(regs[src] + off, size)
        except Fault:
            regs[dst] = 0
        return next_pc

    return run


def _load_frame(site: Site, size: int) -> Op:
    dst, at, next_pc = site.insn.dst, (MAX_BPF_STACK + site.insn.off) // size, site.next_pc
    frames = site.machine.frame_views[size]

    def run(regs: Regs) -> int:
        regs[dst] = frames[regs[BPF_REG_FP]][at]
        return next_pc

    return run


def _load_context(site: Site, size: int) -> Op:
    dst, src, off, next_pc = site.insn.dst, site.insn.src, site.insn.off, site.next_pc
    machine, slow = site.machine, site.machine.load
    read = machine.context.reader(off, size)

    def run(regs: Regs) -> int:
        address = regs[src]
        regs[dst] = read(machine.skb) if address == CTX_ADDRESS else slow(address + off, size)
        return next_pc

    return run


# --- *(size *)(dst + off) = src, = imm ----------------------------------------------------------------------------------
def store_x(site: Site) -> Op:
    size = SIZE_BYTES[op.bpf_size(site.insn.code)]
    dst, src, off, next_pc = site.insn.dst, site.insn.src, site.insn.off, site.next_pc
    if is_frame_access(dst, off, size):
        return _store_frame(site, size)
    pack, mask = UINT[size].pack_into, SIZE_MASK[size]
    buffers, slow = site.machine.memory.buffers, site.machine.store

    def run(regs: Regs) -> int:
        address = regs[dst] + off
        try:
            pack(buffers[address >> NUMBER_SHIFT], address & OFFSET_MASK, regs[src] & mask)
        except ACCESS_ERRORS:
            slow(address, size, regs[src])
        return next_pc

    return run


def _store_frame(site: Site, size: int) -> Op:
    src, at, next_pc = site.insn.src, (MAX_BPF_STACK + site.insn.off) // size, site.next_pc
    frames, mask = site.machine.frame_views[size], SIZE_MASK[size]

    def run(regs: Regs) -> int:
        frames[regs[BPF_REG_FP]][at] = regs[src] & mask
        return next_pc

    def run_whole(regs: Regs) -> int:
        frames[regs[BPF_REG_FP]][at] = regs[src]
        return next_pc

    return run_whole if size == 8 else run


def store_k(site: Site) -> Op:
    size = SIZE_BYTES[op.bpf_size(site.insn.code)]
    dst, off, value, next_pc = site.insn.dst, site.insn.off, site.insn.imm & SIZE_MASK[size], site.next_pc
    if is_frame_access(dst, off, size):
        at, frames = (MAX_BPF_STACK + off) // size, site.machine.frame_views[size]

        def run_frame(regs: Regs) -> int:
            frames[regs[BPF_REG_FP]][at] = value
            return next_pc

        return run_frame
    pack, buffers, slow = UINT[size].pack_into, site.machine.memory.buffers, site.machine.store

    def run(regs: Regs) -> int:
        address = regs[dst] + off
        try:
            pack(buffers[address >> NUMBER_SHIFT], address & OFFSET_MASK, value)
        except ACCESS_ERRORS:
            slow(address, size, value)
        return next_pc

    return run


# --- shared -------------------------------------------------------------------------------------------------------------
def is_frame_access(base: int, off: int, size: int) -> bool:
    """Whether ``R10 + off`` is an aligned place in the current frame for certain."""
    return base == BPF_REG_FP and -MAX_BPF_STACK <= off <= -size and not off % size


def _makers() -> dict[int, Maker]:
    """Maker by code."""
    makers: dict[int, Maker] = {}
    for size in SIZE_BYTES:
        makers[op.BPF_LDX | op.BPF_MEM | size] = load
        makers[op.BPF_STX | op.BPF_MEM | size] = store_x
        makers[op.BPF_ST | op.BPF_MEM | size] = store_k
        if size != op.BPF_DW:
            makers[op.BPF_LDX | op.BPF_MEMSX | size] = load_signed
    return makers


MAKERS: Final = _makers()
