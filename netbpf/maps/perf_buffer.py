"""One CPU's perf ring, as perf_event_open(2) of PERF_COUNT_SW_BPF_OUTPUT with PERF_SAMPLE_RAW maps it. Its bytes::

    struct perf_event_mmap_page   // at 0: u64 data_head at 1024, data_tail at 1032, data_offset at 1040, data_size at 1048
    u64 lost, event_id;           // at 2048: records refused since the last one written; not part of Linux's page
    u8  data[data_size];          // at 4096; a power of two of pages

    struct sample { u32 type = 9; u16 misc = 1; u16 size; u32 raw_size; u8 raw[raw_size]; };    // size is a multiple of 8
    struct lost   { u32 type = 2; u16 misc = 0; u16 size = 24; u64 id; u64 lost; };

data_head and data_tail only grow; a record lies at data[position & (data_size - 1)] and may run around the end.
A sample is padded to 8 bytes; the padding is whatever the ring held there before, as in Linux.
"""

from __future__ import annotations

import errno
import struct
from typing import Final, NamedTuple

from netbpf.ints import round_up
from netbpf.maps.check import PAGE_SIZE
from netbpf.maps.storage import map_anonymous

PERF_RECORD_LOST: Final = 2
PERF_RECORD_SAMPLE: Final = 9
MISC_KERNEL: Final = 1
DATA_HEAD, DATA_TAIL, DATA_OFFSET, DATA_SIZE, LOST, EVENT_ID = (at >> 3 for at in (1024, 1032, 1040, 1048, 2048, 2056))
HEADER: Final = struct.Struct("<IHH")
LOST_RECORD: Final = struct.Struct("<IHHQQ")


class PerfRecord(NamedTuple):
    """A record read: a sample's raw bytes (with Linux's padding), or how many samples were lost before the next one."""

    raw: bytes
    lost: int = 0


class PerfBuffer:
    """A perf event on one CPU and its ring; ``pages`` is a power of two."""

    __slots__ = ("_address", "_mask", "_pin", "cpu", "event_id", "memory", "u64")

    def __init__(self, cpu: int = 0, pages: int = 8, event_id: int = 0) -> None:
        self.cpu, self.event_id = cpu, event_id
        self._mask = pages * PAGE_SIZE - 1
        self.memory = map_anonymous((1 + pages) * PAGE_SIZE)
        self.u64 = memoryview(self.memory).cast("Q")
        self.u64[DATA_OFFSET], self.u64[DATA_SIZE], self.u64[EVENT_ID] = PAGE_SIZE, pages * PAGE_SIZE, event_id
        self._address = 0
        self._pin: object = None

    @property
    def address(self) -> int:
        """Address of ``memory[0]``, for native code."""
        if not self._address:
            import ctypes  # only native code asks for it

            pin = ctypes.c_char.from_buffer(self.memory)
            self._pin, self._address = pin, ctypes.addressof(pin)
        return self._address

    def output(self, data: bytes) -> int:
        """Append a sample: 0, or -ENOSPC (counted as lost). A sample that follows lost ones is preceded by their count."""
        u64 = self.u64
        raw_size = round_up(len(data) + 4, 8) - 4
        record = HEADER.pack(PERF_RECORD_SAMPLE, MISC_KERNEL, HEADER.size + 4 + raw_size & 0xFFFF)
        record += raw_size.to_bytes(4, "little") + data
        if u64[LOST]:
            record = LOST_RECORD.pack(PERF_RECORD_LOST, 0, LOST_RECORD.size, self.event_id, u64[LOST]) + record
        head, length = u64[DATA_HEAD], len(record) + raw_size - len(data)
        if (u64[DATA_TAIL] - head - 1) & self._mask < length:
            u64[LOST] += 1
            return -errno.ENOSPC
        self._write(head & self._mask, record)
        u64[LOST] = 0
        u64[DATA_HEAD] = head + length
        return 0

    def _write(self, start: int, record: bytes) -> None:
        straight = min(len(record), self._mask + 1 - start)
        self.memory[PAGE_SIZE + start : PAGE_SIZE + start + straight] = record[:straight]
        self.memory[PAGE_SIZE : PAGE_SIZE + len(record) - straight] = record[straight:]

    def _read(self, position: int, size: int) -> bytes:
        start = position & self._mask
        straight = self.memory[PAGE_SIZE + start : PAGE_SIZE + min(start + size, self._mask + 1)]
        return bytes(straight) + self.memory[PAGE_SIZE : PAGE_SIZE + size - len(straight)]

    def consume(self) -> list[PerfRecord]:
        """Read every record, oldest first, and give the room back."""
        u64, records, at = self.u64, [], self.u64[DATA_TAIL]
        while at < u64[DATA_HEAD]:
            kind, _, size = HEADER.unpack(self._read(at, HEADER.size))
            body = self._read(at + HEADER.size, size - HEADER.size)
            is_lost = kind == PERF_RECORD_LOST
            records.append(PerfRecord(b"", int.from_bytes(body[8:16], "little")) if is_lost else PerfRecord(body[4:]))
            at += size
        u64[DATA_TAIL] = at
        return records
