"""The running kernel's verifier as an oracle for scripts and tests: load a program under a privilege, get errno and log.

Needs root and Linux on x86-64 or aarch64. Each privilege is a child process that dropped its capabilities for good, so
the caller keeps its own. Programs are never attached; descriptors are closed at once.
"""

from __future__ import annotations

import ctypes
import fcntl
import multiprocessing
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_BPF, _SYS_CAPSET = {"x86_64": (321, 126), "aarch64": (280, 91)}.get(os.uname().machine, (-1, -1))
_CAP_HEADER = struct.pack("<II", 0x20080522, 0)
_NET_ADMIN, _BPF = 1 << 12, 1 << (39 - 32)
_KEPT = {"capbpf": (_NET_ADMIN, _BPF), "unpriv": (0, 0)}
_UNPRIVILEGED = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
_LOCK = Path(tempfile.gettempdir()) / "netbpf-unprivileged-bpf.lock"
_ATTR_BYTES = 160
_LOG_BYTES = 1 << 22
MAP_CREATE, MAP_UPDATE, PROG_LOAD, BTF_LOAD, MAP_FREEZE = 0, 2, 5, 18, 22
EAGAIN, ENOSPC = 11, 28


def bpf(cmd: int, attr: bytes) -> int:
    """The bpf(2) system call: a result >= 0, or the negated errno."""
    buffer = ctypes.create_string_buffer(attr.ljust(_ATTR_BYTES, b"\0"), _ATTR_BYTES)
    result = _libc.syscall(_SYS_BPF, cmd, buffer, _ATTR_BYTES)
    return int(result) if result >= 0 else -ctypes.get_errno()


class Loader:
    """BPF_PROG_LOAD with one log buffer kept for all calls. Not for several threads."""

    def __init__(self) -> None:
        self.log = ctypes.create_string_buffer(_LOG_BYTES)

    def load(
        self, insns: bytes, prog_type: int, flags: int, level: int, attach: int = 0, extra: Sequence[Any] = ()
    ) -> tuple[int, str]:
        """(errno or 0, log). ``extra``: (btf fd, func_info rows, line_info rows)."""
        btf_fd, funcs, lines = extra or (0, (), ())
        code, gpl = ctypes.create_string_buffer(insns, len(insns)), ctypes.create_string_buffer(b"GPL")
        func_info = b"".join(struct.pack("<II", *row) for row in funcs)
        line_info = b"".join(struct.pack("<IIII", *row) for row in lines)
        func_buf, line_buf = ctypes.create_string_buffer(func_info + b"\0"), ctypes.create_string_buffer(line_info + b"\0")
        self.log[0] = b"\0"
        attr = struct.pack(
            "<IIQQIIQII16sIIIIQIIQI",
            *(prog_type, len(insns) // 8, ctypes.addressof(code), ctypes.addressof(gpl)),
            *(level, _LOG_BYTES if level else 0, ctypes.addressof(self.log) if level else 0, 0, flags, b"", 0, attach),
            *(btf_fd, 8 if funcs else 0, ctypes.addressof(func_buf) if funcs else 0, len(funcs)),
            *(16 if lines else 0, ctypes.addressof(line_buf) if lines else 0, len(lines)),
        )
        for _ in range(8):
            fd = bpf(PROG_LOAD, attr)
            if fd != -EAGAIN:
                break
        if fd >= 0:
            os.close(fd)
        return max(0, -fd), self.log.value.decode("latin-1")


def drop_capabilities(privilege: str) -> None:
    """Keep only what ``privilege`` means; for good in this process."""
    if privilege == "priv":
        return
    low, high = _KEPT[privilege]
    data = struct.pack("<IIIIII", low, low, 0, high, high, 0)
    if _libc.syscall(_SYS_CAPSET, ctypes.create_string_buffer(_CAP_HEADER), ctypes.create_string_buffer(data)):
        raise OSError(ctypes.get_errno(), "capset")


def _serve(privilege: str, pipe: Connection) -> None:
    drop_capabilities(privilege)
    loader = Loader()
    while (args := pipe.recv()) is not None:
        pipe.send(loader.load(*args))


@contextmanager
def unprivileged_bpf(disabled: int) -> Iterator[None]:
    """kernel.unprivileged_bpf_disabled is this inside, one process at a time, and put back. Never 1: that is for good."""
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = _UNPRIVILEGED.read_text()
        _UNPRIVILEGED.write_text(str(disabled))
        try:
            yield
        finally:
            _UNPRIVILEGED.write_text(before)
    finally:
        os.close(lock)


class Oracle:
    """One child per privilege asked for; a context manager. Maps must be made before it is entered: children inherit them."""

    def __init__(self, privileges: Sequence[str] = ("priv", "capbpf", "unpriv")) -> None:
        self._privileges = privileges
        self._pipes: dict[str, Connection] = {}
        self._children: list[Any] = []

    def __enter__(self) -> Oracle:
        context = multiprocessing.get_context("fork")
        for privilege in self._privileges:
            ours, theirs = context.Pipe()
            child = context.Process(target=_serve, args=(privilege, theirs), daemon=True)
            child.start()
            theirs.close()
            self._pipes[privilege] = ours
            self._children.append(child)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pipe in self._pipes.values():
            pipe.send(None)
        for child in self._children:
            child.join(5)

    def ask(
        self,
        privilege: str,
        insns: bytes,
        prog_type: int = 1,
        flags: int = 0,
        level: int = 2,
        attach: int = 0,
        extra: Sequence[Any] = (),
    ) -> tuple[int, str]:
        """(errno or 0, log) of one program whose map descriptors are already in place. ``extra``: as for `Loader.load`."""
        pipe = self._pipes[privilege]
        with unprivileged_bpf(0) if privilege == "unpriv" else nullcontext():
            pipe.send((insns, prog_type, flags, level, attach, extra))
            answer: tuple[int, str] = pipe.recv()
        return answer


def load_btf(data: bytes) -> int:
    """A descriptor of the BTF, or a negated errno."""
    blob = ctypes.create_string_buffer(data, len(data))
    return bpf(BTF_LOAD, struct.pack("<QQIII", ctypes.addressof(blob), 0, len(data), 0, 0))


def create_map(
    record: dict[str, Any], map_type: int, name: str = "", inner_fd: int = 0, btf: tuple[int, int, int] = (0, 0, 0)
) -> int:
    """A real map from a record's description, filled and frozen as told; a descriptor or a negated errno.

    ``btf``: descriptor, key type and value type, where BTF tells what the values hold.
    """
    attr = struct.pack(
        "<IIIIIII16sIIII",
        *(map_type, record["key_size"], record["value_size"], record["max_entries"], record["map_flags"], inner_fd, 0),
        *(name.encode()[:15], 0, *btf),
    )
    fd = bpf(MAP_CREATE, attr)
    if fd < 0:
        return fd
    for key, value in (record.get("contents") or {}).items():
        k = ctypes.create_string_buffer(bytes.fromhex(key).ljust(record["key_size"], b"\0"))
        v = ctypes.create_string_buffer(bytes.fromhex(value).ljust(record["value_size"], b"\0"))
        bpf(MAP_UPDATE, struct.pack("<IIQQQ", fd, 0, ctypes.addressof(k), ctypes.addressof(v), 0))
    if record.get("internal") and record["map_flags"] & 0x80:
        bpf(MAP_FREEZE, struct.pack("<I", fd))
    return fd
