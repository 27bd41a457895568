"""Where a written capture goes: a path, a binary file object or standard output. Knows no format.

A file never holds half a header or half a record by our doing: each is handed to the file in one piece.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, BinaryIO, Self

from netbpf.errors import UsageError
from netbpf.packet.record import Record

WRITTEN_SNAPLEN = 262144  # libpcap's MAXIMUM_SNAPLEN: what a written file claims, and what longer packets are cut to

Target = str | os.PathLike[str] | BinaryIO


class CaptureWriter(ABC):
    """A capture open for writing, a context manager. A path is truncated; a file object is flushed and left open at the
    end; ``"-"`` is standard output.

    Whoever makes whole records elsewhere (a native loop) appends them as they are: ``kind`` is "pcap" or "pcapng",
    ``unit_ns`` what a pcap's fraction counts; ``takes_raw`` tells whether they may be made for packets of a link type.
    """

    kind: str
    unit_ns = 1

    def __init__(self, target: Target, header: bytes) -> None:
        self.packets = 0
        self._file, self._owned = _open_target(target)
        self._write: Any = self._file.write
        self._write(header)
        self._file.flush()

    @abstractmethod
    def write(self, record: Record, length: int | None = None) -> None:
        """Append a packet, cut to ``length`` bytes if given."""

    @abstractmethod
    def takes_raw(self, linktype: int) -> bool:
        """Whether records in the standard layout, little-endian and WRITTEN_SNAPLEN long at most, fit this file."""

    def append_raw(self, records: memoryview, packets: int) -> None:
        """Append whole records as they are."""
        self._write(records)
        self.packets += packets

    def interface_number(self, linktype: int, interface: int) -> int:
        """The file's number for a capture's interface, described in the file from now on."""
        return 0

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Flush, and close what was opened by its path."""
        if self._owned:
            self._file.close()
        else:
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _append(self, packet: bytes) -> None:
        self._write(packet)
        self.packets += 1


def _open_target(target: Target) -> tuple[Any, bool]:
    if isinstance(target, str) and target == "-":
        return sys.stdout.buffer, False
    if isinstance(target, str | os.PathLike):
        return open(target, "wb"), True
    if not hasattr(target, "write"):
        raise UsageError(f"a capture is written to a path, a binary file object or '-', not {type(target).__name__}")
    return target, False
