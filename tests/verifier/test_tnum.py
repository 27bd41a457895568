"""Tracked numbers against brute force: every pair of small tnums, random ones at the edges of 64 bits."""

from __future__ import annotations

import itertools
import random

import pytest
from support.scalars import EDGES64

from netbpf.ints import U32_MAX, U64_MAX, bswap, s32, s64
from netbpf.verifier import tnum as t
from netbpf.verifier.state import TNUM_UNKNOWN, Tnum

WIDTH = 4


def small_tnums(width: int = WIDTH) -> list[Tnum]:
    return [Tnum(v, m) for m in range(1 << width) for v in range(1 << width) if not v & m]


def members(a: Tnum, limit: int = 1 << 12) -> list[int]:
    free = [1 << i for i in range(64) if a.mask >> i & 1]
    assert 1 << len(free) <= limit
    return [a.value | sum(bits) for r in range(len(free) + 1) for bits in itertools.combinations(free, r)]


def has(a: Tnum, x: int) -> bool:
    return x & ~a.mask == a.value


BINARY = {
    "add": (t.tnum_add, lambda x, y: x + y),
    "sub": (t.tnum_sub, lambda x, y: x - y),
    "mul": (t.tnum_mul, lambda x, y: x * y),
    "and": (t.tnum_and, lambda x, y: x & y),
    "or": (t.tnum_or, lambda x, y: x | y),
    "xor": (t.tnum_xor, lambda x, y: x ^ y),
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shift", [0, 30, 60])
def test_binary_operators_contain_every_result(name: str, shift: int) -> None:
    abstract, concrete = BINARY[name]
    width = 3
    for a, b in itertools.product(small_tnums(width), repeat=2):
        a, b = t.tnum_lshift(a, shift), t.tnum_lshift(b, shift)
        result = abstract(a, b)
        assert not result.value & result.mask
        for x, y in itertools.product(members(a), members(b)):
            assert has(result, concrete(x, y) & U64_MAX), (name, a, b, x, y)


@pytest.mark.parametrize("name", ["and", "or", "xor", "add", "sub"])
def test_operators_are_the_tightest(name: str) -> None:
    """These are optimal: no bit is unknown that is the same in every result."""
    abstract, concrete = BINARY[name]
    for a, b in itertools.product(small_tnums(3), repeat=2):
        results = [concrete(x, y) & U64_MAX for x, y in itertools.product(members(a), members(b))]
        ones = zeros = U64_MAX
        for r in results:
            ones, zeros = ones & r, zeros & ~r
        assert abstract(a, b) == Tnum(ones, U64_MAX & ~(ones | zeros))


def random_tnum(rng: random.Random) -> Tnum:
    mask = rng.getrandbits(64) & rng.getrandbits(64) & rng.getrandbits(64)
    return Tnum(rng.choice(EDGES64) & ~mask, mask)


def random_member(rng: random.Random, a: Tnum) -> int:
    return a.value | rng.getrandbits(64) & a.mask


@pytest.mark.parametrize("name", BINARY)
def test_binary_operators_at_the_edges(name: str) -> None:
    rng, (abstract, concrete) = random.Random(7), BINARY[name]
    for _ in range(2000):
        a, b = random_tnum(rng), random_tnum(rng)
        x, y = random_member(rng, a), random_member(rng, b)
        assert has(abstract(a, b), concrete(x, y) & U64_MAX)


def test_shifts() -> None:
    rng = random.Random(8)
    for _ in range(3000):
        a, n = random_tnum(rng), rng.randrange(64)
        x = random_member(rng, a)
        assert has(t.tnum_lshift(a, n), x << n & U64_MAX)
        assert has(t.tnum_rshift(a, n), x >> n)
        assert has(t.tnum_arshift(a, n, 64), s64(x) >> n & U64_MAX)
        if n < 32:
            low = t.tnum_subreg(a)
            assert has(t.tnum_arshift(low, n, 32), s32(x) >> n & U32_MAX)


def test_range_is_the_smallest_prefix() -> None:
    for lo, hi in itertools.combinations_with_replacement(range(40), 2):
        r = t.tnum_range(lo, hi)
        assert all(has(r, x) for x in range(lo, hi + 1))
        assert r.mask == (1 << (lo ^ hi).bit_length()) - 1
    assert t.tnum_range(0, 1 << 63) == TNUM_UNKNOWN


def test_lattice() -> None:
    for a, b in itertools.product(small_tnums(), repeat=2):
        both = set(members(a)) & set(members(b))
        assert t.tnum_overlap(a, b) == bool(both)
        if both:
            assert set(members(t.tnum_intersect(a, b))) == both
        union = t.tnum_union(a, b)
        assert set(members(a)) | set(members(b)) <= set(members(union))
        assert t.tnum_in(a, b) == (set(members(b)) <= set(members(a)))


def test_step_finds_the_next_member() -> None:
    for a in small_tnums(5):
        inside = sorted(members(a))
        for z in range(34):
            above = [m for m in inside if m > z]
            assert t.tnum_step(a, z) == (above[0] if above else inside[-1]), (a, z)


def test_step_in_wide_numbers() -> None:
    rng = random.Random(9)
    for _ in range(2000):
        a = random_tnum(rng)
        x, z = random_member(rng, a), random_member(rng, a)
        if x > z:
            step = t.tnum_step(a, z)
            assert has(a, step)
            assert z < step <= x


def test_parts() -> None:
    rng = random.Random(10)
    for _ in range(500):
        a, b = random_tnum(rng), random_tnum(rng)
        x, y = random_member(rng, a), random_member(rng, b)
        for size in (1, 2, 4, 8):
            assert has(t.tnum_cast(a, size), x & (1 << 8 * size) - 1)
            assert has(t.tnum_bswap(a, size), bswap(x, size))
        assert has(t.tnum_subreg(a), x & U32_MAX)
        assert has(t.tnum_clear_subreg(a), x & ~U32_MAX)
        assert has(t.tnum_with_subreg(a, b), x & ~U32_MAX | y & U32_MAX)
        assert has(t.tnum_const_subreg(a, y), x & ~U32_MAX | y & U32_MAX)
        assert has(t.tnum_neg(a), -x & U64_MAX)


def test_predicates() -> None:
    assert t.tnum_is_const(t.tnum_const(-1))
    assert t.tnum_equals_const(t.tnum_const(-1), -1)
    assert t.tnum_is_unknown(TNUM_UNKNOWN)
    assert t.tnum_subreg_is_const(Tnum(5, 1 << 32))
    for a in small_tnums():
        for size in (0, 1, 2, 4, 8):
            assert t.tnum_is_aligned(a, size) == (not size or all(x % size == 0 for x in members(a)))


@pytest.mark.parametrize(
    ("a", "text"),
    [(Tnum(0x10, 0xFF), "(0x10; 0xff)"), (TNUM_UNKNOWN, "(0x0; 0xffffffffffffffff)"), (Tnum(0, 1), "(0x0; 0x1)")],
)
def test_text(a: Tnum, text: str) -> None:
    assert t.tnum_strn(a) == text
