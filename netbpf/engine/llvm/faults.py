"""The words for what a check in native code found; see ``checks``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from netbpf.engine.limits import MAX_CALL_FRAMES
from netbpf.engine.llvm.checks import (
    FAULT_ACCESS,
    FAULT_BUDGET,
    FAULT_DEAD,
    FAULT_DEPTH,
    FAULT_INSN,
    FAULT_R6,
)
from netbpf.errors import EngineFault, InternalError

if TYPE_CHECKING:
    from netbpf.engine.llvm.program import NativeProgram

ACCESS_NAMES: Final = ("read", "write", "atomic access")


def native_fault(loaded: NativeProgram, args: Mapping[str, int]) -> EngineFault:
    """The fault that ``args`` (the fault_* fields of Args) tell of."""
    kind, pc, address = args["fault_kind"], args["fault_pc"], args["fault_address"]
    if kind == FAULT_ACCESS:
        access = ACCESS_NAMES[args["fault_access"]]
        return loaded.fault(pc, loaded.regions.explain(address, args["fault_size"], access), address)
    if kind == FAULT_DEPTH:
        return loaded.fault(pc, f"the call stack of {MAX_CALL_FRAMES} frames is used up")
    if kind == FAULT_BUDGET:
        return loaded.fault(pc, "the instruction limit for this run is used up")
    if kind == FAULT_R6:
        return loaded.fault(pc, f"a packet load needs the context in R6, which holds {address:#x}", address)
    if kind == FAULT_DEAD:
        return loaded.fault(pc, "the proof says that this instruction is never reached")
    if kind == FAULT_INSN:
        from netbpf.engine.llvm.lowerer import insn_problem

        return loaded.fault(pc, insn_problem(loaded.program.insns, pc))
    raise InternalError(f"native code stopped with fault {kind}")
