"""PACKET_STATISTICS of an AF_PACKET socket, added up: the kernel forgets its counts whenever they are read."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Final

from netbpf.abi import sockopt as so

STATS: Final = struct.Struct("<II")  # struct tpacket_stats: packets (drops counted in), drops
STATS_V3_BYTES: Final = 12  # struct tpacket_stats_v3 adds tp_freeze_q_cnt


class PacketStatistics:
    """``packets`` that passed the kernel's filter since this was made, drops counted in, and ``drops``. Both stay after
    ``close``; what other readers of the option take away is lost here, so users go through ``asked``."""

    def __init__(self, sock: socket.socket, *, size: int = STATS.size) -> None:
        self._sock: socket.socket | None = sock
        self._size, self._lock = size, threading.Lock()
        self._packets = self._drops = self.freezes = 0
        self._told = (0, 0)
        sock.getsockopt(so.SOL_PACKET, so.PACKET_STATISTICS, size)  # what was before is nobody's here

    def refresh(self) -> None:
        """Ask the kernel."""
        with self._lock:
            if self._sock is None or self._sock.fileno() < 0:
                return
            raw = self._sock.getsockopt(so.SOL_PACKET, so.PACKET_STATISTICS, self._size)
            packets, drops = STATS.unpack_from(raw)
            self._packets += packets
            self._drops += drops
            if len(raw) >= STATS_V3_BYTES:
                self.freezes += int.from_bytes(raw[8:12], "little")

    @property
    def packets(self) -> int:
        self.refresh()
        return self._packets

    @property
    def drops(self) -> int:
        self.refresh()
        return self._drops

    def asked(self, size: int) -> bytes:
        """What getsockopt would say to the socket's user: the counts since he asked last."""
        self.refresh()
        packets, drops = self._packets - self._told[0], self._drops - self._told[1]
        self._told = (self._packets, self._drops)
        return STATS.pack(packets & 0xFFFF_FFFF, drops & 0xFFFF_FFFF)[:size]

    def close(self) -> None:
        """Take the last counts; the socket is about to be closed."""
        with contextlib.suppress(OSError):  # closed by somebody else
            self.refresh()
        self._sock = None
