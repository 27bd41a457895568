"""A progress line on stderr, on a terminal only: packets, bytes, rate, time left."""

from __future__ import annotations

import sys
import time
from typing import TextIO

REFRESH_S = 0.2
QUIET_S = 0.5


class Progress:
    """``update`` as often as you like: it draws at most every REFRESH_S, and not at all in the first QUIET_S."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.enabled = self.stream.isatty()
        self.start = time.monotonic()
        self.drawn_at = self.start + QUIET_S - REFRESH_S
        self.drawn = False

    def update(self, packets: int, done_bytes: int, total_bytes: int | None) -> None:
        """Tell how far the work is; ``total_bytes`` None where nobody knows (a pipe)."""
        now = time.monotonic()
        if not self.enabled or now - self.drawn_at < REFRESH_S:
            return
        self.drawn_at, self.drawn = now, True
        self.stream.write("\r\x1b[K" + progress_line(packets, done_bytes, total_bytes, now - self.start))
        self.stream.flush()

    def clear(self) -> None:
        """Take the line away, before other output."""
        if self.drawn:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self.drawn = False


def progress_line(packets: int, done_bytes: int, total_bytes: int | None, elapsed_s: float) -> str:
    """The text, without cursor movements; under 80 columns."""
    rate = packets / elapsed_s if elapsed_s > 0 else 0.0
    text = f"{packets:,} packets  {done_bytes / 1e6:,.1f} MB  {rate:,.0f}/s"
    if not total_bytes or not done_bytes:
        return text
    share = min(1.0, done_bytes / total_bytes)
    left = elapsed_s * (1 - share) / share
    filled = round(share * 12)
    return f"[{'#' * filled}{'.' * (12 - filled)}] {share:4.0%}  {text}  {left:.0f} s left"
