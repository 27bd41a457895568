"""What instructions are and which function each belongs to: predicates, subprograms, and where jumps may go.

The ``check_*`` and ``add_*`` functions are called by ``check`` in the kernel's order, each with the kernel's words and errno.
"""

from __future__ import annotations

import bisect
import errno
from typing import Final

from netbpf.errors import ENOTSUPP
from netbpf.ints import s32
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import (
    BPF_CALL,
    BPF_EXIT,
    BPF_JA,
    BPF_JCOND,
    BPF_JMP,
    BPF_JMP32,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_KFUNC_CALL,
)
from netbpf.verifier.env import BPF_LOG_LEVEL2, BPF_MAX_SUBPROGS, Reject, SubprogInfo, VerifierEnv
from netbpf.verifier.log import verbose

CALL_CODE: Final = BPF_JMP | BPF_CALL
EXIT_CODE: Final = BPF_JMP | BPF_EXIT
LD_IMM64: Final = op.BPF_LD | op.BPF_IMM | op.BPF_DW

FUNC_tail_call: Final = 12
# helpers that run a function of the program before they return: for_each_map_elem, find_vma, loop, user_ringbuf_drain
SYNC_CALLBACK_HELPERS: Final = frozenset({164, 180, 181, 209})
ASYNC_CALLBACK_HELPERS: Final = frozenset({170})  # timer_set_callback


def is_helper_call(insn: Instruction) -> bool:
    return insn.code == CALL_CODE and insn.src == 0


def is_pseudo_call(insn: Instruction) -> bool:
    return insn.code == CALL_CODE and insn.src == BPF_PSEUDO_CALL


def is_pseudo_func(insn: Instruction) -> bool:
    return insn.code == LD_IMM64 and insn.src == BPF_PSEUDO_FUNC


def is_sync_callback_calling_insn(insn: Instruction) -> bool:
    return insn.imm in SYNC_CALLBACK_HELPERS and is_helper_call(insn)


def is_async_callback_calling_insn(insn: Instruction) -> bool:
    return insn.imm in ASYNC_CALLBACK_HELPERS and is_helper_call(insn)


def is_may_goto_insn(insn: Instruction) -> bool:
    return insn.code == BPF_JMP | BPF_JCOND and insn.src == 0


# --- subprograms -----------------------------------------------------------------------------------------------------


def find_subprog(env: VerifierEnv, off: int) -> int:
    """The subprogram that starts at ``off``, or -1."""
    for i, subprog in enumerate(env.subprogs):
        if subprog.start == off:
            return i
    return -1


def find_containing_subprog(env: VerifierEnv, insn_idx: int) -> int:
    """The subprogram that ``insn_idx`` belongs to."""
    return bisect.bisect_right([s.start for s in env.subprogs], insn_idx) - 1


def subprog_end(env: VerifierEnv, subprog: int) -> int:
    """One past the last instruction of a subprogram."""
    return env.subprogs[subprog + 1].start if subprog + 1 < len(env.subprogs) else len(env.insns)


def add_subprog(env: VerifierEnv, off: int) -> None:
    """A function starts at ``off``. Raises Reject EINVAL outside the program, E2BIG over 256 functions."""
    if off < 0 or off >= len(env.insns):
        verbose(env, "call to invalid destination\n")
        raise Reject(errno.EINVAL)
    if find_subprog(env, off) >= 0:
        return
    if len(env.subprogs) >= BPF_MAX_SUBPROGS:
        verbose(env, "too many subprograms\n")
        raise Reject(errno.E2BIG)
    env.subprogs.append(SubprogInfo(off))
    env.subprogs.sort(key=lambda s: s.start)


