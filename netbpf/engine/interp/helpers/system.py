"""Clocks, random numbers, where the program runs: all from the machine's Env."""

from __future__ import annotations

from typing import Final

from netbpf.engine.interp.helpers.body import Body
from netbpf.engine.interp.machine import Machine


def ktime_get_ns(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return m.env.ktime_ns()


def ktime_get_boot_ns(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return m.env.boot_ns()


def ktime_get_tai_ns(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return m.env.tai_ns()


def ktime_get_coarse_ns(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return m.env.coarse_ns()


def jiffies64(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return m.env.jiffies()


def get_prandom_u32(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return m.env.random_u32()


def get_smp_processor_id(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return m.cpu


def get_numa_node_id(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """The simulated machine has one node."""
    return 0


BODIES: Final[dict[str, Body]] = {
    "ktime_get_ns": ktime_get_ns,
    "ktime_get_boot_ns": ktime_get_boot_ns,
    "ktime_get_tai_ns": ktime_get_tai_ns,
    "ktime_get_coarse_ns": ktime_get_coarse_ns,
    "jiffies64": jiffies64,
    "get_prandom_u32": get_prandom_u32,
    "get_smp_processor_id": get_smp_processor_id,
    "get_numa_node_id": get_numa_node_id,
}
