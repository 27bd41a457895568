"""bpf_loop, spin locks, kptr_xchg."""

from __future__ import annotations

import errno
from typing import Final

from netbpf.engine.interp.helpers.body import Body
from netbpf.engine.interp.machine import BPF_MAX_LOOPS, Machine
from netbpf.ints import u32


def loop(m: Machine, nr_loops: int, callback: int, ctx: int, flags: int, r5: int) -> int:
    """callback(index, ctx) until one returns nonzero; how many calls were made."""
    nr_loops = u32(nr_loops)
    if flags:
        return -errno.EINVAL
    if nr_loops > BPF_MAX_LOOPS:
        return -errno.E2BIG
    for i in range(nr_loops):
        if m.call(callback, i, ctx):
            return i + 1
    return nr_loops


def spin_lock(m: Machine, lock: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """One program runs at a time: the lock is free. Its bytes, which no program can read, are checked to be there."""
    m.memory.buffer(lock, 4, "atomic access")
    return 0


def kptr_xchg(m: Machine, dst: int, new: int, r3: int, r4: int, r5: int) -> int:
    """The pointer that was kept at ``dst``."""
    old = m.memory.load(dst, 8)
    m.memory.store(dst, 8, new)
    return old


BODIES: Final[dict[str, Body]] = {
    "loop": loop,
    "spin_lock": spin_lock,
    "spin_unlock": spin_lock,
    "kptr_xchg": kptr_xchg,
}
