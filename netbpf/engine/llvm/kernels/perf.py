"""bpf_perf_event_output: ``maps.perf_event_array`` and the rings of ``maps.perf_buffer``."""

# ruff: noqa: F821  (the numbers of a map are known when it is compiled)
# mypy: disable-error-code="name-defined, no-any-return"

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import copy, u32, u64

DATA_HEAD = 1024
DATA_TAIL = 1032
DATA_SIZE = 1048
LOST = 2048
EVENT_ID = 2056
PAGE_SIZE = 4096
SLOT_BYTES = 16
RECORD_LOST = 2
RECORD_SAMPLE = 9
MISC_KERNEL = 1
LOST_BYTES = 24
CTXLEN_MASK = 0xFFFFF
CURRENT_CPU = 0xFFFF_FFFF
ENOENT = 2
E2BIG = 7
EFAULT = 14
EINVAL = 22
ENOSPC = 28
EOPNOTSUPP = 95


def perf_output(m: int, flags: int, data: int, size: int, packet: int, cap: int, cpu: int) -> int:
    if flags >> 52:
        return -EINVAL
    packet_len = (flags >> 32) & CTXLEN_MASK
    if packet_len > cap:
        return -EFAULT
    index = flags & CURRENT_CPU
    if index == CURRENT_CPU:
        index = cpu
    if index >= MAX_ENTRIES:
        return -E2BIG
    slot = m + index * SLOT_BYTES
    if not u64[slot]:
        return -ENOENT
    if u32[slot + 12] != cpu:
        return -EOPNOTSUPP
    return append(u64[slot], data, size, packet, packet_len)


def append(ring: int, data: int, size: int, packet: int, packet_len: int) -> int:
    raw_size = ((size + packet_len + 11) & -8) - 4
    length = 12 + raw_size
    lost = u64[ring + LOST]
    if lost:
        length += LOST_BYTES
    mask = u64[ring + DATA_SIZE] - 1
    head = u64[ring + DATA_HEAD]
    if (u64[ring + DATA_TAIL] - head - 1) & mask < length:
        u64[ring + LOST] = lost + 1
        return -ENOSPC
    at = head
    if lost:
        at = put32(ring, mask, at, RECORD_LOST)
        at = put32(ring, mask, at, LOST_BYTES << 16)
        at = put32(ring, mask, at, u32[ring + EVENT_ID])
        at = put32(ring, mask, at, u32[ring + EVENT_ID + 4])
        at = put32(ring, mask, at, u32[ring + LOST])
        at = put32(ring, mask, at, u32[ring + LOST + 4])
    at = put32(ring, mask, at, RECORD_SAMPLE)
    at = put32(ring, mask, at, MISC_KERNEL | ((12 + raw_size) & 0xFFFF) << 16)
    at = put32(ring, mask, at, raw_size)
    at = put(ring, mask, at, data, size)
    put(ring, mask, at, packet, packet_len)
    u64[ring + LOST] = 0
    u64[ring + DATA_HEAD] = head + length
    return 0


def put32(ring: int, mask: int, at: int, value: int) -> int:
    """Records begin at multiples of 8, so that no word runs around the end."""
    u32[ring + PAGE_SIZE + (at & mask)] = value
    return at + 4


def put(ring: int, mask: int, at: int, source: int, size: int) -> int:
    start = at & mask
    straight = mask + 1 - start
    if size < straight:
        straight = size
    copy(ring + PAGE_SIZE + start, source, straight)
    copy(ring + PAGE_SIZE, source + straight, size - straight)
    return at + size
