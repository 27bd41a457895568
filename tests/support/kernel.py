"""Whether the running kernel may be asked, and how tests skip where it may not."""

from __future__ import annotations

import ctypes
import os
import struct

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, -1)


def _why_not() -> str:
    """Empty when bpf(2) loads a socket filter here, else the reason it does not."""
    if os.geteuid() != 0:
        return "needs root"
    insns = ctypes.create_string_buffer(bytes.fromhex("b7000000000000009500000000000000"))
    lic = ctypes.create_string_buffer(b"GPL")
    attr = struct.pack("<IIQQ", 1, 2, ctypes.addressof(insns), ctypes.addressof(lic)).ljust(128, b"\0")
    fd = _libc.syscall(_SYS_BPF, 5, ctypes.create_string_buffer(attr, 128), 128)
    if fd < 0:
        return f"bpf(2) refuses a program here: {os.strerror(ctypes.get_errno())}"
    os.close(fd)
    return ""


KERNEL_REASON = _why_not()
needs_kernel = [pytest.mark.kernel, pytest.mark.skipif(bool(KERNEL_REASON), reason=KERNEL_REASON or "the kernel answers")]
