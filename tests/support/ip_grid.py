"""Frames for sockets of an IP stack: what comes in to 10.0.0.1 and fd00::1, whole and damaged, tagged, in fragments, behind
extension headers; and filters that read every offset base."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Final

from netbpf.abi.net import SKF_AD_OFF, SKF_LL_OFF, SKF_NET_OFF
from netbpf.isa import builders as b
from netbpf.isa.instruction import Instruction, Program
from netbpf.packet.inet import (
    IP_DF,
    IP_MF,
    Tcp,
    build_ipv4,
    build_ipv6,
    build_tcp,
    build_udp,
    checksum,
    fragment_ipv4,
    fragment_ipv6,
    pseudo_sum,
    seal_ipv4,
)
from support.packet_grid import MAC, PEER

ADDRESSES: Final = ("10.0.0.1/24", "fd00::1/64")
US4, PEER4 = socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2")
US6, PEER6 = (socket.inet_pton(socket.AF_INET6, text) for text in ("fd00::1", "fd00::2"))
UDP_PORT, TCP_PORT, PEER_PORT = 5000, 6000, 4000
IP4, IP6 = b"\x08\x00", b"\x86\xdd"
BODY: Final = bytes(range(64))


def ether(packet: bytes, kind: bytes | None = None, to: bytes = MAC, tags: bytes = b"") -> bytes:
    return to + PEER + tags + (kind or (IP4 if packet[:1] and packet[0] >> 4 == 4 else IP6)) + packet


def udp4(
    data: bytes = BODY,
    *,
    source: bytes = PEER4,
    target: bytes = US4,
    port: int = UDP_PORT,
    check: str = "full",
    options: bytes = b"",
    fragment: int = 0,
) -> bytes:
    raw = build_udp(source, target, PEER_PORT, port, data, check=check)
    return build_ipv4(source, target, 17, raw, ident=7, fragment=fragment, options=options)


def udp6(data: bytes = BODY, *, source: bytes = PEER6, target: bytes = US6, port: int = UDP_PORT, check: str = "full") -> bytes:
    return build_ipv6(source, target, 17, build_udp(source, target, PEER_PORT, port, data, check=check))


def tcp(
    source: bytes, target: bytes, flags: int, *, data: bytes = b"", port: int = 1, options: bytes = b"", sport: int = PEER_PORT
) -> bytes:
    raw = build_tcp(source, target, Tcp(sport, port, 1000, 0, flags, 8192, options, data))
    return build_ipv4(source, target, 6, raw, ident=7) if len(source) == 4 else build_ipv6(source, target, 6, raw)


def patched(packet: bytes, at: int, new: bytes, *, seal: bool = False) -> bytes:
    packet = packet[:at] + new + packet[at + len(new) :]
    return seal_ipv4(packet) if seal else packet


def extended(kinds: Sequence[tuple[int, bytes]], last: int, payload: bytes) -> bytes:
    """An IPv6 packet whose payload stands behind extension headers (their number, their body behind the next-header byte)."""
    numbers = [number for number, _ in kinds] + [last]
    chain = b"".join(bytes((numbers[i + 1],)) + body for i, (_, body) in enumerate(kinds))
    return build_ipv6(PEER6, US6, numbers[0], chain + payload)


PAD: Final = bytes((0, 1, 4, 0, 0, 0, 0))  # one header of eight bytes with PadN
ROUTED_DONE: Final = bytes((0, 0, 0, 0, 0, 0, 0))  # routing, no segments left
ROUTED_ON: Final = bytes((0, 0, 1, 0, 0, 0, 0))
LONG_PAD: Final = bytes((1, 1, 12)) + bytes(12)
BAD_PAD: Final = bytes((0, 1, 4, 1, 0, 0, 0))
ROUTER_ALERT: Final = bytes((0, 5, 2, 0, 0, 1, 0))
UNKNOWN_SKIP: Final = bytes((0, 0x1E, 4, 0, 0, 0, 0))
UNKNOWN_DROP: Final = bytes((0, 0x5E, 4, 0, 0, 0, 0))
ATOMIC: Final = bytes((0, 0, 0, 0, 0, 0, 9))


def udp_frames() -> dict[str, bytes]:
    """IPv4 and IPv6 datagrams for the UDP socket, and much that does not reach it."""
    good4, good6 = udp4(), udp6()
    short4 = udp4(b"hey")
    out = {
        "ip4": good4,
        "ip4 short": short4,
        "ip4 empty": udp4(b""),
        "ip4 padded": short4 + bytes(20),
        "ip6": good6,
        "ip6 short": udp6(b"hey"),
        "ip6 padded": udp6(b"hey") + bytes(9),
        "ip6 empty": udp6(b""),
        "options nop": udp4(options=b"\1\1\1\0"),
        "options lsrr": udp4(options=bytes.fromhex("8307040a00000100")),
        "options ssrr": udp4(options=bytes.fromhex("8907040a00000100")),
        "options alert": udp4(options=bytes.fromhex("94040000")),
        "options bad": udp4(options=b"\x07\x09\1\0"),
        "options long": udp4(options=b"\1" * 40),
        "other port": udp4(port=9),
        "other port 6": udp6(port=9),
        "no checksum": udp4(check="none"),
        "no checksum 6": udp6(check="none"),
        "wrong checksum": patched(good4, 26, b"\1\2"),
        "wrong checksum short": patched(short4, 26, b"\1\2"),
        "wrong checksum 6": patched(good6, 46, b"\1\2"),
        "wrong checksum 6 short": patched(udp6(b"hey"), 46, b"\1\2"),
        "wrong checksum 69 bytes": patched(udp4(bytes(69)), 26, b"\1\2"),
        "wrong checksum 68 bytes": patched(udp4(bytes(68)), 26, b"\1\2"),
        "wrong header sum": patched(good4, 10, b"\1\2"),
        "version 5": patched(good4, 0, b"\x55", seal=True),
        "header of 16": patched(good4, 0, b"\x44", seal=True),
        "length beyond": patched(good4, 2, b"\x01\x00", seal=True),
        "length 20": patched(good4, 2, b"\x00\x14", seal=True),
        "length 24": patched(good4, 2, b"\x00\x18", seal=True),
        "length 10": patched(good4, 2, b"\x00\x0a", seal=True),
        "ttl 0": patched(good4, 8, b"\0", seal=True),
        "udp length 7": patched(good4, 24, b"\0\7"),
        "udp length 8": patched(udp4(check="none"), 24, b"\0\x08"),
        "udp length 20": patched(udp4(check="none"), 24, b"\0\x14"),
        "udp length beyond": patched(good4, 24, b"\0\xff"),
        "udp length 0": patched(udp4(check="none"), 24, b"\0\0"),
        "udp length 0 in ip6": patched(good6, 44, b"\0\0"),
        "from us": udp4(source=US4),
        "from us 6": udp6(source=US6),
        "from lo": udp4(source=b"\x7f\0\0\1"),
        "to lo": udp4(target=b"\x7f\0\0\1"),
        "from all": udp4(source=b"\xff" * 4),
        "from group": udp4(source=b"\xe0\0\0\1"),
        "from zero": udp4(source=bytes(4)),
        "from far": udp4(source=b"\x08\x08\x08\x08"),
        "to far": udp4(target=b"\x08\x08\x08\x08"),
        "from group 6": udp6(source=b"\xff\2" + bytes(13) + b"\1"),
        "to lo 6": udp6(target=bytes(15) + b"\1"),
        "to far 6": udp6(target=b"\xfd\1" + bytes(14)),
        "from lo 6": udp6(source=bytes(15) + b"\1"),
        "from zero net": udp4(source=b"\0\0\0\5"),
        "from 10.0.0.255": udp4(source=b"\x0a\0\0\xff"),
    }
    frames = {name: ether(packet) for name, packet in out.items()}
    frames |= _placed(good4, good6) | _tagged(good4, good6) | _cut(good4, good6) | _fragments() | _extensions()
    for size in (1400, 8000, 30000, 65000):
        frames[f"size {size}"] = ether(udp4(bytes(size)))
        frames[f"size {size} 6"] = ether(udp6(bytes(size)))
    return frames


def _placed(good4: bytes, good6: bytes) -> dict[str, bytes]:
    """To whom the link layer says it is, and multicast and broadcast below."""
    all4, group4 = udp4(target=b"\x0a\0\0\xff"), udp4(target=b"\xe0\0\0\1")
    group6 = udp6(target=b"\xff\2" + bytes(13) + b"\1")
    macs = {"us": MAC, "all": b"\xff" * 6, "group": bytes.fromhex("01005e000001"), "other": bytes.fromhex("02000000ff03")}
    packets = {
        "ip4": good4,
        "ip6": good6,
        "net broadcast": all4,
        "all broadcast": udp4(target=b"\xff" * 4),
        "group": group4,
        "group 6": group6,
        "group not joined": udp4(target=b"\xe1\1\1\1"),
        "group 6 not joined": udp6(target=b"\xff\2" + bytes(13) + b"\x77"),
        "zero to all": udp4(source=bytes(4), target=b"\xff" * 4),
        "group 1": udp6(target=b"\xff\1" + bytes(13) + b"\1"),
        "group 0": udp6(target=b"\xff\0" + bytes(13) + b"\1"),
    }
    return {f"{name} to {place}": ether(packet, to=mac) for place, mac in macs.items() for name, packet in packets.items()}


def _tagged(good4: bytes, good6: bytes) -> dict[str, bytes]:
    tags = (
        *("81000000", "81002005", "88a80000", "88a8e006", "8100000081000000", "8100200081002000", "810000008100a005"),
        *("88a8000081000000", "88a8200581000007", "81000000810000008100000088a80000", "91000005"),
    )
    out = {f"tag {tag}": ether(good4, tags=bytes.fromhex(tag)) for tag in tags}
    return out | {f"tag {tag} 6": ether(good6, tags=bytes.fromhex(tag)) for tag in tags}


def _cut(good4: bytes, good6: bytes) -> dict[str, bytes]:
    """Runts."""
    out = {f"first {size}": ether(good4)[:size] for size in (14, 15, 33, 34, 35, 41, 42, 43, 60)}
    out |= {f"first {size} 6": ether(good6)[:size] for size in (14, 15, 53, 54, 55, 61, 62, 63)}
    tagged = ether(good4, tags=bytes.fromhex("81000000"))
    tagged2 = ether(good4, tags=bytes.fromhex("8100000081000000"))
    out |= {f"first {size} tagged": tagged[:size] for size in (17, 18, 19, 20, 38)}
    return out | {f"first {size} tagged twice": tagged2[:size] for size in (20, 21, 22, 23, 24, 25, 42)}


def _fragments() -> dict[str, bytes]:
    """Each group of pieces under an identification of its own, so that what stays incomplete does not meddle."""
    out: dict[str, bytes] = {}

    def add(name: str, pieces: Sequence[bytes], ident: int) -> None:
        for i, piece in enumerate(pieces):
            four = piece[0] >> 4 == 4
            own = patched(piece, 4, ident.to_bytes(2), seal=True) if four else patched(piece, 44, ident.to_bytes(4))
            out[f"fragment {name} {i}"] = ether(own)

    whole4, whole6 = udp4(bytes(range(200))), udp6(bytes(range(200)))
    a4, a6 = fragment_ipv4(whole4, 84), fragment_ipv6(whole6, 112, 1)
    add("in order", a4, 1)
    add("backwards", a4[::-1], 2)
    add("twice", [a4[0], a4[0], *a4[1:]], 3)
    add("in order 6", a6, 4)
    add("backwards 6", a6[::-1], 5)
    add("twice 6", [a6[0], a6[0], *a6[1:]], 6)
    add("one missing", [a4[0], *a4[2:]], 7)
    add("with DF", [patched(p, 6, bytes((p[6] | 0x40, p[7])), seal=True) for p in a4], 8)
    add("first with DF", [patched(a4[0], 6, bytes((a4[0][6] | 0x40, a4[0][7])), seal=True), *a4[1:]], 9)
    overlap = fragment_ipv4(whole4, 92)
    add("overlapping", [a4[0], overlap[1], *overlap[2:], *a4[1:]], 10)
    add("odd", [patched(a4[0][:-3], 2, (len(a4[0]) - 3).to_bytes(2), seal=True), *a4[1:]], 11)
    add("padded", [a4[0] + bytes(10), *(p + bytes(6) for p in a4[1:])], 12)
    add("beyond", [patched(a4[-1], 6, b"\x1f\xff", seal=True)], 13)
    add("atomic with MF off", [udp4(fragment=IP_DF)], 14)
    add("single with MF", [udp4(fragment=IP_MF)], 15)
    return out


def _extensions() -> dict[str, bytes]:
    datagram = build_udp(PEER6, US6, PEER_PORT, UDP_PORT, BODY)
    chains: dict[str, list[tuple[int, bytes]]] = {
        "hop": [(0, PAD)],
        "dest": [(60, PAD)],
        "hop dest": [(0, PAD), (60, PAD)],
        "routing": [(43, ROUTED_DONE)],
        "routing on": [(43, ROUTED_ON)],
        "hop routing dest": [(0, PAD), (43, ROUTED_DONE), (60, PAD)],
        "hop twice": [(0, PAD), (0, PAD)],
        "dest hop": [(60, PAD), (0, PAD)],
        "alert": [(0, ROUTER_ALERT)],
        "alert in dest": [(60, ROUTER_ALERT)],
        "long pad": [(0, LONG_PAD)],
        "long pad in dest": [(60, LONG_PAD)],
        "bad pad": [(60, BAD_PAD)],
        "unknown": [(60, UNKNOWN_SKIP)],
        "unknown hop": [(0, UNKNOWN_SKIP)],
        "unknown drop": [(60, UNKNOWN_DROP)],
        "unknown drop hop": [(0, UNKNOWN_DROP)],
        "atomic": [(44, ATOMIC)],
        "atomic dest": [(44, ATOMIC), (60, PAD)],
        "dest atomic": [(60, PAD), (44, ATOMIC)],
        "beyond": [(60, bytes((9, 1, 4, 0, 0, 0, 0)))],
    }
    out = {f"ext {name}": ether(extended(kinds, 17, datagram)) for name, kinds in chains.items()}
    out["ext none"] = ether(extended([(60, PAD)], 59, datagram))
    out["ext unknown protocol"] = ether(extended([(60, PAD)], 99, datagram))
    out["ext length beyond"] = ether(patched(extended([(60, PAD)], 17, datagram), 4, b"\x01\0"))
    out["ext length short"] = ether(patched(extended([(60, PAD)], 17, datagram), 4, b"\x00\x0c"))
    out["jumbo length 0"] = ether(patched(extended([(0, PAD)], 17, datagram), 4, b"\0\0"))
    return out


def ping_frames() -> dict[str, bytes]:
    """ICMP echoes, ICMPv6 with right and wrong checksums, and other protocols, for raw sockets."""
    body = b"\x08\0\0\0\0\1\0\1" + bytes(20)
    echo = body[:2] + checksum(body).to_bytes(2) + body[4:]
    body6 = b"\x80\0\0\0\0\1\0\1" + bytes(100)
    echo6 = body6[:2] + checksum(body6, pseudo_sum(PEER6, US6, 58, len(body6))).to_bytes(2) + body6[4:]
    return {
        "echo": ether(build_ipv4(PEER4, US4, 1, echo, ident=7)),
        "echo wrong": ether(build_ipv4(PEER4, US4, 1, body, ident=7)),
        "echo6": ether(build_ipv6(PEER6, US6, 58, echo6)),
        "echo6 wrong": ether(build_ipv6(PEER6, US6, 58, body6)),
        "99": ether(build_ipv4(PEER4, US4, 99, b"payload", ident=7)),
        "99 in 6": ether(build_ipv6(PEER6, US6, 99, b"payload")),
        "99 empty": ether(build_ipv4(PEER4, US4, 99, b"", ident=7)),
        "99 empty in 6": ether(build_ipv6(PEER6, US6, 99, b"")),
        "58 in 4": ether(build_ipv4(PEER4, US4, 58, echo, ident=7)),
        "1 in 6": ether(build_ipv6(PEER6, US6, 1, echo)),
    }


# --- filters --------------------------------------------------------------------------------------------------------------
def _bounded(*insns: Instruction | Sequence[Instruction]) -> Program:
    """R0 as a verdict of 1 to 256 bytes."""
    return b.assemble(
        b.BPF_MOV64_REG(6, 1), *insns, b.BPF_ALU64_IMM(b.BPF_AND, 0, 0xFF), b.BPF_ALU64_IMM(b.BPF_ADD, 0, 1), b.BPF_EXIT_INSN()
    )


BASES: Final = {"data": 0, "net": SKF_NET_OFF, "link": SKF_LL_OFF}
PLACES: Final = (0, 1, 6, 7, 8, 9, 12, 13, 16, 19, 20, 26, 39, 40, 60, 300)


def offset_filters() -> dict[str, Program]:
    """LD_ABS and LD_IND of every size at offsets from every base, and at offsets that mean nothing."""
    out: dict[str, Program] = {}
    for base, start in BASES.items():
        for i, place in enumerate(PLACES):
            size = (b.BPF_B, b.BPF_H, b.BPF_W)[i % 3]
            out[f"{base}+{place}"] = _bounded(b.BPF_LD_ABS(size, start + place))
        out[f"ind {base}+9"] = _bounded(b.BPF_MOV64_IMM(7, 4), b.BPF_LD_IND(b.BPF_B, 7, start + 5))
        out[f"ind back {base}+9"] = _bounded(b.BPF_MOV64_IMM(7, -3), b.BPF_LD_IND(b.BPF_B, 7, start + 12))
    for offset in (-1, -4, SKF_AD_OFF + 1, SKF_NET_OFF - 1, SKF_LL_OFF - 1, -0x7FFF_FFFF):
        out[f"at {offset}"] = _bounded(b.BPF_LD_ABS(b.BPF_B, offset))
    return out


def classic_offset_filters() -> dict[str, bytes]:
    """The same in classic BPF, with every ancillary load that a packet decides."""
    ret_a, ld, ldh, ldb, ldx_msh = 0x16, 0x20, 0x28, 0x30, 0xB1
    and_add = ((0x54, 0, 0, 0xFF), (0x04, 0, 0, 1), (ret_a, 0, 0, 0))
    out = {}
    for base, start in BASES.items():
        for i, place in enumerate(PLACES[::2]):
            out[f"{base}+{place}"] = ((ldb, ldh, ld)[i % 3], 0, 0, (start + place) & 0xFFFF_FFFF)
    for at in (0, 4, 8, 20, 24, 28, 44, 48, 52, 60):
        out[f"ancillary {at}"] = (ld, 0, 0, SKF_AD_OFF + at & 0xFFFF_FFFF)
    programs = {name: (first, *and_add) for name, first in out.items()}
    programs["msh"] = ((ldx_msh, 0, 0, 0), (0x87, 0, 0, 0), *and_add)
    return {name: b"".join(struct.pack("<HBBI", *insn) for insn in insns) for name, insns in programs.items()}
