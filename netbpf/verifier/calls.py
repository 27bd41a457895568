"""Calls of helpers: is it there for this program, are its arguments right, and what is known afterwards.

Arguments are ``args``' business, frames and callbacks ``frames``'; the prototypes are rows of ``abi.helpers``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from netbpf.abi import arg_types as at
from netbpf.abi.classic_helpers import CLASSIC_HELPERS
from netbpf.abi.helpers import CAP_BPF, CAP_PERFMON, FUNC_IDS, MAX_FUNC_ID, HelperProto, helper_cap, helper_proto
from netbpf.abi.maps import MapType
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction
from netbpf.verifier import state as st
from netbpf.verifier.args import arg_type_is_dynptr, check_func_arg
from netbpf.verifier.bounds import reg_bounds_sync
from netbpf.verifier.dynptr import Dynptr, dynptr_object, unmark_stack_slots_dynptr
from netbpf.verifier.env import BPF_LOG_LEVEL2, InsnAux, MapInfo, Reject, VerifierEnv
from netbpf.verifier.format_string import is_valid_format
from netbpf.verifier.frames import (
    CALLBACK_HELPERS,
    check_func_call,
    clear_caller_saved_regs,
    prepare_func_exit,
    push_async_callback_call,
    push_callback_call,
    set_loop_callback_state,
    set_timer_callback_state,
)
from netbpf.verifier.log import reg_type_str, verbose, verifier_bug
from netbpf.verifier.map_funcs import ELIDE_NULL_MAPS, check_map_func_compatibility, func_text
from netbpf.verifier.memory import BPF_F_RDONLY_PROG, CallMeta, check_mem_access, direct_value
from netbpf.verifier.precision import mark_chain_precision
from netbpf.verifier.refs import acquire_reference, check_resource_leak, clear_all_pkt_pointers, current, release_reference
from netbpf.verifier.regs import cur_regs, known_reg, reg_bounds_sanity_check, unknown_reg
from netbpf.verifier.stack import BPF_WRITE, is_null
from netbpf.verifier.state import REG_NOT_INIT, RegState, cur_func

__all__ = [
    "check_func_call",
    "check_helper_call",
    "check_inlined_callbacks",
    "check_tail_call_maps",
    "get_helper_proto",
    "prepare_func_exit",
]

MAX_ERRNO: Final = 4095

_FUNC: Final = FUNC_IDS
FUNC_tail_call: Final = _FUNC["tail_call"]
FUNC_loop: Final = _FUNC["loop"]
FUNC_map_lookup_elem: Final = _FUNC["map_lookup_elem"]
FUNC_dynptr_data: Final = _FUNC["dynptr_data"]
FUNC_get_smp_processor_id: Final = _FUNC["get_smp_processor_id"]

_RECORDS_MAP: Final = frozenset(
    _FUNC[name]
    for name in (
        "tail_call",
        "map_lookup_elem",
        "map_update_elem",
        "map_delete_elem",
        "map_push_elem",
        "map_pop_elem",
        "map_peek_elem",
        "for_each_map_elem",
        "redirect_map",
        "map_lookup_percpu_elem",
    )
)
_CHANGES_MAP: Final = frozenset(_FUNC[name] for name in ("map_delete_elem", "map_update_elem", "map_push_elem", "map_pop_elem"))
_ACQUIRES: Final = frozenset(_FUNC[name] for name in ("sk_lookup_tcp", "sk_lookup_udp", "skc_lookup_tcp", "ringbuf_reserve"))
_CASTS: Final = frozenset(
    _FUNC[name]
    for name in (
        "sk_fullsock",
        "tcp_sock",
        "skc_to_tcp6_sock",
        "skc_to_tcp_sock",
        "skc_to_tcp_timewait_sock",
        "skc_to_tcp_request_sock",
        "skc_to_udp6_sock",
        "skc_to_unix_sock",
        "skc_to_mptcp_sock",
    )
)
_RETURNS_LENGTH: Final = frozenset(
    _FUNC[name] for name in ("get_stack", "get_task_stack", "probe_read_str", "probe_read_kernel_str", "probe_read_user_str")
)


def _refuse(env: VerifierEnv, text: str, error: int = errno.EINVAL) -> Reject:
    verbose(env, text)
    return Reject(error)


# --- which helper -----------------------------------------------------------------------------------------------------


def get_helper_proto(env: VerifierEnv, func_id: int) -> HelperProto | None:
    """The prototype, where the program's type and its loader's capabilities give it that helper."""
    cap = helper_cap(env.prog_type, func_id)
    if cap is None or (cap == CAP_BPF and not env.bpf_capable) or (cap == CAP_PERFMON and not env.allow_ptr_leaks):
        return None
    return helper_proto(env.prog_type, func_id)


def _proto_or_refuse(env: VerifierEnv, func_id: int) -> HelperProto:
    if env.request.classic and func_id in CLASSIC_HELPERS:
        return CLASSIC_HELPERS[func_id]
    if not 0 <= func_id < MAX_FUNC_ID:
        raise _refuse(env, f"invalid func {func_text(func_id)}\n")
    proto = get_helper_proto(env, func_id)
    if proto is None:
        raise _refuse(env, f"program of this type cannot use helper {func_text(func_id)}\n")
    if proto.gpl_only and not env.request.license_gpl:
        raise _refuse(env, "cannot call GPL-restricted function from non-GPL compatible program\n")
    if proto.might_sleep:
        raise _refuse(env, "helper call might sleep in a non-sleepable prog\n")
    return proto


# --- what an instruction's calls have in common -----------------------------------------------------------------------

POISON: Final = "poison"  # aux.map_ptr_state, aux.map_key_state: paths differ


def record_func_map(env: VerifierEnv, meta: CallMeta, func_id: int, insn_idx: int) -> None:
    """Remember the map the call is given; a map that is read-only for programs takes no changes."""
    if func_id not in _RECORDS_MAP:
        return
    info = meta.map_ptr
    if info is None:
        raise _refuse(env, "kernel subsystem misconfigured verifier\n")
    if info.spec.map_flags & BPF_F_RDONLY_PROG and func_id in _CHANGES_MAP:
        raise _refuse(env, "write into map forbidden\n", errno.EACCES)
    aux = env.insn_aux[insn_idx]
    trusted = env.bypass_spec_v1 if info.bypass_spec_v1 is None else info.bypass_spec_v1
    if not aux.map_ptr_state:
        aux.map_ptr_state = aux.map_ptr = info
        aux.map_ptr_unpriv = not trusted
    elif aux.map_ptr is not info:
        aux.map_ptr_state, aux.map_ptr = POISON, info
        aux.map_ptr_unpriv = not trusted


def check_tail_call_maps(env: VerifierEnv) -> None:
    """After the walk: where speculation matters to a map's creator, one tail call may not go through several maps."""
    for i, (insn, aux) in enumerate(zip(env.insns, env.insn_aux, strict=True)):
        if aux.map_ptr_unpriv and aux.map_ptr_state == POISON and insn.imm == FUNC_tail_call:
            verbose(env, "tail_call abusing map_ptr\n")
            raise Reject(errno.EINVAL, i)


