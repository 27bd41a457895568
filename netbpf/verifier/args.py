"""Arguments of helpers: what each argument kind demands of its register.

``check_func_arg`` is the door; ``_KINDS`` names one small check per kind. What was learned (the map, the memory to be
filled, the reference to be released) is left in a CallMeta for ``calls``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from netbpf.abi import arg_types as at
from netbpf.abi.helpers import FUNC_IDS, HelperProto
from netbpf.isa import opcodes as op
from netbpf.verifier import state as st
from netbpf.verifier.backtrack import Backtrack
from netbpf.verifier.dynptr import (
    DYNPTR_SIZE,
    DYNPTR_TYPE_FLAG_MASK,
    arg_to_dynptr_type,
    dynptr_get_spi,
    is_dynptr_reg_valid_init,
    is_dynptr_reg_valid_uninit,
    is_dynptr_type_expected,
    mark_dynptr_read,
    mark_stack_slots_dynptr,
)
from netbpf.verifier.env import MapInfo, Reject, VerifierEnv
from netbpf.verifier.log import DYNPTR_NAMES, reg_type_str, verbose
from netbpf.verifier.map_funcs import ELIDE_NULL_MAPS
from netbpf.verifier.memory import (
    ACCESS_HELPER,
    PACKET_TYPES,
    CallMeta,
    bpf_map_is_rdonly,
    check_helper_mem_access,
    check_map_access,
    check_mem_access,
    check_mem_size_reg,
    check_ptr_alignment,
    check_ptr_off_reg,
    direct_value,
    has_direct_value,
    is_pointer_value,
    may_access_direct_pkt_data,
)
from netbpf.verifier.precision import mark_chain_precision, mark_chain_precision_batch
from netbpf.verifier.refs import current, owner
from netbpf.verifier.regs import (
    SRC_OP,
    check_reg_arg,
    cur_regs,
    fixed_offset,
)
from netbpf.verifier.stack import BPF_READ, BPF_WRITE, is_null, is_spilled_scalar
from netbpf.verifier.state import RegState

_MEM_TYPES: Final = (
    st.PTR_TO_STACK,
    st.PTR_TO_PACKET,
    st.PTR_TO_PACKET_META,
    st.PTR_TO_MAP_KEY,
    st.PTR_TO_MAP_VALUE,
    st.PTR_TO_MEM,
    st.PTR_TO_MEM | st.MEM_RINGBUF,
    st.PTR_TO_BUF,
    st.PTR_TO_BTF_ID | st.PTR_TRUSTED,
)
_SOCK_TYPES: Final = (st.PTR_TO_SOCK_COMMON, st.PTR_TO_SOCKET, st.PTR_TO_TCP_SOCK, st.PTR_TO_XDP_SOCK)
_SCALAR: Final = (st.SCALAR_VALUE,)

# what a kind of argument takes, in the order the log lists them
COMPATIBLE_REG_TYPES: Final[dict[int, tuple[int, ...]]] = {
    at.ARG_PTR_TO_MAP_KEY: _MEM_TYPES,
    at.ARG_PTR_TO_MAP_VALUE: _MEM_TYPES,
    at.ARG_PTR_TO_MEM: _MEM_TYPES,
    at.ARG_CONST_SIZE: _SCALAR,
    at.ARG_CONST_SIZE_OR_ZERO: _SCALAR,
    at.ARG_CONST_ALLOC_SIZE_OR_ZERO: _SCALAR,
    at.ARG_CONST_MAP_PTR: (st.CONST_PTR_TO_MAP,),
    at.ARG_PTR_TO_CTX: (st.PTR_TO_CTX,),
    at.ARG_PTR_TO_SOCK_COMMON: _SOCK_TYPES,
    at.ARG_PTR_TO_BTF_ID_SOCK_COMMON: (*_SOCK_TYPES, st.PTR_TO_BTF_ID, st.PTR_TO_BTF_ID | st.PTR_TRUSTED),
    at.ARG_PTR_TO_SOCKET: (st.PTR_TO_SOCKET,),
    at.ARG_PTR_TO_BTF_ID: (st.PTR_TO_BTF_ID, st.PTR_TO_BTF_ID | st.PTR_TRUSTED, st.PTR_TO_BTF_ID | st.MEM_RCU),
    at.ARG_PTR_TO_SPIN_LOCK: (st.PTR_TO_MAP_VALUE, st.PTR_TO_BTF_ID | st.MEM_ALLOC),
    at.ARG_PTR_TO_RINGBUF_MEM: (st.PTR_TO_MEM | st.MEM_RINGBUF,),
    at.ARG_PTR_TO_PERCPU_BTF_ID: (
        st.PTR_TO_BTF_ID | st.MEM_PERCPU,
        st.PTR_TO_BTF_ID | st.MEM_PERCPU | st.MEM_RCU,
        st.PTR_TO_BTF_ID | st.MEM_PERCPU | st.PTR_TRUSTED,
    ),
    at.ARG_PTR_TO_FUNC: (st.PTR_TO_FUNC,),
    at.ARG_PTR_TO_STACK: (st.PTR_TO_STACK,),
    at.ARG_PTR_TO_CONST_STR: (st.PTR_TO_MAP_VALUE,),
    at.ARG_PTR_TO_TIMER: (st.PTR_TO_MAP_VALUE,),
    at.ARG_KPTR_XCHG_DEST: (st.PTR_TO_MAP_VALUE, st.PTR_TO_BTF_ID | st.MEM_ALLOC),
    at.ARG_PTR_TO_DYNPTR: (st.PTR_TO_STACK, st.CONST_PTR_TO_DYNPTR),
}

# pointers that may be passed at any offset
_MOVABLE: Final = frozenset(
    {
        st.PTR_TO_STACK,
        *PACKET_TYPES,
        st.PTR_TO_MAP_KEY,
        st.PTR_TO_MAP_VALUE,
        st.PTR_TO_MEM,
        st.PTR_TO_MEM | st.MEM_RDONLY,
        st.PTR_TO_MEM | st.MEM_RINGBUF,
        st.PTR_TO_BUF,
        st.PTR_TO_BUF | st.MEM_RDONLY,
        st.PTR_TO_ARENA,
        st.SCALAR_VALUE,
    }
)


def _refuse(env: VerifierEnv, text: str, error: int = errno.EACCES) -> Reject:
    verbose(env, text)
    return Reject(error)


def arg_type_is_dynptr(arg_type: int) -> bool:
    return arg_type & st.BASE_TYPE_MASK == at.ARG_PTR_TO_DYNPTR


def _direction(arg_type: int) -> int:
    return BPF_WRITE if arg_type & at.MEM_WRITE else BPF_READ


# --- the register's type and offset -----------------------------------------------------------------------------------


def check_reg_type(env: VerifierEnv, regno: int, arg_type: int) -> None:
    """The register is of a kind the argument takes."""
    reg = cur_regs(env)[regno]
    base = arg_type & st.BASE_TYPE_MASK
    compatible = COMPATIBLE_REG_TYPES[base]
    folded = reg.type
    if arg_type & at.MEM_RDONLY:
        folded &= ~st.MEM_RDONLY
    if arg_type & at.PTR_MAYBE_NULL:
        folded &= ~st.PTR_MAYBE_NULL
    if base == at.ARG_PTR_TO_MEM:
        folded &= ~DYNPTR_TYPE_FLAG_MASK
    if folded not in compatible:
        expected = ", ".join(reg_type_str(env, t) for t in compatible)
        raise _refuse(env, f"R{regno} type={reg_type_str(env, reg.type)} expected={expected}\n")


def check_func_arg_reg_off(env: VerifierEnv, reg: RegState, regno: int, arg_type: int) -> None:
    """The pointer may be passed at its offset."""
    if arg_type & at.OBJ_RELEASE:
        if arg_type_is_dynptr(arg_type) and reg.type == st.PTR_TO_STACK:
            return
        if reg.off:
            text = f"R{regno} must have zero offset when passed to release func or trusted arg to kfunc\n"
            raise _refuse(env, text, errno.EINVAL)
        check_ptr_off_reg(env, reg, regno)
    elif reg.type not in _MOVABLE:
        check_ptr_off_reg(env, reg, regno, reg.type & st.BASE_TYPE_MASK == st.PTR_TO_BTF_ID)


# --- one check per kind --------------------------------------------------------------------------------------------------


class Arg:
    """One argument being checked."""

    __slots__ = ("arg_type", "index", "insn_idx", "meta", "proto", "reg", "regno")

    def __init__(self, proto: HelperProto, index: int, reg: RegState, meta: CallMeta, insn_idx: int) -> None:
        self.proto, self.index, self.reg, self.meta, self.insn_idx = proto, index, reg, meta, insn_idx
        self.regno = index + 1
        self.arg_type = proto.args[index]


def _map_ptr(env: VerifierEnv, arg: Arg) -> None:
    meta, reg = arg.meta, arg.reg
    if meta.map_ptr is not None and (meta.map_ptr is not reg.map_ptr or meta.map_uid != reg.map_uid):
        uids = f"R1 map_uid={meta.map_uid} doesn't match map pointer in R2 map_uid={reg.map_uid}"
        raise _refuse(env, f"timer pointer in {uids}\n", errno.EINVAL)
    meta.map_ptr, meta.map_uid = reg.map_ptr, reg.map_uid


def _map_of(env: VerifierEnv, arg: Arg, what: str) -> MapInfo:
    if arg.meta.map_ptr is None:
        raise _refuse(env, f"invalid map_ptr to access map->{what}\n")
    return arg.meta.map_ptr


def _map_key(env: VerifierEnv, arg: Arg) -> None:
    spec = _map_of(env, arg, "key").spec
    check_helper_mem_access(env, arg.regno, spec.key_size, BPF_READ, False, None)
    if spec.map_type in ELIDE_NULL_MAPS:
        arg.meta.const_map_key = get_constant_map_key(env, arg.reg, spec.key_size)


def _map_value(env: VerifierEnv, arg: Arg) -> None:
    if arg.arg_type & at.PTR_MAYBE_NULL and is_null(arg.reg):
        return
    info = _map_of(env, arg, "value")
    arg.meta.raw_mode = arg.arg_type & at.MEM_UNINIT != 0
    check_helper_mem_access(env, arg.regno, info.spec.value_size, _direction(arg.arg_type), False, arg.meta)


def _mem(env: VerifierEnv, arg: Arg) -> None:
    """Memory whose size the next argument tells, or that has a fixed one."""
    arg.meta.raw_mode = arg.arg_type & at.MEM_UNINIT != 0
    if not arg.arg_type & at.MEM_FIXED_SIZE:
        return
    check_helper_mem_access(env, arg.regno, arg.proto.fixed_size, _direction(arg.arg_type), False, arg.meta)
    if arg.arg_type & at.MEM_ALIGNED:
        check_ptr_alignment(env, arg.reg, 0, arg.proto.fixed_size, True)


def _mem_size(env: VerifierEnv, arg: Arg) -> None:
    zero_ok = arg.arg_type & st.BASE_TYPE_MASK == at.ARG_CONST_SIZE_OR_ZERO
    check_mem_size_reg(env, arg.reg, arg.regno, _direction(arg.proto.args[arg.index - 1]), zero_ok, arg.meta)


def _alloc_size(env: VerifierEnv, arg: Arg) -> None:
    if arg.reg.var_off.mask:
        raise _refuse(env, f"R{arg.regno} is not a known constant'\n")
    arg.meta.mem_size = arg.reg.var_off.value
    mark_chain_precision(env, arg.regno)


def _func(env: VerifierEnv, arg: Arg) -> None:
    arg.meta.subprogno = arg.reg.subprogno


def _dynptr(env: VerifierEnv, arg: Arg) -> None:
    process_dynptr_func(env, arg.regno, arg.insn_idx, arg.arg_type)


def _const_str(env: VerifierEnv, arg: Arg) -> None:
    check_reg_const_str(env, arg.reg, arg.regno)


def _spin_lock(env: VerifierEnv, arg: Arg) -> None:
    _check_map_field(env, arg, "spin_lock", "bpf_spin_lock")


def _timer(env: VerifierEnv, arg: Arg) -> None:
    _check_map_field(env, arg, "timer", "bpf_timer")
    arg.meta.map_ptr, arg.meta.map_uid = arg.reg.map_ptr, arg.reg.map_uid


def _check_map_field(env: VerifierEnv, arg: Arg, name: str, called: str) -> None:
    """The argument is the address of the map value's ``called`` field."""
    reg, info = arg.reg, arg.reg.map_ptr
    if reg.var_off.mask:
        text = f"R{arg.regno} doesn't have constant offset. {called} has to be at the constant offset\n"
        raise _refuse(env, text, errno.EINVAL)
    if not info.spec.btf_value_type_id and not info.btf_record:
        raise _refuse(env, f"map '{info.log_name}' has to have BTF in order to use {called}\n", errno.EINVAL)
    if name not in info.btf_record:
        raise _refuse(env, f"map '{info.log_name}' has no valid {called}\n", errno.EINVAL)
    at_off, field_off = fixed_offset(reg) + reg.off, info.btf_record[name]
    if at_off != field_off:
        text = f"off {at_off} doesn't point to 'struct {called}' that is at {field_off}\n"
        raise _refuse(env, text, errno.EINVAL)


