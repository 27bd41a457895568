"""``KernelSocket``: a real socket with its program in the running kernel; ``BothSocket``: ours and the kernel's, side by side."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from netbpf.abi import sockopt as so
from netbpf.abi.commands import Cmd
from netbpf.errors import BpfError, UsageError
from netbpf.host.attach import attach_loaded, load_for_socket
from netbpf.host.fd_map import FdMap
from netbpf.host.filter_stats import FilterStats
from netbpf.host.linux.filtered import FilteredSocket
from netbpf.host.linux.host import LinuxProcess
from netbpf.host.linux.packet_kinds import SO_TIMESTAMPNS, Control
from netbpf.host.linux.packet_statistics import PacketStatistics
from netbpf.host.live_program import LiveProgram
from netbpf.host.socket_wrapper import SocketWrapper
from netbpf.maps.base import ReadableMap
from netbpf.packet.skbuff import SkBuff
from netbpf.program import ProgramSpec

SO_NETNS_COOKIE: Final = 71
TIMESTAMPS_ON_S: Final = 0.05  # the kernel switches them on a moment after it is asked
BPF_STATS_RUN_TIME: Final = 0


class KernelSocket(SocketWrapper):
    """The methods are the socket's own. ``filter_stats`` are what the kernel tells: runs of the program (while this process may
    ask for them: CAP_SYS_ADMIN; not of a classic filter), and of an AF_PACKET socket what passed and was lost."""

    backend = "kernel"

    def __init__(self, sock: socket.socket, spec: ProgramSpec) -> None:
        self._sock = sock
        self._process = LinuxProcess()
        try:
            self._loaded = load_for_socket(self._process, spec)
            self._count_runs()
            self._statistics = PacketStatistics(sock) if sock.family == socket.AF_PACKET else None
            attach_loaded(self._process, sock, spec, self._loaded)
        except BaseException:
            self._process.exit()
            raise
        self.maps: Mapping[str, ReadableMap] = {n: FdMap(self._process, fd, n) for n, fd in self._loaded.map_fds.items()}
        self._last = FilterStats()

    def _count_runs(self) -> None:
        """BPF_ENABLE_STATS: runs are counted while a descriptor of it is open."""
        self._runs_counted = False
        if self._loaded.prog_fd >= 0:
            with contextlib.suppress(BpfError):
                self._process.bpf(Cmd.BPF_ENABLE_STATS, bytearray(struct.pack("<I", BPF_STATS_RUN_TIME)))
                self._runs_counted = True

    @property
    def filter_stats(self) -> FilterStats:
        """The counts so far, at close the last ones."""
        if self._sock.fileno() < 0:
            return self._last
        runs = self._process.prog_info(self._loaded.prog_fd).run_cnt if self._runs_counted else None
        if self._statistics is None:
            return FilterStats(runs, None, None, None, None)
        passed, drops = self._statistics.packets, self._statistics.drops
        return FilterStats(runs, passed, None if runs is None else max(runs - passed, 0), None, drops)

    def detach_filter(self) -> None:
        """Raises OSError(ENOENT) where none is attached."""
        self._sock.setsockopt(so.SOL_SOCKET, so.SO_DETACH_FILTER, 0)

    def getsockopt(self, level: int, optname: int, *buflen: int) -> Any:
        """As a socket's."""
        if (level, optname) == (so.SOL_PACKET, so.PACKET_STATISTICS) and self._statistics is not None:
            return self._statistics.asked(buflen[0] if buflen else 4)
        return self._sock.getsockopt(level, optname, *buflen)

    def close(self) -> None:
        """Close the socket and everything loaded for it. The counts stay, and so do the maps' last contents by then read."""
        if self._sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._last = self.filter_stats
        self._sock.close()
        self._process.exit()


@dataclass(frozen=True, slots=True)
class LiveDifference:
    """Where our engine and the kernel differ first: packet ``number`` (from 1) that this socket read, or a map."""

    what: str
    sim: str
    kernel: str
    number: int = 0
    frame: bytes = b""

    def __str__(self) -> str:
        return f"first difference: {self.what}\n  sim     {self.sim}\n  kernel  {self.kernel}"


class _Passed(NamedTuple):
    """A packet that passed the kernel's program."""

    ts_ns: bytes
    data: bytes


