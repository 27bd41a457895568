"""Our sk_buff against the kernel's: frames written into a TAP device, read by a program on a real packet socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from support.kernel import needs_kernel
from support.kernel_socket import ArrayMap, PacketSocket, TapDevice, in_new_netns, insn, load_filter, map_value

from netbpf.abi.context import SK_BUFF_FIELDS
from netbpf.packet.context import context_value
from netbpf.packet.device import Device
from netbpf.packet.load import load, skb_load_bytes, skb_load_bytes_relative
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff

pytestmark = needs_kernel

FIELDS = (
    *("len", "pkt_type", "mark", "queue_mapping", "protocol", "vlan_present", "vlan_tci", "vlan_proto", "priority"),
    *("ingress_ifindex", "ifindex", "tc_index", "hash", "napi_id", "gso_segs", "gso_size"),
)
OFFSETS = {field.name: field.off for field in SK_BUFF_FIELDS}
PEER = bytes.fromhex("020000000001")
UNTOUCHED, SKF_NET_OFF, SKF_LL_OFF = 0xDEAD, -0x100000, -0x200000

IPV4_UDP = bytes.fromhex("45000020000100004011000001020304050607080001000200 0c0000deadbeef".replace(" ", ""))
IPV4_FRAGMENT = bytes.fromhex("4500001c0001200540110000010203040506070800010002 00080000".replace(" ", ""))
IPV6_HOPOPTS = bytes.fromhex(
    "6000000000100040" + "fe80" + "00" * 13 + "01" + "ff02" + "00" * 13 + "01" + "3a00050200000000" + "8000" * 4
)
ARP = bytes.fromhex("0001080006040001") + PEER + bytes.fromhex("0a000001000000000000 0a000002".replace(" ", ""))


def frames(mac: bytes) -> dict[str, bytes]:
    """The grid: destinations by payloads, then every odd tag and length."""
    types = {
        "ip": b"\x08\0" + IPV4_UDP,
        "frag": b"\x08\0" + IPV4_FRAGMENT,
        "ip6": b"\x86\xdd" + IPV6_HOPOPTS,
        "arp": b"\x08\x06" + ARP,
    }
    destinations = {
        "host": mac,
        "broadcast": b"\xff" * 6,
        "multicast": b"\x01\0\x5e\0\0\1",
        "other": b"\4" * 6,
        "almost": b"\xff" * 5 + b"\xfe",
    }
    grid = {f"{d}-{t}": to + PEER + body for d, to in destinations.items() for t, body in types.items()}
    tags = {
        "8021q": "81002005",
        "8021ad": "88a8e006",
        "priority": "81000000",
        "qinq": "88a8200581000007",
        "8021q-twice": "8100200581000007",
        "9100": "91002005",
        "9200": "92000001",
        "three": "810000018100000281000003",
        "max-tci": "8100ffff",
    }
    for name, tag in tags.items():
        for t, body in types.items():
            grid[f"{name}-{t}"] = mac + PEER + bytes.fromhex(tag) + body
    for name, rest in {
        "llc": "0010" + "42" * 16,
        "ipx": "0010" + "ff" * 16,
        "5ff": "05ff" + "00" * 20,
        "600": "0600" + "00" * 20,
        "zero": "0000" + "ff" * 9,
        "vlan-llc": "81000001" + "0010" + "42" * 16,
        "vlan-ipx": "81000001" + "0010" + "ff" * 16,
        "one-byte-llc": "0001ff",
        "two-byte": "0001ffff",
        "mpls": "8847" + "00" * 20,
        "loop": "9000" + "00" * 20,
    }.items():
        grid[name] = mac + PEER + bytes.fromhex(rest)
    plain, vlan = mac + PEER + types["ip"], mac + PEER + b"\x81\0\0\5" + types["ip"]
    for n in range(25):
        grid[f"cut-{n}"], grid[f"vlan-cut-{n}"] = plain[:n], vlan[:n]
    grid["jumbo"] = plain + bytes(range(256)) * 30
    grid["full"] = plain.ljust(1514, b"\x55")
    return grid


def ip_packets() -> dict[str, bytes]:
    """For a TUN device: no link header."""
    return {
        "ip": IPV4_UDP,
        "ip6": IPV6_HOPOPTS,
        "one": b"\x45",
        "version-5": b"\x55" * 20,
        "version-0": b"\0" * 20,
        "short6": b"\x60",
    }


@dataclass
class Scene:
    """A device with a socket on it, and the map that programs answer in."""

    device: TapDevice
    socket: PacketSocket
    answers: ArrayMap
    view: str
    linktype: int

    def ours(self, frame: bytes) -> SkBuff | None:
        device = Device(mac=self.device.mac if self.linktype == 1 else None, ifindex=self.device.ifindex)
        return receive(Record(1, 0, len(frame), frame, self.linktype), device, self.view)

    def ask(self, frame: bytes, *question: int) -> tuple[int, ...] | None:
        """The map after the program has seen ``frame``; None where it did not run. ``question`` is put in from word 1 on."""
        self.answers.write([UNTOUCHED, *question])
        self.device.write(frame)
        answer = self.answers.read()
        return None if answer[0] == UNTOUCHED else answer

    def run(self, code: bytes) -> None:
        fd = load_filter(insn(0xBF, 6, 1) + map_value(self.answers.fd, 7) + code)
        self.socket.attach(fd)
        os.close(fd)


@contextmanager
def scene_of(*, tun: bool, dgram: bool) -> Iterator[Scene]:
    device, answers = TapDevice(tun=tun), ArrayMap(64)
    packet_socket = PacketSocket(device, dgram=dgram)
    try:
        yield Scene(device, packet_socket, answers, "packet_dgram" if dgram else "packet_raw", 101 if tun else 1)
    finally:
        packet_socket.close()
        answers.close()
        device.close()


def in_every_scene(work: Callable[[Scene], None]) -> None:
    """``work`` for TAP and TUN, SOCK_RAW and SOCK_DGRAM, in a namespace of its own."""

    def body() -> bool:
        for tun in (False, True):
            for dgram in (False, True):
                with scene_of(tun=tun, dgram=dgram) as scene:
                    work(scene)
        return True

    assert in_new_netns(body)


def store(word: int, reg: int) -> bytes:
    return insn(0x63, 7, reg, 4 * word)


RETURN_ALL = insn(0xB7, 0, 0, 0, -1) + insn(0x95)
MARK_RUN = insn(0x62, 7, 0, 0, 1)


def test_context_fields_read_as_the_kernels() -> None:
    def work(scene: Scene) -> None:
        reads = [insn(0x61, 1, 6, OFFSETS[name]) + store(i + 1, 1) for i, name in enumerate(FIELDS)]
        cb = [insn(0x61, 1, 6, OFFSETS["cb"] + 4 * i) + store(len(FIELDS) + 1 + i, 1) for i in range(5)]
        scene.run(MARK_RUN + b"".join(reads + cb) + RETURN_ALL)
        scene.socket.drain()
        for name, frame in (frames(scene.device.mac) if scene.linktype == 1 else ip_packets()).items():
            theirs, skb = scene.ask(frame), scene.ours(frame)
            assert (theirs is None) == (skb is None), (name, scene.view)
            received = scene.socket.drain()
            if skb is None or theirs is None:
                assert received == [], name
                continue
            values = [context_value(skb, field) for field in FIELDS] + [context_value(skb, "cb", i) for i in range(5)]
            assert dict(zip(FIELDS, values, strict=False)) == dict(zip(FIELDS, theirs[1:], strict=False)), (name, scene.view)
            assert tuple(values) == theirs[1 : 1 + len(values)], name
            assert received == [skb.head[skb.data_off :]], name

    in_every_scene(work)


def edge_offsets(length: int) -> list[int]:
    """Offsets around every border: the packet's two ends, the headers, 16 bits and 32 bits."""
    near = [*range(-20, 24), *range(length - 18, length + 4)]
    low = [base + k for base in (SKF_NET_OFF, SKF_LL_OFF) for k in near]
    wide = [0xFFFF, 0x10000, 0x7FFFFFFF, 0x7FFFFFFC, -0x80000000, -0x1000, -0x1000 + 4, -0x7FFFFFFF]
    return sorted({v & 0xFFFFFFFF for v in near + low + wide})


