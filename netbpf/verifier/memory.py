"""Loads and stores: what a register points to decides the bounds, the directions and what a load gives.

The stack's bytes are ``stack``'s, the context's table is ``ctx``'s; here are the other memories (map keys and values,
records, packets, sockets), the door that tells them apart (`check_mem_access`), and the same for memory that a helper
gets by pointer and size (`check_helper_mem_access`).
"""

from __future__ import annotations

import errno
from functools import cache
from typing import Final

from netbpf.abi.prog_types import ProgType
from netbpf.errors import ENOTSUPP
from netbpf.ints import S64_MIN, U64_MAX, s32
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction
from netbpf.verifier import state as st
from netbpf.verifier.alu import BPF_MAX_VAR_OFF
from netbpf.verifier.bounds import bounds_violation
from netbpf.verifier.ctx import ctx_load, ctx_store_ok, sock_load_ok
from netbpf.verifier.env import MapInfo, Reject, VerifierEnv
from netbpf.verifier.log import reg_type_str, verbose, verbose_linfo
from netbpf.verifier.map_struct import check_ptr_to_btf_access, check_ptr_to_map_access
from netbpf.verifier.precision import mark_chain_precision
from netbpf.verifier.regs import (
    DST_OP,
    DST_OP_NO_MARK,
    SRC_OP,
    check_reg_arg,
    coerce_reg_to_size,
    coerce_reg_to_size_sx,
    cur_regs,
    fixed_offset,
    known_reg,
    mark_ptr_not_null_reg,
    mark_reg_unknown,
    reg_bounds_sanity_check,
    unknown_reg,
    unknown_reg_imprecise,
)
from netbpf.verifier.stack import (
    BPF_READ,
    BPF_WRITE,
    check_stack_access_within_bounds,
    check_stack_range_initialized,
    check_stack_read,
    check_stack_write,
    is_null,
)
from netbpf.verifier.state import RegState, Tnum
from netbpf.verifier.tnum import tnum_strn

ACCESS_DIRECT: Final = 1
ACCESS_HELPER: Final = 2

BPF_MAX_VAR_SIZ: Final = 1 << 29

BPF_F_RDONLY_PROG: Final = 1 << 7
BPF_F_WRONLY_PROG: Final = 1 << 8
MAP_TYPE_ARRAY: Final = 2
NET_IP_ALIGN: Final = 2

# what a misaligned access is called, by base type; other pointers have no name
_ALIGNED_KINDS: Final = {
    st.PTR_TO_FLOW_KEYS: "flow keys ",
    st.PTR_TO_MAP_KEY: "key ",
    st.PTR_TO_MAP_VALUE: "value ",
    st.PTR_TO_CTX: "context ",
    st.PTR_TO_STACK: "stack ",
    st.PTR_TO_SOCKET: "sock ",
    st.PTR_TO_SOCK_COMMON: "sock_common ",
    st.PTR_TO_TCP_SOCK: "tcp_sock ",
    st.PTR_TO_XDP_SOCK: "xdp_sock ",
}
SOCK_TYPES: Final = frozenset({st.PTR_TO_SOCKET, st.PTR_TO_SOCK_COMMON, st.PTR_TO_TCP_SOCK, st.PTR_TO_XDP_SOCK})
PACKET_TYPES: Final = frozenset({st.PTR_TO_PACKET, st.PTR_TO_PACKET_META})

# pointers whose accesses are rewritten per kind, so that one instruction can only have one kind of them
_REWRITTEN: Final = frozenset({st.PTR_TO_CTX, *SOCK_TYPES, st.PTR_TO_BTF_ID, st.PTR_TO_ARENA})

# BTF fields of a map value: name in MapInfo.btf_record -> (name in messages, bytes)
BTF_FIELDS: Final = {
    "spin_lock": ("bpf_spin_lock", 4),
    "res_spin_lock": ("bpf_res_spin_lock", 8),
    "timer": ("bpf_timer", 16),
    "workqueue": ("bpf_wq", 16),
    "task_work": ("bpf_task_work", 8),
    "kptr_unref": ("kptr", 8),
    "kptr_ref": ("kptr", 8),
    "kptr_percpu": ("percpu_kptr", 8),
    "uptr": ("uptr", 8),
    "list_head": ("bpf_list_head", 16),
    "list_node": ("bpf_list_node", 24),
    "rb_root": ("bpf_rb_root", 16),
    "rb_node": ("bpf_rb_node", 32),
    "refcount": ("bpf_refcount", 4),
}
KPTR_FIELDS: Final = frozenset({"kptr_unref", "kptr_ref", "kptr_percpu", "uptr"})

