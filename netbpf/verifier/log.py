"""The log's words: messages, register and stack states, instructions and source lines, in the kernel's format.

Formats and appends only; decides nothing. Positions in the log are counted in characters, so that a path's part of the
log can be taken back (`vlog_reset`), which the kernel does when a path below level 2 ends well.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from operator import itemgetter
from typing import Final

from netbpf.abi.classic import CLASSIC_FUNC_NAMES
from netbpf.ints import S16_MAX, S16_MIN, S32_MAX, S32_MIN, S64_MAX, S64_MIN, U16_MAX, U32_MAX, U64_MAX, round_up, s32, s64
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import BPF_CALL, BPF_JMP, MAX_BPF_REG
from netbpf.verifier import state as st
from netbpf.verifier.env import BPF_LOG_LEVEL, Reject, VerifierEnv
from netbpf.verifier.state import FuncState, RegState, StackSlot, VerifierState
from netbpf.verifier.tnum import tnum_strn

ALIGN_COLUMN: Final = 40
MIN_ALIGN: Final = 8
ALL_REGS: Final = (1 << MAX_BPF_REG) - 1
ALL_SLOTS: Final = U64_MAX

SLOT_CHARS: Final = bytes.maketrans(bytes(range(7)), b"?rm0dif")

TYPE_NAMES: Final[dict[int, str]] = {
    st.NOT_INIT: "?",
    st.SCALAR_VALUE: "scalar",
    st.PTR_TO_CTX: "ctx",
    st.CONST_PTR_TO_MAP: "map_ptr",
    st.PTR_TO_MAP_VALUE: "map_value",
    st.PTR_TO_MAP_KEY: "map_key",
    st.PTR_TO_STACK: "fp",
    st.PTR_TO_PACKET_META: "pkt_meta",
    st.PTR_TO_PACKET: "pkt",
    st.PTR_TO_PACKET_END: "pkt_end",
    st.PTR_TO_FLOW_KEYS: "flow_keys",
    st.PTR_TO_SOCKET: "sock",
    st.PTR_TO_SOCK_COMMON: "sock_common",
    st.PTR_TO_TCP_SOCK: "tcp_sock",
    st.PTR_TO_TP_BUFFER: "tp_buffer",
    st.PTR_TO_XDP_SOCK: "xdp_sock",
    st.PTR_TO_BTF_ID: "ptr_",
    st.PTR_TO_MEM: "mem",
    st.PTR_TO_ARENA: "arena",
    st.PTR_TO_BUF: "buf",
    st.PTR_TO_FUNC: "func",
    st.CONST_PTR_TO_DYNPTR: "dynptr_ptr",
}
TYPE_PREFIXES: Final = (
    (st.MEM_RDONLY, "rdonly_"),
    (st.MEM_RINGBUF, "ringbuf_"),
    (st.MEM_USER, "user_"),
    (st.MEM_PERCPU, "percpu_"),
    (st.MEM_RCU, "rcu_"),
    (st.PTR_UNTRUSTED, "untrusted_"),
    (st.PTR_TRUSTED, "trusted_"),
)
DYNPTR_NAMES: Final[dict[int, str]] = {0: "<invalid>", 1: "local", 2: "ringbuf", 3: "skb", 4: "xdp", 5: "skb_meta"}
DYNPTR_NR_SLOTS: Final = 2


# --- appending --------------------------------------------------------------------------------------------------


def verbose(env: VerifierEnv, text: str) -> None:
    """Append ``text``. Kept at level 0 too, where nobody sees it, because the diagnosis of a refusal reads it."""
    env.log.append(text)
    env.log_end_pos += len(text)


def verifier_bug(env: VerifierEnv, text: str) -> Reject:
    """A program on which the kernel's own bookkeeping contradicts itself: it says so and answers EFAULT. To be raised."""
    verbose(env, f"verifier bug: {text}\n")
    return Reject(errno.EFAULT)


def vlog_reset(env: VerifierEnv, pos: int) -> None:
    """Take back everything written after position ``pos``."""
    log, end = env.log, env.log_end_pos
    while end > pos:
        piece = log.pop()
        end -= len(piece)
        if end < pos:
            log.append(piece[: pos - end])
            end = pos
    env.log_end_pos = end