LOAD_FRAMES = ("host-ip", "8021q-ip", "qinq-ip6", "cut-14", "cut-17", "vlan-cut-20", "llc", "jumbo")


@pytest.mark.parametrize("size_code", [0x10, 0x08, 0x00], ids=["B", "H", "W"])
def test_ld_ind_reaches_as_far_as_the_kernels(size_code: int) -> None:
    size = {0x10: 1, 0x08: 2, 0x00: 4}[size_code]

    def work(scene: Scene) -> None:
        # word 1 tells the offset; word 0 becomes 2 before the load and 1 behind it, word 2 holds what was loaded
        scene.run(
            insn(0x61, 8, 7, 4) + insn(0x62, 7, 0, 0, 2) + insn(0x40 | size_code, 0, 8) + store(2, 0) + MARK_RUN + RETURN_ALL
        )
        grid = frames(scene.device.mac) if scene.linktype == 1 else ip_packets()
        for name in LOAD_FRAMES if scene.linktype == 1 else grid:
            skb = scene.ours(grid[name])
            if skb is None:
                continue
            for offset in edge_offsets(skb.len):
                answer = scene.ask(grid[name], offset)
                assert answer is not None
                theirs = answer[2] if answer[0] == 1 else None
                assert load(skb, offset, size) == theirs, (name, scene.view, hex(offset), size)

    in_every_scene(work)


