"""``LinuxHost``: the running kernel behind the Host protocol. Needs the privileges that bpf(2) needs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from netbpf.host.calls import BpfCalls
from netbpf.host.linux.bpf import sys_bpf
from netbpf.host.linux.caps import CapThread, effective_caps
from netbpf.host.linux.memory import OwnMemory, RealBuffers
from netbpf.host.memory import CallBuffers

T = TypeVar("T")


def possible_cpus() -> int:
    """How many copies a per-CPU value has, as the kernel counts."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


class LinuxProcess(BpfCalls):
    """This very process towards the kernel. It remembers the descriptors made through it and closes them at its end.

    With ``caps``, its calls are made by a thread that has only those.
    """

    def __init__(self, caps: frozenset[str] | None = None) -> None:
        self._thread = None if caps is None else CapThread(caps)
        self._owned: set[int] = set()
        self._sockets: list[socket.socket] = []
        self._logs: dict[int, str] = {}
        self.memory = OwnMemory()
        self.possible_cpus = possible_cpus()

    def run(self, function: Callable[..., T], *args: object) -> T:
        """``function(*args)`` with this process's capabilities."""
        return function(*args) if self._thread is None else self._thread.run(function, *args)

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

    # --- descriptors and sockets ----------------------------------------------------------------------------------------
    def socket(self, family: int, type: int, proto: int = 0) -> socket.socket:
        """A real socket. Raises OSError."""
        made = self.run(socket.socket, family, type, proto)
        self._sockets.append(made)
        return made

    def dup(self, fd: int) -> int:
        """Raises OSError."""
        copy = os.dup(fd)
        self._owned.add(copy)
        return copy

    def close(self, fd: int) -> None:
        """Raises OSError."""
        self._owned.discard(fd)
        self._logs.pop(fd, None)
        os.close(fd)

    def exit(self) -> None:
        """Close every descriptor and socket made through this object. A second call does nothing."""
        for made in self._sockets:
            made.close()
        self._sockets.clear()
        for fd in sorted(self._owned):
            os.close(fd)
        self._owned.clear()
        if self._thread is not None:
            self._thread.close()
            self._thread = None

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
        return LinuxProcess(caps)