SIZE_BYTES: Final = op.SIZE_BYTES


class CallMeta:
    """What checking a call's arguments found (struct bpf_call_arg_meta)."""

    __slots__ = (
        "access_size",
        "const_map_key",
        "dynptr_id",
        "func_id",
        "map_ptr",
        "map_uid",
        "mem_size",
        "msize_max_value",
        "pkt_access",
        "raw_mode",
        "ref_obj_id",
        "regno",
        "release_regno",
        "subprogno",
    )

    def __init__(self, func_id: int, pkt_access: bool) -> None:
        self.func_id, self.pkt_access = func_id, pkt_access
        self.map_ptr: MapInfo | None = None
        self.map_uid = 0
        self.raw_mode = False  # the memory argument at hand may be uninitialised
        self.access_size = 0  # bytes of stack from regno's offset that the helper will fill
        self.regno = 0
        self.release_regno = 0
        self.mem_size = 0
        self.msize_max_value = 0
        self.ref_obj_id = 0
        self.dynptr_id = 0
        self.subprogno = 0
        self.const_map_key: int | None = None


def _refuse(env: VerifierEnv, text: str, error: int = errno.EACCES) -> Reject:
    verbose(env, text)
    return Reject(error)


def is_pointer_value(env: VerifierEnv, regno: int) -> bool:
    """Whether storing the register would tell the program an address it may not know."""
    return not env.allow_ptr_leaks and cur_regs(env)[regno].type != st.SCALAR_VALUE


# --- alignment and offsets --------------------------------------------------------------------------------------------


def _is_aligned(var_off: Tnum, off: int, size: int) -> bool:
    """Whether the sum is a multiple of ``size``: adding a constant leaves unknown low bits unknown."""
    return ((var_off.value + off) | var_off.mask) & (size - 1) == 0


def check_ptr_alignment(env: VerifierEnv, reg: RegState, off: int, size: int, strict_alignment_once: bool) -> None:
    """The address is a multiple of ``size`` where that is asked for: always on the stack, elsewhere by flag."""
    base = reg.type
    if size == 1 or not (base == st.PTR_TO_STACK or env.strict_alignment or strict_alignment_once):
        return
    if base == st.PTR_TO_ARENA:
        return
    if base in PACKET_TYPES:
        if not _is_aligned(reg.var_off, NET_IP_ALIGN + reg.off + off, size):
            where = f"{NET_IP_ALIGN}+{tnum_strn(reg.var_off)}+{reg.off}+{off}"
            raise _refuse(env, f"misaligned packet access off {where} size {size}\n")
        return
    if not _is_aligned(reg.var_off, reg.off + off, size):
        kind = _ALIGNED_KINDS.get(base, "")
        raise _refuse(env, f"misaligned {kind}access off {tnum_strn(reg.var_off)}+{reg.off}+{off} size {size}\n")


def check_ptr_off_reg(env: VerifierEnv, reg: RegState, regno: int, fixed_off_ok: bool = False) -> None:
    """The pointer was not moved (or, with ``fixed_off_ok``, only forward by a known distance)."""
    if reg.off < 0:
        kind = reg_type_str(env, reg.type)
        raise _refuse(env, f"negative offset {kind} ptr R{regno} off={reg.off} disallowed\n")
    if not fixed_off_ok and reg.off:
        kind = reg_type_str(env, reg.type)
        raise _refuse(env, f"dereference of modified {kind} ptr R{regno} off={reg.off} disallowed\n")
    if reg.var_off.mask or reg.var_off.value:
        kind = reg_type_str(env, reg.type)
        raise _refuse(env, f"variable {kind} access var_off={tnum_strn(reg.var_off)} disallowed\n")


# --- regions of known size ---------------------------------------------------------------------------------------------


