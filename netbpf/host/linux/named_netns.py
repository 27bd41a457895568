"""A named network namespace, as ``ip netns`` has them: entered where it is there, else made, and removed by who made it."""

from __future__ import annotations

import contextlib
import os
import threading
from types import TracebackType
from typing import Any, Self

from netbpf.errors import BpfError
from netbpf.host.linux.devices import import_live
from netbpf.host.linux.netns import RUN_NETNS, enter_netns, enter_new_netns
from netbpf.host.linux.worker import Worker


class NamedNamespace:
    """A thread in the namespace ``name``; "" is the caller's own, with no thread. ``created``: it was not there before, and is
    gone after ``close``. Raises BpfError(EPERM, ENOENT where it may not be made)."""

    def __init__(self, name: str, *, may_create: bool = False) -> None:
        self.name, self.created = name, False
        self._worker: Worker | None = None
        if not name:
            return
        if may_create and not os.path.exists(f"{RUN_NETNS}/{name}"):
            self._worker = Worker(self._make, "netbpf-netns")
        else:
            self._worker = Worker(lambda: enter_netns(name), "netbpf-netns")

    def _make(self) -> None:
        """A namespace of this thread's own gets its name."""
        enter_new_netns()
        netns = import_live("pyroute2").netns
        try:
            netns.attach(self.name, threading.get_native_id())
        except OSError as e:
            with contextlib.suppress(OSError):
                os.unlink(f"{RUN_NETNS}/{self.name}")
            why = os.strerror(e.errno or 0)
            raise BpfError(e.errno or 0, f"the network namespace {self.name!r} cannot be named: {why}") from None
        self.created = True

    def run(self, function: Any, *args: Any) -> Any:
        """``function(*args)`` inside; what it raises is raised here."""
        return function(*args) if self._worker is None else self._worker.run(function, *args)

    def close(self) -> None:
        """Remove what was made. A second call does nothing."""
        if self.created:
            self.created = False
            import_live("pyroute2").netns.remove(self.name)
        if self._worker is not None:
            self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
