"""What kinds with one value per CPU share: the user-space form of a value, all CPUs' copies, each padded to 8 bytes.

Mixed into a kind that sets ``cpu_stride``. The padding is stored, and comes back as it was written.
"""

from __future__ import annotations

from netbpf.ints import round_up
from netbpf.maps.base import BPF_ANY
from netbpf.maps.storage import MapBase, raise_for


class PerCpuValues(MapBase):
    """User-space forms over values in planes."""

    __slots__ = ()

    @property
    def user_value_size(self) -> int:
        return round_up(self.spec.value_size, 8) * self.n_cpus

    def read_value(self, offset: int) -> bytes:
        size, stride, memory = round_up(self.spec.value_size, 8), self.cpu_stride, self.memory
        return b"".join(memory[at : at + size] for at in range(offset, offset + self.n_cpus * stride, stride))

    def write_planes(self, offset: int, values: bytes) -> None:
        """Write all CPUs' copies, the first of them at ``offset``."""
        size = round_up(self.spec.value_size, 8)
        for cpu in range(self.n_cpus):
            at = offset + cpu * self.cpu_stride
            self.memory[at : at + size] = values[cpu * size : (cpu + 1) * size]

    def clear_planes(self, offset: int) -> None:
        """Zero all CPUs' copies but not their padding, which keeps what it had, as in Linux."""
        zero = bytes(self.spec.value_size)
        for cpu in range(self.n_cpus):
            at = offset + cpu * self.cpu_stride
            self.memory[at : at + len(zero)] = zero

    def update_all(self, key: bytes, values: bytes, flags: int) -> int:
        """Update every CPU's copy: 0 or -errno."""
        raise NotImplementedError

    def update_user(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        self.check_write(flags)
        self.check_key(key)
        self.check_value(value)
        raise_for(self.update_all(key, value, flags))
