"""Errors of simulated sockets in the classes that Python's own sockets raise: BlockingIOError for EAGAIN and so on, so that code
written for ``socket.socket`` catches ours. Each is a BpfError too."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from netbpf.errors import BpfError

P = ParamSpec("P")
T = TypeVar("T")


class WouldBlockError(BpfError, BlockingIOError):
    """EAGAIN."""


class NotPermittedError(BpfError, PermissionError):
    """EPERM, EACCES."""


class NotFoundError(BpfError, FileNotFoundError):
    """ENOENT."""


_CLASSES: Final[dict[int, type[BpfError]]] = {
    errno.EAGAIN: WouldBlockError,
    errno.EPERM: NotPermittedError,
    errno.EACCES: NotPermittedError,
    errno.ENOENT: NotFoundError,
}


def as_socket_error(call: Callable[P, T]) -> Callable[P, T]:
    """``call``, whose BpfErrors come out in the class that Python has for their errno."""

    @functools.wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except BpfError as e:
            kind = _CLASSES.get(e.errno or 0)
            if kind is None or type(e) is not BpfError:
                raise
            raise kind(e.errno or 0) from None

    return wrapped