INLINED_LOOP_INSNS: Final = 18  # what a bpf_loop call grows by when the kernel makes it a loop of its own


def check_inlined_callbacks(env: VerifierEnv) -> None:
    """After the walk: a bpf_loop that is made a loop of the program's own still calls its callback. Where no path ran the
    callback it was removed as dead code; if nothing follows it, the kernel cannot find what is called and gives up."""
    subprogs, aux = env.subprogs, env.insn_aux
    live = [bool(aux[info.start].seen) for info in subprogs]
    inlined = [a.loop_inline[1] for a in aux if a.loop_inline is not None and a.loop_inline[0]]
    if sum(live) < 2 or not any(not any(live[callback:]) for callback in inlined):
        return
    end = sum(1 for a in aux if a.seen) + INLINED_LOOP_INSNS * len(inlined)
    raise verifier_bug(env, f"No program to jit at insn {end} (subprog < 0)")


def record_func_key(env: VerifierEnv, meta: CallMeta, func_id: int, insn_idx: int) -> None:
    """Remember the constant index of a tail call, which then decides precisely."""
    if func_id != FUNC_tail_call:
        return
    info = meta.map_ptr
    if info is None or info.spec.map_type != MapType.PROG_ARRAY:
        raise _refuse(env, "expected prog array map for tail call")
    aux, index = env.insn_aux[insn_idx], cur_regs(env)[3]
    if index.type != st.SCALAR_VALUE or index.var_off.mask or index.var_off.value >= info.spec.max_entries:
        aux.map_key_state, aux.const_key = POISON, None
        return
    mark_chain_precision(env, 3)
    _note_const_key(aux, index.var_off.value)


