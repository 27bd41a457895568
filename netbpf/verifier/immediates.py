"""Wide immediates and the maps they name; every opcode is one the kernel knows (resolve_pseudo_ldimm64)."""

from __future__ import annotations

import errno
from typing import Final

from netbpf.errors import ENOTSUPP
from netbpf.ints import u32
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction, split_imm64
from netbpf.isa.opcodes import BPF_JA, BPF_JCOND, BPF_JMP, BPF_JMP32, BPF_PSEUDO_FUNC
from netbpf.verifier.env import MapInfo, Reject, VerifierEnv
from netbpf.verifier.log import verbose
from netbpf.verifier.state import PTR_TO_FUNC
from netbpf.verifier.structure import CALL_CODE, EXIT_CODE, LD_IMM64

MAX_USED_MAPS: Final = 64
ARRAY_VALUE_OFFSET: Final = 0x110  # of the values in the kernel's struct bpf_array
BPF_MAX_VAR_OFF: Final = 1 << 29


def _public_opcodes() -> frozenset[int]:
    """Every opcode of 6.18's instruction table: what the kernel knows at all."""
    codes: set[int] = set()
    for cls in (op.BPF_ALU, op.BPF_ALU64):
        for alu in (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0, 0xB0, 0xC0):
            codes |= {cls | alu, cls | alu | op.BPF_X}
        codes.add(cls | op.BPF_NEG)
    codes |= {op.BPF_ALU | op.BPF_END, op.BPF_ALU | op.BPF_END | op.BPF_TO_BE, op.BPF_ALU64 | op.BPF_END}
    for cls in (BPF_JMP, BPF_JMP32):
        for jmp in (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0):
            codes |= {cls | jmp, cls | jmp | op.BPF_X}
        codes.add(cls | BPF_JA)
    codes |= {CALL_CODE, EXIT_CODE, BPF_JMP | BPF_JCOND}
    for size in op.SIZE_BYTES:
        codes |= {op.BPF_LDX | op.BPF_MEM | size, op.BPF_ST | op.BPF_MEM | size, op.BPF_STX | op.BPF_MEM | size}
        codes.add(op.BPF_STX | op.BPF_ATOMIC | size)
        if size != op.BPF_DW:
            codes |= {op.BPF_LDX | op.BPF_MEMSX | size, op.BPF_LD | op.BPF_ABS | size, op.BPF_LD | op.BPF_IND | size}
    codes.add(LD_IMM64)
    return frozenset(codes)


PUBLIC_OPCODES: Final = _public_opcodes()


def _map_of(env: VerifierEnv, insn: Instruction) -> MapInfo:
    number = insn.imm
    by_index = insn.src in (op.BPF_PSEUDO_MAP_IDX, op.BPF_PSEUDO_MAP_IDX_VALUE)
    if by_index and not env.request.fd_array:
        info = _map_at(env, number)
    else:
        if by_index:
            number = _fd_at(env, number)
        if number not in env.request.fd_maps:
            verbose(env, f"fd {number} is not pointing to valid bpf_map\n")
            raise Reject(errno.EBADF)
        info = env.request.fd_maps[number]
    if info is None:
        verbose(env, f"fd {number} is not pointing to valid bpf_map\n")
        raise Reject(errno.EINVAL)
    return info


def _map_at(env: VerifierEnv, index: int) -> MapInfo | None:
    fd_array = env.request.fd_array_maps
    if not fd_array:
        verbose(env, "fd_idx without fd_array is invalid\n")
        raise Reject(errno.EPROTO)
    if not 0 <= index < len(fd_array):
        raise Reject(errno.EFAULT)
    return fd_array[index]


def _fd_at(env: VerifierEnv, index: int) -> int:
    if not 0 <= index < len(env.request.fd_array):
        raise Reject(errno.EFAULT)
    return env.request.fd_array[index]


def check_map_prog_compatibility(env: VerifierEnv, info: MapInfo) -> None:
    """What a socket filter may not have in its maps."""
    if "spin_lock" in info.btf_record or "res_spin_lock" in info.btf_record:
        verbose(env, "socket filter progs cannot use bpf_spin_lock yet\n")
        raise Reject(errno.EINVAL)
    if {"list_head", "rb_root"} & info.btf_record.keys():
        return
    if info.spec.map_type == MAP_TYPE_STRUCT_OPS:
        verbose(env, "bpf_struct_ops map cannot be used in prog\n")
        raise Reject(errno.EINVAL)


MAP_TYPE_ARRAY: Final = 2
MAP_TYPE_CGROUP_STORAGE: Final = 19
MAP_TYPE_PERCPU_CGROUP_STORAGE: Final = 21
MAP_TYPE_STRUCT_OPS: Final = 26
MAP_TYPE_ARENA: Final = 33


