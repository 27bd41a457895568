"""The control-flow graph against hand-drawn ones, and its invariants on every encodable program."""

from __future__ import annotations

from hypothesis import given
from support.programs import programs

from netbpf.isa.builders import *  # noqa: F403
from netbpf.isa.builders import Instruction, Program, assemble
from netbpf.isa.cfg import build, call_target, falls_through, insn_starts, jump_target, subprog_starts

# ruff: noqa: F405


def test_branches_and_joins() -> None:
    graph = build(
        assemble(
            BPF_JMP_IMM(BPF_JEQ, 1, 0, 2),  # 0
            BPF_MOV64_IMM(0, 1),  # 1
            BPF_JMP_A(1),  # 2
            BPF_MOV64_IMM(0, 2),  # 3
            BPF_EXIT_INSN(),  # 4
        )
    )
    assert {b.start: (b.end, b.successors) for b in graph.blocks.values()} == {
        0: (1, (1, 3)),
        1: (3, (4,)),
        3: (4, (4,)),
        4: (5, ()),
    }
    assert graph.reverse_postorder() in ((0, 3, 1, 4), (0, 1, 3, 4))
    assert graph.loop_heads() == frozenset()


def test_loops() -> None:
    graph = build(assemble(BPF_MOV64_IMM(1, 9), BPF_ALU64_IMM(BPF_SUB, 1, 1), BPF_JMP_IMM(BPF_JNE, 1, 0, -2), BPF_EXIT_INSN()))
    assert graph.loop_heads() == {1}
    assert graph.blocks[1].successors == (3, 1)
    assert graph.reverse_postorder() == (0, 1, 3)


def test_subprograms_by_call_and_by_address() -> None:
    insns = assemble(
        BPF_LD_FUNC(1, 4),  # 0, 1: the callback at 5
        BPF_CALL_REL(1),  # 2: 4
        BPF_EXIT_INSN(),  # 3
        BPF_EXIT_INSN(),  # 4
        BPF_EXIT_INSN(),  # 5
    )
    assert subprog_starts(insns) == (0, 4, 5)
    assert [b.subprog for b in build(insns).blocks.values()] == [0, 1, 2]
    assert build(insns).reverse_postorder(4) == (4,)


def test_targets() -> None:
    assert jump_target(5, BPF_JMP32_A(70000)) == 70006
    assert jump_target(5, BPF_MAY_GOTO(-3)) == 3
    assert jump_target(5, BPF_CALL_REL(2)) is None
    assert jump_target(5, BPF_EXIT_INSN()) is None
    assert call_target(5, BPF_CALL_REL(-2)) == 4
    assert call_target(5, BPF_CALL_FUNC(2)) is None
    assert not any(falls_through(i) for i in (BPF_EXIT_INSN(), BPF_JMP_A(0), BPF_JMP32_A(0)))
    assert falls_through(BPF_MAY_GOTO(0))


def test_targets_outside_or_inside_an_instruction_are_no_edges() -> None:
    insns = assemble(BPF_JMP_IMM(BPF_JEQ, 1, 0, 1), BPF_LD_IMM64(1, 5), BPF_JMP_A(40))
    assert build(insns).blocks[0].successors == (1,)
    assert build(insns).blocks[1].successors == ()


def test_empty_program() -> None:
    assert build(()).blocks == {}
    assert build(()).reverse_postorder() == ()
    assert subprog_starts(()) == ()


@given(programs)
def test_invariants(insns: Program) -> None:
    graph = build(insns)
    blocks = list(graph.blocks.values())
    assert [b.start for b in blocks] == sorted(graph.blocks)
    assert sum(b.end - b.start for b in blocks) == len(insns)
    begins = insn_starts(insns)
    for block in blocks:
        assert block.start in begins
        assert block.last in begins
        assert block.start <= block.last < block.end
        assert all(s in graph.blocks for s in block.successors)
        inner = [pc for pc in begins if block.start <= pc < block.last]
        assert all(jump_target(pc, insns[pc]) is None and insns[pc].code != 0x95 for pc in inner)
    assert set(graph.subprogs) <= set(graph.blocks)
    order = graph.reverse_postorder()
    assert len(set(order)) == len(order)


def test_last_is_the_first_slot_of_a_pair() -> None:
    graph = build((*BPF_LD_IMM64(0, 1), Instruction(0x95)))
    assert graph.blocks[0].last == 2
    graph = build(assemble(BPF_JMP_A(0), BPF_LD_IMM64(0, 1)))
    assert (graph.blocks[1].last, graph.blocks[1].end) == (1, 3)
