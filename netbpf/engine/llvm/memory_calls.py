"""The helpers on text and dynptrs in native code: ``kernels.text`` and ``kernels.dynptr``. In a checked program Python does it
all, which looks at every address."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from netbpf.engine.interp.helpers.dynptrs import DYNPTR, DYNPTR_MAX_SIZE
from netbpf.engine.llvm.checks import READ, WRITE
from netbpf.engine.llvm.map_refs import bytes_of, map_kernel, room
from netbpf.engine.llvm.ring_calls import end_record, ends_records, ring_of

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode


def call_kernel(s: SubprogCode, module: str, name: str, *args: str) -> str:
    """Call a kernel that belongs to no map."""
    s.owner.used_kernels.add(module)
    return s.f.op(f"call i64 @{name}.{module}({', '.join(f'i64 {a}' for a in args)})")


def _u32(s: SubprogCode, register: int) -> str:
    return s.f.math("and", s.get(register), 0xFFFF_FFFF)


def _strncmp(s: SubprogCode, pc: int) -> None:
    s.set(0, call_kernel(s, "text", "compare", bytes_of(s, pc, 1, 2), _u32(s, 2), s.get(3)))


def _number(signed: int) -> Callable[[SubprogCode, int], None]:
    """strtol and strtoul: R1 text, R2 its size, R3 the base, R4 where the number goes."""

    def body(s: SubprogCode, pc: int) -> None:
        f, value = s.f, room(s, 8)
        to, text = s.pointer(pc, 4, 0, 8, WRITE), bytes_of(s, pc, 1, 2)
        place = f.op(f"ptrtoint ptr {value} to i64")
        result = call_kernel(s, "text", "number", text, s.get(2), s.get(3), place, str(signed))
        f.store(64, f.load(64, value, 8), to, 8)
        s.set(0, result)

    return body


def dynptr_at(s: SubprogCode, pc: int, register: int, access: int) -> str:
    """Address of the dynptr that R points to."""
    return s.f.op(f"ptrtoint ptr {s.pointer(pc, register, 0, DYNPTR.size, access)} to i64")


def _from_mem(s: SubprogCode, pc: int) -> None:
    s.set(0, call_kernel(s, "dynptr", "from_mem", s.get(1), _u32(s, 2), s.get(3), dynptr_at(s, pc, 4, WRITE)))


def _read(s: SubprogCode, pc: int) -> None:
    s.set(0, call_kernel(s, "dynptr", "read", s.get(1), _u32(s, 2), dynptr_at(s, pc, 3, READ), _u32(s, 4), s.get(5)))


def _write(s: SubprogCode, pc: int) -> None:
    s.set(0, call_kernel(s, "dynptr", "write", dynptr_at(s, pc, 1, READ), _u32(s, 2), s.get(3), _u32(s, 4), s.get(5)))


def _data(s: SubprogCode, pc: int) -> None:
    s.set(0, call_kernel(s, "dynptr", "slice", dynptr_at(s, pc, 1, READ), _u32(s, 2), _u32(s, 3)))


# --- records of ring buffers ------------------------------------------------------------------------------------------------
def _reserve(s: SubprogCode, pc: int) -> bool:
    """R1 a ring, R2 the record's size, R3 flags, R4 the dynptr: null where there is no record."""
    m = ring_of(s, pc)
    if m is None:
        return False
    f, at, size, flags = s.f, dynptr_at(s, pc, 4, WRITE), _u32(s, 2), s.get(3)
    call_kernel(s, "dynptr", "clear", at)
    unflagged = f.test("eq", flags, 0)
    s.set(0, f.select(unflagged, 64, str(-errno.E2BIG), str(-errno.EINVAL)))
    good, done = f.fresh_label("reserve"), f.fresh_label("reserved")
    f.cond(f.both(unflagged, f.test("ule", size, DYNPTR_MAX_SIZE)), good, done)
    f.label(good)
    s.set(0, call_kernel(s, "dynptr", "of_record", at, map_kernel(s, "reserve", m, size, "0"), size))
    f.label(done)
    return True


def _end(discard: int) -> Callable[[SubprogCode, int], bool]:
    """R1 a dynptr, which becomes null; nothing happens to one that is."""

    def body(s: SubprogCode, pc: int) -> bool:
        if not ends_records(s):
            return False
        f, at = s.f, dynptr_at(s, pc, 1, WRITE)
        sample = call_kernel(s, "dynptr", "data_of", at)
        some, none = f.fresh_label("some"), f.fresh_label("none")
        s.set(0, "0")
        f.cond(f.test("ne", sample, 0), some, none)
        f.label(some)
        end_record(s, sample, discard)
        call_kernel(s, "dynptr", "clear", at)
        f.label(none)
        return True

    return body


def _unchecked(body: Callable[[SubprogCode, int], None]) -> Callable[[SubprogCode, int], bool]:
    def emit(s: SubprogCode, pc: int) -> bool:
        if not s.owner.checked:
            body(s, pc)
        return not s.owner.checked

    return emit


MEMORY_CALLS: Final[dict[str, Callable[[SubprogCode, int], bool]]] = {
    "strncmp": _unchecked(_strncmp),
    "strtol": _unchecked(_number(1)),
    "strtoul": _unchecked(_number(0)),
    "dynptr_from_mem": _unchecked(_from_mem),
    "dynptr_read": _unchecked(_read),
    "dynptr_write": _unchecked(_write),
    "dynptr_data": _unchecked(_data),
    "ringbuf_reserve_dynptr": _reserve,
    "ringbuf_submit_dynptr": _end(0),
    "ringbuf_discard_dynptr": _end(1),
}