def add_used_map(env: VerifierEnv, info: MapInfo) -> int:
    """The index of a map in env.maps, where each stands once. Raises Reject E2BIG over 64 maps, EBUSY for two storages."""
    number = env.map_numbers.get(info)
    if number is not None:
        return number
    if len(env.maps) >= MAX_USED_MAPS:
        verbose(env, f"The total number of maps per program has reached the limit of {MAX_USED_MAPS}\n")
        raise Reject(errno.E2BIG)
    check_map_prog_compatibility(env, info)
    storage = info.spec.map_type in (MAP_TYPE_CGROUP_STORAGE, MAP_TYPE_PERCPU_CGROUP_STORAGE)
    if storage and any(m.spec.map_type == info.spec.map_type for m in env.maps):
        verbose(env, "only one cgroup storage of each type is allowed\n")
        raise Reject(errno.EBUSY)
    env.maps.append(info)
    number = env.map_numbers[info] = len(env.maps) - 1
    return number


def _check_direct_value(env: VerifierEnv, info: MapInfo, off: int) -> None:
    """A constant address in a map's value: only arrays of one element have one."""
    if off >= BPF_MAX_VAR_OFF:
        verbose(env, f"direct value offset of {off} is not allowed\n")
        raise Reject(errno.EINVAL)
    if info.spec.map_type not in (MAP_TYPE_ARRAY, MAP_TYPE_ARENA):
        verbose(env, "no direct value access support for this map type\n")
        raise Reject(errno.EINVAL)
    err = 0
    if info.spec.map_type == MAP_TYPE_ARRAY:
        err = ENOTSUPP if info.spec.max_entries != 1 else errno.EINVAL if off >= info.spec.value_size else 0
    if err:
        verbose(env, f"invalid access to map value pointer, value_size={info.spec.value_size} off={off}\n")
        raise Reject(err)


def _check_ld_imm64(env: VerifierEnv, i: int, insn: Instruction) -> None:
    insns = env.insns
    hi = insns[i + 1] if i + 1 < len(insns) else None
    if hi is None or hi.code or hi.dst or hi.src or hi.off:
        verbose(env, "invalid bpf_ld_imm64 insn\n")
        raise Reject(errno.EINVAL)
    if insn.src == 0:
        return
    if insn.src == op.BPF_PSEUDO_BTF_ID:
        check_pseudo_btf_id(env, hi.imm)
    aux = env.insn_aux[i]
    if insn.src == BPF_PSEUDO_FUNC:
        aux.ptr_type = PTR_TO_FUNC
        return
    value = insn.src in (op.BPF_PSEUDO_MAP_VALUE, op.BPF_PSEUDO_MAP_IDX_VALUE)
    if not value and (hi.imm or insn.src not in (op.BPF_PSEUDO_MAP_FD, op.BPF_PSEUDO_MAP_IDX)):
        verbose(env, "unrecognized bpf_ld_imm64 insn\n")
        raise Reject(errno.EINVAL)
    info = _map_of(env, insn)
    aux.map_index = add_used_map(env, info)
    if value:
        _check_direct_value(env, info, u32(hi.imm))
        aux.map_off = u32(hi.imm)
    _put_address(env, i, info.address + (ARRAY_VALUE_OFFSET + aux.map_off if value else 0))


def _put_address(env: VerifierEnv, i: int, address: int) -> None:
    """The load holds an address from here on, as the log shows it: to those who may know it."""
    insn = env.insns[i]
    if not env.allow_ptr_leaks and insn.src in (op.BPF_PSEUDO_MAP_FD, op.BPF_PSEUDO_MAP_VALUE):
        address = 0
    low, high = split_imm64(address)
    env.insns[i], env.insns[i + 1] = insn._replace(imm=low), env.insns[i + 1]._replace(imm=high)


def check_pseudo_btf_id(env: VerifierEnv, module_fd: int) -> None:
    """Kernel symbols need the kernel's own BTF, which a simulator has not."""
    if module_fd:
        verbose(env, "invalid module BTF object FD specified.\n")
    else:
        verbose(env, "kernel is missing BTF, make sure CONFIG_DEBUG_INFO_BTF=y is specified in Kconfig.\n")
    raise Reject(errno.EINVAL)


def resolve_pseudo_ldimm64(env: VerifierEnv) -> None:
    """Every opcode is one the kernel knows; wide loads have both halves and name what exists; the maps used are counted."""
    i, insns = 0, env.insns
    while i < len(insns):
        insn = insns[i]
        code = insn.code
        if code & 7 == op.BPF_LDX and (code & 0xE0 not in (op.BPF_MEM, op.BPF_MEMSX) or insn.imm):
            verbose(env, "BPF_LDX uses reserved fields\n")
            raise Reject(errno.EINVAL)
        if code == LD_IMM64:
            _check_ld_imm64(env, i, insn)
            i += 2
            continue
        if code not in PUBLIC_OPCODES:
            verbose(env, f"unknown opcode {code:02x}\n")
            raise Reject(errno.EINVAL)
        i += 1
