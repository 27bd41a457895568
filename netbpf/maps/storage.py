"""What every kind of map shares: its memory, its identity, the argument checks of the user-space forms, and the refusals.

A kind overrides what it can do; what it does not override answers as the kernel does for a kind without that operation.
Knows no layout: each kind states its own.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from typing import ClassVar

from netbpf.errors import ENOTSUPP, BpfError
from netbpf.ints import round_up
from netbpf.maps.base import BPF_ANY, BPF_EXIST, BPF_F_LOCK
from netbpf.maps.handle import handle_of
from netbpf.maps.spec import MapSpec

DEFAULT_SEED = 0x6E657462  # the seed of maps created without BPF_F_ZERO_SEED, fixed so that a run repeats


# Python names the flag since 3.13; without it a large lazily committed map could be refused for memory it never touches
_LINUX_NORESERVE = {"x86_64": 0x4000, "aarch64": 0x4000, "riscv64": 0x4000, "s390x": 0x4000, "ppc64le": 0x40}
MAP_NORESERVE: int = getattr(mmap, "MAP_NORESERVE", 0)
if not MAP_NORESERVE and sys.platform == "linux":
    MAP_NORESERVE = _LINUX_NORESERVE.get(os.uname().machine, 0)


def map_anonymous(size_bytes: int) -> mmap.mmap:
    """Zeroed, page-aligned memory whose pages are committed when touched. Raises BpfError(ENOMEM)."""
    try:
        return mmap.mmap(-1, max(size_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    except (OSError, OverflowError, ValueError) as refused:
        raise BpfError(errno.ENOMEM) from refused


class MapBase:
    """Identity and memory of a live map. ``u32`` and ``u64`` view ``memory`` in words (index = byte offset / 4 or / 8)."""

    __slots__ = ("_address", "_handle", "_pin", "cpu_stride", "frozen", "map_id", "memory", "n_cpus", "spec", "u32", "u64")
    map_type: ClassVar[int]

    def __init__(self, spec: MapSpec, size_bytes: int, n_cpus: int, map_id: int) -> None:
        self.spec, self.n_cpus, self.map_id, self.frozen = spec, n_cpus, map_id, False
        self.cpu_stride = 0  # bytes from a value's copy on one CPU to the next CPU's, 0 unless per-CPU
        self.memory = map_anonymous(round_up(size_bytes, 8))
        view = memoryview(self.memory)
        self.u32 = view.cast("I")
        self.u64 = view.cast("Q")
        self._address = 0
        self._pin: object = None
        self._handle: object = None

    @property
    def address(self) -> int:
        """Address of ``memory[0]`` in this process, for native code; fixed for the map's life."""
        if not self._address:
            import ctypes  # only native code asks for it

            pin = ctypes.c_char.from_buffer(self.memory)
            self._pin, self._address = pin, ctypes.addressof(pin)
        return self._address

    @property
    def handle(self) -> int:
        """Address of what a pointer to this map points to (``maps.handle``), for native code; fixed for the map's life."""
        import ctypes

        if self._handle is None:
            self._handle = ctypes.create_string_buffer(handle_of(self))
        return ctypes.addressof(self._handle)  # type: ignore[arg-type]  # a buffer since a moment ago

    # --- argument checks of the user-space forms ------------------------------------------------------------------
    @property
    def user_value_size(self) -> int:
        """Bytes of a value as BPF_MAP_LOOKUP_ELEM copies it."""
        return self.spec.value_size

    def check_key(self, key: bytes) -> None:
        if len(key) != self.spec.key_size:
            raise BpfError(errno.EINVAL, f"key is {len(key)} bytes, this map's keys are {self.spec.key_size}")

    def check_value(self, value: bytes) -> None:
        if len(value) != self.user_value_size:
            raise BpfError(errno.EINVAL, f"value is {len(value)} bytes, this map takes {self.user_value_size}")

    def check_lookup_flags(self, flags: int) -> None:
        """Only BPF_F_LOCK is known to a lookup, and no map here has a bpf_spin_lock in its value."""
        if flags:
            raise BpfError(errno.EINVAL)

    def check_write(self, flags: int = BPF_ANY) -> None:
        """User space may not write a frozen map, nor lock a value without a bpf_spin_lock."""
        if self.frozen:
            raise BpfError(errno.EPERM, "the map is frozen")
        if flags & BPF_F_LOCK:
            raise BpfError(errno.EINVAL)

    def freeze(self) -> None:
        """BPF_MAP_FREEZE. Raises BpfError(EPERM) when it is frozen already: user space may not write it any more."""
        self.check_write()
        self.frozen = True

    # --- operations that a kind may not have ----------------------------------------------------------------------
    def lookup(self, key: bytes, cpu: int = 0) -> int:
        return -1

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY, cpu: int = 0) -> int:
        return -errno.EOPNOTSUPP

    def delete(self, key: bytes) -> int:
        return -errno.EOPNOTSUPP

    def lookup_user(self, key: bytes, flags: int = 0) -> bytes:
        self.check_lookup_flags(flags)
        self.check_key(key)
        offset = self.lookup_quiet(key)
        if offset < 0:
            raise BpfError(errno.ENOENT)
        return self.read_value(offset)

    def read_value(self, offset: int) -> bytes:
        """The value at ``offset`` (on CPU 0) as user space reads it."""
        return bytes(self.memory[offset : offset + self.spec.value_size])

    def lookup_quiet(self, key: bytes) -> int:
        """As ``lookup`` on CPU 0, leaving no trace of use (an LRU map's reference mark)."""
        return self.lookup(key)

    def update_user(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        self.check_write(flags)
        self.check_key(key)
        self.check_value(value)
        raise_for(self.update(key, value, flags))

    def delete_user(self, key: bytes) -> None:
        self.check_write()
        self.check_key(key)
        raise_for(self.delete(key))

    def lookup_and_delete_user(self, key: bytes, flags: int = 0) -> bytes:
        """BPF_MAP_LOOKUP_AND_DELETE_ELEM. Raises BpfError(ENOTSUPP) for a kind without it."""
        self.check_write()
        self.check_lookup_flags(flags)
        self.check_key(key)
        raise BpfError(ENOTSUPP)

    def next_key(self, key: bytes | None) -> bytes | None:
        raise BpfError(errno.EOPNOTSUPP)


def raise_for(result: int) -> None:
    """Raise the BpfError of a helper's negative result."""
    if result < 0:
        raise BpfError(-result)


def flags_error(exists: bool, flags: int) -> int:
    """What an update with ``flags`` may not do to a key that is there or not: 0, -EEXIST, -ENOENT; -EINVAL for flags unknown
    or BPF_F_LOCK, which needs a bpf_spin_lock in the value."""
    if flags > BPF_EXIST or flags & BPF_F_LOCK:
        return -errno.EINVAL
    if exists:
        return -errno.EEXIST if flags == 1 else 0
    return -errno.ENOENT if flags == BPF_EXIST else 0
