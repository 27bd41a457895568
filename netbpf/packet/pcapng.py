"""The pcapng file format, read and written.

Knows the block layout of draft-ietf-opsawg-pcapng: sections in either byte order, each with interfaces of its own, and
packets in enhanced, simple and obsolete packet blocks; blocks of any other type are passed over. Differs from libpcap,
which refuses a second interface of another link type or snaplen and a second section of another byte order: here they are
read. Where a block is broken, libpcap 1.10's judgement (``tcpdump -r``) is the rule.

    0      4              8                              total - 4
    | type | total length | body, padded to 4 bytes ...  | total length |

    enhanced packet block, body:
    8           12        16       20        24        28
    | interface | ts high | ts low | caplen  | wirelen | bytes, padded ... options
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import gcd
from typing import NamedTuple, NoReturn

from netbpf.errors import UsageError
from netbpf.ints import U64_MAX, round_up
from netbpf.packet.batch import PacketBatch
from netbpf.packet.capture import CaptureReader, max_caplen
from netbpf.packet.layout import InterfaceLayout, RecordLayout
from netbpf.packet.record import Record
from netbpf.packet.sink import WRITTEN_SNAPLEN, CaptureWriter, Target
from netbpf.packet.stream import ByteStream

SHB, IDB, OPB, SPB, EPB = 0x0A0D0D0A, 1, 2, 3, 6
BLOCK_NAMES = {
    SHB: "section header block",
    IDB: "interface description block",
    OPB: "obsolete packet block",
    SPB: "simple packet block",
    EPB: "enhanced packet block",
}
SHB_MAGIC = b"\x0a\x0d\x0d\x0a"
BYTE_ORDER_MAGIC = 0x1A2B3C4D
ORDER_OF_BYTES = {struct.pack(order + "I", BYTE_ORDER_MAGIC): order for order in "<>"}
VERSIONS = ((1, 0), (1, 2))  # 1.2 was written by mistake for 1.0
MIN_BLOCK_BYTES = 12
MIN_BODY_BYTES = {SHB: 16, IDB: 8, OPB: 20, SPB: 4, EPB: 20}
MAX_BLOCK_BYTES = 16 << 20
EPB_HEADER_BYTES = 28
NS_PER_S = 1_000_000_000

OPT_END, IF_TSRESOL, IF_TSOFFSET, EPB_FLAGS = 0, 9, 14, 2
DEFAULT_TSRESOL = 6


class Block(NamedTuple):
    """A block whole in the stream's window: its type, total length, and where its body starts and ends there."""

    type: int
    total_bytes: int
    body: int
    body_end: int


def ts_scale(tsresol: int) -> tuple[int, int]:
    """if_tsresol as ``(multiplier, divisor)`` from ticks to nanoseconds: bit 7 set, ticks of 2**-n s, else of 10**-n s.

    >>> ts_scale(6), ts_scale(9), ts_scale(12), ts_scale(0x80 | 10)
    ((1000, 1), (1, 1), (1, 1000), (1953125, 2))
    """
    ticks_per_s = 1 << (tsresol & 0x7F) if tsresol & 0x80 else int(10 ** (tsresol & 0x7F))
    common = gcd(NS_PER_S, ticks_per_s)
    return NS_PER_S // common, ticks_per_s // common


def ts_ns_of(ticks: int, layout: InterfaceLayout) -> int:
    """Nanoseconds since the epoch of an interface's ticks."""
    return ticks * layout.ts_multiplier // layout.ts_divisor + layout.ts_offset_ns


