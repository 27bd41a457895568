"""Abstract scalars from concrete values, and whether one contains a value: what soundness tests need."""

from __future__ import annotations

import random
from collections.abc import Iterable

from netbpf.ints import U32_MAX, U64_MAX, s32, s64
from netbpf.verifier.bounds import reg_bounds_sync
from netbpf.verifier.state import SCALAR_VALUE, RegState, Tnum

EDGES64 = (
    *(0, 1, 2, 7, 8, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFE, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001),
    *(0xFFFF_FFFE, 0xFFFF_FFFF, 1 << 32, (1 << 32) + 1, (1 << 62) - 1, (1 << 63) - 1, 1 << 63, (1 << 63) + 1),
    *(U64_MAX, U64_MAX - 1, U64_MAX - 0xFF, 0xFFFF_FFFF_0000_0000, 0xFFFF_FFFF_7FFF_FFFF, 0xFFFF_FFFF_8000_0000),
)


def hull(values: Iterable[int]) -> RegState:
    """The tightest scalar that contains every value, each of its nine numbers taken on its own."""
    values = list(values)
    reg = RegState(SCALAR_VALUE)
    ones, zeros = U64_MAX, U64_MAX
    for v in values:
        ones &= v
        zeros &= ~v
    reg.var_off = Tnum(ones, U64_MAX & ~(ones | zeros))
    reg.umin_value, reg.umax_value = min(values), max(values)
    signed = [s64(v) for v in values]
    reg.smin_value, reg.smax_value = min(signed), max(signed)
    low = [v & U32_MAX for v in values]
    reg.u32_min_value, reg.u32_max_value = min(low), max(low)
    slow = [s32(v) for v in values]
    reg.s32_min_value, reg.s32_max_value = min(slow), max(slow)
    return reg


def contains(reg: RegState, value: int) -> bool:
    low, (known, unknown) = value & U32_MAX, reg.var_off
    return (
        value & ~unknown == known
        and reg.umin_value <= value <= reg.umax_value
        and reg.smin_value <= s64(value) <= reg.smax_value
        and reg.u32_min_value <= low <= reg.u32_max_value
        and reg.s32_min_value <= s32(value) <= reg.s32_max_value
    )


def numbers(reg: RegState) -> tuple[object, ...]:
    return (
        *(reg.var_off, reg.umin_value, reg.umax_value, reg.smin_value, reg.smax_value),
        *(reg.u32_min_value, reg.u32_max_value, reg.s32_min_value, reg.s32_max_value),
    )


def random_value(rng: random.Random) -> int:
    if rng.random() < 0.5:
        return (rng.choice(EDGES64) + rng.randrange(-3, 4)) & U64_MAX
    return rng.getrandbits(rng.choice((8, 16, 31, 32, 33, 63, 64)))


def random_scalar(rng: random.Random) -> tuple[RegState, list[int]]:
    """A synchronised scalar, and some values it contains."""
    base = random_value(rng)
    kind = rng.random()
    if kind < 0.4:
        span = rng.choice((1, 2, 5, 16, 255, 1 << 31, 1 << 33))
        values = [(base + rng.randrange(span)) & U64_MAX for _ in range(4)]
    elif kind < 0.7:
        mask = rng.getrandbits(64) & rng.getrandbits(64)
        values = [base & ~mask | rng.getrandbits(64) & mask for _ in range(4)]
    elif kind < 0.8:
        values = [base]
    else:
        values = [random_value(rng) for _ in range(3)]
    reg = hull(values)
    for name, least, greatest in (("u", 0, U64_MAX), ("s", -(1 << 63), (1 << 63) - 1)):
        if rng.random() < 0.3:  # forget one view: the others must still hold
            setattr(reg, f"{name}min_value", least)
            setattr(reg, f"{name}max_value", greatest)
    if rng.random() < 0.2:
        reg.var_off = Tnum(0, U64_MAX)
    reg_bounds_sync(reg)
    return reg, values
