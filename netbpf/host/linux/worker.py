"""A thread of this process in a state of its own (fewer capabilities, another network namespace) that runs what it is given."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """``enter`` puts the thread into its state; what it raises is raised here. Calls run one after the other."""

    def __init__(self, enter: Callable[[], None], name: str = "netbpf-worker") -> None:
        self._pool = ThreadPoolExecutor(1, name)
        try:
            self.run(enter)
        except BaseException:
            self.close()
            raise

    def run(self, function: Callable[..., T], *args: object) -> T:
        """``function(*args)`` on the thread; its exception is raised here."""
        return self._pool.submit(function, *args).result()

    def close(self) -> None:
        """End the thread, and with it its state. A second call does nothing."""
        self._pool.shutdown()