class PcapngReader(CaptureReader):
    """Reads a pcapng file from a stream that stands at its first byte; see :class:`CaptureReader`.

    ``Record.interface`` counts through all sections. A packet of a simple packet block has no time: its ``ts_ns`` is 0.
    """

    format = "pcapng"
    linktype = -1
    snaplen = 0

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self.interfaces: list[InterfaceLayout] = []  # of all sections so far
        self._first_interface = 0  # of the section at hand
        self._order = "<"
        if stream.fill(MIN_BLOCK_BYTES) < 4 or bytes(stream.buffer[stream.start : stream.start + 4]) != SHB_MAGIC:
            got = bytes(stream.buffer[stream.start : stream.start + 4]).hex() or "end of file"
            self._damaged("not a pcapng file", 0, "a section header block", got)
        self._read_up_to_first_interface()

    def _read_up_to_first_interface(self) -> None:
        while not self.interfaces and (block := self._next_block()) is not None:
            if block.type in (EPB, SPB, OPB):
                return
            self._pass(block)

    def layout(self) -> RecordLayout:
        section = self.interfaces[self._first_interface :]
        return RecordLayout(
            kind="pcapng",
            byteorder="little" if self._order == "<" else "big",
            header_bytes=EPB_HEADER_BYTES,
            max_caplen=max((i.snaplen for i in section), default=0),
            interfaces=tuple(section),
            first_interface=self._first_interface,
        )

    # -- blocks ----------------------------------------------------------------------------------------------------

    def _next_block(self) -> Block | None:
        """The block at the position, whole and with agreeing lengths, the position left before it; None at a proper end."""
        stream = self._stream
        have = stream.fill(8)
        if have < 8:
            if have:
                self._truncated("block header", 8, have)
            stream.raise_damage()
            return None
        kind, total = self._words(stream.start, 2)
        if kind == SHB:
            total = self._turn_section()
        name = BLOCK_NAMES.get(kind, f"block of type {kind:#x}")
        self._check_total(name, kind, total)
        have = stream.fill(total)
        if have < total:
            self._truncated(name, total, have)
        start = stream.start
        (trailer,) = self._words(start + total - 4, 1)
        if trailer != total and stream.offset:  # of the first block libpcap believes the first length
            self._damaged(f"{name} with two lengths", stream.offset + total - 4, f"{total} again", f"{trailer}")
        return Block(kind, total, start + 8, start + total - 4)

    def _turn_section(self) -> int:
        """Take the byte order of the section header block at the position; gives the block's total length in it."""
        stream = self._stream
        have = stream.fill(MIN_BLOCK_BYTES)
        if have < MIN_BLOCK_BYTES:
            self._truncated(BLOCK_NAMES[SHB], MIN_BLOCK_BYTES, have)
        magic = bytes(stream.buffer[stream.start + 8 : stream.start + 12])
        order = ORDER_OF_BYTES.get(magic)
        if order is None:
            self._damaged("section without a byte order", stream.offset + 8, "the byte-order magic 1a2b3c4d", magic.hex())
        self._order = order
        return self._words(stream.start + 4, 1)[0]

    def _check_total(self, name: str, kind: int, total: int) -> None:
        least = MIN_BLOCK_BYTES + MIN_BODY_BYTES.get(kind, 0)
        most = max([MAX_BLOCK_BYTES, *(max_caplen(i.linktype) + 131072 for i in self._section())])
        at = self._stream.offset + 4
        if total < least:
            self._damaged(f"{name} too short", at, f"at least {least} bytes", f"{total}")
        if total % 4:
            self._damaged(f"{name} of odd length", at, "a multiple of 4 bytes", f"{total}")
        if total > most:
            self._damaged(f"{name} too long", at, f"at most {most} bytes", f"{total}")

    def _pass(self, block: Block) -> None:
        """Learn what a block that holds no packet tells, and go behind it."""
        if block.type == SHB:
            self._enter_section(block)
        elif block.type == IDB:
            self._add_interface(block)
        self._stream.start += block.total_bytes

    def _enter_section(self, block: Block) -> None:
        major, minor = struct.unpack_from(self._order + "HH", self._stream.buffer, block.body + 4)
        if (major, minor) not in VERSIONS:
            self._damaged("unsupported pcapng version", self._stream.offset + 12, "1.0 or 1.2", f"{major}.{minor}")
        self._first_interface = len(self.interfaces)

    def _add_interface(self, block: Block) -> None:
        linktype, _reserved, snaplen = struct.unpack_from(self._order + "HHI", self._stream.buffer, block.body)
        tsresol, offset_s = DEFAULT_TSRESOL, 0
        for code, value in self._options(block.body + 8, block.body_end, strict=True):
            if code == IF_TSRESOL:
                tsresol = self._option_of_size("if_tsresol", value, 1)
            elif code == IF_TSOFFSET:
                offset_s = self._option_of_size("if_tsoffset", value, 8)
        multiplier, divisor = ts_scale(tsresol)
        limit = min(snaplen or U64_MAX, max_caplen(linktype))
        self.interfaces.append(InterfaceLayout(linktype, limit, multiplier, divisor, offset_s * NS_PER_S))
        if len(self.interfaces) == 1:
            self.linktype, self.snaplen = linktype, limit

    def _option_of_size(self, name: str, value: bytes, size: int) -> int:
        if len(value) != size:
            self._damaged(f"interface with a bad {name}", self._stream.offset, f"{size} bytes", f"{len(value)} bytes")
        return int.from_bytes(value, "little" if self._order == "<" else "big", signed=size > 1)

    def _options(self, at: int, end: int, *, strict: bool) -> Iterator[tuple[int, bytes]]:
        """Code and value of each option; a list that is not in order is a damage if ``strict``, else it ends there."""
        buffer = self._stream.buffer
        while at + 4 <= end:
            code, size = struct.unpack_from(self._order + "HH", buffer, at)
            after = at + 4 + round_up(size, 4)
            if after > end or (code == OPT_END and size):
                if strict:
                    wanted = "no bytes" if code == OPT_END else f"{size} bytes"
                    got = f"{size} bytes" if code == OPT_END else f"{end - at - 4} bytes"
                    self._damaged("bad option of an interface", self._stream.base + at, wanted, got)
                return
            if code == OPT_END:
                return
            yield code, bytes(buffer[at + 4 : at + 4 + size])
            at = after

    # -- packets ---------------------------------------------------------------------------------------------------

    def _walk(self) -> Iterator[Record]:
        stream = self._stream
        while True:
            yield from self._plain_records(bytes(stream.buffer))
            block = self._next_block()
            if block is None:
                return
            if block.type not in (EPB, SPB, OPB):
                self._pass(block)
                continue
            record = self._packet(block)
            stream.start += block.total_bytes
            self._number += 1
            yield record

    def _plain_records(self, buffer: bytes) -> Iterator[Record]:
        """Enhanced packet blocks of good shape, as long as they follow each other whole in the window."""
        stream, new, number = self._stream, tuple.__new__, self._number
        head, tail = struct.Struct(self._order + "7I").unpack_from, struct.Struct(self._order + "I").unpack_from
        section, base, start, end = self._section(), self._first_interface, stream.start, stream.end
        count = len(section)
        while start + EPB_HEADER_BYTES <= end:
            kind, total, interface, high, low, caplen, wirelen = head(buffer, start)
            data = start + 28
            options = data + ((caplen + 3) & ~3)
            start += total
            if kind != EPB or options + 4 > start or interface >= count or start > end or total & 3:
                return
            linktype, snaplen, multiplier, divisor, offset_ns = section[interface]
            if tail(buffer, start - 4)[0] != total or caplen > snaplen:
                return
            direction = 0 if options + 4 == start else self._direction(options, start - 4)
            stream.start = start
            self._number = number = number + 1
            ts_ns = (high << 32 | low) * multiplier // divisor + offset_ns
            yield new(Record, (number - 1, ts_ns, wirelen, buffer[data : data + caplen], linktype, base + interface, direction))

    def _walk_batch(self, max_packets: int, max_bytes: int) -> PacketBatch:
        stream = self._stream
        buffer, start, end = bytes(stream.buffer), stream.start, stream.end
        head, tail = struct.Struct(self._order + "7I").unpack_from, struct.Struct(self._order + "I").unpack_from
        section, base, linktype, room = self._section(), self._first_interface, -1, max_bytes
        count = len(section)
        rows: list[tuple[int, int, int, int, int, int]] = []
        while start + EPB_HEADER_BYTES <= end and len(rows) < max_packets:
            kind, total, interface, high, low, caplen, wirelen = head(buffer, start)
            data = start + 28
            options = data + ((caplen + 3) & ~3)
            after = start + total
            if kind != EPB or options + 4 > after or interface >= count or after > end or total & 3:
                break
            row = section[interface]
            room -= caplen
            if tail(buffer, after - 4)[0] != total or caplen > row[1] or (rows and (row[0] != linktype or room < 0)):
                break
            linktype, _snaplen, multiplier, divisor, offset_ns = row
            direction = 0 if options + 4 == after else self._direction(options, after - 4)
            ts_ns = ((high << 32 | low) * multiplier // divisor + offset_ns) & 0xFFFF_FFFF_FFFF_FFFF
            rows.append((data, caplen, wirelen, ts_ns, direction, base + interface))
            start = after
        stream.start = start
        batch = PacketBatch.from_rows(buffer, linktype, self._number, rows)
        self._number += len(rows)
        return batch

    def _packet(self, block: Block) -> Record:
        """The packet of a packet block, every length judged."""
        if block.type == SPB:
            return self._simple_packet(block)
        if block.type == EPB:
            interface, *words = self._words(block.body, 5)
        else:
            interface = struct.unpack_from(self._order + "H", self._stream.buffer, block.body)[0]
            words = list(self._words(block.body + 4, 4))
        high, low, caplen, wirelen = words
        row = self._interface(interface)
        self._check_caplen(block, row, caplen, block.body + 20)
        options = block.body + 20 + round_up(caplen, 4)
        return Record(
            self._number,
            ts_ns_of(high << 32 | low, row),
            wirelen,
            self._bytes(block.body + 20, caplen),
            row.linktype,
            self._first_interface + interface,
            self._direction(options, block.body_end),
        )

    def _simple_packet(self, block: Block) -> Record:
        (wirelen,) = self._words(block.body, 1)
        row = self._interface(0)
        caplen = min(wirelen, row.snaplen)
        self._check_caplen(block, row, caplen, block.body + 4)
        return Record(self._number, 0, wirelen, self._bytes(block.body + 4, caplen), row.linktype, self._first_interface)

    def _interface(self, index: int) -> InterfaceLayout:
        section = self._section()
        if index >= len(section):
            told = f"{len(section)} told of in this section"
            self._damaged(f"packet {self._number} of unknown interface {index}", self._stream.offset + 8, "an interface", told)
        return section[index]

    def _check_caplen(self, block: Block, row: InterfaceLayout, caplen: int, data: int) -> None:
        most, room = row.snaplen, block.body_end - data
        at = self._stream.offset
        if caplen > most:
            self._damaged(f"impossible length of packet {self._number}", at, f"at most {most} captured bytes", f"{caplen}")
        if caplen > room:
            self._damaged(f"packet {self._number} passes the end of its block", at, f"{caplen} bytes", f"{room} bytes")

    def _direction(self, options: int, end: int) -> int:
        """epb_flags' two low bits, 1 inbound and 2 outbound; 0 where it is not told."""
        for code, value in self._options(options, end, strict=False):
            if code == EPB_FLAGS and len(value) == 4:
                flags = int.from_bytes(value, "little" if self._order == "<" else "big")
                return (0, 1, 2, 0)[flags & 3]
        return 0

    def _section(self) -> list[InterfaceLayout]:
        return self.interfaces[self._first_interface :]

    def _words(self, at: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"{self._order}{count}I", self._stream.buffer, at)

    def _bytes(self, at: int, size: int) -> bytes:
        return bytes(self._stream.buffer[at : at + size])

    def _truncated(self, what: str, wanted: int, got: int) -> NoReturn:
        self._damaged(f"truncated {what}", self._stream.offset, f"{wanted} bytes", f"{got} bytes")


class PcapngWriter(CaptureWriter):
    """Writes a pcapng file of one section, times in nanoseconds; an interface for each (link type, interface number) met.

    The section header is there as soon as the writer is. Directions are kept as epb_flags. ``byteorder`` is "little" or "big".
    """

    kind = "pcapng"

    def __init__(self, target: Target, *, snaplen: int = WRITTEN_SNAPLEN, byteorder: str = "little") -> None:
        self.snaplen = snaplen
        self._order = "<" if byteorder == "little" else ">"
        self._interfaces: dict[tuple[int, int], int] = {}
        super().__init__(target, self._block(SHB, struct.pack(self._order + "IHHq", BYTE_ORDER_MAGIC, 1, 0, -1)))

    def write(self, record: Record, length: int | None = None) -> None:
        """Append a packet, cut to ``length`` bytes if given (a filter's verdict)."""
        if not 0 <= record.ts_ns <= U64_MAX:
            raise UsageError(f"pcapng holds times of 64 bits, not {record.ts_ns} ns since 1970")
        index = self.interface_number(record.linktype, record.interface)
        data = record.data[: self.snaplen if length is None else min(self.snaplen, max(length, 0))]
        words = (index, record.ts_ns >> 32, record.ts_ns & 0xFFFF_FFFF, len(data), record.wirelen)
        body = struct.pack(self._order + "5I", *words) + data + bytes(-len(data) % 4)
        if record.direction:
            body += struct.pack(self._order + "HHIHH", EPB_FLAGS, 4, record.direction, OPT_END, 0)
        self._append(self._block(EPB, body))

    def takes_raw(self, linktype: int) -> bool:
        return self._order == "<" and self.snaplen == WRITTEN_SNAPLEN

    def interface_number(self, linktype: int, interface: int) -> int:
        key = (linktype, interface)
        if key not in self._interfaces:
            self._write(self._describe(linktype))
            self._interfaces[key] = len(self._interfaces)
        return self._interfaces[key]

    def _describe(self, linktype: int) -> bytes:
        if not 0 <= linktype <= 0xFFFF:
            raise UsageError(f"pcapng holds link types 0 to 65535, not {linktype}")
        options = struct.pack(self._order + "HHBxxxHH", IF_TSRESOL, 1, 9, OPT_END, 0)
        return self._block(IDB, struct.pack(self._order + "HHI", linktype, 0, self.snaplen) + options)

    def _block(self, kind: int, body: bytes) -> bytes:
        total = len(body) + MIN_BLOCK_BYTES
        return struct.pack(self._order + "II", kind, total) + body + struct.pack(self._order + "I", total)
