"""Live registers, loops and live stack slots, as the log shows them at level 2."""

from __future__ import annotations

import re

from support.verdicts import judge

from netbpf.isa.instruction import Instruction as I
from netbpf.verifier.env import LoadRequest, VerifierEnv
from netbpf.verifier.flow import insn_successors
from netbpf.verifier.history import get_prev_insn_idx, insn_stack_access_flags, push_jmp_history
from netbpf.verifier.state import VerifierState


def live_block(text: str) -> list[str]:
    log = judge(text, level=2).log
    lines = log.split("Live regs before insn:\n")[1].split("\n")
    return [line[:20].rstrip() for line in lines if re.match(r"[ \d]{4} *\d+: [\d.]{10} ", line)]


def test_live_registers_and_loops() -> None:
    assert live_block("r6 = r1\nl: call bpf_get_prandom_u32\nif r0 > 5 goto l\nr0 = *(u32 *)(r6 + 0)\nexit") == [
        "      0: .1........",
        "  1   1: ......6...",
        "  1   2: 0.....6...",
        "      3: ......6...",
        "      4: 0.........",
    ]


def test_nested_loops_are_one_component_and_siblings_are_two() -> None:
    nested = live_block("r6 = 0\na: r7 = 0\nb: r7 += 1\nif r7 < 3 goto b\nr6 += 1\nif r6 < 3 goto a\nr0 = 0\nexit")
    assert [line[:3].strip() for line in nested] == ["", "1", "1", "1", "1", "1", "", ""]
    two = live_block("r6 = 0\na: r6 += 1\nif r6 < 3 goto a\nb: r6 += 1\nif r6 < 9 goto b\nr0 = 0\nexit")
    numbers = [line[:3].strip() for line in two]
    assert numbers[1] == numbers[2] != numbers[3] == numbers[4]


def test_successors() -> None:
    assert insn_successors(I(0x95), 3) == ()
    assert insn_successors(I(0x18), 3) == (5,)
    assert insn_successors(I(0x05, 0, 0, -2), 3) == (2,)
    assert insn_successors(I(0x06, 0, 0, 0, 70000), 3) == (70004,)
    assert insn_successors(I(0x15, 0, 0, 4), 3) == (4, 8)
    assert insn_successors(I(0xE5, 0, 0, 4), 3) == (4, 8)
    assert insn_successors(I(0x85, 0, 1, 0, 9), 3) == (4,)


def stack_lines(text: str) -> list[str]:
    return [
        line.rstrip() for line in judge(text, level=2).log.split("\n") if " frame " in line and re.match(r"\([\d,]+\) ", line)
    ]


def test_a_slot_lives_from_its_write_to_its_last_read() -> None:
    assert stack_lines("*(u64 *)(r10 - 8) = 1\nr1 = 2\nr2 = *(u64 *)(r10 - 8)\nr0 = 0\nexit") == [
        "(0) frame 0 insn 2 +live -8",
        "(0) frame 0 insn 0 +written -8",
    ]


def test_a_callee_that_writes_the_callers_slot_writes_it_for_the_call() -> None:
    text = "r1 = r10\nr1 += -8\ncall f\nr0 = *(u64 *)(r10 - 8)\nexit\nf: *(u64 *)(r1 + 0) = 7\nr0 = 0\nexit"
    lines = stack_lines(text)
    assert "(2,5) frame 0 insn 5 +written -8" in lines
    assert "(0) frame 0 insn 2 +written -8" in lines
    assert "(0) frame 0 insn 3 +live -8" in lines
    assert not any(line.startswith("(0)") and "insn 2 +live" in line for line in lines)


def test_dead_slots_do_not_stand_in_the_way_of_pruning() -> None:
    """Two paths that differ in a slot nobody reads again are one."""
    text = (
        "call bpf_get_prandom_u32\nr6 = r0\nif r6 == 1 goto a\n*(u64 *)(r10 - 8) = 1\ngoto j\n"
        "a: r1 = r10\n*(u64 *)(r10 - 8) = r1\nj: {read}r0 = 0\nexit"
    )
    dead = judge(text.format(read=""), prog_flags=8).stats.insn_processed
    alive = judge(text.format(read="r1 = *(u64 *)(r10 - 8)\n"), prog_flags=8).stats.insn_processed
    assert (dead, alive) == (10, 13)


def test_history_is_walked_back_jump_by_jump() -> None:
    env = VerifierEnv(LoadRequest((I(0xB7), I(0x95))))
    state = VerifierState()
    state.first_insn_idx = 2
    for idx, previous in ((2, 9), (4, 7), (2, 5)):
        env.insn_idx, env.prev_insn_idx, env.cur_hist_ent = idx, previous, None
        push_jmp_history(env, state)
    assert [get_prev_insn_idx(state, i, n) for i, n in ((3, 3), (2, 3), (5, 2), (4, 2), (7, 1), (2, 1))] == [
        (2, 3),
        (5, 2),
        (4, 2),
        (7, 1),
        (6, 1),
        (-1, 1),
    ]


def test_one_instruction_has_one_history_entry() -> None:
    env, state = VerifierEnv(LoadRequest((I(0xB7), I(0x95)))), VerifierState()
    env.insn_idx, env.prev_insn_idx = 1, 0
    push_jmp_history(env, state)
    push_jmp_history(env, state, insn_stack_access_flags(1, 5))
    assert state.jmp_history == [(1, 0, 1 << 9 | 5 << 3 | 1, ())]
