"""The operations of ``maps.ringbuf``."""

# ruff: noqa: F821  (the numbers of a map are known when it is compiled)
# mypy: disable-error-code="name-defined, no-any-return"

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import copy, u32, u64

PRODUCER_POS = 4096
PENDING_POS = 4104
DATA_OFF = 8192
PAGE_SIZE = 4096
META_PAGES = 3
HEADER = 8
BUSY = 0x8000_0000
DISCARD = 0x4000_0000
MAX_RECORD = 0x3FFF_FFFF
EAGAIN = 11
EINVAL = 22


def padded(size: int) -> int:
    return (size + HEADER + 7) & -8


def pass_committed(m: int, produced: int) -> int:
    """The position of the first record still busy."""
    pending = u64[m + PENDING_POS]
    while pending < produced:
        length = u32[m + DATA_OFF + (pending & MASK)]
        if length & BUSY:
            break
        pending += padded(length & MAX_RECORD)
    return pending


def reserve(m: int, size: int, flags: int) -> int:
    """Address of ``size`` bytes to fill, or 0."""
    length = padded(size)
    if flags or size > MAX_RECORD or length > MASK + 1:
        return 0
    produced = u64[m + PRODUCER_POS]
    pending = pass_committed(m, produced)
    u64[m + PENDING_POS] = pending
    after = produced + length
    if after - u64[m] > MASK or after - pending > MASK:
        return 0
    start = produced & MASK
    at = m + DATA_OFF + start
    u32[at] = size | BUSY
    u32[at + 4] = META_PAGES + start // PAGE_SIZE
    if start + length > MASK + 1:
        copy(m + DATA_OFF + MASK + 1, m + DATA_OFF, start + length - (MASK + 1))
    u64[m + PRODUCER_POS] = after
    return at + HEADER


def commit(m: int, sample: int, discard: int) -> int:
    at = sample - HEADER
    size = u32[at] & (BUSY - 1)
    end = at - (m + DATA_OFF) + padded(size)
    if end > MASK + 1:
        copy(m + DATA_OFF, m + DATA_OFF + MASK + 1, end - (MASK + 1))
    u32[at] = size | (DISCARD if discard else 0)
    return 0


def output(m: int, data: int, size: int, flags: int) -> int:
    if flags > 3:
        return -EINVAL
    sample = reserve(m, size, 0)
    if not sample:
        return -EAGAIN
    copy(sample, data, size)
    return commit(m, sample, 0)


def query(m: int, what: int) -> int:
    if what == 0:
        return u64[m + PRODUCER_POS] - u64[m]
    if what == 1:
        return MASK + 1
    if what == 2:
        return u64[m]
    return u64[m + PRODUCER_POS] if what == 3 else 0
