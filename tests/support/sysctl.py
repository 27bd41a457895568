"""kernel.unprivileged_bpf_disabled set for a while, one test process at a time, and put back."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SYSCTL = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
_LOCK = Path(tempfile.gettempdir()) / "netbpf-unprivileged-bpf.lock"


@contextmanager
def unprivileged_bpf(disabled: int) -> Iterator[None]:
    """The sysctl has this value inside. It must not be 1, which is for good."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = SYSCTL.read_text()
        SYSCTL.write_text(str(disabled))
        try:
            yield
        finally:
            SYSCTL.write_text(before)
