"""A capture's frames into a device, as fast as they are taken. Knows captures and who takes frames; no program."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, Final

from netbpf.packet.capture import CaptureReader
from netbpf.packet.record import Record
from netbpf.replay.frames import as_frame

FRAMES_A_STEP: Final = 512


class Feeder:
    """Frames come in on ``tap`` (whoever listens there sees them), or with ``sender`` go out of it (whoever reads it gets them).

    ``fed`` frames are in; ``refused`` were too long for the device or reach nobody.
    """

    def __init__(self, reader: CaptureReader, tap: Any, sender: Any = None) -> None:
        self._records: Iterator[Record] = iter(reader)
        self._tap, self._sender = tap, sender
        self._held: bytes | None = None  # a frame that has to be tried again
        self.fed = self.refused = 0

    def step(self) -> bool:
        """Some frames more; False once all are in. Raises CaptureError, UsageError for frames without Ethernet header."""
        for _ in range(FRAMES_A_STEP):
            frame = self._held if self._held is not None else self._next()
            if frame is None:
                return False
            if frame and not self._put(frame):
                self._held = frame
                return True
            self._held = None
        return True

    def _next(self) -> bytes | None:
        record = next(self._records, None)
        if record is None:
            return None
        made = as_frame(record)
        return made.frame if made is not None else b""

    def _put(self, frame: bytes) -> bool:
        """False where the queue is full: the same frame again, later."""
        try:
            if self._sender is not None:
                self._sender.send(frame)
            elif not self._tap.deliver(frame):
                self.refused += 1
                return True
        except BlockingIOError:
            return False
        except OSError as e:
            if e.errno == errno.ENOBUFS:
                return False
            if e.errno not in (errno.EMSGSIZE, errno.EINVAL):
                raise
            self.refused += 1
            return True
        self.fed += 1
        return True
