"""IP, UDP and TCP headers: what is built is parsed, checksums agree with a naive sum, fragments make the whole again."""

from __future__ import annotations

import random
import struct

import pytest

from netbpf.packet.inet import (
    IP_MF,
    IP_OFFSET_MASK,
    Tcp,
    are_ipv4_options_sound,
    build_ipv4,
    build_ipv6,
    build_tcp,
    build_udp,
    checksum,
    finish_checksum,
    fragment_ipv4,
    fragment_ipv6,
    ones_sum,
    parse_ipv4,
    parse_ipv6,
    parse_tcp,
    pseudo_sum,
)

ADDRESSES = {4: (b"\x0a\0\0\1", b"\x0a\0\0\2"), 6: (bytes(15) + b"\1", bytes(15) + b"\2")}
versions = pytest.mark.parametrize("version", ADDRESSES)


def naive(data: bytes) -> int:
    """RFC 1071 word by word."""
    total = 0
    for (word,) in struct.iter_unpack(">H", data + bytes(len(data) & 1)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_sums_are_those_of_the_words() -> None:
    rng = random.Random(5)
    for size in (*range(40), 1500, 1501):
        data = rng.randbytes(size)
        assert ones_sum(data) == naive(data)
    assert ones_sum(b"\xff" * 8) == 0xFFFF
    assert checksum(bytes(20)) == 0xFFFF
    assert checksum(b"\x45\0\0\x73\0\0\x40\0\x40\x11\0\0\xc0\xa8\0\1\xc0\xa8\0\xc7") == 0xB861  # the example everybody uses


@versions
def test_a_datagram_carries_its_checksum(version: int) -> None:
    rng = random.Random(6)
    source, target = ADDRESSES[version]
    for size in (0, 1, 2, 99, 1400):
        data = rng.randbytes(size)
        whole = build_udp(source, target, 1, 2, data)
        assert ones_sum(whole, pseudo_sum(source, target, 17, len(whole))) == 0xFFFF
        partial = build_udp(source, target, 1, 2, data, check="partial")
        packet = build_ipv4(source, target, 17, partial) if version == 4 else build_ipv6(source, target, 17, partial)
        assert finish_checksum(packet).endswith(whole)
        assert build_udp(source, target, 1, 2, data, check="none")[6:8] == bytes(2)


@versions
def test_a_segment_comes_back(version: int) -> None:
    source, target = ADDRESSES[version]
    for options in (b"", b"\2\4\5\xb4", bytes(40)):
        segment = Tcp(1, 2, 3, 0xFFFF_FFFF, 18, 4, options, b"data")
        raw = build_tcp(source, target, segment)
        assert parse_tcp(raw) == segment
        assert ones_sum(raw, pseudo_sum(source, target, 6, len(raw))) == 0xFFFF
        assert parse_tcp(raw[: segment.hlen - 1]) is None
    assert parse_tcp(b"") is None


def test_headers_come_back_and_damage_is_seen() -> None:
    packet = build_ipv4(*ADDRESSES[4], 17, b"payload", ident=9, fragment=0, ttl=3, tos=8, options=b"\1\1\1\0")
    header = parse_ipv4(b"xx" + packet, 2)
    assert header is not None
    assert header[:7] == (24, 8, 31, 9, 0, 3, 17)
    for i in range(24):
        assert parse_ipv4(packet[:i] + bytes([packet[i] ^ 1]) + packet[i + 1 :], 0) is None
        assert parse_ipv4(packet[:i], 0) is None
    six = build_ipv6(*ADDRESSES[6], 17, b"payload", hop_limit=5, traffic_class=6, flow=7)
    assert parse_ipv6(six, 0) == (6, 7, 7, 17, 5, *ADDRESSES[6])
    assert parse_ipv6(six[:-1], 0) is None
    assert parse_ipv6(packet + bytes(40), 0) is None


@pytest.mark.parametrize(
    ("options", "sound"),
    [("", 1), ("0000", 1), ("01010100", 1), ("0703", 0), ("07", 0), ("0701", 0), ("44040500", 1), ("8307040a00000100", 0)],
)
def test_options(options: str, sound: int) -> None:
    assert are_ipv4_options_sound(bytes.fromhex(options)) == bool(sound)


@pytest.mark.parametrize("mtu", [68, 100, 1500])
def test_fragments_fit_and_make_the_whole(mtu: int) -> None:
    data = random.Random(7).randbytes(3001)
    whole = build_ipv4(*ADDRESSES[4], 17, data, ident=3)
    out = bytearray(len(data))
    pieces = fragment_ipv4(whole, mtu)
    for piece in pieces:
        header = parse_ipv4(piece, 0)
        assert header is not None
        assert len(piece) <= mtu
        assert bool(header.fragment & IP_MF) == (piece is not pieces[-1])
        at = (header.fragment & IP_OFFSET_MASK) * 8
        out[at : at + len(piece) - 20] = piece[20:]
    assert bytes(out) == data
    assert fragment_ipv4(whole, len(whole)) == [whole]


@pytest.mark.parametrize("mtu", [100, 1280])
def test_fragments_of_ipv6(mtu: int) -> None:
    data = random.Random(8).randbytes(3001)
    whole = build_ipv6(*ADDRESSES[6], 17, data)
    out = bytearray(len(data))
    pieces = fragment_ipv6(whole, mtu, 77)
    for piece in pieces:
        header = parse_ipv6(piece, 0)
        assert header is not None
        assert header.next_header == 44
        word = int.from_bytes(piece[42:44])
        assert bool(word & 1) == (piece is not pieces[-1])
        out[word & ~7 : (word & ~7) + len(piece) - 48] = piece[48:]
    assert bytes(out) == data
