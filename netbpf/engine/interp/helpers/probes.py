"""bpf_probe_read_*: reads through an address that nothing was proved of. User memory is not there while a packet is received."""

from __future__ import annotations

import errno
from typing import Final

from netbpf.engine.interp.helpers.body import Body
from netbpf.engine.interp.machine import Machine
from netbpf.engine.interp.memory import Fault
from netbpf.ints import s32, u32


def probe_read_kernel(m: Machine, dst: int, size: int, unsafe: int, r4: int, r5: int) -> int:
    """0, or -EFAULT and zeroes where the address is in no region."""
    try:
        data = m.memory.read(unsafe, u32(size))
    except Fault:
        return probe_read_user(m, dst, size, unsafe, r4, r5)
    m.memory.write(dst, data)
    return 0


def probe_read_user(m: Machine, dst: int, size: int, unsafe: int, r4: int, r5: int) -> int:
    m.memory.write(dst, bytes(u32(size)))
    return -errno.EFAULT


def probe_read_kernel_str(m: Machine, dst: int, size: int, unsafe: int, r4: int, r5: int) -> int:
    """A string with its NUL, cut to ``size`` with a NUL at the end; its length with the NUL, or -EFAULT and zeroes."""
    size = s32(size)
    if size <= 0:
        return 0
    text = read_string(m, unsafe, size - 1)
    if text is None:
        return probe_read_user(m, dst, size, unsafe, r4, r5)
    m.memory.write(dst, text + b"\0")
    return len(text) + 1


def read_string(m: Machine, address: int, limit: int) -> bytes | None:
    """The bytes up to a NUL, at most ``limit``; None where the address, or a byte before the NUL, is in no region."""
    text = bytearray()
    try:
        while len(text) < limit:
            byte = m.memory.load(address + len(text), 1)
            if not byte:
                break
            text.append(byte)
    except Fault:
        return None
    return bytes(text)


BODIES: Final[dict[str, Body]] = {
    "probe_read_user": probe_read_user,
    "probe_read_kernel": probe_read_kernel,
    "probe_read_user_str": probe_read_user,
    "probe_read_kernel_str": probe_read_kernel_str,
}
