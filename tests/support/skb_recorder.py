"""A socket filter that keeps what it sees of each packet: the fields of struct __sk_buff that socket filters may read, the packet
from skb->data on and from the network header on. What is random in packets (identifications, sequence numbers, flow labels) is
taken out, so that two hosts can be compared."""

from __future__ import annotations

import struct
import time
from typing import Any, Final

from netbpf.abi.context import SK_BUFF_FIELDS
from netbpf.isa import builders as b
from netbpf.isa.instruction import Program
from netbpf.maps.spec import MapSpec

QUEUE: Final = 22  # BPF_MAP_TYPE_QUEUE
FIELDS: Final = (
    *("len", "pkt_type", "mark", "queue_mapping", "protocol", "vlan_present", "vlan_tci", "vlan_proto", "priority"),
    *("ingress_ifindex", "ifindex", "tc_index", "napi_id", "gso_segs", "gso_size", "hash"),
)
OFFSETS: Final = {field.name: field.off for field in SK_BUFF_FIELDS}
DATA_BYTES, NET_BYTES = 40, 40
RECORD_BYTES: Final = 4 * len(FIELDS) + DATA_BYTES + NET_BYTES
SKB_LOAD_BYTES, SKB_LOAD_BYTES_RELATIVE, MAP_PUSH_ELEM = 26, 68, 87


def recording(queue_fd: int, verdict: int = -1) -> Program:
    """The program; it answers ``verdict``."""
    base = -RECORD_BYTES
    insns: list[Any] = [b.BPF_MOV64_REG(6, 1)]
    insns += [b.BPF_ST_MEM(b.BPF_DW, 10, base + at, 0) for at in range(0, RECORD_BYTES, 8)]
    for i, name in enumerate(FIELDS):
        insns += [b.BPF_LDX_MEM(b.BPF_W, 1, 6, OFFSETS[name]), b.BPF_STX_MEM(b.BPF_W, 10, 1, base + 4 * i)]
    at = base + 4 * len(FIELDS)
    for start, size in ((0, 8), (8, 12), (20, 20)):  # what does not fit leaves zeros
        insns += [*_copy(start, size, at + start), b.BPF_CALL_FUNC(SKB_LOAD_BYTES)]
    for start, size in ((0, 20), (20, 20)):
        insns += [*_copy(start, size, at + DATA_BYTES + start), b.BPF_MOV64_IMM(5, 1), b.BPF_CALL_FUNC(SKB_LOAD_BYTES_RELATIVE)]
    insns += [b.BPF_LD_MAP_FD(1, queue_fd), b.BPF_MOV64_REG(2, 10), b.BPF_ALU64_IMM(b.BPF_ADD, 2, base)]
    insns += [b.BPF_MOV64_IMM(3, 0), b.BPF_CALL_FUNC(MAP_PUSH_ELEM), b.BPF_MOV64_IMM(0, verdict), b.BPF_EXIT_INSN()]
    return b.assemble(*insns)


def _copy(start: int, size: int, to: int) -> list[Any]:
    return [
        b.BPF_MOV64_REG(1, 6),
        b.BPF_MOV64_IMM(2, start),
        b.BPF_MOV64_REG(3, 10),
        b.BPF_ALU64_IMM(b.BPF_ADD, 3, to),
        b.BPF_MOV64_IMM(4, size),
    ]


class SkbRecorder:
    """The program and its queue in a process."""

    def __init__(self, process: Any, verdict: int = -1) -> None:
        self._process = process
        self._queue = process.map_create(MapSpec(QUEUE, 0, RECORD_BYTES, 4096))
        self.prog = process.prog_load(recording(self._queue, verdict))

    def attach(self, sock: Any) -> Any:
        sock.setsockopt(1, 50, self.prog)
        return sock

    def seen(self, wait_s: float = 0.0) -> list[str]:
        """What was seen since last asked, random parts masked; waits so long for the first."""
        deadline = time.monotonic() + wait_s
        out: list[str] = []
        while True:
            try:
                out.append(_tell(self._process.map_lookup_and_delete_elem(self._queue, b"")))
            except OSError:
                if out or time.monotonic() >= deadline:
                    return out
                time.sleep(0.001)


def _tell(record: bytes) -> str:
    values = dict(zip(FIELDS, struct.unpack_from(f"<{len(FIELDS)}I", record), strict=True))
    values["hash"] = bool(values["hash"])
    at = 4 * len(FIELDS)
    data, net = bytearray(record[at : at + DATA_BYTES]), bytearray(record[at + DATA_BYTES :])
    shown = {name: value for name, value in values.items() if value}
    return f"{shown} {mask_network(net).hex()} {_mask_data(data, net).hex()}"


def mask_network(net: bytearray) -> bytearray:
    """Without an IP header's random parts, in place."""
    if net[0] >> 4 == 4:
        net[4:6], net[10:12] = bytes(2), bytes(2)
        if net[9] == 6:
            net[20:] = bytes(len(net) - 20)
    elif net[0] >> 4 == 6:
        net[1:4] = bytes((net[1] & 0xF0, 0, 0))
    return net


def _mask_data(data: bytearray, net: bytearray) -> bytearray:
    """Without what is random in a TCP segment, or in the IP header that a raw socket sees."""
    if data[:1] == net[:1] == b"\x45" and data[9] == net[9]:
        return mask_network(data)
    protocol = net[9] if net[0] >> 4 == 4 else net[6] if net[0] >> 4 == 6 else 0
    if protocol == 6:
        data[4:12], data[16:18] = bytes(8), bytes(2)
        options = data.find(b"\x08\x0a", 20)
        if options >= 0:
            data[options + 2 : options + 10] = bytes(len(data[options + 2 : options + 10]))
    return data
