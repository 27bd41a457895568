"""Live packets through a program: what ``netbpf attach`` runs, whatever the frames come from and whoever judges them.

A source works off what is there (``step``) and tells what became of it (``stats``, ``maps``): a ring, a packet socket, or a TAP
read in line. Knows devices and sockets by what ``host`` offers; not the terminal, not signals.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final, Protocol

from netbpf.abi import sockopt as so
from netbpf.abi.net import LINKTYPE_ETHERNET, LINKTYPE_RAW
from netbpf.engine.base import Loaded
from netbpf.engine.results import Totals
from netbpf.host.filter_stats import FilterStats
from netbpf.maps.base import ReadableMap
from netbpf.packet.batch import PacketBatch
from netbpf.packet.receive import ETHERNET_LIKE
from netbpf.packet.record import Record
from netbpf.packet.sink import CaptureWriter
from netbpf.packet.socket_skb import AUXDATA, Auxdata
from netbpf.replay.frames import put_tag
from netbpf.replay.output import stored_length

GONE: Final = frozenset({errno.ENETDOWN, errno.ENODEV, errno.ENXIO, errno.EBADF, errno.EBADFD})
"""What reading says once the device went down or away (EBADFD: a TAP that somebody else deleted)."""
STEP_PACKETS: Final = 4096
INLINE_BATCH: Final = 256
FRAME_BYTES: Final = 1 << 17
RCVBUF_BYTES: Final = 16 << 20


class Source(Protocol):
    """Where packets come from and who judges them. ``what`` says it in words."""

    what: str

    def step(self, timeout_s: float, most: int | None) -> None:
        """Wait at most so long, then work off what is there, ``most`` packets at most. Raises OSError (one of GONE where the
        device is gone)."""

    def last(self, most: int | None) -> None:
        """Work off what came in until now, before the end. Raises as ``step``."""

    @property
    def stats(self) -> FilterStats:
        """The counts so far."""

    @property
    def maps(self) -> Mapping[str, ReadableMap]: ...


class RingSource:
    """A ring on a device, worked off by native code."""

    def __init__(self, ring: Any, maps: Mapping[str, ReadableMap]) -> None:
        self._ring, self.maps = ring, maps
        self.what = f"listening, a ring of {ring.ring.block_bytes * ring.ring.blocks >> 20} MiB, native code"

    def step(self, timeout_s: float, most: int | None) -> None:
        self._ring.run(timeout_s, max_packets=most)

    def last(self, most: int | None) -> None:
        """A block that is not full is handed over only when its time is up."""
        self._ring.run(1.5 * self._ring.ring.retire_s, max_packets=most)

    @property
    def stats(self) -> FilterStats:
        return self._ring.filter_stats  # type: ignore[no-any-return]


class SocketSource:
    """A packet socket with a program (``netbpf.attach``), read packet by packet."""

    def __init__(self, sock: Any, what: str, output: CaptureWriter | None, linktype: int) -> None:
        self._sock, self._output, self._linktype = sock, output, linktype
        self.what = f"listening, recv() on a packet socket, {what}"
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self._room = bytearray(FRAME_BYTES)
        self._number = 0

    @property
    def maps(self) -> Mapping[str, ReadableMap]:
        return self._sock.maps  # type: ignore[no-any-return]

    @property
    def stats(self) -> FilterStats:
        return self._sock.filter_stats  # type: ignore[no-any-return]

    def step(self, timeout_s: float, most: int | None) -> None:
        """``most`` counts what the program judged, where that can be told, else what came out."""
        self._poll.poll(max(timeout_s, 0) * 1000)
        start = self.stats.packets or 0
        for read in range(STEP_PACKETS):
            if most is not None and max((self.stats.packets or 0) - start, read) >= most:
                return
            try:
                self._read()
            except BlockingIOError:
                return

    def last(self, most: int | None) -> None:
        self.step(0.0, most)

    def _read(self) -> None:
        length, control, _, _ = self._sock.recvmsg_into([self._room], 64)
        if self._output is None:
            return
        data, wirelen = bytes(memoryview(self._room)[:length]), length
        raw = next((d for level, kind, d in control if (level, kind) == (so.SOL_PACKET, so.PACKET_AUXDATA)), b"")
        if len(raw) == AUXDATA.size:
            aux = Auxdata.parse(raw)
            wirelen = max(aux.len, length)
            if aux.status & so.TP_STATUS_VLAN_VALID:
                data, wirelen = put_tag(data, aux.vlan_tpid, aux.vlan_tci), wirelen + 4
        self._number += 1
        self._output.write(Record(self._number, time.time_ns(), wirelen, data, self._linktype))


class InlineSource:
    """Frames read from a TAP: the program judges them as if they came in on a device, ``forward`` gets what it accepts."""

    def __init__(
        self, tap: Any, loaded: Loaded, maps: Mapping[str, ReadableMap], forward: Callable[[Record], None], what: str
    ) -> None:
        self.what, self.maps = f"in line, {what}", maps
        self._fd, self._loaded, self._forward = tap.fileno(), loaded, forward
        os.set_blocking(self._fd, False)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._totals = Totals()
        self.not_forwarded = 0

    def step(self, timeout_s: float, most: int | None) -> None:
        """Read what waits, judge it in one go, forward it in order."""
        self._poll.poll(max(timeout_s, 0) * 1000)
        left = STEP_PACKETS if most is None else min(most, STEP_PACKETS)
        while left > 0:
            records = self._frames(min(left, INLINE_BATCH))
            if not records:
                return
            self._judge(records)
            left -= len(records)

    def last(self, most: int | None) -> None:
        self.step(0.0, most)

    def _frames(self, most: int) -> list[Record]:
        records: list[Record] = []
        number, now = self._totals.packets + 1, time.time_ns()
        while len(records) < most:
            try:
                frame = os.read(self._fd, FRAME_BYTES)
            except BlockingIOError:
                break
            if not frame:
                break
            records.append(Record(number + len(records), now, len(frame), frame, LINKTYPE_ETHERNET))
        return records

    def _judge(self, records: list[Record]) -> None:
        batch = PacketBatch.from_records(records)
        verdicts = self._loaded.run(batch)
        self._totals.add(batch, verdicts)
        for record, kept in zip(records, verdicts.kept, strict=True):
            if kept:
                data = record.data[: stored_length(record, kept)]
                try:
                    self._forward(record._replace(data=data))
                except BlockingIOError:
                    self.not_forwarded += 1

    @property
    def stats(self) -> FilterStats:
        t = self._totals
        return FilterStats(t.packets, t.accepted, t.dropped, t.trimmed, None)


# --- forwarding -----------------------------------------------------------------------------------------------------------


def to_capture(writer: CaptureWriter) -> Callable[[Record], None]:
    """Accepted frames into a capture."""
    return writer.write


def to_device(device: Any) -> Callable[[Record], None]:
    """Accepted frames into a device that has ``deliver`` (a second TAP: they come in there)."""

    def forward(record: Record) -> None:
        device.deliver(record.data)

    return forward


def to_socket(sock: Any) -> Callable[[Record], None]:
    """Accepted frames out of the device that a packet socket is bound to. What does not fit its MTU is not forwarded."""

    def forward(record: Record) -> None:
        try:
            sock.send(record.data)
        except OSError as e:
            if e.errno not in (errno.EMSGSIZE, errno.ENOBUFS, errno.EINVAL):
                raise
            raise BlockingIOError(e.errno, e.strerror) from None

    return forward


def forward_all(*ways: Callable[[Record], None]) -> Callable[[Record], None]:
    """To each of them."""

    def forward(record: Record) -> None:
        for way in ways:
            way(record)

    return forward


# --- making sources -------------------------------------------------------------------------------------------------------


def linktype_of_device(hatype: int) -> int:
    """What a capture of a device's packets says they are."""
    return LINKTYPE_ETHERNET if hatype in ETHERNET_LIKE else LINKTYPE_RAW


def open_ring(stack: ExitStack, run: Callable[..., Any], device: str, live: Any, output: CaptureWriter | None) -> RingSource:
    """A ring on ``device``; ``run`` makes calls in its namespace. Raises OSError."""
    from netbpf.host.linux.packet_ring import RingFilter, open_ring_socket

    sock, ring = run(open_ring_socket, device)
    stack.callback(sock.close)
    stack.callback(ring.close)
    return RingSource(RingFilter(ring, live.loaded, output), live.maps)


def open_socket(run: Callable[..., Any], device: str) -> Any:
    """A packet socket on ``device`` with a large buffer and PACKET_AUXDATA, which never blocks. Raises OSError."""
    import socket

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            for option in (so.SO_RCVBUF, so.SO_RCVBUFFORCE):
                try:
                    sock.setsockopt(so.SOL_SOCKET, option, RCVBUF_BYTES)
                except PermissionError:
                    continue
            sock.setsockopt(so.SOL_PACKET, so.PACKET_AUXDATA, 1)
            sock.setblocking(False)
            sock.bind((device, 3))
        except BaseException:
            sock.close()
            raise
        return sock

    return run(make)
