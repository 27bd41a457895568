"""The proof from end to end: bpf_check's passes in the kernel's order, and the walk over every path (do_check).

``verify`` is the one door to the verifier. It never raises for a bad program: it answers with errno, log and diagnosis.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Final

from netbpf.abi.prog_types import BPF_F_SLEEPABLE
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction
from netbpf.verifier.alu import check_alu_op
from netbpf.verifier.branch import check_cond_jmp_op
from netbpf.verifier.calls import check_helper_call, check_inlined_callbacks, check_tail_call_maps
from netbpf.verifier.cfg import check_cfg
from netbpf.verifier.debuginfo import check_btf_info, check_btf_info_early
from netbpf.verifier.diagnosis import diagnose
from netbpf.verifier.env import (
    BPF_COMPLEXITY_LIMIT_INSNS,
    BPF_LOG_LEVEL,
    BPF_LOG_LEVEL2,
    BPF_LOG_STATS,
    LoadRequest,
    Reject,
    VerifierEnv,
    VerifierResult,
)
from netbpf.verifier.facts import note_access, note_call, verified_program
from netbpf.verifier.flow import compute_postorder, compute_scc
from netbpf.verifier.frames import check_func_call, leave_by_packet_load, leave_by_tail_call, prepare_func_exit
from netbpf.verifier.global_args import check_main_args, set_global_args
from netbpf.verifier.immediates import resolve_pseudo_ldimm64
from netbpf.verifier.live_regs import compute_live_registers
from netbpf.verifier.liveness import (
    bpf_commit_stack_write_marks,
    bpf_reset_live_stack_callchain,
    bpf_reset_stack_write_marks,
    bpf_stack_liveness_init,
    bpf_update_live_stack,
)
from netbpf.verifier.log import (
    mark_reg_scratched,
    mark_verifier_state_scratched,
    print_insn,
    print_verifier_state,
    verbose,
    vlog_reset,
)
from netbpf.verifier.loops import forget_explored_states
from netbpf.verifier.memory import check_atomic, check_load_mem, check_mem_access, check_store_reg, save_aux_ptr_type
from netbpf.verifier.packets import check_ld_abs, check_ld_imm, check_return_code
from netbpf.verifier.path import BPF_MAIN_FUNC, init_func_state, pop_stack
from netbpf.verifier.prune import is_state_visited, update_branch_counts
from netbpf.verifier.refs import check_resource_leak
from netbpf.verifier.regs import SRC_OP, check_reg_arg, cur_regs, mark_reg_known_zero
from netbpf.verifier.stack_depth import check_max_stack_depth, final_stack_depths
from netbpf.verifier.state import PTR_TO_CTX, RegState, VerifierState
from netbpf.verifier.structure import add_subprog_and_kfunc, check_kfunc_calls, check_subprogs

FUNC_spin_unlock: Final = 94
FUNC_tail_call: Final = 12
PROCESS_BPF_EXIT: Final = True  # a handler's answer: this path ends here

Handler = Callable[[VerifierEnv, Instruction], bool | None]

# errnos of a speculative path that a barrier mends: the processor cannot reach what it would have done
RECOVERABLE: Final = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL})


def _invalid(env: VerifierEnv, text: str) -> Reject:
    verbose(env, text)
    return Reject(errno.EINVAL)


# --- one instruction, by class -------------------------------------------------------------------------------------------


def _do_alu(env: VerifierEnv, insn: Instruction) -> None:
    check_alu_op(env, insn)
    env.insn_idx += 1


def _do_ldx(env: VerifierEnv, insn: Instruction) -> None:
    note_access(env, insn, insn.src)
    check_load_mem(env, insn, False, insn.code & 0xE0 == op.BPF_MEMSX, True, "ldx")
    env.insn_idx += 1


def _do_stx(env: VerifierEnv, insn: Instruction) -> None:
    mode = insn.code & 0xE0
    if mode == op.BPF_ATOMIC:
        note_access(env, insn, insn.src if insn.imm == op.BPF_LOAD_ACQ else insn.dst)
        check_atomic(env, insn)
    elif mode != op.BPF_MEM or insn.imm:
        raise _invalid(env, "BPF_STX uses reserved fields\n")
    else:
        note_access(env, insn, insn.dst)
        check_store_reg(env, insn, False)
    env.insn_idx += 1


def _do_st(env: VerifierEnv, insn: Instruction) -> None:
    if insn.code & 0xE0 != op.BPF_MEM or insn.src:
        raise _invalid(env, "BPF_ST uses reserved fields\n")
    check_reg_arg(env, insn.dst, SRC_OP)
    note_access(env, insn, insn.dst)
    dst_reg_type = cur_regs(env)[insn.dst].type
    check_mem_access(env, env.insn_idx, insn.dst, insn.off, insn.code & 0x18, op.BPF_ST, -1, False, False)
    save_aux_ptr_type(env, dst_reg_type, False)
    env.insn_idx += 1


def _do_call(env: VerifierEnv, insn: Instruction) -> None:
    env.jmps_processed += 1
    kind = insn.src
    known = kind in (0, op.BPF_PSEUDO_CALL, op.BPF_PSEUDO_KFUNC_CALL)
    wrong_off = insn.off and kind != op.BPF_PSEUDO_KFUNC_CALL
    if insn.code != op.BPF_JMP | op.BPF_CALL or not known or wrong_off or insn.dst:
        raise _invalid(env, "BPF_CALL uses reserved fields\n")
    state = env.cur_state
    assert state is not None
    if state.active_locks and kind == 0 and insn.imm != FUNC_spin_unlock:
        raise _invalid(env, "function calls are not allowed while holding a lock\n")
    if kind == op.BPF_PSEUDO_CALL:
        check_func_call(env, insn)
    elif kind == 0:
        note_call(env, insn)
        check_helper_call(env, insn)
        if insn.imm == FUNC_tail_call and state.curframe:
            leave_by_tail_call(env)
            mark_reg_scratched(env, 0)
            return
    mark_reg_scratched(env, 0)
    env.insn_idx += 1


def _do_ja(env: VerifierEnv, insn: Instruction) -> None:
    env.jmps_processed += 1
    long = insn.code & 7 == op.BPF_JMP32
    if insn.code & op.BPF_X or insn.src or insn.dst or (insn.off if long else insn.imm):
        raise _invalid(env, "BPF_JA uses reserved fields\n")
    env.insn_idx += (insn.imm if long else insn.off) + 1


def _do_exit(env: VerifierEnv, insn: Instruction) -> bool | None:
    env.jmps_processed += 1
    if insn.code != op.BPF_JMP | op.BPF_EXIT or insn.imm or insn.src or insn.dst:
        raise _invalid(env, "BPF_EXIT uses reserved fields\n")
    state = env.cur_state
    assert state is not None
    check_resource_leak(env, False, not state.curframe, "BPF_EXIT instruction in main prog")
    if state.curframe:
        prepare_func_exit(env)
        env.do_print_state = True
        return None
    check_return_code(env, 0, "R0")
    return PROCESS_BPF_EXIT


def _do_cond_jmp(env: VerifierEnv, insn: Instruction) -> None:
    env.jmps_processed += 1
    check_cond_jmp_op(env, insn)
    env.insn_idx += 1


def _do_ld(env: VerifierEnv, insn: Instruction) -> None:
    mode = insn.code & 0xE0
    if mode in (op.BPF_ABS, op.BPF_IND):
        check_ld_abs(env, insn)
        state = env.cur_state
        assert state is not None
        if state.curframe:
            leave_by_packet_load(env)
            return
    elif mode == op.BPF_IMM:
        check_ld_imm(env, insn)
        env.insn_idx += 1
        sanitize_mark_insn_seen(env)
    else:
        raise _invalid(env, "invalid BPF_LD mode\n")
    env.insn_idx += 1


_JUMPS: Final[dict[int, Handler]] = {op.BPF_CALL: _do_call, op.BPF_JA: _do_ja, op.BPF_EXIT: _do_exit}
_CLASSES: Final[dict[int, Handler]] = {
    op.BPF_LD: _do_ld,
    op.BPF_LDX: _do_ldx,
    op.BPF_ST: _do_st,
    op.BPF_STX: _do_stx,
    op.BPF_ALU: _do_alu,
    op.BPF_ALU64: _do_alu,
}


def _handler(code: int) -> Handler:
    return _CLASSES.get(code & 7) or _JUMPS.get(code & 0xF0, _do_cond_jmp)


HANDLERS: Final[tuple[Handler, ...]] = tuple(_handler(code) for code in range(256))
# what may write the stack, or go on in another function
_CALL, _EXIT = op.BPF_JMP | op.BPF_CALL, op.BPF_JMP | op.BPF_EXIT


def _touches_stack(code: int) -> bool:
    packet_load = code & 7 == op.BPF_LD and code & 0xE0 in (op.BPF_ABS, op.BPF_IND)
    return code & 7 in (op.BPF_ST, op.BPF_STX) or code in (_CALL, _EXIT) or packet_load


_TOUCHES_STACK: Final = frozenset(c for c in range(256) if _touches_stack(c))


# --- the walk ----------------------------------------------------------------------------------------------------------------


def sanitize_mark_insn_seen(env: VerifierEnv) -> None:
    """The current instruction is reached on a path that a correct processor can take."""
    state = env.cur_state
    assert state is not None
    if not state.speculative:
        env.insn_aux[env.insn_idx].seen = 1


def _is_pruned(env: VerifierEnv, state: VerifierState) -> bool:
    """At a prune point: was this state covered before?"""
    if not is_state_visited(env, env.insn_idx):
        return False
    if env.log_level & BPF_LOG_LEVEL:
        if env.do_print_state:
            speculative = " (speculative execution)" if state.speculative else ""
            verbose(env, f"\nfrom {env.prev_insn_idx} to {env.insn_idx}{speculative}: safe\n")
        else:
            verbose(env, f"{env.insn_idx}: safe\n")
    return True


def _print_arrival(env: VerifierEnv, state: VerifierState) -> None:
    """Level 2: after a jump back to a path put aside, or a return, the whole state."""
    speculative = " (speculative execution)" if state.speculative else ""
    verbose(env, f"\nfrom {env.prev_insn_idx} to {env.insn_idx}{speculative}:")
    print_verifier_state(env, state, state.curframe, True)
    env.do_print_state = False


def _walk_stack_insn(env: VerifierEnv, state: VerifierState, insn: Instruction) -> bool | None:
    """An instruction that may write the stack or change frames, with its writes noted for liveness."""
    bpf_reset_stack_write_marks(env, env.insn_idx)
    curframe = state.curframe
    ended = HANDLERS[insn.code](env, insn)
    if state.curframe == curframe:
        bpf_commit_stack_write_marks(env)
    else:
        bpf_reset_live_stack_callchain(env)
    return ended


def _end_path(env: VerifierEnv, pop_log: bool) -> bool:
    """A path is done; take up the one put aside last. False when none is left."""
    mark_verifier_state_scratched(env)
    update_branch_counts(env, env.cur_state)
    bpf_update_live_stack(env)
    elem = pop_stack(env, pop_log)
    if elem is None:
        return False
    bpf_reset_live_stack_callchain(env)
    env.insn_idx, env.prev_insn_idx = elem.insn_idx, elem.prev_insn_idx
    env.do_print_state = True
    return True


def do_check(env: VerifierEnv) -> None:
    """Walk every path from the current state on. Raises Reject at the first one that goes wrong."""
    insns, insn_aux, stats = env.insns, env.insn_aux, env.stats
    logging, level_2, n = env.log_level & BPF_LOG_LEVEL, env.log_level & BPF_LOG_LEVEL2, len(env.insns)
    pop_log, handlers = not level_2, HANDLERS
    env.do_print_state = False
    env.prev_insn_idx = -1
    walking = True
    while walking:
        state = env.cur_state
        assert state is not None
        env.cur_hist_ent = None
        insn_idx = env.insn_idx
        if insn_idx >= n:
            verbose(env, f"invalid insn idx {insn_idx} insn_cnt {n}\n")
            raise Reject(errno.EFAULT)
        stats.insn_processed += 1
        if stats.insn_processed > BPF_COMPLEXITY_LIMIT_INSNS:
            verbose(env, f"BPF program is too large. Processed {stats.insn_processed} insn\n")
            raise Reject(errno.E2BIG)
        state.last_insn_idx, state.insn_idx = env.prev_insn_idx, insn_idx
        aux = insn_aux[insn_idx]
        if aux.prune_point and _is_pruned(env, state):
            walking = _end_path(env, pop_log)
            continue
        if aux.jmp_point:
            env.cur_hist_ent = entry = (insn_idx, env.prev_insn_idx, 0, ())
            state.jmp_history.append(entry)
        if logging:
            if level_2 and env.do_print_state:
                _print_arrival(env, state)
            print_insn(env, state)
        if not state.speculative:
            aux.seen = 1
        elif aux.nospec:
            walking = _end_path(env, pop_log)
            continue
        try:
            insn = insns[insn_idx]
            if insn.code in _TOUCHES_STACK:
                ended = _walk_stack_insn(env, state, insn)
            else:
                ended = handlers[insn.code](env, insn)
        except Reject as reject:
            if not state.speculative or reject.errno not in RECOVERABLE:
                raise
            bpf_commit_stack_write_marks(env)
            aux.nospec, aux.alu_state, ended = True, 0, PROCESS_BPF_EXIT
        env.prev_insn_idx = insn_idx
        if ended or (state.speculative and aux.nospec_result):
            walking = _end_path(env, pop_log)


def _entry_state(env: VerifierEnv, subprog: int) -> VerifierState:
    state = VerifierState()
    state.branches = 1
    state.frame = [init_func_state(env, BPF_MAIN_FUNC, 0, subprog)]
    state.first_insn_idx, state.last_insn_idx = env.subprogs[subprog].start, -1
    return state


def do_check_common(env: VerifierEnv, subprog: int) -> None:
    """Walk one function from its entry: the main program with R1 = ctx, a global function with what its BTF promises."""
    env.prev_linfo = None
    forget_explored_states(env)
    state = env.cur_state = _entry_state(env, subprog)
    regs = state.frame[0].regs
    bpf_reset_live_stack_callchain(env)
    if subprog:
        verbose(env, f"Validating {env.subprogs[subprog].name}() func#{subprog}...\n")
        set_global_args(env, subprog, regs)
    else:
        regs[1] = RegState(PTR_TO_CTX)
        mark_reg_known_zero(env, regs, 1)
        check_main_args(env)
    do_check(env)
    if not env.log_level & BPF_LOG_LEVEL2:
        vlog_reset(env, 0)
    _free_states(env)


def _free_states(env: VerifierEnv) -> None:
    """Checkpoints serve one function's walk."""
    forget_explored_states(env)
    env.cur_state = None
    env.stack.clear()
    for visit in env.scc_visits.values():
        visit.backedges.clear()
    env.scc_visits.clear()


