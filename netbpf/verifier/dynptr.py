"""Dynptrs on the stack: two slots that hold one object, told apart from plain bytes.

A dynptr's registers carry ``ext = (kind, first_slot, dynptr_id)``; ``kind`` is enum bpf_dynptr_type. A slice made by
bpf_dynptr_data is a PTR_TO_MEM with ``ext = (0, False, dynptr_id)``. ``spi`` names the upper slot, where the object
begins; the other is ``spi - 1``.
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from netbpf.abi.arg_types import DYNPTR_TYPE_LOCAL, DYNPTR_TYPE_RINGBUF, MEM_RDONLY
from netbpf.verifier import state as st
from netbpf.verifier.env import Reject, VerifierEnv
from netbpf.verifier.liveness import bpf_mark_stack_read, bpf_mark_stack_write
from netbpf.verifier.log import mark_stack_slot_scratched, verbose
from netbpf.verifier.refs import acquire_reference, current, invalid_reg, owner, release_reference, replace_regs
from netbpf.verifier.regs import (
    fixed_offset,
    known_reg,
)
from netbpf.verifier.state import BPF_REG_SIZE, SLOT_INVALID, STACK_DYNPTR, FuncState, RegState, StackSlot

DYNPTR_NR_SLOTS: Final = 2
DYNPTR_SIZE: Final = DYNPTR_NR_SLOTS * BPF_REG_SIZE

# enum bpf_dynptr_type
DYNPTR_INVALID: Final = 0
DYNPTR_LOCAL: Final = 1
DYNPTR_RINGBUF: Final = 2
DYNPTR_SKB: Final = 3
DYNPTR_XDP: Final = 4
DYNPTR_SKB_META: Final = 5

_KIND_OF_FLAG: Final = (
    (DYNPTR_TYPE_LOCAL, DYNPTR_LOCAL),
    (DYNPTR_TYPE_RINGBUF, DYNPTR_RINGBUF),
    (st.DYNPTR_TYPE_SKB, DYNPTR_SKB),
    (st.DYNPTR_TYPE_XDP, DYNPTR_XDP),
    (st.DYNPTR_TYPE_SKB_META, DYNPTR_SKB_META),
)
DYNPTR_TYPE_FLAG_MASK: Final = sum(flag for flag, _ in _KIND_OF_FLAG)
_ALL_DYNPTR: Final = bytes([STACK_DYNPTR] * BPF_REG_SIZE)


class Dynptr(NamedTuple):
    """``RegState.ext`` of a dynptr, or of a slice of one (kind 0)."""

    kind: int
    first_slot: bool
    dynptr_id: int


def arg_to_dynptr_type(arg_type: int) -> int:
    """enum bpf_dynptr_type named by an argument kind's flags; 0 for any."""
    return next((kind for flag, kind in _KIND_OF_FLAG if arg_type & flag), DYNPTR_INVALID)


def is_refcounted(kind: int) -> bool:
    return kind == DYNPTR_RINGBUF


def dynptr_reg(kind: int, first_slot: bool, obj_id: int) -> RegState:
    """A dynptr's register. In the first slot the kernel's print of ``dynptr_id`` reads the flag that shares its bytes."""
    reg = known_reg(0).copy()
    reg.type = st.CONST_PTR_TO_DYNPTR
    reg.id = obj_id
    reg.ext = Dynptr(kind, first_slot, int(first_slot))
    return reg


def _dynptr_of(slot: StackSlot) -> Dynptr:
    ext = slot.spilled_ptr.ext
    assert isinstance(ext, Dynptr)
    return ext


class _Unplaced(Exception):
    """The pointer names no pair of slots: EINVAL (said in the log), or ERANGE where the stack was not yet grown to it."""

    def __init__(self, error: int) -> None:
        self.error = error


def _spi(env: VerifierEnv, reg: RegState) -> int:
    """dynptr_get_spi: the slot a stack pointer to a dynptr names."""
    if reg.var_off.mask:
        verbose(env, "dynptr has to be at a constant offset\n")
        raise _Unplaced(errno.EINVAL)
    off = reg.off + fixed_offset(reg)
    spi = (-off - 1) // BPF_REG_SIZE
    if off % BPF_REG_SIZE or spi < DYNPTR_NR_SLOTS - 1:
        verbose(env, f"cannot pass in dynptr at an offset={off}\n")
        raise _Unplaced(errno.EINVAL)
    if spi >= len(owner(env, reg).stack):
        raise _Unplaced(errno.ERANGE)
    return spi


def dynptr_get_spi(env: VerifierEnv, reg: RegState) -> int:
    """The slot ``reg`` names, or a negative errno."""
    try:
        return _spi(env, reg)
    except _Unplaced as e:
        return -e.error


def _object_reg(env: VerifierEnv, reg: RegState) -> RegState | None:
    """The dynptr itself: the constant pointer, or what its first stack slot holds."""
    if reg.type == st.CONST_PTR_TO_DYNPTR:
        return reg
    spi = dynptr_get_spi(env, reg)
    return None if spi < 0 else owner(env, reg).stack[spi].spilled_ptr


def dynptr_object(env: VerifierEnv, reg: RegState) -> RegState:
    """The dynptr that a checked argument points to: its ``id``, ``ref_obj_id`` and ``ext.kind``."""
    found = _object_reg(env, reg)
    assert found is not None
    return found


