"""When a later state is covered by an earlier one: ids, registers, stack slots."""

from __future__ import annotations

from typing import Any

import pytest

from netbpf.isa.instruction import Instruction as I
from netbpf.maps.spec import MapSpec
from netbpf.verifier import state as st
from netbpf.verifier.env import LoadRequest, MapInfo, Privileges, VerifierEnv
from netbpf.verifier.equality import EXACT, NOT_EXACT, RANGE_WITHIN, IdMap, regsafe, stacksafe
from netbpf.verifier.regs import known_reg, unknown_reg_imprecise
from netbpf.verifier.state import BPF_ADD_CONST64, FuncState, RegState, StackSlot, Tnum

PROGRAM = (I(0xB7), I(0x95))
PLUS = BPF_ADD_CONST64


def env_of(privileges: Privileges | None = None) -> VerifierEnv:
    return VerifierEnv(LoadRequest(PROGRAM, privileges=privileges or Privileges()))


def scalar(low: int, high: int, **fields: Any) -> RegState:
    """A small unsigned range, whatever the bits."""
    reg = unknown_reg_imprecise().copy()
    reg.umin_value = reg.smin_value = reg.u32_min_value = reg.s32_min_value = low
    reg.umax_value = reg.smax_value = reg.u32_max_value = reg.s32_max_value = high
    for name, value in fields.items():
        setattr(reg, name, value)
    return reg


def safe(old: RegState, cur: RegState, exact: int = NOT_EXACT, idmap: IdMap | None = None) -> bool:
    return regsafe(env_of(), old, cur, idmap or IdMap(100), exact)


def test_ids_are_paired_one_to_one() -> None:
    ids = IdMap(10)
    assert ids.check(1, 5)
    assert ids.check(1, 5)
    assert not ids.check(1, 6)
    assert not ids.check(2, 5)
    assert ids.check(0, 0)
    assert not ids.check(0, 7)
    assert not ids.check(7, 0)


def test_an_old_scalar_without_id_takes_any_new_one() -> None:
    ids = IdMap(10)
    assert ids.check_scalar(0, 5)
    assert ids.check_scalar(0, 5)
    assert ids.check_scalar(3, 0)
    assert not ids.check_scalar(3, 0)  # two new scalars without id are two, the old ones were one


@pytest.mark.parametrize(
    ("old", "cur", "not_exact", "within", "exact"),
    [
        (scalar(0, 10), scalar(0, 99), True, False, False),  # imprecise: nobody looked at the range
        (scalar(0, 10, precise=True), scalar(2, 9), True, True, False),
        (scalar(0, 10, precise=True), scalar(0, 11), False, False, False),
        (scalar(0, 10), scalar(0, 10), True, True, True),
        (scalar(0, 10, precise=True), scalar(0, 10, id=3), True, True, False),
        (scalar(0, 10, precise=True, id=2), scalar(0, 10, id=3), True, True, True),
        (scalar(0, 10, precise=True, id=PLUS | 2, off=1), scalar(0, 10, id=3), False, False, False),
        (scalar(0, 10, precise=True, id=PLUS | 2, off=1), scalar(0, 10, id=PLUS | 3, off=2), False, False, False),
        (scalar(0, 10, precise=True, id=PLUS | 2, off=1), scalar(0, 10, id=PLUS | 3, off=1), True, True, True),
        (st.REG_NOT_INIT, scalar(0, 1), True, False, False),
        (scalar(0, 1), st.REG_NOT_INIT, False, False, False),
        (scalar(0, 1), RegState(st.PTR_TO_CTX), False, False, False),
    ],
)
def test_scalars(old: RegState, cur: RegState, not_exact: bool, within: bool, exact: bool) -> None:
    assert [safe(old, cur, how) for how in (NOT_EXACT, RANGE_WITHIN, EXACT)] == [not_exact, within, exact]


def test_known_bits_have_to_be_covered_too() -> None:
    old, cur = scalar(0, 12, precise=True, var_off=Tnum(0, 12)), scalar(0, 12, var_off=Tnum(0, 13))
    assert not safe(old, cur)
    assert safe(scalar(0, 12, precise=True, var_off=Tnum(0, 13)), old)


