"""What a program can learn of the world outside packet and maps: clocks, random numbers, the CPU it runs on.

The only door to time and randomness: every other room takes an :class:`Env` as an argument.
"""

from __future__ import annotations

import os
import time
from typing import Protocol


class Env(Protocol):
    """Clocks in nanoseconds, 32-bit random numbers, the current CPU."""

    def ktime_ns(self) -> int:
        """CLOCK_MONOTONIC, what bpf_ktime_get_ns returns."""

    def boot_ns(self) -> int:
        """CLOCK_BOOTTIME."""

    def tai_ns(self) -> int:
        """CLOCK_TAI."""

    def coarse_ns(self) -> int:
        """CLOCK_MONOTONIC_COARSE."""

    def jiffies(self) -> int:
        """jiffies64 at CONFIG_HZ."""

    def random_u32(self) -> int:
        """The next 32 random bits."""

    def cpu_id(self) -> int:
        """The CPU the program runs on, from 0."""


class SystemEnv:
    """The clocks and random numbers of this machine."""

    def __init__(self, cpu: int = 0) -> None:
        self.cpu = cpu

    def ktime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def tai_ns(self) -> int:
        return time.clock_gettime_ns(getattr(time, "CLOCK_TAI", time.CLOCK_REALTIME))

    def coarse_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def jiffies(self) -> int:
        return self.ktime_ns() // JIFFY_NS

    def random_u32(self) -> int:
        return int.from_bytes(os.urandom(4), "little")

    def cpu_id(self) -> int:
        return self.cpu


JIFFY_NS = 4_000_000  # CONFIG_HZ=250


class SteppedEnv:
    """A clock that stands still until told, and random numbers from a seed: two runs are the same run.

    Random numbers are xorshift64* (Vigna 2016), so that a native engine can produce the same sequence from
    the same ``rng_state``.
    """

    def __init__(self, now_ns: int = 0, seed: int = 1, cpu: int = 0) -> None:
        self.now_ns, self.cpu = now_ns, cpu
        self.rng_state = (seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & 0xFFFF_FFFF_FFFF_FFFF or 1

    def set_time(self, now_ns: int) -> None:
        """Move the clock to ``now_ns``; it may also go back, as the timestamps of a capture do."""
        self.now_ns = now_ns

    def ktime_ns(self) -> int:
        return self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns

    def tai_ns(self) -> int:
        return self.now_ns

    def coarse_ns(self) -> int:
        return self.now_ns - self.now_ns % JIFFY_NS

    def jiffies(self) -> int:
        return self.now_ns // JIFFY_NS

    def random_u32(self) -> int:
        x = self.rng_state
        x ^= x >> 12
        x = (x ^ (x << 25)) & 0xFFFF_FFFF_FFFF_FFFF
        x ^= x >> 27
        self.rng_state = x
        return ((x * 0x2545F4914F6CDD1D) & 0xFFFF_FFFF_FFFF_FFFF) >> 32

    def cpu_id(self) -> int:
        return self.cpu
