"""Words and positions of the log: numbers, registers, stack slots, alignment, taking text back."""

from __future__ import annotations

import pytest
from support.scalars import hull

from netbpf.ints import U64_MAX
from netbpf.isa.instruction import Instruction
from netbpf.maps.spec import MapSpec
from netbpf.verifier import log
from netbpf.verifier import state as st
from netbpf.verifier.bounds import reg_bounds_sync
from netbpf.verifier.env import LoadRequest, MapInfo, VerifierEnv
from netbpf.verifier.regs import known_reg
from netbpf.verifier.state import FuncState, RefState, RegState, StackSlot, VerifierState


@pytest.fixture
def env() -> VerifierEnv:
    return VerifierEnv(LoadRequest((Instruction(0xB7), Instruction(0x95)), log_level=2))


def text_of(env: VerifierEnv, reg: RegState) -> str:
    return log.format_reg_state(env, FuncState(-1, 0, 0), reg)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-1, "-1"), (32767, "32767"), (32768, "0x8000"), (-32769, "0xffffffffffff7fff"), (1 << 63, "0x8000000000000000")],
)
def test_signed_numbers(value: int, text: str) -> None:
    assert log.format_snum(value) == text


def test_unsigned_numbers() -> None:
    assert (log.format_unum(65535), log.format_unum(65536), log.format_unum(U64_MAX)) == ("65535", "0x10000", hex(U64_MAX))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([5], "5"),
        ([U64_MAX], "-1"),
        (range(256), "scalar(smin=smin32=0,smax=umax=smax32=umax32=255,var_off=(0x0; 0xff))"),
        (
            [U64_MAX - 1, U64_MAX],
            "scalar(smin=smin32=-2,smax=smax32=-1,umin=0xfffffffffffffffe,umin32=0xfffffffe,var_off=(0xfffffffffffffffe; 0x1))",
        ),
        (
            [3, 1 << 40 | 3],
            "scalar(smin=umin=smin32=umin32=3,smax=umax=0x10000000003,smax32=umax32=3,var_off=(0x3; 0x10000000000))",
        ),
    ],
)
def test_scalars(env: VerifierEnv, values: range | list[int], text: str) -> None:
    reg = hull(values)
    reg_bounds_sync(reg)
    assert text_of(env, reg) == text


def test_marks_of_scalars(env: VerifierEnv) -> None:
    reg = RegState(st.SCALAR_VALUE)
    assert text_of(env, reg) == "scalar()"
    reg.precise, reg.id = True, 7
    assert text_of(env, reg) == "Pscalar(id=7)"
    reg.id, reg.off = 7 | st.BPF_ADD_CONST64, -5
    assert text_of(env, reg) == "Pscalar(id=7-5)"
    assert text_of(env, known_reg(3, True)) == "P3"


def test_pointers(env: VerifierEnv) -> None:
    reg = known_reg(0).copy()
    reg.type = st.PTR_TO_CTX
    assert text_of(env, reg) == "ctx()"
    reg.type, reg.off = st.PTR_TO_STACK, -16
    assert text_of(env, reg) == "fp-16"
    reg.frameno = 2
    assert text_of(env, reg) == "fp[2]-16"
    reg.type, reg.off, reg.id = st.PTR_TO_MAP_VALUE_OR_NULL, 0, 4
    reg.map_ptr = MapInfo(MapSpec(1, 4, 8, 1, name="counts"))
    assert text_of(env, reg) == "map_value_or_null(id=4,map=counts,ks=4,vs=8)"
    reg.type, reg.map_ptr = st.CONST_PTR_TO_MAP, MapInfo(MapSpec(27, 0, 0, 4096))
    assert text_of(env, reg) == "map_ptr(id=4,ks=0,vs=0)"
    reg.type, reg.mem_size, reg.ref_obj_id = st.PTR_TO_MEM | st.MEM_RINGBUF, 24, 4
    assert text_of(env, reg) == "ringbuf_mem(id=4,ref_obj_id=4,sz=24)"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (st.PTR_TO_MEM | st.MEM_RINGBUF | st.PTR_MAYBE_NULL, "ringbuf_mem_or_null"),
        (st.PTR_TO_MEM | st.MEM_RDONLY, "rdonly_mem"),
        (st.PTR_TO_BTF_ID | st.PTR_TRUSTED | st.PTR_MAYBE_NULL, "trusted_ptr_or_null_"),
        (st.PTR_TO_PACKET_META, "pkt_meta"),
    ],
)
def test_type_names(env: VerifierEnv, kind: int, text: str) -> None:
    assert log.reg_type_str(env, kind) == text


