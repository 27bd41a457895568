"""The trace buffer: what bpf_trace_printk and bpf_trace_vprintk write, for the user to read. Knows no program and no engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

DEFAULT_CAPACITY: Final = 65536


class TraceLine(NamedTuple):
    """One call: ``ts_ns`` of the program's clock, the CPU it ran on, the formatted text (no newline added)."""

    ts_ns: int
    cpu: int
    text: str

    def __str__(self) -> str:
        """As trace_pipe prints it, with nothing where the kernel would name the task that was interrupted."""
        return f"[{self.cpu:03d}] {self.ts_ns / 1e9:13.6f}: bpf_trace_printk: {self.text}"


class TraceBuffer:
    """The newest ``capacity`` lines; ``lost`` counts those that were pushed out unread."""

    __slots__ = ("_lines", "lost")

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._lines: deque[TraceLine] = deque(maxlen=capacity)
        self.lost = 0

    def write(self, line: TraceLine) -> None:
        if len(self._lines) == self._lines.maxlen:
            self.lost += 1
        self._lines.append(line)

    def __iter__(self) -> Iterator[TraceLine]:
        return iter(tuple(self._lines))

    def __len__(self) -> int:
        return len(self._lines)

    def drain(self) -> list[TraceLine]:
        """Every line so far, taken out, as reading trace_pipe does."""
        lines = list(self._lines)
        self._lines.clear()
        return lines
