"""What programs of the running kernel put into rings: perf events (perf_event_open, mmap) and BPF ring buffers (mmap).

The bytes are laid out as ``maps.perf_buffer`` and ``maps.ringbuf`` say; here they are the kernel's own pages.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import struct
from typing import Final

from netbpf.abi.maps import BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT, BPF_RINGBUF_HDR_SZ
from netbpf.host.linux.syscalls import syscall
from netbpf.ints import round_up
from netbpf.maps.perf_buffer import DATA_HEAD, DATA_TAIL, HEADER, PERF_RECORD_LOST, PerfRecord

PAGE: Final = mmap.PAGESIZE
PERF_TYPE_SOFTWARE, PERF_COUNT_SW_BPF_OUTPUT, PERF_SAMPLE_RAW = 1, 10, 1 << 10
PERF_FLAG_FD_CLOEXEC: Final = 8
PERF_EVENT_IOC_ENABLE: Final = 0x2400
_ATTR = struct.Struct("<IIQQQ")  # the head of struct perf_event_attr: type, size, config, sample_period, sample_type
_ATTR_BYTES: Final = 112
_WAKEUP_OFF: Final = 48


def open_perf_output(cpu: int) -> int:
    """A descriptor of an enabled PERF_COUNT_SW_BPF_OUTPUT event on a CPU. Raises BpfError."""
    attr = ctypes.create_string_buffer(_ATTR_BYTES)
    _ATTR.pack_into(attr, 0, PERF_TYPE_SOFTWARE, _ATTR_BYTES, PERF_COUNT_SW_BPF_OUTPUT, 1, PERF_SAMPLE_RAW)
    struct.pack_into("<I", attr, _WAKEUP_OFF, 1)
    args = (ctypes.c_int(-1), ctypes.c_int(cpu), ctypes.c_int(-1), ctypes.c_ulong(PERF_FLAG_FD_CLOEXEC))
    fd = syscall("perf_event_open", attr, *args)
    fcntl.ioctl(fd, PERF_EVENT_IOC_ENABLE, 0)
    return fd


class PerfRing:
    """The mapped ring of a perf event; it must be there before the kernel writes."""

    def __init__(self, fd: int, pages: int) -> None:
        self._memory = mmap.mmap(fd, (1 + pages) * PAGE)
        self._size = pages * PAGE

    def consume(self) -> list[PerfRecord]:
        """Every record that waits, oldest first; their room is given back."""
        at, head = (struct.unpack_from("<Q", self._memory, 8 * word)[0] for word in (DATA_TAIL, DATA_HEAD))
        out = []
        while at < head:
            kind, _, size = HEADER.unpack(self._read(at, HEADER.size))
            body = self._read(at + HEADER.size, size - HEADER.size)
            is_lost = kind == PERF_RECORD_LOST
            out.append(PerfRecord(b"", int.from_bytes(body[8:16], "little")) if is_lost else PerfRecord(body[4:]))
            at += size
        struct.pack_into("<Q", self._memory, 8 * DATA_TAIL, at)
        return out

    def _read(self, position: int, size: int) -> bytes:
        start = position % self._size
        straight = self._memory[PAGE + start : PAGE + min(start + size, self._size)]
        return straight + self._memory[PAGE : PAGE + size - len(straight)]

    def close(self) -> None:
        self._memory.close()


def read_ringbuf(fd: int, size: int) -> list[bytes]:
    """Every committed record of a BPF_MAP_TYPE_RINGBUF of ``size`` bytes; their room is given back. Raises OSError."""
    with mmap.mmap(fd, PAGE) as consumer, mmap.mmap(fd, PAGE + 2 * size, prot=mmap.PROT_READ, offset=PAGE) as producer:
        (at,), (end,) = struct.unpack_from("<Q", consumer), struct.unpack_from("<Q", producer)
        out = []
        while at < end:
            start = PAGE + at % size
            (length,) = struct.unpack_from("<I", producer, start)
            if length & BPF_RINGBUF_BUSY_BIT:
                break
            kept = length & ~BPF_RINGBUF_DISCARD_BIT
            if kept == length:
                out.append(producer[start + BPF_RINGBUF_HDR_SZ : start + BPF_RINGBUF_HDR_SZ + kept])
            at += round_up(kept + BPF_RINGBUF_HDR_SZ, 8)
        struct.pack_into("<Q", consumer, 0, at)
    return out