def __check_mem_access(env: VerifierEnv, regno: int, off: int, size: int, mem_size: int, zero_size_allowed: bool) -> None:
    """``size`` bytes at ``off`` lie within ``mem_size``."""
    if off >= 0 and (size > 0 or (size == 0 and zero_size_allowed)) and off + size <= mem_size:
        return
    reg = cur_regs(env)[regno]
    where = f"off={off} size={size}"
    if reg.type == st.PTR_TO_MAP_KEY:
        raise _refuse(env, f"invalid access to map key, key_size={mem_size} {where}\n")
    if reg.type == st.PTR_TO_MAP_VALUE:
        raise _refuse(env, f"invalid access to map value, value_size={mem_size} {where}\n")
    if reg.type in PACKET_TYPES or reg.type == st.PTR_TO_PACKET_END:
        raise _refuse(env, f"invalid access to packet, {where}, R{regno}(id={reg.id},off={off},r={mem_size})\n")
    raise _refuse(env, f"invalid access to memory, mem_size={mem_size} {where}\n")


def check_mem_region_access(env: VerifierEnv, regno: int, off: int, size: int, mem_size: int, zero_size_allowed: bool) -> None:
    """The region holds the access at both ends of the register's range. ``off`` includes the register's fixed offset."""
    reg = cur_regs(env)[regno]
    low = reg.smin_value + off
    umax, last = reg.umax_value, mem_size - size
    if size > 0 and 0 <= low <= last < BPF_MAX_VAR_OFF and umax < BPF_MAX_VAR_OFF and umax + off <= last:
        return  # what the checks below come to, for a region that is not huge
    if reg.smin_value < 0 and (reg.smin_value == S64_MIN or low != s32(low) or low < 0):
        raise _refuse(env, f"R{regno} min value is negative, either use unsigned index or do a if (index >=0) check.\n")
    try:
        __check_mem_access(env, regno, s32(low), size, mem_size, zero_size_allowed)
    except Reject:
        verbose(env, f"R{regno} min value is outside of the allowed memory range\n")
        raise
    if reg.umax_value >= BPF_MAX_VAR_OFF:
        raise _refuse(env, f"R{regno} unbounded memory access, make sure to bounds check any such access\n")
    try:
        __check_mem_access(env, regno, s32(reg.umax_value + off), size, mem_size, zero_size_allowed)
    except Reject:
        verbose(env, f"R{regno} max value is outside of the allowed memory range\n")
        raise


# --- map values -----------------------------------------------------------------------------------------------------------


def check_map_access_type(env: VerifierEnv, regno: int, off: int, size: int, kind: int) -> None:
    """The map lets programs read or write at all."""
    spec = cur_regs(env)[regno].map_ptr.spec
    flags = spec.map_flags
    if kind == BPF_WRITE and flags & BPF_F_RDONLY_PROG:
        raise _refuse(env, f"write into map forbidden, value_size={spec.value_size} off={off} size={size}\n")
    if kind == BPF_READ and flags & BPF_F_WRONLY_PROG and not flags & BPF_F_RDONLY_PROG:
        raise _refuse(env, f"read from map forbidden, value_size={spec.value_size} off={off} size={size}\n")


def _check_btf_field(env: VerifierEnv, reg: RegState, name: str, at: int, off: int, size: int, src: int) -> None:
    """An access that touches a field of the kernel's own: only whole kptrs, directly, and only by their own rules."""
    called = BTF_FIELDS[name][0]
    if name not in KPTR_FIELDS:
        raise _refuse(env, f"{called} cannot be accessed directly by load/store\n")
    if src != ACCESS_DIRECT:
        raise _refuse(env, f"{called} cannot be accessed indirectly by helper\n")
    if reg.var_off.mask:
        raise _refuse(env, f"{called} access cannot have variable offset\n")
    if at != off + fixed_offset(reg):
        raise _refuse(env, f"{called} access misaligned expected={at} off={off + fixed_offset(reg) & U64_MAX}\n")
    if size != 8:
        raise _refuse(env, f"{called} access size must be BPF_DW\n")


def check_map_access(env: VerifierEnv, regno: int, off: int, size: int, zero_size_allowed: bool, src: int) -> None:
    """The access lies in the value and touches none of the fields that belong to the kernel."""
    reg = cur_regs(env)[regno]
    info: MapInfo = reg.map_ptr
    check_mem_region_access(env, regno, off, size, info.spec.value_size, zero_size_allowed)
    if not info.btf_record:
        return
    for name, at in sorted(info.btf_record.items(), key=lambda item: item[1]):
        field = BTF_FIELDS.get(name)
        if field is not None and reg.smin_value + off < at + field[1] and at < reg.umax_value + off + size:
            _check_btf_field(env, reg, name, at, off, size, src)


