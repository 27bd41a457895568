"""The verifier's log on its way to the caller's buffer: which settings are sane, and what is kept of a log that does not fit."""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from netbpf.errors import BpfError
from netbpf.host.memory import UserMemory

BPF_LOG_LEVEL: Final = 3
BPF_LOG_STATS: Final = 4
BPF_LOG_FIXED: Final = 8  # keep the beginning of a log that does not fit, else its end is kept
_MASK: Final = BPF_LOG_LEVEL | BPF_LOG_STATS | BPF_LOG_FIXED
_SIZE_MAX: Final = 0xFFFF_FFFF >> 2


class LogBuffer(NamedTuple):
    """log_level, log_buf, log_size of a load."""

    level: int
    address: int
    size: int

    def check(self) -> None:
        """Raises BpfError(EINVAL) for a buffer without size or level, a size without buffer, unknown bits."""
        if bool(self.address) != bool(self.size) or (self.address and not self.level):
            raise BpfError(errno.EINVAL)
        if self.level & ~_MASK or self.size > _SIZE_MAX:
            raise BpfError(errno.EINVAL)

    def deliver(self, memory: UserMemory, text: str) -> tuple[int, int]:
        """Write ``text`` and its NUL. Gives (log_true_size, errno): ENOSPC for a log cut short, EFAULT for a bad buffer."""
        if not self.level:
            return 0, 0
        log = text.encode()
        true_size = len(log) + 1 if log else 0
        if not self.address:
            return true_size, 0
        fits = true_size <= self.size
        kept = log if fits else log[: self.size - 1] if self.level & BPF_LOG_FIXED else log[true_size - self.size :]
        try:
            memory.write(self.address, kept + b"\0")
        except BpfError:
            return true_size, errno.EFAULT
        return true_size, 0 if fits else errno.ENOSPC