# --- what changed since the last print --------------------------------------------------------------------------


def mark_reg_scratched(env: VerifierEnv, regno: int) -> None:
    env.scratched_regs |= 1 << regno


def mark_stack_slot_scratched(env: VerifierEnv, spi: int) -> None:
    env.scratched_stack_slots |= 1 << spi


def reg_scratched(env: VerifierEnv, regno: int) -> bool:
    return env.scratched_regs >> regno & 1 != 0


def stack_slot_scratched(env: VerifierEnv, spi: int) -> bool:
    return env.scratched_stack_slots >> spi & 1 != 0


def verifier_state_scratched(env: VerifierEnv) -> bool:
    return bool(env.scratched_regs or env.scratched_stack_slots)


def mark_verifier_state_clean(env: VerifierEnv) -> None:
    env.scratched_regs = env.scratched_stack_slots = 0


def mark_verifier_state_scratched(env: VerifierEnv) -> None:
    env.scratched_regs, env.scratched_stack_slots = ALL_REGS, ALL_SLOTS


# --- words for values -------------------------------------------------------------------------------------------


def reg_type_str(env: VerifierEnv, reg_type: int) -> str:
    """A register type with its modifiers, as messages and states print it."""
    base = reg_type & st.BASE_TYPE_MASK
    prefix = "".join(name for flag, name in TYPE_PREFIXES if reg_type & flag)
    postfix = ""
    if reg_type & st.PTR_MAYBE_NULL:
        postfix = "or_null_" if base == st.PTR_TO_BTF_ID else "_or_null"
    return prefix + TYPE_NAMES[base] + postfix


def format_snum(value: int) -> str:
    """Decimal where it fits 16 bits, else the two's complement in hex."""
    value = s64(value)
    return str(value) if S16_MIN <= value <= S16_MAX else hex(value & U64_MAX)


def format_unum(value: int) -> str:
    return str(value) if value <= U16_MAX else hex(value)


def _snum32(value: int) -> int:
    """A 32-bit bound as its 64-bit pattern to print: small ones sign-extended, others as 32 bits."""
    return value & (U64_MAX if S16_MIN <= value <= S16_MAX else U32_MAX)


def format_ranges(reg: RegState) -> list[str]:
    """``smin=umin=3`` ...: each bound that says something, bounds of the same number and sign under one name list."""
    rows = [
        (name, value)
        for name, value, default in (
            ("smin", reg.smin_value & U64_MAX, reg.smin_value == S64_MIN),
            ("smax", reg.smax_value & U64_MAX, reg.smax_value == S64_MAX),
            ("umin", reg.umin_value, reg.umin_value == 0),
            ("umax", reg.umax_value, reg.umax_value == U64_MAX),
            ("smin32", _snum32(reg.s32_min_value), reg.s32_min_value == S32_MIN),
            ("smax32", _snum32(reg.s32_max_value), reg.s32_max_value == S32_MAX),
            ("umin32", reg.u32_min_value, reg.u32_min_value == 0),
            ("umax32", reg.u32_max_value, reg.u32_max_value == U32_MAX),
        )
        if not default
    ]
    groups: dict[tuple[str, int, bool], list[str]] = {}
    for name, value in rows:
        negative = name[0] == "s" and value >> 63 != 0
        groups.setdefault((name[1:4], value, negative), []).append(name)
    return [
        "=".join(names) + "=" + (format_snum(value) if names[0][0] == "s" else format_unum(value))
        for (_, value, _), names in groups.items()
    ]


