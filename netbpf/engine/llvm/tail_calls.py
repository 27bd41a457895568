"""bpf_tail_call in native code: the slot of the program array, the row of the program in it, and on in its code.

A slot holds a program's id, and ``targets`` what to call for an id. The other program runs on Args of its own, with the packet
and the frame of this one; what both count and draw from is copied there and back. The questions are the interpreter's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netbpf.abi.maps import MapType
from netbpf.engine.limits import MAX_TAIL_CALL_CNT
from netbpf.engine.llvm.abi import ARGS, FIND_TARGET, TARGET_ROW, TARGET_ROW_BYTES

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode

_THERE: Final = ("now_ns", "cpu_id", "rng_state", "budget")
_BACK: Final = ("rng_state", "budget", "tail_calls")
_SLOT_BYTES: Final = 8


def emit_tail_call(s: SubprogCode, pc: int) -> bool:
    """R1 the context, R2 a program array, R3 an index: where a program is there, its R0 is this function's; else on."""
    f = s.f
    base, length = _array(s, pc)
    index = f.math("and", s.get(3), 0xFFFF_FFFF)
    made, again, still = _arg(s, "%a", "tail_calls"), f.fresh_label("tail"), f.fresh_label("still")
    _go_on(s, f.test("ult", made, MAX_TAIL_CALL_CNT), still)
    _go_on(s, f.test("ult", index, length), still)
    slot = f.math("add", base, f.math("mul", index, _SLOT_BYTES))
    f.label(again)
    prog_id = f.load(64, f.op(f"inttoptr i64 {slot} to ptr"), 8)
    _go_on(s, f.test("ne", prog_id, 0), still)
    row = _row(s, pc, prog_id, again)
    s.leave(_run(s, row, f.math("add", made, 1)))
    f.label(still)
    return True


def _go_on(s: SubprogCode, test: str, otherwise: str) -> None:
    on = s.f.fresh_label("on")
    s.f.cond(test, on, otherwise)
    s.f.label(on)


def _arg(s: SubprogCode, args: str, name: str) -> str:
    return s.f.load(64, s.f.gep(args, ARGS[name]), 8)


def _set(s: SubprogCode, args: str, name: str, value: str) -> None:
    s.f.store(64, value, s.f.gep(args, ARGS[name]), 8)


def _array(s: SubprogCode, pc: int) -> tuple[str, str]:
    """Address and length of the program array in R2. A program that no verifier saw ends where there is none."""
    f, known, proved = s.f, s.known(pc, 2), s.owner.facts(pc).map_index
    arrays = {i: m.spec.max_entries for i, m in enumerate(s.owner.program.maps) if m.spec.map_type == MapType.PROG_ARRAY}
    index = known.value if known and known.kind == "map" else proved
    if index in arrays:
        return f.op(f"ptrtoint ptr %m{index} to i64"), str(arrays[index])
    held, base, length = s.get(2), "0", "0"
    for i, entries in arrays.items():
        hit = f.test("eq", held, s.map_handle(i))
        base = f.select(hit, 64, f.op(f"ptrtoint ptr %m{i} to i64"), base)
        length = f.select(hit, 64, str(entries), length)
    named, nothing = f.fresh_label("named"), f.fresh_label("nothing")
    f.cond(f.test("ne", base, 0), named, nothing)
    f.label(nothing)
    _find(s, pc)
    f.label(named)
    return base, length


def _find(s: SubprogCode, pc: int) -> None:
    """Have Python find the program that R2 and R3 name, and put it into the table; R0 stays."""
    from netbpf.engine.llvm.helpers import call_back

    r0 = s.get(0)
    call_back(s, pc, FIND_TARGET)
    s.set(0, r0)


def _row(s: SubprogCode, pc: int, prog_id: str, again: str) -> str:
    """The program's row of the table, made where there is none yet (the slot is then read again)."""
    f = s.f
    at = f.math("mul", f.math("and", prog_id, _arg(s, "%a", "target_mask")), TARGET_ROW_BYTES)
    row = f.gep(f.op(f"load ptr, ptr {f.gep('%a', ARGS['targets'])}, align 8"), at)
    found, missing = f.fresh_label("found"), f.fresh_label("missing")
    f.cond(f.test("eq", f.load(64, row, 8), prog_id), found, missing)
    f.label(missing)
    _find(s, pc)
    f.br(again)
    f.label(found)
    return row


def _run(s: SubprogCode, row: str, made: str) -> str:
    """Run the program of a row; its R0. Where it failed this one ends, too."""
    f = s.f
    entry, to = (f.op(f"load ptr, ptr {f.gep(row, TARGET_ROW[name])}, align 8") for name in ("entry", "args"))
    depth = _arg(s, "%a", "depth")
    told = {name: _arg(s, "%a", name) for name in _THERE}
    told |= {f"skb_{name}": f"%{name}" for name in ("len", "cap")}
    at = {"meta": "%meta", "skb_pkt": "%pkt", "frame": "%stack"}
    told |= {name: f.op(f"ptrtoint ptr {place} to i64") for name, place in at.items()}
    told["frame_bytes"] = s.frame_bytes
    # the other program goes on in this frame, which checked code has counted
    told |= {"tail_calls": made, "fault": "0", "depth": f.math("sub", depth, 1) if s.owner.checked else depth}
    for name, value in told.items():
        _set(s, to, name, value)
    r0 = f.op(f"call i64 {entry}(ptr {to})")
    for name in _BACK:
        _set(s, "%a", name, _arg(s, to, name))
    _set(s, "%a", "depth", depth)  # a later tail call may have led here again, with the same Args
    _set(s, "%a", "culprit", _arg(s, to, "culprit"))
    _set(s, "%a", "fault", _arg(s, to, "fault"))
    s.leave_on_fault()
    return r0
