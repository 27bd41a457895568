"""``netbpf.attach``: a program on a socket, wherever socket and program live.

| socket | backend | who runs the program |
|---|---|---|
| real | "sim" | our engine, on what the socket hands out |
| real | "kernel" | the running kernel: SO_ATTACH_BPF, SO_ATTACH_FILTER |
| real, AF_PACKET | "both" | both; the first difference is told |
| simulated | "sim" | our engine, in the simulated kernel: the same two options |
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from netbpf.errors import UsageError
from netbpf.host.filter_stats import FilterStats
from netbpf.host.socket_wrapper import SocketWrapper
from netbpf.isa.classic import ClassicProgram, SockFilter
from netbpf.maps.base import ReadableMap
from netbpf.program import SOCKET_VIEW, ProgramSpec

Program = ProgramSpec | ClassicProgram | str | bytes | os.PathLike[str]
BACKENDS = ("sim", "kernel", "both")


class Attached(Protocol):
    """What ``attach`` gives: every method of the socket, and what the program does."""

    backend: str

    @property
    def filter_stats(self) -> FilterStats:
        """The counts so far; they stay after ``close``."""

    @property
    def maps(self) -> Mapping[str, ReadableMap]:
        """The program's maps by name."""

    def detach_filter(self) -> None:
        """The program is gone. Raises OSError(ENOENT) where none is attached."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None: ...

    def __getattr__(self, name: str) -> Any: ...


def attach(
    sock: Any, program: Program, *, backend: str = "sim", engine: str | None = None, ring: bool = False
) -> Attached:
    """Attach a program to a socket; an object with the socket's methods (recv, recvmsg, poll by fileno, timeouts, close ...)
    whose packets have passed the program. ``.filter_stats`` counts, ``.maps`` are the program's by name, ``.detach_filter()``
    takes the program away.

    ``program`` is a path, text (assembly, classic BPF, a tcpdump expression), a ProgramSpec as ``netbpf.load`` gives it, or a
    classic filter as a list of (code, jt, jf, k). A verdict of 0 drops a packet, n keeps its first n bytes. ``engine`` is
    "interp" (the default) or "native", for the simulator. ``ring``: a real AF_PACKET/SOCK_RAW socket gets a TPACKET_V3 ring whose
    blocks go through native code; its packets are counted by ``run(timeout_s)`` and none comes out of recv. What came in before
    is not in the ring: attach before you bind.

    Raises SourceError, ProgramRejected, UsageError (a socket that this backend cannot serve), OSError of the socket's calls.
    """
    if backend not in BACKENDS:
        raise UsageError(f"a backend is one of {', '.join(BACKENDS)}, not {backend!r}")
    spec = as_spec(program)
    if not isinstance(sock, socket.socket):
        if ring:
            raise UsageError("a ring is the real kernel's: this socket is simulated")
        return _simulated(sock, spec, backend)
    if backend == "kernel" and not ring:
        from netbpf.host.linux.attached import KernelSocket

        return KernelSocket(sock, spec)
    from netbpf.engine.choose import get_engine
    from netbpf.host.live_program import LiveProgram

    if ring:
        return _with_ring(sock, spec, backend, engine)
    live = LiveProgram(spec, get_engine(engine))
    if backend == "both":
        from netbpf.host.linux.attached import BothSocket

        return BothSocket(sock, live)
    from netbpf.host.linux.filtered import FilteredSocket

    return FilteredSocket(sock, live)


def _with_ring(sock: socket.socket, spec: ProgramSpec, backend: str, engine: str | None) -> Attached:
    from netbpf.engine.choose import get_engine
    from netbpf.host.linux.packet_ring import arrival_env
    from netbpf.host.linux.ring_socket import RingSocket
    from netbpf.host.live_program import LiveProgram

    if backend != "sim":
        raise UsageError(f"a ring is worked off by our engine: backend 'sim', not {backend!r}")
    return RingSocket(sock, LiveProgram(spec, get_engine(engine or "native"), arrival_env()))


def as_spec(program: Program) -> ProgramSpec:
    """A program in any form that ``attach`` takes. Raises SourceError, UsageError, OSError."""
    if isinstance(program, ProgramSpec):
        if program.classic and program.view != SOCKET_VIEW:
            raise UsageError("this filter was loaded for packets as capture files have them: load(..., view='socket')")
        return program
    if isinstance(program, list | tuple):
        from netbpf.sources.cbpf import to_spec

        return to_spec(tuple(SockFilter(*insn) for insn in program))
    from netbpf.sources.load import load

    return load(program, view="socket")


def _simulated(sock: Any, spec: ProgramSpec, backend: str) -> SimAttached:
    from netbpf.host.sim.socket import SimSocket

    if not isinstance(sock, SimSocket):
        raise UsageError(f"a program is attached to a socket, real or simulated, not to {type(sock).__name__}")
    if backend != "sim":
        raise UsageError(f"backend {backend!r} needs a real socket; this one is simulated")
    return SimAttached(sock, spec)


class SimAttached(SocketWrapper):
    """A simulated socket with its program in the simulated kernel. The methods are the socket's own."""

    backend = "sim"

    def __init__(self, sock: Any, spec: ProgramSpec) -> None:
        from netbpf.host.attach import attach_loaded, load_for_socket
        from netbpf.host.sim.process import SimProcess

        self._sock, self._process = sock, SimProcess(sock._task)
        self._kernel_side = sock._sock()
        self._filter = self._kernel_side.filter
        before = self._filter.stats.copy()
        self._loaded = load_for_socket(self._process, spec)
        try:
            attach_loaded(self._process, sock, spec, self._loaded)
        finally:
            for fd in (self._loaded.prog_fd, *self._loaded.other_fds.values()):
                if fd >= 0:  # the socket holds the program now
                    self._process.close(fd)
        self.maps: Mapping[str, ReadableMap] = {name: self._process.map(fd) for name, fd in self._loaded.map_fds.items()}
        self._before = before

    @property
    def filter_stats(self) -> FilterStats:
        """The counts so far."""
        now, before = self._filter.stats, self._before
        pairs = ((now.packets, before.packets), (now.accepted, before.accepted), (now.dropped, before.dropped))
        packets, accepted, dropped = ((a or 0) - (b or 0) for a, b in pairs)
        return FilterStats(packets, accepted, dropped, (now.trimmed or 0) - (before.trimmed or 0), self._drops())

    def _drops(self) -> int:
        return int(self._kernel_side.overflows)

    def detach_filter(self) -> None:
        """Raises BpfError(ENOENT, EPERM)."""
        from netbpf.abi import sockopt as so

        self._sock.setsockopt(so.SOL_SOCKET, so.SO_DETACH_FILTER, 0)

    def close(self) -> None:
        """Close the socket; the counts and maps stay."""
        self._sock.close()
