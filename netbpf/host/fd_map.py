"""A map behind a descriptor, read as user space reads it: the same on the simulator and on the running kernel."""

from __future__ import annotations

import errno

from netbpf.errors import BpfError
from netbpf.host.base import Process
from netbpf.maps.spec import MapSpec


class FdMap:
    """``maps.base.ReadableMap`` by bpf(2). The descriptor stays its owner's. Raises BpfError."""

    def __init__(self, process: Process, fd: int, name: str = "") -> None:
        info = process.map_info(fd)
        self._process, self.fd = process, fd
        self.map_type, self.map_id = info.type, info.id
        spec = MapSpec(info.type, info.key_size, info.value_size, info.max_entries, info.map_flags)
        self.spec = spec._replace(name=name)

    def lookup_user(self, key: bytes, flags: int = 0) -> bytes:
        """The value's bytes. Raises BpfError(ENOENT ...)."""
        return self._process.map_lookup_elem(self.fd, key, flags)

    def next_key(self, key: bytes | None) -> bytes | None:
        """The key after ``key``; the first one for None; None at the end."""
        try:
            return self._process.map_get_next_key(self.fd, key)
        except BpfError as e:
            if e.errno == errno.ENOENT:
                return None
            raise
