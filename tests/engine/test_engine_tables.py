"""Nothing has one body: every opcode of the ISA has a maker, every helper of a socket filter a body or a place in a list."""

from __future__ import annotations

import pytest

from netbpf.abi.classic import CLASSIC_FUNC_NAMES
from netbpf.abi.helpers import FUNC_IDS, HELPERS
from netbpf.engine.base import UnsupportedProgram
from netbpf.engine.choose import DEFAULT_ENGINE, ENGINES, get_engine
from netbpf.engine.interp.call_ops import TAIL_CALL
from netbpf.engine.interp.decode import MAKERS
from netbpf.engine.interp.engine import InterpEngine
from netbpf.engine.interp.helpers import BODIES
from netbpf.env import SteppedEnv
from netbpf.errors import UsageError
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction as I
from netbpf.program import InsnFacts, Subprog, VerifiedProgram

WITHOUT_BODY = {
    "timer_init", "timer_set_callback", "timer_start", "timer_cancel",  # a callback outside of any run
    "task_storage_get", "task_storage_delete", "cgrp_storage_get", "cgrp_storage_delete",  # their map kinds do not exist here
    "current_task_under_cgroup", "user_ringbuf_drain",
    "per_cpu_ptr", "this_cpu_ptr", "get_current_task", "get_current_task_btf", "task_pt_regs",  # kernel variables and structs
    "skc_to_tcp6_sock", "skc_to_tcp_sock", "skc_to_tcp_timewait_sock", "skc_to_tcp_request_sock", "skc_to_udp6_sock",
    "skc_to_unix_sock", "skc_to_mptcp_sock", "get_task_stack", "snprintf_btf", "find_vma", "copy_from_user",
    "copy_from_user_task", "get_branch_snapshot", "perf_event_read", "perf_event_read_value", "send_signal", "send_signal_thread",
}  # fmt: skip


def of_socket_filters() -> dict[str, int]:
    return {proto.name: number for number, proto in HELPERS.items() if proto.cap is not None}


def test_every_helper_of_a_socket_filter_has_a_body_or_is_known_to_have_none() -> None:
    bodied = {HELPERS[number].name for number in BODIES if number in HELPERS} | {"tail_call"}
    assert set(of_socket_filters()) == bodied | WITHOUT_BODY
    assert not bodied & WITHOUT_BODY
    assert FUNC_IDS["tail_call"] == TAIL_CALL


def test_every_function_of_translated_classic_filters_has_a_body() -> None:
    assert set(CLASSIC_FUNC_NAMES) == {number for number in BODIES if number not in HELPERS}


@pytest.mark.parametrize("name", sorted(WITHOUT_BODY))
def test_a_helper_without_a_body_is_refused_by_name_at_load(name: str) -> None:
    insns = (I(0x85, imm=FUNC_IDS[name]), I(0x95))
    with pytest.raises(UnsupportedProgram, match=rf"insn 0 \(\(85\) call bpf_{name}#{FUNC_IDS[name]}\).*bpf_{name}.*no body"):
        InterpEngine().load(VerifiedProgram.unproved(insns), SteppedEnv())


def test_dead_code_may_call_what_has_no_body() -> None:
    insns = (I(0xB7), I(0x95), I(0x85, imm=FUNC_IDS["timer_init"]), I(0x95))
    facts = (InsnFacts(seen=True), InsnFacts(seen=True), InsnFacts(), InsnFacts())
    InterpEngine().load(VerifiedProgram(insns, 1, (), (Subprog(0, 4),), facts), SteppedEnv())


def test_kernel_functions_are_refused_by_number() -> None:
    insns = (I(0x85, 0, op.BPF_PSEUDO_KFUNC_CALL, 0, 1234), I(0x95))
    with pytest.raises(UnsupportedProgram, match="kernel function #1234"):
        InterpEngine().load(VerifiedProgram.unproved(insns), SteppedEnv())


@pytest.mark.parametrize("src", [op.BPF_PSEUDO_MAP_FD, op.BPF_PSEUDO_BTF_ID, op.BPF_PSEUDO_MAP_VALUE, 9])
def test_immediates_that_name_nothing_here_are_refused(src: int) -> None:
    with pytest.raises(UnsupportedProgram, match=f"pseudo source {src}"):
        InterpEngine().load(VerifiedProgram.unproved((I(0x18, 1, src), I(0), I(0x95))), SteppedEnv())


@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_map_that_is_not_declared_is_refused_by_number(number: int) -> None:
    insns = (I(0x18, 1, op.BPF_PSEUDO_MAP_IDX, 0, number), I(0), I(0x95))
    with pytest.raises(UnsupportedProgram, match=f"names map {number}, and 0 are declared"):
        InterpEngine().load(VerifiedProgram.unproved(insns), SteppedEnv())


