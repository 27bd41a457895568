"""bpf_ringbuf_*. A reserved record is a region of its own until it is submitted or discarded."""

from __future__ import annotations

from typing import Any, Final

from netbpf.engine.interp.helpers.body import Body
from netbpf.engine.interp.machine import Machine, Record
from netbpf.engine.interp.memory import Fault


def ringbuf_output(m: Machine, map_: int, data: int, size: int, flags: int, r5: int) -> int:
    ring: Any = m.handle_at(map_).map
    result: int = ring.output(m.memory.read(data, size), flags)
    return result


def ringbuf_reserve(m: Machine, map_: int, size: int, flags: int, r4: int, r5: int) -> int:
    """The record's address, or 0."""
    return 0 if flags else reserve(m, map_, size)


def reserve(m: Machine, map_: int, size: int) -> int:
    """A record of ``size`` bytes; its address, or 0 when there is no room."""
    handle = m.handle_at(map_)
    ring: Any = handle.map
    offset: int = ring.reserve(size)
    if offset < 0:
        return 0
    address = m.memory.record(handle.window, offset, size)
    m.records[address] = Record(ring, offset)
    return address


def ringbuf_submit(m: Machine, sample: int, flags: int, r3: int, r4: int, r5: int) -> int:
    commit(m, sample, flags, discard=False)
    return 0


def ringbuf_discard(m: Machine, sample: int, flags: int, r3: int, r4: int, r5: int) -> int:
    commit(m, sample, flags, discard=True)
    return 0


def commit(m: Machine, address: int, flags: int, *, discard: bool) -> None:
    """End a record. Raises Fault when none was reserved at ``address``."""
    record = m.records.pop(address, None)
    if record is None:
        raise Fault(f"no ring buffer record was reserved at {address:#x}", address)
    m.memory.drop(address)
    record.ring.commit(record.offset, flags, discard=discard)


def ringbuf_query(m: Machine, map_: int, what: int, r3: int, r4: int, r5: int) -> int:
    ring: Any = m.handle_at(map_).map
    answer: int = ring.query(what)
    return answer


BODIES: Final[dict[str, Body]] = {
    "ringbuf_output": ringbuf_output,
    "ringbuf_reserve": ringbuf_reserve,
    "ringbuf_submit": ringbuf_submit,
    "ringbuf_discard": ringbuf_discard,
    "ringbuf_query": ringbuf_query,
}
