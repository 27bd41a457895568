"""bpf(2) of the running kernel, by bytes. The Python methods over it are ``host.calls``."""

from __future__ import annotations

import ctypes

from netbpf.host.linux.syscalls import syscall


def sys_bpf(cmd: int, attr: bytearray | memoryview | bytes | int, size: int | None = None) -> int:
    """bpf(2). ``attr`` is a packed ``union bpf_attr`` (out fields come back where writable) or an address. Raises BpfError."""
    if isinstance(attr, int):
        return _call(cmd, attr, 0 if size is None else size)
    size = len(attr) if size is None else size
    if isinstance(attr, bytes) or memoryview(attr).readonly:
        copy = ctypes.create_string_buffer(bytes(attr), max(len(attr), 1))
        return _call(cmd, ctypes.addressof(copy), size)
    if not attr:
        return _call(cmd, 0, size)
    shared = (ctypes.c_char * len(attr)).from_buffer(attr)
    try:
        return _call(cmd, ctypes.addressof(shared), size)
    finally:
        del shared


def _call(cmd: int, address: int, size: int) -> int:
    return syscall("bpf", ctypes.c_int(cmd), ctypes.c_void_p(address), ctypes.c_uint(size))
