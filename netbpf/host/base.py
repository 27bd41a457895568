"""The host seam: the kernel as a process sees it. Cold, and shaped like system calls.

``host.sim`` is ours; ``host.linux`` is the real one. Every method raises :class:`BpfError` (an OSError) with the errno the
kernel gives; nothing else (real sockets raise Python's own OSError). The Python methods are ``host.calls`` on both: each
packs its arguments into attr bytes for ``bpf``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from netbpf.abi.info import MapInfo, ProgInfo
from netbpf.host.calls import TestRun
from netbpf.host.lab import Lab
from netbpf.isa.instruction import Instruction
from netbpf.maps.perf_buffer import PerfRecord
from netbpf.maps.spec import MapSpec


class Process(Protocol):
    """A process: a descriptor table and capabilities. Usable as a context manager: leaving it drops what it held."""

    possible_cpus: int  # copies in a per-CPU value

    @property
    def caps(self) -> frozenset[str]:
        """Effective capabilities, by name."""

    # --- bpf(2) ---------------------------------------------------------------------------------------------------------
    def bpf(self, cmd: int, attr: Any, size: int | None = None) -> int:
        """bpf(2) on packed ``union bpf_attr`` bytes (a writable buffer, so that out fields come back) or on an address."""

    def map_create(self, spec: MapSpec, *, inner_map_fd: int = 0, btf_fd: int = 0) -> int: ...

    def map_lookup_elem(self, fd: int, key: bytes, flags: int = 0) -> bytes: ...

    def map_update_elem(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None: ...

    def map_delete_elem(self, fd: int, key: bytes) -> None: ...

    def map_get_next_key(self, fd: int, key: bytes | None) -> bytes: ...

    def map_lookup_and_delete_elem(self, fd: int, key: bytes, flags: int = 0) -> bytes: ...

    def map_items(self, fd: int) -> Iterator[tuple[bytes, bytes]]: ...

    def map_has_value(self, fd: int, value: bytes) -> bool: ...

    def map_freeze(self, fd: int) -> None: ...

    def map_info(self, fd: int) -> MapInfo: ...

    def map_get_fd_by_id(self, map_id: int, open_flags: int = 0) -> int: ...

    def prog_load(
        self,
        insns: Sequence[Instruction | Sequence[Instruction]],
        *,
        prog_type: int = 1,
        license: str = "GPL",
        name: str = "",
        log_level: int = 0,
        prog_flags: int = 0,
        expected_attach_type: int = 0,
        btf_fd: int = 0,
        func_info: Sequence[tuple[int, int]] = (),
        line_info: Sequence[tuple[int, int, int, int]] = (),
    ) -> int:
        """Load; raises ProgramRejected with the log. A refused load at log_level 0 is tried again at level 1 for its log."""

    def load_log(self, fd: int) -> str: ...

    def prog_info(self, fd: int) -> ProgInfo: ...

    def prog_test_run(
        self, fd: int, data: bytes, *, ctx: bytes = b"", repeat: int = 1, room: int | None = None, flags: int = 0
    ) -> TestRun: ...

    def btf_load(self, blob: bytes) -> int: ...

    def obj_pin(self, path: str, fd: int) -> None: ...

    def obj_get(self, path: str, file_flags: int = 0) -> int: ...

    # --- rings ----------------------------------------------------------------------------------------------------------
    def perf_event_open(self, cpu: int = 0, pages: int = 8) -> int:
        """A descriptor of a perf event for a PERF_EVENT_ARRAY."""

    def perf_read(self, fd: int) -> list[PerfRecord]: ...

    def ringbuf_read(self, fd: int) -> list[bytes]: ...

    # --- sockets and descriptors ------------------------------------------------------------------------------------------
    def socket(self, family: int, type: int, proto: int = 0) -> Any:
        """A socket object shaped as ``socket.socket``; ``SO_ATTACH_BPF`` takes a descriptor of this process."""

    def socketpair(self, family: int = 1, type: int = 2, proto: int = 0) -> tuple[Any, Any]:
        """Two sockets connected to each other: AF_UNIX datagrams."""

    def poll(self) -> Any:
        """As ``select.poll()``, for sockets of this process."""

    def select(
        self, rlist: Sequence[Any], wlist: Sequence[Any], xlist: Sequence[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """As ``select.select``, for sockets of this process."""

    def dup(self, fd: int) -> int: ...

    def close(self, fd: int) -> None: ...

    def exit(self) -> None:
        """End: every descriptor is closed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Host(Protocol):
    """A machine: processes, maps and programs by id, devices."""

    name: str

    def process(self, *, caps: frozenset[str] | None = None) -> Process:
        """A new process; ``caps`` None means all of them."""

    def lab(self, device: str = "tap0", *, mac: bytes | None = None, mtu: int = 9000, kind: str = "tap") -> Lab:
        """A network of its own with one device (``kind`` tap, veth or lo) and a process in it."""
