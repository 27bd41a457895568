"""The current task: a packet is received in an interrupt, here always of the idle task (pid 0, root, cgroup 1, the root one).

What follows a pointer to a task, or waits for user memory, has no body.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.engine.interp.helpers.body import Body
from netbpf.engine.interp.machine import Machine
from netbpf.ints import s32, u32

ROOT_CGROUP_ID: Final = 1
TASK_COMM_LEN: Final = 16


def get_current_pid_tgid(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return 0


def get_current_uid_gid(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return 0


def get_current_comm(m: Machine, buf: int, size: int, r3: int, r4: int, r5: int) -> int:
    """The idle task is called ``swapper/CPU``; the buffer is filled up with zeroes."""
    size = u32(size)
    name = f"swapper/{m.cpu}".encode()[: min(size, TASK_COMM_LEN) - 1]
    m.memory.write(buf, name.ljust(size, b"\0"))
    return 0


def get_ns_current_pid_tgid(m: Machine, dev: int, ino: int, info: int, size: int, r5: int) -> int:
    """The idle task is in no pid namespace that a program could name: -EINVAL, and struct bpf_pidns_info zeroed."""
    m.memory.write(info, bytes(u32(size)))
    return -errno.EINVAL


def get_current_cgroup_id(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return ROOT_CGROUP_ID


def get_current_ancestor_cgroup_id(m: Machine, level: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """The root cgroup is level 0; there is nothing below it here."""
    return ROOT_CGROUP_ID if s32(level) == 0 else 0


def get_cgroup_classid(m: Machine, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return 0


BODIES: Final[dict[str, Body]] = {
    "get_current_pid_tgid": get_current_pid_tgid,
    "get_current_uid_gid": get_current_uid_gid,
    "get_current_comm": get_current_comm,
    "get_ns_current_pid_tgid": get_ns_current_pid_tgid,
    "get_current_cgroup_id": get_current_cgroup_id,
    "get_current_ancestor_cgroup_id": get_current_ancestor_cgroup_id,
    "get_cgroup_classid": get_cgroup_classid,
}
