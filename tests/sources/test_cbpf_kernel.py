"""Classic filters attached to real packet sockets by SO_ATTACH_FILTER: what is refused, and what ancillary loads and random
filters answer, frame by frame, against ours."""

from __future__ import annotations

import ctypes
import random
import socket
import struct
from collections.abc import Callable

import pytest
from support.expressions import EXPRESSIONS
from support.kernel import needs_kernel
from support.kernel_socket import PacketSocket, TapDevice, in_new_netns

from netbpf.engine.base import Loaded
from netbpf.engine.interp.engine import InterpEngine
from netbpf.env import SteppedEnv
from netbpf.errors import ProgramRejected
from netbpf.isa.classic import ALLOWED_CODES, BPF_STMT, CONDITIONAL_JUMPS, ClassicProgram, SockFilter, encode_classic
from netbpf.packet.device import Device
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.sources import cbpf
from netbpf.sources.cbpf_check import check_classic
from netbpf.sources.expr import compile_expression, find_libpcap
from netbpf.verifier.check import verify
from netbpf.verifier.env import LoadRequest

pytestmark = needs_kernel
SO_ATTACH_FILTER = 26


def attach(sock: socket.socket, insns: ClassicProgram) -> int:
    """0, or the errno of setsockopt."""
    data = ctypes.create_string_buffer(encode_classic(insns) or b"\0" * 8)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(insns), ctypes.addressof(data)))
    except OSError as e:
        return int(e.errno or 0)
    return 0


def proved(insns: ClassicProgram) -> Loaded:
    """The filter as a simulated socket has it: checked, translated, verified."""
    result = verify(LoadRequest(cbpf.to_spec(insns).insns, classic=True))
    assert result.program is not None, f"{cbpf.format_d(insns)}\n{result.log}"
    return InterpEngine().load(result.program, SteppedEnv(1))


# --- what is refused ------------------------------------------------------------------------------------------------------

KS = (0, 1, 2, 3, 15, 16, 31, 32, 0xFFFFF000, 0xFFFFEFFF, 0xFFFFF004, 0xFFFFF002, 0xFFFFF03C, 0xFFFFF040, 0x7FFFFFFF, 0xFFFFFFFF)
CODES = sorted(ALLOWED_CODES)
SCRATCH = (0x02, 0x03, 0x60, 0x61)


def random_filter(rng: random.Random) -> ClassicProgram:
    """Mostly well-formed, of few instructions, so that each rule decides often."""
    count = rng.randrange(1, 9)
    out = []
    for pc in range(count):
        code = rng.choice(CODES) if rng.random() < 0.7 else rng.choice((*SCRATCH, 0x15, 0x05, 0x20, 0x30))
        if rng.random() < 0.01:
            code = rng.randrange(0x200)
        left = max(count - pc - 2, 0)
        jt, jf = (rng.randrange(left + 1 + (rng.random() < 0.03)) for _ in range(2))
        k = rng.randrange(3) if code in SCRATCH and rng.random() < 0.95 else rng.choice(KS)
        if code == 0x05 and rng.random() < 0.9:
            k = rng.randrange(left + 1)
        out.append(SockFilter(code, jt, jf, k))
    if rng.random() < 0.9:
        out[-1] = BPF_STMT(rng.choice((0x06, 0x16)), 5)
    return tuple(out)


def test_the_kernel_refuses_what_we_refuse() -> None:
    rng, wrong, refused = random.Random(6), [], 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(6000):
            insns = random_filter(rng)
            try:
                check_classic(insns)
                ours = 0
            except ProgramRejected as e:
                ours = e.errno
            refused += ours != 0
            if attach(sock, insns) != ours:
                wrong.append((insns, ours))
    assert not wrong
    assert 1000 < refused < 5000


