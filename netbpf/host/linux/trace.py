"""What bpf_trace_printk writes, read from the running kernel: a trace instance of one's own, with that one event enabled.

Others' trace output is neither disturbed nor taken. The instance is gone when it is left.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path
from typing import Final

from netbpf.errors import BpfError

MOUNTS: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_LINE = re.compile(rb"^\s*(?P<task>.*?)-(?P<pid>\d+)\s+\[\d+\].*?bpf_trace_printk: (?P<text>.*)\Z")


class TraceInstance:
    """Lines that programs wrote on behalf of this thread since it was made. A context manager. Raises BpfError."""

    def __init__(self) -> None:
        root = next((m for m in MOUNTS if os.path.isdir(f"{m}/instances")), None)
        if root is None:
            raise BpfError(errno.ENOENT, f"ENOENT: no tracefs: mount -t tracefs nodev {MOUNTS[0]}")
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
        if self._folder.is_dir():
            self._folder.rmdir()
