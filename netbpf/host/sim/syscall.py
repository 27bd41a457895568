"""bpf(2) of the simulated machine: attr in, the command's function, an errno or a result out. Knows no command's rules."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from netbpf.abi.commands import ATTR_BYTES, COMMANDS, PAGE_BYTES, Cmd
from netbpf.errors import BpfError
from netbpf.host.memory import UserMemory
from netbpf.host.sim.machine import Call, Task

# module under netbpf.host.sim -> the commands it has, each by a function of the command's name without BPF_; imported when used
_MODULES: Final[dict[str, tuple[Cmd, ...]]] = {
    "map_commands": (
        Cmd.BPF_MAP_CREATE,
        Cmd.BPF_MAP_LOOKUP_ELEM,
        Cmd.BPF_MAP_UPDATE_ELEM,
        Cmd.BPF_MAP_DELETE_ELEM,
        Cmd.BPF_MAP_GET_NEXT_KEY,
        Cmd.BPF_MAP_LOOKUP_AND_DELETE_ELEM,
        Cmd.BPF_MAP_FREEZE,
    ),
    "map_batch": (
        Cmd.BPF_MAP_LOOKUP_BATCH,
        Cmd.BPF_MAP_LOOKUP_AND_DELETE_BATCH,
        Cmd.BPF_MAP_UPDATE_BATCH,
        Cmd.BPF_MAP_DELETE_BATCH,
    ),
    "prog_commands": (Cmd.BPF_PROG_LOAD, Cmd.BPF_PROG_BIND_MAP),
    "test_run": (Cmd.BPF_PROG_TEST_RUN,),
    "info_commands": (
        Cmd.BPF_PROG_GET_NEXT_ID,
        Cmd.BPF_MAP_GET_NEXT_ID,
        Cmd.BPF_BTF_GET_NEXT_ID,
        Cmd.BPF_PROG_GET_FD_BY_ID,
        Cmd.BPF_MAP_GET_FD_BY_ID,
        Cmd.BPF_BTF_GET_FD_BY_ID,
        Cmd.BPF_OBJ_GET_INFO_BY_FD,
    ),
    "pin_commands": (Cmd.BPF_OBJ_PIN, Cmd.BPF_OBJ_GET),
    "btf_commands": (Cmd.BPF_BTF_LOAD,),
}
_ZEROS: Final = bytes(ATTR_BYTES)
MODULE_OF: Final = {cmd: module for module, cmds in _MODULES.items() for cmd in cmds}


@cache
def handler_of(cmd: Cmd) -> Callable[[Call, Any], int]:
    """The function that carries a command out."""
    module = importlib.import_module(f"netbpf.host.sim.{MODULE_OF[cmd]}")
    function: Callable[[Call, Any], int] = getattr(module, cmd.name.removeprefix("BPF_").lower())
    return function


def sys_bpf(task: Task, cmd: int, memory: UserMemory, address: int, size: int) -> int:
    """The call with attr at ``address`` of ``memory``. Raises BpfError."""
    attr = copy_attr(memory, address, size & 0xFFFF_FFFF)
    row = COMMANDS.get(cmd)
    if row is None:
        raise BpfError(errno.EINVAL)
    if attr[row.used_bytes :] != _ZEROS[row.used_bytes :]:
        raise BpfError(errno.EINVAL)

    def put(offset: int, data: bytes) -> None:
        memory.write(address + offset, data)

    return handler_of(row.cmd)(Call(task, attr, size, memory, put), row.form.unpack(attr))


def copy_attr(memory: UserMemory, address: int, size: int) -> bytes:
    """bpf_check_uarg_tail_zero and copy_from_user: a newer, longer attr is taken when what this kernel does not know is zero.
    Raises BpfError(E2BIG, EFAULT)."""
    if size > PAGE_BYTES:
        raise BpfError(errno.E2BIG)
    if size > ATTR_BYTES and any(memory.read(address + ATTR_BYTES, size - ATTR_BYTES)):
        raise BpfError(errno.E2BIG)
    return memory.read(address, min(size, ATTR_BYTES)).ljust(ATTR_BYTES, b"\0")