@pytest.mark.parametrize("code", range(0x200))
def test_every_opcode(code: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for k in (1, 40):
            insns = (BPF_STMT(0x02, 1), SockFilter(code, 0, 0, k if code != 0x05 else 0), BPF_STMT(0x06, 0))
            try:
                check_classic(insns)
                ours = 0
            except ProgramRejected as e:
                ours = e.errno
            assert attach(sock, insns) == ours, insns


@pytest.mark.parametrize("count", [0, 1, 4096, 4097])
def test_lengths(count: int) -> None:
    insns = (BPF_STMT(0x06, 0),) * count
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if count in (1, 4096):
            check_classic(insns)
            assert attach(sock, insns) in (0, 12)  # 12: more than a socket's option memory
        else:
            with pytest.raises(ProgramRejected):
                check_classic(insns)
            assert attach(sock, insns) == 22


# --- what filters answer --------------------------------------------------------------------------------------------------

PEER = bytes.fromhex("020000000001")
FRAME_BYTES = 2600  # longer than any answer asked for in one go
V4 = bytes.fromhex("0a0000010a000002")


def ip4(proto: int, payload: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    length = 4 * words + len(payload)
    return struct.pack(">BBHHHBBH", 0x40 | words, 0, length, 1, fragment, 64, proto, 0) + V4 + options + payload


def ip6(proto: int, payload: bytes) -> bytes:
    return struct.pack(">IHBB", 0x60000000, len(payload), proto, 64) + bytes(15) + b"\1" + bytes(15) + b"\2" + payload


def tcp(words: int) -> bytes:
    return struct.pack(">HHIIBBHHH", 1, 80, 0, 0, words << 4, 2, 0, 0, 0) + bytes(max(0, 4 * words - 20))


UDP = struct.pack(">HHHH", 1, 53, 12, 0) + b"\xaa" * 4
ICMP = b"\x08\0\0\0\0\1\0\1" + bytes(8)


def payloads() -> dict[str, tuple[int, bytes]]:
    """EtherType and bytes behind it: what the flow dissector has a rule for, whole, odd and cut."""
    ip, ip6_ = 0x0800, 0x86DD
    hop, dest = bytes([6, 0]) + bytes(6), bytes([17, 1]) + bytes(14)
    return {
        "udp": (ip, ip4(17, UDP)),
        "tcp": (ip, ip4(6, tcp(5))),
        "tcp options": (ip, ip4(6, tcp(9))),
        "tcp short offset": (ip, ip4(6, tcp(2))),
        "icmp": (ip, ip4(1, ICMP)),
        "igmp": (ip, ip4(2, ICMP)),
        "sctp": (ip, ip4(132, bytes(16))),
        "dccp": (ip, ip4(33, bytes(16))),
        "udplite": (ip, ip4(136, UDP)),
        "esp": (ip, ip4(50, bytes(16))),
        "ah": (ip, ip4(51, bytes(16))),
        "unknown": (ip, ip4(200, bytes(16))),
        "options": (ip, ip4(17, UDP, options=b"\1" * 12)),
        "first fragment": (ip, ip4(17, UDP, fragment=0x2000)),
        "later fragment": (ip, ip4(17, UDP, fragment=0x2010)),
        "last fragment": (ip, ip4(6, tcp(5), fragment=0x0010)),
        "ihl 4": (ip, b"\x44" + ip4(17, UDP)[1:]),
        "ihl 15": (ip, b"\x4f" + ip4(17, UDP)[1:]),
        "ip in ip": (ip, ip4(4, ip4(17, UDP))),
        "ip6 in ip": (ip, ip4(41, ip6(6, tcp(5)))),
        "ip in ip6": (ip6_, ip6(4, ip4(6, tcp(6)))),
        "gre": (ip, ip4(47, b"\0\0\x08\0" + ip4(17, UDP))),
        "gre key": (ip, ip4(47, b"\xb0\0\x08\0" + bytes(12) + ip4(6, tcp(5)))),
        "gre routing": (ip, ip4(47, b"\x40\0\x08\0" + ip4(17, UDP))),
        "gre version 2": (ip, ip4(47, b"\0\2\x08\0" + ip4(17, UDP))),
        "gre ethernet": (ip, ip4(47, b"\0\0\x65\x58" + bytes(12) + b"\x08\0" + ip4(17, UDP))),
        "gre unknown": (ip, ip4(47, b"\0\0\x12\x34" + bytes(20))),
        "pptp": (ip, ip4(47, b"\x30\x81\x88\x0b" + bytes(12) + b"\xff\x03\0\x21" + ip4(17, UDP))),
        "pptp other": (ip, ip4(47, b"\x20\x01\x88\x0b" + bytes(4) + b"\xff\x03\xc0\x21" + bytes(8))),
        "pptp no key": (ip, ip4(47, b"\0\x01\x88\x0b" + bytes(20))),
        "mpls in ip": (ip, ip4(137, b"\0\1\1\x40" + ip4(17, UDP))),
        "hop in ip4": (ip, ip4(0, hop + tcp(5))),
        "frag in ip4": (ip, ip4(44, bytes(8) + tcp(5))),
        "udp6": (ip6_, ip6(17, UDP)),
        "tcp6": (ip6_, ip6(6, tcp(8))),
        "icmp6": (ip6_, ip6(58, ICMP)),
        "hop by hop": (ip6_, ip6(0, hop + tcp(5))),
        "destination": (ip6_, ip6(60, dest + UDP)),
        "routing": (ip6_, ip6(43, bytes([60, 0]) + bytes(6) + dest + UDP)),
        "first fragment 6": (ip6_, ip6(44, bytes([17, 0, 0, 1]) + bytes(4) + UDP)),
        "later fragment 6": (ip6_, ip6(44, bytes([17, 0, 0, 9]) + bytes(4) + UDP)),
        "no next header": (ip6_, ip6(59, bytes(8))),
        "flow label": (ip6_, b"\x60\1\2\3" + ip6(6, tcp(5))[4:]),
        "vlan": (0x8100, b"\0\5\x08\0" + ip4(17, UDP)),
        "qinq": (0x88A8, b"\0\7\x81\0\0\5\x08\0" + ip4(6, tcp(5))),
        "three tags": (0x8100, b"\0\7\x81\0\0\5\x81\0\0\1\x08\0" + ip4(6, tcp(5))),
        "vlan arp": (0x8100, b"\0\5\x08\6" + bytes(28)),
        "pppoe": (0x8864, b"\x11\0\0\1\0\x20\0\x21" + ip4(17, UDP)),
        "pppoe 6": (0x8864, b"\x11\0\0\1\0\x40\0\x57" + ip6(6, tcp(5))),
        "pppoe lcp": (0x8864, b"\x11\0\0\1\0\x08\xc0\x21" + bytes(16)),
        "pppoe odd": (0x8864, b"\x11\0\0\1\0\x08\xc0\x20" + bytes(16)),
        "pppoe compressed": (0x8864, b"\x11\0\0\1\0\x20\x21" + ip4(17, UDP)),
        "pppoe bad": (0x8864, b"\x21\0\0\1\0\x20\0\x21" + ip4(17, UDP)),
        "mpls": (0x8847, b"\0\1\1\x40" + ip4(17, UDP)),
        "mpls multicast": (0x8848, b"\0\1\0\x40\0\1\1\x40" + ip4(17, UDP)),
        "arp": (0x0806, bytes.fromhex("0001080006040001") + bytes(20)),
        "rarp": (0x8035, bytes.fromhex("0001080006040003") + bytes(20)),
        "fcoe": (0x8906, bytes(60)),
        "lldp": (0x88CC, bytes(60)),
        "batman": (0x4305, bytes(60)),
        "batman unicast": (0x4305, b"\x40\x0f" + bytes(20) + b"\x08\0" + ip4(17, UDP)),
        "batman of old": (0x4305, b"\x40\x0e" + bytes(20) + b"\x08\0" + ip4(17, UDP)),
        "ptp": (0x88F7, bytes(60)),
        "tipc": (0x88CA, bytes(60)),
        "cfm": (0x8902, bytes(60)),
        "hsr": (0x892F, b"\0\1\0\2\x08\0" + ip4(17, UDP)),
        "prp": (0x88FB, b"\0\1\0\2\x86\xdd" + ip6(6, tcp(5))),
        "llc": (0x0040, b"\x42\x42\3" + bytes(60)),
        "macsec": (0x88E5, bytes(60)),
        "profinet": (0x8892, bytes(60)),
        "unknown type": (0x1234, bytes(60)),
    }


def frames(mac: bytes) -> list[tuple[str, bytes]]:
    """Each payload long enough to tell answers by length, and each cut at its end."""
    out = []
    for name, (ethertype, payload) in payloads().items():
        head = mac + PEER + ethertype.to_bytes(2)
        out.append((name, (head + payload).ljust(FRAME_BYTES, b"\x11")))
        out += [(f"{name} cut {cut}", (head + payload)[: 14 + cut]) for cut in (2, 15, 21, 25, 33, 41, 61) if cut < len(payload)]
    broadcast = b"\xff" * 6 + PEER + b"\x08\0" + ip4(17, UDP)
    other = b"\x02\0\0\0\0\x77" + PEER + b"\x08\0" + ip4(17, UDP)
    return [*out, ("broadcast", broadcast.ljust(FRAME_BYTES, b"\0")), ("other host", other.ljust(FRAME_BYTES, b"\0"))]


class Scene:
    """A TAP device with a packet socket: each frame's answer, the kernel's and ours, as a captured length (0: dropped)."""

    def __init__(self) -> None:
        self.tap = TapDevice()
        self.socket = PacketSocket(self.tap)
        self.device = Device(mac=self.tap.mac, ifindex=self.tap.ifindex)

    def disagreements(self, insns: ClassicProgram, some: list[tuple[str, bytes]]) -> list[tuple[str, int, int]]:
        loaded = proved(insns)
        assert attach(self.socket.sock, insns) == 0
        self.socket.drain()
        wrong = []
        for name, frame in some:
            self.tap.write(frame)
            received = self.socket.drain()
            skb = receive(Record(1, 0, len(frame), frame, 1), self.device)
            ours = 0 if skb is None else min(loaded.run_one(skb) & 0xFFFFFFFF, skb.len)
            theirs = len(received[0]) if received else 0
            if ours != theirs:
                wrong.append((name, theirs, ours))
        return wrong

    def close(self) -> None:
        self.socket.close()
        self.tap.close()


def in_scene(work: Callable[[Scene], list[object]]) -> None:
    def body() -> list[object]:
        scene = Scene()
        try:
            return work(scene)
        finally:
            scene.close()

    assert in_new_netns(body) == []


def answering(text: str, shift: int = 0) -> ClassicProgram:
    """A filter that keeps ``(A >> shift & 0x7ff) + 1`` bytes, A being what ``text`` leaves there."""
    return cbpf.parse(f"{text}\nrsh #{shift}\nand #0x7ff\nadd #1\nret a\n")


@pytest.mark.parametrize("shift", [0, 1])  # of a cut frame half the answer is still shorter than the frame
def test_payload_offsets_of_every_kind_of_header(shift: int) -> None:
    in_scene(lambda scene: list(scene.disagreements(answering("ld poff", shift), frames(scene.tap.mac))))


def test_payload_offsets_behind_every_ip_protocol_and_ethertype() -> None:
    rows = [(f"ip {p}", 0x0800, ip4(p, bytes(range(80)))) for p in range(256)]
    rows += [(f"ip6 {p}", 0x86DD, ip6(p, bytes(range(80)))) for p in range(256)]
    rows += [(f"type {t:04x}", t, bytes(range(1, 81))) for t in range(0x8000, 0x9100)]

    def work(scene: Scene) -> list[object]:
        head = scene.tap.mac + PEER
        some = [(name, (head + ethertype.to_bytes(2) + payload).ljust(300, b"\x11")) for name, ethertype, payload in rows]
        return list(scene.disagreements(answering("ld poff"), some))

    in_scene(work)


ANCILLARY = ["proto", "type", "ifidx", "mark", "queue", "hatype", "vlan_tci", "vlan_avail", "vlan_tpid", "len"]


def test_ancillary_words() -> None:
    def work(scene: Scene) -> list[object]:
        some = [(name, frame) for name, frame in frames(scene.tap.mac) if len(frame) == FRAME_BYTES]
        wrong: list[object] = []
        for word in ANCILLARY:
            for shift in (0, 11, 22):
                wrong += [(word, shift, *row) for row in scene.disagreements(answering(f"ld {word}", shift), some)]
        return wrong

    in_scene(work)


def nlattrs(*rows: tuple[int, int, bytes]) -> bytes:
    """(length, type, payload) rows, padded to 4 as they lie in a message."""
    return b"".join(struct.pack("<HH", length, kind) + data.ljust(-(-len(data) // 4) * 4, b"\0") for length, kind, data in rows)


def test_netlink_attributes() -> None:
    inner = nlattrs((8, 7, b"abcd"), (6, 9, b"xy"), (4, 3, b""))
    good = nlattrs((8, 1, b"abcd"), (5, 2, b"z"), (4 + len(inner), 0x8005, inner), (8, 9, b"tail"))
    damaged = nlattrs((8, 1, b"abcd"), (3, 2, b""), (8, 9, b"tail"))
    filters = [
        f"ldx #{x}\nld #{a}\nld {word}" for word in ("nla", "nlan") for x in (1, 2, 3, 5, 7, 9, 77)
        for a in (14, 16, 22, 30, 34, 50, 70, 2596, 2597, 5000, -1)
    ]  # fmt: skip

    def work(scene: Scene) -> list[object]:
        head = scene.tap.mac + PEER + b"\x12\x34"
        messages = {"good": good, "damaged": damaged, "ones": b"\xff" * 99}
        some = [(name, (head + data).ljust(FRAME_BYTES, b"\0")) for name, data in messages.items()]
        return [(text, *row) for text in filters for row in scene.disagreements(answering(text), some)]

    in_scene(work)


def test_random_filters_on_packets() -> None:
    """Arithmetic, jumps, scratch memory and loads together; what we refuse is not attached."""
    rng = random.Random(66)

    def one() -> ClassicProgram:
        body = []
        count = rng.randrange(4, 24)
        for pc in range(count):
            code = rng.choice(CODES)
            left = count - pc
            jt, jf = rng.randrange(min(left, 4) + 1), rng.randrange(min(left, 4) + 1)
            k = rng.choice((*KS, *range(40), 0xFFF00000 + rng.randrange(30), 0xFFE00000 + rng.randrange(30)))
            if code in (0x06, 0x16) or k in (0xFFFFF024, 0xFFFFF038):
                code, k = 0x04, 3
            k = rng.randrange(4) if code in SCRATCH else rng.randrange(min(left, 5)) if code == 0x05 else k
            body.append(SockFilter(code, jt, jf, k) if code in CONDITIONAL_JUMPS else BPF_STMT(code, k))
        stores = [BPF_STMT(0x02, i) for i in range(4)]
        tail = [BPF_STMT(0x54, 0x7FF), BPF_STMT(0x04, 1), BPF_STMT(0x16, 0)]
        return (*stores, *body, *tail)

    def work(scene: Scene) -> list[object]:
        names = ("tcp options", "qinq", "udp6", "arp", "udp cut 21")
        some = [(name, frame) for name, frame in frames(scene.tap.mac) if name in names]
        wrong: list[object] = []
        ran = 0
        while ran < 250:
            insns = one()
            try:
                check_classic(insns)
            except ProgramRejected:
                continue
            ran += 1
            wrong += [(cbpf.format_d(insns), *row) for row in scene.disagreements(insns, some)]
        return wrong

    in_scene(work)


@pytest.mark.skipif(not find_libpcap(), reason="no libpcap here")
@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
def test_expressions_on_packets(optimize: bool) -> None:
    """What libpcap compiles, attached here and there; the kernel refuses what jumps backwards, and so do we."""
    expressions = EXPRESSIONS if optimize else EXPRESSIONS[::4]
    filters = {text: compile_expression(text, optimize=optimize) for text in expressions}

    def work(scene: Scene) -> list[object]:
        every = frames(scene.tap.mac)
        some = [(name, frame) for name, frame in every if "cut" not in name or name.endswith(("cut 21", "cut 33"))]
        wrong: list[object] = []
        for text, insns in filters.items():
            try:
                check_classic(insns)
            except ProgramRejected:
                assert attach(scene.socket.sock, insns) == 22, text
                continue
            wrong += [(text, *row) for row in scene.disagreements(insns, some[:: 1 if optimize else 4])]
        return wrong

    in_scene(work)
