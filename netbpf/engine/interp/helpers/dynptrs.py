"""bpf_dynptr_* and the ring buffer's dynptrs. A dynptr is 16 bytes of the program's stack, which only helpers touch:

    struct bpf_dynptr_kern { u64 data; u32 size; u32 offset; }      // size: bits 0 to 23 bytes, 28 to 30 the type, 31 read-only

All zero is a null dynptr.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import Final, NamedTuple

from netbpf.engine.interp.helpers.body import Body
from netbpf.engine.interp.helpers.ringbufs import commit, reserve
from netbpf.engine.interp.machine import Machine
from netbpf.ints import u32

DYNPTR: Final = Struct("<QII")
DYNPTR_MAX_SIZE: Final = (1 << 24) - 1
TYPE_SHIFT: Final = 28
RDONLY_BIT: Final = 1 << 31
TYPE_LOCAL: Final = 1
TYPE_RINGBUF: Final = 2
NULL_DYNPTR: Final = bytes(DYNPTR.size)


class Dynptr(NamedTuple):
    """What the 16 bytes say: ``address`` of the first byte (0: null) and how many there are."""

    address: int
    size_bytes: int
    is_rdonly: bool

    def is_outside(self, offset: int, size_bytes: int) -> bool:
        return size_bytes > self.size_bytes or offset > self.size_bytes - size_bytes


def read_dynptr(m: Machine, at: int) -> Dynptr:
    data, size, offset = DYNPTR.unpack(m.memory.read(at, DYNPTR.size))
    return Dynptr(data + offset if data else 0, size & DYNPTR_MAX_SIZE, bool(size & RDONLY_BIT))


def write_dynptr(m: Machine, at: int, data: int, size: int, kind: int) -> None:
    m.memory.write(at, DYNPTR.pack(data, size | kind << TYPE_SHIFT, 0))


# --- from memory --------------------------------------------------------------------------------------------------------
def dynptr_from_mem(m: Machine, data: int, size: int, flags: int, at: int, r5: int) -> int:
    m.memory.write(at, NULL_DYNPTR)
    if u32(size) > DYNPTR_MAX_SIZE:
        return -errno.E2BIG
    if flags:
        return -errno.EINVAL
    write_dynptr(m, at, data, u32(size), TYPE_LOCAL)
    return 0


def dynptr_read(m: Machine, dst: int, size: int, at: int, offset: int, flags: int) -> int:
    source, size, offset = read_dynptr(m, at), u32(size), u32(offset)
    if not source.address or flags:
        return -errno.EINVAL
    if source.is_outside(offset, size):
        return -errno.E2BIG
    m.memory.write(dst, m.memory.read(source.address + offset, size))
    return 0


def dynptr_write(m: Machine, at: int, offset: int, src: int, size: int, flags: int) -> int:
    target, size, offset = read_dynptr(m, at), u32(size), u32(offset)
    if not target.address or target.is_rdonly:
        return -errno.EINVAL
    if target.is_outside(offset, size):
        return -errno.E2BIG
    if flags:
        return -errno.EINVAL
    m.memory.write(target.address + offset, m.memory.read(src, size))
    return 0


def dynptr_data(m: Machine, at: int, offset: int, size: int, r4: int, r5: int) -> int:
    """The address of ``size`` bytes at ``offset``, or 0."""
    source, size, offset = read_dynptr(m, at), u32(size), u32(offset)
    if not source.address or source.is_rdonly or source.is_outside(offset, size):
        return 0
    return source.address + offset


# --- ring buffer records --------------------------------------------------------------------------------------------------
def ringbuf_reserve_dynptr(m: Machine, map_: int, size: int, flags: int, at: int, r5: int) -> int:
    m.memory.write(at, NULL_DYNPTR)
    size = u32(size)
    if flags:
        return -errno.EINVAL
    if size > DYNPTR_MAX_SIZE:
        return -errno.E2BIG
    address = reserve(m, map_, size)
    if not address:
        return -errno.EINVAL
    write_dynptr(m, at, address, size, TYPE_RINGBUF)
    return 0


def ringbuf_submit_dynptr(m: Machine, at: int, flags: int, r3: int, r4: int, r5: int) -> int:
    return _end_record(m, at, flags, discard=False)


def ringbuf_discard_dynptr(m: Machine, at: int, flags: int, r3: int, r4: int, r5: int) -> int:
    return _end_record(m, at, flags, discard=True)


def _end_record(m: Machine, at: int, flags: int, *, discard: bool) -> int:
    """Nothing happens to a null dynptr; any other becomes null."""
    record = read_dynptr(m, at)
    if record.address:
        commit(m, record.address, flags, discard=discard)
        m.memory.write(at, NULL_DYNPTR)
    return 0


BODIES: Final[dict[str, Body]] = {
    "dynptr_from_mem": dynptr_from_mem,
    "dynptr_read": dynptr_read,
    "dynptr_write": dynptr_write,
    "dynptr_data": dynptr_data,
    "ringbuf_reserve_dynptr": ringbuf_reserve_dynptr,
    "ringbuf_submit_dynptr": ringbuf_submit_dynptr,
    "ringbuf_discard_dynptr": ringbuf_discard_dynptr,
}
