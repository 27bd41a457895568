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
    """EAGAIN, EINPROGRESS, EALREADY."""


class NotPermittedError(BpfError, PermissionError):
    """EPERM, EACCES."""


class NotFoundError(BpfError, FileNotFoundError):
    """ENOENT."""


class RefusedError(BpfError, ConnectionRefusedError):
    """ECONNREFUSED."""


class ResetError(BpfError, ConnectionResetError):
    """ECONNRESET."""


class AbortedError(BpfError, ConnectionAbortedError):
    """ECONNABORTED."""


class PipeError(BpfError, BrokenPipeError):
    """EPIPE."""


class ExpiredError(BpfError, TimeoutError):
    """ETIMEDOUT."""


_CLASSES: Final[dict[int, type[BpfError]]] = {
    errno.EAGAIN: WouldBlockError,
    errno.EPERM: NotPermittedError,
    errno.EACCES: NotPermittedError,
    errno.ENOENT: NotFoundError,
    errno.EINPROGRESS: WouldBlockError,
    errno.EALREADY: WouldBlockError,
    errno.ECONNREFUSED: RefusedError,
    errno.ECONNRESET: ResetError,
    errno.ECONNABORTED: AbortedError,
    errno.EPIPE: PipeError,
    errno.ETIMEDOUT: ExpiredError,
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
