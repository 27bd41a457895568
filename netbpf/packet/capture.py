"""What every capture reader offers, whatever the file format: records, batches, windows, progress.

Knows byte streams and records. The formats themselves (``pcap``, ``pcapng``) fill in four methods; ``open`` picks one.

Three ways to read, all sharing one position, so that they may follow each other:

- iterating gives a :class:`Record` a packet;
- ``batches()`` gives a :class:`PacketBatch` (columns over one piece of the file) every few thousand packets;
- ``windows()`` gives the raw bytes with a :class:`RecordLayout`, for a native loop that walks the records itself.

Whatever the way, every packet before a damage is delivered, then one :class:`CaptureError` is raised.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from mmap import mmap
from types import TracebackType
from typing import NoReturn, Protocol, Self

from netbpf.errors import CaptureError
from netbpf.packet.batch import PacketBatch
from netbpf.packet.layout import MAX_CAPLEN, RecordLayout
from netbpf.packet.record import Record
from netbpf.packet.stream import PIECE_BYTES, ByteStream, MappedStream

MAX_CAPLEN_OF_LINKTYPE = {231: 128 << 20, 249: 128 << 20, 279: 8 << 20}  # DBUS, USBPCAP, EBHSCR carry long messages
BATCH_PACKETS = 16384
MIN_RECORD_BYTES = 16
SLOW_STEPS = 64


def max_caplen(linktype: int) -> int:
    """The longest captured length that libpcap believes for this link type, in bytes."""
    return MAX_CAPLEN_OF_LINKTYPE.get(linktype, MAX_CAPLEN)


class Walkable(Protocol):
    """What a native loop walks: a window of a capture, a block of a ring."""

    start: int
    end: int
    layout: RecordLayout
    first_number: int

    @property
    def buffer(self) -> bytes | bytearray | memoryview | mmap: ...

    def advance(self, size_bytes: int, records: int) -> None: ...


class Window:
    """A piece of the capture to be walked from ``buffer[start]``, ``end`` being where it ends; the first record is
    number ``first_number``. Say with ``advance`` how much was walked; records that are cut by ``end`` come whole in the
    next window. No view of ``buffer`` may outlive the step."""

    __slots__ = ("buffer", "start", "end", "layout", "first_number", "_reader")

    def __init__(self, reader: CaptureReader, stream: ByteStream) -> None:
        self.buffer, self.start, self.end = stream.buffer, stream.start, stream.end
        self.layout, self.first_number = reader.layout(), reader.packets + 1
        self._reader = reader

    def advance(self, size_bytes: int, records: int) -> None:
        """``records`` whole records, ``size_bytes`` together, were walked; the next walk begins behind them."""
        if not 0 <= size_bytes <= self.end - self.start:
            raise ValueError(f"a walk of {size_bytes} bytes in a window of {self.end - self.start}")
        self.start += size_bytes
        self.first_number += records
        self._reader.advance(size_bytes, records)


class CaptureReader(ABC):
    """A capture open for reading; a context manager and an iterator of records.

    ``format`` names the file format; ``linktype`` and ``snaplen`` are those of the first interface (linktype -1 while a
    pcapng file has told of none).
    """

    format: str
    linktype: int
    snaplen: int

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._number = 1  # of the next packet

    # -- what a format fills in ------------------------------------------------------------------------------------

    @abstractmethod
    def _walk(self) -> Iterator[Record]:
        """Records from the stream's position on; ``_number`` and the position are true before each yield."""

    @abstractmethod
    def _walk_batch(self, max_packets: int, max_bytes: int) -> PacketBatch:
        """The next batch from the window at hand; empty when the next record is not whole in it or not a plain one."""

    @abstractmethod
    def layout(self) -> RecordLayout:
        """How records look from the stream's position on; it may change from window to window (pcapng)."""

    # -- what users call -------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        return self._stream.path

    @property
    def offset(self) -> int:
        """Bytes of the capture consumed, counted after decompression."""
        return self._stream.offset

    @property
    def packets(self) -> int:
        """Packets delivered so far."""
        return self._number - 1

    @property
    def mapped(self) -> MappedStream | None:
        """The stream, where it maps a regular file: others may map and walk the same file beside this reader."""
        return self._stream if isinstance(self._stream, MappedStream) else None

    def progress(self) -> tuple[int, int | None]:
        """Bytes of the file behind us, and its size where it is a regular file."""
        return self._stream.taken, self._stream.total_bytes

    def __iter__(self) -> Iterator[Record]:
        """Records from the present position on. Of several iterators only the newest may be used."""
        return self._walk()

    def batches(self, max_packets: int = BATCH_PACKETS, max_bytes: int = PIECE_BYTES) -> Iterator[PacketBatch]:
        """Batches of at most ``max_packets`` packets and (but for one packet alone) ``max_bytes`` captured bytes, each of
        one link type."""
        while (batch := self._next_batch(max_packets, max_bytes)) is not None:
            yield batch

    def windows(self) -> Iterator[Window | PacketBatch]:
        """Windows for a native loop; where it stops before a record that it may not walk, batches of what comes there."""
        at_hand = self._stream.available >= MIN_RECORD_BYTES  # what a pipe has given is walked before more is waited for
        while True:
            if not at_hand:
                self._stream.fill_window()
            at_hand = False
            before = self._stream.start
            yield Window(self, self._stream)
            if self._stream.start != before:
                continue
            for _ in range(SLOW_STEPS):  # several, so that a file of odd records does not move the window for each
                batch = self._next_batch(BATCH_PACKETS, PIECE_BYTES)
                if batch is None:
                    return
                yield batch
                if self._stream.available < MIN_RECORD_BYTES:
                    break

    def advance(self, size_bytes: int, records: int) -> None:
        """Go on by records that somebody else has walked; see :meth:`Window.advance`."""
        self._stream.start += size_bytes
        self._number += records

    def close(self) -> None:
        """Close the file, if it was opened by its path."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- what formats share ----------------------------------------------------------------------------------------

    def _next_batch(self, max_packets: int, max_bytes: int) -> PacketBatch | None:
        batch = self._walk_batch(max_packets, max_bytes)
        if len(batch):
            return batch
        record = next(self._walk(), None)  # refills the window, and judges what is not plain
        return None if record is None else PacketBatch.from_records([record])

    def _damaged(self, message: str, offset: int, wanted: str, got: str) -> NoReturn:
        self._stream.raise_damage()
        raise CaptureError(message, path=self.path, offset=offset, wanted=wanted, got=got)
