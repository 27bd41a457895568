"""What can be said of a program before it is walked: subprograms, immediates and maps, jumps, control flow, stack depth.

The functions are called by ``check`` in the kernel's order, each with the kernel's words and errno. None knows register states.
"""

from __future__ import annotations

import bisect
import errno
from typing import Final

from netbpf.abi.helpers import HELPERS
from netbpf.errors import ENOTSUPP
from netbpf.ints import round_up, u32
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction, split_imm64
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
from netbpf.verifier.env import BPF_LOG_LEVEL2, BPF_MAX_SUBPROGS, MapInfo, Reject, SubprogInfo, VerifierEnv
from netbpf.verifier.log import verbose, verbose_linfo
from netbpf.verifier.state import PTR_TO_FUNC

CALL_CODE: Final = BPF_JMP | BPF_CALL
EXIT_CODE: Final = BPF_JMP | BPF_EXIT
LD_IMM64: Final = op.BPF_LD | op.BPF_IMM | op.BPF_DW

FUNC_tail_call: Final = 12
# helpers that run a function of the program before they return: for_each_map_elem, find_vma, loop, user_ringbuf_drain
SYNC_CALLBACK_HELPERS: Final = frozenset({164, 180, 181, 209})
ASYNC_CALLBACK_HELPERS: Final = frozenset({170})  # timer_set_callback

MAX_USED_MAPS: Final = 64
ARRAY_VALUE_OFFSET: Final = 0x110  # of the values in the kernel's struct bpf_array
BPF_MAX_VAR_OFF: Final = 1 << 29
MAX_STACK_DEPTH: Final = 512
MAX_TAIL_CALL_STACK: Final = 256
MAX_CALL_FRAMES: Final = 8


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
    target = i + jmp_offset(insn) + 1
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


# --- immediates and maps -----------------------------------------------------------------------------------------------


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


# --- control flow ------------------------------------------------------------------------------------------------------

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


# --- stack depth ---------------------------------------------------------------------------------------------------------


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