def _percpu_btf_id(env: VerifierEnv, arg: Arg) -> None:
    if not arg.reg.btf_id:
        raise _refuse(env, f"Helper has invalid btf_id in R{arg.regno}\n")


def _kptr(env: VerifierEnv, arg: Arg) -> None:
    """No map here holds a kernel pointer: its type could only be told by the kernel's own BTF."""
    info = arg.reg.map_ptr
    if not info.spec.btf_value_type_id and not info.btf_record:
        raise _refuse(env, f"map '{info.log_name}' has to have BTF in order to use bpf_kptr_xchg\n", errno.EINVAL)
    if arg.reg.var_off.mask:
        text = f"R{arg.regno} doesn't have constant offset. kptr has to be at the constant offset\n"
        raise _refuse(env, text, errno.EINVAL)
    raise _refuse(env, f"map '{info.log_name}' has no valid kptr\n", errno.EINVAL)


_KINDS: Final[dict[int, Callable[[VerifierEnv, Arg], None]]] = {
    at.ARG_CONST_MAP_PTR: _map_ptr,
    at.ARG_PTR_TO_MAP_KEY: _map_key,
    at.ARG_PTR_TO_MAP_VALUE: _map_value,
    at.ARG_PTR_TO_PERCPU_BTF_ID: _percpu_btf_id,
    at.ARG_PTR_TO_SPIN_LOCK: _spin_lock,
    at.ARG_PTR_TO_TIMER: _timer,
    at.ARG_PTR_TO_FUNC: _func,
    at.ARG_PTR_TO_MEM: _mem,
    at.ARG_CONST_SIZE: _mem_size,
    at.ARG_CONST_SIZE_OR_ZERO: _mem_size,
    at.ARG_PTR_TO_DYNPTR: _dynptr,
    at.ARG_CONST_ALLOC_SIZE_OR_ZERO: _alloc_size,
    at.ARG_PTR_TO_CONST_STR: _const_str,
    at.ARG_KPTR_XCHG_DEST: _kptr,
}


