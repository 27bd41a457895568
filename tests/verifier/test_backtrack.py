"""Precision: which scalars a decision makes precise, chased back over registers, stack, calls and checkpoints."""

from __future__ import annotations

import re

from support.verdicts import judge


def marks(text: str, **fields: int) -> list[str]:
    """The log's `mark_precise:` lines, without their prefix."""
    log = judge(text, level=2, **fields).log
    return [line.removeprefix("mark_precise: ").rstrip() for line in log.split("\n") if line.startswith("mark_precise: ")]


USE_R7 = "r1 = r10\nr1 += r7\nr0 = 0\nexit"  # a pointer's offset is precise


def test_back_to_the_constant() -> None:
    lines = marks("r6 = 3\nr7 = r6\nr7 <<= 2\n" + USE_R7)
    assert lines == [
        "frame0: last_idx 4 first_idx 0 subseq_idx -1",
        "frame0: regs=r7 stack= before 3: (bf) r1 = r10",
        "frame0: regs=r7 stack= before 2: (67) r7 <<= 2",
        "frame0: regs=r7 stack= before 1: (bf) r7 = r6",
        "frame0: regs=r6 stack= before 0: (b7) r6 = 3",
    ]


def test_through_the_stack() -> None:
    lines = marks("r6 = 3\n*(u64 *)(r10 - 16) = r6\nr7 = *(u64 *)(r10 - 16)\n" + USE_R7)
    assert "frame0: regs= stack=-16 before 1: (7b) *(u64 *)(r10 -16) = r6" in lines
    assert lines[-1] == "frame0: regs=r6 stack= before 0: (b7) r6 = 3"


def test_into_a_callee_and_out_again() -> None:
    lines = marks("r1 = 4\ncall f\nr7 = r0\n" + USE_R7 + "\nf: r0 = r1\nr0 += 8\nexit")
    assert "frame1: regs=r0 stack= before 8: (07) r0 += 8" in lines
    assert "frame1: regs=r1 stack= before 1: (85) call pc+5" in lines
    assert lines[-1] == "frame0: regs=r1 stack= before 0: (b7) r1 = 4"


def test_linked_scalars_are_precise_together() -> None:
    text = "call bpf_get_prandom_u32\nr0 &= 15\nr7 = r0\nif r0 > 7 goto +0\nr8 = r0\nr8 += r7\n" + USE_R7
    assert any("regs=r0,r7" in line and "before 3: (25) if r0 > 0x7" not in line for line in marks(text))


def test_a_checkpoint_is_marked_once() -> None:
    text = "r6 = 0\nl: r6 += 1\nif r6 < 60 goto l\nr0 = 0\nexit"
    parents = [line for line in marks(text) if "parent state" in line]
    found = [re.search(r"parent state regs=(\S*) stack=", line) for line in parents]
    assert [m[1] for m in found if m].count("r6") < len(parents)


def test_what_cannot_be_told_makes_all_precise() -> None:
    text = "r6 = r1\nr9 = 3\nl: r0 = *(u8 *)skb[0]\nr7 = r0\nr9 += 1\nif r9 < 30 goto l\nr7 &= 7\n" + USE_R7
    log = judge(text, level=2, prog_flags=8).log
    assert "falling back to forcing all scalars precise" in log
    assert "force_precise: frame0: forcing r0 to be precise" in log


def test_precision_is_handed_on_to_a_pruned_path() -> None:
    text = (
        "call bpf_get_prandom_u32\nr7 = 1\nif r0 == 5 goto a\nr6 = 2\ngoto j\na: r6 = 3\nj: r8 = 0\n"
        "if r8 == 1 goto +0\nr7 += r8\n" + USE_R7
    )
    log = judge(text, level=2, prog_flags=8).log
    assert "frame 0: propagating r7" in log
    assert ": safe\n" in log


def test_without_cap_bpf_nothing_is_chased() -> None:
    assert marks("r6 = 3\nr7 = r6\nif r7 == 3 goto +0\nr0 = 0\nexit", mode="unpriv") == []  # type: ignore[arg-type]
