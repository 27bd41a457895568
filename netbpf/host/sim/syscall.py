"""bpf(2) of the simulated machine: attr in, the command's function, an errno or a result out. Knows no command's rules."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from netbpf.abi.commands import ATTR_BYTES, COMMANDS, PAGE_BYTES
from netbpf.errors import BpfError
from netbpf.host.memory import UserMemory
from netbpf.host.sim.btf_commands import BTF_COMMANDS
from netbpf.host.sim.info_commands import INFO_COMMANDS
from netbpf.host.sim.machine import Call, Task
from netbpf.host.sim.map_batch import BATCH_COMMANDS
from netbpf.host.sim.map_commands import MAP_COMMANDS
from netbpf.host.sim.pin_commands import PIN_COMMANDS
from netbpf.host.sim.prog_commands import PROG_COMMANDS
from netbpf.host.sim.test_run import TEST_RUN_COMMANDS

_HANDLERS: Final[dict[int, Callable[[Call, Any], int]]] = {
    **MAP_COMMANDS,
    **BATCH_COMMANDS,
    **PROG_COMMANDS,
    **INFO_COMMANDS,
    **PIN_COMMANDS,
    **TEST_RUN_COMMANDS,
    **BTF_COMMANDS,
}
_ZEROS: Final = bytes(ATTR_BYTES)


def sys_bpf(task: Task, cmd: int, memory: UserMemory, address: int, size: int) -> int:
    """The call with attr at ``address`` of ``memory``. Raises BpfError."""
    attr = copy_attr(memory, address, size & 0xFFFF_FFFF)
    row, handler = COMMANDS.get(cmd), _HANDLERS.get(cmd)
    if row is None or handler is None:
        raise BpfError(errno.EINVAL)
    if attr[row.used_bytes :] != _ZEROS[row.used_bytes :]:
        raise BpfError(errno.EINVAL)

    def put(offset: int, data: bytes) -> None:
        memory.write(address + offset, data)

    return handler(Call(task, attr, size, memory, put), row.form.unpack(attr))


def copy_attr(memory: UserMemory, address: int, size: int) -> bytes:
    """bpf_check_uarg_tail_zero and copy_from_user: a newer, longer attr is taken when what this kernel does not know is zero.
    Raises BpfError(E2BIG, EFAULT)."""
    if size > PAGE_BYTES:
        raise BpfError(errno.E2BIG)
    if size > ATTR_BYTES and any(memory.read(address + ATTR_BYTES, size - ATTR_BYTES)):
        raise BpfError(errno.E2BIG)
    return memory.read(address, min(size, ATTR_BYTES)).ljust(ATTR_BYTES, b"\0")