def bpf_map_is_rdonly(info: MapInfo) -> bool:
    """No one can change the map any more: read-only for programs, frozen for user space."""
    return info.frozen and info.spec.map_flags & BPF_F_RDONLY_PROG != 0


def has_direct_value(info: MapInfo) -> bool:
    """Whether the map kind has values at a constant address (map_direct_value_addr)."""
    return info.spec.map_type == MAP_TYPE_ARRAY


def direct_value(info: MapInfo) -> bytes:
    """The bytes at a constant address of a map. Raises Reject(ENOTSUPP) for an array of several elements."""
    if info.spec.max_entries != 1:
        raise Reject(ENOTSUPP)
    size = info.spec.value_size
    return (info.contents or b"").ljust(size, b"\0")[:size]


def _load_map_value(env: VerifierEnv, reg: RegState, off: int, size: int, dst_regno: int, is_ldsx: bool) -> None:
    """What a load from a map value gives: the constant that is there if it cannot change, else anything."""
    regs = cur_regs(env)
    info: MapInfo = reg.map_ptr
    if reg.var_off.mask or not (bpf_map_is_rdonly(info) and has_direct_value(info)):
        mark_reg_unknown(env, regs, dst_regno)
        return
    at = off + fixed_offset(reg)
    piece = direct_value(info)[at : at + size]
    regs[dst_regno] = known_reg(int.from_bytes(piece, "little", signed=is_ldsx), regs[dst_regno].precise or not env.bpf_capable)


def _access_map_value(
    env: VerifierEnv, reg: RegState, regno: int, off: int, size: int, kind: int, value_regno: int, is_ldsx: bool
) -> None:
    if kind == BPF_WRITE and value_regno >= 0 and is_pointer_value(env, value_regno):
        raise _refuse(env, f"R{value_regno} leaks addr into map\n")
    if reg.map_ptr.spec.map_flags & (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG):
        check_map_access_type(env, regno, off, size, kind)
    check_map_access(env, regno, off, size, False, ACCESS_DIRECT)
    if kind == BPF_READ and value_regno >= 0:
        _load_map_value(env, reg, off, size, value_regno, is_ldsx)


# --- other memories -------------------------------------------------------------------------------------------------------


def _access_map_key(env: VerifierEnv, reg: RegState, regno: int, off: int, size: int, kind: int, value_regno: int) -> None:
    if kind == BPF_WRITE:
        raise _refuse(env, f"write to change key R{regno} not allowed\n")
    check_mem_region_access(env, regno, off, size, reg.map_ptr.spec.key_size, False)
    if value_regno >= 0:
        mark_reg_unknown(env, cur_regs(env), value_regno)


def _access_mem(env: VerifierEnv, reg: RegState, regno: int, off: int, size: int, kind: int, value_regno: int) -> None:
    rdonly = reg.type & st.MEM_RDONLY
    if reg.type & st.PTR_MAYBE_NULL:
        raise _refuse(env, f"R{regno} invalid mem access '{reg_type_str(env, reg.type)}'\n")
    if kind == BPF_WRITE and rdonly:
        raise _refuse(env, f"R{regno} cannot write into {reg_type_str(env, reg.type)}\n")
    if kind == BPF_WRITE and value_regno >= 0 and is_pointer_value(env, value_regno):
        raise _refuse(env, f"R{value_regno} leaks addr into mem\n")
    if not (rdonly and reg.type & st.PTR_UNTRUSTED):
        check_mem_region_access(env, regno, off, size, reg.mem_size, False)
    if value_regno >= 0 and (kind == BPF_READ or rdonly):
        mark_reg_unknown(env, cur_regs(env), value_regno)


def check_ctx_access(env: VerifierEnv, insn_idx: int, off: int, size: int, kind: int, is_ldsx: bool) -> int:
    """The type of register a permitted access gives (a store: SCALAR_VALUE)."""
    if kind == BPF_READ:
        access = ctx_load(env, off, size)
        if access is not None and not (is_ldsx and access.reg_type != st.SCALAR_VALUE):
            return access.reg_type
    elif ctx_store_ok(env, off, size):
        return st.SCALAR_VALUE
    verbose(env, f"invalid bpf_context access off={off} size={size}\n")
    verbose_linfo(env, insn_idx, "; ")
    raise Reject(errno.EACCES)


