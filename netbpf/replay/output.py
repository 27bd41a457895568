"""-w: the accepted packets of every capture in one file, each cut as its verdict says.

A packet is stored as a packet socket's reader would store it: the capture's own link type, a VLAN tag that the kernel moved
out of the data back in line. Knows verdicts and capture writers.
"""

from __future__ import annotations

from types import TracebackType

from netbpf.engine.results import Verdicts
from netbpf.packet.batch import PacketBatch
from netbpf.packet.capture import CaptureReader
from netbpf.packet.open import create_capture
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.sink import CaptureWriter


class CaptureOutput:
    """A file of accepted packets, opened when the first capture's link type is known. A context manager. ``view`` is who
    judged them (``packet.receive``)."""

    def __init__(self, path: str, view: str = "packet_raw") -> None:
        self.path, self.view = path, view
        self.writer: CaptureWriter | None = None

    def begin(self, reader: CaptureReader) -> None:
        """Packets of this capture come next."""
        if self.writer is None:
            self.writer = create_capture(self.path, max(reader.linktype, 0))

    def write(self, batch: PacketBatch, verdicts: Verdicts) -> None:
        """Append what the verdicts accept. UsageError where the file can't hold the link type."""
        writer = self.writer
        if writer is None:
            raise ValueError("begin() comes before write()")
        for i, kept in enumerate(verdicts.kept):
            if kept:
                record = batch.record(i)
                writer.write(record, stored_length(record, kept, self.view))

    def __enter__(self) -> CaptureOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.writer is not None:
            self.writer.close()


def stored_length(record: Record, kept: int, view: str = "packet_raw") -> int:
    """How many bytes of a captured record hold the first ``kept`` bytes of its sk_buff: the link header of the capture and
    that of the sk_buff differ by a VLAN tag, or by what was made up for a cooked capture."""
    skb = receive(record, view=view)
    if skb is None or kept >= skb.len:
        return len(record.data)
    return max(0, kept + len(record.data) - len(skb.head))
