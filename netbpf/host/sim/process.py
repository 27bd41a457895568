"""A simulated process: bpf(2) by bytes and by method, descriptors, its end. The one class users of the simulator hold."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from netbpf.abi.info import MapInfo
from netbpf.errors import BpfError
from netbpf.host.calls import BpfCalls
from netbpf.host.memory import Buffers, CallBuffers, UserMemory
from netbpf.host.sim.machine import Machine, Task
from netbpf.host.sim.objects import MapObject, PerfEvent, ProgObject
from netbpf.host.sim.syscall import sys_bpf
from netbpf.maps.storage import MapBase
from netbpf.program import VerifiedProgram

if TYPE_CHECKING:
    from netbpf.host.sim.poll import SimPoll
    from netbpf.host.sim.socket import SimSocket
    from netbpf.maps.perf_buffer import PerfRecord


class SimProcess(BpfCalls):
    """Made by ``SimHost.process``. ``memory`` is what the addresses in its attr bytes mean."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._logs: dict[int, str] = {}
        self.possible_cpus = task.machine.n_cpus

    # --- bpf(2) -------------------------------------------------------------------------------------------------------
    def bpf(self, cmd: int, attr: bytearray | memoryview | bytes | int, size: int | None = None) -> int:
        """bpf(2). ``attr`` is a packed ``union bpf_attr`` (a bytearray, so that out fields come back) or its address in this
        process; ``size`` defaults to the buffer's length. Pointers in it are addresses in ``memory``. Raises BpfError."""
        self._check_alive()
        if isinstance(attr, int):
            return sys_bpf(self._task, cmd, self.memory, attr, 0 if size is None else size)
        own = attr if isinstance(attr, bytearray) else bytearray(attr)
        window = _AttrWindow(self.memory, own)
        try:
            return sys_bpf(self._task, cmd, window, _AttrWindow.BASE, len(own) if size is None else size)
        finally:
            if isinstance(attr, memoryview) and not attr.readonly:
                attr[:] = own

    def call(self, cmd: int, attr: bytearray, buffers: CallBuffers) -> int:
        self._check_alive()
        assert isinstance(buffers, Buffers)
        return sys_bpf(self._task, cmd, buffers, buffers.register(attr), len(attr))

    def new_buffers(self) -> Buffers:
        return Buffers()

    def map_info(self, fd: int) -> MapInfo:
        self._check_alive()
        file = self._task.fds.find(fd)
        if file is not None and isinstance(file.obj, MapObject):
            return file.obj.info()
        return super().map_info(fd)

    def diagnosis(self) -> Any:
        return self._task.last_refusal

    @property
    def load_logs(self) -> dict[int, str]:
        return self._logs

    @property
    def memory(self) -> UserMemory:
        """What addresses in attr bytes mean: this interpreter's own, or the ``host.memory.Buffers`` given at the start."""
        return self._task.memory

    def socket(self, family: int, type: int, proto: int = 0) -> SimSocket:
        """A socket of this process, with the methods of ``socket.socket``. Raises BpfError."""
        from netbpf.host.sim.socket import open_socket

        self._check_alive()
        return open_socket(self._task, family, type, proto)

    def socketpair(self, family: int = 1, type: int = 2, proto: int = 0) -> tuple[SimSocket, SimSocket]:
        """Two connected sockets: AF_UNIX datagrams. Raises BpfError."""
        from netbpf.host.sim.socket import open_pair

        self._check_alive()
        return open_pair(self._task, family, type, proto)

    def poll(self) -> SimPoll:
        """As ``select.poll()``, for sockets of this process."""
        from netbpf.host.sim.poll import SimPoll

        return SimPoll(self._task)

    def select(
        self, rlist: Sequence[Any], wlist: Sequence[Any], xlist: Sequence[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """As ``select.select``, for sockets of this process. Raises BpfError(EBADF)."""
        from netbpf.host.sim.poll import select

        return select(self._task, rlist, wlist, xlist, timeout)

    # --- rings ----------------------------------------------------------------------------------------------------------
    def perf_event_open(self, cpu: int = 0, pages: int = 8) -> int:
        """A descriptor of a perf event on a CPU, for a PERF_EVENT_ARRAY; its ring has ``pages`` pages. Raises BpfError."""
        from netbpf.maps.perf_buffer import PerfBuffer

        self._check_alive()
        if not self._task.is_capable("CAP_PERFMON"):
            raise BpfError(errno.EACCES)
        if not 0 <= cpu < self.possible_cpus:
            raise BpfError(errno.EINVAL)
        if pages < 1 or pages & (pages - 1):
            raise BpfError(errno.EINVAL)
        return self._task.adopt(PerfEvent(PerfBuffer(cpu, pages)))

    def perf_read(self, fd: int) -> list[PerfRecord]:
        """What programs wrote to a perf event since the last read. Raises BpfError(EBADF), or EINVAL for another descriptor."""
        obj = self._task.fds.get(fd).obj
        if not isinstance(obj, PerfEvent):
            raise BpfError(errno.EINVAL)
        return obj.buffer.consume()

    def ringbuf_read(self, fd: int) -> list[bytes]:
        """What programs submitted to a ring buffer since the last read. Raises BpfError(EBADF), or EINVAL for another map."""
        from netbpf.maps.ringbuf import RingBufMap

        live = self.map(fd)
        if not isinstance(live, RingBufMap):
            raise BpfError(errno.EINVAL)
        return live.consume()

    # --- descriptors --------------------------------------------------------------------------------------------------
    def dup(self, fd: int) -> int:
        """The lowest free number, for the same open file. Raises BpfError(EBADF, EMFILE)."""
        self._check_alive()
        return self._task.fds.dup(fd)

    def close(self, fd: int) -> None:
        """Raises BpfError(EBADF)."""
        self._check_alive()
        self._logs.pop(fd, None)
        self._task.fds.close(fd)

    def fds(self) -> list[int]:
        """Open descriptors, lowest first."""
        return self._task.fds.numbers()

    def send_fd(self, fd: int, to: SimProcess) -> int:
        """Pass a descriptor to another process, as SCM_RIGHTS does: its number there."""
        self._check_alive()
        file = self._task.fds.get(fd)
        file.refs += 1
        return to._task.fds.install(file)

    def fork(self) -> SimProcess:
        """A child with copies of the descriptors and the same capabilities."""
        self._check_alive()
        task = self._task
        return SimProcess(Task(task.machine, task.caps, task.memory, task.fds.fork(), task.own_network, task.uid))

    def thread(self, caps: frozenset[str]) -> SimProcess:
        """A thread of this process with other capabilities: it shares memory, descriptors and network."""
        made = SimProcess(replace(self._task, caps=caps))
        made._logs = self._logs
        return made

    def exit(self) -> None:
        """End: every descriptor is closed. A second call does nothing."""
        if self._task.alive:
            self._task.alive = False
            self._task.fds.close_all()

    def __enter__(self) -> SimProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.exit()

    def _check_alive(self) -> None:
        if not self._task.alive:
            raise BpfError(errno.ESRCH, "the process has ended")

    # --- credentials --------------------------------------------------------------------------------------------------
    @property
    def caps(self) -> frozenset[str]:
        """Effective capabilities."""
        return self._task.caps

    def drop_caps(self, *names: str) -> None:
        """Give capabilities up; all of them when none is named."""
        self._task.caps = self._task.caps - frozenset(names) if names else frozenset()

    # --- what only a simulator can show -------------------------------------------------------------------------------
    def map(self, fd: int) -> MapBase:
        """The live map behind a descriptor. Raises BpfError(EBADF, EINVAL)."""
        obj = self._task.fds.get(fd).obj
        if not isinstance(obj, MapObject):
            raise BpfError(errno.EINVAL)
        return obj.map

    def program(self, fd: int) -> VerifiedProgram:
        """The proved program behind a descriptor. Raises BpfError(EBADF, EINVAL)."""
        return self._prog(fd).program

    def _prog(self, fd: int) -> ProgObject:
        obj = self._task.fds.get(fd).obj
        if not isinstance(obj, ProgObject):
            raise BpfError(errno.EINVAL)
        return obj

    def machine(self) -> Machine:
        """The machine this process runs on."""
        return self._task.machine


class _AttrWindow:
    """A process's memory with a Python buffer laid over it as the attr, at an address nothing else has."""

    BASE = 0xFFFF_8000_0000_0000  # user space owns no such address

    def __init__(self, memory: UserMemory, attr: bytearray) -> None:
        self._memory, self._attr = memory, attr

    def read(self, address: int, size: int) -> bytes:
        start = address - self.BASE
        if not 0 <= start <= len(self._attr):
            return self._memory.read(address, size)
        if start + size > len(self._attr):
            raise BpfError(errno.EFAULT)
        return bytes(self._attr[start : start + size])

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        start = address - self.BASE
        if not 0 <= start <= len(self._attr):
            self._memory.write(address, data)
        elif start + len(data) > len(self._attr):
            raise BpfError(errno.EFAULT)
        else:
            self._attr[start : start + len(data)] = data
