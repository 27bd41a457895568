"""The pcap file format, read and written.

Knows the byte layout of pcap files in every magic known to be in use; the draft "PCAP Capture File Format"
(draft-ietf-opsawg-pcap) describes the standard ones. Where files in the field stray from it, the rule is what libpcap 1.10
does, observed through ``tcpdump -r``. Knows no link type but for its length limit.

The file header, in the writer's byte order, which the magic tells (link type in the low 16 bits of the last word, length of
a frame check sequence in the high ones), and the header of each record:

    0        4     6     8          12        16        20          24
    | magic  |major|minor| thiszone | sigfigs | snaplen | link type |

    0         4          8         12         16
    | seconds | fraction | caplen  | wirelen  | caplen bytes ...
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from netbpf.errors import CaptureError, UsageError
from netbpf.packet.batch import PacketBatch
from netbpf.packet.capture import CaptureReader, max_caplen
from netbpf.packet.layout import InterfaceLayout, RecordLayout
from netbpf.packet.record import Record
from netbpf.packet.sink import WRITTEN_SNAPLEN, CaptureWriter, Target
from netbpf.packet.stream import ByteStream

FILE_HEADER_BYTES = 24
MAX_SNAPLEN = WRITTEN_SNAPLEN  # also how a file that claims no sensible limit is read
INT_MAX = 0x7FFF_FFFF
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class PcapMagic:
    """One magic number: unit of the fraction, size of a record header, bytes between file header and first record."""

    value: int
    name: str
    fraction_ns: int = 1000
    record_header_bytes: int = 16
    extra_file_header_bytes: int = 0


MICROSECONDS = PcapMagic(0xA1B2C3D4, "pcap")
NANOSECONDS = PcapMagic(0xA1B23C4D, "nanosecond pcap", fraction_ns=1)
MODIFIED = PcapMagic(0xA1B2CD34, "modified pcap", record_header_bytes=24)  # Kuznetzov's: interface, protocol, packet type added
IXIA_HARDWARE = PcapMagic(0x1C0001AC, "Ixia lcap (hardware)", fraction_ns=1, extra_file_header_bytes=4)
IXIA_SOFTWARE = PcapMagic(0x1C0001AB, "Ixia lcap (software)", extra_file_header_bytes=4)
PCAP_MAGICS = (MICROSECONDS, NANOSECONDS, MODIFIED, IXIA_HARDWARE, IXIA_SOFTWARE)
MAGIC_OF_BYTES: dict[bytes, tuple[str, PcapMagic]] = {
    struct.pack(order + "I", magic.value): (order, magic) for magic in PCAP_MAGICS for order in "<>"
}


@dataclass(frozen=True, slots=True)
class PcapHeader:
    """The file header as it is to be used: ``snaplen`` is the effective limit, ``order`` struct's "<" or ">",
    ``fcs_bytes`` how many bytes of frame check sequence end each packet (None: not told). ``lengths`` tells how caplen and
    wirelen stand in a record: "plain", "exchanged", or "sorted" (files of version 2.3 came both ways, the lesser is caplen)."""

    magic: PcapMagic
    order: str
    version: tuple[int, int]
    snaplen: int
    linktype: int
    fcs_bytes: int | None = None
    lengths: str = "plain"


def decode_pcap_header(data: bytes, path: str = "<capture>") -> PcapHeader:
    """The header in the first 24 bytes. CaptureError: no pcap magic, a version nobody reads, or too few bytes."""
    found = MAGIC_OF_BYTES.get(data[:4])
    if found is None:
        got = data[:4].hex() or "end of file"
        raise CaptureError("not a pcap file", path=path, offset=0, wanted="a pcap magic number", got=got)
    if len(data) < FILE_HEADER_BYTES:
        raise CaptureError(
            "truncated file header", path=path, offset=0, wanted=f"{FILE_HEADER_BYTES} bytes", got=f"{len(data)} bytes"
        )
    order, magic = found
    major, minor, _zone, _sigfigs, snaplen, word = struct.unpack_from(order + "HHIIII", data, 4)
    linktype = word & 0xFFFF
    if not 0 < snaplen <= INT_MAX:
        snaplen = max(MAX_SNAPLEN, max_caplen(linktype))
    if magic is MODIFIED and linktype == 1:
        snaplen += 14  # such a kernel put its own Ethernet header before the snapshot
    fcs_bytes = word >> 28 << 1 if word & 0x0400_0000 else None  # told in 16-bit words
    return PcapHeader(magic, order, (major, minor), snaplen, linktype, fcs_bytes, _lengths_rule(major, minor, path))


def _lengths_rule(major: int, minor: int, path: str) -> str:
    if (major, minor) == (2, 4):
        return "plain"
    if (major, minor) == (2, 3):
        return "sorted"
    if (major, minor) == (543, 0) or (major == 2 and minor < 3):  # 543.0: DG/UX tcpdump
        return "exchanged"
    raise CaptureError("unsupported pcap version", path=path, offset=4, wanted="2.0 to 2.4", got=f"{major}.{minor}")


class PcapReader(CaptureReader):
    """Reads a pcap file from a stream that stands at its first byte; see :class:`CaptureReader`.

    A record longer than the file's snaplen is delivered cut to it; one that claims more than any packet of its link type
    can have (262144 bytes for most) is a damage.
    """

    format = "pcap"

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        have = stream.fill(FILE_HEADER_BYTES)
        head = bytes(stream.buffer[stream.start : stream.start + FILE_HEADER_BYTES])
        self.header = header = decode_pcap_header(head, stream.path)
        whole = FILE_HEADER_BYTES + header.magic.extra_file_header_bytes
        if have < whole and stream.fill(whole) < whole:
            self._damaged("truncated file header", 0, f"{whole} bytes", f"{stream.available} bytes")
        stream.start += whole
        self.linktype, self.snaplen = header.linktype, header.snaplen
        self._max_caplen = max_caplen(header.linktype)
        self._unpack = struct.Struct(header.order + "IIII").unpack_from

    def layout(self) -> RecordLayout:
        header = self.header
        return RecordLayout(
            kind="pcap",
            byteorder="little" if header.order == "<" else "big",
            header_bytes=header.magic.record_header_bytes,
            max_caplen=0 if header.lengths == "sorted" else self._max_caplen,
            interfaces=(InterfaceLayout(header.linktype, header.snaplen, header.magic.fraction_ns),),
            wirelen_first=header.lengths == "exchanged",
        )

    def _walk(self) -> Iterator[Record]:
        stream, unpack, new = self._stream, self._unpack, tuple.__new__
        header_bytes, unit = self.header.magic.record_header_bytes, self.header.magic.fraction_ns
        limit = self._plain_limit()
        linktype, number = self.linktype, self._number
        while True:
            buffer, start, last = bytes(stream.buffer), stream.start, stream.end - header_bytes
            while start <= last:
                seconds, fraction, caplen, wirelen = unpack(buffer, start)
                data = start + header_bytes
                start = data + caplen
                if caplen > limit or start > stream.end:
                    break
                stream.start = start
                self._number = number = number + 1
                ts_ns = seconds * 1_000_000_000 + fraction * unit
                yield new(Record, (number - 1, ts_ns, wirelen, buffer[data:start], linktype, 0, 0))
            record = self._careful_record()
            if record is None:
                return
            number = self._number
            yield record

    def _plain_limit(self) -> int:
        """Captured lengths up to this need no look at the header's oddities; -1 where every record does."""
        return min(self._max_caplen, self.snaplen) if self.header.lengths == "plain" else -1

    def _careful_record(self) -> Record | None:
        """The next record, every oddity judged and the window refilled as needed; None at a proper end."""
        stream, header_bytes = self._stream, self.header.magic.record_header_bytes
        have = stream.fill(header_bytes)
        if have < header_bytes:
            if have:
                self._truncated("header", header_bytes, have)
            stream.raise_damage()
            return None
        seconds, fraction, caplen, wirelen = self._unpack(stream.buffer, stream.start)
        if self.header.lengths == "exchanged" or (self.header.lengths == "sorted" and caplen > wirelen):
            caplen, wirelen = wirelen, caplen
        if caplen > self._max_caplen:
            wanted = f"at most {self._max_caplen} captured bytes"
            self._damaged(f"impossible length of packet {self._number}", stream.offset + 8, wanted, f"{caplen}")
        return Record(self._number, self._ts_ns(seconds, fraction), wirelen, self._take(header_bytes, caplen), self.linktype)

    def _take(self, header_bytes: int, caplen: int) -> bytes:
        """The bytes of the record at hand up to the snaplen, the position moved behind it."""
        stream = self._stream
        have = stream.fill(header_bytes + caplen) - header_bytes
        if have < caplen:
            stream.start += header_bytes
            self._truncated("bytes", caplen, have)
        data = stream.start + header_bytes
        stream.start = data + caplen
        self._number += 1
        return bytes(stream.buffer[data : data + min(caplen, self.snaplen)])

    def _ts_ns(self, seconds: int, fraction: int) -> int:
        return seconds * NS_PER_S + fraction * self.header.magic.fraction_ns

    def _truncated(self, what: str, wanted: int, got: int) -> NoReturn:
        self._damaged(f"truncated {what} of packet {self._number}", self._stream.offset, f"{wanted} bytes", f"{got} bytes")

    def _walk_batch(self, max_packets: int, max_bytes: int) -> PacketBatch:
        stream, unpack, limit = self._stream, self._unpack, self._plain_limit()
        header_bytes, unit = self.header.magic.record_header_bytes, self.header.magic.fraction_ns
        buffer, start, end = bytes(stream.buffer), stream.start, stream.end
        room, last = max_bytes, end - header_bytes
        rows: list[tuple[int, int, int, int, int, int]] = []
        while start <= last and len(rows) < max_packets:
            seconds, fraction, caplen, wirelen = unpack(buffer, start)
            data = start + header_bytes
            after = data + caplen
            room -= caplen
            if caplen > limit or after > end or (room < 0 and rows):
                break
            rows.append((data, caplen, wirelen, seconds * 1_000_000_000 + fraction * unit, 0, 0))
            start = after
        stream.start = start
        batch = PacketBatch.from_rows(buffer, self.linktype, self._number, rows)
        self._number += len(rows)
        return batch


