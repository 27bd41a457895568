"""select(2) and poll(2) for simulated sockets, whose numbers mean nothing to this interpreter's own ``select`` module.

``SimPoll`` is shaped as ``select.poll()``, ``select`` as ``select.select``.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any, Final

from netbpf.errors import BpfError
from netbpf.host.sim.machine import Task
from netbpf.host.sim.sock import Sock

POLLIN, POLLPRI, POLLOUT, POLLERR, POLLHUP, POLLNVAL = 1, 2, 4, 8, 16, 32
ALWAYS: Final = POLLERR | POLLHUP | POLLNVAL


def _number(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())


def events_of(task: Task, fd: int) -> int:
    """What is the case with a descriptor now."""
    file = task.fds.find(fd)
    if file is None or not isinstance(file.obj, Sock):
        return POLLNVAL
    sock = file.obj
    mask = POLLIN if sock.is_readable() else 0
    mask |= POLLOUT if sock.is_writable() else 0
    mask |= POLLERR if sock.error else 0
    return mask | (POLLHUP if sock.is_hung_up() else 0)


class SimPoll:
    """The descriptors of one process, or its sockets."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._wanted: dict[int, int] = {}

    def register(self, fd: Any, eventmask: int = POLLIN | POLLPRI | POLLOUT) -> None:
        self._wanted[_number(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int) -> None:
        """Raises FileNotFoundError for what is not registered."""
        if _number(fd) not in self._wanted:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        self._wanted[_number(fd)] = eventmask

    def unregister(self, fd: Any) -> None:
        """Raises KeyError for what is not registered."""
        del self._wanted[_number(fd)]

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """(descriptor, events) of those with any. ``timeout`` in milliseconds; None, or less than 0, is for ever."""
        seconds = None if timeout is None or timeout < 0 else timeout / 1000
        with self._task.machine.changed:
            self._task.machine.timers.wait_for(self._ready, seconds)
            return self._ready()

    def _ready(self) -> list[tuple[int, int]]:
        found = ((fd, events_of(self._task, fd) & (mask | ALWAYS)) for fd, mask in self._wanted.items())
        return [(fd, mask) for fd, mask in found if mask]


def select(
    task: Task, rlist: Sequence[Any], wlist: Sequence[Any], xlist: Sequence[Any], timeout: float | None = None
) -> tuple[list[Any], list[Any], list[Any]]:
    """Those of each list that are ready; ``timeout`` in seconds, None for ever. Raises BpfError(EBADF)."""
    wanted = ((rlist, POLLIN | POLLHUP | POLLERR), (wlist, POLLOUT | POLLERR), (xlist, POLLPRI))

    def ready() -> list[list[Any]]:
        return [[item for item in items if _check(task, item) & mask] for items, mask in wanted]

    with task.machine.changed:
        task.machine.timers.wait_for(lambda: any(ready()), timeout)
        readable, writable, urgent = ready()
        return readable, writable, urgent


def _check(task: Task, item: Any) -> int:
    mask = events_of(task, _number(item))
    if mask & POLLNVAL:
        raise BpfError(errno.EBADF)
    return mask
