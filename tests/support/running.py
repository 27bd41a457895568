"""Recorded programs made live without a verifier: their maps, their instructions, the sk_buff of BPF_PROG_TEST_RUN."""

from __future__ import annotations

from typing import Any

from netbpf.abi.maps import MAP_KIND_BY_NAME
from netbpf.abi.prog_types import ProgType
from netbpf.isa.instruction import Instruction, Program, decode
from netbpf.isa.opcodes import BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE
from netbpf.maps.base import Map
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec
from netbpf.packet.skbuff import SkBuff
from netbpf.program import Subprog, VerifiedProgram

ETH_HLEN = 14
ZERO64 = bytes(64)
TCP_FRAME = bytes.fromhex(
    "00112233445566778899aabb08004500003a12344000400614880a0000010a00000230390050010203040506070850182000917c0000"
    "474554202f20485454502f312e310d0a0d0a"
)
FRAMES = {"zero64": ZERO64, "tcp": TCP_FRAME}


def loopback_skb(frame: bytes, *, is_l2: bool = False) -> SkBuff:
    """What BPF_PROG_TEST_RUN makes of a frame on the loopback device: the Ethernet header pulled, unless ``is_l2``."""
    ethertype = int.from_bytes(frame[12:14])
    is_ip = ethertype == 0x800
    return SkBuff(
        has_sk=True,
        family=2 if is_ip else 0,
        local_ip4=int.from_bytes(frame[26:30]) if is_ip else 0,
        remote_ip4=int.from_bytes(frame[30:34]) if is_ip else 0,
        head=frame,
        len=len(frame) - (0 if is_l2 else ETH_HLEN),
        data_off=0 if is_l2 else ETH_HLEN,
        transport_header=ETH_HLEN,
        protocol=ethertype if ethertype >= 0x600 else 4,
        pkt_type=0 if frame[:6] == bytes(6) else 3,
        ifindex=1,
        wire_len=len(frame) - (0 if is_l2 else ETH_HLEN),
    )


def record_spec(name: str, m: dict[str, Any]) -> MapSpec:
    inner = record_spec("", m["inner"]) if m.get("inner") else None
    return MapSpec(
        MAP_KIND_BY_NAME[m["type"]].type, m["key_size"], m["value_size"], m["max_entries"], m["map_flags"], name, inner=inner
    )


def record_map(name: str, m: dict[str, Any]) -> Map:
    """A live map with its recorded contents."""
    spec = record_spec(name, m)
    live = create(spec)
    for key, value in (m.get("contents") or {}).items():
        whole = bytes.fromhex(value).ljust(spec.value_size, b"\0")
        live.update(bytes.fromhex(key)[: spec.key_size].ljust(spec.key_size, b"\0"), whole)
    return live


# What the selftests put into their program arrays: instructions (R0 and exit, or a tail call to itself first).
SLOT_PROGRAMS = {
    "dummy_prog_42_socket": "b70000002a0000009500000000000000",
    "dummy_prog_24_socket": "b7000000180000009500000000000000",
    "dummy_prog_loop1_socket": "b70300000100000018520000000000000000000000000000850000000c000000b7000000290000009500000000000000",
    "dummy_prog_loop2_socket": "b70300000100000018520000000000000000000000000000850000000c000000b7000000290000009500000000000000",
}


def record_program(record: dict[str, Any]) -> VerifiedProgram:
    """The program of a vector record with maps of its own, unproved."""
    maps = record.get("maps") or {}
    insns = relocate(decode(bytes.fromhex(record["insns"])), list(maps), record.get("map_relocs") or [])
    program = unproved(insns, tuple(record_map(name, m) for name, m in maps.items()), record["prog_type"], 1)
    for m, live in zip(maps.values(), program.maps, strict=True):
        if m.get("prog_slots"):
            fill_prog_array(live, m["prog_slots"], program)
    return program


def unproved(insns: Program, maps: tuple[Map, ...] = (), prog_type: str = "socket_filter", prog_id: int = 0) -> VerifiedProgram:
    subprogs = (Subprog(0, len(insns), 512),)
    return VerifiedProgram(insns, ProgType[prog_type.upper()], maps, subprogs, prog_id=prog_id, proved=False)


def fill_prog_array(live: Any, slots: dict[str, str], itself: VerifiedProgram) -> None:
    """Put the selftests' programs into a program array; a nameless slot holds the program that uses the array."""
    for number, (index, name) in enumerate(slots.items(), 2):
        target = unproved(decode(bytes.fromhex(SLOT_PROGRAMS[name])), (live,), prog_id=number) if name else itself
        live.put(int(index).to_bytes(4, "little"), target)


def relocate(insns: Program, names: list[str], relocs: list[list[Any]]) -> Program:
    """Write map indexes where the recorded relocations say."""
    out = list(insns)
    for slot, name, kind, offset in relocs:
        lo, hi = out[slot], out[slot + 1]
        src = BPF_PSEUDO_MAP_IDX_VALUE if kind == "value" else BPF_PSEUDO_MAP_IDX
        out[slot] = Instruction(lo.code, lo.dst, src, lo.off, names.index(name))
        out[slot + 1] = hi._replace(imm=offset if kind == "value" else 0)
    return tuple(out)