def get_constant_map_key(env: VerifierEnv, key: RegState, key_size: int) -> int | None:
    """The key, where the stack is known to hold a constant there; it becomes precise. None otherwise."""
    if not env.bpf_capable or key.type != st.PTR_TO_STACK or key.var_off.mask:
        return None
    spi, byte = divmod(-(key.off + fixed_offset(key)) - 1, st.BPF_REG_SIZE)
    slot = owner(env, key).stack[spi]
    upto = slot.slot_type[: byte + 1]
    if len(upto) - len(upto.rstrip(bytes([st.STACK_ZERO]))) >= key_size:
        return 0
    if not is_spilled_scalar(slot) or len(upto) - len(upto.rstrip(bytes([st.STACK_SPILL]))) != key_size:
        return None
    if slot.spilled_ptr.var_off.mask:
        return None
    bt = Backtrack(current(env).curframe)
    bt.slots[key.frameno] |= 1 << spi
    mark_chain_precision_batch(env, current(env), bt)
    return slot.spilled_ptr.var_off.value


def check_reg_const_str(env: VerifierEnv, reg: RegState, regno: int) -> None:
    """The register points to a zero-terminated string that cannot change."""
    info: MapInfo = reg.map_ptr
    if not bpf_map_is_rdonly(info):
        raise _refuse(env, f"R{regno} does not point to a readonly map'\n")
    if reg.var_off.mask:
        raise _refuse(env, f"R{regno} is not a constant address'\n")
    if not has_direct_value(info):
        raise _refuse(env, "no direct value access support for this map type\n")
    check_map_access(env, regno, reg.off, info.spec.value_size - reg.off, False, ACCESS_HELPER)
    if b"\0" not in direct_value(info)[reg.off + fixed_offset(reg) :]:
        raise _refuse(env, "string is not zero-terminated\n", errno.EINVAL)


