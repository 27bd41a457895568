"""Every load of every field of ``__sk_buff`` that the running kernel accepts, at every width: the same number here."""

from __future__ import annotations

import struct
import time

import pytest
from support.kernel import needs_kernel
from support.running import TCP_FRAME, loopback_skb, unproved

from netbpf.abi import sockopt as so
from netbpf.abi.prog_types import ProgType
from netbpf.engine.interp.engine import InterpEngine
from netbpf.env import SteppedEnv
from netbpf.errors import ProgramRejected
from netbpf.host.lab import drain, open_packet_socket
from netbpf.host.linux.host import LinuxHost
from netbpf.host.sim.host import SimHost
from netbpf.isa import builders as b
from netbpf.isa.instruction import Instruction as I
from netbpf.isa.opcodes import BPF_LDX, BPF_MEM, BYTES_SIZE
from netbpf.maps.spec import MapSpec
from netbpf.packet.skbuff import SkBuff

pytestmark = needs_kernel

# What BPF_PROG_TEST_RUN lets a caller set, with all bytes different.
GIVEN = {
    "mark": (8, "<I", 0x11223344),
    "priority": (32, "<I", 0x55667788),
    "ingress_ifindex": (36, "<I", 1),
    "ifindex": (40, "<I", 1),
    "tstamp": (152, "<Q", 0x1122334455667788),
    "wire_len": (160, "<I", 0xABCD),
    "gso_segs": (164, "<I", 0x1234),
    "gso_size": (176, "<I", 0x5678),
    "hwtstamp": (184, "<Q", 0x99AABBCCDDEEFF00),
}
CB = bytes(range(1, 21))
POINTERS = {76, 80, 140, 168}  # data, data_end, data_meta, sk: their values are the kernel's own


def context() -> bytes:
    ctx = bytearray(192)
    for at, form, value in GIVEN.values():
        struct.pack_into(form, ctx, at, value)
    ctx[48:68] = CB
    return bytes(ctx)


def same_skb(*, is_l2: bool) -> SkBuff:
    skb = loopback_skb(TCP_FRAME, is_l2=is_l2)
    for name, (_, _, value) in GIVEN.items():
        setattr(skb, name, value)
    skb.cb[:] = CB
    return skb


@pytest.mark.parametrize("prog_type", [ProgType.SOCKET_FILTER, ProgType.SCHED_CLS], ids=lambda t: t.name.lower())
def test_loads_give_what_the_kernel_gives(prog_type: ProgType) -> None:
    ctx, is_l2, loaded = context(), prog_type == ProgType.SCHED_CLS, 0
    wrong = []
    with LinuxHost().process() as kernel:
        for off in (off for off in range(192) if off not in POINTERS):
            for size in (1, 2, 4, 8):
                insns = (
                    I(BPF_LDX | BPF_MEM | BYTES_SIZE[size], 0, 1, off),
                    I(0xBF, 1, 0),
                    I(0x77, 1, imm=32),
                    I(0xAF, 0, 1),
                    I(0x95),
                )
                try:
                    fd = kernel.prog_load(insns, prog_type=prog_type)
                except ProgramRejected:
                    continue
                theirs = kernel.prog_test_run(fd, TCP_FRAME, ctx=ctx).retval
                kernel.close(fd)
                program = unproved(insns, prog_type=prog_type.name)
                ours = InterpEngine().load(program, SteppedEnv(1)).run_one(same_skb(is_l2=is_l2)) & 0xFFFF_FFFF
                loaded += 1
                if ours != theirs:
                    wrong.append((off, size, hex(theirs), hex(ours)))
    assert not wrong
    assert loaded > 120


def test_the_socket_that_owns_the_packet_reads_as_the_kernels() -> None:
    """``skb->sk`` in BPF_PROG_TEST_RUN: the runner's socket, with the packet's addresses."""
    read = 0
    with LinuxHost().process() as kernel, SimHost().process() as here:
        for off in range(0, 80, 4):
            insns = (I(0x79, 2, 1, 168), I(0xB7, 0), I(0x15, 2, 0, 1), I(0x61, 0, 2, off), I(0x95))
            try:
                fd = kernel.prog_load(insns)
            except ProgramRejected:
                continue
            read += 1
            program = unproved(insns)
            ours = InterpEngine().load(program, SteppedEnv(1)).run_one(loopback_skb(TCP_FRAME))
            assert ours == kernel.prog_test_run(fd, TCP_FRAME).retval, off
            assert here.prog_test_run(here.prog_load(insns), TCP_FRAME).retval == ours, off
    assert read > 10


# --- fields that only a real packet fills -------------------------------------------------------------------------------
FRAMES = [
    bytes.fromhex("ffffffffffff0200000000018100a1230800") + bytes(60),
    bytes.fromhex("01ffffffffff02000000000188a80fff86dd") + bytes(60),
    bytes.fromhex("ffffffffffff0200000000010806") + bytes(60),
]
WORDS = (4, 12, 16, 20, 24, 28, 40)  # pkt_type, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, ifindex
LOADS = [(word + at, size) for word in WORDS for size in (1, 2, 4) for at in range(0, 4, size)]


def store_all(map_fd: int) -> list[I]:
    """Every load of LOADS into the words of a map's value."""
    loads = [
        insn
        for n, (off, size) in enumerate(LOADS)
        for insn in (I(BPF_LDX | BPF_MEM | BYTES_SIZE[size], 1, 6, off), b.BPF_STX_MEM(0, 0, 1, 4 * n))
    ]
    head = [b.BPF_MOV64_REG(6, 1), *b.BPF_LD_MAP_FD(1, map_fd), b.BPF_ST_MEM(0, 10, -4, 0), b.BPF_MOV64_REG(2, 10)]
    call = [b.BPF_ALU64_IMM(0, 2, -4), b.BPF_CALL_FUNC(1), b.BPF_JMP_IMM(0x10, 0, 0, len(loads))]
    return [*head, *call, *loads, b.BPF_MOV64_IMM(0, 0xFFFF), b.BPF_EXIT_INSN()]


def seen_by_a_socket(host: LinuxHost | SimHost) -> list[tuple[int, ...]]:
    """What the loads gave for each frame that came in on a TAP device."""
    found = []
    with host.lab("tap0") as lab:
        process = lab.process
        map_fd = process.map_create(MapSpec(2, 4, 4 * len(LOADS), 1))
        prog_fd = process.prog_load(store_all(map_fd))
        sock = open_packet_socket(lab)
        sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, struct.pack("i", prog_fd))
        for frame in FRAMES:
            assert lab.device.deliver(frame)
            deadline = time.monotonic() + 5
            while not drain(sock) and time.monotonic() < deadline:
                time.sleep(0.01)
            found.append(struct.unpack(f"<{len(LOADS)}I", process.map_lookup_elem(map_fd, bytes(4))))
    return found


def test_a_received_packet_reads_as_in_the_kernel() -> None:
    theirs, ours = seen_by_a_socket(LinuxHost()), seen_by_a_socket(SimHost())
    for frame, kernel, here in zip(FRAMES, theirs, ours, strict=True):
        differences = {load: (k, h) for load, k, h in zip(LOADS, kernel, here, strict=True) if k != h}
        assert not differences, frame[:18].hex()