def do_check_subprogs(env: VerifierEnv) -> None:
    """Global functions that were called, each by itself, until no new one is called."""
    verified: set[int] = set()
    again = True
    while again:
        again = False
        for i, subprog in enumerate(env.subprogs):
            if i == 0 or i in verified or not subprog.is_global or not subprog.called:
                continue
            env.insn_idx = subprog.start
            do_check_common(env, i)
            if env.log_level & BPF_LOG_LEVEL:
                verbose(env, f"Func#{i} ('{subprog.name}') is safe for any args that match its prototype\n")
            verified.add(i)
            again = True


# --- all passes --------------------------------------------------------------------------------------------------------------


def _bpf_check(env: VerifierEnv) -> None:
    check_btf_info_early(env)
    add_subprog_and_kfunc(env)
    check_subprogs(env)
    check_btf_info(env)
    resolve_pseudo_ldimm64(env)
    check_cfg(env)
    compute_postorder(env)
    bpf_stack_liveness_init(env)
    check_sleepable(env)
    compute_scc(env)
    compute_live_registers(env)
    do_check_common(env, 0)
    do_check_subprogs(env)
    check_max_stack_depth(env)
    check_tail_call_maps(env)
    check_kfunc_calls(env)
    check_inlined_callbacks(env)


def check_sleepable(env: VerifierEnv) -> None:
    """No program type that is simulated may sleep."""
    if env.request.prog_flags & BPF_F_SLEEPABLE:
        raise _invalid(env, "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable\n")


