"""Filters onto sockets of a laboratory, in one call each."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from netbpf.abi import sockopt as so
from netbpf.host.lab import Lab
from netbpf.isa.instruction import Program


def attach_bpf(lab: Lab, sock: Any, prog: Program) -> None:
    """SO_ATTACH_BPF; the socket alone holds the program."""
    fd = lab.process.prog_load(prog)
    sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, fd)
    lab.process.close(fd)


def attach_classic(sock: Any, insns: bytes) -> None:
    """SO_ATTACH_FILTER of ``struct sock_filter[]``."""
    kept = ctypes.create_string_buffer(insns, len(insns))
    sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, struct.pack("<HxxxxxxQ", len(insns) // 8, ctypes.addressof(kept)))