def _note_const_key(aux: InsnAux, key: int | None) -> None:
    """Merge a call's constant key (None: not constant) into the instruction's."""
    if not aux.map_key_state:
        aux.map_key_state = POISON if key is None else (key,)
    elif aux.map_key_state != (key,):
        aux.map_key_state = POISON
    aux.const_key = None if aux.map_key_state == POISON else aux.map_key_state[0]


# --- rules of single helpers ------------------------------------------------------------------------------------------


def _call_tail_call(env: VerifierEnv, insn_idx: int, meta: CallMeta) -> None:
    check_resource_leak(env, False, True, "tail_call")


def _call_get_local_storage(env: VerifierEnv, insn_idx: int, meta: CallMeta) -> None:
    if not is_null(cur_regs(env)[2]):
        raise _refuse(env, "get_local_storage() doesn't support non-zero flags\n")


def _loop_flag_is_zero(env: VerifierEnv) -> bool:
    zero = is_null(cur_regs(env)[4])
    if zero:
        mark_chain_precision(env, 4)
    return zero


def _update_loop_inline_state(env: VerifierEnv, insn_idx: int, subprogno: int) -> None:
    """The kernel turns a call with flags 0 and one callback into a loop of its own; deciding so makes the flags precise."""
    aux = env.insn_aux[insn_idx]
    if aux.loop_inline is None:
        aux.loop_inline = (_loop_flag_is_zero(env), subprogno)
    elif aux.loop_inline[0]:
        aux.loop_inline = (_loop_flag_is_zero(env) and aux.loop_inline[1] == subprogno, subprogno)


def _call_loop(env: VerifierEnv, insn_idx: int, meta: CallMeta) -> None:
    """The callback runs at most R1 times: once the path has run it so often, only going on is left."""
    _update_loop_inline_state(env, insn_idx, meta.subprogno)
    mark_chain_precision(env, 1)
    state = current(env)
    frame = cur_func(state)
    if frame.callback_depth < frame.regs[1].umax_value:
        push_callback_call(env, insn_idx, meta.subprogno, set_loop_callback_state)
        return
    frame.callback_depth = 0
    if env.log_level & BPF_LOG_LEVEL2:
        verbose(env, f"frame{state.curframe} bpf_loop iteration limit reached\n")


def _call_callback(env: VerifierEnv, insn_idx: int, meta: CallMeta) -> None:
    push_callback_call(env, insn_idx, meta.subprogno, CALLBACK_HELPERS[meta.func_id])


def _call_timer_set_callback(env: VerifierEnv, insn_idx: int, meta: CallMeta) -> None:
    push_async_callback_call(env, insn_idx, meta.subprogno, set_timer_callback_state)


def _call_dynptr_from_mem(env: VerifierEnv, insn_idx: int, meta: CallMeta) -> None:
    kind = cur_regs(env)[1].type
    if kind != st.PTR_TO_MAP_VALUE:
        text = f"Unsupported reg type {reg_type_str(env, kind)} for bpf_dynptr_from_mem data\n"
        raise _refuse(env, text, errno.EACCES)


def _call_dynptr_data(env: VerifierEnv, insn_idx: int, meta: CallMeta) -> None:
    """The slice belongs to the dynptr, and dies with it."""
    source = dynptr_object(env, cur_regs(env)[1])
    meta.dynptr_id, meta.ref_obj_id = source.id, source.ref_obj_id