def isa_codes() -> set[int]:
    """Every opcode byte of RFC 9669, the legacy packet loads, callx and may_goto."""
    alu = {op.BPF_ADD, op.BPF_SUB, op.BPF_MUL, op.BPF_DIV, op.BPF_OR, op.BPF_AND, op.BPF_LSH, op.BPF_RSH, op.BPF_MOD}
    alu |= {op.BPF_XOR, op.BPF_MOV, op.BPF_ARSH}
    jumps = {op.BPF_JEQ, op.BPF_JGT, op.BPF_JGE, op.BPF_JSET, op.BPF_JNE, op.BPF_JSGT, op.BPF_JSGE, op.BPF_JLT, op.BPF_JLE}
    jumps |= {op.BPF_JSLT, op.BPF_JSLE}
    sizes, narrow = {op.BPF_B, op.BPF_H, op.BPF_W, op.BPF_DW}, {op.BPF_B, op.BPF_H, op.BPF_W}
    sources = {op.BPF_K, op.BPF_X}
    codes = {kind | what | src for kind in (op.BPF_ALU, op.BPF_ALU64) for what in alu for src in sources}
    codes |= {kind | what | src for kind in (op.BPF_JMP, op.BPF_JMP32) for what in jumps for src in sources}
    codes |= {op.BPF_ALU | op.BPF_NEG, op.BPF_ALU64 | op.BPF_NEG, op.BPF_ALU64 | op.BPF_END}
    codes |= {op.BPF_ALU | op.BPF_END | src for src in sources}
    codes |= {op.BPF_JMP | op.BPF_JA, op.BPF_JMP32 | op.BPF_JA, op.BPF_JMP | op.BPF_CALL, op.BPF_JMP | op.BPF_CALL | op.BPF_X}
    codes |= {op.BPF_JMP | op.BPF_EXIT, op.BPF_JMP | op.BPF_JCOND, op.BPF_LD | op.BPF_IMM | op.BPF_DW}
    codes |= {kind | op.BPF_MEM | size for kind in (op.BPF_LDX, op.BPF_ST, op.BPF_STX) for size in sizes}
    codes |= {op.BPF_STX | op.BPF_ATOMIC | size for size in sizes}
    codes |= {op.BPF_LDX | op.BPF_MEMSX | size for size in narrow}
    return codes | {op.BPF_LD | mode | size for mode in (op.BPF_ABS, op.BPF_IND) for size in narrow}


def test_every_opcode_has_a_maker_and_no_other() -> None:
    assert set(MAKERS) == isa_codes()


BAD_ENCODINGS = [
    (I(0xFF), "no opcode 0xff"), (I(0xB7, 11), "registers R0 to R10"), (I(0xB7, 10), "R10 is read-only"),
    (I(0x61, 10, 1), "R10 is read-only"), (I(0xD4, 0, imm=8), "byte order of 8 bits"), (I(0xBF, 0, 1, 7), "move with offset 7"),
    (I(0xBC, 0, 1, 32), "move with offset 32"),
    (I(0x07, 0, 0, 1, 1), "operation with offset 1"), (I(0x05, off=5), "jump to 6 reaches no instruction"),
    (I(0x05, off=-2), "jump to -1 reaches no instruction"), (I(0x06, imm=100), "jump to 101"), (I(0x85, 0, 1, 0, 7), "jump to 8"),
    (I(0xC3, 10, 1, -8, 0x20), "no atomic operation 0x20"), (I(0xD3, 10, 1, -8, 0), "on 1 bytes"),
    (I(0xDB, 10, 1, -8, 0xE0), "0xe0 on 8 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("insn", "words"), BAD_ENCODINGS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_proved_program_with_an_encoding_that_does_not_exist_is_refused(insn: I, words: str) -> None:
    with pytest.raises(UnsupportedProgram, match=words):
        InterpEngine().load(VerifiedProgram((insn, I(0x95)), 1, (), (Subprog(0, 2),)), SteppedEnv())


def test_a_jump_into_the_middle_of_a_wide_instruction_is_refused() -> None:
    insns = (I(0x05, off=1), I(0x18, 1), I(0), I(0x95))
    with pytest.raises(UnsupportedProgram, match="jump to 2"):
        InterpEngine().load(VerifiedProgram(insns, 1, (), (Subprog(0, 4),)), SteppedEnv())


def test_engines_are_found_by_name() -> None:
    assert get_engine("interp").name == "interp"
    assert get_engine().name == DEFAULT_ENGINE
    with pytest.raises(UsageError, match=f"no engine is called 'none': choose from {', '.join(ENGINES)}"):
        get_engine("none")
