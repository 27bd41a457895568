"""IPv4, IPv6, UDP and TCP headers: bytes <-> values, checksums, fragments. Pure functions of bytes (RFC 791, 8200,
768, 9293, 1071).

Addresses are their 4 or 16 bytes in network order. Knows no socket and no device.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from netbpf.abi.net import ETH_P_IP, ETH_P_IPV6

IPV4_HLEN: Final = 20
IPV6_HLEN: Final = 40
UDP_HLEN: Final = 8
TCP_HLEN: Final = 20
FRAGMENT_HLEN: Final = 8
IP_DF: Final = 0x4000
IP_MF: Final = 0x2000
IP_OFFSET_MASK: Final = 0x1FFF
IP_MAX_BYTES: Final = 65535
MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, IPv4 inside IPv6
DEFAULT_TTL: Final = 64
SOURCE_ROUTES: Final = frozenset({131, 137})  # options of IPv4: loose and strict

_IPV4 = Struct(">BBHHHBBH4s4s")
_IPV6 = Struct(">IHBB16s16s")
_UDP = Struct(">HHHH")
_TCP = Struct(">HHIIBBHHH")


# --- checksums ------------------------------------------------------------------------------------------------------------
def ones_sum(data: bytes, start: int = 0) -> int:
    """The 16-bit one's complement sum of ``data`` as big-endian words, an odd byte padded by zero."""
    if len(data) & 1:
        data += b"\0"
    # 2**16 is 1 modulo 2**16 - 1: one big number's remainder is the sum of its words
    total = int.from_bytes(data) + start
    rest = total % 0xFFFF
    return 0xFFFF if total and not rest else rest


def checksum(data: bytes, start: int = 0) -> int:
    """The internet checksum to write into a field that is zero in ``data``; 0 over data that carries a right one."""
    return ones_sum(data, start) ^ 0xFFFF


def pseudo_sum(source: bytes, target: bytes, protocol: int, length: int) -> int:
    """The sum of the pseudo header that UDP, TCP and ICMPv6 checksums begin with."""
    return ones_sum(source + target, protocol + length)


# --- IP -------------------------------------------------------------------------------------------------------------------
class Ipv4(NamedTuple):
    """An IPv4 header without its options. ``fragment`` is the word of flags and offset, ``length`` the total length."""

    hlen: int
    tos: int
    length: int
    ident: int
    fragment: int
    ttl: int
    protocol: int
    source: bytes
    target: bytes


def parse_ipv4(data: bytes, at: int) -> Ipv4 | None:
    """The header at ``at``; None where it is damaged: too short, another version, a wrong checksum, lengths that cannot be."""
    if len(data) < at + IPV4_HLEN:
        return None
    first, tos, length, ident, fragment, ttl, protocol, _, source, target = _IPV4.unpack_from(data, at)
    hlen = (first & 15) * 4
    if first >> 4 != 4 or hlen < IPV4_HLEN or len(data) < at + hlen or checksum(data[at : at + hlen]):
        return None
    if length > len(data) - at or length < hlen:
        return None
    return Ipv4(hlen, tos, length, ident, fragment, ttl, protocol, source, target)


