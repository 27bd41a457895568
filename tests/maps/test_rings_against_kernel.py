"""Ring buffers and perf rings: the bytes that user space maps, Linux's and ours, after the same random outputs and reads."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import struct

import pytest
from support.kernel import needs_kernel
from support.kernel_maps import KernelMap, n_cpus, pinned
from support.map_ops import Ours, outcome

from netbpf.abi.maps import MapType
from netbpf.maps.create import create
from netbpf.maps.perf_buffer import PerfBuffer
from netbpf.maps.ringbuf import DATA_OFF
from netbpf.maps.spec import MapSpec

pytestmark = needs_kernel
PAGE = 4096


@pytest.mark.parametrize("seed", range(4))
def test_ringbuf_bytes(seed: int) -> None:
    size = 4096 << seed % 2
    spec = MapSpec(MapType.RINGBUF, 0, 0, size)
    rng = random.Random(seed)
    live = create(spec)
    ours = Ours(live)
    with pinned(), KernelMap(spec) as theirs:
        consumer = mmap.mmap(theirs.fd, PAGE)
        producer = mmap.mmap(theirs.fd, PAGE + 2 * size, prot=mmap.PROT_READ, offset=PAGE)
        for n in range(300):
            op = rng.choice(("ringbuf_output", "ringbuf_output", "ringbuf_submit", "ringbuf_discard", "read", "ringbuf_query"))
            if op == "read":
                limit = rng.randrange(8)
                got = live.consume(limit)
                assert _consume(consumer, producer, size, limit) == got
            value = rng.randbytes(rng.choice((8, 9, 40, 200, 1000, 1001, 4080, 4089)))
            flags = rng.choice((0, 0, 1, 2, 3, 4, 8)) if op in ("ringbuf_output", "ringbuf_query") else rng.randrange(3)
            if op != "read":
                expected, got2 = theirs.program(op, b"", value, flags), ours.program(op, b"", value, flags)
                assert expected[0] == got2[0], (n, op, len(value), flags)
            assert live.memory[:16] == consumer[:16]
            assert live.memory[PAGE : PAGE + 16] == producer[:16]
            assert live.memory[DATA_OFF : DATA_OFF + size] == producer[PAGE : PAGE + size], (n, op)


def _consume(consumer: mmap.mmap, producer: mmap.mmap, size: int, limit: int) -> list[bytes]:
    """A reader written as libbpf documents it, on Linux's double mapping."""
    at, end = struct.unpack("<Q", consumer[:8])[0], struct.unpack("<Q", producer[:8])[0]
    records: list[bytes] = []
    while at < end and len(records) < limit:
        start = PAGE + at % size
        length = struct.unpack_from("<I", producer, start)[0]
        body = length & 0x3FFF_FFFF
        if not length >> 30:
            records.append(producer[start + 8 : start + 8 + body])
        at += (body + 8 + 7) // 8 * 8
    consumer[:8] = struct.pack("<Q", at)
    return records


@pytest.mark.parametrize("op", ["lookup_user", "lookup_and_delete_user", "delete_user", "update_user", "next_key"])
def test_a_ringbuf_has_no_elements(op: str) -> None:
    spec = MapSpec(MapType.RINGBUF, 0, 0, 4096)
    args = {"update_user": (b"", b""), "next_key": (None,)}.get(op, (b"",))
    with KernelMap(spec) as theirs:
        assert outcome(getattr(create(spec), op), *args) == outcome(getattr(theirs, op), *args)


def perf_event_open(cpu: int) -> int:
    """A PERF_COUNT_SW_BPF_OUTPUT event with raw samples, for every process on one CPU."""
    attr = struct.pack("<IIQQQQQI", 1, 112, 10, 1, 1 << 10, 0, 0, 1).ljust(112, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 298, "aarch64": 241}[os.uname().machine]
    fd = int(libc.syscall(number, ctypes.create_string_buffer(attr, 112), -1, cpu, -1, 8))
    if fd < 0:
        pytest.skip(f"perf_event_open: {os.strerror(ctypes.get_errno())}")
    return fd


@pytest.mark.parametrize("pages", [1, 4])
def test_perf_ring_bytes(pages: int) -> None:
    spec = MapSpec(MapType.PERF_EVENT_ARRAY, 4, 4, n_cpus())
    rng = random.Random(pages)
    live = create(spec)
    ours, size = Ours(live), pages * PAGE
    with pinned(), KernelMap(spec) as theirs:
        fd = perf_event_open(0)
        ring = mmap.mmap(fd, PAGE + size)
        event_id = _perf_event_id(fd)
        buffer = PerfBuffer(0, pages, event_id)
        theirs.update_user(bytes(4), fd.to_bytes(4, "little"))
        live.put(bytes(4), buffer)  # type: ignore[attr-defined]
        for n in range(200):
            if rng.randrange(5) == 0:
                ring[1032:1040] = ring[1024:1032]
                buffer.consume()
            value = rng.randbytes(rng.choice((1, 4, 5, 60, 500, 1000)))
            flags = rng.choice((0, 0xFFFF_FFFF, 0, 1, 2, 7 << 32, 50 << 32, 51 << 32, 1 << 52))
            call = ("perf_event_output", b"", value, flags)
            expected, got = theirs.program(*call), ours.program(*call)
            assert expected[0] == got[0], (n, len(value), hex(flags))
            assert buffer.memory[1024:1040] == ring[1024:1040]
            head = buffer.u64[1024 >> 3]
            assert buffer.memory[PAGE:] == ring[PAGE:], (n, head)
        ring.close()
        os.close(fd)


def _perf_event_id(fd: int) -> int:
    import fcntl

    answer = bytearray(8)
    fcntl.ioctl(fd, 0x80082407, answer)  # PERF_EVENT_IOC_ID
    return int.from_bytes(answer, "little")
