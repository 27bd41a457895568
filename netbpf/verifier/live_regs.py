"""Which registers may still be read from an instruction on: a backwards fixpoint over each function, before the walk."""

from __future__ import annotations

from typing import Final

from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction
from netbpf.verifier.env import BPF_LOG_LEVEL2, VerifierEnv
from netbpf.verifier.log import verbose, verbose_insn
from netbpf.verifier.structure import LD_IMM64, is_helper_call

ALL_REGS: Final = 0xFFFF
CALLER_SAVED: Final = 0x3F  # r0-r5
ARGS: Final = 0x3E
R0: Final = 1


def _atomic_live_regs(insn: Instruction, dst: int, src: int) -> tuple[int, int]:
    if insn.imm == op.BPF_CMPXCHG:
        return R0 | dst | src, R0
    if insn.imm == op.BPF_LOAD_ACQ:
        return src, dst
    if insn.imm == op.BPF_STORE_REL:
        return dst | src, 0
    return dst | src, src if insn.imm & op.BPF_FETCH else 0


def _call_live_regs(env: VerifierEnv, insn: Instruction) -> tuple[int, int]:
    """A helper reads its arguments; one that this program does not get, and any other call, all five."""
    from netbpf.verifier.calls import get_helper_proto

    if is_helper_call(insn):
        proto = get_helper_proto(env, insn.imm)
        if proto is not None:
            return ((1 << len(proto.args)) - 1) << 1, CALLER_SAVED
    return ARGS, CALLER_SAVED


def insn_live_regs(env: VerifierEnv, insn: Instruction) -> tuple[int, int]:
    """(registers an instruction reads, registers it overwrites) as bit masks."""
    dst, src = 1 << insn.dst, 1 << insn.src
    code = insn.code
    cls, mode, kind = code & 7, code & 0xE0, code & 0xF0
    operands = dst | src if code & op.BPF_X else dst
    if cls == op.BPF_ALU64 or cls == op.BPF_ALU:
        if kind == op.BPF_END:
            return dst, dst
        if kind == op.BPF_MOV:
            return src if code & op.BPF_X else 0, dst
        return operands, dst
    if cls == op.BPF_JMP or cls == op.BPF_JMP32:
        if kind in (op.BPF_JA, op.BPF_JCOND):
            return 0, 0
        if kind == op.BPF_EXIT:
            return R0, 0
        return _call_live_regs(env, insn) if kind == op.BPF_CALL else (operands, 0)
    if cls == op.BPF_LD:
        return (0, dst) if code == LD_IMM64 else (ALL_REGS, 0)
    if cls == op.BPF_LDX:
        return src, dst
    if cls == op.BPF_ST:
        return dst, 0
    return _atomic_live_regs(insn, dst, src) if mode == op.BPF_ATOMIC else (dst | src, 0)


def compute_live_registers(env: VerifierEnv) -> None:
    """InsnAux.live_regs_before of every instruction; printed at level 2."""
    insns, successors = env.insns, env.successors
    effects = [insn_live_regs(env, insn) for insn in insns]
    live = [0] * (len(insns) + 1)
    changed = True
    while changed:
        changed = False
        for i in env.postorder:
            use, define = effects[i]
            after = 0
            for s in successors[i]:
                after |= live[s]
            before = (after & ~define) | use
            if before != live[i]:
                live[i], changed = before, True
    for aux, mask in zip(env.insn_aux, live, strict=False):
        aux.live_regs_before = mask
    if env.log_level & BPF_LOG_LEVEL2:
        _print_live_registers(env)


def _print_live_registers(env: VerifierEnv) -> None:
    verbose(env, "Live regs before insn:\n")
    i = 0
    while i < len(env.insns):
        aux = env.insn_aux[i]
        scc = f"{aux.scc:3d} " if aux.scc else "    "
        registers = "".join(str(r) if aux.live_regs_before >> r & 1 else "." for r in range(10))
        verbose(env, f"{scc}{i:3d}: {registers} ")
        verbose_insn(env, i)
        i += 2 if env.insns[i].code == LD_IMM64 else 1
