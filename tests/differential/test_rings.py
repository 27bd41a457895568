"""What a socket's program tells user space by a ring buffer and by perf events: the same records from both hosts."""

from __future__ import annotations

import os
import struct
from typing import Any

from support.kernel import needs_kernel
from support.packet_grid import MAC, PEER

from netbpf.abi import sockopt as so
from netbpf.host.choose import get_host
from netbpf.host.lab import Lab, open_packet_socket
from netbpf.isa import builders as b
from netbpf.isa.instruction import Program
from netbpf.maps.spec import MapSpec

pytestmark = needs_kernel
FRAMES = [MAC + PEER + b"\x08\0" + bytes([n]) * (50 + n) for n in range(20)]
R = [getattr(b, f"BPF_REG_{n}") for n in range(11)]


def to_ringbuf(fd: int) -> Program:
    """bpf_ringbuf_output(&ring, {skb->len, byte 14}, 8, 0)"""
    return b.assemble(
        b.BPF_MOV64_REG(R[6], R[1]),
        b.BPF_LDX_MEM(b.BPF_W, R[7], R[6], 0),
        b.BPF_LD_ABS(b.BPF_B, 14),
        b.BPF_STX_MEM(b.BPF_W, R[10], R[7], -8),
        b.BPF_STX_MEM(b.BPF_W, R[10], R[0], -4),
        b.BPF_LD_MAP_FD(R[1], fd),
        b.BPF_MOV64_REG(R[2], R[10]),
        b.BPF_ALU64_IMM(b.BPF_ADD, R[2], -8),
        b.BPF_MOV64_IMM(R[3], 8),
        b.BPF_MOV64_IMM(R[4], 0),
        b.BPF_CALL_FUNC(b.BPF_FUNC_ringbuf_output),
        b.BPF_MOV64_IMM(R[0], 0),
        b.BPF_EXIT_INSN(),
    )


def to_perf(fd: int) -> Program:
    """bpf_perf_event_output(skb, &events, BPF_F_CURRENT_CPU | 20 << 32, {skb->len}, 4)"""
    return b.assemble(
        b.BPF_MOV64_REG(R[6], R[1]),
        b.BPF_LDX_MEM(b.BPF_W, R[7], R[6], 0),
        b.BPF_STX_MEM(b.BPF_W, R[10], R[7], -4),
        b.BPF_MOV64_REG(R[1], R[6]),
        b.BPF_LD_MAP_FD(R[2], fd),
        b.BPF_LD_IMM64(R[3], 20 << 32 | 0xFFFFFFFF),
        b.BPF_MOV64_REG(R[4], R[10]),
        b.BPF_ALU64_IMM(b.BPF_ADD, R[4], -4),
        b.BPF_MOV64_IMM(R[5], 4),
        b.BPF_CALL_FUNC(b.BPF_FUNC_perf_event_output),
        b.BPF_MOV64_IMM(R[0], 0),
        b.BPF_EXIT_INSN(),
    )


def send(lab: Lab, prog: Program) -> None:
    sock: Any = open_packet_socket(lab)
    sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, lab.process.prog_load(prog))
    for frame in FRAMES:
        lab.device.deliver(frame)
    sock.close()


def test_ring_buffer() -> None:
    told = {}
    for backend in ("sim", "kernel"):
        with get_host(backend).lab(mac=MAC) as lab:
            fd = lab.process.map_create(MapSpec(27, 0, 0, 4096))
            for _ in range(30):  # around the end of the ring
                send(lab, to_ringbuf(fd))
                told.setdefault(backend, []).append(lab.process.ringbuf_read(fd))
    assert told["sim"] == told["kernel"]
    assert told["sim"][29] == [struct.pack("<II", len(frame), n) for n, frame in enumerate(FRAMES)]


def test_perf_events() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    told = {}
    for backend in ("sim", "kernel"):
        with get_host(backend).lab(mac=MAC) as lab:
            process = lab.process
            fd = process.map_create(MapSpec(4, 4, 4, cpus[-1] + 1))
            events = []
            for cpu in cpus if backend == "kernel" else [0]:
                events.append(process.perf_event_open(cpu))
                process.map_update_elem(fd, struct.pack("<I", cpu), struct.pack("<I", events[-1]))
            send(lab, to_perf(fd))
            records = [record for event in events for record in process.perf_read(event)]
            told[backend] = sorted(record.raw[:24] for record in records)
    assert told["sim"] == told["kernel"]
    assert told["sim"] == sorted(struct.pack("<I", len(frame)) + frame[:20] for frame in FRAMES)