def test_limits_of_masked_arithmetic_make_scalars_compare_whole() -> None:
    env = env_of()
    env.explore_alu_limits = True
    assert not regsafe(env, scalar(0, 10), scalar(0, 9), IdMap(9), NOT_EXACT)
    assert regsafe(env, scalar(0, 10), scalar(0, 10), IdMap(9), NOT_EXACT)


def pointer(kind: int, **fields: Any) -> RegState:
    reg = known_reg(0).copy()
    reg.type = kind
    for name, value in fields.items():
        setattr(reg, name, value)
    return reg


def test_pointers() -> None:
    one, other = MapInfo(MapSpec(2, 4, 8, 1)), MapInfo(MapSpec(2, 4, 8, 1))
    value = st.PTR_TO_MAP_VALUE
    assert safe(pointer(value, map_ptr=one, off=4), pointer(value, map_ptr=one, off=4))
    assert not safe(pointer(value, map_ptr=one), pointer(value, map_ptr=other))
    assert not safe(pointer(value, map_ptr=one, off=4), pointer(value, map_ptr=one))
    assert not safe(pointer(st.PTR_TO_STACK), pointer(st.PTR_TO_STACK, frameno=1))
    assert not safe(pointer(st.PTR_TO_MAP_VALUE_OR_NULL, map_ptr=one, id=1), pointer(value, map_ptr=one))
    assert safe(pointer(st.PTR_TO_MEM, ref_obj_id=2), pointer(st.PTR_TO_MEM, ref_obj_id=7))
    assert not safe(pointer(st.PTR_TO_MEM, ref_obj_id=2), pointer(st.PTR_TO_MEM))


def frame(*slots: StackSlot) -> FuncState:
    func = FuncState(-1, 0, 0)
    func.stack = list(slots)
    return func


MISC, ZERO, PART = (StackSlot(kinds, st.REG_NOT_INIT) for kinds in (b"\2" * 8, b"\3" * 8, b"\0" * 4 + b"\2" * 4))
SPILL = StackSlot(b"\1" * 8, scalar(0, 10, precise=True))


@pytest.mark.parametrize(
    ("old", "cur", "priv", "unpriv"),
    [
        (frame(st.SLOT_INVALID), frame(), True, True),
        (frame(MISC), frame(), True, False),  # who may read uninitialised stack cares for neither
        (frame(MISC), frame(ZERO), True, True),
        (frame(ZERO), frame(MISC), False, False),
        (frame(ZERO), frame(), False, False),
        (frame(SPILL), frame(StackSlot(b"\1" * 8, scalar(3, 4))), True, True),
        (frame(SPILL), frame(StackSlot(b"\1" * 8, scalar(3, 14))), False, False),
        (frame(SPILL), frame(MISC), False, False),
        (frame(PART), frame(st.SLOT_INVALID), True, False),
        (frame(st.SLOT_INVALID, SPILL), frame(MISC, SPILL), True, True),
    ],
)
def test_stack_slots(old: FuncState, cur: FuncState, priv: bool, unpriv: bool) -> None:
    for privileges, expected in ((Privileges(), priv), (Privileges.from_caps(False, False), unpriv)):
        assert stacksafe(env_of(privileges), old, cur, IdMap(9), NOT_EXACT) == expected


def test_a_spilled_number_and_written_bytes_are_the_same_unknown() -> None:
    anything = StackSlot(b"\1" * 8, unknown_reg_imprecise())
    assert stacksafe(env_of(), frame(anything), frame(MISC), IdMap(9), NOT_EXACT)
    assert stacksafe(env_of(), frame(MISC), frame(SPILL), IdMap(9), NOT_EXACT)
    assert not stacksafe(env_of(), frame(MISC), frame(SPILL), IdMap(9), RANGE_WITHIN)


def test_exact_comparison_of_stacks() -> None:
    env = env_of()
    assert stacksafe(env, frame(MISC), frame(st.SLOT_INVALID), IdMap(9), EXACT)
    assert not stacksafe(env, frame(st.SLOT_INVALID), frame(ZERO), IdMap(9), EXACT)
    assert not stacksafe(env_of(Privileges.from_caps(True, False)), frame(MISC), frame(st.SLOT_INVALID), IdMap(9), EXACT)