def print_verification_stats(env: VerifierEnv) -> None:
    stats = env.stats
    if env.log_level & BPF_LOG_STATS:
        verbose(env, f"verification time {stats.verification_ns // 1000} usec\n")
        verbose(env, f"stack depth {'+'.join(str(depth) for depth in stats.stack_depths)}\n")
    verbose(
        env,
        f"processed {stats.insn_processed} insns (limit {BPF_COMPLEXITY_LIMIT_INSNS}) "
        f"max_states_per_insn {stats.max_states_per_insn} total_states {stats.total_states} "
        f"peak_states {stats.peak_states} mark_read {stats.longest_mark_read_walk}\n",
    )


def verify(request: LoadRequest) -> VerifierResult:
    """Decide about one program as bpf(BPF_PROG_LOAD)'s verifier would."""
    started = time.perf_counter_ns()
    env = VerifierEnv(request)
    refused, diagnosis = 0, None
    try:
        _bpf_check(env)
    except Reject as reject:
        refused = reject.errno
        diagnosis = diagnose(env, refused, reject.insn_idx)
    env.stats.verification_ns = time.perf_counter_ns() - started
    refused_depths = tuple(subprog.stack_depth for subprog in env.subprogs)
    env.stats.stack_depths = refused_depths if refused else final_stack_depths(env)
    print_verification_stats(env)
    log = "".join(env.log) if request.log_level else ""
    program = None if refused else verified_program(env)
    return VerifierResult(refused, log, env.stats, program, diagnosis)