def _forget(env: VerifierEnv, frame: FuncState, spi: int) -> None:
    for i in (spi, spi - 1):
        frame.stack[i] = SLOT_INVALID
    bpf_mark_stack_write(env, frame.frameno, 3 << spi - 1)


def destroy_if_dynptr_stack_slot(env: VerifierEnv, frame: FuncState, spi: int) -> None:
    """A write is about to hit slot ``spi``: a dynptr there is gone, with its slices.

    Raises Reject EINVAL where it owns a reference.
    """
    slot = frame.stack[spi]
    if slot.slot_type[0] != STACK_DYNPTR:
        return
    if not _dynptr_of(slot).first_slot:
        spi += 1
    slot = frame.stack[spi]
    if is_refcounted(_dynptr_of(slot).kind):
        verbose(env, "cannot overwrite referenced dynptr\n")
        raise Reject(errno.EINVAL)
    mark_stack_slot_scratched(env, spi)
    mark_stack_slot_scratched(env, spi - 1)
    _forget(env, frame, spi)
    _drop_slices(env, slot.spilled_ptr.id)


def _drop_slices(env: VerifierEnv, dynptr_id: int) -> None:
    """Every slice of the dynptr becomes invalid."""
    gone = invalid_reg(env)

    def change(reg: RegState) -> RegState | None:
        if reg.type & ~st.PTR_MAYBE_NULL != st.PTR_TO_MEM or reg.ext is None or reg.ext.dynptr_id != dynptr_id:
            return None
        return gone

    replace_regs(current(env), change)


def mark_stack_slots_dynptr(env: VerifierEnv, reg: RegState, arg_type: int, insn_idx: int) -> None:
    """A helper makes a dynptr where ``reg`` points. Raises Reject when another one with a reference lies there."""
    frame = owner(env, reg)
    spi = dynptr_get_spi(env, reg)
    if spi < 0:
        raise Reject(-spi)
    destroy_if_dynptr_stack_slot(env, frame, spi)
    destroy_if_dynptr_stack_slot(env, frame, spi - 1)
    kind = arg_to_dynptr_type(arg_type)
    obj_id = env.new_id()
    upper, lower = dynptr_reg(kind, True, obj_id), dynptr_reg(kind, False, obj_id)
    if is_refcounted(kind):
        upper.ref_obj_id = lower.ref_obj_id = acquire_reference(env, insn_idx)
    frame.stack[spi] = StackSlot(_ALL_DYNPTR, upper)
    frame.stack[spi - 1] = StackSlot(_ALL_DYNPTR, lower)
    bpf_mark_stack_write(env, frame.frameno, 3 << spi - 1)


def unmark_stack_slots_dynptr(env: VerifierEnv, reg: RegState) -> None:
    """A helper consumes the dynptr ``reg`` points to, with all clones and slices."""
    frame = owner(env, reg)
    spi = dynptr_get_spi(env, reg)
    if spi < 0:
        raise Reject(-spi)
    held = frame.stack[spi].spilled_ptr
    if not is_refcounted(held.ext.kind):
        _forget(env, frame, spi)
        return
    release_reference(env, held.ref_obj_id)
    for i in range(1, len(frame.stack)):
        slot = frame.stack[i]
        if slot.spilled_ptr.ref_obj_id == held.ref_obj_id and slot.slot_type[0] == STACK_DYNPTR and _dynptr_of(slot).first_slot:
            _forget(env, frame, i)


def is_dynptr_reg_valid_uninit(env: VerifierEnv, reg: RegState) -> bool:
    """Whether a dynptr may be made where ``reg`` points (a reference there is found out later)."""
    return reg.type != st.CONST_PTR_TO_DYNPTR and dynptr_get_spi(env, reg) not in (-errno.EINVAL,)


def is_dynptr_reg_valid_init(env: VerifierEnv, reg: RegState) -> bool:
    """Whether ``reg`` points to the start of a dynptr."""
    if reg.type == st.CONST_PTR_TO_DYNPTR:
        return True
    spi = dynptr_get_spi(env, reg)
    if spi < 0:
        return False
    stack = owner(env, reg).stack
    upper, lower = stack[spi], stack[spi - 1]
    return (
        isinstance(upper.spilled_ptr.ext, Dynptr)
        and upper.spilled_ptr.ext.first_slot
        and upper.slot_type == _ALL_DYNPTR
        and lower.slot_type == _ALL_DYNPTR
    )


def is_dynptr_type_expected(env: VerifierEnv, reg: RegState, arg_type: int) -> bool:
    """Whether the dynptr is of the kind ``arg_type`` names (any, if it names none)."""
    kind = arg_to_dynptr_type(arg_type & ~MEM_RDONLY)
    return kind == DYNPTR_INVALID or dynptr_object(env, reg).ext.kind == kind


def mark_dynptr_read(env: VerifierEnv, reg: RegState) -> None:
    """The slots of a dynptr on the stack are read here."""
    if reg.type == st.CONST_PTR_TO_DYNPTR:
        return
    spi = dynptr_get_spi(env, reg)
    bpf_mark_stack_read(env, reg.frameno, env.insn_idx, 3 << spi - 1)
    mark_stack_slot_scratched(env, spi)
    mark_stack_slot_scratched(env, spi - 1)
