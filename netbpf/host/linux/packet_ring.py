"""A TPACKET_V3 receive ring: packets the kernel writes into memory that is ours to read, block by block.

``RingFilter`` hands each block to an engine that walks windows by itself, with no Python per packet. Knows the layout from
``packet.ring``; one socket, one ring, one thread that reads.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, Final, cast

from netbpf.abi import sockopt as so
from netbpf.abi.net import ETH_P_ALL
from netbpf.engine.base import WindowWalker
from netbpf.engine.results import Totals
from netbpf.env import SteppedEnv
from netbpf.errors import UsageError
from netbpf.host.filter_stats import FilterStats
from netbpf.host.linux.packet_kinds import known_device
from netbpf.host.linux.packet_statistics import STATS_V3_BYTES, PacketStatistics
from netbpf.packet.device import Device
from netbpf.packet.ring import (
    BLOCK_STATUS,
    RESERVE_BYTES,
    TP_STATUS_KERNEL,
    TP_STATUS_USER,
    Block,
    RingPacket,
    ring_layout,
    ring_packets,
)
from netbpf.packet.sink import CaptureWriter

PACKET_RX_RING, PACKET_VERSION, PACKET_RESERVE, TPACKET_V3 = 5, 10, 12, 2
BLOCK_BYTES: Final = 1 << 20  # larger than any packet: none is cut
BLOCKS: Final = 16
FRAME_BYTES: Final = 1 << 11  # only a unit of account in version 3
RETIRE_MS: Final = 100  # so long a packet waits for its block to fill
NEVER_NS: Final = 0xFFFF_FFFF_FFFF_FFFF
_REQUEST = struct.Struct("@7I")  # struct tpacket_req3


def monotonic_offset_ns() -> int:
    """What CLOCK_REALTIME, the clock of packets, lacks to be CLOCK_MONOTONIC, that of programs; negative."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) - time.clock_gettime_ns(time.CLOCK_REALTIME)


def arrival_env() -> SteppedEnv:
    """The Env of programs on a ring: their clock is the packet's arrival, their random numbers differ from run to run."""
    return SteppedEnv(now_ns=time.clock_gettime_ns(time.CLOCK_MONOTONIC), seed=time.time_ns())


class RingWindow:
    """A block as ``WindowWalker.walk`` takes it: ``buffer[start:end]`` with ``left`` packets in it; ``address`` is the buffer's,
    which stays where it is."""

    __slots__ = ("address", "buffer", "end", "first_number", "layout", "left", "start")

    def __init__(self, ring: PacketRing, start: int, end: int, packets: int) -> None:
        self.buffer, self.address, self.layout = ring.memory, ring.address, ring.layout
        self.start, self.end, self.left, self.first_number = start, end, packets, ring.taken + 1

    def advance(self, size_bytes: int, records: int) -> None:
        """``records`` packets, ``size_bytes`` together, were walked."""
        self.start += size_bytes
        self.left -= records
        self.first_number += records


