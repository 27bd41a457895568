"""ALU transfer functions contain what the machine computes: exhaustive small windows, random 64-bit edges."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from support.scalars import contains, hull, numbers, random_scalar

from netbpf.ints import U32_MAX, U64_MAX, bswap, s32, s64
from netbpf.isa import opcodes as op
from netbpf.verifier.bounds import bounds_violation, reg_bounds_sync
from netbpf.verifier.regs import known_reg
from netbpf.verifier.scalar_ops import (
    adjust_scalar_numbers,
    fold_constants,
    is_safe_to_compute_dst_reg_range,
    scalar_byte_swap,
)
from netbpf.verifier.state import RegState

Concrete = Callable[[int, int], int]
BINARY: dict[int, Concrete] = {
    op.BPF_ADD: lambda x, y: x + y,
    op.BPF_SUB: lambda x, y: x - y,
    op.BPF_MUL: lambda x, y: x * y,
    op.BPF_AND: lambda x, y: x & y,
    op.BPF_OR: lambda x, y: x | y,
    op.BPF_XOR: lambda x, y: x ^ y,
}
SHIFTS: dict[int, tuple[Concrete, Concrete]] = {
    op.BPF_LSH: (lambda x, n: (x & U32_MAX) << n, lambda x, n: x << n),
    op.BPF_RSH: (lambda x, n: (x & U32_MAX) >> n, lambda x, n: x >> n),
    op.BPF_ARSH: (lambda x, n: s32(x) >> n, lambda x, n: s64(x) >> n),
}
WINDOWS = [0, 0x7FFF_FFFE, (1 << 32) - 2, (1 << 63) - 2, U64_MAX - 2]


def machine(opcode: int, alu32: bool, x: int, y: int) -> int:
    if opcode in SHIFTS:
        result = SHIFTS[opcode][0 if alu32 else 1](x, y)
    else:
        result = BINARY[opcode](x & U32_MAX, y & U32_MAX) if alu32 else BINARY[opcode](x, y)
    return result & (U32_MAX if alu32 else U64_MAX)


def apply(opcode: int, alu32: bool, dst: RegState, src: RegState) -> RegState:
    result = dst.copy()
    adjust_scalar_numbers(opcode, alu32, result, src)
    return result


def small_sets(base: int) -> list[list[int]]:
    window = [(base + i) & U64_MAX for i in range(4)]
    return [list(c) for size in (1, 2, 4) for c in itertools.combinations(window, size)]


def synced(values: list[int]) -> RegState:
    reg = hull(values)
    reg_bounds_sync(reg)
    return reg


@pytest.mark.parametrize("alu32", [False, True], ids=["alu64", "alu32"])
@pytest.mark.parametrize("opcode", BINARY)
def test_small_windows(opcode: int, alu32: bool) -> None:
    sets = [(values, synced(values)) for base in WINDOWS for values in small_sets(base)]
    rng = random.Random(opcode)
    for (xs, a), (ys, b) in rng.sample(list(itertools.product(sets, sets)), 700):
        result = apply(opcode, alu32, a, b)
        for x, y in itertools.product(xs, ys):
            assert contains(result, machine(opcode, alu32, x, y)), (xs, ys, x, y, numbers(result))


@pytest.mark.parametrize("alu32", [False, True], ids=["alu64", "alu32"])
@pytest.mark.parametrize("opcode", SHIFTS)
def test_shifts_of_small_windows(opcode: int, alu32: bool) -> None:
    for base in WINDOWS:
        for values in small_sets(base):
            a = synced(values)
            for n in (0, 1, 7, 16, 31) if alu32 else (0, 1, 31, 32, 33, 63):
                result = apply(opcode, alu32, a, known_reg(n))
                assert all(contains(result, machine(opcode, alu32, x, n)) for x in values), (values, n)


@pytest.mark.parametrize("alu32", [False, True], ids=["alu64", "alu32"])
def test_random(alu32: bool) -> None:
    rng = random.Random(21)
    for _ in range(4000):
        opcode = rng.choice([*BINARY, *SHIFTS])
        (a, xs), (b, ys) = random_scalar(rng), random_scalar(rng)
        if opcode in SHIFTS:
            n = rng.randrange(32 if alu32 else 64)
            b, ys = known_reg(n), [n]
        result = apply(opcode, alu32, a, b)
        assert not bounds_violation(result)
        for x, y in itertools.product(xs, ys):
            assert contains(result, machine(opcode, alu32, x, y)), (opcode, numbers(a), numbers(b), x, y)


@pytest.mark.parametrize("alu32", [False, True], ids=["alu64", "alu32"])
def test_neg(alu32: bool) -> None:
    rng = random.Random(22)
    for _ in range(2000):
        a, xs = random_scalar(rng)
        result = apply(op.BPF_NEG, alu32, a, a)
        assert all(contains(result, -x & (U32_MAX if alu32 else U64_MAX)) for x in xs)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_byte_swap(size: int, swap: bool) -> None:
    rng = random.Random(23)
    for _ in range(1000):
        a, xs = random_scalar(rng)
        a.id = 5
        result = a.copy()
        scalar_byte_swap(result, size, swap)
        for x in xs:
            assert contains(result, bswap(x, size) if swap else x & (1 << 8 * size) - 1)
        assert result.id == (5 if size == 8 and not swap else 0)


def test_folding_is_what_the_rules_give() -> None:
    """The shortcut for known operands gives the register the transfer functions would."""
    rng = random.Random(24)
    for _ in range(1500):
        opcode, alu32 = rng.choice([*BINARY, *SHIFTS]), rng.random() < 0.5
        (_, xs), (_, ys) = random_scalar(rng), random_scalar(rng)
        if opcode in SHIFTS:
            ys = [rng.randrange(32 if alu32 else 64)]
        folded = fold_constants(opcode, alu32, xs[0], ys[0])
        assert folded == machine(opcode, alu32, xs[0], ys[0])
        assert numbers(apply(opcode, alu32, known_reg(xs[0]), known_reg(ys[0]))) == numbers(known_reg(folded))


def test_what_can_be_computed() -> None:
    unknown, known = synced([1, 2]), known_reg(5)
    for opcode in BINARY:
        assert is_safe_to_compute_dst_reg_range(opcode, False, unknown)
    for opcode in SHIFTS:
        assert not is_safe_to_compute_dst_reg_range(opcode, False, unknown)
        assert is_safe_to_compute_dst_reg_range(opcode, True, known)
        assert is_safe_to_compute_dst_reg_range(opcode, False, known_reg(63))
        assert not is_safe_to_compute_dst_reg_range(opcode, True, known_reg(32))
    for opcode in (op.BPF_DIV, op.BPF_MOD):
        assert not is_safe_to_compute_dst_reg_range(opcode, False, known)
