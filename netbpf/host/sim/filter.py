"""A socket's filter: attach, detach, lock, and the errnos of each. Shared by every kind of simulated socket.

The options are SO_ATTACH_BPF, SO_DETACH_BPF (the same number as SO_DETACH_FILTER), SO_LOCK_FILTER. A filter holds its
program: closing the program's descriptor does not unload it.
"""

from __future__ import annotations

import errno
from typing import Final

from netbpf.abi.prog_types import ProgType
from netbpf.engine.base import Loaded
from netbpf.errors import BpfError
from netbpf.host.sim.machine import Machine
from netbpf.host.sim.objects import KObject, ProgObject
from netbpf.packet.skbuff import SkBuff

PROG_HEADER_BYTES: Final = 72  # sizeof(struct bpf_prog) without its instructions


class SocketFilter:
    """What struct sock keeps of its filter."""

    __slots__ = ("_loaded", "_machine", "locked", "prog")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.prog: ProgObject | None = None
        self.locked = False
        self._loaded: Loaded | None = None

    def attach(self, obj: KObject) -> None:
        """sk_attach_bpf: the program takes the place of the one there. Raises BpfError(EPERM, EINVAL, ENOMEM)."""
        if not isinstance(obj, ProgObject) or obj.program.prog_type != ProgType.SOCKET_FILTER:
            raise BpfError(errno.EINVAL)
        if PROG_HEADER_BYTES + 8 * len(obj.insns) > self._machine.sysctl.optmem_max:
            raise BpfError(errno.ENOMEM)
        obj.hold()
        self._drop()
        self.prog = obj
        self._loaded = obj.loaded(self._machine.engine, self._machine.env)

    def check_unlocked(self) -> None:
        """Raises BpfError(EPERM) once SO_LOCK_FILTER was set."""
        if self.locked:
            raise BpfError(errno.EPERM)

    def detach(self) -> None:
        """Raises BpfError(EPERM, ENOENT)."""
        self.check_unlocked()
        if self.prog is None:
            raise BpfError(errno.ENOENT)
        self._drop()

    def lock(self, on: bool) -> None:
        """There is no way back: BpfError(EPERM) on unlocking."""
        if self.locked and not on:
            raise BpfError(errno.EPERM)
        self.locked = on

    def run(self, skb: SkBuff) -> int:
        """The verdict: bytes to keep, u32. All there are where there is no filter."""
        if self._loaded is None:
            return skb.len
        skb.cb[:] = bytes(20)
        return self._loaded.run_one(skb) & 0xFFFF_FFFF

    def release(self) -> None:
        """The socket is gone."""
        self._drop()

    def _drop(self) -> None:
        if self.prog is not None:
            self.prog.drop()
        self.prog, self._loaded = None, None
