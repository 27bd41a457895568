"""The memory of this process by address, read and written by the kernel so that a bad address is EFAULT and no crash."""

from __future__ import annotations

import ctypes
import errno
import os

from netbpf.errors import BpfError
from netbpf.host.linux.syscalls import libc


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_uint64), ("len", ctypes.c_size_t))


_readv = getattr(libc, "process_vm_readv", None)
_writev = getattr(libc, "process_vm_writev", None)


class OwnMemory:
    """A ``host.memory.UserMemory`` over this interpreter's own addresses, by process_vm_readv(2) and process_vm_writev(2)."""

    def read(self, address: int, size: int) -> bytes:
        if not size:
            return b""
        out = ctypes.create_string_buffer(size)
        _transfer(_readv, ctypes.addressof(out), address, size)
        return out.raw

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        if not data:
            return
        source = (ctypes.c_char * len(data)).from_buffer_copy(data)
        _transfer(_writev, ctypes.addressof(source), address, len(data))


def is_available() -> bool:
    """Whether this machine can do it: the call is there and not forbidden by a sandbox."""
    if _readv is None or _writev is None:
        return False
    probe = ctypes.create_string_buffer(b"x")
    try:
        return OwnMemory().read(ctypes.addressof(probe), 1) == b"x"
    except BpfError:
        return False


def _transfer(call: object, local: int, remote: int, size: int) -> None:
    if remote + size > 1 << 64:
        raise BpfError(errno.EFAULT)
    mine, theirs = _Iovec(local, size), _Iovec(remote, size)
    done = int(call(os.getpid(), ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0))  # type: ignore[operator]  # a C function
    if done != size:
        raise BpfError(ctypes.get_errno() if done < 0 else errno.EFAULT)


class RealBuffers:
    """``host.memory.CallBuffers`` of ctypes memory: addresses that the real kernel may be given."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[int, ctypes.Array[ctypes.c_char]] = {}

    def put(self, data: bytes) -> int:
        return self._keep(ctypes.create_string_buffer(bytes(data), max(len(data), 1)))

    def room(self, size: int) -> int:
        return self._keep(ctypes.create_string_buffer(max(size, 1)))

    def get(self, address: int, size: int) -> bytes:
        return self._kept[address].raw[:size]

    def _keep(self, buffer: ctypes.Array[ctypes.c_char]) -> int:
        address = ctypes.addressof(buffer)
        self._kept[address] = buffer
        return address
