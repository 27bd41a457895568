"""Every instruction is reachable and no jump goes astray (check_cfg); marks where to prune and remember the way."""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.helpers import HELPERS
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import BPF_CALL, BPF_EXIT, BPF_JA, BPF_JMP, BPF_JMP32
from netbpf.verifier.env import Reject, VerifierEnv
from netbpf.verifier.log import verbose, verbose_linfo
from netbpf.verifier.structure import (
    LD_IMM64,
    find_containing_subprog,
    find_subprog,
    is_async_callback_calling_insn,
    is_helper_call,
    is_may_goto_insn,
    is_pseudo_call,
    is_pseudo_func,
    is_sync_callback_calling_insn,
    jmp_offset,
)

DISCOVERED: Final = 0x10
EXPLORED: Final = 0x20
FALLTHROUGH: Final = 1
BRANCH: Final = 2


class _Cfg:
    """The depth-first walk over instructions: their state and the stack."""

    __slots__ = ("state", "stack")

    def __init__(self, n: int) -> None:
        self.state = [0] * n
        self.stack = [0]
        self.state[0] = DISCOVERED


def _mark_jump_target(env: VerifierEnv, i: int) -> None:
    aux = env.insn_aux[i]
    aux.prune_point = aux.jmp_point = True


def _push_insn(env: VerifierEnv, cfg: _Cfg, t: int, w: int, edge: int) -> bool:
    """Follow the edge t -> w; True when ``w`` is new and stands on the stack now."""
    state = cfg.state
    if state[t] >= DISCOVERED | edge:
        return False
    if w < 0 or w >= len(env.insns):
        verbose_linfo(env, t, f"{t}: ")
        verbose(env, f"jump out of range from insn {t} to {w}\n")
        raise Reject(errno.EINVAL)
    if edge == BRANCH:
        _mark_jump_target(env, w)
    if state[w] == 0:
        state[t] = DISCOVERED | edge
        state[w] = DISCOVERED
        cfg.stack.append(w)
        return True
    if state[w] & 0xF0 == DISCOVERED:
        if not env.bpf_capable:
            verbose_linfo(env, t, f"{t}: ")
            verbose_linfo(env, w, f"{w}: ")
            verbose(env, f"back-edge from insn {t} to {w}\n")
            raise Reject(errno.EINVAL)
        return False
    state[t] = DISCOVERED | edge
    return False


def _visit_call(env: VerifierEnv, cfg: _Cfg, t: int, insn: Instruction) -> bool:
    """A call, or a function's address taken: falls through, and its target is part of the program."""
    aux = env.insn_aux[t]
    if is_async_callback_calling_insn(insn):
        aux.prune_point = True
    if is_sync_callback_calling_insn(insn):
        aux.calls_callback = aux.force_checkpoint = aux.prune_point = aux.jmp_point = True
    if is_helper_call(insn):
        proto = HELPERS.get(insn.imm)
        if proto is not None and proto.might_sleep:
            env.subprogs[find_containing_subprog(env, t)].might_sleep = True
    following = t + (2 if insn.code == LD_IMM64 else 1)
    if _push_insn(env, cfg, t, following, FALLTHROUGH):
        return True
    _mark_jump_target(env, following)
    if is_pseudo_call(insn) or is_pseudo_func(insn):
        callee = t + insn.imm + 1
        aux.prune_point = True
        caller_info = env.subprogs[find_containing_subprog(env, t)]
        callee_info = env.subprogs[find_subprog(env, callee)]
        caller_info.changes_pkt_data |= callee_info.changes_pkt_data
        caller_info.might_sleep |= callee_info.might_sleep
        return _push_insn(env, cfg, t, callee, BRANCH)
    return False


def _visit_insn(env: VerifierEnv, cfg: _Cfg, t: int) -> bool:
    """Follow one edge of ``t``; False when all were followed."""
    insn = env.insns[t]
    if is_pseudo_func(insn):
        return _visit_call(env, cfg, t, insn)
    cls = insn.code & 7
    if cls not in (BPF_JMP, BPF_JMP32):
        return _push_insn(env, cfg, t, t + (2 if insn.code == LD_IMM64 else 1), FALLTHROUGH)
    kind = insn.code & 0xF0
    if kind == BPF_EXIT:
        return False
    if kind == BPF_CALL:
        return _visit_call(env, cfg, t, insn)
    if kind == BPF_JA:
        target = t + jmp_offset(insn) + 1
        if _push_insn(env, cfg, t, target, FALLTHROUGH):
            return True
        _mark_jump_target(env, target)
        return False
    env.insn_aux[t].prune_point = True
    if is_may_goto_insn(insn):
        env.insn_aux[t].force_checkpoint = True
    if _push_insn(env, cfg, t, t + 1, FALLTHROUGH):
        return True
    return _push_insn(env, cfg, t, t + insn.off + 1, BRANCH)


def check_cfg(env: VerifierEnv) -> None:
    """Every instruction is reachable, no jump goes astray, and without CAP_BPF none goes back. Marks where to prune."""
    cfg = _Cfg(len(env.insns))
    while cfg.stack:
        t = cfg.stack[-1]
        if not _visit_insn(env, cfg, t):
            cfg.state[t] = EXPLORED
            cfg.stack.pop()
    i = 0
    while i < len(env.insns):
        if cfg.state[i] != EXPLORED and not env.request.classic:  # a classic filter may have dead code
            verbose(env, f"unreachable insn {i}\n")
            raise Reject(errno.EINVAL)
        if env.insns[i].code == LD_IMM64:
            if cfg.state[i + 1]:
                verbose(env, f"jump into the middle of ldimm64 insn {i}\n")
                raise Reject(errno.EINVAL)
            i += 1
        i += 1