@pytest.mark.parametrize("offset", [0, 12, 13, 38, 39, 41, 42, SKF_NET_OFF, SKF_NET_OFF + 9, SKF_LL_OFF + 12, SKF_LL_OFF - 1, -1])
def test_ld_abs_is_ld_ind_of_nothing(offset: int) -> None:
    def work(scene: Scene) -> None:
        frame = frames(scene.device.mac)["host-frag"] if scene.linktype == 1 else IPV4_FRAGMENT
        skb = scene.ours(frame)
        assert skb is not None
        for size_code, size in ((0x10, 1), (0x08, 2), (0x00, 4)):
            scene.run(insn(0x62, 7, 0, 0, 2) + insn(0x20 | size_code, 0, 0, 0, offset) + store(2, 0) + MARK_RUN + RETURN_ALL)
            answer = scene.ask(frame)
            assert answer is not None
            assert load(skb, offset, size) == (answer[2] if answer[0] == 1 else None), (offset, size)

    in_every_scene(work)


def load_bytes_program(size: int, start_header: int | None) -> bytes:
    """word 0 = 1, word 1 tells the offset, word 2 = the helper's result, words 4.. = the ``size`` bytes it wrote."""
    first = -round_up8(size)
    fill = b"".join(insn(0x7A, 10, 0, first + 8 * i, 0x5A5A5A5A) for i in range(-first // 8))
    args = insn(0x61, 2, 7, 4) + insn(0xBF, 1, 6) + insn(0xBF, 3, 10) + insn(0x07, 3, 0, 0, first) + insn(0xB7, 4, 0, 0, size)
    call = insn(0x85, 0, 0, 0, 26) if start_header is None else insn(0xB7, 5, 0, 0, start_header) + insn(0x85, 0, 0, 0, 68)
    copy = b"".join(insn(0x79, 1, 10, first + 8 * i) + insn(0x7B, 7, 1, 16 + 8 * i) for i in range(-first // 8))
    return MARK_RUN + fill + args + call + store(2, 0) + copy + RETURN_ALL


def round_up8(n: int) -> int:
    return -(-n // 8) * 8


@pytest.mark.parametrize("start_header", [None, 0, 1, 2], ids=["data", "mac", "net", "neither"])
@pytest.mark.parametrize("size", [1, 7, 16])
def test_skb_load_bytes_reaches_as_far_as_the_kernels(size: int, start_header: int | None) -> None:
    def work(scene: Scene) -> None:
        scene.run(load_bytes_program(size, start_header))
        grid = frames(scene.device.mac) if scene.linktype == 1 else ip_packets()
        for name in ("host-ip", "8021q-ip", "cut-14", "vlan-cut-20") if scene.linktype == 1 else ("ip6", "one"):
            skb = scene.ours(grid[name])
            assert skb is not None
            for offset in edge_offsets(skb.len):
                answer = scene.ask(grid[name], offset)
                assert answer is not None
                wrote = b"".join(w.to_bytes(4, "little") for w in answer[4:])[:size]
                ours = (
                    skb_load_bytes(skb, offset, size)
                    if start_header is None
                    else skb_load_bytes_relative(skb, offset, size, start_header)
                )
                expected = (0, ours) if ours is not None else (0xFFFFFFF2, bytes(size))
                assert (answer[2], wrote) == expected, (name, scene.view, hex(offset))

    in_every_scene(work)


def test_outgoing_packets_read_as_the_kernels() -> None:
    def work(scene: Scene) -> None:
        if scene.linktype != 1:
            return
        reads = [insn(0x61, 1, 6, OFFSETS[name]) + store(i + 1, 1) for i, name in enumerate(FIELDS)]
        scene.run(MARK_RUN + b"".join(reads) + RETURN_ALL)
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sender:
            sender.bind((scene.device.name, 0))
            for kind in ("ip", "frag", "ip6", "arp"):
                frame = frames(scene.device.mac)[f"other-{kind}"]
                scene.answers.write([UNTOUCHED])
                sender.send(frame)
                device = Device(mac=scene.device.mac, ifindex=scene.device.ifindex)
                skb = receive(Record(1, 0, len(frame), frame, direction=2), device, scene.view)
                assert skb is not None
                ours = [context_value(skb, field) for field in FIELDS]
                assert dict(zip(FIELDS, ours, strict=True)) == dict(zip(FIELDS, scene.answers.read()[1:], strict=False)), kind

    in_every_scene(work)
