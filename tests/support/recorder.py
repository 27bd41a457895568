"""The same bpf(2) bytes given to any host, and everything that came back written down, so that two hosts can be compared."""

from __future__ import annotations

import ctypes
from typing import Any

from netbpf.abi import commands as abi
from netbpf.abi.commands import Cmd
from netbpf.errors import BpfError, errno_name

FORMS = {cmd: row.form for cmd, row in abi.COMMANDS.items()}
BAD = 0x1000  # below mmap_min_addr: no process has it
SOCKET_FILTER = bytes.fromhex("b7000000000000009500000000000000")  # r0 = 0; exit


class Recorder:
    """``log`` is a list of lines: the call's label, what it returned, what it wrote. Descriptors are told as "fd"."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.log: list[str] = []
        self._kept: list[Any] = []

    def buffer(self, data: bytes | int) -> ctypes.Array[ctypes.c_char]:
        """A buffer that lives as long as the recorder: of these bytes, or of this many zeros."""
        size = data if isinstance(data, int) else len(data)
        made = ctypes.create_string_buffer(b"" if isinstance(data, int) else data, max(size, 1))
        self._kept.append(made)
        return made

    def ptr(self, data: bytes | int) -> int:
        return ctypes.addressof(self.buffer(data))

    def attr(self, cmd: int, **fields: Any) -> bytearray:
        form = FORMS[cmd]
        return form.pack(form.row(**fields))

    def call(self, label: str, cmd: int, attr: bytearray | int, size: int | None = None, *, show_attr: bool = False) -> int:
        """The result, or -1; a line in the log."""
        try:
            result = self.process.bpf(cmd, attr, size)
            told = "fd" if result > 2 else str(result)
        except BpfError as e:
            result, told = -1, errno_name(e.errno or 0)
        out = " " + bytes(attr).hex() if show_attr and isinstance(attr, bytearray) else ""
        self.log.append(f"{label}: {told}{out}")
        return result

    def do(self, label: str, cmd: int, size: int | None = None, **fields: Any) -> int:
        """``call`` on packed fields."""
        return self.call(label, cmd, self.attr(cmd, **fields), size)

    def note(self, label: str, value: object) -> None:
        self.log.append(f"{label}: {value}")

    # --- what most cases need -----------------------------------------------------------------------------------------
    def make_map(self, map_type: int = 1, key: int = 4, value: int = 8, entries: int = 4, flags: int = 0) -> int:
        fields = {"map_type": map_type, "key_size": key, "value_size": value, "max_entries": entries, "map_flags": flags}
        return int(self.process.bpf(Cmd.BPF_MAP_CREATE, self.attr(Cmd.BPF_MAP_CREATE, **fields)))

    def make_prog(self) -> int:
        attr = self.attr(Cmd.BPF_PROG_LOAD, prog_type=1, insn_cnt=2, insns=self.ptr(SOCKET_FILTER), license=self.ptr(b"GPL\0"))
        return int(self.process.bpf(Cmd.BPF_PROG_LOAD, attr))
