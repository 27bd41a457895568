"""What bpf_trace_printk writes, read from the running kernel: a trace instance of one's own, with that one event enabled.

Others' trace output is neither disturbed nor taken. The instance is gone when it is left. Where tracefs is not mounted, a mount
that has no place in any namespace is made for as long as the instance lives: nobody else sees it, and it needs no undoing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import threading
from pathlib import Path
from typing import Final

from netbpf.errors import BpfError
from netbpf.host.linux.syscalls import syscall

MOUNTS: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_FSOPEN_CLOEXEC: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_FSMOUNT_CLOEXEC: Final = 1
_LINE = re.compile(rb"^\s*(?P<task>.*?)-(?P<pid>\d+)\s+\[\d+\].*?bpf_trace_printk: (?P<text>.*)\Z")


class TraceInstance:
    """Lines that programs wrote on behalf of this thread since it was made. A context manager. Raises BpfError."""

    def __init__(self) -> None:
        root = next((m for m in MOUNTS if os.path.isdir(f"{m}/instances")), None)
        self._mount = _detached_tracefs() if root is None else -1
        root = root or f"/proc/self/fd/{self._mount}"
        self._folder = Path(root, "instances", f"netbpf-{os.getpid()}-{threading.get_native_id()}")
        try:
            self._folder.mkdir()
            (self._folder / "events/bpf_trace/bpf_trace_printk/enable").write_text("1")
            self._pipe = os.open(self._folder / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        except OSError as e:
            self._remove()
            raise BpfError(e.errno or errno.EIO) from None
        self._rest = b""

    def read(self) -> list[str]:
        """The text of every line since the last call."""
        while True:
            try:
                piece = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                break
            if not piece:
                break
            self._rest += piece
        *lines, self._rest = self._rest.split(b"\n")
        own = str(threading.get_native_id()).encode()
        found = (_LINE.match(line) for line in lines)
        return [m["text"].decode(errors="replace") for m in found if m is not None and m["pid"] == own]

    def __enter__(self) -> TraceInstance:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._pipe)
        self._remove()

    def _remove(self) -> None:
        try:
            if self._folder.is_dir():
                self._folder.rmdir()
        finally:
            if self._mount >= 0:
                os.close(self._mount)


def _detached_tracefs() -> int:
    """A descriptor of a tracefs that is mounted nowhere; its files are below /proc/self/fd. Raises BpfError."""
    try:
        context = syscall("fsopen", b"tracefs", ctypes.c_uint(_FSOPEN_CLOEXEC))
    except BpfError as e:
        raise BpfError(e.errno or errno.ENODEV, f"no tracefs is mounted, nor can one be: {e}") from None
    try:
        syscall("fsconfig", ctypes.c_int(context), ctypes.c_uint(_FSCONFIG_CMD_CREATE), None, None, ctypes.c_int(0))
        return syscall("fsmount", ctypes.c_int(context), ctypes.c_uint(_FSMOUNT_CLOEXEC), ctypes.c_uint(0))
    except BpfError as e:
        raise BpfError(e.errno or errno.EPERM, f"no tracefs is mounted, nor can one be: {e}") from None
    finally:
        os.close(context)
