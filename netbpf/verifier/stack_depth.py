"""No chain of calls needs more stack than there is (check_max_stack_depth)."""

from __future__ import annotations

import errno
from typing import Final

from netbpf.ints import round_up
from netbpf.isa.instruction import Instruction
from netbpf.verifier.env import Reject, VerifierEnv
from netbpf.verifier.log import verbose
from netbpf.verifier.structure import find_subprog, is_may_goto_insn, is_pseudo_call, is_pseudo_func, subprog_end

MAX_STACK_DEPTH: Final = 512
MAX_TAIL_CALL_STACK: Final = 256
MAX_CALL_FRAMES: Final = 8


def _callee(env: VerifierEnv, i: int, insn: Instruction) -> int:
    """The subprogram that instruction ``i`` calls or makes a callback of, or -1."""
    if not is_pseudo_call(insn) and not is_pseudo_func(insn):
        return -1
    return find_subprog(env, i + insn.imm + 1)


def check_max_stack_depth(env: VerifierEnv) -> None:
    """No chain of calls needs more than 512 bytes of stack or 8 frames."""
    _check_depth_from(env, 0)
    for i in range(1, len(env.subprogs)):
        if env.subprogs[i].is_async_cb:
            _check_depth_from(env, i)


def _round_up_stack_depth(depth: int) -> int:
    return round_up(depth, 16)  # the native code's granularity


def _check_depth_from(env: VerifierEnv, root: int) -> None:
    """Walk the call graph from ``root`` depth first, adding up frames."""
    chain: list[tuple[int, int]] = []  # (subprogram, instruction to go on from) of the callers
    subprog, i, depth, tail_call_reachable = root, env.subprogs[root].start, 0, False
    depth = _enter_frame(env, subprog, depth, chain)
    while True:
        end = subprog_end(env, subprog)
        callee = -1
        while i < end:
            callee = _next_callee(env, i, subprog)
            if callee >= 0:
                break
            i += 1
        if callee >= 0:
            chain.append((subprog, i + 1))
            if len(chain) >= MAX_CALL_FRAMES:
                verbose(env, f"the call stack of {len(chain)} frames is too deep !\n")
                raise Reject(errno.E2BIG)
            tail_call_reachable |= env.subprogs[callee].has_tail_call
            subprog, i = callee, env.subprogs[callee].start
            depth = _enter_frame(env, subprog, depth, chain)
            continue
        if env.subprogs[subprog].has_tail_call:
            for caller, _ in chain:
                env.subprogs[caller].tail_call_reachable = True
        if not chain:
            break
        depth -= _round_up_stack_depth(env.subprogs[subprog].stack_depth)
        subprog, i = chain.pop()


def _next_callee(env: VerifierEnv, i: int, subprog: int) -> int:
    """The function called at ``i`` in ``subprog``'s frame; callbacks that run later are no frame of this chain."""
    callee = _callee(env, i, env.insns[i])
    if callee < 0:
        return -1
    info = env.subprogs[callee]
    if info.is_async_cb:
        if info.has_tail_call:
            verbose(env, "verifier bug: subprog has tail_call and async cb\n")
            raise Reject(errno.EFAULT)
        if is_pseudo_func(env.insns[i]):
            return -1
    return callee


def _enter_frame(env: VerifierEnv, subprog: int, depth: int, chain: list[tuple[int, int]]) -> int:
    if chain and env.subprogs[subprog].has_tail_call and depth >= MAX_TAIL_CALL_STACK:
        verbose(env, f"tail_calls are not allowed when call stack of previous frames is {depth} bytes. Too large\n")
        raise Reject(errno.EACCES)
    depth += _round_up_stack_depth(env.subprogs[subprog].stack_depth)
    if depth > MAX_STACK_DEPTH:
        verbose(env, f"combined stack size of {len(chain) + 1} calls is {depth}. Too large\n")
        raise Reject(errno.EACCES)
    return depth


# --- what the log tells at level 4 ---------------------------------------------------------------------------------------

INLINED_LOOP_STACK: Final = 24  # three registers of the caller
TIMED_MAY_GOTO_STACK: Final = 16  # a count and a time stamp


def _depth_after_rewrites(env: VerifierEnv, number: int) -> int:
    info = env.subprogs[number]
    depth = info.stack_depth
    span = range(info.start, subprog_end(env, number))
    if any(aux.loop_inline is not None and aux.loop_inline[0] for aux in env.insn_aux[span.start : span.stop]):
        depth = round_up(depth, 8) + INLINED_LOOP_STACK
    if any(_keeps_may_goto(env, i) for i in span):
        depth += TIMED_MAY_GOTO_STACK
    return depth


def _keeps_may_goto(env: VerifierEnv, i: int) -> bool:
    """A may_goto that is reached and leads somewhere; without CAP_BPF one that leads nowhere is not taken out either."""
    insn = env.insns[i]
    return is_may_goto_insn(insn) and bool(env.insn_aux[i].seen) and (insn.off != 0 or not env.bpf_capable)


def final_stack_depths(env: VerifierEnv) -> tuple[int, ...]:
    """The depths of an accepted program's functions as the kernel leaves them: loops and may_goto made explicit take more, and
    functions that no path reaches are gone. The engines of this package rewrite nothing: they need ``stack_depth`` only."""
    reached = [i for i, info in enumerate(env.subprogs) if env.insn_aux[info.start].seen or not env.bpf_capable]
    return tuple(_depth_after_rewrites(env, i) for i in reached)
