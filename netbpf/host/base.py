"""The host seam: the kernel as a process sees it. Cold, and shaped like system calls.

``host.sim`` is ours; ``host.linux`` is the real one. Every method raises :class:`BpfError` (an OSError) with the errno the
kernel gives; nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from netbpf.isa.instruction import Instruction
from netbpf.maps.spec import MapSpec


class Process(Protocol):
    """A process: a descriptor table and capabilities. Usable as a context manager: leaving it drops what it held."""

    def bpf(self, cmd: int, attr: Any, size: int | None = None) -> int:
        """bpf(2) on packed ``union bpf_attr`` bytes (a writable buffer, so that out fields come back)."""

    def map_create(self, spec: MapSpec) -> int: ...

    def map_lookup_elem(self, fd: int, key: bytes, flags: int = 0) -> bytes: ...

    def map_update_elem(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None: ...

    def map_delete_elem(self, fd: int, key: bytes) -> None: ...

    def map_get_next_key(self, fd: int, key: bytes | None) -> bytes: ...

    def map_freeze(self, fd: int) -> None: ...

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
    ) -> int:
        """Load; raises ProgramRejected with the log. A refused load at log_level 0 is tried again at level 1 for its log."""

    def socket(self, family: int, type: int, proto: int = 0) -> Any:
        """A socket object shaped as ``socket.socket``."""

    def dup(self, fd: int) -> int: ...

    def close(self, fd: int) -> None: ...

    def exit(self) -> None:
        """End: every descriptor is closed."""


class Host(Protocol):
    """A machine: processes, maps and programs by id, devices."""

    name: str

    def process(self, *, caps: frozenset[str] | None = None) -> Process:
        """A new process; ``caps`` None means all of them."""