def _access_ctx(
    env: VerifierEnv, reg: RegState, regno: int, insn_idx: int, off: int, size: int, kind: int, value_regno: int, is_ldsx: bool
) -> None:
    if kind == BPF_WRITE and value_regno >= 0 and is_pointer_value(env, value_regno):
        raise _refuse(env, f"R{value_regno} leaks addr into ctx\n")
    check_ptr_off_reg(env, reg, regno)
    reg_type = check_ctx_access(env, insn_idx, off, size, kind, is_ldsx)
    if kind != BPF_READ or value_regno < 0:
        return
    regs = cur_regs(env)
    if reg_type == st.SCALAR_VALUE:
        mark_reg_unknown(env, regs, value_regno)
        return
    pointer = known_reg(0, regs[value_regno].precise or not env.bpf_capable).copy()
    pointer.type = reg_type
    if reg_type & st.PTR_MAYBE_NULL:
        pointer.id = env.new_id()
    regs[value_regno] = pointer


def check_packet_access(env: VerifierEnv, regno: int, off: int, size: int, zero_size_allowed: bool) -> None:
    """The bytes are within what the program compared with the packet's end."""
    reg = cur_regs(env)[regno]
    if reg.smin_value < 0:
        raise _refuse(env, f"R{regno} min value is negative, either use unsigned index or do a if (index >=0) check.\n")
    try:
        if reg.range < 0:
            raise Reject(errno.EINVAL)
        __check_mem_access(env, regno, off, size, reg.range, zero_size_allowed)
    except Reject:
        verbose(env, f"R{regno} offset is outside of the packet\n")
        raise


# program types that may write packets through pointers, and that may only read them
_PACKET_WRITERS: Final = frozenset(
    {ProgType.SCHED_CLS, ProgType.SCHED_ACT, ProgType.XDP, ProgType.LWT_XMIT, ProgType.SK_SKB, ProgType.SK_MSG}
)
_PACKET_READERS: Final = frozenset(
    {
        ProgType.LWT_IN,
        ProgType.LWT_OUT,
        ProgType.LWT_SEG6LOCAL,
        ProgType.SK_REUSEPORT,
        ProgType.FLOW_DISSECTOR,
        ProgType.CGROUP_SKB,
    }
)


def may_access_direct_pkt_data(env: VerifierEnv, meta: CallMeta | None, kind: int) -> bool:
    """Whether the program type may use packet pointers so."""
    if env.prog_type in _PACKET_READERS:
        return kind != BPF_WRITE and (meta is None or meta.pkt_access)
    if env.prog_type in _PACKET_WRITERS:
        if meta is not None:
            return meta.pkt_access
        env.seen_direct_write = True
        return True
    return False


def _access_packet(env: VerifierEnv, regno: int, off: int, size: int, kind: int, value_regno: int) -> None:
    if kind == BPF_WRITE and not may_access_direct_pkt_data(env, None, kind):
        raise _refuse(env, "cannot write into packet\n")
    if kind == BPF_WRITE and value_regno >= 0 and is_pointer_value(env, value_regno):
        raise _refuse(env, f"R{value_regno} leaks addr into packet\n")
    check_packet_access(env, regno, off, size, False)
    if kind == BPF_READ and value_regno >= 0:
        mark_reg_unknown(env, cur_regs(env), value_regno)


def _access_sock(env: VerifierEnv, reg: RegState, regno: int, off: int, size: int, kind: int, value_regno: int) -> None:
    if kind == BPF_WRITE:
        raise _refuse(env, f"R{regno} cannot write into {reg_type_str(env, reg.type)}\n")
    if reg.smin_value < 0:
        raise _refuse(env, f"R{regno} min value is negative, either use unsigned index or do a if (index >=0) check.\n")
    if not sock_load_ok(reg.type, off, size):
        raise _refuse(env, f"R{regno} invalid {reg_type_str(env, reg.type)} access off={off} size={size}\n")
    if value_regno >= 0:
        mark_reg_unknown(env, cur_regs(env), value_regno)


