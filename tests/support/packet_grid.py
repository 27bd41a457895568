"""Frames and filters that the packet-socket comparisons use."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from netbpf.abi.context import SK_BUFF_FIELDS
from netbpf.isa import builders as b
from netbpf.isa.instruction import Instruction, Program
from netbpf.packet.open import open_capture

PCAPS = Path(__file__).resolve().parents[2] / "pcaps"
MAC = bytes.fromhex("020000000001")  # the host of the captures in pcaps/
PEER = bytes.fromhex("020000000002")
IPV4 = bytes.fromhex("450000200001000040110000010203040506070800010002000c0000deadbeef00000000")
IPV6 = bytes.fromhex("6000000000081140" + "fe80" + "00" * 13 + "01" + "ff02" + "00" * 13 + "01" + "0001000200080000")


SK_BUFF = {field.name: field.off for field in SK_BUFF_FIELDS}


def own_frames() -> dict[str, bytes]:
    """Destinations, tags of every order, lengths around every edge."""
    out = {}
    bodies = {
        "ip": b"\x08\0" + IPV4,
        "ip6": b"\x86\xdd" + IPV6,
        "arp": b"\x08\x06" + bytes(28),
        "llc": b"\0\x20\xaa\xaa" + bytes(38),
    }
    places = {"us": MAC, "all": b"\xff" * 6, "group": bytes.fromhex("01005e000001"), "other": bytes.fromhex("02000000ff03")}
    for place, to in places.items():
        for name, body in bodies.items():
            out[f"{place} {name}"] = to + PEER + body
    tags = (
        "81002005",
        "88a8e006",
        "81000000",
        "88a82005 81000007",
        "81002005 81000007",
        "88a80001 88a80002 81000003",
        "91000005",
    )
    for tag in tags:
        raw = bytes.fromhex(tag)
        out[f"tag {tag}"] = MAC + PEER + raw + bodies["ip"]
        out[f"tag {tag} ip6"] = MAC + PEER + raw + bodies["ip6"]
        out[f"tag {tag} to another"] = places["other"] + PEER + raw + bodies["ip"]
    for size in (*range(24), 59, 60, 61, 1514, 1515, 9014, 9015, 9018, 9019, 65550, 65551):
        out[f"length {size}"] = (MAC + PEER + b"\x08\0" + IPV4 + bytes(66000))[:size]
        out[f"tagged length {size}"] = (MAC + PEER + bytes.fromhex("81002005") + b"\x08\0" + IPV4 + bytes(66000))[:size]
    return out


def capture_frames(each: int = 60) -> dict[str, bytes]:
    """The first frames of every Ethernet capture in pcaps/, without what is cut."""
    out = {}
    for path in sorted(PCAPS.glob("*.pcap*")):
        if "damaged" in path.name:
            continue
        with open_capture(path) as records:
            for record in islice(records, each):
                if record.linktype == 1 and record.caplen == record.wirelen:
                    out[f"{path.name}#{record.number}"] = record.data
    return out


def _verdict(*insns: Instruction | Sequence[Instruction]) -> Program:
    return b.assemble(b.BPF_MOV64_REG(b.BPF_REG_6, b.BPF_REG_1), *insns, b.BPF_EXIT_INSN())


def _field(offset: int) -> Program:
    return _verdict(b.BPF_LDX_MEM(b.BPF_W, b.BPF_REG_0, b.BPF_REG_6, offset))


FILTERS: dict[str, Program] = {
    "drop": _verdict(b.BPF_MOV64_IMM(b.BPF_REG_0, 0)),
    "keep": _verdict(b.BPF_MOV64_IMM(b.BPF_REG_0, -1)),
    "one byte": _verdict(b.BPF_MOV64_IMM(b.BPF_REG_0, 1)),
    "40 bytes": _verdict(b.BPF_MOV64_IMM(b.BPF_REG_0, 40)),
    "low half 0": _verdict(b.BPF_LD_IMM64(b.BPF_REG_0, 1 << 32)),
    "skb->len": _field(0),
    "one less": _verdict(b.BPF_LDX_MEM(b.BPF_W, b.BPF_REG_0, b.BPF_REG_6, 0), b.BPF_ALU64_IMM(b.BPF_ADD, b.BPF_REG_0, -1)),
    **{name: _field(SK_BUFF[name]) for name in ("mark", "queue_mapping", "priority", "tc_index", "hash", "napi_id", "gso_segs")},
    "pkt_type": _field(4),
    "protocol": _field(16),
    "vlan_present": _field(20),
    "vlan_tci": _field(24),
    "vlan_proto": _field(28),
    "byte 14": _verdict(b.BPF_LD_ABS(b.BPF_B, 14)),
    "byte 23": _verdict(b.BPF_LD_ABS(b.BPF_B, 23)),
    "half 12": _verdict(b.BPF_LD_ABS(b.BPF_H, 12)),
    "word 30": _verdict(b.BPF_LD_ABS(b.BPF_W, 30), b.BPF_ALU64_IMM(b.BPF_AND, b.BPF_REG_0, 0xFFF)),
    "byte 1500": _verdict(b.BPF_LD_ABS(b.BPF_B, 1500), b.BPF_MOV64_IMM(b.BPF_REG_0, 9)),
    "net byte 9": _verdict(b.BPF_LD_ABS(b.BPF_B, -0x100000 + 9)),
    "ll byte 5": _verdict(b.BPF_LD_ABS(b.BPF_B, -0x200000 + 5), b.BPF_ALU64_IMM(b.BPF_ADD, b.BPF_REG_0, 1)),
}


def counting(map_fd: int) -> Program:
    """The manual page's program."""
    return b.assemble(
        b.BPF_MOV64_REG(b.BPF_REG_6, b.BPF_REG_1),
        b.BPF_LD_ABS(b.BPF_B, 14 + 9),
        b.BPF_STX_MEM(b.BPF_W, b.BPF_REG_10, b.BPF_REG_0, -4),
        b.BPF_MOV64_REG(b.BPF_REG_2, b.BPF_REG_10),
        b.BPF_ALU64_IMM(b.BPF_ADD, b.BPF_REG_2, -4),
        b.BPF_LD_MAP_FD(b.BPF_REG_1, map_fd),
        b.BPF_CALL_FUNC(b.BPF_FUNC_map_lookup_elem),
        b.BPF_JMP_IMM(b.BPF_JEQ, b.BPF_REG_0, 0, 2),
        b.BPF_MOV64_IMM(b.BPF_REG_1, 1),
        b.BPF_XADD(b.BPF_DW, b.BPF_REG_0, b.BPF_REG_1, 0, 0),
        b.BPF_MOV64_IMM(b.BPF_REG_0, 0),
        b.BPF_EXIT_INSN(),
    )
