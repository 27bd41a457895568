"""The state of a simulated machine that all its processes share, and of one task: credentials, descriptors, memory.

Holds, does not act: what commands do with it is in the command modules.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from netbpf.abi.caps import IMPLIED_BY_SYS_ADMIN
from netbpf.env import Env, SystemEnv
from netbpf.errors import BpfError
from netbpf.host.memory import UserMemory
from netbpf.host.sim.fdtable import FdTable, File
from netbpf.host.sim.objects import BtfObject, IdTable, KObject, MapObject, ProgObject

if TYPE_CHECKING:
    from netbpf.host.sim.network import Network
    from netbpf.host.sim.timers import Timers

BPFFS: Final = "/sys/fs/bpf"


@dataclass(slots=True)
class Sysctl:
    """kernel.unprivileged_bpf_disabled (0 open, 1 closed for good, 2 closed), net.core.*mem*, in the kernel's defaults."""

    unprivileged_bpf_disabled: int = 2
    rmem_default: int = 212_992
    rmem_max: int = 4_194_304
    optmem_max: int = 131_072


@dataclass(slots=True)
class Machine:
    """``n_cpus`` possible CPUs; ``memory_bytes`` what all maps may take together (None: no limit); ``engine`` by name, None
    for the default one."""

    env: Env = field(default_factory=SystemEnv)
    n_cpus: int = 1
    memory_bytes: int | None = None
    engine: str | None = None
    sysctl: Sysctl = field(default_factory=Sysctl)
    maps: IdTable[MapObject] = field(default_factory=IdTable)
    progs: IdTable[ProgObject] = field(default_factory=IdTable)
    btfs: IdTable[BtfObject] = field(default_factory=IdTable)
    changed: threading.Condition = field(default_factory=threading.Condition)  # the lock of all its sockets and devices
    networks: int = 0  # how many namespaces there have been
    _network: Network | None = None
    _timers: Timers | None = None
    unix_names: dict[str | bytes, Any] = field(default_factory=dict)  # AF_UNIX sockets by path and abstract name
    pins: dict[str, KObject | None] = field(default_factory=lambda: {BPFFS: None})  # None is a directory

    @property
    def network(self) -> Network:
        """Its first network namespace, made when first asked for."""
        if self._network is None:
            self._network = self.new_network()
        return self._network

    @property
    def timers(self) -> Timers:
        """What is to happen later."""
        if self._timers is None:
            from netbpf.host.sim.timers import Timers

            self._timers = Timers(self.env, self.changed)
        return self._timers

    def new_network(self) -> Network:
        """A network namespace with nothing but lo."""
        from netbpf.host.sim.network import Network

        self.networks += 1
        return Network(self.timers, self.networks - 1)

    def has_device(self, ifindex: int) -> bool:
        """Whether a network device has this number."""
        return self.network.by_index(ifindex) is not None

    def memory_left(self) -> int | None:
        """Bytes a new map may take."""
        if self.memory_bytes is None:
            return None
        return self.memory_bytes - sum(len(obj.map.memory) for obj in self.maps)


@dataclass(slots=True)
class Task:
    """One process as the kernel keeps it. ``caps`` are its effective capabilities."""

    machine: Machine
    caps: frozenset[str]
    memory: UserMemory
    fds: FdTable = field(default_factory=FdTable)
    own_network: Network | None = None  # the network namespace it lives in; None: the machine's first
    uid: int = 0
    alive: bool = True
    last_refusal: Any = None  # the diagnosis of its last refused program

    @property
    def network(self) -> Network:
        """The network namespace it lives in."""
        return self.own_network or self.machine.network

    def is_capable(self, cap: str) -> bool:
        """capable(), with CAP_SYS_ADMIN standing in where bpf(2) lets it."""
        return cap in self.caps or (cap in IMPLIED_BY_SYS_ADMIN and "CAP_SYS_ADMIN" in self.caps)

    def open(self, obj: KObject, mode: int = 3) -> int:
        """A descriptor of ``obj``. Raises BpfError(EMFILE)."""
        return self.fds.install(File(obj, mode))

    def adopt(self, obj: KObject, mode: int = 3) -> int:
        """As ``open`` for an object just made: its maker's reference goes to the descriptor."""
        try:
            return self.open(obj, mode)
        finally:
            obj.drop()


@dataclass(slots=True)
class Call:
    """One bpf(2) on its way: who calls, the attr as copied in (``size`` bytes were the caller's), his memory, and how out
    fields get back to his attr."""

    task: Task
    attr: bytes
    size: int
    memory: UserMemory
    put: Callable[[int, bytes], None]

    @property
    def machine(self) -> Machine:
        return self.task.machine

    def put_u32(self, offset: int, value: int) -> None:
        """put_user(value, &uattr->field). Raises BpfError(EFAULT)."""
        self.put(offset, (value & 0xFFFF_FFFF).to_bytes(4, "little"))

    def map_file(self, fd: int) -> tuple[File, MapObject]:
        """The open file and the map behind it. Raises BpfError(EBADF), or EINVAL when it is something else."""
        file = self.task.fds.get(fd)
        if not isinstance(file.obj, MapObject):
            raise BpfError(errno.EINVAL)
        return file, file.obj

    def prog(self, fd: int) -> ProgObject:
        """Raises BpfError(EBADF), or EINVAL when ``fd`` is something else."""
        obj = self.task.fds.get(fd).obj
        if not isinstance(obj, ProgObject):
            raise BpfError(errno.EINVAL)
        return obj

    def btf(self, fd: int) -> BtfObject:
        """Raises BpfError(EBADF), or EINVAL when ``fd`` is something else."""
        obj = self.task.fds.get(fd).obj
        if not isinstance(obj, BtfObject):
            raise BpfError(errno.EINVAL)
        return obj


def check_name(raw: bytes) -> bytes:
    """bpf_obj_name_cpy: letters (the kernel's ctype counts Latin-1's), digits, '_' and '.', ended by a NUL within the field.
    Raises BpfError(EINVAL)."""
    name, nul, _ = raw.partition(b"\0")
    if not nul or not all(c in _NAME_BYTES for c in name):
        raise BpfError(errno.EINVAL)
    return name


_LATIN = frozenset(range(0xC0, 0x100)) - {0xD7, 0xF7}
_NAME_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") | _LATIN