def process_dynptr_func(env: VerifierEnv, regno: int, insn_idx: int, arg_type: int) -> None:
    """A helper makes (MEM_UNINIT), reads (MEM_RDONLY) or changes the dynptr that ``regno`` points to."""
    reg = cur_regs(env)[regno]
    if reg.type not in (st.PTR_TO_STACK, st.CONST_PTR_TO_DYNPTR):
        text = f"arg#{regno - 1} expected pointer to stack or const struct bpf_dynptr\n"
        raise _refuse(env, text, errno.EINVAL)
    if arg_type & at.MEM_UNINIT:
        if not is_dynptr_reg_valid_uninit(env, reg):
            raise _refuse(env, "Dynptr has to be an uninitialized dynptr\n", errno.EINVAL)
        for off in range(0, DYNPTR_SIZE, 8):
            check_mem_access(env, insn_idx, regno, off, op.BPF_DW, BPF_WRITE, -1, False, False)
        mark_stack_slots_dynptr(env, reg, arg_type, insn_idx)
        return
    if reg.type == st.CONST_PTR_TO_DYNPTR and not arg_type & at.MEM_RDONLY:
        raise _refuse(env, "cannot pass pointer to const bpf_dynptr, the helper mutates it\n", errno.EINVAL)
    if not is_dynptr_reg_valid_init(env, reg):
        raise _refuse(env, f"Expected an initialized dynptr as arg #{regno - 1}\n", errno.EINVAL)
    if not is_dynptr_type_expected(env, reg, arg_type):
        kind = DYNPTR_NAMES[arg_to_dynptr_type(arg_type)]
        raise _refuse(env, f"Expected a dynptr of type {kind} as arg #{regno - 1}\n", errno.EINVAL)
    mark_dynptr_read(env, reg)


