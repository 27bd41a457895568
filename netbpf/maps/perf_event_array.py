"""BPF_MAP_TYPE_PERF_EVENT_ARRAY: the perf rings bpf_perf_event_output writes to, by index, usually the CPU's. Its bytes::

    struct slot { u64 address; u32 data_size; u32 cpu; } slot[max_entries];   // address of a maps.perf_buffer memory, 0: none
"""

from __future__ import annotations

import errno

from netbpf.abi.maps import BPF_F_CTXLEN_MASK, BPF_F_CURRENT_CPU, BPF_F_INDEX_MASK, MapType
from netbpf.maps.inner import SLOT
from netbpf.maps.objects import ObjectArray
from netbpf.maps.perf_buffer import DATA_SIZE, PerfBuffer


class PerfEventArrayMap(ObjectArray):
    """An array of PerfBuffer."""

    __slots__ = ()
    map_type = MapType.PERF_EVENT_ARRAY
    slot_bytes = SLOT.size
    tells_ids = False

    def slot_of(self, obj: PerfBuffer) -> bytes:
        return SLOT.pack(obj.address, obj.u64[DATA_SIZE], obj.cpu)

    def output(self, data: bytes, flags: int, packet: bytes = b"", cpu: int = 0) -> int:
        """bpf_perf_event_output of a program with an sk_buff: 0 or -errno.

        ``flags``: the index, or BPF_F_CURRENT_CPU, and in bits 32 to 51 how many bytes of ``packet`` follow ``data``.
        """
        if flags & ~(BPF_F_CTXLEN_MASK | BPF_F_INDEX_MASK):
            return -errno.EINVAL
        packet_len = (flags & BPF_F_CTXLEN_MASK) >> 32
        if packet_len > len(packet):
            return -errno.EFAULT
        index = flags & BPF_F_INDEX_MASK
        if index == BPF_F_CURRENT_CPU:
            index = cpu
        if index >= self.spec.max_entries:
            return -errno.E2BIG
        buffer: PerfBuffer | None = self.get(index)
        if buffer is None:
            return -errno.ENOENT
        if buffer.cpu != cpu:
            return -errno.EOPNOTSUPP
        return buffer.output(data + packet[:packet_len])