class PcapWriter(CaptureWriter):
    """Writes a pcap file of one link type; the header is there as soon as the writer is.

    ``snaplen`` is what the header claims, and longer packets are cut to it. Timestamps are cut to microseconds unless
    ``nanosecond``. ``byteorder`` is "little" or "big".
    """

    kind = "pcap"

    def __init__(
        self,
        target: Target,
        linktype: int = 1,
        *,
        snaplen: int = MAX_SNAPLEN,
        nanosecond: bool = False,
        byteorder: str = "little",
    ) -> None:
        if not 0 <= linktype <= 0xFFFF or not 0 < snaplen <= INT_MAX:
            raise UsageError(f"pcap holds link types 0 to 65535 and snaplens 1 to {INT_MAX}, not {linktype} and {snaplen}")
        order = "<" if byteorder == "little" else ">"
        magic = NANOSECONDS if nanosecond else MICROSECONDS
        self.linktype, self.snaplen, self.unit_ns = linktype, snaplen, magic.fraction_ns
        self._is_standard = order == "<" and snaplen == WRITTEN_SNAPLEN
        self._pack = struct.Struct(order + "IIII").pack
        super().__init__(target, struct.pack(order + "IHHIIII", magic.value, 2, 4, 0, 0, snaplen, linktype))

    def write(self, record: Record, length: int | None = None) -> None:
        """Append a packet, cut to ``length`` bytes if given (a filter's verdict)."""
        if record.linktype != self.linktype:
            told = f"{self.linktype} here; the packet has {record.linktype}"
            raise UsageError(f"a pcap file has one link type, {told} (pcapng holds several)")
        seconds, ns = divmod(record.ts_ns, NS_PER_S)
        if not 0 <= seconds <= 0xFFFF_FFFF:
            raise UsageError(f"pcap holds times from 1970 to 2106, not {seconds} seconds since 1970")
        data = record.data[: self.snaplen if length is None else min(self.snaplen, max(length, 0))]
        self._append(self._pack(seconds, ns // self.unit_ns, len(data), record.wirelen) + data)

    def takes_raw(self, linktype: int) -> bool:
        return self._is_standard and linktype == self.linktype
