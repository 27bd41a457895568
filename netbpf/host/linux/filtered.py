"""``FilteredSocket``: a real socket whose packets pass a program in our own engine before anybody reads them.

It has the methods of ``socket.socket``. What the kernel would drop never comes out, what it would trim comes out trimmed, with
the lengths in MSG_TRUNC and PACKET_AUXDATA that a filter in the kernel leaves behind. The descriptor is the socket's own: it
polls readable for a packet that the program then drops, so a reader that polls must be ready for BlockingIOError, as it must
be for a datagram with a wrong checksum.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from netbpf.abi import sockopt as so
from netbpf.abi.net import SKF_LL_OFF, SKF_NET_OFF
from netbpf.errors import BpfError, UsageError
from netbpf.host.filter_stats import FilterStats
from netbpf.host.linux.packet_kinds import Control, Kind, Option, PacketKind, kind_of
from netbpf.host.linux.packet_statistics import PacketStatistics
from netbpf.host.live_program import LiveProgram
from netbpf.host.socket_wrapper import SocketWrapper
from netbpf.isa.opcodes import BPF_ABS, BPF_IND, BPF_LD
from netbpf.maps.base import ReadableMap
from netbpf.packet.skbuff import SkBuff
from netbpf.program import ProgramSpec

ROOM_BYTES: Final = 1 << 18  # longer than any packet a socket hands out
ANCILLARY_BYTES: Final = 1024
LOOK_AGAIN_S: Final = 0.2  # so often a waiting reader looks whether the socket was closed
_PASSED: Final = so.MSG_DONTWAIT | so.MSG_PEEK | so.MSG_TRUNC | so.MSG_CMSG_CLOEXEC


class Judged(NamedTuple):
    """A packet that the program accepted: the ``kept`` bytes that reach the reader, the control messages he asked for."""

    data: bytes
    control: tuple[Control, ...]
    address: Any
    flags: int
    verdict: int
    length: int  # of the sk_buff, as the program saw it


class FilteredSocket(SocketWrapper):
    """See the module. ``filter_stats`` counts, ``maps`` are the program's, ``detach_filter`` lets everything pass from then on.

    ``sock`` keeps belonging to the caller: ``close`` closes it, too.
    """

    backend = "sim"

    def __init__(self, sock: socket.socket, live: LiveProgram) -> None:
        self._sock, self._live = sock, live
        self._kind: Kind = kind_of(sock)
        if isinstance(self._kind, PacketKind) and not self._kind.has_link_header:
            _refuse_link_header(live.spec)
        self._lock = threading.RLock()
        self._room = bytearray(ROOM_BYTES)
        self._head: Judged | None = None  # judged by a MSG_PEEK, still in the socket's queue
        self._attached = True
        self._stats = FilterStats()
        # Python's own timeout would wait inside a call: this object has none, and every call says MSG_DONTWAIT
        self._reader = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
        self._extra = self._ask_for_control()
        self._statistics = PacketStatistics(self._reader) if isinstance(self._kind, PacketKind) else None

    def _ask_for_control(self) -> dict[Option, int]:
        """Set the options that tell what the program may read; those that the user had not set are kept from him."""
        extra = {}
        for option, message in self._kind.wanted:
            with contextlib.suppress(OSError):  # an older kernel does not know it: the field reads 0
                if not self._reader.getsockopt(*option):
                    self._reader.setsockopt(*option, 1)
                    extra[option] = message
        return extra

    # --- the filter -----------------------------------------------------------------------------------------------------
    @property
    def filter_stats(self) -> FilterStats:
        """The counts so far. They stay after ``close``."""
        stats = self._stats.copy()
        stats.kernel_drops = None if self._statistics is None else self._statistics.drops
        return stats

    @property
    def maps(self) -> Mapping[str, ReadableMap]:
        """The program's maps by name."""
        return self._live.maps

    def detach_filter(self) -> None:
        """SO_DETACH_FILTER: packets pass as they come. Raises BpfError(ENOENT) where none is attached."""
        with self._lock:
            if not self._attached:
                raise BpfError(errno.ENOENT)
            self._attached = False
            self._head = None

    def setsockopt(self, level: int, optname: int, *value: Any) -> None:
        """As a socket's; SO_DETACH_FILTER (SO_DETACH_BPF) takes the program away."""
        if (level, optname) == (so.SOL_SOCKET, so.SO_DETACH_FILTER):
            self.detach_filter()
            return
        if (level, optname) in self._extra:
            if value and value[0]:
                del self._extra[level, optname]
            return
        self._sock.setsockopt(level, optname, *value)

    def getsockopt(self, level: int, optname: int, *buflen: int) -> Any:
        """As a socket's."""
        if (level, optname) in self._extra:
            return bytes(4)[: buflen[0]] if buflen else 0
        if (level, optname) == (so.SOL_PACKET, so.PACKET_STATISTICS) and self._statistics is not None:
            return self._statistics.asked(buflen[0] if buflen else 4)
        return self._sock.getsockopt(level, optname, *buflen)

    # --- receiving --------------------------------------------------------------------------------------------------------
    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """The next packet that the program accepts, cut to ``bufsize``."""
        return self._next(flags).data[:bufsize]

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        packet = self._next(flags)
        return packet.data[:bufsize], packet.address

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Bytes written; with MSG_TRUNC the packet's length even where that is more."""
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        view = memoryview(buffer).cast("B")
        packet = self._next(flags)
        data = packet.data[: nbytes or len(view)]
        view[: len(data)] = data
        return (len(packet.data) if flags & so.MSG_TRUNC else len(data)), packet.address

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> tuple[bytes, list[Control], int, Any]:
        """(data, ancillary data, flags, address), as ``socket.recvmsg``."""
        packet = self._next(flags)
        control, told = _control_for(packet.control, ancbufsize)
        told |= packet.flags | (so.MSG_TRUNC if len(packet.data) > bufsize else 0)
        return packet.data[:bufsize], control, told, packet.address

    def recvmsg_into(self, buffers: Sequence[Any], ancbufsize: int = 0, flags: int = 0) -> tuple[int, list[Control], int, Any]:
        """As ``recvmsg``, the data scattered into ``buffers``; its length (with MSG_TRUNC the packet's) first."""
        views = [memoryview(b).cast("B") for b in buffers]
        data, control, told, address, length = self._scattered(views, ancbufsize, flags)
        return (length if flags & so.MSG_TRUNC else data), control, told, address

    def _scattered(
        self, views: Sequence[memoryview], ancbufsize: int, flags: int
    ) -> tuple[int, list[Control], int, Any, int]:
        packet = self._next(flags)
        at = 0
        for view in views:
            piece = packet.data[at : at + len(view)]
            view[: len(piece)] = piece
            at += len(piece)
        control, told = _control_for(packet.control, ancbufsize)
        told |= packet.flags | (so.MSG_TRUNC if len(packet.data) > at else 0)
        return at, control, told, packet.address, len(packet.data)

    def _next(self, flags: int) -> Judged:
        """The next accepted packet. Raises BlockingIOError, TimeoutError, OSError(EBADF) once closed."""
        timeout = self._sock.gettimeout()
        waits = timeout != 0.0 and not (flags & so.MSG_DONTWAIT and timeout is None)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._sock.fileno() < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            try:
                with self._lock:
                    packet = self._take(flags)
            except BlockingIOError:
                if not waits:
                    raise
                self._wait(deadline)
                continue
            if packet is not None:
                return packet

    def _wait(self, deadline: float | None) -> None:
        """Until there is something to read, or for LOOK_AGAIN_S. Raises TimeoutError."""
        left = LOOK_AGAIN_S if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        poll = select.poll()
        poll.register(self._reader.fileno(), select.POLLIN)
        poll.poll(min(left, LOOK_AGAIN_S) * 1000)

    def _take(self, flags: int) -> Judged | None:
        """The packet at hand if the program accepts it; a packet that it drops is gone, and None."""
        peek = flags & so.MSG_PEEK
        if self._head is not None:
            packet = self._head
            if not peek:
                self._read(so.MSG_DONTWAIT)
                self._head = None
            return packet
        packet = self._read((flags & _PASSED & ~so.MSG_TRUNC) | so.MSG_DONTWAIT, flags & ~_PASSED)
        if self._attached and not packet.verdict:
            if peek:
                self._read(so.MSG_DONTWAIT, judge=False)
            return None
        if peek:
            self._head = packet
        return packet

    def _read(self, flags: int, other_flags: int = 0, *, judge: bool = True) -> Judged:
        """One packet out of the socket, judged."""
        room = memoryview(self._room)
        length, control, told, address = self._reader.recvmsg_into([room], ANCILLARY_BYTES, flags | other_flags)
        data = bytes(room[:length])
        if not judge or self._head is not None:
            return Judged(data, (), address, told, 0, length)
        if other_flags & so.MSG_ERRQUEUE or not self._attached:
            return Judged(data, self._visible(control), address, told & ~so.MSG_PEEK, len(data), len(data))
        skb = self._kind.skb(data, control, address)
        verdict = self._live.verdict(skb)
        kept = max(min(verdict, skb.len), self._kind.header_bytes)
        data = data[: kept - self._kind.header_bytes]
        self._stats.count(verdict, skb.len)
        self._judged(skb, verdict, data, control)
        shown = tuple(self._kind.trimmed(c, len(data)) for c in self._visible(control))
        return Judged(data, shown, address, told, verdict, skb.len)

    def _judged(self, skb: SkBuff, verdict: int, data: bytes, control: Sequence[Control]) -> None:
        """A packet's verdict is known and counted; ``data`` is what is left of it."""

    def _visible(self, control: Sequence[Control]) -> tuple[Control, ...]:
        """What the user asked for himself."""
        hidden = {(option[0], message) for option, message in self._extra.items()}
        return tuple(c for c in control if (c[0], c[1]) not in hidden)

    # --- the rest of a socket ---------------------------------------------------------------------------------------------
    def fileno(self) -> int:
        """The socket's own descriptor, -1 once closed."""
        return int(self._sock.fileno())

    def close(self) -> None:
        """Close the socket; a reader that waits in another thread gets OSError(EBADF). The counts stay. A second call does
        nothing."""
        if self._statistics is not None:
            self._statistics.close()
        self._sock.close()
        self._reader.close()

    def detach(self) -> int:
        """The socket's descriptor, which is not closed; packets are no longer filtered."""
        self._reader.close()
        return int(self._sock.detach())


def _refuse_link_header(spec: ProgramSpec) -> None:
    """UsageError for a program that says it reads what a SOCK_DGRAM packet socket keeps to itself."""
    for pc, insn in enumerate(spec.insns):
        if insn.code & 7 == BPF_LD and insn.code & 0xE0 in (BPF_ABS, BPF_IND) and SKF_LL_OFF <= insn.imm < SKF_NET_OFF:
            raise UsageError(
                f"insn {pc} reads the link header (SKF_LL_OFF), which a SOCK_DGRAM packet socket does not hand out: "
                "use SOCK_RAW, or backend='kernel'"
            )


def _control_for(control: Sequence[Control], ancbufsize: int) -> tuple[list[Control], int]:
    """The control messages that fit into ``ancbufsize`` bytes, the last one cut, and MSG_CTRUNC where something did not."""
    out: list[Control] = []
    left, told = ancbufsize, 0
    header = socket.CMSG_LEN(0)
    for level, kind, data in control:
        if left < header:
            return out, so.MSG_CTRUNC
        if left < header + len(data):
            told = so.MSG_CTRUNC
        out.append((level, kind, data[: left - header]))
        left -= min(left, socket.CMSG_SPACE(len(data)))
    return out, told
