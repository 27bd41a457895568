"""An object that stands for a socket: what it does not say itself is the socket's."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self


class SocketWrapper:
    """``_sock`` is the socket; a subclass closes what is its own. A context manager."""

    _sock: Any

    def close(self) -> None:
        """A second call does nothing."""
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._sock, name)
