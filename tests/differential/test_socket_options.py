"""Options and calls of a packet socket: the same on a real one and on ours, errno by errno."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time
from typing import Any

import pytest
from support.both_labs import Log, same
from support.kernel import needs_kernel
from support.packet_grid import FILTERS, MAC, PEER, own_frames

from netbpf.abi import sockopt as so
from netbpf.host.choose import get_host
from netbpf.host.lab import Lab, drain, open_packet_socket, send_and_gather
from netbpf.isa import builders as b

pytestmark = needs_kernel
FRAMES = own_frames()
FRAME = MAC + PEER + b"\x08\0" + bytes(range(100))


def raw(lab: Lab, proto: int = 3, sock_type: int = so.SOCK_RAW) -> Any:
    made = lab.process.socket(so.AF_PACKET, sock_type, 0)
    made.bind((lab.device.name, proto))
    made.setblocking(False)
    return made


def test_making_sockets() -> None:
    def case(lab: Lab, log: Log) -> None:
        p = lab.process
        for sock_type in (1, 2, 3, 4, 5, 6, 7, 9, 2 | 0o4000, 3 | 0o2000000, 3 | 0x10, 0):
            log(f"type {sock_type:#o}", lambda t=sock_type: p.socket(so.AF_PACKET, t, 0).type + 0)  # type: ignore[misc]
        for proto in (0, socket.htons(3), socket.htons(0x800), 3):
            made = p.socket(so.AF_PACKET, so.SOCK_RAW, proto)
            log(f"proto {proto}", lambda s=made: (s.getsockname(), s.getsockopt(1, so.SO_PROTOCOL)))  # type: ignore[misc]
        for address in (("nodev", 3), (lab.device.name, 0), ("lo", 3), ("", 3), (lab.device.name, 0x800)):
            made = p.socket(so.AF_PACKET, so.SOCK_RAW, socket.htons(0x88CC))
            log(f"bind {address}", lambda s=made, a=address: s.bind(a))  # type: ignore[misc]
            log("name", lambda s=made: (s.getsockname()[1], s.getsockname()[3]))  # type: ignore[misc]
        made = raw(lab)
        for name, call in {
            "getpeername": made.getpeername,
            "listen": lambda: made.listen(1),
            "shutdown": lambda: made.shutdown(2),
        }.items():
            log(name, call)

    same(case)


def test_attach_detach_lock() -> None:
    def case(lab: Lab, log: Log) -> None:
        p = lab.process
        prog = p.prog_load(FILTERS["40 bytes"])
        cls = p.prog_load(b.assemble(b.BPF_MOV64_IMM(b.BPF_REG_0, 0), b.BPF_EXIT_INSN()), prog_type=3)
        a_map = p.bpf(0, bytearray(struct.pack("<IIII", 2, 4, 4, 1)))
        sock = raw(lab)
        option = lambda name, value: sock.setsockopt(so.SOL_SOCKET, name, value)  # noqa: E731
        for name in (so.SO_DETACH_FILTER, so.SO_DETACH_BPF):
            log("detach nothing", lambda n=name: option(n, 0))  # type: ignore[misc]
        for label, value in {
            "no fd": 9999,
            "-1": -1,
            "a map": a_map,
            "a classifier": cls,
            "two bytes": b"\1\0",
            "empty": b"",
            "eight bytes": struct.pack("<ii", prog, 0),
            "good": prog,
            "again": prog,
        }.items():
            log(f"attach {label}", lambda v=value: option(so.SO_ATTACH_BPF, v))  # type: ignore[misc]
        log("lock?", lambda: sock.getsockopt(so.SOL_SOCKET, so.SO_LOCK_FILTER))
        log("detach with two bytes", lambda: option(so.SO_DETACH_BPF, b"\0\0"))
        log("unlock what is open", lambda: option(so.SO_LOCK_FILTER, 0))
        log("lock", lambda: option(so.SO_LOCK_FILTER, 7))
        log("lock?", lambda: sock.getsockopt(so.SOL_SOCKET, so.SO_LOCK_FILTER))
        log("lock again", lambda: option(so.SO_LOCK_FILTER, 1))
        log("unlock", lambda: option(so.SO_LOCK_FILTER, 0))
        log("attach locked", lambda: option(so.SO_ATTACH_BPF, prog))
        log("attach no fd locked", lambda: option(so.SO_ATTACH_BPF, 9999))
        log("detach locked", lambda: option(so.SO_DETACH_BPF, 0))
        lab.device.deliver(FRAME)
        log("the filter works", lambda: [r.length for r in drain(sock)])
        free = raw(lab)
        free.setsockopt(so.SOL_SOCKET, so.SO_LOCK_FILTER, 1)
        log("attach to a locked socket without one", lambda: free.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, prog))
        log("detach there", lambda: free.setsockopt(so.SOL_SOCKET, so.SO_DETACH_BPF, 0))
        for level, name in ((1, 9999), (263, 9999), (9999, 1), (so.SOL_SOCKET, so.SO_ATTACH_BPF)):
            log(f"get {level} {name}", lambda lv=level, n=name: sock.getsockopt(lv, n))  # type: ignore[misc]
        for level, name in ((1, 9999), (263, 9999), (9999, 1)):
            log(f"set {level} {name}", lambda lv=level, n=name: sock.setsockopt(lv, n, 1))  # type: ignore[misc]

    same(case)


def test_a_program_lives_while_its_socket_does() -> None:
    def case(lab: Lab, log: Log) -> None:
        p = lab.process
        prog = p.prog_load(FILTERS["one byte"])
        prog_id = p.prog_info(prog).id
        sock = raw(lab)
        sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, prog)
        p.close(prog)
        log("still there", lambda: p.close(p.prog_get_fd_by_id(prog_id)))  # type: ignore[attr-defined]
        lab.device.deliver(FRAME)
        log("still works", lambda: [r.length for r in drain(sock)])
        sock.setsockopt(so.SOL_SOCKET, so.SO_DETACH_BPF, 0)
        log("gone", lambda: _wait_gone(p, prog_id))
        lab.device.deliver(FRAME)
        log("everything again", lambda: [r.length for r in drain(sock)])

    same(case)


def _wait_gone(process: Any, prog_id: int) -> bool:
    for _ in range(200):
        try:
            process.close(process.prog_get_fd_by_id(prog_id))
        except OSError as e:
            return e.errno == errno.ENOENT
        time.sleep(0.01)
    return False


def test_receiving() -> None:
    """recv in its forms, flags, short buffers, peeks, nothing there, timeouts."""

    def case(lab: Lab, log: Log) -> None:
        sock = raw(lab)
        sock.setsockopt(so.SOL_PACKET, so.PACKET_AUXDATA, 1)
        send = lambda: lab.device.deliver(FRAME)  # noqa: E731
        for label, call in {
            "recv": lambda: sock.recv(2000),
            "recv 10": lambda: sock.recv(10),
            "recv 0": lambda: sock.recv(0),
            "recvfrom": lambda: sock.recvfrom(20)[1][1:],
            "recvmsg": lambda: sock.recvmsg(20, 100)[:3],
            "recvmsg trunc": lambda: sock.recvmsg(20, 100, so.MSG_TRUNC)[:3],
            "recvmsg without room": lambda: sock.recvmsg(200, 0)[:3],
            "recvmsg with little room": lambda: sock.recvmsg(200, 20)[:3],
            "recv_into": lambda: sock.recv_into(bytearray(7)),
            "recv_into trunc": lambda: sock.recv_into(bytearray(7), 0, so.MSG_TRUNC),
            "recvfrom_into": lambda: sock.recvfrom_into(bytearray(7), 3)[0],
            "recvmsg_into": lambda: sock.recvmsg_into([bytearray(7), bytearray(3)], 100)[:3],
            "peek": lambda: (sock.recv(2000, so.MSG_PEEK), sock.recv(5)),
            "dontwait": lambda: sock.recv(5, so.MSG_DONTWAIT),
            "oob": lambda: sock.recv(5, 1),
            "errqueue": lambda: sock.recv(5, so.MSG_ERRQUEUE),
        }.items():
            send()
            log(label, call)
            drain(sock)
        log("nothing", lambda: sock.recv(1))
        sock.settimeout(0.02)
        log("nothing in time", lambda: sock.recv(1))
        log("nothing, dontwait", lambda: sock.recv(1, so.MSG_DONTWAIT))
        send()
        log("in time", lambda: len(sock.recv(2000)))
        log("timeouts", lambda: (sock.gettimeout(), sock.getblocking()))
        sock.close()
        log("closed", lambda: sock.recv(1))
        log("number", lambda: sock.fileno())

    same(case)


@pytest.mark.parametrize("kind", ["tap", "veth", "lo"])
@pytest.mark.parametrize("size", [14, 60, 300, 700, 1514, 4000, 9000])
def test_receive_buffer(kind: str, size: int) -> None:
    """How many frames of a size fit into SO_RCVBUF, what PACKET_STATISTICS says, and that reading makes room."""

    def case(lab: Lab, log: Log) -> None:
        for wanted in (0, 1000, 2304, 5000, 20000, 200000, 500000):
            sock = raw(lab)
            sock.setsockopt(so.SOL_SOCKET, so.SO_RCVBUF, wanted)
            log(f"SO_RCVBUF {wanted}", lambda s=sock: s.getsockopt(so.SOL_SOCKET, so.SO_RCVBUF))  # type: ignore[misc]
            frame = (FRAME + bytes(10000))[:size]
            for _ in range(40):
                lab.device.deliver(frame)
            log("statistics", lambda s=sock: struct.unpack("<II", s.getsockopt(so.SOL_PACKET, so.PACKET_STATISTICS, 8)))  # type: ignore[misc]
            log("kept", lambda s=sock: len(drain(s)))  # type: ignore[misc]
            lab.device.deliver(frame)
            log("room again", lambda s=sock: len(drain(s)))  # type: ignore[misc]
            log("statistics", lambda s=sock: struct.unpack("<II", s.getsockopt(so.SOL_PACKET, so.PACKET_STATISTICS, 8)))  # type: ignore[misc]
            sock.close()

    same(case, kind=kind)


def test_forced_buffer_and_outgoing() -> None:
    def case(lab: Lab, log: Log) -> None:
        sock = raw(lab)
        for wanted in (0, -1, 100000, 1 << 25, 1 << 30):
            log(f"force {wanted}", lambda w=wanted: sock.setsockopt(so.SOL_SOCKET, so.SO_RCVBUFFORCE, w))  # type: ignore[misc]
            log("is", lambda: sock.getsockopt(so.SOL_SOCKET, so.SO_RCVBUF))
        sock.setsockopt(so.SOL_PACKET, so.PACKET_IGNORE_OUTGOING, 1)
        log("ignore outgoing", lambda: sock.getsockopt(so.SOL_PACKET, so.PACKET_IGNORE_OUTGOING))
        lab.device.deliver(FRAME)
        log("seen", lambda: [r.address[2] for r in drain(sock)])
        for name in (so.SO_TYPE, so.SO_DOMAIN, so.SO_PROTOCOL, so.SO_ERROR):
            log(f"option {name}", lambda n=name: sock.getsockopt(so.SOL_SOCKET, n))  # type: ignore[misc]

    same(case, kind="lo")


def test_sending() -> None:
    """What one socket sends, another sees, and it itself does not see going out."""

    def case(lab: Lab, log: Log) -> None:
        sender, other = raw(lab), raw(lab)
        unbound = lab.process.socket(so.AF_PACKET, so.SOCK_RAW, 0)
        for size in (0, 13, 14, 15, 60, 1514):
            log(f"send {size}", lambda n=size: sender.send(FRAME.ljust(2000, b"x")[:n]))  # type: ignore[misc]
            log("own", lambda: [(r.length, r.address[2]) for r in drain(sender)])
            log("other", lambda: [(r.length, r.address[2]) for r in drain(other)])
        log("unbound", lambda: unbound.send(FRAME))
        log("sendto", lambda: unbound.sendto(FRAME, (lab.device.name, 0x800)))
        log("sendto nowhere", lambda: unbound.sendto(FRAME, ("nodev", 0x800)))
        log("other", lambda: [(r.length, r.address[1:3]) for r in drain(other)])

    same(case, kind="lo")
    same(case, kind="veth")


def test_this_process_keeps_its_descriptors() -> None:
    """A laboratory leaves nothing open."""
    before = set(os.listdir("/proc/self/fd"))
    for kind in ("tap", "veth", "lo"):
        with get_host("kernel").lab(kind=kind) as lab:
            raw(lab)
            lab.device.deliver(FRAME)
    assert set(os.listdir("/proc/self/fd")) == before


# --- classic filters ------------------------------------------------------------------------------------------------------
KEPT: list[Any] = []


def fprog(raw_insns: bytes, count: int | None = None) -> bytes:
    """``struct sock_fprog`` of these bytes."""
    KEPT.append(ctypes.create_string_buffer(raw_insns, max(len(raw_insns), 1)))
    return struct.pack("<HxxxxxxQ", len(raw_insns) // 8 if count is None else count, ctypes.addressof(KEPT[-1]))


def classic(*insns: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<HBBI", *insn) for insn in insns)


RET_K, RET_A, LD_B_ABS, LD_H_ABS, LD_W_ABS, LD_LEN, LDX_LEN, JEQ_K, LDX_MSH, LD_B_IND, DIV_X, ST, LD_MEM = (
    *(0x06, 0x16, 0x30, 0x28, 0x20, 0x80, 0x81, 0x15, 0xB1, 0x50, 0x3C, 0x02, 0x60),
)
REFUSED = {
    "no ret": classic((LD_LEN, 0, 0, 0)),
    "jump out": classic((JEQ_K, 5, 0, 0), (RET_K, 0, 0, 1)),
    "unknown code": classic((0xFF, 0, 0, 0), (RET_K, 0, 0, 1)),
    "scratch not written": classic((LD_MEM, 0, 0, 3), (RET_A, 0, 0, 0)),
    "scratch out of range": classic((ST, 0, 0, 16), (RET_A, 0, 0, 0)),
    "division by zero": classic((0x34, 0, 0, 0), (RET_A, 0, 0, 0)),
    "shift too far": classic((0x64, 0, 0, 32), (RET_A, 0, 0, 0)),
    "unknown ancillary": classic((LD_W_ABS, 0, 0, 0xFFFFF000 + 80), (RET_A, 0, 0, 0)),
}
ACCEPTED = {
    "len": classic((LD_LEN, 0, 0, 0), (RET_A, 0, 0, 0)),
    "all": classic((RET_K, 0, 0, 0xFFFFFFFF)),
    "none": classic((RET_K, 0, 0, 0)),
    "byte 23": classic((LD_B_ABS, 0, 0, 23), (RET_A, 0, 0, 0)),
    "half 12": classic((LD_H_ABS, 0, 0, 12), (JEQ_K, 0, 1, 0x0800), (RET_K, 0, 0, 20), (RET_K, 0, 0, 10)),
    "word far out": classic((LD_W_ABS, 0, 0, 70), (RET_K, 0, 0, 9)),
    "ip header length": classic((LDX_MSH, 0, 0, 14), (LD_B_IND, 0, 0, 14), (RET_A, 0, 0, 0)),
    "divided by x 0": classic((LD_LEN, 0, 0, 0), (0x01, 0, 0, 0), (DIV_X, 0, 0, 0), (RET_K, 0, 0, 7)),
    "scratch": classic((LD_LEN, 0, 0, 0), (ST, 0, 0, 15), (LD_MEM, 0, 0, 15), (RET_A, 0, 0, 0)),
    "x": classic((LDX_LEN, 0, 0, 0), (0x87, 0, 0, 0), (RET_A, 0, 0, 0)),
    **{
        f"ancillary {at}": classic((LD_W_ABS, 0, 0, 0xFFFFF000 + at), (0x54, 0, 0, 0xFF), (0x04, 0, 0, 1), (RET_A, 0, 0, 0))
        for at in (0, 4, 20, 24, 28, 32, 44, 48, 52, 60)
    },
    "net byte 9": classic((LD_B_ABS, 0, 0, 0xFFF00000 + 9), (RET_A, 0, 0, 0)),
    "link byte 5": classic((LD_B_ABS, 0, 0, 0xFFE00000 + 5), (0x04, 0, 0, 1), (RET_A, 0, 0, 0)),
}


def test_attaching_classic_filters() -> None:
    def case(lab: Lab, log: Log) -> None:
        sock = raw(lab)
        option = lambda name, value: sock.setsockopt(so.SOL_SOCKET, name, value)  # noqa: E731
        blocks = lambda room=999: len(sock.getsockopt(so.SOL_SOCKET, so.SO_GET_FILTER, room))  # noqa: E731
        log("get none", blocks)
        for name, insns in {**REFUSED, "empty": b"", **ACCEPTED}.items():
            log(f"attach {name}", lambda i=insns: option(so.SO_ATTACH_FILTER, fprog(i)))  # type: ignore[misc]
            log("blocks", blocks)
        good = ACCEPTED["len"]
        for label, value in {
            "count 0": fprog(good, 0),
            "null": struct.pack("<HxxxxxxQ", 1, 0),
            "bad address": struct.pack("<HxxxxxxQ", 1, 0x1000),
            "short": fprog(good)[:15],
            "long": fprog(good) + b"\0",
            "4096": fprog(classic((RET_K, 0, 0, 1)) * 4096),
            "4097": fprog(classic((RET_K, 0, 0, 1)) * 4097),
        }.items():
            log(label, lambda v=value: option(so.SO_ATTACH_FILTER, v))  # type: ignore[misc]
        option(so.SO_ATTACH_FILTER, fprog(good))
        for room in (1, 2, 3):
            log(f"get with room for {room}", lambda r=room: blocks(r))  # type: ignore[misc]
        option(so.SO_ATTACH_BPF, lab.process.prog_load(FILTERS["keep"]))
        log("get of eBPF", blocks)
        option(so.SO_ATTACH_FILTER, fprog(good))
        log("detach", lambda: option(so.SO_DETACH_FILTER, 0))
        log("detach again", lambda: option(so.SO_DETACH_FILTER, 0))
        option(so.SO_LOCK_FILTER, 1)
        log("attach locked", lambda: option(so.SO_ATTACH_FILTER, fprog(good)))
        log("attach a bad one locked", lambda: option(so.SO_ATTACH_FILTER, fprog(b"")))

    same(case)


def test_option_memory() -> None:
    """net.core.optmem_max: what a program may weigh, alone and in another's place."""

    def case(lab: Lab, log: Log) -> None:
        for before, length in ((0, 16371), (0, 16372), (1000, 15359), (1000, 15360), (2, 16357), (2, 16358)):
            sock = raw(lab)
            for n in filter(None, (before, length)):
                prog = lab.process.prog_load(b.assemble([b.BPF_MOV64_IMM(b.BPF_REG_0, 0)] * (n - 1), b.BPF_EXIT_INSN()))
                log(f"{n} after {before}", lambda s=sock, fd=prog: s.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, fd))  # type: ignore[misc]
                lab.process.close(prog)
            sock.close()

    same(case)


@pytest.mark.parametrize("sock_type", [so.SOCK_RAW, so.SOCK_DGRAM], ids=["raw", "dgram"])
@pytest.mark.parametrize("kind", ["tap", "lo"])
def test_classic_filters_on_every_frame(kind: str, sock_type: int) -> None:
    def case(lab: Lab, log: Log) -> None:
        witness = open_packet_socket(lab)
        for name, insns in ACCEPTED.items():
            with open_packet_socket(lab, sock_type=sock_type) as sock:
                sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, fprog(insns))
                outcomes = send_and_gather(lab, sock, FRAMES.values(), witness=witness, wait_s=0.002)
                for frame, outcome in zip(FRAMES, outcomes, strict=True):
                    log(f"{name} on {frame}", lambda o=outcome: [(r.length, r.address[2]) for r in o.received])  # type: ignore[misc]

    same(case, kind=kind)
