"""``RingSocket``: what ``netbpf.attach(sock, program, ring=True)`` gives. The program runs in native code on a TPACKET_V3 ring,
with no Python a packet: packets are counted, and written where a capture is given; none comes out of ``recv``."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from typing import Any

from netbpf.errors import BpfError, UsageError
from netbpf.host.filter_stats import FilterStats
from netbpf.host.linux.packet_ring import PacketRing, RingFilter
from netbpf.host.live_program import LiveProgram
from netbpf.host.socket_wrapper import SocketWrapper
from netbpf.maps.base import ReadableMap
from netbpf.packet.sink import CaptureWriter


class RingSocket(SocketWrapper):
    """``run`` works off what came in; ``filter_stats`` and ``maps`` tell, also after ``close``. It polls readable when a block is
    ready. The other methods are the socket's.

    Raises UsageError for another socket than AF_PACKET, SOCK_RAW, or an engine without native code; OSError where the kernel
    refuses the ring.
    """

    backend = "sim"

    def __init__(self, sock: socket.socket, live: LiveProgram, output: CaptureWriter | None = None) -> None:
        if (sock.family, sock.type) != (socket.AF_PACKET, socket.SOCK_RAW):
            raise UsageError("a ring needs an AF_PACKET socket of type SOCK_RAW")
        self._sock, self._live = sock, live
        self._ring = PacketRing(sock)
        try:
            self._filter: RingFilter | None = RingFilter(self._ring, live.loaded, output)
        except BaseException:
            self._ring.close()
            raise
        self._judge: RingFilter = self._filter

    def run(self, timeout_s: float | None = None, *, max_packets: int | None = None) -> int:
        """Wait at most ``timeout_s`` (None: for ever) for a block, then run all that are ready; how many packets that were.

        Raises OSError: EBADF once closed, ENETDOWN where the device went.
        """
        if self._sock.fileno() < 0:
            raise OSError(errno.EBADF, "the socket is closed")
        if self._filter is None:
            raise BpfError(errno.ENOENT)
        return self._filter.run(timeout_s, max_packets=max_packets)

    @property
    def filter_stats(self) -> FilterStats:
        """The counts so far."""
        return self._judge.filter_stats

    @property
    def maps(self) -> Mapping[str, ReadableMap]:
        """The program's maps by name."""
        return self._live.maps

    def detach_filter(self) -> None:
        """The program judges no more packets; the ring fills. Raises BpfError(ENOENT) a second time."""
        if self._filter is None:
            raise BpfError(errno.ENOENT)
        self._filter = None

    def close(self) -> None:
        """Close ring and socket. A second call does nothing."""
        self._ring.close()
        self._sock.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("recv"):
            raise UsageError("packets of a ring do not come out one by one: run() works them off; leave out ring=True for recv()")
        return super().__getattr__(name)