# --- the door ---------------------------------------------------------------------------------------------------------------


def _access(
    env: VerifierEnv, reg: RegState, insn_idx: int, regno: int, off: int, size: int, kind: int, value_regno: int, is_ldsx: bool
) -> None:
    """check_mem_access after alignment; ``off`` includes the register's fixed offset."""
    t = reg.type
    if t == st.PTR_TO_STACK:
        check_stack_access_within_bounds(env, regno, off, size, kind)
        if kind == BPF_READ:
            check_stack_read(env, regno, off, size, value_regno)
        else:
            check_stack_write(env, regno, off, size, value_regno, insn_idx)
    elif t == st.PTR_TO_MAP_VALUE:
        _access_map_value(env, reg, regno, off, size, kind, value_regno, is_ldsx)
    elif t == st.PTR_TO_CTX:
        _access_ctx(env, reg, regno, insn_idx, off, size, kind, value_regno, is_ldsx)
    elif t == st.PTR_TO_MAP_KEY:
        _access_map_key(env, reg, regno, off, size, kind, value_regno)
    elif t & st.BASE_TYPE_MASK == st.PTR_TO_MEM:
        _access_mem(env, reg, regno, off, size, kind, value_regno)
    elif t in PACKET_TYPES:
        _access_packet(env, regno, off, size, kind, value_regno)
    elif t in SOCK_TYPES:
        _access_sock(env, reg, regno, off, size, kind, value_regno)
    elif t == st.CONST_PTR_TO_MAP:
        check_ptr_to_map_access(env, reg, regno, off, size, kind, value_regno)
    elif t & (st.BASE_TYPE_MASK | st.PTR_MAYBE_NULL) == st.PTR_TO_BTF_ID:
        check_ptr_to_btf_access(env, reg, regno, off, size, kind, value_regno)
    else:
        raise _refuse(env, f"R{regno} invalid mem access '{reg_type_str(env, t)}'\n")


def _narrow(reg: RegState, size: int, is_ldsx: bool) -> RegState:
    """The register after a load of ``size`` bytes of it."""
    narrowed = reg.copy()
    (coerce_reg_to_size_sx if is_ldsx else coerce_reg_to_size)(narrowed, size)
    return narrowed


@cache
def _narrow_unknown(precise: bool, size: int, is_ldsx: bool) -> RegState:
    reg = unknown_reg_imprecise().copy()
    reg.precise = precise
    return _narrow(reg, size, is_ldsx)


def _narrow_loaded(env: VerifierEnv, regno: int, size: int, is_ldsx: bool) -> None:
    regs = cur_regs(env)
    loaded = regs[regno]
    if loaded is unknown_reg(env):
        regs[regno] = _narrow_unknown(loaded.precise, size, is_ldsx)
    elif loaded.type == st.SCALAR_VALUE:
        regs[regno] = _narrow(loaded, size, is_ldsx)


def check_mem_access(
    env: VerifierEnv,
    insn_idx: int,
    regno: int,
    off: int,
    bpf_size: int,
    kind: int,
    value_regno: int,
    strict_alignment_once: bool,
    is_ldsx: bool,
) -> None:
    """An instruction reads into register ``value_regno`` or writes from it (-1: no register); ``bpf_size`` is BPF_B .. BPF_DW.

    Raises Reject.
    """
    reg = cur_regs(env)[regno]
    size = SIZE_BYTES[bpf_size]
    check_ptr_alignment(env, reg, off, size, strict_alignment_once)
    off += reg.off
    _access(env, reg, insn_idx, regno, off, size, kind, value_regno, is_ldsx)
    if kind == BPF_READ and value_regno >= 0 and size != 8:
        _narrow_loaded(env, value_regno, size, is_ldsx)


def save_aux_ptr_type(env: VerifierEnv, reg_type: int, allow_trust_mismatch: bool = False) -> None:
    """One instruction goes through one kind of pointer where the kernel rewrites the access. Raises Reject EINVAL."""
    aux = env.insn_aux[env.insn_idx]
    if aux.ptr_type == st.NOT_INIT:
        aux.ptr_type = reg_type
    elif aux.ptr_type != reg_type and (
        reg_type & st.BASE_TYPE_MASK in _REWRITTEN or aux.ptr_type & st.BASE_TYPE_MASK in _REWRITTEN
    ):
        raise _refuse(env, "same insn cannot be used with different pointers\n", errno.EINVAL)


