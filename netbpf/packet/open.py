"""The one way to open a capture: whatever file, compression and format it is, a reader comes back.

Knows the formats' magics and nothing else of them.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from netbpf.errors import CaptureError, UsageError
from netbpf.packet.capture import CaptureReader
from netbpf.packet.pcap import MAGIC_OF_BYTES, PcapReader, PcapWriter
from netbpf.packet.pcapng import SHB_MAGIC, PcapngReader, PcapngWriter
from netbpf.packet.sink import CaptureWriter, Target
from netbpf.packet.stream import ByteStream, open_stream


def open_capture(source: str | os.PathLike[str] | BinaryIO) -> CaptureReader:
    """Open a pcap or pcapng capture, gzip-compressed or not: a path, a binary file object, or ``"-"`` for standard input.

    Raises CaptureError where the file is none or its header is damaged, OSError where it cannot be opened. A file object
    is left open; what was opened here is closed by the reader's ``close``.
    """
    stream = open_stream(source)
    try:
        return _reader_of(stream)
    except BaseException:
        stream.close()
        raise


def _reader_of(stream: ByteStream) -> CaptureReader:
    have = stream.fill(4)
    magic = bytes(stream.buffer[stream.start : stream.start + 4])
    if magic == SHB_MAGIC:
        return PcapngReader(stream)
    if magic in MAGIC_OF_BYTES:
        return PcapReader(stream)
    stream.raise_damage()
    message = "unknown file format" if have >= 4 else "truncated capture file"
    got = magic.hex() if have >= 4 else f"{have} bytes"
    raise CaptureError(message, path=stream.path, offset=0, wanted="the magic number of a pcap or pcapng file", got=got)


def create_capture(target: Target, linktype: int = 1, *, format: str = "", nanosecond: bool = True) -> CaptureWriter:
    """A writer for a path, a binary file object or ``"-"``. ``format`` is "pcap" or "pcapng"; empty, the suffix
    ``.pcapng`` tells, and all else is pcap. A pcap file holds ``linktype`` only."""
    name = os.fspath(target) if isinstance(target, str | os.PathLike) else ""
    chosen = format or ("pcapng" if name.endswith(".pcapng") else "pcap")
    if chosen == "pcapng":
        return PcapngWriter(target)
    if chosen == "pcap":
        return PcapWriter(target, linktype, nanosecond=nanosecond)
    raise UsageError(f"a capture is written as pcap or pcapng, not {format!r}")
