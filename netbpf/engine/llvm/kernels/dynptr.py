"""bpf_dynptr_*: ``at`` is the address of a struct bpf_dynptr_kern, see ``interp.helpers.dynptrs``. Inlined, for it lies in the
program's stack."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import inline, move, u32, u64

SIZE = 8
OFFSET = 12
MAX_SIZE = 0xFF_FFFF
RDONLY = 0x8000_0000
LOCAL = 0x1000_0000
RINGBUF = 0x2000_0000
E2BIG = 7
EINVAL = 22


@inline
def make(at: int, data: int, size: int, kind: int) -> int:
    u64[at] = data
    u32[at + SIZE] = size | kind
    u32[at + OFFSET] = 0
    return 0


@inline
def clear(at: int) -> int:
    return make(at, 0, 0, 0)


@inline
def data_of(at: int) -> int:
    """The address of the first byte; 0: a null dynptr."""
    return u64[at] + u32[at + OFFSET] if u64[at] else 0


@inline
def is_outside(at: int, offset: int, size: int) -> int:
    length = u32[at + SIZE] & MAX_SIZE
    return size > length or offset > length - size


@inline
def from_mem(data: int, size: int, flags: int, at: int) -> int:
    clear(at)
    if size > MAX_SIZE:
        return -E2BIG
    if flags:
        return -EINVAL
    return make(at, data, size, LOCAL)


@inline
def of_record(at: int, sample: int, size: int) -> int:
    return make(at, sample, size, RINGBUF) if sample else -EINVAL


@inline
def read(to: int, size: int, at: int, offset: int, flags: int) -> int:
    data = data_of(at)
    if not data or flags:
        return -EINVAL
    if is_outside(at, offset, size):
        return -E2BIG
    move(to, data + offset, size)
    return 0


@inline
def write(at: int, offset: int, source: int, size: int, flags: int) -> int:
    data = data_of(at)
    if not data or u32[at + SIZE] & RDONLY:
        return -EINVAL
    if is_outside(at, offset, size):
        return -E2BIG
    if flags:
        return -EINVAL
    move(data + offset, source, size)
    return 0


@inline
def slice(at: int, offset: int, size: int) -> int:
    """The address of ``size`` bytes at ``offset``, or 0."""
    data = data_of(at)
    if not data or u32[at + SIZE] & RDONLY or is_outside(at, offset, size):
        return 0
    return data + offset
