"""A filter that follows skb->sk: the family, addresses, ports and state of the socket that gets the packet, on the simulator
and on the running kernel. A packet socket has none."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from support.attaching import attach_bpf
from support.both_labs import Log, same
from support.kernel import needs_kernel

from netbpf.abi import sockopt as so
from netbpf.abi.context import BPF_SOCK_FIELDS
from netbpf.host.lab import Lab
from netbpf.isa import builders as b
from netbpf.isa.instruction import Program
from netbpf.maps.spec import MapSpec

pytestmark = needs_kernel
ADDRESSES = ("10.0.0.1/24", "fd00::1/64")
OFF_SK = 168
# of a full socket only; and the queue, of which the kernel says one or another thing from run to run
HIDDEN = ("type", "protocol", "mark", "priority", "rx_queue_mapping")
FIELDS = [field for field in BPF_SOCK_FIELDS if field.name not in HIDDEN]
WORDS = [(f"{field.name}+{4 * i}", field.off + 4 * i, field.size) for field in FIELDS for i in range(field.words)]


def told(queue_fd: int, off: int, size: int) -> Program:
    """Push the field, or -1 where there is no socket, to a queue; keep the packet."""
    width = b.BPF_H if size == 2 else b.BPF_W
    return b.assemble(
        b.BPF_MOV64_REG(6, 1),
        b.BPF_MOV64_IMM(7, -1),
        b.BPF_LDX_MEM(b.BPF_DW, 1, 6, OFF_SK),
        b.BPF_JMP_IMM(b.BPF_JEQ, 1, 0, 1),
        b.BPF_LDX_MEM(width, 7, 1, off),
        b.BPF_STX_MEM(b.BPF_DW, 10, 7, -8),
        b.BPF_LD_MAP_FD(1, queue_fd),
        b.BPF_MOV64_REG(2, 10),
        b.BPF_ALU64_IMM(b.BPF_ADD, 2, -8),
        b.BPF_MOV64_IMM(3, 0),
        b.BPF_CALL_FUNC(87),
        b.BPF_MOV64_IMM(0, -1),
        b.BPF_EXIT_INSN(),
    )


def drained(lab: Lab, fd: int) -> list[int]:
    out = []
    while True:
        try:
            out.append(int.from_bytes(lab.process.map_lookup_and_delete_elem(fd, b""), "little", signed=True))
        except OSError:
            return out


@pytest.mark.parametrize("family", [so.AF_INET, so.AF_INET6])
def test_the_socket_of_a_packet(family: int) -> None:
    def case(lab: Lab, log: Log) -> None:
        p = lab.process
        host = "127.0.0.1" if family == so.AF_INET else "::1"
        for name, off, size in WORDS:
            queue = p.map_create(MapSpec(22, 0, 8, 64))
            program = told(queue, off, size)
            for label, sock, send in _sockets(lab, family, host):
                attach_bpf(lab, sock, program)
                send()
                sock.recv(100)
                log(f"{name} of {label}", lambda q=queue: drained(lab, q)[:1])  # type: ignore[misc]
                sock.close()

    same(case, kind="lo", addresses=ADDRESSES)


def _sockets(lab: Lab, family: int, host: str) -> Any:
    """(name, the socket under test, what sends to it)."""
    p = lab.process
    sender = p.socket(family, so.SOCK_DGRAM, 0)
    sender.bind((host, 4000))
    bound = p.socket(family, so.SOCK_DGRAM, 0)
    bound.bind((host, 5000))
    yield "udp", bound, lambda: sender.sendto(b"x", (host, 5000))
    connected = p.socket(family, so.SOCK_DGRAM, 0)
    connected.bind((host, 5001))
    connected.connect((host, 4000))
    yield "udp connected", connected, lambda: sender.sendto(b"x", (host, 5001))
    anywhere = p.socket(so.AF_INET6, so.SOCK_DGRAM, 0)
    anywhere.bind(("::", 5002))
    anywhere.setsockopt(so.SOL_SOCKET, so.SO_BINDTODEVICE, b"lo\0")
    yield "udp on all", anywhere, lambda: sender.sendto(b"x", (host, 5002))
    raw = p.socket(family, so.SOCK_RAW, 17)
    yield "raw", raw, lambda: sender.sendto(b"x", (host, 9))
    packet = p.socket(so.AF_PACKET, so.SOCK_RAW, 0)
    packet.bind(("lo", 3))
    yield "packet", packet, lambda: sender.sendto(b"x", (host, 9))
    one, two = p.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    yield "unix", two, lambda: one.send(b"x")
    listener = p.socket(family, so.SOCK_STREAM, 0)
    listener.bind((host, 6000))
    listener.listen(4)
    client = p.socket(family, so.SOCK_STREAM, 0)
    client.bind((host, 4001))
    client.setsockopt(so.SOL_SOCKET, so.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.connect((host, 6000))
    child, _ = listener.accept()
    yield "tcp", child, lambda: client.send(b"x")
    for each in (client, listener, one, sender):
        each.close()
