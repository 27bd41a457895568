"""SO_REUSEPORT groups: which member a program chooses, what it sees, an index out of range, members that leave; on both hosts."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import pytest
from support.both_labs import Log, same
from support.kernel import needs_kernel
from support.skb_recorder import SkbRecorder

from netbpf.abi import sockopt as so
from netbpf.host.lab import Lab
from netbpf.isa import builders as b

pytestmark = needs_kernel
ADDRESSES = ("10.0.0.1/24", "fd00::1/64")
HOSTS = {so.AF_INET: "127.0.0.1", so.AF_INET6: "::1"}
families = pytest.mark.parametrize("family", HOSTS)


def group(lab: Lab, family: int, kind: int, size: int = 4) -> list[Any]:
    members = []
    for _ in range(size):
        sock = lab.process.socket(family, kind, 0)
        sock.setsockopt(so.SOL_SOCKET, so.SO_REUSEPORT, 1)
        sock.bind((HOSTS[family], 5000))
        sock.setblocking(False)
        if kind == so.SOCK_STREAM:
            sock.listen(8)
        members.append(sock)
    return members


def first_byte(lab: Lab) -> int:
    """The first byte of the payload is the index."""
    return lab.process.prog_load(b.assemble(b.BPF_MOV64_REG(6, 1), b.BPF_LD_ABS(b.BPF_B, 0), b.BPF_EXIT_INSN()))


def always(lab: Lab, index: int) -> int:
    return lab.process.prog_load(b.assemble(b.BPF_MOV64_IMM(0, index), b.BPF_EXIT_INSN()))


def who(members: list[Any]) -> list[int]:
    """Which members have got something; it is read away."""
    out = []
    for i, sock in enumerate(members):
        try:
            while True:
                sock.recv(100)
                out.append(i)
        except BlockingIOError:
            continue
    return out


def attach(sock: Any, prog: int) -> None:
    sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_REUSEPORT_EBPF, prog)


@families
def test_the_program_chooses(family: int) -> None:
    def case(lab: Lab, log: Log) -> None:
        members = group(lab, family, so.SOCK_DGRAM)
        sender = lab.process.socket(family, so.SOCK_DGRAM, 0)
        send = lambda index: sender.sendto(bytes((index,)) + b" data", (HOSTS[family], 5000))  # noqa: E731
        attach(members[2], first_byte(lab))
        for index in (0, 1, 2, 3, 0, 3):
            send(index)
            log(f"to {index}", lambda: who(members))
        for index in (4, 200):
            send(index)
            log(f"out of range {index}", lambda: len(who(members)))
        sender.sendto(b"", (HOSTS[family], 5000))
        log("nothing to load", lambda: who(members))
        recorder = SkbRecorder(lab.process, verdict=1)
        attach(members[0], recorder.prog)
        send(9)
        log("seen", lambda: recorder.seen(0.1))
        log("chosen", lambda: who(members))
        members[1].close()
        attach(members[0], first_byte(lab))
        for index in range(3):
            send(index)
            log(
                f"after one has left: {index}",
                lambda: len(who(members[:1])) + 2 * len(who(members[2:3])) + 4 * len(who(members[3:])),
            )
        late = group(lab, family, so.SOCK_DGRAM, 1)
        send(3)
        log("a late one", lambda: who(late))
        late[0].setsockopt(so.SOL_SOCKET, so.SO_DETACH_REUSEPORT_BPF, 0)
        send(3)
        log("without", lambda: len(who([members[0], *members[2:], *late])))
        log("again", lambda: late[0].setsockopt(so.SOL_SOCKET, so.SO_DETACH_REUSEPORT_BPF, 0))

    same(case, kind="lo", addresses=ADDRESSES)


@families
def test_a_classic_program_chooses(family: int) -> None:
    def case(lab: Lab, log: Log) -> None:
        members = group(lab, family, so.SOCK_DGRAM, 3)
        raw = struct.pack("<HBBI", 0x30, 0, 0, 1) + struct.pack("<HBBI", 0x16, 0, 0, 0)
        kept = ctypes.create_string_buffer(raw, len(raw))
        members[0].setsockopt(so.SOL_SOCKET, so.SO_ATTACH_REUSEPORT_CBPF, struct.pack("<HxxxxxxQ", 2, ctypes.addressof(kept)))
        sender = lab.process.socket(family, so.SOCK_DGRAM, 0)
        for index in (2, 0, 1):
            sender.sendto(b"x" + bytes((index,)), (HOSTS[family], 5000))
            log(f"to {index}", lambda: who(members))

    same(case, kind="lo", addresses=ADDRESSES)


@families
def test_filters_of_members_are_their_own(family: int) -> None:
    def case(lab: Lab, log: Log) -> None:
        members = group(lab, family, so.SOCK_DGRAM, 2)
        attach(members[0], first_byte(lab))
        members[1].setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, always(lab, 0))
        sender = lab.process.socket(family, so.SOCK_DGRAM, 0)
        for index in (0, 1):
            sender.sendto(bytes((index,)), (HOSTS[family], 5000))
            log(f"to {index}", lambda: who(members))

    same(case, kind="lo", addresses=ADDRESSES)


@families
def test_a_program_before_binding(family: int) -> None:
    """A socket may bring its program along; a group that is there already takes none that does."""

    def case(lab: Lab, log: Log) -> None:
        members = []
        for index in (1, 0):
            sock = lab.process.socket(family, so.SOCK_DGRAM, 0)
            sock.setblocking(False)
            sock.setsockopt(so.SOL_SOCKET, so.SO_REUSEPORT, 1)
            if index:
                attach(sock, always(lab, index))
            sock.bind((HOSTS[family], 5000))
            members.append(sock)
        other = lab.process.socket(family, so.SOCK_DGRAM, 0)
        other.setsockopt(so.SOL_SOCKET, so.SO_REUSEPORT, 1)
        attach(other, always(lab, 0))
        log("with another program", lambda: other.bind((HOSTS[family], 5000)))
        sender = lab.process.socket(family, so.SOCK_DGRAM, 0)
        for _ in range(2):
            sender.sendto(b"x", (HOSTS[family], 5000))
        log("chosen", lambda: who(members))

    same(case, kind="lo", addresses=ADDRESSES)


def test_programs_that_weigh_too_much() -> None:
    """net.core.optmem_max bounds one program; a group charges nobody for it."""

    def case(lab: Lab, log: Log) -> None:
        (sock,) = group(lab, so.AF_INET, so.SOCK_DGRAM, 1)
        for length in (16371, 16372, 16373, 16372, 2):
            insns = [b.BPF_MOV64_IMM(0, 0)] * (length - 1)
            prog = lab.process.prog_load(b.assemble(insns, b.BPF_EXIT_INSN()))
            log(f"{length}", lambda p=prog: attach(sock, p))  # type: ignore[misc]
            lab.process.close(prog)

    same(case, kind="lo", addresses=ADDRESSES)


@families
def test_listeners(family: int) -> None:
    """The program sees what is behind the TCP header: of a SYN, nothing."""

    def case(lab: Lab, log: Log) -> None:
        members = group(lab, family, so.SOCK_STREAM, 3)
        recorder = SkbRecorder(lab.process, verdict=2)
        attach(members[0], recorder.prog)
        for i in range(3):
            with lab.process.socket(family, so.SOCK_STREAM, 0) as client:
                client.bind((HOSTS[family], 4000 + i))
                client.connect((HOSTS[family], 5000))
                log("accepted by", lambda: [_accepts(sock) for sock in members])
        log("seen", lambda: recorder.seen(0.1))

    same(case, kind="lo", addresses=ADDRESSES)


def _accepts(sock: Any) -> bool:
    try:
        sock.accept()[0].close()
    except BlockingIOError:
        return False
    return True
