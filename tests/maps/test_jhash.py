"""Hash functions: lookup3's published answers, and what a memo may and may not do."""

from __future__ import annotations

import random

import pytest

from netbpf.maps.jhash import JHASH_INITVAL, HashMemo, fold, jhash

FOUR_SCORE = b"Four score and seven years ago"


@pytest.mark.parametrize(
    ("key", "seed", "hashed"),
    [(b"", 0, 0xDEADBEEF), (b"", 0xDEADBEEF, 0xBD5B7DDE), (FOUR_SCORE, 0, 0x17770551), (FOUR_SCORE, 1, 0xCD628161)],
)
def test_lookup3_answers(key: bytes, seed: int, hashed: int) -> None:
    """The self-test of lookup3.c (driver5). Its start value is 0xdeadbeef too."""
    assert JHASH_INITVAL == 0xDEADBEEF
    assert jhash(key, seed) == hashed


@pytest.mark.parametrize("length", range(1, 40))
def test_every_byte_matters(length: int) -> None:
    rng = random.Random(length)
    key = rng.randbytes(length)
    for function in (jhash, fold):
        for at in range(length):
            other = bytearray(key)
            other[at] ^= 1 << rng.randrange(8)
            assert function(bytes(other), 7) != function(key, 7)


def test_fold_spreads_neighbours() -> None:
    """Consecutive 4-byte keys, the common case, fill 1024 buckets about evenly."""
    counts = [0] * 1024
    for n in range(16384):
        counts[fold(n.to_bytes(4, "little"), 0x6E657462) & 1023] += 1
    assert max(counts) < 50
    assert min(counts) > 0


def test_memo_stays_small() -> None:
    memo = HashMemo(jhash, 3, limit=8)
    for n in range(100):
        key = n.to_bytes(4, "little")
        assert memo[key] == jhash(key, 3)
        assert len(memo) <= 8
