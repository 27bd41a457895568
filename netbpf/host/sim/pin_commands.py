"""BPF_OBJ_PIN and BPF_OBJ_GET: names in the machine's bpf file system, kept in memory and shared by its processes."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable
from typing import Any, Final

from netbpf.abi.commands import Cmd, ObjAttr
from netbpf.abi.maps import BPF_F_PATH_FD, BPF_F_RDONLY, BPF_F_WRONLY
from netbpf.errors import BpfError
from netbpf.host.memory import read_string
from netbpf.host.sim.machine import Call, Machine
from netbpf.host.sim.map_commands import file_mode
from netbpf.host.sim.objects import KObject, MapObject, ProgObject

BPFFS: Final = "/sys/fs/bpf"
PATH_MAX: Final = 4096
NAME_MAX: Final = 255


def obj_pin(call: Call, attr: ObjAttr) -> int:
    if attr.file_flags & ~BPF_F_PATH_FD or attr.file_flags & BPF_F_PATH_FD or attr.path_fd:
        raise BpfError(errno.EINVAL)  # paths relative to a descriptor are not simulated
    file = call.task.fds.find(attr.bpf_fd)
    obj = file.obj if file else None
    if not isinstance(obj, (MapObject, ProgObject)):
        raise BpfError(errno.EINVAL)
    path = _read_path(call, attr.pathname)
    _check_parent(call.machine, path)
    if path in call.machine.pins:
        raise BpfError(errno.EEXIST)
    if "." in posixpath.basename(path):
        raise BpfError(errno.EPERM)
    obj.file_opened()
    call.machine.pins[path] = obj
    return 0


def obj_get(call: Call, attr: ObjAttr) -> int:
    if attr.bpf_fd or attr.file_flags & ~(BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_PATH_FD) or attr.path_fd:
        raise BpfError(errno.EINVAL)
    mode = file_mode(attr.file_flags)
    path = _read_path(call, attr.pathname)
    if path not in call.machine.pins:
        _check_parent(call.machine, path)
        raise BpfError(errno.ENOENT)
    obj = call.machine.pins[path]
    if obj is None:
        raise BpfError(errno.EACCES)
    return call.task.open(obj, mode)


def make_directory(machine: Machine, path: str) -> None:
    """mkdir in the bpf file system. Raises BpfError(EEXIST, ENOENT, EPERM)."""
    path = posixpath.normpath(path)
    _check_parent(machine, path)
    if path in machine.pins:
        raise BpfError(errno.EEXIST)
    machine.pins[path] = None


def unlink(machine: Machine, path: str) -> None:
    """Remove a pinned name: the object is let go. Raises BpfError(ENOENT, EISDIR)."""
    path = posixpath.normpath(path)
    if path not in machine.pins:
        raise BpfError(errno.ENOENT)
    obj: KObject | None = machine.pins[path]
    if obj is None:
        raise BpfError(errno.EISDIR)
    del machine.pins[path]
    obj.file_closed()


def _read_path(call: Call, address: int) -> str:
    raw = read_string(call.memory, address, PATH_MAX)
    if len(raw) == PATH_MAX:
        raise BpfError(errno.ENAMETOOLONG)
    if not raw:
        raise BpfError(errno.ENOENT)
    path = posixpath.normpath(raw.decode(errors="surrogateescape"))
    if any(len(part) > NAME_MAX for part in path.split("/")):
        raise BpfError(errno.ENAMETOOLONG)
    return path


def _check_parent(machine: Machine, path: str) -> None:
    """The directory is there (ENOENT, ENOTDIR) and lies in the bpf file system (EPERM)."""
    parent = posixpath.dirname(path)
    if parent == BPFFS:
        return
    if not parent.startswith(BPFFS + "/"):
        raise BpfError(errno.EPERM)
    if parent not in machine.pins:
        raise BpfError(errno.ENOENT)
    if machine.pins[parent] is not None:
        raise BpfError(errno.ENOTDIR)


PIN_COMMANDS: Final[dict[int, Callable[[Call, Any], int]]] = {Cmd.BPF_OBJ_PIN: obj_pin, Cmd.BPF_OBJ_GET: obj_get}
