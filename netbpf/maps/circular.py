"""The circular buffer under QUEUE and STACK. Its bytes::

    struct header { u32 head, tail, size, elem_size; u32 reserved[12]; };   // size: max_entries + 1, elem_size: bytes per slot
    u8 value[size][round_up(value_size, 8)];                                // at 64

Empty when head == tail. A push writes at head and moves it on; a full buffer (head + 1 == tail, around the end) refuses a push,
or with BPF_EXIST first forgets the value at tail. A queue takes from tail, a stack from below head.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final

from netbpf.errors import BpfError
from netbpf.ints import round_up
from netbpf.maps.base import BPF_ANY, BPF_EXIST, BPF_NOEXIST
from netbpf.maps.spec import MapSpec
from netbpf.maps.storage import MapBase, raise_for

HEAD, TAIL, SIZE, ELEM_SIZE = range(4)
VALUES_OFF: Final = 64


class CircularMap(MapBase):
    """Values without keys. Programs call ``push``, ``pop`` and ``peek``."""

    __slots__ = ("_elem_size", "_size")
    takes_newest: ClassVar[bool]

    def __init__(self, spec: MapSpec, n_cpus: int, map_id: int) -> None:
        self._size, self._elem_size = spec.max_entries + 1, round_up(spec.value_size, 8)
        super().__init__(spec, VALUES_OFF + self._size * self._elem_size, n_cpus, map_id)
        self.u32[SIZE], self.u32[ELEM_SIZE] = self._size & 0xFFFF_FFFF, self._elem_size

    def push(self, value: bytes, flags: int = BPF_ANY) -> int:
        """bpf_map_push_elem: 0, -E2BIG when full, -EINVAL for flags other than BPF_ANY and BPF_EXIST (overwrite the oldest)."""
        if flags & BPF_NOEXIST or flags > BPF_EXIST:
            return -errno.EINVAL
        u32, head = self.u32, self.u32[HEAD]
        following = (head + 1) % self._size
        if following == u32[TAIL]:
            if not flags & BPF_EXIST:
                return -errno.E2BIG
            u32[TAIL] = (u32[TAIL] + 1) % self._size
        at = VALUES_OFF + head * self._elem_size
        self.memory[at : at + len(value)] = value
        u32[HEAD] = following
        return 0

    def peek(self) -> bytes | None:
        """bpf_map_peek_elem: the value, or None (the helper then returns -ENOENT and fills the caller's buffer with zeroes)."""
        u32 = self.u32
        if u32[HEAD] == u32[TAIL]:
            return None
        slot = (u32[HEAD] - 1) % self._size if self.takes_newest else u32[TAIL]
        at = VALUES_OFF + slot * self._elem_size
        return bytes(self.memory[at : at + self.spec.value_size])

    def pop(self) -> bytes | None:
        """bpf_map_pop_elem: as ``peek``, and the value is gone."""
        value = self.peek()
        if value is not None:
            u32 = self.u32
            if self.takes_newest:
                u32[HEAD] = (u32[HEAD] - 1) % self._size
            else:
                u32[TAIL] = (u32[TAIL] + 1) % self._size
        return value

    def values(self) -> list[bytes]:
        """Every value, in the order in which pops would give them."""
        first, count, vs = self.u32[TAIL], (self.u32[HEAD] - self.u32[TAIL]) % self._size, self.spec.value_size
        offsets = [VALUES_OFF + (first + i) % self._size * self._elem_size for i in range(count)]
        found = [bytes(self.memory[at : at + vs]) for at in offsets]
        return found[::-1] if self.takes_newest else found

    # --- user space -------------------------------------------------------------------------------------------------
    def lookup_user(self, key: bytes = b"", flags: int = 0) -> bytes:
        """BPF_MAP_LOOKUP_ELEM peeks. Raises BpfError(ENOENT) when empty."""
        self.check_lookup_flags(flags)
        self.check_key(key)
        return _found(self.peek())

    def lookup_and_delete_user(self, key: bytes = b"", flags: int = 0) -> bytes:
        """BPF_MAP_LOOKUP_AND_DELETE_ELEM pops. Raises BpfError(ENOENT) when empty."""
        self.check_write()
        self.check_lookup_flags(flags)
        self.check_key(key)
        return _found(self.pop())

    def update_user(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        self.check_write(flags)
        self.check_key(key)
        self.check_value(value)
        raise_for(self.push(value, flags))

    def delete(self, key: bytes) -> int:
        return -errno.EINVAL

    def next_key(self, key: bytes | None) -> bytes | None:
        raise BpfError(errno.EINVAL)


def _found(value: bytes | None) -> bytes:
    if value is None:
        raise BpfError(errno.ENOENT)
    return value
