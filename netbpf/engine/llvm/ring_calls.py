"""The helpers on ring buffers and perf event arrays in native code. In a checked program Python makes a record a region, and
ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from netbpf.abi.maps import MapType
from netbpf.engine.llvm.map_refs import MapRef, bytes_of, cpu_operand, inner_at, map_kernel, native_map, own_map
from netbpf.engine.llvm.shape import RINGS
from netbpf.maps.check import PAGE_SIZE

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode

RING_HEADER: Final = 8
RING_META_PAGES: Final = 3


def ring_of(s: SubprogCode, pc: int) -> MapRef | None:
    """The ring buffer in R1, where native code may write to it."""
    return None if s.owner.checked or s.owner.reserves_elsewhere else native_map(s, pc, RINGS)


def _ring_output(s: SubprogCode, pc: int) -> bool:
    m = ring_of(s, pc)
    if m is None:
        return False
    s.set(0, map_kernel(s, "output", m, bytes_of(s, pc, 2, 3), s.get(3), s.get(4)))
    return True


def _ring_reserve(s: SubprogCode, pc: int) -> bool:
    m = ring_of(s, pc)
    if m is None:
        return False
    s.set(0, map_kernel(s, "reserve", m, s.get(2), s.get(3)))
    return True


def _ring_query(s: SubprogCode, pc: int) -> bool:
    m = ring_of(s, pc)
    if m is None:
        return False
    s.set(0, map_kernel(s, "query", m, s.get(2)))
    return True


def _ring_end(discard: int) -> Callable[[SubprogCode, int], bool]:
    """Submit or discard the record in R1."""

    def body(s: SubprogCode, pc: int) -> bool:
        if not ends_records(s):
            return False
        end_record(s, s.get(1), discard)
        s.set(0, "0")
        return True

    return body


def ends_records(s: SubprogCode) -> bool:
    """Whether the records of this program are reserved in native code."""
    return bool(_rings(s) or _outers_of_rings(s)) and not s.owner.checked and not s.owner.reserves_elsewhere


def _rings(s: SubprogCode) -> list[int]:
    return [i for i, m in enumerate(s.owner.program.maps) if m.spec.map_type in RINGS]


def _outers_of_rings(s: SubprogCode) -> list[int]:
    """The maps of maps with rings in them."""
    return [i for i, m in enumerate(s.owner.program.maps) if m.spec.inner is not None and m.spec.inner.map_type in RINGS]


def end_record(s: SubprogCode, sample: str, discard: int) -> None:
    """Submit or discard a record. Whose it is, its header tells: the distance from the ring's start in pages."""
    f = s.f
    header = f.math("sub", sample, RING_HEADER)
    pages = f.zext(f.load(32, f.op(f"inttoptr i64 {f.math('add', header, 4)} to ptr")), 32)
    data = f.math("sub", f.math("and", header, -PAGE_SIZE), f.math("mul", f.math("sub", pages, RING_META_PAGES), PAGE_SIZE))
    base = f.math("sub", data, 2 * PAGE_SIZE)
    done = f.fresh_label("ended")
    for index in _rings(s):
        mine, other = f.fresh_label("mine"), f.fresh_label("other")
        f.cond(f.test("eq", base, f.op(f"ptrtoint ptr %m{index} to i64")), mine, other)
        f.label(mine)
        map_kernel(s, "commit", own_map(s, index), sample, str(discard))
        f.br(done)
        f.label(other)
    for outer_index in _outers_of_rings(s)[:1]:  # the code of one serves the rings inside any
        map_kernel(s, "commit", inner_at(s, outer_index, f.op(f"inttoptr i64 {base} to ptr")), sample, str(discard))
    f.br(done)
    f.label(done)


def _perf_output(s: SubprogCode, pc: int) -> bool:
    """R2 map, R3 flags, R4 data, R5 size; as many bytes of the packet as the flags say follow."""
    m = native_map(s, pc, frozenset({MapType.PERF_EVENT_ARRAY}), 2)
    if m is None:
        return False
    s.owner.wants_flat = True
    f, data = s.f, bytes_of(s, pc, 4, 5)
    packet = f.op("ptrtoint ptr %pkt to i64")
    cpu = cpu_operand(s, m, frozenset({MapType.PERF_EVENT_ARRAY}))
    s.set(0, map_kernel(s, "perf_output", m, s.get(3), data, s.get(5), packet, "%cap", cpu))
    return True


RING_CALLS: Final[dict[str, Callable[[SubprogCode, int], bool]]] = {
    "ringbuf_output": _ring_output,
    "ringbuf_reserve": _ring_reserve,
    "ringbuf_submit": _ring_end(0),
    "ringbuf_discard": _ring_end(1),
    "ringbuf_query": _ring_query,
    "perf_event_output": _perf_output,
}
