"""The blocks of a TPACKET_V3 ring: where what lies in them, and a block as records, for who walks it in Python.

linux/if_packet.h, as bytes in the machine's order (little endian is what engines and this file assume):

    struct tpacket_block_desc { u32 version, offset_to_priv; u32 block_status, num_pkts, offset_to_first_pkt, blk_len;
                                u64 seq_num; struct { u32 sec, nsec; } first, last; }
    struct tpacket3_hdr { u32 next_offset, sec, nsec, snaplen, len, status; u16 mac, net;
                          u32 rxhash, vlan_tci; u16 vlan_tpid, padding; u8 padding[8]; }        // 48 bytes
    struct sockaddr_ll { u16 family; be16 protocol; i32 ifindex; u16 hatype; u8 pkttype, halen; u8 addr[8]; }   // behind it

Knows bytes only; the memory is mapped by ``host.linux.packet_ring``.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from netbpf.packet.layout import InterfaceLayout, RecordLayout
from netbpf.packet.socket_skb import Auxdata, LinkAddress

TP_STATUS_KERNEL, TP_STATUS_USER = 0, 1
BLOCK_STATUS: Final = 8
_BLOCK = Struct("<III")  # at 8: block_status, num_pkts, offset_to_first_pkt
_HEADER = Struct("<IIIIIIHHIIHH8x")
_ADDRESS = Struct("<H2siHBB8s")
HEADER_BYTES: Final = _HEADER.size
BLOCK_LENGTH: Final = 20
RESERVE_BYTES: Final = 16  # room before each packet, for the VLAN tag that a native loop puts back
TAG_PUT_BACK: Final = 1 << 20  # a status bit of ours: the tag is in the frame again

# offsets that a native loop reads
OFF_NEXT, OFF_SEC, OFF_NSEC, OFF_SNAPLEN, OFF_LEN, OFF_STATUS, OFF_MAC, OFF_NET = 0, 4, 8, 12, 16, 20, 24, 26
OFF_VLAN_TCI, OFF_VLAN_TPID = 32, 36
OFF_PROTOCOL, OFF_IFINDEX, OFF_PKTTYPE = HEADER_BYTES + 2, HEADER_BYTES + 4, HEADER_BYTES + 10


def ring_layout(max_caplen: int, clock_offset_ns: int) -> RecordLayout:
    """The layout of a block for ``WindowWalker.walk``. ``clock_offset_ns`` is what a packet's timestamp lacks to be
    CLOCK_MONOTONIC, the clock of programs."""
    return RecordLayout("ring", "little", HEADER_BYTES, max_caplen, (InterfaceLayout(1, max_caplen, 1, 1, clock_offset_ns),))


class Block(NamedTuple):
    """A block's header: whether it is ours to read, how many packets, where the first one is."""

    status: int
    packets: int
    first: int

    @classmethod
    def parse(cls, buffer: memoryview, at: int) -> Block:
        return cls(*_BLOCK.unpack_from(buffer, at + BLOCK_STATUS))


class RingPacket(NamedTuple):
    """A packet of a block: the bytes kept, the facts a socket would tell beside them, the time in ns since the epoch."""

    data: bytes
    aux: Auxdata
    address: LinkAddress
    ts_ns: int


def ring_packets(buffer: memoryview, start: int, count: int) -> Iterator[RingPacket]:
    """``count`` packets from the one whose header is at ``start``."""
    at = start
    for _ in range(count):
        following, sec, nsec, snaplen, length, status, mac, net, _, tci, tpid, _ = _HEADER.unpack_from(buffer, at)
        _, protocol, ifindex, hatype, pkt_type, _, _ = _ADDRESS.unpack_from(buffer, at + HEADER_BYTES)
        data = bytes(buffer[at + mac : at + mac + snaplen])
        aux = Auxdata(status, length, snaplen, 0, net - mac, tci, tpid)
        yield RingPacket(data, aux, LinkAddress(ifindex, int.from_bytes(protocol), pkt_type, hatype), sec * 10**9 + nsec)
        at += following