# --- instructions -----------------------------------------------------------------------------------------------------------


def check_load_mem(
    env: VerifierEnv, insn: Instruction, strict_alignment_once: bool, is_ldsx: bool, allow_trust_mismatch: bool, ctx: str
) -> None:
    """LDX; ``ctx`` is how a broken invariant would be told. Only pointers to kernel objects could mismatch in trust."""
    check_reg_arg(env, insn.src, SRC_OP)
    check_reg_arg(env, insn.dst, DST_OP_NO_MARK)
    regs = cur_regs(env)
    src_reg_type = regs[insn.src].type
    check_mem_access(env, env.insn_idx, insn.src, insn.off, insn.code & 0x18, BPF_READ, insn.dst, strict_alignment_once, is_ldsx)
    save_aux_ptr_type(env, src_reg_type, allow_trust_mismatch)
    if src_reg_type == st.PTR_TO_STACK and bounds_violation(regs[insn.dst]):  # nothing else can be out of bounds
        draft = regs[insn.dst].copy()
        reg_bounds_sanity_check(env, draft, ctx)
        regs[insn.dst] = draft


def check_store_reg(env: VerifierEnv, insn: Instruction, strict_alignment_once: bool) -> None:
    """STX."""
    check_reg_arg(env, insn.src, SRC_OP)
    check_reg_arg(env, insn.dst, SRC_OP)
    dst_reg_type = cur_regs(env)[insn.dst].type
    check_mem_access(env, env.insn_idx, insn.dst, insn.off, insn.code & 0x18, BPF_WRITE, insn.src, strict_alignment_once, False)
    save_aux_ptr_type(env, dst_reg_type)


_ATOMIC_RMW: Final = frozenset(
    {o | f for o in (op.BPF_ADD, op.BPF_AND, op.BPF_OR, op.BPF_XOR) for f in (0, op.BPF_FETCH)} | {op.BPF_XCHG, op.BPF_CMPXCHG}
)
_NOT_ATOMIC: Final = frozenset({st.PTR_TO_CTX, *PACKET_TYPES, st.PTR_TO_FLOW_KEYS, *SOCK_TYPES})


def _check_atomic_ptr(env: VerifierEnv, regno: int, what: str) -> None:
    t = cur_regs(env)[regno].type
    if t in _NOT_ATOMIC:
        raise _refuse(env, f"BPF_ATOMIC {what} R{regno} {reg_type_str(env, t)} is not allowed\n")


def _check_atomic_operands(env: VerifierEnv, insn: Instruction) -> None:
    check_reg_arg(env, insn.src, SRC_OP)
    check_reg_arg(env, insn.dst, SRC_OP)
    if insn.imm == op.BPF_CMPXCHG:
        check_reg_arg(env, op.BPF_REG_0, SRC_OP)
        if is_pointer_value(env, op.BPF_REG_0):
            raise _refuse(env, "R0 leaks addr into mem\n")
    if is_pointer_value(env, insn.src):
        raise _refuse(env, f"R{insn.src} leaks addr into mem\n")
    _check_atomic_ptr(env, insn.dst, "stores into")


def check_atomic_rmw(env: VerifierEnv, insn: Instruction) -> None:
    """Read-modify-write: memory is read (into a register, when fetching) and then written."""
    if insn.code & 0x18 not in (op.BPF_W, op.BPF_DW):
        raise _refuse(env, "invalid atomic operand size\n", errno.EINVAL)
    _check_atomic_operands(env, insn)
    load_reg = -1
    if insn.imm & op.BPF_FETCH:
        load_reg = op.BPF_REG_0 if insn.imm == op.BPF_CMPXCHG else insn.src
        check_reg_arg(env, load_reg, DST_OP)
    size, idx = insn.code & 0x18, env.insn_idx
    check_mem_access(env, idx, insn.dst, insn.off, size, BPF_READ, -1, True, False)
    if load_reg >= 0:
        check_mem_access(env, idx, insn.dst, insn.off, size, BPF_READ, load_reg, True, False)
    check_mem_access(env, idx, insn.dst, insn.off, size, BPF_WRITE, -1, True, False)


