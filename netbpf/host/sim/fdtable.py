"""A process's descriptors: numbers -> open files, lowest free number first. Knows objects only as things with references."""

from __future__ import annotations

import errno
import heapq
from typing import Final

from netbpf.errors import BpfError
from netbpf.host.sim.objects import KObject

MODE_READ: Final = 1
MODE_WRITE: Final = 2


class File:
    """An open file description: the object and how it was opened. Shared by the descriptors that dup made of it."""

    __slots__ = ("mode", "obj", "refs")

    def __init__(self, obj: KObject, mode: int = MODE_READ | MODE_WRITE) -> None:
        self.obj, self.mode, self.refs = obj, mode, 1
        obj.file_opened()

    def drop(self) -> None:
        """One descriptor fewer; the last one lets the object go."""
        self.refs -= 1
        if not self.refs:
            self.obj.file_closed()


class FdTable:
    """``limit`` is RLIMIT_NOFILE: numbers stay below it (EMFILE)."""

    def __init__(self, limit: int = 1024) -> None:
        self._files: dict[int, File] = {}
        self._freed: list[int] = []
        self._next = 0
        self.limit = limit

    def install(self, file: File) -> int:
        """The lowest free number, now ``file``'s. Raises BpfError(EMFILE), and the file is dropped."""
        fd = self._freed[0] if self._freed else self._next
        if fd >= self.limit:
            file.drop()
            raise BpfError(errno.EMFILE)
        if self._freed:
            heapq.heappop(self._freed)
        else:
            self._next += 1
        self._files[fd] = file
        return fd

    def find(self, fd: int) -> File | None:
        """The open file, if there is one."""
        return self._files.get(fd)

    def get(self, fd: int) -> File:
        """Raises BpfError(EBADF)."""
        file = self._files.get(fd)
        if file is None:
            raise BpfError(errno.EBADF)
        return file

    def close(self, fd: int) -> None:
        """Raises BpfError(EBADF)."""
        file = self._files.pop(fd, None)
        if file is None:
            raise BpfError(errno.EBADF)
        heapq.heappush(self._freed, fd)
        file.drop()

    def dup(self, fd: int) -> int:
        """Another number for the same open file. Raises BpfError(EBADF, EMFILE)."""
        file = self.get(fd)
        file.refs += 1
        return self.install(file)

    def fork(self) -> FdTable:
        """A copy whose numbers share the open files."""
        copy = FdTable(self.limit)
        copy._files, copy._freed, copy._next = dict(self._files), list(self._freed), self._next
        for file in copy._files.values():
            file.refs += 1
        return copy

    def close_all(self) -> None:
        for fd in sorted(self._files):
            self._files.pop(fd).drop()
        self._freed, self._next = [], 0

    def numbers(self) -> list[int]:
        """Open descriptors, lowest first."""
        return sorted(self._files)