def _call_snprintf(env: VerifierEnv, insn_idx: int, meta: CallMeta) -> None:
    """The format is known and takes as many 8-byte arguments as are given."""
    regs = cur_regs(env)
    data_len = regs[5].var_off.value
    if data_len % 8:
        raise Reject(errno.EINVAL)
    fmt = direct_value(regs[3].map_ptr)[regs[3].off + regs[3].smin_value :].split(b"\0", 1)[0]
    if not is_valid_format(fmt, data_len // 8):
        raise _refuse(env, "Invalid format string\n")


_OWN_RULES: Final[dict[int, Callable[[VerifierEnv, int, CallMeta], None]]] = {
    FUNC_tail_call: _call_tail_call,
    _FUNC["get_local_storage"]: _call_get_local_storage,
    FUNC_loop: _call_loop,
    _FUNC["for_each_map_elem"]: _call_callback,
    _FUNC["user_ringbuf_drain"]: _call_callback,
    _FUNC["timer_set_callback"]: _call_timer_set_callback,
    _FUNC["dynptr_from_mem"]: _call_dynptr_from_mem,
    FUNC_dynptr_data: _call_dynptr_data,
    _FUNC["snprintf"]: _call_snprintf,
}


def _release(env: VerifierEnv, proto: HelperProto, meta: CallMeta) -> None:
    """Give back what the releasing argument holds."""
    reg = cur_regs(env)[meta.release_regno]
    if arg_type_is_dynptr(proto.args[meta.release_regno - 1]):
        unmark_stack_slots_dynptr(env, reg)
        return
    released = release_reference(env, meta.ref_obj_id) if meta.ref_obj_id else is_null(reg)
    if not released:
        raise _refuse(env, f"func {func_text(proto.id)} reference has not been acquired before\n")


# --- what R0 is ---------------------------------------------------------------------------------------------------------


def _new_pointer(env: VerifierEnv, kind: int) -> RegState:
    reg = known_reg(0, not env.bpf_capable).copy()
    reg.type = kind
    return reg


def _return_map_value(env: VerifierEnv, proto: HelperProto, meta: CallMeta) -> RegState:
    info = meta.map_ptr
    assert info is not None
    flags = proto.ret_type & ~st.BASE_TYPE_MASK
    if _is_there(info, meta):
        flags &= ~st.PTR_MAYBE_NULL
    reg = _new_pointer(env, st.PTR_TO_MAP_VALUE | flags)
    reg.map_ptr, reg.map_uid = info, meta.map_uid
    return reg


def _is_there(info: MapInfo, meta: CallMeta) -> bool:
    """A constant key below max_entries of an array is never missing."""
    if meta.func_id != FUNC_map_lookup_elem or info.spec.map_type not in ELIDE_NULL_MAPS:
        return False
    return meta.const_map_key is not None and meta.const_map_key < info.spec.max_entries


def _return_mem(env: VerifierEnv, proto: HelperProto, meta: CallMeta) -> RegState:
    reg = _new_pointer(env, st.PTR_TO_MEM | proto.ret_type & ~st.BASE_TYPE_MASK)
    reg.mem_size = meta.mem_size & 0xFFFFFFFF
    return reg


def _return_btf_id(env: VerifierEnv, proto: HelperProto, meta: CallMeta) -> RegState:
    reg = _new_pointer(env, st.PTR_TO_BTF_ID | proto.ret_type & ~st.BASE_TYPE_MASK)
    reg.ext = proto.ret_btf
    return reg


def _return_socket(env: VerifierEnv, proto: HelperProto, meta: CallMeta) -> RegState:
    base = _SOCKETS[proto.ret_type & st.BASE_TYPE_MASK]
    return _new_pointer(env, base | proto.ret_type & ~st.BASE_TYPE_MASK)


_SOCKETS: Final = {
    at.RET_PTR_TO_SOCKET: st.PTR_TO_SOCKET,
    at.RET_PTR_TO_TCP_SOCK: st.PTR_TO_TCP_SOCK,
    at.RET_PTR_TO_SOCK_COMMON: st.PTR_TO_SOCK_COMMON,
}
_RETURNS: Final[dict[int, Callable[[VerifierEnv, HelperProto, CallMeta], RegState]]] = {
    at.RET_INTEGER: lambda env, proto, meta: unknown_reg(env),
    at.RET_VOID: lambda env, proto, meta: REG_NOT_INIT,
    at.RET_PTR_TO_MAP_VALUE: _return_map_value,
    at.RET_PTR_TO_MEM: _return_mem,
    at.RET_PTR_TO_BTF_ID: _return_btf_id,
    **dict.fromkeys(_SOCKETS, _return_socket),
}


def _acquires(func_id: int, info: MapInfo | None) -> bool:
    """is_acquire_function: whether R0 is a reference that must be given back."""
    if func_id == FUNC_map_lookup_elem:
        return info is not None and info.spec.map_type in (MapType.SOCKMAP, MapType.SOCKHASH)
    return func_id in _ACQUIRES


def _return_value(env: VerifierEnv, proto: HelperProto, meta: CallMeta, insn_idx: int) -> RegState:
    reg = _RETURNS[proto.ret_type & st.BASE_TYPE_MASK](env, proto, meta)
    if reg.type & st.PTR_MAYBE_NULL:
        reg.id = env.new_id()
    if proto.id == FUNC_dynptr_data:
        reg.ext = Dynptr(0, False, meta.dynptr_id)
        reg.ref_obj_id = meta.ref_obj_id
    elif proto.id in _CASTS:
        reg.ref_obj_id = meta.ref_obj_id
    elif _acquires(proto.id, meta.map_ptr):
        reg.id = reg.ref_obj_id = acquire_reference(env, insn_idx)
    return reg


def do_refine_retval_range(env: VerifierEnv, reg: RegState, proto: HelperProto, meta: CallMeta) -> RegState:
    """Helpers whose number is known to lie in a range."""
    if proto.ret_type != at.RET_INTEGER:
        return reg
    if proto.id in _RETURNS_LENGTH:
        reg = reg.copy()
        reg.smax_value = reg.s32_max_value = meta.msize_max_value
        reg.smin_value = reg.s32_min_value = -MAX_ERRNO
    elif proto.id == FUNC_get_smp_processor_id:
        reg = reg.copy()
        last = env.request.nr_cpu_ids - 1
        reg.umax_value = reg.u32_max_value = reg.smax_value = reg.s32_max_value = last
        reg.umin_value = reg.u32_min_value = reg.smin_value = reg.s32_min_value = 0
    else:
        return reg
    reg_bounds_sync(reg)
    reg_bounds_sanity_check(env, reg, "retval")
    return reg


# --- the call -------------------------------------------------------------------------------------------------------------


def _fill_memory(env: VerifierEnv, meta: CallMeta, insn_idx: int) -> None:
    """The helper writes the stack bytes it was given."""
    for i in range(meta.access_size):
        check_mem_access(env, insn_idx, meta.regno, i, op.BPF_B, BPF_WRITE, -1, False, False)


def check_helper_call(env: VerifierEnv, insn: Instruction) -> None:
    """A call of helper ``insn.imm``; R0 is what it returns, R1 to R5 are lost. Raises Reject."""
    insn_idx = env.insn_idx
    proto = _proto_or_refuse(env, insn.imm)
    meta = CallMeta(proto.id, proto.pkt_access)
    for index in range(len(proto.args)):
        check_func_arg(env, index, meta, proto, insn_idx)
    record_func_map(env, meta, proto.id, insn_idx)
    record_func_key(env, meta, proto.id, insn_idx)
    if proto.id != FUNC_tail_call and meta.map_ptr is not None:
        _note_const_key(env.insn_aux[insn_idx], meta.const_map_key)
    _fill_memory(env, meta, insn_idx)
    if meta.release_regno:
        _release(env, proto, meta)
    rule = _OWN_RULES.get(proto.id)
    if rule is not None:
        rule(env, insn_idx, meta)
    regs = cur_regs(env)
    clear_caller_saved_regs(env, regs)
    result = _return_value(env, proto, meta, insn_idx)
    regs[0] = do_refine_retval_range(env, result, proto, meta)
    check_map_func_compatibility(env, meta.map_ptr, proto.id)
    if proto.changes_pkt_data:
        clear_all_pkt_pointers(env)
