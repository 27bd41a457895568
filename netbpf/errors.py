"""The exception tree: every error netbpf raises on purpose, and whose fault each one is.

Knows nothing of the rest of the package. Each class carries the exit code the command line gives it
(filtertest's convention: 64 usage, 65 filter refused, 66 savefile refused, 70 our fault, 71 operating
system, 74 I/O).
"""

from __future__ import annotations

import errno as _errno
import os
from typing import Any


class NetbpfError(Exception):
    """Base of every error that netbpf raises on purpose."""

    exit_code = 70


class UsageError(NetbpfError):
    """The caller's words are off: an option, a value, a combination."""

    exit_code = 64


class SourceError(NetbpfError):
    """The user's text (assembly, filter, scenario) is wrong at one place.

    ``line`` and ``column`` start at 1; ``source_line`` is the text of that line; ``width`` is how many
    columns the caret underlines. ``str()`` gives ``path:line:column: message`` and a caret below the line.
    """

    exit_code = 65

    def __init__(
        self, message: str, *, path: str = "<text>", line: int = 0, column: int = 0, source_line: str = "", width: int = 1
    ) -> None:
        self.message, self.path, self.line, self.column = message, path, line, column
        self.source_line, self.width = source_line, width
        super().__init__(self._render())

    def _render(self) -> str:
        if not self.line:
            return f"{self.path}: {self.message}"
        head = f"{self.path}:{self.line}:{max(self.column, 1)}: {self.message}"
        if not self.source_line:
            return head
        before = "".join("\t" if c == "\t" else " " for c in self.source_line[: max(self.column, 1) - 1])
        return f"{head}\n  {self.source_line}\n  {before}{'^' * max(self.width, 1)}"


class CaptureError(NetbpfError):
    """A capture is damaged: at ``offset`` bytes, ``wanted`` was needed and ``got`` was there."""

    exit_code = 66

    def __init__(self, message: str, *, path: str = "<capture>", offset: int = 0, wanted: str = "", got: str = "") -> None:
        self.message, self.path, self.offset, self.wanted, self.got = message, path, offset, wanted, got
        detail = f": wanted {wanted}, got {got}" if wanted or got else ""
        super().__init__(f"{path}: offset {offset}: {message}{detail}")


class BpfError(NetbpfError, OSError):
    """An errno from a call, simulated or real. ``errno`` is positive, as in :class:`OSError`."""

    exit_code = 71

    def __init__(self, errno: int, message: str = "") -> None:
        name = errno_name(errno)
        text = message or errno_text(errno)
        OSError.__init__(self, errno, text if name in text else f"{name}: {text}")

    def __str__(self) -> str:
        return str(self.args[1])


class ProgramRejected(BpfError):
    """BPF_PROG_LOAD refused the program. ``log`` is the verifier's text; ``diagnosis`` the same, structured."""

    exit_code = 65

    def __init__(self, errno: int, log: str = "", diagnosis: Any = None) -> None:
        self.log, self.diagnosis = log, diagnosis
        told = f": {self.reason}" if self.reason else ""
        super().__init__(errno, f"program rejected ({errno_name(errno)}){told}")

    @property
    def reason(self) -> str:
        """The log's last line that says why; empty where there is none."""
        statistics = ("processed ", "verification time ", "stack depth ")
        lines = [ln for ln in self.log.splitlines() if ln and not ln.startswith(statistics)]
        return lines[-1] if lines else ""


class EngineFault(NetbpfError):
    """A running program did what a verified one cannot: a netbpf bug unless the program was never verified.

    ``pc`` is the slot of the instruction, ``insn_text`` its disassembly.
    """

    def __init__(self, message: str, *, pc: int = -1, insn_text: str = "", address: int | None = None) -> None:
        self.message, self.pc, self.insn_text, self.address = message, pc, insn_text, address
        where = f"insn {pc}" + (f" ({insn_text})" if insn_text else "") + ": " if pc >= 0 else ""
        super().__init__(f"{where}{message}")


class InternalError(NetbpfError):
    """A bug of netbpf's own: please report it with the text shown."""


ENOTSUPP = 524  # the kernel's own, not in <errno.h>


def errno_name(errno: int) -> str:
    """``EINVAL`` for 22; the kernel-internal ``ENOTSUPP`` for 524."""
    return "ENOTSUPP" if errno == ENOTSUPP else _errno.errorcode.get(errno, str(errno))


def errno_text(errno: int) -> str:
    """The C library's words for an errno."""
    return "Operation is not supported" if errno == ENOTSUPP else os.strerror(errno)
