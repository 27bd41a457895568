"""LD_ABS and LD_IND: packet bytes in network order into R0. Where they may reach is ``packet.load``'s rule.

R6 must be the context. R1 to R5 are clobbered. A load outside the packet returns 0 from the function it stands in, as the exit
instruction would.
"""

from __future__ import annotations

from typing import Final

from netbpf.engine.interp.call_ops import exit_
from netbpf.engine.interp.machine import CLOBBERED, Op, Regs
from netbpf.engine.interp.memory import CTX_ADDRESS, Fault
from netbpf.engine.interp.site import Maker, Site
from netbpf.isa import opcodes as op
from netbpf.isa.opcodes import BPF_REG_0, BPF_REG_6, SIZE_BYTES
from netbpf.packet.load import load


def ld_abs(site: Site) -> Op:
    size, offset, next_pc = SIZE_BYTES[op.bpf_size(site.insn.code)], site.insn.imm, site.next_pc
    machine, leave = site.machine, exit_(site)

    def run(regs: Regs) -> int:
        check_r6(regs)
        value = load(machine.skb, offset, size)
        regs[1:6] = CLOBBERED
        regs[BPF_REG_0] = value or 0
        return leave(regs) if value is None else next_pc

    return run


def ld_ind(site: Site) -> Op:
    size, src, imm, next_pc = SIZE_BYTES[op.bpf_size(site.insn.code)], site.insn.src, site.insn.imm, site.next_pc
    machine, leave = site.machine, exit_(site)

    def run(regs: Regs) -> int:
        check_r6(regs)
        value = load(machine.skb, regs[src] + imm, size)
        regs[1:6] = CLOBBERED
        regs[BPF_REG_0] = value or 0
        return leave(regs) if value is None else next_pc

    return run


def check_r6(regs: Regs) -> None:
    """Raise Fault unless R6 is the context."""
    if regs[BPF_REG_6] != CTX_ADDRESS:
        raise Fault(f"a packet load needs the context in R6, which holds {regs[BPF_REG_6]:#x}", regs[BPF_REG_6])


def _makers() -> dict[int, Maker]:
    """Maker by code."""
    makers: dict[int, Maker] = {}
    for size in (op.BPF_B, op.BPF_H, op.BPF_W):
        makers[op.BPF_LD | op.BPF_ABS | size] = ld_abs
        makers[op.BPF_LD | op.BPF_IND | size] = ld_ind
    return makers


MAKERS: Final = _makers()
