"""The nine numbers of a scalar: synchronising them loses no value, widens nothing, and finds contradictions."""

from __future__ import annotations

import itertools
import random

import pytest
from support.scalars import contains, hull, numbers, random_scalar

from netbpf.ints import S32_MIN, S64_MIN, U32_MAX, U64_MAX
from netbpf.verifier.bounds import bounds_violation, reg_bounds_sync, set_known_bounds
from netbpf.verifier.env import LoadRequest, Reject, VerifierEnv
from netbpf.verifier.regs import (
    coerce_reg_to_size,
    coerce_reg_to_size_sx,
    coerce_subreg_to_size_sx,
    known_reg,
    reg_bounds_sanity_check,
    zext_32_to_64,
)
from netbpf.verifier.state import SCALAR_VALUE, RegState, Tnum

WINDOWS = [0, 0x7FFF_FFFE, 0xFFFF_FFFC, (1 << 32) - 2, (1 << 63) - 3, U64_MAX - 5]


def width_of(reg: RegState) -> tuple[int, ...]:
    return (
        *(reg.umax_value - reg.umin_value, reg.smax_value - reg.smin_value),
        *(reg.u32_max_value - reg.u32_min_value, reg.s32_max_value - reg.s32_min_value),
    )


@pytest.mark.parametrize("base", WINDOWS)
def test_every_small_set_survives(base: int) -> None:
    """All non-empty subsets of a window of six neighbours, which wraps at some bases."""
    window = [(base + i) & U64_MAX for i in range(6)]
    for size in range(1, 7):
        for values in itertools.combinations(window, size):
            reg = hull(values)
            before = width_of(reg)
            reg_bounds_sync(reg)
            assert all(contains(reg, v) for v in values)
            assert all(a <= b for a, b in zip(width_of(reg), before, strict=True))
            assert not bounds_violation(reg)


def test_random_scalars_survive() -> None:
    rng = random.Random(11)
    for _ in range(20_000):
        reg, values = random_scalar(rng)
        assert all(contains(reg, v) for v in values), numbers(reg)


def test_one_view_tells_the_others() -> None:
    """What the kernel deduces, in four small examples."""
    reg = RegState(SCALAR_VALUE)
    reg.umax_value = 255
    reg_bounds_sync(reg)
    assert numbers(reg) == (Tnum(0, 255), 0, 255, 0, 255, 0, 255, 0, 255)
    reg = RegState(SCALAR_VALUE)
    reg.smin_value, reg.smax_value = -2, -1
    reg_bounds_sync(reg)
    assert numbers(reg) == (Tnum(U64_MAX - 1, 1), U64_MAX - 1, U64_MAX, -2, -1, U32_MAX - 1, U32_MAX, -2, -1)
    reg = RegState(SCALAR_VALUE)
    reg.smin_value, reg.smax_value, reg.umin_value = -5, 5, 6
    reg_bounds_sync(reg)
    assert (reg.smin_value, reg.smax_value) == (-5, -1)
    reg = RegState(SCALAR_VALUE)
    reg.var_off, reg.umin_value, reg.umax_value = Tnum(0, 0xF0), 0x11, 0x2F
    reg_bounds_sync(reg)
    assert numbers(reg) == numbers(known_reg(0x20))


def test_known() -> None:
    for value in (0, 1, 0x7FFF_FFFF, 0x8000_0000, 1 << 63, U64_MAX):
        reg = RegState(SCALAR_VALUE)
        set_known_bounds(reg, value)
        assert numbers(reg) == numbers(hull([value])) == numbers(known_reg(value))
    assert known_reg(-1).smin_value == -1


def test_zext() -> None:
    rng = random.Random(12)
    for _ in range(3000):
        reg, values = random_scalar(rng)
        zext_32_to_64(reg)
        assert all(contains(reg, v & U32_MAX) for v in values)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_narrowing(size: int) -> None:
    rng, bits = random.Random(size), 8 * size
    for _ in range(3000):
        reg, values = random_scalar(rng)
        cut, signed, low = reg.copy(), reg.copy(), reg.copy()
        coerce_reg_to_size(cut, size)
        coerce_reg_to_size_sx(signed, size)
        half = 1 << bits - 1
        for v in values:
            kept = v & (1 << bits) - 1
            extended = (kept ^ half) - half
            assert contains(cut, kept)
            assert contains(signed, extended & U64_MAX)
            if size < 4:
                coerced = low.copy()
                coerce_subreg_to_size_sx(coerced, size)
                zext_32_to_64(coerced)
                assert contains(coerced, extended & U32_MAX)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"umin_value": 2, "umax_value": 1}, "range bounds violation"),
        ({"s32_min_value": 0, "s32_max_value": -1}, "range bounds violation"),
        ({"var_off": Tnum(5, 0)}, "const tnum out of sync with range bounds"),
        ({"var_off": Tnum(5, 1 << 40)}, "const subreg tnum out of sync with range bounds"),
    ],
)
def test_impossible_bounds(change: dict[str, object], message: str) -> None:
    reg = RegState(SCALAR_VALUE)
    for name, value in change.items():
        setattr(reg, name, value)
    assert bounds_violation(reg) == message
    env = VerifierEnv(LoadRequest(()))
    reg_bounds_sanity_check(env, reg, "alu")
    assert env.log[0].startswith(f"verifier bug: REG INVARIANTS VIOLATION (alu): {message} u64=[")
    assert (reg.smin_value, reg.umax_value, reg.s32_min_value) == (S64_MIN, U64_MAX, S32_MIN)


def test_invariants_flag_refuses() -> None:
    reg = RegState(SCALAR_VALUE)
    reg.umin_value, reg.umax_value = 2, 1
    with pytest.raises(Reject) as e:
        reg_bounds_sanity_check(VerifierEnv(LoadRequest((), prog_flags=128)), reg, "alu")
    assert e.value.errno == 14
