"""Things of a simulated machine that happen later: retransmissions, the end of a wait for fragments."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Final

from netbpf.env import Env

NS: Final = 1_000_000_000


class Timer:
    """One of them; ``cancel`` before it is due and nothing happens."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Timers:
    """In order of time on the machine's clock (``env.ktime_ns``). ``changed`` guards everything that sockets of the machine
    share: hold it to touch them, wait on it for them to change."""

    def __init__(self, env: Env, changed: threading.Condition) -> None:
        self.env, self.changed = env, changed
        self._heap: list[tuple[int, int, Timer]] = []
        self._order = count()

    def after(self, delay_ns: int, call: Callable[[], None]) -> Timer:
        """``call`` in ``delay_ns``."""
        timer = Timer(call)
        heapq.heappush(self._heap, (self.env.ktime_ns() + delay_ns, next(self._order), timer))
        return timer

    def run_due(self) -> None:
        """Let everything happen whose time has come. The lock is held."""
        while self._heap and (self._heap[0][2].call is None or self._heap[0][0] <= self.env.ktime_ns()):
            call = heapq.heappop(self._heap)[2].call
            if call is not None:
                call()

    def next_ns(self) -> int | None:
        """When the next one is due."""
        return self._heap[0][0] if self._heap else None

    def wait_for(self, ready: Callable[[], object], timeout_s: float | None) -> bool:
        """Wait, the lock held, until ``ready()``; timers due meanwhile go off. False once ``timeout_s`` of real time are over."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self.run_due()
            if ready():
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self.changed.wait(self._nap(left))

    def _nap(self, left_s: float | None) -> float | None:
        """Seconds until there is something to look at. A clock that is stepped by hand is looked at when it is stepped."""
        due = self.next_ns()
        if due is None:
            return left_s
        until = max((due - self.env.ktime_ns()) / NS, 0.001)
        return until if left_s is None else min(until, left_s)
