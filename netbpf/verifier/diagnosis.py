"""Why a program was refused, as data: so that nobody has to parse the log's text.

Reads the log's last words and the state the walk stood in; changes nothing. Kinds and hints are rows of one table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, Final, NamedTuple

from netbpf.errors import errno_name
from netbpf.isa import opcodes as op
from netbpf.isa.disasm import format_insn
from netbpf.isa.instruction import Instruction
from netbpf.verifier.env import VerifierEnv
from netbpf.verifier.history import get_prev_insn_idx
from netbpf.verifier.log import format_reg_state
from netbpf.verifier.state import NOT_INIT, VerifierState

MAX_BRANCHES: Final = 64  # the last ones before the refusal
MAX_STEPS: Final = 100_000
MAX_LINES: Final = 8


class Rule(NamedTuple):
    """A refusal known by its words: ``kind`` is stable, ``hint`` says in a sentence what usually mends it."""

    pattern: str
    kind: str
    hint: str


RULES: Final = tuple(
    Rule(*row)
    for row in (
        (r"R\d+ !read_ok", "uninitialized_register", "Give the register a value on every path that leads here; calls clear R1 to R5."),
        (r"infinite loop detected", "infinite_loop", "Make the loop change something that its exit condition depends on."),
        (r"back-edge from insn", "loop_not_allowed", "Without CAP_BPF loops are refused: unroll the loop or load with CAP_BPF."),
        (r"unreachable insn", "unreachable_code", "Remove the instructions that no path reaches, or jump to them."),
        (r"jump out of range", "bad_jump", "Jump only to instructions of the same function."),
        (r"last insn is not an exit or jmp", "falls_off_end", "End every function with exit or an unconditional jump."),
        (r"into the middle of ldimm64", "bad_jump", "A wide load takes two slots: jump to the first."),
        (r"too complex", "too_complex", "Fewer conditional branches on one path, or functions, leave fewer paths to walk."),
        (r"BPF program is too large", "too_complex", "Bound loops more tightly or split the program with tail calls."),
        (r"combined stack size|call stack of \d+ frames", "stack_too_deep", "Use less stack in the functions of this chain of calls, or fewer of them."),
        (r"tail_calls are not allowed when", "stack_too_deep", "Use less stack in the callers of a function with a tail call."),
        (r"invalid (read|write|indirect|access).*stack|invalid unbounded.*stack|misaligned stack", "invalid_stack_access", "Stay within fp-512 .. fp-1, aligned, and write stack bytes before reading them."),
        (r"attempt to corrupt spilled pointer", "invalid_stack_access", "Overwrite a spilled pointer with all eight bytes only."),
        (r"variable stack access prohibited|stack pointer arithmetic goes out of range", "unprivileged_pointer_arithmetic", "Without CAP_PERFMON stack offsets have to be constants within the frame."),
        (r"invalid access to map|invalid mem access 'map_value_or_null'|value_size=", "invalid_map_access", "Compare the pointer with NULL and bound the offset below the value's size first."),
        (r"outside of the allowed memory range|unbounded memory access", "out_of_bounds", "Bound the offset on both sides, with an unsigned comparison or a mask, before using it."),
        (r"invalid bpf_context access|dereference of modified ctx|negative offset ctx|ctx", "invalid_context_access", "Use the context's fields at their offsets and widths; write only those a socket filter may."),
        (r"invalid mem access", "invalid_pointer", "Go through a pointer: this register holds a number, or a pointer that may be NULL."),
        (r"leaks addr|partial copy of pointer|pointer comparison prohibited", "pointer_leak", "Without CAP_PERFMON no pointer may be returned, stored where others read it, or compared."),
        (r"prohibited for !root|pointer -= pointer prohibited", "unprivileged_pointer_arithmetic", "Load with CAP_PERFMON, or keep pointer arithmetic within proven limits."),
        (r"pointer arithmetic|pointer \+= pointer|subtract pointer from scalar|math between|pointer offset|operator.*pointer|partial copy", "pointer_arithmetic", "Only constants and bounded numbers may be added to or subtracted from this pointer."),
        (r"unknown func|invalid func|cannot use helper|program of this type", "unknown_helper", "A socket filter with these privileges does not have this helper."),
        (r"GPL", "license", "This helper is for programs with a GPL-compatible license."),
        (r"R\d+ type=.*expected=", "argument_type", "Pass what the helper's prototype asks for in this argument."),
        (r"pass map_type|cannot pass map_type", "map_type", "This helper does not work on this kind of map."),
        (r"Unreleased reference|reference leak|tail_call would lead to reference leak|cannot be used inside bpf_ref", "reference_leak", "Submit, discard or release what was acquired on every path."),
        (r"loading/calling other bpf or kernel functions", "missing_capability", "Functions need CAP_BPF."),
        (r"kernel function|missing BTF", "needs_kernel_btf", "Kernel functions and symbols need a kernel's BTF; this program cannot be judged without one."),
        (r"At program exit|the register R\d+ has|should have been in", "return_value", "Return a number in the range the caller expects."),
        (r"R0 !read_ok", "uninitialized_register", "Set R0 before exit."),
        (r"frame pointer is read only", "frame_pointer_write", "R10 cannot be written: copy it first."),
        (r"R\d+ is invalid", "bad_register", "Registers go from R0 to R10."),
        (r"reserved fields|unknown opcode|invalid BPF_LD mode|unknown insn class|invalid bpf_ld_imm64|unrecognized bpf_ld_imm64|BPF_.* (uses|invalid)", "malformed_instruction", "Fields that an instruction does not use have to be zero."),
        (r"div by zero|invalid shift", "bad_constant", "The immediate is out of the operation's range."),
        (r"not pointing to valid bpf_map|fd_idx|direct value|no direct value", "bad_map_reference", "Name a map that exists and allows this."),
        (r"socket filter progs cannot use|cannot be used in prog", "map_not_allowed", "This map cannot be used by a socket filter."),
        (r"makes .* pointer be out of bounds", "pointer_arithmetic", "Keep the pointer within 2^29 bytes of where it came from."),
        (r"'struct \w+' access is allowed only", "missing_capability", "Reading a map's own fields needs CAP_PERFMON."),
        (r"tail_call abusing map_ptr", "map_type", "Make one tail call per program array, or load with CAP_PERFMON."),
        (r"must have zero offset|must be referenced|release", "argument_type", "Pass the pointer as it was acquired, not moved."),
        (r"same insn cannot be used with different pointers", "mixed_pointers", "Access each kind of memory in an instruction of its own."),
        (r"sign-extension part of pointer|leaking pointer", "pointer_leak", "Without CAP_PERFMON no part of a pointer may become a number."),
        (r"is bpf_\w+ invalid negative|access beyond |cannot access|only read from", "invalid_map_access", "Of a map's own struct only certain fields can be read."),
        (r"variable-offset|register fill|R\d+ invalid zero-sized|zero-sized", "invalid_stack_access", "Bound the offset and the size so that only written stack bytes are touched."),
        (r"might sleep", "unknown_helper", "This helper sleeps; a socket filter may not."),
        (r"!= pointer to skb", "argument_type", "Packet loads take the context in R6."),
        (r"subtraction from stack pointer|pointer \S+ pointer prohibited", "pointer_arithmetic", "Only constants and bounded numbers may be added to or subtracted from this pointer."),
        (r"dynptr", "dynptr", "Initialise a dynptr by its helper, pass it whole, and release it once."),
        (r"atomic operand size|may_goto imm|addr_space_cast|register spill", "malformed_instruction", "The instruction's fields do not go together."),
        (r"callback function not static|Caller passes invalid args|callback", "bad_call", "Pass a static function of this program, and the arguments its BTF promises."),
        (r"min value is negative|not a known constant|readonly map|unacquired reference", "argument_type", "Bound the argument as the helper's prototype demands."),
        (r"doesn't have field|cannot be accessed directly", "invalid_map_access", "These bytes belong to the kernel: use its helpers."),
        (r"pseudo btf_id", "needs_kernel_btf", "Kernel functions and symbols need a kernel's BTF; this program cannot be judged without one."),
        (r"verifier bug|REG INVARIANTS", "kernel_contradiction", "The kernel's own verifier contradicts itself here and gives up; rewrite the comparison."),
        (r"misaligned", "misaligned_access", "Access memory at multiples of the access size, or load without BPF_F_STRICT_ALIGNMENT."),
        (r"func_info|line_info|BTF|in subprogs without|only allowed in functions that return", "debug_info", "Load with function records that match the program's functions."),
        (r"function calls are not allowed|lock", "lock_held", "Release the lock before calling functions or leaving."),
        (r"call to invalid destination|too many subprograms", "bad_call", "Call the first instruction of a function of this program."),
    )
)  # fmt: skip
_COMPILED: Final = tuple((re.compile(rule.pattern), rule) for rule in RULES)
_STATE_LINE: Final = re.compile(r"\d+: |from \d+ to |mark_precise: |func#\d+ @| +\d+: ")
_OTHER: Final = Rule("", "other", "See the message.")


def _last_lines(env: VerifierEnv) -> list[str]:
    """The last lines that are no state and no instruction, latest first."""
    text = "".join(env.log[-40:])
    return [line for line in reversed(text.split("\n")) if line][:MAX_LINES]


def _details(env: VerifierEnv) -> list[str]:
    """All that was said since the last instruction or state, first line first: some refusals take two lines."""
    said = takewhile(lambda line: not _STATE_LINE.match(line), _last_lines(env))
    return list(said)[::-1]


def _reason(env: VerifierEnv) -> tuple[str, Rule]:
    lines = _last_lines(env)
    if not lines:
        return "", _OTHER
    for line in lines[:1] if not lines[0].startswith("old state:") else lines[2:4]:
        for pattern, rule in _COMPILED:
            if pattern.search(line):
                return line, rule
    return lines[0], _OTHER


def walk_back(env: VerifierEnv, state: VerifierState) -> Iterator[tuple[int, int]]:
    """The path that led to the current instruction, backwards: (instruction, the one before it)."""
    st: VerifierState | None = state
    i = env.insn_idx
    while st is not None:
        history = len(st.jmp_history)
        while True:
            previous, history = get_prev_insn_idx(st, i, history)
            if previous < 0:
                break
            yield i, previous
            i = previous
        st = st.parent
        if st is None or st.last_insn_idx < 0:
            return
        yield i, st.last_insn_idx
        i = st.last_insn_idx


def _is_conditional(insn: Instruction) -> bool:
    return insn.code & 7 in (op.BPF_JMP, op.BPF_JMP32) and insn.code & 0xF0 not in (op.BPF_JA, op.BPF_CALL, op.BPF_EXIT)


def _branches(env: VerifierEnv, state: VerifierState) -> list[dict[str, Any]]:
    """The last conditional jumps of the path, in the order they were passed, and which way each went."""
    found: list[dict[str, Any]] = []
    for steps, (after, before) in enumerate(walk_back(env, state)):
        if steps > MAX_STEPS or len(found) == MAX_BRANCHES:
            break
        if _is_conditional(env.insns[before]):
            taken = after == before + env.insns[before].off + 1
            found.append({"insn": before, "text": _text(env, before), "taken": taken, "line": _source_line(env, before)})
    return found[::-1]


def _text(env: VerifierEnv, insn_idx: int) -> str:
    following = env.insns[insn_idx + 1] if insn_idx + 1 < len(env.insns) else None
    return format_insn(env.insns[insn_idx], following, style="verifier")


def _source_line(env: VerifierEnv, insn_idx: int) -> dict[str, Any] | None:
    """The C line of an instruction, when line records tell it."""
    rows = [row for row in env.request.line_info if row[0] <= insn_idx]
    if not rows or env.btf_string is None:
        return None
    _, file_off, line_off, line_col = rows[-1]
    name = env.btf_string
    return {"file": name(file_off), "line": line_col >> 10, "column": line_col & 0x3FF, "text": name(line_off).strip()}


def _involved(insn: Instruction, register: int | None) -> list[int]:
    numbers = {insn.dst, insn.src} if insn.code & 7 != op.BPF_LD else set()
    if insn.code == op.BPF_JMP | op.BPF_CALL:
        numbers = set(range(1, 6))
    elif insn.code == op.BPF_JMP | op.BPF_EXIT:
        numbers = {0}
    return sorted(numbers | ({register} if register is not None else set()))


def _registers(env: VerifierEnv, state: VerifierState, register: int | None) -> dict[str, str]:
    """The registers the instruction works on, as the log would print them."""
    frame = state.frame[state.curframe]
    numbers = [n for n in _involved(env.insns[env.insn_idx], register) if n < len(frame.regs)]
    return {f"R{n}": format_reg_state(env, frame, reg) if (reg := frame.regs[n]).type != NOT_INIT else "?" for n in numbers}


def diagnose(env: VerifierEnv, error: int, insn_idx: int | None = None) -> dict[str, Any]:
    """JSON-ready: kind, errno, message, details, insn, instruction, register, line, path, registers, hint.

    ``insn_idx``: the instruction, for a refusal after the walk.
    """
    message, rule = _reason(env)
    state = env.cur_state
    named = re.search(r"\bR(\d+)\b", message)
    register = int(named[1]) if named else None
    at = re.search(r"insn (\d+)", message) if state is None else None
    insn = env.insn_idx if state is not None else int(at[1]) if at else insn_idx
    if insn is not None and not 0 <= insn < len(env.insns):
        insn = None
    walking = state if insn is not None else None
    return {
        "kind": rule.kind,
        "errno": errno_name(error),
        "message": message,
        "details": _details(env),
        "insn": insn,
        "instruction": _text(env, insn) if insn is not None else None,
        "register": register,
        "line": _source_line(env, insn) if insn is not None else None,
        "path": _branches(env, walking) if walking is not None else [],
        "registers": _registers(env, walking, register) if walking is not None else {},
        "hint": rule.hint,
    }
