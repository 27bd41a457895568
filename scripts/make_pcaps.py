#!/usr/bin/env python3
"""Make the captures of pcaps/ and the README beside them, byte for byte the same at every run.

Frames are built with scapy and mostly written by scapy's own writers, so that the readers under test read what
other code wrote. Run: scripts/make_pcaps.py [directory]
"""

from __future__ import annotations

import gzip
import io
import logging
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.dns import DNS, DNSQR, DNSRR  # noqa: E402
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment  # noqa: E402
from scapy.layers.inet6 import (  # noqa: E402
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import ARP, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether  # noqa: E402
from scapy.packet import Packet, Raw  # noqa: E402
from scapy.utils import PcapWriter  # noqa: E402

HOST, PEER, ROUTER, BROADCAST = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:fe", "ff:ff:ff:ff:ff:ff"
START = 1_700_000_000.0
Timed = tuple[float, Packet | bytes]  # seconds since START


def eth(dst: str = HOST, src: str = PEER) -> Packet:
    return Ether(dst=dst, src=src)


def ip4(src: str = "10.0.0.2", dst: str = "10.0.0.1", **fields: object) -> Packet:
    return IP(src=src, dst=dst, **fields)


def ip6(src: str = "2001:db8::2", dst: str = "2001:db8::1", **fields: object) -> Packet:
    return IPv6(src=src, dst=dst, **fields)


def payload(size: int, seed: int = 0) -> Packet:
    line = f"payload {seed} of the captures of netbpf, line after line\n".encode()
    return Raw((line * (size // len(line) + 1))[:size])


# -- conversations -----------------------------------------------------------------------------------------------------


def tcp_session(start: float, port: int, sizes: Iterable[int], gap: float, *, link: Callable[[bool], Packet]) -> Iterator[Timed]:
    """Handshake, a segment of each size from the server with an acknowledgement each, both ends closing.

    ``link(to_client)`` gives the headers below TCP for a direction."""
    client_seq, server_seq, at = 1000, 5000, start

    def segment(to_client: bool, flags: str, data: Packet | None = None) -> Timed:
        nonlocal at, client_seq, server_seq
        at += gap
        ports = {"sport": 443, "dport": port} if to_client else {"sport": port, "dport": 443}
        seq, ack = (server_seq, client_seq) if to_client else (client_seq, server_seq)
        packet = link(to_client) / TCP(flags=flags, seq=seq, ack=0 if flags == "S" else ack, window=65000, **ports)
        if data is not None:
            packet = packet / data
        advance = (len(data) if data is not None else 0) + ("S" in flags or "F" in flags)
        if to_client:
            server_seq += advance
        else:
            client_seq += advance
        return at, packet

    yield segment(False, "S")
    yield segment(True, "SA")
    yield segment(False, "A")
    yield segment(False, "PA", payload(120, port))
    for i, size in enumerate(sizes):
        yield segment(True, "PA", payload(size, port + i))
        yield segment(False, "A")
    yield segment(False, "FA")
    yield segment(True, "FA")
    yield segment(False, "A")


def link4(to_client: bool) -> Packet:
    """Ethernet and IPv4 between the capturing host (10.0.0.1) and a server behind the router."""
    if to_client:
        return eth(HOST, ROUTER) / ip4("192.0.2.80", "10.0.0.1", ttl=57)
    return eth(ROUTER, HOST) / ip4("10.0.0.1", "192.0.2.80")


def link6(to_client: bool) -> Packet:
    if to_client:
        return eth(HOST, ROUTER) / ip6("2001:db8:1::80", "2001:db8::1", hlim=57)
    return eth(ROUTER, HOST) / ip6("2001:db8::1", "2001:db8:1::80")


def dns_query(at: float, name: str, number: int) -> Iterator[Timed]:
    port = 40000 + number
    question = DNSQR(qname=name)
    yield at, eth(ROUTER, HOST) / ip4("10.0.0.1", "192.0.2.53") / UDP(sport=port, dport=53) / DNS(id=number, rd=1, qd=question)
    answer = DNS(id=number, qr=1, rd=1, ra=1, qd=question, an=DNSRR(rrname=name, ttl=300, rdata="192.0.2.80"))
    yield at + 0.012, eth(HOST, ROUTER) / ip4("192.0.2.53", "10.0.0.1") / UDP(sport=53, dport=port) / answer


def udp_stream(start: float, end: float, per_second: int, port: int) -> Iterator[Timed]:
    count = round((end - start) * per_second)
    for i in range(count):
        at = start + i / per_second
        yield at, eth(HOST, PEER) / ip4() / UDP(sport=port, dport=5004) / payload(160, i)


# -- captures ----------------------------------------------------------------------------------------------------------


def session() -> Iterable[Timed]:
    """Ten seconds of one host: web sessions over TCP (IPv4 and IPv6), DNS, a UDP stream whose rate changes, ARP and ping"""
    yield 0.0, eth(BROADCAST, HOST) / ARP(op=1, hwsrc=HOST, psrc="10.0.0.1", pdst="10.0.0.254")
    yield 0.001, eth(HOST, ROUTER) / ARP(op=2, hwsrc=ROUTER, psrc="10.0.0.254", hwdst=HOST, pdst="10.0.0.1")
    for second, name in enumerate(["example.org", "www.example.org", "img.example.net", "example.com", "api.example.com"]):
        yield from dns_query(0.1 + 1.9 * second, name, second + 1)
    for start, port, segments, gap in (
        (0.2, 50001, 12, 0.02), (1.3, 50002, 40, 0.015), (3.1, 50003, 8, 0.05), (4.4, 50004, 60, 0.012), (7.2, 50005, 15, 0.06),
    ):  # fmt: skip
        yield from tcp_session(start, port, (1460 if i % 3 else 600 for i in range(segments)), gap, link=link4)
    yield from tcp_session(5.5, 50106, [1200, 1200, 300, 900, 80], 0.031, link=link6)
    yield from udp_stream(2.0, 4.0, 25, 6000)
    yield from udp_stream(4.0, 5.5, 60, 6000)
    yield from udp_stream(6.5, 9.5, 15, 6001)
    for i in range(5):
        yield 0.5 + 2 * i, eth(ROUTER, HOST) / ip4("10.0.0.1", "192.0.2.80") / ICMP(id=7, seq=i) / payload(56, i)
        yield 0.53 + 2 * i, eth(HOST, ROUTER) / ip4("192.0.2.80", "10.0.0.1", ttl=57) / ICMP(type=0, id=7, seq=i) / payload(56, i)
    for i in range(3):
        yield (
            1.0 + 3 * i,
            eth("01:00:5e:00:00:fb", PEER) / ip4(dst="224.0.0.251", ttl=255) / UDP(sport=5353, dport=5353) / payload(40, i),
        )


def vlan() -> Iterable[Timed]:
    """802.1Q: tags 5 and 100, a priority tag (VLAN 0), untagged frames between them, a tagged 802.2 frame"""
    for vid in (5, 100):

        def link(to_client: bool, vid: int = vid) -> Packet:
            base = link4(to_client)
            return Ether(dst=base.dst, src=base.src) / Dot1Q(vlan=vid, prio=vid % 8) / base.payload

        yield from tcp_session(vid / 100, 50000 + vid, [500, 1400], 0.01, link=link)
    for i in range(6):
        yield 2 + i / 10, eth() / Dot1Q(vlan=0, prio=5) / ip4() / UDP(sport=5060, dport=5060) / payload(30, i)
        yield 2.05 + i / 10, eth() / ip4() / UDP(sport=6000, dport=6000) / payload(30, i)
    yield 3.0, eth(BROADCAST) / Dot1Q(vlan=5) / ARP(op=1, hwsrc=PEER, psrc="10.0.0.2", pdst="10.0.0.9")
    yield 3.1, eth() / Dot1Q(vlan=5, type=20) / Raw(b"\x42\x42\x03" + bytes(17))


def qinq() -> Iterable[Timed]:
    """802.1ad over 802.1Q, 802.1Q twice, three tags, the old 0x9100 tag that the kernel leaves in place"""
    stacks = (
        Dot1AD(vlan=10) / Dot1Q(vlan=20),
        Dot1Q(vlan=10) / Dot1Q(vlan=20),
        Dot1AD(vlan=10) / Dot1Q(vlan=20) / Dot1Q(vlan=30),
        Dot1AD(vlan=7),
    )
    for i, stack in enumerate(stacks):
        for j in range(3):
            yield i + j / 10, eth() / stack / ip4() / UDP(sport=1000 + i, dport=2000 + j) / payload(40, j)
            yield i + j / 10 + 0.05, eth() / stack / ip4() / TCP(sport=1000 + i, dport=80, flags="S")
    yield 5.0, Ether(dst=HOST, src=PEER, type=0x9100) / Raw(bytes.fromhex("00050800") + bytes(ip4() / UDP(sport=1, dport=2)))


def ipv6_extensions() -> Iterable[Timed]:
    """IPv6 with hop-by-hop, routing, destination and fragment headers before TCP, UDP and ICMPv6; neighbour discovery"""
    hop, dest = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0\0\0")]), IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])
    chains = (
        None,
        hop,
        dest,
        IPv6ExtHdrRouting(addresses=["2001:db8::9"]),
        hop / dest,
        hop / IPv6ExtHdrRouting(addresses=["2001:db8::9"]) / dest,
    )
    uppers = (
        UDP(sport=7, dport=9) / payload(24),
        TCP(sport=7, dport=80, flags="S"),
        ICMPv6EchoRequest(id=1, seq=2, data=b"x" * 20),
    )
    for i, chain in enumerate(chains):
        for j, upper in enumerate(uppers):
            base = eth() / ip6()
            yield i + j / 10, (base / chain if chain is not None else base) / upper
    yield 7.0, eth("33:33:ff:00:00:01") / ip6(dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::1")
    for i, offset in enumerate((0, 100)):
        fragment_header = IPv6ExtHdrFragment(nh=17, offset=offset, m=1 - i, id=99)
        yield 8.0 + i, eth() / ip6() / fragment_header / Raw(bytes(800 if not i else 200))


def fragments() -> Iterable[Timed]:
    """IPv4 datagrams in fragments: UDP of 4000 bytes in order, one in reverse, an overlapping pair, a TCP header cut in two"""
    whole = ip4(id=77) / UDP(sport=9, dport=9) / payload(4000)
    for i, part in enumerate(fragment(whole, 1400)):
        yield i / 10, eth() / part
    for i, part in enumerate(reversed(fragment(ip4(id=78) / UDP(sport=9, dport=9) / payload(3000, 1), 1000))):
        yield 1 + i / 10, eth() / part
    yield 2.0, eth() / ip4(id=79, flags="MF", proto=17) / payload(64, 2)
    yield 2.1, eth() / ip4(id=79, frag=4, proto=17) / payload(64, 3)
    tcp = bytes(TCP(sport=1, dport=80, flags="S", chksum=0))
    yield 3.0, eth() / ip4(id=80, flags="MF", proto=6) / Raw(tcp[:8])
    yield 3.1, eth() / ip4(id=80, frag=1, proto=6) / Raw(tcp[8:])


def arp_icmp() -> Iterable[Timed]:
    """ARP requests, replies and an announcement; ICMP echo, unreachable and time exceeded; IP options"""
    for i in range(4):
        yield i / 2, eth(BROADCAST) / ARP(op=1, hwsrc=PEER, psrc="10.0.0.2", pdst=f"10.0.0.{10 + i}")
        yield i / 2 + 0.1, eth(PEER, HOST) / ARP(op=2, hwsrc=HOST, psrc=f"10.0.0.{10 + i}", hwdst=PEER, pdst="10.0.0.2")
    yield 2.0, eth(BROADCAST) / ARP(op=2, hwsrc=PEER, psrc="10.0.0.2", hwdst=BROADCAST, pdst="10.0.0.2")
    for i in range(4):
        yield 3 + i / 4, eth() / ip4() / ICMP(id=1, seq=i) / payload(32, i)
    quoted = ip4("10.0.0.1", "10.0.0.2") / UDP(sport=1, dport=2)
    yield 4.5, eth() / ip4() / ICMP(type=3, code=3) / quoted
    yield 4.6, eth() / ip4("10.0.0.254") / ICMP(type=11) / quoted
    yield 4.7, eth() / ip4(options=b"\x94\x04\0\0") / UDP(sport=3, dport=4) / payload(10)


def runts() -> Iterable[Timed]:
    """Frames of every length from 0 to 60 bytes, cut off a UDP packet and off a VLAN-tagged one"""
    plain, tagged = (
        bytes(eth() / ip4() / UDP(sport=1, dport=2) / payload(18)),
        bytes(eth() / Dot1Q(vlan=5) / ip4() / UDP(sport=1, dport=2)),
    )
    for size in range(61):
        yield size / 10, plain[:size]
    for size in range(14, len(tagged) + 1):
        yield 7 + size / 10, tagged[:size]


def jumbo() -> Iterable[Timed]:
    """Frames of up to 9014 bytes, one of 65549 (the longest IPv4 packet), and minimal ones between them"""
    for i, size in enumerate((1472, 1473, 4000, 8000, 8972)):
        yield i / 5, eth() / ip4() / UDP(sport=1, dport=2) / payload(size, i)
        yield i / 5 + 0.1, eth() / ip4() / TCP(sport=1, dport=2, flags="A")
    yield 2.0, eth() / ip4() / UDP(sport=1, dport=2) / Raw(bytes(65535 - 28))


def llc() -> Iterable[Timed]:
    """802.3 frames, whose type is a length: spanning tree, SNAP, raw IPX (ffff), and the borders of the type field"""
    yield 0.0, Dot3(dst="01:80:c2:00:00:00", src=ROUTER) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP()
    yield (
        0.5,
        Dot3(dst=HOST, src=PEER) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=0x0800) / ip4() / UDP(sport=1, dport=2),
    )
    yield 1.0, bytes(eth())[:12] + struct.pack(">H", 30) + b"\xff\xff" + bytes(28)
    for kind in (0, 1, 1500, 1535, 1536):
        yield 1 + kind / 1000, bytes(eth())[:12] + struct.pack(">H", kind) + bytes(46)


# -- files -------------------------------------------------------------------------------------------------------------


def ordered(frames: Iterable[Timed]) -> list[tuple[float, bytes]]:
    return sorted(((at, bytes(frame)) for at, frame in frames), key=lambda pair: pair[0])


def pcap(
    frames: Iterable[Timed], *, linktype: int = 1, nano: bool = False, endianness: str = "<", snaplen: int = 262144
) -> bytes:
    """A pcap file by scapy's writer; frames longer than ``snaplen`` are cut as a capture would."""
    out = io.BytesIO()
    writer = PcapWriter(out, linktype=linktype, nano=nano, endianness=endianness, snaplen=snaplen)
    unit = 10**9 if nano else 10**6
    writer.write_header(None)
    for at, data in ordered(frames):
        second, fraction = divmod(round(at * unit), unit)
        writer.write_packet(
            data[:snaplen], sec=int(START) + second, usec=fraction, caplen=min(len(data), snaplen), wirelen=len(data)
        )
    return out.getvalue()


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    total = len(body) + 12
    return struct.pack(order + "II", kind, total) + body + struct.pack(order + "I", total)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(linktype: int, snaplen: int, tsresol: int, name: bytes, order: str = "<", tsoffset: int = 0) -> bytes:
    options = (
        struct.pack(order + "HH", 2, len(name)) + name + bytes(-len(name) % 4) + struct.pack(order + "HHBxxx", 9, 1, tsresol)
    )
    if tsoffset:
        options += struct.pack(order + "HHq", 14, 8, tsoffset)
    return block(1, struct.pack(order + "HHI", linktype, 0, snaplen) + options + bytes(4), order)


def enhanced(index: int, ticks: int, data: bytes, wirelen: int, order: str = "<", direction: int = 0) -> bytes:
    body = struct.pack(order + "5I", index, ticks >> 32, ticks & 0xFFFFFFFF, len(data), wirelen) + data + bytes(-len(data) % 4)
    if direction:
        body += struct.pack(order + "HHI4x", 2, 4, direction)
    return block(6, body, order)


def two_interfaces() -> bytes:
    """pcapng: Ethernet in microseconds with directions, and raw IP in 2^-20 s with a time offset and snaplen 96, interleaved"""
    out = section() + interface(1, 262144, 6, b"eth0") + interface(101, 96, 0x80 | 20, b"tun0", tsoffset=int(START))
    frames = ordered([*tcp_session(0, 50001, [200, 300], 0.05, link=link4), *udp_stream(0.02, 1.02, 10, 6000)])
    for at, data in frames:
        outgoing = data[6:12] == bytes.fromhex(HOST.replace(":", ""))
        out += enhanced(0, round((START + at) * 1e6), data, len(data), direction=2 if outgoing else 1)
        if data[12:14] == b"\x08\0":
            out += enhanced(1, round((at + 0.001) * (1 << 20)), data[14 : 14 + 96], len(data) - 14)
    return out


def block_kinds(order: str = "<") -> bytes:
    """pcapng: enhanced, simple and obsolete packet blocks among blocks of names, statistics and an unknown kind"""
    frame = bytes(eth() / ip4() / UDP(sport=1, dport=2) / payload(20))
    ticks = struct.unpack(">II", struct.pack(">Q", round(START * 1e6)))
    out = section(order) + interface(1, 60, 6, b"eth0", order) + block(4, struct.pack(order + "HH", 0, 0), order)
    out += enhanced(0, round(START * 1e6), frame[:60], len(frame), order)
    out += block(0x0BAD, b"nobody knows this", order)
    out += block(3, struct.pack(order + "I", len(frame)) + frame[:60], order)
    out += block(2, struct.pack(order + "HH4I", 0, 5, *ticks, 60, len(frame)) + frame[:60], order)
    out += enhanced(0, round(START * 1e6) + 500_000, frame[:40], len(frame), order, direction=2)
    return out + block(5, struct.pack(order + "3I", 0, *ticks), order)


def sections() -> bytes:
    """pcapng: block-kinds.pcapng and, behind it, the same as a big-endian section"""
    return block_kinds("<") + block_kinds(">")


def damaged_pcapng() -> bytes:
    """two-interfaces.pcapng, the length of its 24th block overwritten"""
    data, at = bytearray(two_interfaces()), 0
    for _ in range(23):
        at += struct.unpack_from("<I", data, at + 4)[0]
    data[at + 4 : at + 8] = struct.pack("<I", 0xFFFF_FFF0)
    return bytes(data)


def cooked() -> Iterable[Timed]:
    """LINUX_SLL, as from `tcpdump -i any`: unicast, broadcast and multicast, in and out, a VLAN tag that libpcap put back"""
    source = bytes.fromhex(PEER.replace(":", "")) + b"\0\0"

    def header(pkt_type: int, protocol: int, arphrd: int = 1) -> bytes:
        return struct.pack(">HHH", pkt_type, arphrd, 6) + source + struct.pack(">H", protocol)

    udp, tcp = bytes(ip4() / UDP(sport=1, dport=2) / payload(20)), bytes(ip4() / TCP(sport=1, dport=2, flags="S"))
    mdns = UDP(sport=5353, dport=5353)
    packets = (
        (0, 0x0800, udp),
        (0, 0x0800, tcp),
        (4, 0x0800, tcp),
        (1, 0x0806, bytes(ARP(hwsrc=PEER, psrc="10.0.0.2", pdst="10.0.0.1"))),
        (2, 0x0800, bytes(ip4(dst="224.0.0.251") / mdns)),
        (3, 0x0800, udp),
        (2, 0x86DD, bytes(ip6(dst="ff02::fb") / mdns)),
        (0, 0x8100, b"\0\5\x08\0" + tcp),
        (2, 4, b"\x42\x42\x03" + bytes(35)),
    )
    for i, (kind, protocol, body) in enumerate(packets):
        yield i / 4, header(kind, protocol) + body
    yield 3.0, header(0, 0x0800, 772) + udp
    yield 3.25, header(0, 0x0800, 0xFFFE) + udp
    yield 3.5, header(0, 0x86DD, 512) + bytes(ip6() / UDP(sport=1, dport=2))


def cooked2() -> Iterable[Timed]:
    """LINUX_SLL2: the same packets with interface indexes"""
    for at, frame in cooked():
        data = bytes(frame)
        (kind, arphrd, size), address, protocol = struct.unpack(">HHH", data[:6]), data[6:14], data[14:16]
        yield at, protocol + b"\0\0" + struct.pack(">IHBB", 3 + kind, arphrd, kind, size) + address + data[16:]


def raw_ip() -> Iterable[Timed]:
    """RAW (link type 101): IPv4 and IPv6 without a link header, and one packet that is neither"""
    for i in range(5):
        yield i / 2, ip4() / UDP(sport=1, dport=2 + i) / payload(20, i)
        yield i / 2 + 0.2, ip6() / TCP(sport=1, dport=2 + i, flags="S")
    yield 3.0, b"\x50" + bytes(30)


def null(order: str) -> Iterable[Timed]:
    """Packets behind a BSD address family in the byte order ``order``."""
    for i, family6 in enumerate((24, 28, 30)):
        yield i / 2, struct.pack(order + "I", 2) + bytes(ip4("127.0.0.1", "127.0.0.1") / UDP(sport=1, dport=2) / payload(20, i))
        yield i / 2 + 0.2, struct.pack(order + "I", family6) + bytes(ip6("::1", "::1") / TCP(sport=1, dport=2, flags="S"))
    yield 2.0, struct.pack(order + "I", 7) + bytes(20)


def modified() -> bytes:
    """The modified pcap of magic a1b2cd34, whose record headers have 8 bytes more"""
    out = struct.pack("<IHHIIII", 0xA1B2CD34, 2, 4, 0, 0, 1500, 1)
    for at, data in ordered(tcp_session(0, 50001, [100, 200, 300], 0.1, link=link4)):
        header = struct.pack("<IIII", int(START + at), round(at % 1 * 1e6), len(data), len(data))
        out += header + struct.pack("<IHBB", 2, 0x0800, 0, 0) + data
    return out


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def first_forty(frames: Callable[[], Iterable[Timed]]) -> Iterable[Timed]:
    """The first 40 packets."""
    return ordered(frames())[:40]


def many_sources() -> list[Timed]:
    """One UDP datagram of each of 200 sources, 10.2.0.0 and up, a millisecond apart"""
    return [(i / 1000, eth() / ip4(src=f"10.2.0.{i}") / UDP(sport=9, dport=9)) for i in range(200)]


CAPTURES: dict[str, tuple[Callable[[], bytes], str]] = {}


def capture(name: str, make: Callable[[], bytes], text: str) -> None:
    CAPTURES[name] = (make, text)


for _frames in (session, vlan, qinq, ipv6_extensions, fragments, arp_icmp, runts, jumbo, llc, many_sources):
    capture(_frames.__name__.replace("_", "-") + ".pcap", lambda f=_frames: pcap(f()), _frames.__doc__ or "")
capture("session.pcap.gz", lambda: gz(pcap(session())), "session.pcap, compressed with gzip")
capture("cut.pcap", lambda: pcap(session(), snaplen=64), "session.pcap as a capture of snaplen 64 has it: caplen < wirelen")
capture("nanosecond.pcap", lambda: pcap(first_forty(session), nano=True), "The first 40 packets of session.pcap in nanoseconds")
capture("big-endian.pcap", lambda: pcap(first_forty(session), endianness=">"), "The same, written on a big-endian machine")
capture("modified.pcap", modified, modified.__doc__ or "")
capture("two-interfaces.pcapng", two_interfaces, two_interfaces.__doc__ or "")
capture("block-kinds.pcapng", block_kinds, block_kinds.__doc__ or "")
capture("sections.pcapng", sections, sections.__doc__ or "")
capture("cooked.pcap", lambda: pcap(cooked(), linktype=113), cooked.__doc__ or "")
capture("cooked2.pcap", lambda: pcap(cooked2(), linktype=276), cooked2.__doc__ or "")
capture("raw-ip.pcap", lambda: pcap(raw_ip(), linktype=101), raw_ip.__doc__ or "")
capture(
    "null.pcap",
    lambda: pcap(null("<"), linktype=0),
    "BSD loopback (NULL), written on a little-endian machine; one packet of another family",
)
capture("loop.pcap", lambda: pcap(null(">"), linktype=108), "OpenBSD loopback (LOOP): the same, big-endian")
capture("damaged.pcap", lambda: pcap(session())[:20_000], "The first 20000 bytes of session.pcap: it ends inside a packet")
capture("damaged.pcapng", damaged_pcapng, damaged_pcapng.__doc__ or "")
capture("damaged.pcap.gz", lambda: gz(pcap(session()))[:4_000], "The first 4000 bytes of session.pcap.gz")

README_HEAD = """# Captures

Made by `scripts/make_pcaps.py` with scapy; nothing in them was ever on a wire. Addresses are from the ranges for documentation
(RFC 5737, RFC 3849), private ones and locally administered MAC addresses. The capturing host is 02:00:00:00:00:01, 10.0.0.1.
The same bytes come out at every run, and a test says so.

| file | bytes | what |
|---|---|---|
"""


def main(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    rows = []
    for name, (make, text) in sorted(CAPTURES.items()):
        data = make()
        (directory / name).write_bytes(data)
        rows.append(f"| `{name}` | {len(data)} | {text} |\n")
    (directory / "README.md").write_text(README_HEAD + "".join(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "pcaps")
