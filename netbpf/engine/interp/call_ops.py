"""Calls of helpers, of subprograms and through a register; tail calls; exit; LD_IMM64.

What a helper does is in ``helpers``: a body is called with the machine and R1 to R5, and returns R0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netbpf.engine.base import UnsupportedProgram
from netbpf.engine.interp.alu import constant
from netbpf.engine.interp.machine import CLOBBERED, END_OF_RUN, Op, Regs
from netbpf.engine.interp.memory import CODE_ADDRESS, CODE_NUMBER, NUMBER_SHIFT, Fault
from netbpf.engine.interp.site import Maker, Site
from netbpf.ints import U64_MAX, u32, u64
from netbpf.isa import opcodes as op
from netbpf.isa.opcodes import BPF_REG_0

if TYPE_CHECKING:
    from netbpf.engine.interp.helpers import Body
    from netbpf.maps.base import Map

TAIL_CALL: Final = 12  # bpf_tail_call


# --- call -------------------------------------------------------------------------------------------------------------
def call(site: Site) -> Op:
    """The kind of call is in src."""
    if site.insn.src == op.BPF_PSEUDO_CALL:
        return _call_subprog(site)
    if site.insn.src == op.BPF_PSEUDO_KFUNC_CALL:
        raise UnsupportedProgram(f"kernel function #{site.insn.imm} has no body in this engine")
    return _tail_call(site) if site.insn.imm == TAIL_CALL else _call_helper(site)


def _call_helper(site: Site) -> Op:
    machine, next_pc = site.machine, site.next_pc
    body = helper_body(site.insn.imm)

    def run(regs: Regs) -> int:
        regs[BPF_REG_0] = body(machine, regs[1], regs[2], regs[3], regs[4], regs[5]) & U64_MAX
        regs[1:6] = CLOBBERED
        return next_pc

    return run


def _call_subprog(site: Site) -> Op:
    enter, next_pc, taken = site.machine.enter, site.next_pc, site.target(site.insn.imm)

    def run(regs: Regs) -> int:
        enter(next_pc)
        return taken

    return run


def _tail_call(site: Site) -> Op:
    """R1 the context, R2 a program array, R3 an index: on success the other program goes on in this frame, else the next pc."""
    machine, next_pc = site.machine, site.next_pc

    def run(regs: Regs) -> int:
        taken = machine.tail_call(regs[2], u32(regs[3]))
        if taken < 0:
            regs[1:6] = CLOBBERED
            return next_pc
        return taken

    return run


def call_register(site: Site) -> Op:
    """Call what the register holds: the address of a subprogram, or the number of a helper."""
    machine, reg, next_pc = site.machine, site.insn.dst, site.next_pc

    def run(regs: Regs) -> int:
        callee = regs[reg]
        if callee >> NUMBER_SHIFT == CODE_NUMBER:
            taken = machine.code_at(callee)
            machine.enter(next_pc)
            return taken
        try:
            body = helper_body(callee)
        except UnsupportedProgram as refusal:
            raise Fault(str(refusal), callee) from None
        regs[BPF_REG_0] = body(machine, regs[1], regs[2], regs[3], regs[4], regs[5]) & U64_MAX
        regs[1:6] = CLOBBERED
        return next_pc

    return run


def helper_body(func_id: int) -> Body:
    """What the helper does. Raises UnsupportedProgram with its name when nothing here does it."""
    from netbpf.abi.helpers import HELPERS  # only programs with calls pay for these tables
    from netbpf.engine.interp.helpers import BODIES

    body = BODIES.get(func_id)
    if body is None:
        name = HELPERS[func_id].func_name if func_id in HELPERS else "unknown"
        raise UnsupportedProgram(f"helper {name}#{func_id} has no body in this engine")
    return body


# --- exit -------------------------------------------------------------------------------------------------------------
def exit_(site: Site) -> Op:
    """Back to the caller with its R6 to R10; from the first frame, the end of the run."""
    frames = site.machine.frames

    def run(regs: Regs) -> int:
        if not frames:
            return END_OF_RUN
        pc, regs[6], regs[7], regs[8], regs[9], regs[10] = frames.pop()
        return pc

    return run


# --- dst = 64-bit immediate -------------------------------------------------------------------------------------------
def ld_imm64(site: Site) -> Op:
    """What the immediate names is in src."""
    return constant(site, _imm64_value(site), site.next_pc + 1)


def _imm64_value(site: Site) -> int:
    insn, machine = site.insn, site.machine
    match insn.src:
        case 0:
            return site.imm64
        case op.BPF_PSEUDO_MAP_IDX:
            return machine.handle(_map_of(site)).address
        case op.BPF_PSEUDO_MAP_IDX_VALUE:
            window = machine.handle(_map_of(site)).window
            first = window.map.lookup(bytes(window.key_size))
            return u64(machine.memory.value(window, first) + u32(site.imm64 >> 32))
        case op.BPF_PSEUDO_FUNC:
            return CODE_ADDRESS + site.target(insn.imm)
    raise UnsupportedProgram(f"pseudo source {insn.src} of LD_IMM64 has no meaning in this engine")


def _map_of(site: Site) -> Map:
    """The declared map an instruction names by number; a program that no verifier saw may name one that is not there."""
    number, maps = site.insn.imm, site.program.maps
    if not 0 <= number < len(maps):
        raise UnsupportedProgram(f"LD_IMM64 names map {number}, and {len(maps)} are declared")
    return maps[number]


MAKERS: Final[dict[int, Maker]] = {
    op.BPF_JMP | op.BPF_CALL: call,
    op.BPF_JMP | op.BPF_CALL | op.BPF_X: call_register,
    op.BPF_JMP | op.BPF_EXIT: exit_,
    op.BPF_LD | op.BPF_IMM | op.BPF_DW: ld_imm64,
}
