"""The memory of a process as a system call sees it: reads and writes by address that fail with EFAULT, never with a crash.

Two forms. ``Buffers`` is a table of registered buffers at made-up addresses: it serves the Python methods of a simulated
process and machines without the system call that the other form needs. ``host.linux.memory.OwnMemory`` is the memory of
this very interpreter, for callers that pass real addresses of ctypes objects.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from typing import Protocol

from netbpf.errors import BpfError

_FIRST = 0x10000  # as mmap_min_addr: nothing lies below, so NULL and small numbers fault
_ALIGN = 0x1000


class UserMemory(Protocol):
    """What copy_from_user and copy_to_user reach. Addresses are u64. Both raise BpfError(EFAULT)."""

    def read(self, address: int, size: int) -> bytes: ...

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None: ...


class CallBuffers(Protocol):
    """Buffers that live for one call: what goes in, what comes out."""

    def put(self, data: bytes) -> int:
        """The address of a copy of ``data``."""

    def room(self, size: int) -> int:
        """The address of ``size`` zero bytes."""

    def get(self, address: int, size: int) -> bytes:
        """What is there now."""


class Buffers:
    """Registered buffers, each at an address of its own with unmapped space behind it."""

    __slots__ = ("_bases", "_buffers", "_next")

    def __init__(self) -> None:
        self._bases: list[int] = []
        self._buffers: list[bytearray] = []
        self._next = _FIRST

    def register(self, buffer: bytearray) -> int:
        """The address from which ``buffer`` itself (not a copy) is reachable."""
        base = self._next
        self._bases.append(base)
        self._buffers.append(buffer)
        self._next = base + (len(buffer) // _ALIGN + 2) * _ALIGN
        return base

    def put(self, data: bytes) -> int:
        return self.register(bytearray(data))

    def room(self, size: int) -> int:
        return self.register(bytearray(size))

    def get(self, address: int, size: int) -> bytes:
        return self.read(address, size)

    def read(self, address: int, size: int) -> bytes:
        if not size:
            return b""
        buffer, start = self._find(address, size)
        return bytes(buffer[start : start + size])

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        if not data:
            return
        buffer, start = self._find(address, len(data))
        buffer[start : start + len(data)] = data

    def _find(self, address: int, size: int) -> tuple[bytearray, int]:
        at = bisect_right(self._bases, address) - 1
        if at >= 0:
            buffer, start = self._buffers[at], address - self._bases[at]
            if start + size <= len(buffer):
                return buffer, start
        raise BpfError(errno.EFAULT)


def read_string(memory: UserMemory, address: int, limit: int) -> bytes:
    """Bytes up to a NUL (left out), or the first ``limit`` where there is none. EFAULT if unreadable before that."""
    out = bytearray()
    while len(out) < limit:
        at = address + len(out)
        try:
            piece = memory.read(at, min(limit - len(out), _ALIGN - at % _ALIGN))
        except BpfError:  # a buffer shorter than the page: take it byte by byte
            piece = memory.read(at, 1)
        end = piece.find(0)
        if end >= 0:
            return bytes(out) + piece[:end]
        out += piece
    return bytes(out)
