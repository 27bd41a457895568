"""Instructions and checks around a packet program: constant loads, LD_ABS and LD_IND, and the value a program returns."""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.prog_types import PROG_TYPES, ProgType
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction, imm64
from netbpf.verifier import state as st
from netbpf.verifier.env import Reject, VerifierEnv
from netbpf.verifier.frames import clear_caller_saved_regs, retval_range_within, verbose_invalid_scalar
from netbpf.verifier.log import reg_type_str, verbose
from netbpf.verifier.memory import check_ptr_off_reg, is_pointer_value
from netbpf.verifier.precision import mark_chain_precision
from netbpf.verifier.refs import check_resource_leak, current
from netbpf.verifier.regs import DST_OP, SRC_OP, check_reg_arg, cur_regs, known_reg, unknown_reg
from netbpf.verifier.state import RegState, cur_func
from netbpf.verifier.structure import find_subprog

_MAP_VALUES: Final = frozenset({op.BPF_PSEUDO_MAP_VALUE, op.BPF_PSEUDO_MAP_IDX_VALUE})
_ABS_OR_IND: Final = "BPF_LD_[ABS|IND]"


def _refuse(env: VerifierEnv, text: str, error: int = errno.EINVAL) -> Reject:
    verbose(env, text)
    return Reject(error)


# --- LD_IMM64 -----------------------------------------------------------------------------------------------------------


def _func_pointer(env: VerifierEnv, insn: Instruction) -> RegState:
    subprog = find_subprog(env, env.insn_idx + insn.imm + 1)
    if not env.request.func_info:
        raise _refuse(env, "missing btf func_info\n")
    if env.subprogs[subprog].is_global:
        raise _refuse(env, "callback function not static\n")
    reg = known_reg(0, not env.bpf_capable).copy()
    reg.type, reg.subprogno = st.PTR_TO_FUNC, subprog
    return reg


def _map_pointer(env: VerifierEnv, insn: Instruction) -> RegState:
    aux = env.insn_aux[env.insn_idx]
    reg = known_reg(0, not env.bpf_capable).copy()
    reg.map_ptr = env.maps[aux.map_index]
    if insn.src in _MAP_VALUES:
        reg.type, reg.off = st.PTR_TO_MAP_VALUE, aux.map_off
    else:
        reg.type = st.CONST_PTR_TO_MAP
    return reg


def check_ld_imm(env: VerifierEnv, insn: Instruction) -> None:
    """LD_IMM64: a number, a map, an address in a map's value, or a function."""
    if insn.code & 0x18 != op.BPF_DW:
        raise _refuse(env, "invalid BPF_LD_IMM insn\n")
    if insn.off:
        raise _refuse(env, "BPF_LD_IMM64 uses reserved fields\n")
    check_reg_arg(env, insn.dst, DST_OP)
    if insn.src == 0:
        reg = known_reg(imm64(insn, env.insns[env.insn_idx + 1]), not env.bpf_capable)
    elif insn.src == op.BPF_PSEUDO_FUNC:
        reg = _func_pointer(env, insn)
    else:
        reg = _map_pointer(env, insn)
    cur_regs(env)[insn.dst] = reg


# --- LD_ABS, LD_IND -----------------------------------------------------------------------------------------------------


def check_ld_abs(env: VerifierEnv, insn: Instruction) -> None:
    """A packet load that ends the program with 0 where the packet is too short: R6 is the context, R1 to R5 are lost."""
    row = PROG_TYPES.get(env.prog_type)
    if row is None or not row.may_load_abs:
        raise _refuse(env, f"{_ABS_OR_IND} instructions not allowed for this program type\n")
    indirect = insn.code & 0xE0 == op.BPF_IND
    if insn.dst or insn.off or insn.code & 0x18 == op.BPF_DW or (not indirect and insn.src):
        raise _refuse(env, f"{_ABS_OR_IND} uses reserved fields\n")
    check_reg_arg(env, op.BPF_REG_6, SRC_OP)
    check_resource_leak(env, False, True, _ABS_OR_IND)
    regs = cur_regs(env)
    if regs[op.BPF_REG_6].type != st.PTR_TO_CTX:
        raise _refuse(env, "at the time of BPF_LD_ABS|IND R6 != pointer to skb\n")
    if indirect:
        check_reg_arg(env, insn.src, SRC_OP)
    check_ptr_off_reg(env, regs[op.BPF_REG_6], op.BPF_REG_6)
    clear_caller_saved_regs(env, regs)
    regs[0] = unknown_reg(env)


# --- return values ------------------------------------------------------------------------------------------------------


def _allowed_returns(env: VerifierEnv) -> tuple[int, int] | None:
    """What the program type may return; None for anything."""
    if env.prog_type == ProgType.CGROUP_SKB:
        return (0, 3) if env.request.expected_attach_type == 1 else (0, 1)
    return None


def check_return_code(env: VerifierEnv, regno: int, reg_name: str) -> None:
    """The program, a global function or an asynchronous callback ends with ``regno`` as its value."""
    check_reg_arg(env, regno, SRC_OP)
    if is_pointer_value(env, regno):
        raise _refuse(env, f"R{regno} leaks addr as return value\n", errno.EACCES)
    state = current(env)
    frame, reg = cur_func(state), cur_regs(env)[regno]
    if frame.in_async_callback_fn:
        _enforce_range(env, regno, reg_name, "At async callback return", frame.callback_ret_range)
    elif frame.subprogno:
        if reg.type != st.SCALAR_VALUE:
            kind = reg_type_str(env, reg.type)
            raise _refuse(env, f"At subprogram exit the register R{regno} is not a scalar value ({kind})\n")
    else:
        allowed = _allowed_returns(env)
        if allowed is not None:
            _enforce_range(env, regno, reg_name, "At program exit", allowed)


def _enforce_range(env: VerifierEnv, regno: int, reg_name: str, ctx: str, allowed: tuple[int, int]) -> None:
    regs = cur_regs(env)
    if regs[regno].type != st.SCALAR_VALUE:
        kind = reg_type_str(env, regs[regno].type)
        raise _refuse(env, f"{ctx} the register R{regno} is not a known value ({kind})\n")
    mark_chain_precision(env, regno)
    if not retval_range_within(allowed, regs[regno], False):
        verbose_invalid_scalar(env, regs[regno], allowed, ctx, reg_name)
        raise Reject(errno.EINVAL)
