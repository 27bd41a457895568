"""What every live map answers: to programs (``lookup/update/delete`` on offsets into its memory) and to user space.

``memory`` is the truth: one flat, page-aligned buffer of fixed address and size whose layout each kind states in its
own module, so that user space, the interpreter and native code work on the same bytes. Pages are committed when
touched. A map knows no descriptor, no process and no program.

Errors are returned as the kernel's helpers return them: 0 or ``-errno``. User-space forms raise :class:`BpfError`.
"""

from __future__ import annotations

import mmap
from typing import ClassVar, Protocol

from netbpf.maps.spec import MapSpec

# map_update flags
BPF_ANY = 0
BPF_NOEXIST = 1
BPF_EXIST = 2
BPF_F_LOCK = 4


class Map(Protocol):
    """A live map. One class per kind, in a file of its own."""

    map_type: ClassVar[int]
    spec: MapSpec
    map_id: int  # as BPF_OBJ_GET_INFO_BY_FD tells it
    memory: mmap.mmap  # anonymous; its bytes are the map

    @property
    def address(self) -> int:
        """Address of ``memory[0]`` in this process, for native code; fixed for the map's life."""

    @property
    def handle(self) -> int:
        """Address of what a pointer to this map points to (``maps.handle``), for native code; fixed for the map's life."""

    # --- as a program's helpers see it; `cpu` picks the per-CPU copy -------------------------------------------
    def lookup(self, key: bytes, cpu: int = 0) -> int:
        """Offset in ``memory`` of the value (``spec.value_size`` bytes), or -1."""

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY, cpu: int = 0) -> int:
        """bpf_map_update_elem: 0 or -errno."""

    def delete(self, key: bytes) -> int:
        """bpf_map_delete_elem: 0 or -errno."""

    # --- as BPF_MAP_*_ELEM sees it: values of per-CPU kinds are all CPUs' copies, each padded to 8 bytes ----------
    def lookup_user(self, key: bytes, flags: int = 0) -> bytes:
        """The value's bytes. Raises BpfError(ENOENT ...)."""

    def update_user(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """Raises BpfError(EEXIST, ENOENT, E2BIG, EINVAL ...)."""

    def delete_user(self, key: bytes) -> None:
        """Raises BpfError(ENOENT, EINVAL ...)."""

    def next_key(self, key: bytes | None) -> bytes | None:
        """The key after ``key`` in the kernel's order; the first one when ``key`` is None or not there; None at the end."""


class ReadableMap(Protocol):
    """What is read of a map by who only shows it: a live one of ours, or one behind a descriptor (``host.fd_map``)."""

    spec: MapSpec

    @property
    def map_type(self) -> int: ...

    def lookup_user(self, key: bytes, flags: int = 0) -> bytes:
        """The value's bytes. Raises BpfError(ENOENT ...)."""

    def next_key(self, key: bytes | None) -> bytes | None:
        """The key after ``key``; the first one when ``key`` is None; None at the end."""