# --- references ----------------------------------------------------------------------------------------------------------


def _check_release(env: VerifierEnv, arg: Arg) -> None:
    """The helper gives back what the register holds."""
    reg, regno = arg.reg, arg.regno
    if arg_type_is_dynptr(arg.arg_type):
        if reg.type != st.PTR_TO_STACK:
            raise _refuse(env, "cannot release unowned const bpf_dynptr\n", errno.EINVAL)
        spi = dynptr_get_spi(env, reg)
        if spi < 0 or not owner(env, reg).stack[spi].spilled_ptr.ref_obj_id:
            raise _refuse(env, f"arg {regno} is an unacquired reference\n", errno.EINVAL)
    elif not reg.ref_obj_id and not is_null(reg):
        raise _refuse(env, f"R{regno} must be referenced when passed to release function\n", errno.EINVAL)
    arg.meta.release_regno = regno


def _note_reference(env: VerifierEnv, arg: Arg) -> None:
    reg, meta = arg.reg, arg.meta
    if not reg.ref_obj_id or arg.arg_type & st.BASE_TYPE_MASK == at.ARG_KPTR_XCHG_DEST:
        return
    if meta.ref_obj_id:
        ids = f"R{arg.regno} {reg.ref_obj_id} {meta.ref_obj_id}"
        raise _refuse(env, f"more than one arg with ref_obj_id {ids}", errno.EACCES)
    meta.ref_obj_id = reg.ref_obj_id


