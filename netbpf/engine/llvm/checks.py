"""Run-time checks, for programs that no verifier saw and for the mode ``checked``: what memory is touched, how deep calls go.

The code of the checks and the table they read. What may be touched is a list of regions; stack frames are rows before the first,
written by the code itself, frame 0 just before it; maps, packets and what call backs hand out are written by Python
(``regions``). A check that fails stores what happened in Args and the run ends.

A row is six u64: lo, span, stride, size, writable, reserved. ``size`` bytes at every ``stride`` from lo to lo + span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netbpf.engine.limits import MAX_CALL_FRAMES, MORE_FRAMES
from netbpf.engine.llvm.abi import ARGS
from netbpf.engine.llvm.ir import Function
from netbpf.isa.opcodes import MAX_BPF_STACK

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode

READ, WRITE, ATOMIC = range(3)
FAULT_ACCESS, FAULT_DEPTH, FAULT_BUDGET, FAULT_INSN, FAULT_R6, FAULT_DEAD = range(1, 7)
ROW_WORDS: Final = 6
ROW_BYTES: Final = 8 * ROW_WORDS


def _arg(f: Function, name: str) -> str:
    return f.load(64, f.gep("%a", ARGS[name]), 8)


def _set_arg(f: Function, name: str, value: str) -> None:
    f.store(64, value, f.gep("%a", ARGS[name]), 8)


def check_text() -> str:
    """The functions that the code of a checked program calls."""
    return "\n".join([_check(), _fault()])


def _check() -> str:
    """Whether ``size`` bytes at ``address`` may be accessed; notes a fault where not."""
    f = Function("define internal i1 @check(ptr %a, i64 %address, i64 %size, i64 %access, i64 %pc) noinline nounwind")
    rows = f.op(f"load ptr, ptr {f.gep('%a', ARGS['regions'])}, align 8")
    count, reading = _arg(f, "n_regions"), f.op(f"icmp eq i64 %access, {READ}")
    first = f.math("sub", 0, _arg(f, "depth"))
    f.label("loop")
    f.lines.append(f"  %i = phi i64 [ {first}, %entry ], [ %after, %next ]")
    f.cond(f.op(f"icmp slt i64 %i, {count}"), "look", "nowhere")
    f.label("look")
    row = f.gep(rows, f.op(f"mul i64 %i, {ROW_BYTES}"))
    lo, span, stride, size, writable = (f.load(64, f.gep(row, 8 * k), 8) for k in range(5))
    off = f.op(f"sub i64 %address, {lo}")
    f.cond(f.op(f"icmp ult i64 {off}, {span}"), "inside", "next")
    f.label("inside")
    end = f.op(f"add i64 {f.op(f'urem i64 {off}, {stride}')}, %size")
    allowed = f.op(f"or i1 {reading}, {f.op(f'icmp ne i64 {writable}, 0')}")
    f.cond(f.op(f"and i1 {f.op(f'icmp ule i64 {end}, {size}')}, {allowed}"), "good", "next")
    f.label("next")
    f.lines.append("  %after = add i64 %i, 1")
    f.br("loop")
    f.label("good")
    f.ret("i1 true")
    f.label("nowhere")
    f.do(f"call void @fault(ptr %a, i64 {FAULT_ACCESS}, i64 %pc, i64 %address)")
    _set_arg(f, "fault_size", "%size")
    _set_arg(f, "fault_access", "%access")
    f.ret("i1 false")
    return f.text()


def _fault() -> str:
    f = Function("define internal void @fault(ptr %a, i64 %kind, i64 %pc, i64 %address) noinline nounwind")
    own = f.op("ptrtoint ptr %a to i64")
    told = {"fault": "1", "culprit": own, "fault_kind": "%kind", "fault_pc": "%pc", "fault_address": "%address"}
    for name, value in told.items():
        _set_arg(f, name, value)
    f.ret("void")
    return f.text()


# --- what a checked program does at an instruction --------------------------------------------------------------------------
def emit_check(s: SubprogCode, pc: int, address: str, size: str, access: int) -> None:
    """Go on where ``size`` bytes at ``address`` may be accessed, else end the run."""
    good = s.f.fresh_label("good")
    test = s.f.op(f"call i1 @check(ptr %a, i64 {address}, i64 {size}, i64 {access}, i64 {pc})")
    s.f.cond(test, good, "abort")
    s.f.label(good)


def emit_fault(s: SubprogCode, pc: int, kind: int, address: str = "0") -> None:
    """End the run with a fault; the block is closed."""
    s.f.do(f"call void @fault(ptr %a, i64 {kind}, i64 {pc}, i64 {address})")
    s.f.br("abort")


def emit_enter(s: SubprogCode) -> None:
    """Make the frame a region, if it is not one too many."""
    f = s.f
    depth = _arg(f, "depth")
    deep, room = f.fresh_label("deep"), f.fresh_label("room")
    most = f.math("add", f.math("mul", _arg(f, "tail_calls"), MORE_FRAMES), MAX_CALL_FRAMES)
    f.cond(f.test("ult", depth, most), room, deep)
    f.label(deep)
    f.do(f"call void @fault(ptr %a, i64 {FAULT_DEPTH}, i64 {_arg(f, 'call_pc')}, i64 0)")
    f.ret("i64 0")
    f.label(room)
    deeper = f.math("add", depth, 1)
    row = _frame(f, deeper)
    f.store(64, f.op("ptrtoint ptr %stack to i64"), row, 8)
    f.store(64, str(MAX_BPF_STACK), f.gep(row, 8), 8)
    _set_arg(f, "depth", deeper)


def emit_leave(s: SubprogCode) -> None:
    """The frame is no region any more."""
    f = s.f
    depth = _arg(f, "depth")
    f.store(64, "0", f.gep(_frame(f, depth), 8), 8)
    _set_arg(f, "depth", f.math("sub", depth, 1))


def _frame(f: Function, depth: str) -> str:
    """The row of the innermost of ``depth`` frames."""
    rows = f.op(f"load ptr, ptr {f.gep('%a', ARGS['regions'])}, align 8")
    return f.gep(rows, f.math("mul", depth, -ROW_BYTES))


def emit_budget(s: SubprogCode, pc: int) -> None:
    """Count a jump backwards; a run has only so many."""
    f = s.f
    left = _arg(f, "budget")
    _set_arg(f, "budget", f.op(f"sub i64 {left}, 1"))
    spent, on = f.fresh_label("spent"), f.fresh_label("on")
    f.cond(f.op(f"icmp eq i64 {left}, 0"), spent, on)
    f.label(spent)
    emit_fault(s, pc, FAULT_BUDGET)
    f.label(on)
