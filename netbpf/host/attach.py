"""A program onto a socket through the calls any user has: SO_ATTACH_BPF, or SO_ATTACH_FILTER for a classic filter.

The same steps on the simulator and on the real kernel; knows the Host protocol and socket options only.
"""

from __future__ import annotations

import ctypes
from struct import Struct
from typing import Any

from netbpf.abi import sockopt as so
from netbpf.host.base import Process
from netbpf.host.loader import LoadedSpec, load_spec
from netbpf.host.memory import Buffers
from netbpf.isa.classic import ClassicProgram, encode_classic
from netbpf.program import ProgramSpec

_FPROG = Struct("@HP")  # struct sock_fprog: a count and an address


def load_for_socket(process: Process, spec: ProgramSpec, *, log_level: int = 0) -> LoadedSpec:
    """Load a program in ``process``. A classic filter is no program of its own there: ``prog_fd`` is -1 then.

    Raises BpfError, ProgramRejected; nothing stays open then."""
    return LoadedSpec(-1, {}) if spec.classic else load_spec(process, spec, log_level=log_level)


def attach_loaded(process: Process, sock: Any, spec: ProgramSpec, loaded: LoadedSpec) -> None:
    """Attach what ``load_for_socket`` gave to a socket of the same process. Raises OSError."""
    if spec.classic:
        attach_classic(process, sock, spec.classic)
    else:
        sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_BPF, loaded.prog_fd)


def attach_classic(process: Process, sock: Any, insns: ClassicProgram) -> None:
    """SO_ATTACH_FILTER: ``struct sock_fprog`` with the address of the instructions in the process's memory. Raises OSError."""
    code, memory = encode_classic(insns), getattr(process, "memory", None)
    if isinstance(memory, Buffers):
        sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, _FPROG.pack(len(insns), memory.put(code)))
        return
    kept = ctypes.create_string_buffer(code, max(len(code), 1))
    sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, _FPROG.pack(len(insns), ctypes.addressof(kept)))
