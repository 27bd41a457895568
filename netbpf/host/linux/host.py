"""``LinuxHost``: the running kernel behind the Host protocol. Needs the privileges that bpf(2) needs."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from netbpf.abi.maps import MapType
from netbpf.errors import BpfError
from netbpf.host.calls import BpfCalls
from netbpf.host.linux.bpf import sys_bpf
from netbpf.host.linux.caps import effective_caps, keep_only
from netbpf.host.linux.devices import Loopback, Tap, Veth, add_address
from netbpf.host.linux.memory import OwnMemory, RealBuffers
from netbpf.host.linux.netns import netns_worker
from netbpf.host.linux.rings import PerfRing, open_perf_output, read_ringbuf
from netbpf.host.linux.worker import Worker
from netbpf.host.memory import CallBuffers
from netbpf.maps.perf_buffer import PerfRecord

T = TypeVar("T")
Socket = socket.socket
_select = select.select


def possible_cpus() -> int:
    """How many copies a per-CPU value has, as the kernel counts."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


def unprivileged_bpf_disabled() -> int:
    """kernel.unprivileged_bpf_disabled; 0 where this kernel has no such setting."""
    try:
        return int(Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text())
    except FileNotFoundError:
        return 0


def possible_cpus_or_one() -> int:
    """``possible_cpus``; 1 where this machine does not tell."""
    try:
        return possible_cpus()
    except (OSError, ValueError):
        return 1


def lab_cpu() -> int:
    """The CPU that frames of a lab are delivered on: the first one this thread may use. Per-CPU maps count there."""
    return min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