def check_atomic(env: VerifierEnv, insn: Instruction) -> None:
    """STX | ATOMIC."""
    if insn.imm in _ATOMIC_RMW:
        check_atomic_rmw(env, insn)
    elif insn.imm == op.BPF_LOAD_ACQ:
        check_load_mem(env, insn, True, False, False, "atomic_load")
        _check_atomic_ptr(env, insn.src, "loads from")
    elif insn.imm == op.BPF_STORE_REL:
        check_store_reg(env, insn, True)
        _check_atomic_ptr(env, insn.dst, "stores into")
    else:
        raise _refuse(env, f"BPF_ATOMIC uses invalid atomic opcode {insn.imm & 0xFFFFFFFF:02x}\n", errno.EINVAL)


# --- memory that a helper gets -----------------------------------------------------------------------------------------------


def _refuse_helper_write(env: VerifierEnv, regno: int, reg: RegState) -> Reject:
    return _refuse(env, f"R{regno} cannot write into {reg_type_str(env, reg.type)}\n")


def check_helper_mem_access(
    env: VerifierEnv, regno: int, access_size: int, kind: int, zero_size_allowed: bool, meta: CallMeta | None
) -> None:
    """A helper reads or writes ``access_size`` bytes through register ``regno``."""
    reg = cur_regs(env)[regno]
    base = reg.type & st.BASE_TYPE_MASK
    if base == st.PTR_TO_STACK:
        raw_mode = meta is not None and meta.raw_mode
        if check_stack_range_initialized(env, regno, reg.off, access_size, zero_size_allowed, kind, raw_mode):
            assert meta is not None
            meta.access_size, meta.regno = access_size, regno
    elif base == st.PTR_TO_MAP_VALUE:
        check_map_access_type(env, regno, reg.off, access_size, kind)
        check_map_access(env, regno, reg.off, access_size, zero_size_allowed, ACCESS_HELPER)
    elif base == st.PTR_TO_MEM:
        if reg.type & st.MEM_RDONLY and kind == BPF_WRITE:
            raise _refuse_helper_write(env, regno, reg)
        check_mem_region_access(env, regno, reg.off, access_size, reg.mem_size, zero_size_allowed)
    elif base == st.PTR_TO_MAP_KEY:
        if kind == BPF_WRITE:
            raise _refuse_helper_write(env, regno, reg)
        check_mem_region_access(env, regno, reg.off, access_size, reg.map_ptr.spec.key_size, False)
    elif base in PACKET_TYPES:
        check_packet_access(env, regno, reg.off, access_size, zero_size_allowed)
    elif not (zero_size_allowed and access_size == 0 and is_null(reg)):
        raise _refuse(env, f"R{regno} type={reg_type_str(env, reg.type)} expected=fp\n")


def check_mem_size_reg(env: VerifierEnv, reg: RegState, regno: int, kind: int, zero_size_allowed: bool, meta: CallMeta) -> None:
    """A helper gets memory through the register before ``regno`` and its size in ``regno``."""
    meta.msize_max_value = reg.umax_value
    if reg.smin_value < 0:
        raise _refuse(env, f"R{regno} min value is negative, either use unsigned or 'var &= const'\n")
    if reg.umin_value == 0 and not zero_size_allowed:
        raise _refuse(env, f"R{regno} invalid zero-sized read: u64=[{reg.umin_value},{reg.umax_value}]\n")
    if reg.umax_value >= BPF_MAX_VAR_SIZ:
        raise _refuse(env, f"R{regno} unbounded memory access, use 'var &= const' or 'if (var < const)'\n")
    fill = None if reg.var_off.mask else meta
    check_helper_mem_access(env, regno - 1, reg.umax_value, kind, zero_size_allowed, fill)
    mark_chain_precision(env, regno)


def check_mem_reg(env: VerifierEnv, reg: RegState, regno: int, mem_size: int) -> None:
    """A global function gets memory of ``mem_size`` bytes (or NULL): readable and writable."""
    if is_null(reg):
        return
    regs = cur_regs(env)
    if reg.type & st.PTR_MAYBE_NULL:
        draft = reg.copy()
        mark_ptr_not_null_reg(draft)
        regs[regno] = draft
    try:
        check_helper_mem_access(env, regno, mem_size, BPF_READ, True, None)
        check_helper_mem_access(env, regno, mem_size, BPF_WRITE, True, None)
    finally:
        regs[regno] = reg