class BothSocket(FilteredSocket):
    """Our engine on what the socket reads, and a second packet socket with the program in the kernel. Each packet is known by
    its timestamp, which the kernel gives once. ``difference`` is the first packet or map entry on which the two differ; packets
    that one of the two lost to a full buffer are not compared (``not_compared``)."""

    backend = "both"

    def __init__(self, sock: socket.socket, live: LiveProgram) -> None:
        if sock.family != socket.AF_PACKET:
            raise UsageError("backend 'both' needs a packet socket: only of those can two see the same packets")
        super().__init__(sock, live)
        self.difference: LiveDifference | None = None
        self.not_compared = 0
        self._queue: deque[_Passed] = deque()
        self._options = {(so.SOL_SOCKET, SO_TIMESTAMPNS): SO_TIMESTAMPNS}
        try:
            self.twin = KernelSocket(self._open_twin(), live.spec)
        except BaseException:
            self._reader.close()
            raise
        self._stamp(self._reader)
        time.sleep(TIMESTAMPS_ON_S)
        self._skip_old(self.twin)

    def _open_twin(self) -> socket.socket:
        """A socket like ours, newer than ours: the kernel serves it first, so that it has what we read."""
        sock = self._sock
        made = socket.socket(sock.family, sock.type, 0)
        try:
            if _netns(made) != _netns(sock):
                raise UsageError("backend 'both': the socket belongs to another network namespace than this thread")
            made.setsockopt(so.SOL_SOCKET, so.SO_RCVBUFFORCE, sock.getsockopt(so.SOL_SOCKET, so.SO_RCVBUF))
            made.setsockopt(so.SOL_PACKET, so.PACKET_AUXDATA, 1)
            made.setsockopt(so.SOL_PACKET, so.PACKET_IGNORE_OUTGOING, sock.getsockopt(so.SOL_PACKET, so.PACKET_IGNORE_OUTGOING))
            self._stamp(made)
            made.setblocking(False)
            made.bind(sock.getsockname()[:2])
        except BaseException:
            made.close()
            raise
        return made

    def _stamp(self, sock: socket.socket) -> None:
        if not sock.getsockopt(so.SOL_SOCKET, SO_TIMESTAMPNS):
            sock.setsockopt(so.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            if sock is self._reader:
                self._extra[so.SOL_SOCKET, SO_TIMESTAMPNS] = SO_TIMESTAMPNS

    def _skip_old(self, twin: KernelSocket) -> None:
        """What came in before both listened."""
        for sock in (self._reader, twin):
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.recv(1, so.MSG_DONTWAIT)

    # --- comparing --------------------------------------------------------------------------------------------------------
    def _judged(self, skb: SkBuff, verdict: int, data: bytes, control: Sequence[Control]) -> None:
        """A packet of ours, its verdict and what is left of it: does the kernel say the same?"""
        stamp = _stamp_of(control)
        self._drain_twin()
        while self._queue and self._queue[0].ts_ns < stamp:  # ours was lost to a full buffer
            self._queue.popleft()
            self.not_compared += 1
        kernels = self._queue.popleft().data if self._queue and self._queue[0].ts_ns == stamp else None
        ours = data if verdict else None
        if ours == kernels or self.difference is not None:
            return
        if kernels is None and self.twin.filter_stats.kernel_drops:
            self.not_compared += 1
            return
        number = self._stats.packets or 0
        self.difference = LiveDifference(f"packet {number}", _words(ours, skb), _words(kernels, skb), number, skb.head)

    def _drain_twin(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, control, _, _ = self.twin.recvmsg(1 << 18, 256, so.MSG_DONTWAIT)
                self._queue.append(_Passed(_stamp_of(control), data))

    def compare_maps(self) -> LiveDifference | None:
        """The first difference so far; where no packet was lost, that of the maps as they stand now counts, too. What came in
        and was not read yet is in the kernel's maps only: read all first."""
        lossless = not self.not_compared and not self.filter_stats.kernel_drops and not self.twin.filter_stats.kernel_drops
        if self.difference is None and lossless:
            for name, ours in self.maps.items():
                self.difference = self.difference or _map_difference(name, ours, self.twin.maps[name])
        return self.difference

    def close(self) -> None:
        super().close()
        self.twin.close()


def _netns(sock: socket.socket) -> bytes:
    try:
        return sock.getsockopt(so.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    except OSError as e:
        if e.errno != errno.ENOPROTOOPT:
            raise
        return b""


def _stamp_of(control: Sequence[Control]) -> bytes:
    """The timestamp in an order that compares as time does."""
    raw = next((data for level, kind, data in control if (level, kind) == (so.SOL_SOCKET, SO_TIMESTAMPNS)), bytes(16))
    seconds, rest = struct.unpack("@qq", raw)
    return struct.pack(">qq", seconds, rest)


def _words(kept: bytes | None, skb: SkBuff) -> str:
    return "dropped" if kept is None else f"kept {len(kept)} of {skb.len} bytes"


def _map_difference(name: str, ours: ReadableMap, kernels: ReadableMap) -> LiveDifference | None:
    mine, theirs = _contents(ours), _contents(kernels)
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key):
            told = [v.hex(" ") if (v := side.get(key)) is not None else "no entry" for side in (mine, theirs)]
            return LiveDifference(f"map {name}, key {key.hex(' ')}", told[0], told[1])
    return None


def _contents(live: ReadableMap) -> dict[bytes, bytes]:
    """Keys and values; of a per-CPU map the sum over its CPUs, which are not ours to choose."""
    from netbpf.abi.maps import MAP_KINDS
    from netbpf.maps.dump import cpu_values, entries

    rows = ((k, v) for k, v in entries(live) if isinstance(v, bytes))
    if not MAP_KINDS[live.map_type].per_cpu:
        return dict(rows)
    return {k: _sum(cpu_values(live, v)) for k, v in rows}


def _sum(copies: Sequence[bytes]) -> bytes:
    width = len(copies[0])
    return (sum(int.from_bytes(c, "little") for c in copies) & ((1 << 8 * width) - 1)).to_bytes(width, "little")