def build_ipv4(
    source: bytes, target: bytes, protocol: int, payload: bytes, *, ident: int = 0, fragment: int = IP_DF, ttl: int = DEFAULT_TTL,
    tos: int = 0, options: bytes = b"",
) -> bytes:  # fmt: skip
    """A packet with its header checksum. ``options`` are whole words."""
    hlen = IPV4_HLEN + len(options)
    head = _IPV4.pack(0x40 | hlen // 4, tos, hlen + len(payload), ident & 0xFFFF, fragment, ttl, protocol, 0, source, target)
    return seal_ipv4(head + options + payload)


def seal_ipv4(packet: bytes) -> bytes:
    """``packet`` with the right checksum in its header."""
    hlen = (packet[0] & 15) * 4
    bare = packet[:10] + bytes(2) + packet[12:hlen]
    return packet[:10] + checksum(bare).to_bytes(2) + packet[12:]


def are_ipv4_options_sound(options: bytes) -> bool:
    """Whether a host takes them: every length inside the header, and no source route, which hosts refuse by default."""
    at = 0
    while at < len(options):
        kind = options[at]
        if kind == 0:
            return True
        if kind == 1:
            at += 1
            continue
        if at + 1 >= len(options) or options[at + 1] < 2 or at + options[at + 1] > len(options) or kind in SOURCE_ROUTES:
            return False
        at += options[at + 1]
    return True


class Ipv6(NamedTuple):
    """An IPv6 header. ``length`` is that of the payload."""

    traffic_class: int
    flow: int
    length: int
    next_header: int
    hop_limit: int
    source: bytes
    target: bytes


def parse_ipv6(data: bytes, at: int) -> Ipv6 | None:
    """The header at ``at``; None where it is too short, of another version, or claims more payload than there is."""
    if len(data) < at + IPV6_HLEN:
        return None
    first, length, next_header, hop_limit, source, target = _IPV6.unpack_from(data, at)
    if first >> 28 != 6 or at + IPV6_HLEN + length > len(data):
        return None
    return Ipv6(first >> 20 & 0xFF, first & 0xFFFFF, length, next_header, hop_limit, source, target)


def build_ipv6(
    source: bytes, target: bytes, next_header: int, payload: bytes, *, hop_limit: int = DEFAULT_TTL, traffic_class: int = 0,
    flow: int = 0,
) -> bytes:  # fmt: skip
    """A packet."""
    first = 6 << 28 | traffic_class << 20 | flow
    return _IPV6.pack(first, len(payload), next_header, hop_limit, source, target) + payload


def ip_protocol(address: bytes) -> int:
    """The EtherType of packets with such addresses."""
    return ETH_P_IP if len(address) == 4 else ETH_P_IPV6


# --- UDP and TCP ----------------------------------------------------------------------------------------------------------
def build_udp(source: bytes, target: bytes, sport: int, dport: int, data: bytes, *, check: str = "full") -> bytes:
    """A datagram. ``check``: "full" is the whole checksum, "partial" what the kernel leaves to the device (the sum of the
    pseudo header), "none" zero."""
    length = UDP_HLEN + len(data)
    bare = _UDP.pack(sport, dport, length, 0) + data
    pseudo = pseudo_sum(source, target, 17, length)
    value = {"full": (checksum(bare, pseudo) or 0xFFFF), "partial": pseudo, "none": 0}[check]
    return bare[:6] + value.to_bytes(2) + data


class Tcp(NamedTuple):
    """A TCP segment. ``seq`` and ``ack`` are u32; ``hlen`` counts the options in."""

    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    window: int
    options: bytes = b""
    data: bytes = b""

    @property
    def hlen(self) -> int:
        return TCP_HLEN + len(self.options)


def parse_tcp(segment: bytes) -> Tcp | None:
    """None where the header does not fit."""
    if len(segment) < TCP_HLEN:
        return None
    sport, dport, seq, ack, off, flags, window, _, _ = _TCP.unpack_from(segment)
    hlen = (off >> 4) * 4
    if hlen < TCP_HLEN or hlen > len(segment):
        return None
    return Tcp(sport, dport, seq, ack, flags, window, segment[TCP_HLEN:hlen], segment[hlen:])


def build_tcp(source: bytes, target: bytes, segment: Tcp, *, check: str = "full") -> bytes:
    """Its bytes; ``check`` as in ``build_udp``. ``options`` are whole words."""
    sport, dport, seq, ack, flags, window, options, data = segment
    bare = _TCP.pack(sport, dport, seq, ack, segment.hlen // 4 << 4, flags, window, 0, 0) + options + data
    pseudo = pseudo_sum(source, target, 6, len(bare))
    value = pseudo if check == "partial" else checksum(bare, pseudo)
    return bare[:16] + value.to_bytes(2) + bare[18:]


CHECKSUM_AT: Final = {6: 16, 17: 6, 1: 2, 58: 2}
"""Where in a segment the checksum of a protocol lies."""


def finish_checksum(packet: bytes) -> bytes:
    """An IP packet whose UDP or TCP checksum was left to the device, with the whole checksum in its place."""
    if packet[0] >> 4 == 4:
        at, protocol, addresses = (packet[0] & 15) * 4, packet[9], packet[12:20]
    else:
        at, protocol, addresses = IPV6_HLEN, packet[6], packet[8:40]
    field = at + CHECKSUM_AT[protocol]
    bare = packet[at:field] + bytes(2) + packet[field + 2 :]
    value = checksum(bare, ones_sum(addresses, protocol + len(bare))) or (0xFFFF if protocol == 17 else 0)
    return packet[:field] + value.to_bytes(2) + packet[field + 2 :]


# --- fragments ------------------------------------------------------------------------------------------------------------
def fragment_ipv4(packet: bytes, mtu: int) -> list[bytes]:
    """``packet`` in pieces of at most ``mtu`` bytes, itself where it fits. Options go into the first one only."""
    if len(packet) <= mtu:
        return [packet]
    hlen = (packet[0] & 15) * 4
    payload, room, out = packet[hlen:], (mtu - hlen) // 8 * 8, []
    for at in range(0, len(payload), room):
        piece = payload[at : at + room]
        more = IP_MF if at + room < len(payload) else 0
        head = packet[:2] + (hlen + len(piece)).to_bytes(2) + packet[4:6] + (at // 8 | more).to_bytes(2) + packet[8:hlen]
        out.append(seal_ipv4(head + piece))
    return out


def fragment_ipv6(packet: bytes, mtu: int, ident: int) -> list[bytes]:
    """As ``fragment_ipv4``; a packet without extension headers."""
    if len(packet) <= mtu:
        return [packet]
    payload, room, out = packet[IPV6_HLEN:], (mtu - IPV6_HLEN - FRAGMENT_HLEN) // 8 * 8, []
    for at in range(0, len(payload), room):
        piece = payload[at : at + room]
        more = int(at + room < len(payload))
        extension = bytes((packet[6], 0)) + (at | more).to_bytes(2) + ident.to_bytes(4)
        body = extension + piece
        out.append(packet[:4] + len(body).to_bytes(2) + b"\x2c" + packet[7:IPV6_HLEN] + body)
    return out


def is_multicast(address: bytes) -> bool:
    return address[0] >> 4 == 0xE if len(address) == 4 else address[0] == 0xFF


def is_loopback(address: bytes) -> bool:
    return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\x01"