class PacketRing:
    """The ring of a packet socket. Set it up before the socket is bound to a device, or packets wait outside of it.

    Raises OSError (ENOMEM for a ring too large).
    """

    def __init__(self, sock: socket.socket, *, block_bytes: int = BLOCK_BYTES, blocks: int = BLOCKS, retire_ms: int = RETIRE_MS):
        self.socket, self.block_bytes, self.blocks = sock, block_bytes, blocks
        sock.setsockopt(so.SOL_PACKET, PACKET_VERSION, TPACKET_V3)
        sock.setsockopt(so.SOL_PACKET, PACKET_RESERVE, RESERVE_BYTES)
        frames = block_bytes // FRAME_BYTES * blocks
        request = _REQUEST.pack(block_bytes, blocks, FRAME_BYTES, frames, retire_ms, 0, 0)
        sock.setsockopt(so.SOL_PACKET, PACKET_RX_RING, request)
        writable = mmap.PROT_READ | mmap.PROT_WRITE  # a block is given back by writing to it
        self.memory = mmap.mmap(sock.fileno(), block_bytes * blocks, flags=mmap.MAP_SHARED, prot=writable)
        self._view = memoryview(self.memory)
        self._pin: Any = ctypes.c_char.from_buffer(self.memory)
        self.address = ctypes.addressof(self._pin)
        self._next = self.taken = 0
        self.retire_s = retire_ms / 1000
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN | select.POLLERR)
        self.layout = ring_layout(block_bytes, monotonic_offset_ns())
        self.statistics = PacketStatistics(sock, size=STATS_V3_BYTES)

    def ready(self) -> RingWindow | None:
        """The next block that the kernel has handed over, None where there is none. ``release`` gives it back."""
        at = self._next * self.block_bytes
        block = Block.parse(self._view, at)
        if not block.status & TP_STATUS_USER:
            return None
        start, end = at + block.first, at + self.block_bytes
        window = RingWindow(self, start, end, block.packets)
        self.taken += block.packets
        return window

    def no_block(self) -> RingWindow:
        """A window without packets."""
        return RingWindow(self, 0, 0, 0)

    def packets(self, window: RingWindow) -> Iterator[RingPacket]:
        """A block's packets one by one."""
        return ring_packets(self._view, window.start, window.left)

    def release(self) -> None:
        """The kernel may fill the block again."""
        struct.pack_into("<I", self._view, self._next * self.block_bytes + BLOCK_STATUS, TP_STATUS_KERNEL)
        self._next = (self._next + 1) % self.blocks

    def wait(self, timeout_s: float | None) -> None:
        """Until a block may be ready, or the time is over. Raises OSError where the device is gone or down."""
        events = self._poll.poll(None if timeout_s is None else max(timeout_s, 0) * 1000)
        if events and events[0][1] & select.POLLERR:
            error = self.socket.getsockopt(so.SOL_SOCKET, so.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))

    def close(self) -> None:
        """Give the memory back; the counts stay. A second call does nothing."""
        self.statistics.close()
        self._view.release()
        self._pin = None
        with contextlib.suppress(BufferError):  # an engine that failed may still hold it
            self.memory.close()


def open_ring_socket(device: str, protocol: int = ETH_P_ALL, retire_ms: int = RETIRE_MS) -> tuple[socket.socket, PacketRing]:
    """A SOCK_RAW packet socket on a device of this thread's namespace with a ring, which misses nothing from its bind on."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        ring = PacketRing(sock, retire_ms=retire_ms)
        sock.bind((device, protocol))
    except BaseException:
        sock.close()
        raise
    return sock, ring


class RingFilter:
    """A program on a ring. ``run`` works off blocks; ``totals`` count what the program said, ``filter_stats`` as well.

    ``walker`` is a loaded program that walks windows (the native engine's); its code is made here, before packets wait for it.
    Raises UsageError for one that does not.
    """

    def __init__(self, ring: PacketRing, walker: object, output: CaptureWriter | None = None) -> None:
        if not isinstance(walker, WindowWalker):
            raise UsageError("a ring needs an engine that walks blocks by itself: --engine native")
        self.ring, self.totals, self._output = ring, Totals(), output
        self._walker = cast("Any", walker)
        self._device: str | None = None  # that it is bound to, as far as we know
        self._know_device()
        self._walk(ring.no_block(), 0)

    def _know_device(self) -> None:
        """Tell the loop what the device's driver records of a packet, once there is a device."""
        name = self.ring.socket.getsockname()[0]
        if name != self._device:
            self._device = name
            self._walker.device = Device(queue_mapping=known_device(self.ring.socket, name).queue_mapping)

    @property
    def filter_stats(self) -> FilterStats:
        """The counts so far."""
        t = self.totals
        return FilterStats(t.packets, t.accepted, t.dropped, t.trimmed, self.ring.statistics.drops)

    def run(self, timeout_s: float | None = None, *, max_packets: int | None = None) -> int:
        """Wait at most ``timeout_s`` for packets, then run all blocks that are ready; how many packets that were. Of a block that
        is cut by ``max_packets`` the rest is lost to the count. Raises OSError where the device is gone."""
        if not self._device:
            self._know_device()
        before, left = self.totals.packets, max_packets
        window = self.ring.ready()
        if window is None:
            self.ring.wait(timeout_s)
            window = self.ring.ready()
        while window is not None:
            self._walk(window, window.left if left is None else min(window.left, left))
            self.ring.release()
            done = self.totals.packets - before
            left = None if max_packets is None else max_packets - done
            if left == 0 or done >= self.ring.block_bytes:
                break
            window = self.ring.ready()
        return self.totals.packets - before

    def _walk(self, window: RingWindow, packets: int) -> None:
        self._walker.walk(window, self.totals, stop_ns=NEVER_NS, max_packets=packets, output=self._output)