# --- the door ---------------------------------------------------------------------------------------------------------------

_SOCKMAP_TYPES: Final = {15: at.ARG_PTR_TO_BTF_ID_SOCK_COMMON, 18: at.ARG_PTR_TO_BTF_ID_SOCK_COMMON}
_BLOOM_FILTER: Final = 30
_PEEK: Final = FUNC_IDS["map_peek_elem"]


def _resolve_map_arg_type(env: VerifierEnv, arg: Arg) -> None:
    """A map value argument of some map kinds is something else."""
    info = arg.meta.map_ptr
    if info is None:
        raise _refuse(env, "invalid map_ptr to access map->type\n")
    kind = info.spec.map_type
    if kind in _SOCKMAP_TYPES:
        if arg.arg_type != at.ARG_PTR_TO_MAP_VALUE:
            raise _refuse(env, "invalid arg_type for sockmap/sockhash\n", errno.EINVAL)
        arg.arg_type = _SOCKMAP_TYPES[kind]
    elif kind == _BLOOM_FILTER and arg.meta.func_id == _PEEK:
        arg.arg_type = at.ARG_PTR_TO_MAP_VALUE


def check_func_arg(env: VerifierEnv, index: int, meta: CallMeta, proto: HelperProto, insn_idx: int) -> None:
    """Argument ``index`` (0: R1) of a call of ``proto``. Raises Reject."""
    regno = index + 1
    check_reg_arg(env, regno, SRC_OP)
    reg = cur_regs(env)[regno]
    arg_type = proto.args[index]
    if arg_type == at.ARG_ANYTHING:
        if is_pointer_value(env, regno):
            raise _refuse(env, f"R{regno} leaks addr into helper function\n")
        return
    if reg.type in PACKET_TYPES and not may_access_direct_pkt_data(env, meta, BPF_READ):
        raise _refuse(env, "helper access to the packet is not allowed\n")
    arg = Arg(proto, index, reg, meta, insn_idx)
    if arg_type & st.BASE_TYPE_MASK == at.ARG_PTR_TO_MAP_VALUE:
        _resolve_map_arg_type(env, arg)
    arg_type = arg.arg_type
    if not (arg_type & at.PTR_MAYBE_NULL and is_null(reg)):
        check_reg_type(env, regno, arg_type)
        check_func_arg_reg_off(env, reg, regno, arg_type)
    if arg_type & at.OBJ_RELEASE:
        _check_release(env, arg)
    _note_reference(env, arg)
    check = _KINDS.get(arg_type & st.BASE_TYPE_MASK)
    if check is not None:
        check(env, arg)