def test_state_line(env: VerifierEnv) -> None:
    state, func = VerifierState(), FuncState(-1, 0, 0)
    state.frame = [func]
    func.regs[0] = known_reg(1)
    func.regs[10] = known_reg(0).copy()
    func.regs[10].type = st.PTR_TO_STACK
    func.stack = [
        StackSlot(bytes([st.STACK_SPILL] * 8), known_reg(9)),
        StackSlot(bytes([st.STACK_MISC, st.STACK_ZERO] + [st.STACK_INVALID] * 6), st.REG_NOT_INIT),
        st.SLOT_INVALID,
        StackSlot(bytes([st.STACK_ZERO] * 4 + [st.STACK_SPILL] * 4), known_reg(2)),
    ]
    state.refs = (RefState(st.REF_TYPE_PTR, 3, 0), RefState(st.REF_TYPE_PTR, 5, 1))
    log.print_verifier_state(env, state, 0, True)
    assert "".join(env.log) == " R0=1 R10=fp0 fp-8=9 fp-16=m0?????? fp-32=00002 refs=3,5\n"


def test_only_touched_parts(env: VerifierEnv) -> None:
    state, func = VerifierState(), FuncState(-1, 1, 0)
    state.frame = [FuncState(-1, 0, 0), func]
    func.regs[1] = func.regs[2] = known_reg(1)
    log.mark_reg_scratched(env, 2)
    log.print_verifier_state(env, state, 1, False)
    assert "".join(env.log) == " frame1: R2=1\n"
    assert not log.verifier_state_scratched(env)


def test_state_joins_its_instruction(env: VerifierEnv) -> None:
    """On the line of the instruction from column 40, or behind the number when something was logged between."""
    state = VerifierState()
    state.frame = [FuncState(-1, 0, 0)]
    state.frame[0].regs[0] = known_reg(0)
    log.print_insn(env, state)
    log.mark_reg_scratched(env, 0)
    log.print_insn_state(env, state, 0)
    assert "".join(env.log) == "0: (b7) r0 = 0".ljust(38) + "; R0=0\n"
    env.log.clear()
    env.log_end_pos = 0
    log.print_insn(env, state)
    log.verbose(env, "something\n")
    log.mark_reg_scratched(env, 0)
    log.print_insn_state(env, state, 0)
    assert "".join(env.log) == "0: (b7) r0 = 0\nsomething\n0: R0=0\n"


def test_taking_back(env: VerifierEnv) -> None:
    log.verbose(env, "abc")
    log.verbose(env, "defg")
    log.vlog_reset(env, 5)
    assert ("".join(env.log), env.log_end_pos) == ("abcde", 5)
    log.vlog_reset(env, 0)
    assert env.log == []


def test_source_lines() -> None:
    rows = ((0, 1, 10, 3 << 10), (2, 1, 20, 3 << 10), (4, 1, 10, 4 << 10))
    env = VerifierEnv(LoadRequest((), log_level=2, line_info=rows))
    env.btf_string = {1: "./a/f.c", 10: "\tx = 1;", 20: "y"}.__getitem__
    for insn in (0, 1, 2, 5):
        log.verbose_linfo(env, insn, "; ")
    assert "".join(env.log) == "; x = 1; @ f.c:3\n; x = 1; @ f.c:4\n"
