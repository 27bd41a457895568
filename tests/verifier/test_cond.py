"""Comparisons: a predicted one holds for every value, a refined register loses no value of its side."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from support.scalars import contains, hull, numbers, random_scalar

from netbpf.ints import U32_MAX, U64_MAX, s32, s64
from netbpf.isa import opcodes as op
from netbpf.verifier.bounds import reg_bounds_sync
from netbpf.verifier.cond import FLIPPED, NOT_JSET, REVERSED, is_scalar_branch_taken, regs_refine_cond_op
from netbpf.verifier.regs import known_reg
from netbpf.verifier.state import RegState

UNSIGNED: dict[int, Callable[[int, int], bool]] = {
    op.BPF_JEQ: lambda x, y: x == y,
    op.BPF_JNE: lambda x, y: x != y,
    op.BPF_JSET: lambda x, y: x & y != 0,
    op.BPF_JGT: lambda x, y: x > y,
    op.BPF_JGE: lambda x, y: x >= y,
    op.BPF_JLT: lambda x, y: x < y,
    op.BPF_JLE: lambda x, y: x <= y,
}
SIGNED: dict[int, Callable[[int, int], bool]] = {
    op.BPF_JSGT: lambda x, y: x > y,
    op.BPF_JSGE: lambda x, y: x >= y,
    op.BPF_JSLT: lambda x, y: x < y,
    op.BPF_JSLE: lambda x, y: x <= y,
}
OPS = [*UNSIGNED, *SIGNED]
WINDOWS = [0, 0x7FFF_FFFE, (1 << 32) - 2, (1 << 63) - 2, U64_MAX - 2]


def holds(opcode: int, jmp32: bool, x: int, y: int) -> bool:
    if opcode in SIGNED:
        view = s32 if jmp32 else s64
        return SIGNED[opcode](view(x), view(y))
    mask = U32_MAX if jmp32 else U64_MAX
    return UNSIGNED[opcode](x & mask, y & mask)


def refined(a: RegState, b: RegState, opcode: int, jmp32: bool) -> tuple[RegState, RegState]:
    a, b = a.copy(), b.copy()
    regs_refine_cond_op(a, b, opcode, jmp32)
    reg_bounds_sync(a)
    reg_bounds_sync(b)
    return a, b


def check(opcode: int, jmp32: bool, a: RegState, xs: list[int], b: RegState, ys: list[int]) -> None:
    taken = is_scalar_branch_taken(a, b, opcode, jmp32)
    outcomes = {(x, y): holds(opcode, jmp32, x, y) for x, y in itertools.product(xs, ys)}
    if taken >= 0:
        assert set(outcomes.values()) == {bool(taken)}, (numbers(a), numbers(b))
        return
    sides = {True: refined(a, b, opcode, jmp32), False: refined(a, b, REVERSED[opcode], jmp32)}
    for (x, y), outcome in outcomes.items():
        left, right = sides[outcome]
        assert contains(left, x), (opcode, outcome, numbers(a), numbers(b), x, y)
        assert contains(right, y), (opcode, outcome, numbers(a), numbers(b), x, y)


@pytest.mark.parametrize("jmp32", [False, True], ids=["jmp", "jmp32"])
@pytest.mark.parametrize("opcode", OPS)
def test_small_windows(opcode: int, jmp32: bool) -> None:
    sets = []
    for base in WINDOWS:
        window = [(base + i) & U64_MAX for i in range(4)]
        sets += [list(c) for size in (1, 2, 4) for c in itertools.combinations(window, size)]
    scalars = []
    for values in sets:
        reg = hull(values)
        reg_bounds_sync(reg)
        scalars.append((reg, values))
    rng = random.Random(opcode)
    for (a, xs), (b, ys) in rng.sample(list(itertools.product(scalars, scalars)), 300):
        check(opcode, jmp32, a, xs, b, ys)


@pytest.mark.parametrize("jmp32", [False, True], ids=["jmp", "jmp32"])
def test_random(jmp32: bool) -> None:
    rng = random.Random(31)
    for _ in range(3000):
        (a, xs), (b, ys) = random_scalar(rng), random_scalar(rng)
        if rng.random() < 0.4:
            y = rng.choice(xs)
            b, ys = known_reg(y), [y]
        check(rng.choice(OPS), jmp32, a, xs, b, ys)


@pytest.mark.parametrize("opcode", OPS)
def test_tables_mean_what_they_say(opcode: int) -> None:
    for x, y in itertools.product((0, 1, 2, 1 << 31, 1 << 63, U64_MAX), repeat=2):
        assert holds(opcode, False, x, y) == holds(FLIPPED[opcode], False, y, x)
        if REVERSED[opcode] != NOT_JSET:
            assert holds(opcode, False, x, y) != holds(REVERSED[opcode], False, x, y)
        known = is_scalar_branch_taken(known_reg(x), known_reg(y), opcode, False)
        assert known == int(holds(opcode, False, x, y))


def test_constant_at_an_edge() -> None:
    reg = known_reg(0).copy()
    reg.umax_value = reg.smax_value = reg.u32_max_value = reg.s32_max_value = 9
    reg.var_off = hull(range(10)).var_off
    for opcode, value, expected in (
        (op.BPF_JNE, 0, (1, 9)),
        (op.BPF_JNE, 9, (0, 8)),
        (op.BPF_JNE, 5, (0, 9)),
        (op.BPF_JLT, 3, (0, 2)),
    ):
        left, _ = refined(reg, known_reg(value), opcode, False)
        assert (left.umin_value, left.umax_value) == expected