class LinuxProcess(BpfCalls):
    """This very process towards the kernel. It remembers the descriptors made through it and closes them at its end.

    With a ``worker``, its calls are made by that thread, which ends with it.
    """

    def __init__(self, worker: Worker | None = None) -> None:
        self._worker = worker
        self._owned: set[int] = set()
        self._sockets: list[socket.socket] = []
        self._logs: dict[int, str] = {}
        self._rings: dict[int, PerfRing] = {}
        self.memory = OwnMemory()
        self.possible_cpus = possible_cpus()

    def run(self, function: Callable[..., T], *args: object) -> T:
        """``function(*args)`` where this process's calls are made."""
        return function(*args) if self._worker is None else self._worker.run(function, *args)

    # --- bpf(2) -------------------------------------------------------------------------------------------------------
    def bpf(self, cmd: int, attr: bytearray | memoryview | bytes | int, size: int | None = None) -> int:
        """bpf(2) on attr bytes or on an address of this interpreter. Raises BpfError."""
        result = self.run(sys_bpf, cmd, attr, size)
        if result > 2:  # a command that gives a number gives a descriptor
            self._owned.add(result)
        return result

    def call(self, cmd: int, attr: bytearray, buffers: CallBuffers) -> int:
        return self.bpf(cmd, attr)

    def new_buffers(self) -> RealBuffers:
        return RealBuffers()

    @property
    def load_logs(self) -> dict[int, str]:
        return self._logs

    # --- rings ----------------------------------------------------------------------------------------------------------
    def perf_event_open(self, cpu: int = 0, pages: int = 8) -> int:
        """A descriptor of a perf event on a CPU, for a PERF_EVENT_ARRAY; its ring has ``pages`` pages. Raises BpfError."""
        fd = self.run(open_perf_output, cpu)
        self._owned.add(fd)
        self._rings[fd] = PerfRing(fd, pages)
        return fd

    def perf_read(self, fd: int) -> list[PerfRecord]:
        """What programs wrote to a perf event since the last read. Raises BpfError(EINVAL) for another descriptor."""
        if fd not in self._rings:
            raise BpfError(errno.EINVAL)
        return self._rings[fd].consume()

    def ringbuf_read(self, fd: int) -> list[bytes]:
        """What programs submitted to a ring buffer since the last read. Raises BpfError(EINVAL) for another map."""
        info = self.map_info(fd)
        if info.type != MapType.RINGBUF:
            raise BpfError(errno.EINVAL)
        return self.run(read_ringbuf, fd, info.max_entries)

    # --- descriptors and sockets ----------------------------------------------------------------------------------------
    def socket(self, family: int, type: int, proto: int = 0) -> socket.socket:
        """A real socket. Raises OSError."""
        made = self.run(socket.socket, family, type, proto)
        self._sockets.append(made)
        return made

    def socketpair(self, family: int = 1, type: int = 2, proto: int = 0) -> tuple[Socket, Socket]:
        """Two real connected sockets; AF_UNIX datagrams where nothing else is said. Raises OSError."""
        made = self.run(socket.socketpair, family, type, proto)
        self._sockets += made
        return made

    def poll(self) -> Any:
        """``select.poll()``."""
        return select.poll()

    def select(
        self, rlist: Sequence[Any], wlist: Sequence[Any], xlist: Sequence[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """``select.select``."""
        return _select(rlist, wlist, xlist, timeout)

    def dup(self, fd: int) -> int:
        """Raises OSError."""
        copy = os.dup(fd)
        self._owned.add(copy)
        return copy

    def close(self, fd: int) -> None:
        """Raises OSError."""
        self._owned.discard(fd)
        self._logs.pop(fd, None)
        if fd in self._rings:
            self._rings.pop(fd).close()
        os.close(fd)

    def exit(self) -> None:
        """Close every descriptor and socket made through this object. A second call does nothing."""
        for made in self._sockets:
            made.close()
        self._sockets.clear()
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()
        for fd in sorted(self._owned):
            os.close(fd)
        self._owned.clear()
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __enter__(self) -> LinuxProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.exit()

    @property
    def caps(self) -> frozenset[str]:
        """Effective capabilities of its calls."""
        return self.run(effective_caps)


class LinuxHost:
    """The running kernel."""

    name = "kernel"

    def process(self, *, caps: frozenset[str] | None = None) -> LinuxProcess:
        """This process; with ``caps``, a thread of it that has no others."""
        return LinuxProcess(None if caps is None else Worker(partial(keep_only, caps), "netbpf-caps"))

    def lab(self, device: str = "tap0", *, mac: bytes | None = None, mtu: int = 9000, kind: str = "tap") -> LinuxLab:
        """A throw-away network namespace with one device (``kind`` tap, veth or lo) and a process in it. Raises BpfError."""
        return LinuxLab(device, mac, mtu, kind)


class LinuxLab:
    """``host.lab.Lab`` on the running kernel. Namespace, device and sockets are gone when it is left.

    Inside, the entering thread stays on one CPU, ``lab_cpu()``: a frame that it delivers runs the programs there.
    """

    def __init__(self, device: str, mac: bytes | None, mtu: int, kind: str) -> None:
        self.process = LinuxProcess(netns_worker())
        try:
            self.device = self.process.run(partial(_MAKERS[kind], device, mac, mtu))
        except BaseException:
            self.process.exit()
            raise

    def add_address(self, address: str) -> None:
        """An address with its prefix ("10.0.0.1/24") on the device. Raises BpfError."""
        self.process.run(add_address, self.device.name, address)

    def __enter__(self) -> LinuxLab:
        self._cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {lab_cpu()})
        return self

    def use_cpu(self, cpu: int) -> None:
        """Frames delivered from here on run their programs on another CPU. Raises OSError(EINVAL) where this thread may not."""
        if cpu not in self._cpus:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        os.sched_setaffinity(0, {cpu})

    def __exit__(self, *exc: object) -> None:
        os.sched_setaffinity(0, self._cpus)
        try:
            self.process.run(self.device.close)
        finally:
            self.process.exit()


_MAKERS: Final[dict[str, Callable[[str, bytes | None, int], Tap | Veth | Loopback]]] = {
    "tap": lambda name, mac, mtu: Tap(name, mac=mac, mtu=mtu),
    "veth": lambda name, mac, mtu: Veth(name, mac=mac, mtu=mtu),
    "lo": lambda name, mac, mtu: Loopback(),
}