def _reg_attributes(env: VerifierEnv, reg: RegState) -> list[str]:
    """The items between a register's parentheses, in the kernel's order."""
    t, base, const = reg.type, reg.type & st.BASE_TYPE_MASK, not reg.var_off.mask
    items = []
    if reg.id:
        delta = f"{s32(reg.off):+d}" if reg.id & st.BPF_ADD_CONST else ""
        items.append(f"id={reg.id & ~st.BPF_ADD_CONST}{delta}")
    if reg.ref_obj_id:
        items.append(f"ref_obj_id={reg.ref_obj_id}")
    if t & st.NON_OWN_REF:
        items.append("non_own_ref")
    if base in (st.CONST_PTR_TO_MAP, st.PTR_TO_MAP_KEY, st.PTR_TO_MAP_VALUE):
        spec = reg.map_ptr.spec
        if spec.name:
            items.append(f"map={reg.map_ptr.log_name}")
        items.append(f"ks={spec.key_size},vs={spec.value_size}")
    if t != st.SCALAR_VALUE and reg.off:
        items.append(f"off={format_snum(reg.off)}")
    if base in (st.PTR_TO_PACKET, st.PTR_TO_PACKET_META):
        items.append(f"r={format_unum(reg.range)}")
    if base == st.PTR_TO_MEM:
        items.append(f"sz={format_unum(reg.mem_size)}")
    if t == st.CONST_PTR_TO_DYNPTR:
        items.append(f"type={DYNPTR_NAMES[reg.ext[0]]}")
    if const:
        if reg.var_off.value:
            items.append(f"imm={format_snum(reg.var_off.value)}")
        return items
    items += format_ranges(reg)
    if reg.var_off.mask != U64_MAX:
        items.append(f"var_off={tnum_strn(reg.var_off)}")
    return items


def format_reg_state(env: VerifierEnv, func: FuncState, reg: RegState) -> str:
    """One register as a state line shows it: ``5``, ``fp-8``, ``scalar(umax=255,...)``, ``map_value(map=m,ks=4,vs=8)``."""
    t, const = reg.type, not reg.var_off.mask
    precise = "P" if t == st.SCALAR_VALUE and reg.precise else ""
    if t == st.SCALAR_VALUE and const:
        return precise + format_snum(reg.var_off.value)
    text = precise + reg_type_str(env, t)
    if t == st.PTR_TO_ARENA:
        return text
    if t & st.BASE_TYPE_MASK == st.PTR_TO_BTF_ID:
        text += reg.ext
    if t == st.PTR_TO_STACK:
        if func.frameno != reg.frameno:
            text += f"[{reg.frameno}]"
        if const:
            return text + format_snum(reg.var_off.value + reg.off)
    return f"{text}({','.join(_reg_attributes(env, reg))})"


# --- states -----------------------------------------------------------------------------------------------------


def _format_dynptr(spi: int, reg: RegState) -> str:
    kind, _, dynptr_id = reg.ext
    items = [f"{name}={value}" for name, value in (("id", reg.id), ("ref_id", reg.ref_obj_id), ("dynptr_id", dynptr_id)) if value]
    return f" fp{-(spi + 1) * st.BPF_REG_SIZE}=dynptr_{DYNPTR_NAMES[kind]}({','.join(items)})"


def _format_slot(env: VerifierEnv, func: FuncState, spi: int, slot: StackSlot) -> str:
    types, reg = slot
    text = types.translate(SLOT_CHARS).decode()
    if types[-1] == st.STACK_SPILL:
        text = text[: types.index(st.STACK_SPILL)] + format_reg_state(env, func, reg)
    return f" fp{-(spi + 1) * st.BPF_REG_SIZE}={text}"


def _format_stack(env: VerifierEnv, func: FuncState, wanted: int) -> list[str]:
    """The slots of mask ``wanted`` that hold anything. A dynptr is told once, by its upper slot."""
    parts, spi, stack = [], 0, func.stack
    while spi < len(stack):
        types = stack[spi].slot_type
        if wanted >> spi & 1 and any(types):
            if types[-1] == st.STACK_DYNPTR:
                spi += DYNPTR_NR_SLOTS - 1
                parts.append(_format_dynptr(spi, stack[spi].spilled_ptr))
            else:
                parts.append(_format_slot(env, func, spi, stack[spi]))
        spi += 1
    return parts