def add_kfunc_call(env: VerifierEnv, insn: Instruction) -> None:
    """Kernel functions need the kernel's own BTF, which a simulator has not: refused as by a kernel built without it.

    Number 0 is what a loader writes where the kernel has no such function: it is left to be found dead.
    """
    if not env.request.license_gpl:
        verbose(env, "cannot call kernel function from non-GPL compatible program\n")
        raise Reject(errno.EINVAL)
    if insn.imm == 0 and insn.off == 0:
        return
    if insn.off and not env.request.fd_array and not env.request.fd_array_maps:
        negative = insn.off < 0
        what = "negative offset disallowed for kernel module function call" if negative else _OFFSET_WITHOUT_FDS
        verbose(env, f"{what}\nfailed to find BTF for kernel function\n")
        raise Reject(errno.EINVAL if negative else errno.EPROTO)
    verbose(env, "calling kernel function is not supported without CONFIG_DEBUG_INFO_BTF\n")
    raise Reject(ENOTSUPP)


_OFFSET_WITHOUT_FDS: Final = "kfunc offset > 0 without fd_array is invalid"


def check_kfunc_calls(env: VerifierEnv) -> None:
    """After the walk: a call of kernel function 0 may stand in dead code only."""
    for insn, aux in zip(env.insns, env.insn_aux, strict=True):
        if aux.seen and insn.code == CALL_CODE and insn.src == BPF_PSEUDO_KFUNC_CALL:
            verbose(env, "invalid kernel function call not eliminated in verifier pass\n")
            raise Reject(errno.EINVAL)


def add_subprog_and_kfunc(env: VerifierEnv) -> None:
    """Find where functions start: instruction 0, the target of every call, every function whose address is taken."""
    add_subprog(env, 0)
    for i, insn in enumerate(env.insns):
        is_func = is_pseudo_call(insn) or is_pseudo_func(insn)
        if not is_func and not (insn.code == CALL_CODE and insn.src == BPF_PSEUDO_KFUNC_CALL):
            continue
        if not env.bpf_capable:
            verbose(env, "loading/calling other bpf or kernel functions are allowed for CAP_BPF and CAP_SYS_ADMIN\n")
            raise Reject(errno.EPERM)
        if is_func:
            add_subprog(env, i + insn.imm + 1)
        else:
            add_kfunc_call(env, insn)
    if env.log_level & BPF_LOG_LEVEL2:
        for i, subprog in enumerate(env.subprogs):
            verbose(env, f"func#{i} @{subprog.start}\n")


def jmp_offset(insn: Instruction) -> int:
    """Slots a jump goes, from the one after it: in ``imm`` for gotol, else in ``off``."""
    return insn.imm if insn.code == BPF_JMP32 | BPF_JA else insn.off


def _check_insn_of_subprog(env: VerifierEnv, i: int, insn: Instruction, subprog: SubprogInfo, end: int) -> None:
    code = insn.code
    if is_helper_call(insn) and insn.imm == FUNC_tail_call:
        subprog.has_tail_call = subprog.tail_call_reachable = True
    if code & 7 == op.BPF_LD and code & 0xE0 in (op.BPF_ABS, op.BPF_IND):
        subprog.has_ld_abs = True
    if code & 7 not in (BPF_JMP, BPF_JMP32) or code & 0xF0 in (BPF_CALL, BPF_EXIT):
        return
    target = s32(i + jmp_offset(insn) + 1)
    if not subprog.start <= target < end:
        verbose(env, f"jump out of range from insn {i} to {target}\n")
        raise Reject(errno.EINVAL)


def check_subprogs(env: VerifierEnv) -> None:
    """Jumps stay within their function, and no function runs into the next."""
    for number, subprog in enumerate(env.subprogs):
        end = subprog_end(env, number)
        for i in range(subprog.start, end):
            _check_insn_of_subprog(env, i, env.insns[i], subprog, end)
        if env.insns[end - 1].code not in (EXIT_CODE, BPF_JMP32 | BPF_JA, BPF_JMP | BPF_JA):
            verbose(env, "last insn is not an exit or jmp\n")
            raise Reject(errno.EINVAL)
