"""BPF_OBJ_PIN and BPF_OBJ_GET: names in the machine's bpf file system, kept in memory and shared by its processes."""

from __future__ import annotations

import errno
import posixpath
from typing import Final

from netbpf.abi.commands import ObjAttr
from netbpf.abi.maps import BPF_F_PATH_FD, BPF_F_RDONLY, BPF_F_WRONLY
from netbpf.errors import BpfError
from netbpf.host.memory import read_string
from netbpf.host.sim.machine import BPFFS, Call, Machine
from netbpf.host.sim.map_commands import file_mode
from netbpf.host.sim.objects import KObject, MapObject, ProgObject

OUTSIDE: Final = frozenset({"/", "/etc", "/sys", "/sys/fs", "/tmp"})  # the directories a simulated machine has beside it
PATH_MAX: Final = 4096
NAME_MAX: Final = 255


def obj_pin(call: Call, attr: ObjAttr) -> int:
    if attr.file_flags & ~BPF_F_PATH_FD or (attr.path_fd and not attr.file_flags & BPF_F_PATH_FD):
        raise BpfError(errno.EINVAL)
    file = call.task.fds.find(attr.bpf_fd)
    obj = file.obj if file else None
    if not isinstance(obj, (MapObject, ProgObject)):
        raise BpfError(errno.EINVAL)
    raw = _read_path(call, attr.pathname)
    path = _in_bpffs(call.machine, raw)
    if path in call.machine.pins:
        raise BpfError(errno.EEXIST)
    if raw.endswith("/"):
        raise BpfError(errno.ENOENT)
    _check_no_dot(path)
    obj.file_opened()
    call.machine.pins[path] = obj
    return 0


def obj_get(call: Call, attr: ObjAttr) -> int:
    if attr.bpf_fd or attr.file_flags & ~(BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_PATH_FD):
        raise BpfError(errno.EINVAL)
    if attr.path_fd and not attr.file_flags & BPF_F_PATH_FD:
        raise BpfError(errno.EINVAL)
    mode = file_mode(attr.file_flags)
    raw = _read_path(call, attr.pathname)
    if posixpath.normpath(raw) in OUTSIDE:
        raise BpfError(errno.EACCES)
    path = _in_bpffs(call.machine, raw)
    if path not in call.machine.pins:
        _check_no_dot(path)
        raise BpfError(errno.ENOENT)
    obj = call.machine.pins[path]
    if obj is None:
        raise BpfError(errno.EACCES)
    return call.task.open(obj, mode)


def make_directory(machine: Machine, path: str) -> None:
    """mkdir in the bpf file system. Raises BpfError(EEXIST, ENOENT, ENOTDIR, EPERM)."""
    path = _in_bpffs(machine, path)
    if path in machine.pins:
        raise BpfError(errno.EEXIST)
    _check_no_dot(path)
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
    path = raw.decode(errors="surrogateescape")
    if not path.startswith("/"):
        raise BpfError(errno.EINVAL, "EINVAL: relative paths are not simulated")
    if any(len(part) > NAME_MAX for part in path.split("/")):
        raise BpfError(errno.ENAMETOOLONG)
    return path


def _in_bpffs(machine: Machine, raw: str) -> str:
    """The plain form of a path whose directory lies in the bpf file system. Raises BpfError(EPERM, ENOENT, ENOTDIR)."""
    path = "/" + posixpath.normpath(raw).lstrip("/")
    if path == BPFFS:
        return path
    parent = posixpath.dirname(path)
    if parent not in machine.pins:
        raise BpfError(errno.EPERM if parent in OUTSIDE else errno.ENOENT)
    if machine.pins[parent] is not None:
        raise BpfError(errno.ENOTDIR)
    return path


def _check_no_dot(path: str) -> None:
    """A name with a dot is kept for what may come."""
    if "." in posixpath.basename(path):
        raise BpfError(errno.EPERM)
