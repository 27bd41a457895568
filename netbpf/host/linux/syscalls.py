"""The raw system calls this package makes through ctypes, and nothing else: numbers per machine, errno out.

Every function raises BpfError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

from netbpf.errors import BpfError

_EVERYWHERE: Final = {"fsopen": 430, "fsconfig": 431, "fsmount": 432}  # calls since 5.1 have one number on every machine
_NUMBERS: Final = {
    "x86_64": {"bpf": 321, "capget": 125, "capset": 126, "perf_event_open": 298, **_EVERYWHERE},
    "aarch64": {"bpf": 280, "capget": 90, "capset": 91, "perf_event_open": 241, **_EVERYWHERE},
    "riscv64": {"bpf": 280, "capget": 90, "capset": 91, "perf_event_open": 241, **_EVERYWHERE},
}
NUMBERS: Final = _NUMBERS.get(os.uname().machine, {})

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def checked(result: int) -> int:
    """``result``, or BpfError with the thread's errno where it is negative."""
    if result < 0:
        raise BpfError(ctypes.get_errno())
    return result


def syscall(name: str, *args: object) -> int:
    """A system call by name. Raises BpfError(ENOSYS) on a machine whose number is not known here."""
    number = NUMBERS.get(name)
    if number is None:
        raise BpfError(errno.ENOSYS, f"the number of {name}(2) on {os.uname().machine} is not known")
    return checked(int(libc.syscall(ctypes.c_long(number), *args)))
