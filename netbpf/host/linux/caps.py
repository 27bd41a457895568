"""Capabilities of a thread of this process: read and dropped.

capset(2) changes the calling thread only, so the rest of the interpreter keeps what it has.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Final

from netbpf.abi.caps import CAPABILITIES
from netbpf.host.linux.syscalls import syscall

_VERSION_3: Final = 0x2008_0522
_HEADER = struct.Struct("<Ii")
_DATA = struct.Struct("<6I")  # effective, permitted, inheritable of numbers 0-31, then of 32-63


def effective_caps() -> frozenset[str]:
    """Effective capabilities of the calling thread. Raises BpfError."""
    data = ctypes.create_string_buffer(_DATA.size)
    syscall("capget", ctypes.create_string_buffer(_HEADER.pack(_VERSION_3, 0)), data)
    low, _, _, high, _, _ = _DATA.unpack(data.raw)
    mask = low | high << 32
    return frozenset(name for name, number in CAPABILITIES.items() if mask >> number & 1)


def keep_only(caps: frozenset[str]) -> None:
    """The calling thread keeps those of ``caps`` that it has, for good. Raises BpfError."""
    mask = sum(1 << CAPABILITIES[name] for name in caps & effective_caps())
    low, high = mask & 0xFFFF_FFFF, mask >> 32
    data = ctypes.create_string_buffer(_DATA.pack(low, low, 0, high, high, 0), _DATA.size)
    syscall("capset", ctypes.create_string_buffer(_HEADER.pack(_VERSION_3, 0)), data)
