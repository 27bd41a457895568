"""BPF_MAP_TYPE_RINGBUF: records of any length from programs to one reader, in order. Its bytes, as Linux maps them::

    u64 consumer_pos;                       // at 0
    u64 producer_pos, pending_pos;          // at 4096
    u64 mask;                               // at 4112, max_entries - 1; Linux has it in a page that is not mapped
    u8  data[max_entries];                  // at 8192
    u8  beyond[max_entries];                // staging for the one record that runs over the end of data

    struct record { u32 len; u32 pg_off; u8 bytes[round_up(len, 8)]; };   // at data + (position & (max_entries - 1))

Positions only grow. ``len`` has bit 31 (busy) until the record is submitted or discarded, bit 30 when discarded; ``pg_off`` is
the record's distance from the start of the kernel's structure in pages. Linux maps the data twice in a row; here a record that
runs over the end continues in ``beyond``, filled from the start of data when it is reserved and copied back when committed.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.maps import (
    BPF_RB_AVAIL_DATA,
    BPF_RB_CONS_POS,
    BPF_RB_FORCE_WAKEUP,
    BPF_RB_NO_WAKEUP,
    BPF_RB_PROD_POS,
    BPF_RB_RING_SIZE,
    BPF_RINGBUF_BUSY_BIT,
    BPF_RINGBUF_DISCARD_BIT,
    BPF_RINGBUF_HDR_SZ,
    MapType,
)
from netbpf.errors import ENOTSUPP, BpfError
from netbpf.ints import U32_MAX, round_up
from netbpf.maps.base import BPF_ANY
from netbpf.maps.check import PAGE_SIZE
from netbpf.maps.spec import MapSpec
from netbpf.maps.storage import MapBase

DATA_OFF: Final = 2 * PAGE_SIZE
CONSUMER_POS, PRODUCER_POS, PENDING_POS, MASK = 0, *range(PAGE_SIZE >> 3, (PAGE_SIZE >> 3) + 3)  # words of 8 bytes
META_PAGES: Final = 3  # of the kernel's structure before the data
MAX_RECORD: Final = U32_MAX // 4


class RingBufMap(MapBase):
    """A ring buffer. Programs call ``reserve``, ``commit``, ``output`` and ``query``; the reader calls ``consume``."""

    __slots__ = ("_mask",)
    map_type = MapType.RINGBUF

    def __init__(self, spec: MapSpec, n_cpus: int, map_id: int) -> None:
        self._mask = spec.max_entries - 1
        super().__init__(spec, DATA_OFF + 2 * spec.max_entries, n_cpus, map_id)
        self.u64[MASK] = self._mask

    # --- programs -----------------------------------------------------------------------------------------------------
    def reserve(self, size: int, flags: int = 0) -> int:
        """bpf_ringbuf_reserve: offset in ``memory`` of ``size`` bytes to fill, or -1 when flags are given or there is no room.

        Room means that neither the reader nor the oldest record not yet committed is a whole buffer behind.
        """
        length = round_up(size + BPF_RINGBUF_HDR_SZ, 8)
        if flags or size > MAX_RECORD or length > self._mask + 1:
            return -1
        u64 = self.u64
        produced = u64[PRODUCER_POS]
        pending = self._pass_committed(u64[PENDING_POS], produced)
        u64[PENDING_POS] = pending
        after = produced + length
        if after - u64[CONSUMER_POS] > self._mask or after - pending > self._mask:
            return -1
        start = produced & self._mask
        at = DATA_OFF + start
        self.u32[at >> 2], self.u32[(at >> 2) + 1] = size | BPF_RINGBUF_BUSY_BIT, META_PAGES + start // PAGE_SIZE
        over = start + length - (self._mask + 1)
        if over > 0:
            beyond = DATA_OFF + self._mask + 1
            self.memory[beyond : beyond + over] = self.memory[DATA_OFF : DATA_OFF + over]
        u64[PRODUCER_POS] = after
        return at + BPF_RINGBUF_HDR_SZ

    def _pass_committed(self, pending: int, produced: int) -> int:
        """The position of the first record still busy."""
        while pending < produced:
            length = self.u32[(DATA_OFF + (pending & self._mask)) >> 2]
            if length & BPF_RINGBUF_BUSY_BIT:
                break
            pending += round_up((length & ~BPF_RINGBUF_DISCARD_BIT) + BPF_RINGBUF_HDR_SZ, 8)
        return pending

    def commit(self, offset: int, flags: int = 0, *, discard: bool = False) -> bool:
        """bpf_ringbuf_submit, or _discard, of what ``reserve`` gave; whether a waiting reader is woken."""
        at = offset - BPF_RINGBUF_HDR_SZ
        size = self.u32[at >> 2] & ~BPF_RINGBUF_BUSY_BIT
        start = at - DATA_OFF
        over = start + round_up(size + BPF_RINGBUF_HDR_SZ, 8) - (self._mask + 1)
        if over > 0:
            beyond = DATA_OFF + self._mask + 1
            self.memory[DATA_OFF : DATA_OFF + over] = self.memory[beyond : beyond + over]
        self.u32[at >> 2] = size | (BPF_RINGBUF_DISCARD_BIT if discard else 0)
        if flags & BPF_RB_FORCE_WAKEUP:
            return True
        return self.u64[CONSUMER_POS] & self._mask == start and not flags & BPF_RB_NO_WAKEUP

    def output(self, data: bytes, flags: int = 0) -> int:
        """bpf_ringbuf_output: 0, -EINVAL for unknown flags, -EAGAIN when there is no room."""
        if flags & ~(BPF_RB_NO_WAKEUP | BPF_RB_FORCE_WAKEUP):
            return -errno.EINVAL
        offset = self.reserve(len(data))
        if offset < 0:
            return -errno.EAGAIN
        self.memory[offset : offset + len(data)] = data
        self.commit(offset, flags)
        return 0

    def query(self, what: int) -> int:
        """bpf_ringbuf_query; 0 for a question it does not know."""
        u64 = self.u64
        answers = {
            BPF_RB_AVAIL_DATA: u64[PRODUCER_POS] - u64[CONSUMER_POS],
            BPF_RB_RING_SIZE: self._mask + 1,
            BPF_RB_CONS_POS: u64[CONSUMER_POS],
            BPF_RB_PROD_POS: u64[PRODUCER_POS],
        }
        return answers.get(what, 0)

    # --- the reader ---------------------------------------------------------------------------------------------------
    def consume(self, limit: int = 1 << 62) -> list[bytes]:
        """Read up to ``limit`` records, oldest first, and give their room back; discarded ones are passed over. Stops at a
        record not yet committed."""
        u64, records = self.u64, list[bytes]()
        at, produced = u64[CONSUMER_POS], u64[PRODUCER_POS]
        while at < produced and len(records) < limit:
            length = self.u32[(DATA_OFF + (at & self._mask)) >> 2]
            if length & BPF_RINGBUF_BUSY_BIT:
                break
            size = length & ~BPF_RINGBUF_DISCARD_BIT
            if size == length:
                records.append(self._read((at + BPF_RINGBUF_HDR_SZ) & self._mask, size))
            at += round_up(size + BPF_RINGBUF_HDR_SZ, 8)
        u64[CONSUMER_POS] = at
        return records

    def _read(self, start: int, size: int) -> bytes:
        """``size`` bytes of data from ``start``, around the end."""
        straight = self.memory[DATA_OFF + start : DATA_OFF + min(start + size, self._mask + 1)]
        return bytes(straight) + self.memory[DATA_OFF : DATA_OFF + size - len(straight)]

    # --- user space has no elements here ------------------------------------------------------------------------------
    def lookup_user(self, key: bytes, flags: int = 0) -> bytes:
        self.check_lookup_flags(flags)
        self.check_key(key)
        raise BpfError(ENOTSUPP)

    def update_user(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        self.check_write(flags)
        self.check_key(key)
        raise BpfError(ENOTSUPP)

    def delete_user(self, key: bytes) -> None:
        self.check_write()
        self.check_key(key)
        raise BpfError(ENOTSUPP)

    def next_key(self, key: bytes | None) -> bytes | None:
        raise BpfError(ENOTSUPP)