def print_verifier_state(env: VerifierEnv, vstate: VerifierState, frameno: int, print_all: bool) -> None:
    """Append one frame's registers and stack: all, or what was touched since the last print (which this forgets)."""
    func = vstate.frame[frameno]
    parts = [f" frame{func.frameno}:"] if func.frameno else []
    regs_wanted, slots_wanted = (ALL_REGS, ALL_SLOTS) if print_all else (env.scratched_regs, env.scratched_stack_slots)
    parts += [
        f" R{i}={format_reg_state(env, func, reg)}"
        for i, reg in enumerate(func.regs)
        if reg.type != st.NOT_INIT and regs_wanted >> i & 1
    ]
    if slots_wanted:
        parts += _format_stack(env, func, slots_wanted)
    ids = [str(ref.id) for ref in vstate.refs if ref.id]
    if ids and vstate.refs[0].id:
        parts.append(f" refs={','.join(ids)}")
    if func.in_callback_fn:
        parts.append(" cb")
    if func.in_async_callback_fn:
        parts.append(" async_cb")
    verbose(env, "".join(parts) + "\n")
    if not print_all:
        mark_verifier_state_clean(env)


def vlog_alignment(column: int) -> int:
    """How many blanks bring a line of ``column`` characters to the column where states start."""
    return round_up(max(column + MIN_ALIGN // 2, ALIGN_COLUMN), MIN_ALIGN) - column - 1


def print_insn_state(env: VerifierEnv, vstate: VerifierState, frameno: int) -> None:
    """The state after an instruction: on the instruction's own line when nothing was written since, else on a new one."""
    if env.prev_log_pos and env.prev_log_pos == env.log_end_pos:
        vlog_reset(env, env.prev_log_pos - 1)
        verbose(env, " " * vlog_alignment(env.prev_insn_print_pos) + ";")
    else:
        verbose(env, f"{env.insn_idx}:")
    print_verifier_state(env, vstate, frameno, False)


# --- instructions and source lines ------------------------------------------------------------------------------


def verbose_insn(env: VerifierEnv, insn_idx: int) -> None:
    """The instruction at ``insn_idx`` in the kernel's words, and a line end."""
    from netbpf.isa.disasm import format_insn

    insns = env.insns
    insn = insns[insn_idx]
    following: Instruction | None = insns[insn_idx + 1] if insn_idx + 1 < len(insns) else None
    text = format_insn(insn, following, style="verifier")
    if insn.imm in CLASSIC_FUNC_NAMES and insn.code == BPF_JMP | BPF_CALL and not (insn.src or env.request.classic):
        text = f"({insn.code:02x}) call unknown#{insn.imm}"  # numbers of ours, which no program of bpf(2) reaches
    verbose(env, text + "\n")


def print_insn(env: VerifierEnv, vstate: VerifierState) -> None:
    """What is logged before an instruction is walked: what the one before changed, the source line, the instruction."""
    if not env.log_level & BPF_LOG_LEVEL:
        return
    if verifier_state_scratched(env):
        print_insn_state(env, vstate, vstate.curframe)
    verbose_linfo(env, env.insn_idx, "; ")
    env.prev_log_pos = env.log_end_pos
    verbose(env, f"{env.insn_idx}: ")
    verbose_insn(env, env.insn_idx)
    env.prev_insn_print_pos = env.log_end_pos - env.prev_log_pos
    env.prev_log_pos = env.log_end_pos


def verbose_linfo(env: VerifierEnv, insn_off: int, prefix: str) -> None:
    """The source line of ``insn_off`` when it is another than the last one told; nothing without line info."""
    rows = env.request.line_info
    if not rows or not env.log_level:
        return
    at = bisect_right(rows, insn_off, key=itemgetter(0)) - 1
    row, previous = rows[at], env.prev_linfo
    if at < 0 or row is previous:
        return
    env.prev_linfo = row
    if previous is not None and previous[1] == row[1] and previous[3] >> 10 == row[3] >> 10:
        return
    name_at = env.btf_string
    assert name_at is not None  # line info was checked against the BTF before the walk
    file_name = name_at(row[1]).rpartition("/")[2]
    verbose(env, f"{prefix}{name_at(row[2]).lstrip()} @ {file_name}:{row[3] >> 10}\n")
