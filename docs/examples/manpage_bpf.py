"""The example of the bpf(2) manual page, line by line, on plain ``union bpf_attr`` bytes.

    python docs/examples/manpage_bpf.py [--kernel] [CAPTURE]

Without ``--kernel`` everything happens in the simulator, without privileges; with it (as root) the same code makes the same
system calls to the running kernel, in a network namespace of its own that is gone afterwards. The frames of CAPTURE
(pcaps/session.pcap) are sent through lo, where a packet socket sees each twice: going out and coming in.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from netbpf.abi.commands import Cmd
from netbpf.host.base import Process
from netbpf.host.choose import get_host
from netbpf.host.lab import Lab
from netbpf.isa.builders import (
    BPF_ADD,
    BPF_ALU64_IMM,
    BPF_B,
    BPF_CALL_FUNC,
    BPF_DW,
    BPF_EXIT_INSN,
    BPF_JEQ,
    BPF_JMP_IMM,
    BPF_LD_ABS,
    BPF_LD_MAP_FD,
    BPF_MOV64_IMM,
    BPF_MOV64_REG,
    BPF_REG_0,
    BPF_REG_1,
    BPF_REG_2,
    BPF_REG_6,
    BPF_REG_10,
    BPF_STX_MEM,
    BPF_W,
    BPF_XADD,
    BPF_FUNC_map_lookup_elem,
    assemble,
)
from netbpf.isa.instruction import encode
from netbpf.packet.open import open_capture

BPF_MAP_TYPE_HASH = 1
BPF_PROG_TYPE_SOCKET_FILTER = 1  # the page's BPF_PROG_TYPE_SOCKET
AF_PACKET, SOCK_RAW, ETH_P_ALL = 17, 3, 3
SOL_SOCKET, SO_ATTACH_BPF = 1, 50
LOG_BUF_SIZE = 65536


# int bpf(int cmd, union bpf_attr *attr, unsigned int size) is process.bpf(cmd, attr): the size is that of the bytes. Pointers
# in attr are addresses of ctypes objects; a wrong one is EFAULT, not a crash, on the simulator as on the kernel.
def address(obj: Any) -> int:
    return ctypes.addressof(obj)


def bpf_create_map(process: Process, map_type: int, key_size: int, value_size: int, max_entries: int) -> int:
    attr = struct.pack("<IIII", map_type, key_size, value_size, max_entries)
    return process.bpf(Cmd.BPF_MAP_CREATE, attr)


def bpf_lookup_elem(process: Process, fd: int, key: Any, value: Any) -> int:
    attr = struct.pack("<IxxxxQQ", fd, address(key), address(value))
    return process.bpf(Cmd.BPF_MAP_LOOKUP_ELEM, attr)


def bpf_update_elem(process: Process, fd: int, key: Any, value: Any) -> int:
    attr = struct.pack("<IxxxxQQ", fd, address(key), address(value))
    return process.bpf(Cmd.BPF_MAP_UPDATE_ELEM, attr)


def bpf_prog_load(process: Process, prog_type: int, insns: bytes, license: bytes) -> int:
    bpf_log_buf = ctypes.create_string_buffer(LOG_BUF_SIZE)
    text, code = ctypes.create_string_buffer(license), ctypes.create_string_buffer(insns, len(insns))
    attr = struct.pack(
        "<IIQQIIQ", prog_type, len(insns) // 8, address(code), address(text), 1, LOG_BUF_SIZE, address(bpf_log_buf)
    )
    return process.bpf(Cmd.BPF_PROG_LOAD, attr)


def open_raw_sock(process: Process, name: str) -> Any:
    sock = process.socket(AF_PACKET, SOCK_RAW, 0)
    sock.bind((name, ETH_P_ALL))
    return sock


def example(lab: Lab, seconds: Iterator[list[bytes]]) -> Iterator[tuple[int, int]]:
    """main() of the page. Each item of ``seconds`` is sent in place of ``sleep(1)``; gives the two counts after each."""
    process = lab.process
    key, value = ctypes.c_int(), ctypes.c_longlong(0)
    tcp_cnt, udp_cnt = ctypes.c_longlong(), ctypes.c_longlong()

    map_fd = bpf_create_map(process, BPF_MAP_TYPE_HASH, ctypes.sizeof(key), ctypes.sizeof(value), 2)

    key.value = 6  # ip->proto == tcp
    assert bpf_update_elem(process, map_fd, key, value) == 0

    key.value = 17  # ip->proto == udp
    assert bpf_update_elem(process, map_fd, key, value) == 0

    prog = assemble(
        BPF_MOV64_REG(BPF_REG_6, BPF_REG_1),  # r6 = r1
        BPF_LD_ABS(BPF_B, 14 + 9),  # r0 = ip->proto
        BPF_STX_MEM(BPF_W, BPF_REG_10, BPF_REG_0, -4),  # *(u32 *)(fp - 4) = r0
        BPF_MOV64_REG(BPF_REG_2, BPF_REG_10),  # r2 = fp
        BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, -4),  # r2 = r2 - 4
        BPF_LD_MAP_FD(BPF_REG_1, map_fd),  # r1 = map_fd
        BPF_CALL_FUNC(BPF_FUNC_map_lookup_elem),  # r0 = map_lookup(r1, r2)
        BPF_JMP_IMM(BPF_JEQ, BPF_REG_0, 0, 2),  # if (r0 == 0) goto pc+2
        BPF_MOV64_IMM(BPF_REG_1, 1),  # r1 = 1
        BPF_XADD(BPF_DW, BPF_REG_0, BPF_REG_1, 0, 0),  # lock *(u64 *)r0 += r1
        BPF_MOV64_IMM(BPF_REG_0, 0),  # r0 = 0
        BPF_EXIT_INSN(),  # return r0
    )
    prog_fd = bpf_prog_load(process, BPF_PROG_TYPE_SOCKET_FILTER, encode(prog), b"GPL")
    assert prog_fd >= 0

    sock = open_raw_sock(process, lab.device.name)

    sock.setsockopt(SOL_SOCKET, SO_ATTACH_BPF, struct.pack("i", prog_fd))

    for frames in seconds:
        for frame in frames:
            lab.device.deliver(frame)
        key.value = 6
        assert bpf_lookup_elem(process, map_fd, key, tcp_cnt) == 0
        key.value = 17
        assert bpf_lookup_elem(process, map_fd, key, udp_cnt) == 0
        yield tcp_cnt.value, udp_cnt.value


def by_second(path: str | Path) -> Iterator[list[bytes]]:
    """The frames of a capture, a list for each second of it."""
    with open_capture(path) as capture:
        for _, records in groupby(capture, key=lambda record: record.ts_ns // 1_000_000_000):
            yield [record.data for record in records]


def main(argv: list[str]) -> int:
    capture = next((a for a in argv if not a.startswith("-")), str(Path(__file__).parents[2] / "pcaps" / "session.pcap"))
    with get_host("kernel" if "--kernel" in argv else "sim").lab(kind="lo") as lab:
        for tcp, udp in example(lab, by_second(capture)):
            print(f"TCP {tcp} UDP {udp} packets")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
