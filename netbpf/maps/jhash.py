"""The hash functions of hash tables and bloom filters. Pure; knows no map.

``jhash`` and ``jhash2`` are Bob Jenkins' lookup3 (2006, public domain: burtleburtle.net/bob/c/lookup3.c, ``hashlittle`` and
``hashword``) with the kernel's start value 0xdeadbeef + length in bytes + seed. ``fold`` is a folded multiplication per 8 bytes
(the step of wyhash and ahash): one multiplication for a 4-byte key, two for a 16-byte one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from netbpf.ints import U32_MAX, U64_MAX

HashFunction = Callable[[bytes], int]

JHASH_INITVAL: Final = 0xDEADBEEF
FOLD_MULTIPLIER: Final = 0x9E3779B97F4A7C15


def _rol(v: int, n: int) -> int:
    return (v << n | v >> (32 - n)) & U32_MAX


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    """lookup3's reversible mixing of three words."""
    a = (a - c & U32_MAX) ^ _rol(c, 4)
    c = c + b & U32_MAX
    b = (b - a & U32_MAX) ^ _rol(a, 6)
    a = a + c & U32_MAX
    c = (c - b & U32_MAX) ^ _rol(b, 8)
    b = b + a & U32_MAX
    a = (a - c & U32_MAX) ^ _rol(c, 16)
    c = c + b & U32_MAX
    b = (b - a & U32_MAX) ^ _rol(a, 19)
    a = a + c & U32_MAX
    c = (c - b & U32_MAX) ^ _rol(b, 4)
    b = b + a & U32_MAX
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    """lookup3's last mixing; its ``c`` is the hash."""
    for first, second, third in ((14, 11, 25), (16, 4, 14)):
        c = (c ^ b) - _rol(b, first) & U32_MAX
        a = (a ^ c) - _rol(c, second) & U32_MAX
        b = (b ^ a) - _rol(a, third) & U32_MAX
    return (c ^ b) - _rol(b, 24) & U32_MAX


def jhash(key: bytes, seed: int) -> int:
    """lookup3 of any number of bytes, read as little-endian words padded with zeroes. 32 bits.

    For a length that is a multiple of 4 it is also the kernel's jhash2 of those words.
    """
    length = len(key)
    a = b = c = JHASH_INITVAL + length + seed & U32_MAX
    if not length:
        return c
    at = 0
    while length - at > 12:
        a, b, c = _mix(*_add_words(a, b, c, key[at : at + 12]))
        at += 12
    return _final(*_add_words(a, b, c, key[at:]))


def _add_words(a: int, b: int, c: int, piece: bytes) -> tuple[int, int, int]:
    """Add up to 12 bytes, as three little-endian words, to the state."""
    words = int.from_bytes(piece, "little")
    return a + words & U32_MAX, b + (words >> 32) & U32_MAX, c + (words >> 64) & U32_MAX


def fold(key: bytes, seed: int) -> int:
    """h = seed * M; for each little-endian 8-byte word w (the last padded with zeroes): p = (h ^ w) * M in 128 bits,
    h = low(p) ^ high(p). The hash is the low 32 bits of h ^ h >> 32."""
    words = int.from_bytes(key, "little")
    h = seed * FOLD_MULTIPLIER & U64_MAX
    for _ in range(0, len(key), 8):
        product = (h ^ words & U64_MAX) * FOLD_MULTIPLIER
        h = product & U64_MAX ^ product >> 64
        words >>= 64
    return (h ^ h >> 32) & U32_MAX


class HashMemo(dict[bytes, int]):
    """Remembers what a hash function gave for each key, up to ``limit`` keys: a pure function never goes stale."""

    __slots__ = ("_function", "_limit", "_seed")

    def __init__(self, function: Callable[[bytes, int], int], seed: int, limit: int = 1 << 16) -> None:
        super().__init__()
        self._function, self._seed, self._limit = function, seed, limit

    def __missing__(self, key: bytes) -> int:
        if len(self) >= self._limit:
            self.clear()
        value = self[key] = self._function(key, self._seed)
        return value
