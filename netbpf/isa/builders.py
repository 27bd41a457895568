"""Instructions by the names of the kernel's macros, so that a C program's ``struct bpf_insn prog[]`` is typed almost as printed.

    from netbpf.isa.builders import *

    prog = assemble(
        BPF_MOV64_REG(BPF_REG_6, BPF_REG_1),
        BPF_LD_ABS(BPF_B, 14 + 9),
        BPF_LD_MAP_FD(BPF_REG_1, map_fd),
        ...
        BPF_EXIT_INSN(),
    )

A builder of a one-slot instruction returns an Instruction, one of a two-slot instruction a pair; ``assemble`` takes both,
nested as you like. The constants of linux/bpf.h (``BPF_REG_0``, ``BPF_B``, ``BPF_ADD``, ``BPF_FUNC_map_lookup_elem``) come
along. Where C would cut a value that does not fit its field, these raise ValueError; a u32 is taken for an imm as C takes it.

Everything that is not for the author of a program is imported under a leading underscore, so that ``import *`` brings only
words of his. Knows no map and no program: a map is a descriptor or an index, whatever number it is.
"""

from __future__ import annotations

from collections.abc import Iterable as _Iterable
from collections.abc import Iterator as _Iterator
from operator import index as _index
from typing import SupportsIndex as _SupportsIndex
from typing import TypeAlias as _TypeAlias

from netbpf import ints as _ints
from netbpf.isa import opcodes as _op
from netbpf.isa.funcs import *  # noqa: F403 - a program's author has every constant with the macros
from netbpf.isa.instruction import Instruction, Program
from netbpf.isa.instruction import split_imm64 as _split_imm64
from netbpf.isa.opcodes import *  # noqa: F403

Pair: _TypeAlias = tuple[Instruction, Instruction]
Insns: _TypeAlias = Instruction | _Iterable["Insns"]


def flatten(*items: Insns) -> _Iterator[Instruction]:
    """Every instruction of nested sequences, in order."""
    for item in items:
        if isinstance(item, Instruction):
            yield item
        else:
            yield from flatten(*item)


def assemble(*items: Insns) -> Program:
    """The program that instructions, pairs and sequences of them make, in order."""
    return tuple(flatten(*items))


def _reg(value: _SupportsIndex) -> int:
    v = _index(value)
    if not 0 <= v <= 15:
        raise ValueError(f"register {v} does not fit 4 bits")
    return v


def _off(value: _SupportsIndex) -> int:
    v = _index(value)
    if not _ints.S16_MIN <= v <= _ints.S16_MAX:
        raise ValueError(f"offset {v} does not fit 16 bits: {_ints.S16_MIN} to {_ints.S16_MAX}")
    return v


def _imm(value: _SupportsIndex) -> int:
    v = _index(value)
    if not _ints.S32_MIN <= v <= _ints.U32_MAX:
        raise ValueError(f"immediate {v} does not fit 32 bits")
    return _ints.s32(v)


def BPF_RAW_INSN(CODE: int, DST: int, SRC: int, OFF: int, IMM: int) -> Instruction:
    """Any instruction, by its fields."""
    code = _index(CODE)
    if not 0 <= code <= 0xFF:
        raise ValueError(f"opcode {code:#x} does not fit 8 bits")
    return Instruction(code, _reg(DST), _reg(SRC), _off(OFF), _imm(IMM))


# --- arithmetic: OP is BPF_ADD, BPF_SUB ... -----------------------------------------------------------------------------


def BPF_ALU64_REG_OFF(OP: int, DST: int, SRC: int, OFF: int) -> Instruction:
    """dst = dst OP src; OFF 1 makes BPF_DIV and BPF_MOD signed."""
    return BPF_RAW_INSN(_op.BPF_ALU64 | _op.bpf_op(OP) | _op.BPF_X, DST, SRC, OFF, 0)


def BPF_ALU64_REG(OP: int, DST: int, SRC: int) -> Instruction:
    """dst = dst OP src, 64 bits."""
    return BPF_ALU64_REG_OFF(OP, DST, SRC, 0)


def BPF_ALU32_REG_OFF(OP: int, DST: int, SRC: int, OFF: int) -> Instruction:
    """(u32) dst = (u32) dst OP (u32) src; OFF 1 makes BPF_DIV and BPF_MOD signed."""
    return BPF_RAW_INSN(_op.BPF_ALU | _op.bpf_op(OP) | _op.BPF_X, DST, SRC, OFF, 0)


def BPF_ALU32_REG(OP: int, DST: int, SRC: int) -> Instruction:
    """(u32) dst = (u32) dst OP (u32) src; the upper half becomes zero."""
    return BPF_ALU32_REG_OFF(OP, DST, SRC, 0)


def BPF_ALU64_IMM_OFF(OP: int, DST: int, IMM: int, OFF: int) -> Instruction:
    """dst = dst OP imm; OFF 1 makes BPF_DIV and BPF_MOD signed."""
    return BPF_RAW_INSN(_op.BPF_ALU64 | _op.bpf_op(OP) | _op.BPF_K, DST, 0, OFF, IMM)


def BPF_ALU64_IMM(OP: int, DST: int, IMM: int) -> Instruction:
    """dst = dst OP imm, imm sign-extended to 64 bits."""
    return BPF_ALU64_IMM_OFF(OP, DST, IMM, 0)


def BPF_ALU32_IMM_OFF(OP: int, DST: int, IMM: int, OFF: int) -> Instruction:
    """(u32) dst = (u32) dst OP imm; OFF 1 makes BPF_DIV and BPF_MOD signed."""
    return BPF_RAW_INSN(_op.BPF_ALU | _op.bpf_op(OP) | _op.BPF_K, DST, 0, OFF, IMM)


def BPF_ALU32_IMM(OP: int, DST: int, IMM: int) -> Instruction:
    """(u32) dst = (u32) dst OP imm; the upper half becomes zero."""
    return BPF_ALU32_IMM_OFF(OP, DST, IMM, 0)


def BPF_ENDIAN(TYPE: int, DST: int, LEN: int) -> Instruction:
    """dst = its low LEN (16, 32, 64) bits as BPF_TO_LE or BPF_TO_BE."""
    return BPF_RAW_INSN(_op.BPF_ALU | _op.BPF_END | _op.bpf_src(TYPE), DST, 0, 0, LEN)


def BPF_BSWAP(DST: int, LEN: int) -> Instruction:
    """dst = its low LEN (16, 32, 64) bits with the bytes reversed."""
    return BPF_RAW_INSN(_op.BPF_ALU64 | _op.BPF_END, DST, 0, 0, LEN)


def BPF_NEG64(DST: int) -> Instruction:
    """dst = -dst."""
    return BPF_RAW_INSN(_op.BPF_ALU64 | _op.BPF_NEG, DST, 0, 0, 0)


def BPF_NEG32(DST: int) -> Instruction:
    """(u32) dst = -(u32) dst."""
    return BPF_RAW_INSN(_op.BPF_ALU | _op.BPF_NEG, DST, 0, 0, 0)


# --- moves --------------------------------------------------------------------------------------------------------------


def BPF_MOV64_REG(DST: int, SRC: int) -> Instruction:
    """dst = src."""
    return BPF_RAW_INSN(_op.BPF_ALU64 | _op.BPF_MOV | _op.BPF_X, DST, SRC, 0, 0)


def BPF_MOV32_REG(DST: int, SRC: int) -> Instruction:
    """dst = (u32) src."""
    return BPF_RAW_INSN(_op.BPF_ALU | _op.BPF_MOV | _op.BPF_X, DST, SRC, 0, 0)


def BPF_MOV64_IMM(DST: int, IMM: int) -> Instruction:
    """dst = imm, sign-extended."""
    return BPF_RAW_INSN(_op.BPF_ALU64 | _op.BPF_MOV | _op.BPF_K, DST, 0, 0, IMM)


def BPF_MOV32_IMM(DST: int, IMM: int) -> Instruction:
    """dst = (u32) imm."""
    return BPF_RAW_INSN(_op.BPF_ALU | _op.BPF_MOV | _op.BPF_K, DST, 0, 0, IMM)


def BPF_MOV64_RAW(TYPE: int, DST: int, SRC: int, IMM: int) -> Instruction:
    """A 64-bit move of source TYPE (BPF_K, BPF_X) with every other field as given."""
    return BPF_RAW_INSN(_op.BPF_ALU64 | _op.BPF_MOV | _op.bpf_src(TYPE), DST, SRC, 0, IMM)


def BPF_MOV32_RAW(TYPE: int, DST: int, SRC: int, IMM: int) -> Instruction:
    """A 32-bit move of source TYPE (BPF_K, BPF_X) with every other field as given."""
    return BPF_RAW_INSN(_op.BPF_ALU | _op.BPF_MOV | _op.bpf_src(TYPE), DST, SRC, 0, IMM)


def BPF_MOVSX64_REG(DST: int, SRC: int, OFF: int) -> Instruction:
    """dst = the low OFF (8, 16, 32) bits of src, sign-extended."""
    return BPF_RAW_INSN(_op.BPF_ALU64 | _op.BPF_MOV | _op.BPF_X, DST, SRC, OFF, 0)


def BPF_MOVSX32_REG(DST: int, SRC: int, OFF: int) -> Instruction:
    """(u32) dst = the low OFF (8, 16) bits of src, sign-extended."""
    return BPF_RAW_INSN(_op.BPF_ALU | _op.BPF_MOV | _op.BPF_X, DST, SRC, OFF, 0)


# --- 64-bit immediates: two slots -----------------------------------------------------------------------------------------


def BPF_LD_IMM64_RAW_FULL(DST: int, SRC: int, OFF1: int, OFF2: int, IMM1: int, IMM2: int) -> Pair:
    """An LD_IMM64 with every field of both slots as given."""
    return BPF_RAW_INSN(_op.BPF_LD | _op.BPF_DW | _op.BPF_IMM, DST, SRC, OFF1, IMM1), BPF_RAW_INSN(0, 0, 0, OFF2, IMM2)


def BPF_LD_IMM64_RAW(DST: int, SRC: int, IMM: int) -> Pair:
    """dst = IMM (64 bits, signed or not) of pseudo source SRC."""
    value = _index(IMM)
    if not _ints.S64_MIN <= value <= _ints.U64_MAX:
        raise ValueError(f"immediate {value} does not fit 64 bits")
    return BPF_LD_IMM64_RAW_FULL(DST, SRC, 0, 0, *_split_imm64(value))


def BPF_LD_IMM64(DST: int, IMM: int) -> Pair:
    """dst = IMM, 64 bits."""
    return BPF_LD_IMM64_RAW(DST, 0, IMM)


def BPF_LD_MAP_FD(DST: int, MAP_FD: int) -> Pair:
    """dst = the map of descriptor MAP_FD."""
    return BPF_LD_IMM64_RAW_FULL(DST, _op.BPF_PSEUDO_MAP_FD, 0, 0, MAP_FD, 0)


def BPF_LD_MAP_VALUE(DST: int, MAP_FD: int, VALUE_OFF: int) -> Pair:
    """dst = the address of byte VALUE_OFF in the one-entry array of descriptor MAP_FD."""
    return BPF_LD_IMM64_RAW_FULL(DST, _op.BPF_PSEUDO_MAP_VALUE, 0, 0, MAP_FD, VALUE_OFF)


def BPF_LD_MAP_IDX(DST: int, MAP_IDX: int) -> Pair:
    """dst = the map at MAP_IDX of the program's own list (a ProgramSpec's ``maps``, bpf(2)'s ``fd_array``)."""
    return BPF_LD_IMM64_RAW_FULL(DST, _op.BPF_PSEUDO_MAP_IDX, 0, 0, MAP_IDX, 0)


def BPF_LD_MAP_IDX_VALUE(DST: int, MAP_IDX: int, VALUE_OFF: int) -> Pair:
    """dst = the address of byte VALUE_OFF in the one-entry array at MAP_IDX of the program's own list."""
    return BPF_LD_IMM64_RAW_FULL(DST, _op.BPF_PSEUDO_MAP_IDX_VALUE, 0, 0, MAP_IDX, VALUE_OFF)


def BPF_LD_BTF_ID(DST: int, BTF_ID: int, BTF_FD: int = 0) -> Pair:
    """dst = the address of the kernel variable BTF_ID."""
    return BPF_LD_IMM64_RAW_FULL(DST, _op.BPF_PSEUDO_BTF_ID, 0, 0, BTF_ID, BTF_FD)


def BPF_LD_FUNC(DST: int, TGT: int) -> Pair:
    """dst = the subprogram at TGT slots after this instruction's first slot and one."""
    return BPF_LD_IMM64_RAW_FULL(DST, _op.BPF_PSEUDO_FUNC, 0, 0, TGT, 0)


# --- memory: SIZE is BPF_B, BPF_H, BPF_W, BPF_DW ----------------------------------------------------------------------------


def BPF_LD_ABS(SIZE: int, IMM: int) -> Instruction:
    """r0 = ntoh(*(SIZE *)(skb->data + IMM)); ends the program with 0 outside the packet."""
    return BPF_RAW_INSN(_op.BPF_LD | _op.bpf_size(SIZE) | _op.BPF_ABS, 0, 0, 0, IMM)


def BPF_LD_IND(SIZE: int, SRC: int, IMM: int) -> Instruction:
    """r0 = ntoh(*(SIZE *)(skb->data + src + IMM)); ends the program with 0 outside the packet."""
    return BPF_RAW_INSN(_op.BPF_LD | _op.bpf_size(SIZE) | _op.BPF_IND, 0, SRC, 0, IMM)


def BPF_LDX_MEM(SIZE: int, DST: int, SRC: int, OFF: int) -> Instruction:
    """dst = *(uSIZE *)(src + off)."""
    return BPF_RAW_INSN(_op.BPF_LDX | _op.bpf_size(SIZE) | _op.BPF_MEM, DST, SRC, OFF, 0)


def BPF_LDX_MEMSX(SIZE: int, DST: int, SRC: int, OFF: int) -> Instruction:
    """dst = *(sSIZE *)(src + off), sign-extended."""
    return BPF_RAW_INSN(_op.BPF_LDX | _op.bpf_size(SIZE) | _op.BPF_MEMSX, DST, SRC, OFF, 0)


def BPF_STX_MEM(SIZE: int, DST: int, SRC: int, OFF: int) -> Instruction:
    """*(uSIZE *)(dst + off) = src."""
    return BPF_RAW_INSN(_op.BPF_STX | _op.bpf_size(SIZE) | _op.BPF_MEM, DST, SRC, OFF, 0)


def BPF_ST_MEM(SIZE: int, DST: int, OFF: int, IMM: int) -> Instruction:
    """*(uSIZE *)(dst + off) = imm."""
    return BPF_RAW_INSN(_op.BPF_ST | _op.bpf_size(SIZE) | _op.BPF_MEM, DST, 0, OFF, IMM)


def BPF_ST_NOSPEC() -> Instruction:
    """The speculation barrier that the kernel itself inserts."""
    return BPF_RAW_INSN(_op.BPF_ST | 0xC0, 0, 0, 0, 0)


def BPF_ATOMIC_OP(SIZE: int, OP: int, DST: int, SRC: int, OFF: int) -> Instruction:
    """BPF_ADD, BPF_AND, BPF_OR, BPF_XOR (with or without BPF_FETCH), BPF_XCHG, BPF_CMPXCHG, BPF_LOAD_ACQ or BPF_STORE_REL
    on *(uSIZE *)(dst + off); of BPF_LOAD_ACQ src is the address and dst the result."""
    return BPF_RAW_INSN(_op.BPF_STX | _op.bpf_size(SIZE) | _op.BPF_ATOMIC, DST, SRC, OFF, OP)


def BPF_STX_XADD(SIZE: int, DST: int, SRC: int, OFF: int) -> Instruction:
    """lock *(uSIZE *)(dst + off) += src."""
    return BPF_ATOMIC_OP(SIZE, _op.BPF_ADD, DST, SRC, OFF)


def BPF_XADD(SIZE: int, DST: int, SRC: int, OFF: int, IMM: int = 0) -> Instruction:
    """lock *(uSIZE *)(dst + off) += src, as the first manual page spells it: with an imm, which must be 0."""
    return BPF_ATOMIC_OP(SIZE, IMM, DST, SRC, OFF)


def BPF_LOAD_ACQUIRE(SIZE: int, DST: int, SRC: int, OFF: int) -> Instruction:
    """dst = load_acquire((uSIZE *)(src + off))."""
    return BPF_ATOMIC_OP(SIZE, _op.BPF_LOAD_ACQ, DST, SRC, OFF)


def BPF_STORE_RELEASE(SIZE: int, DST: int, SRC: int, OFF: int) -> Instruction:
    """store_release((uSIZE *)(dst + off), src)."""
    return BPF_ATOMIC_OP(SIZE, _op.BPF_STORE_REL, DST, SRC, OFF)


# --- jumps: OP is BPF_JEQ, BPF_JGT ...; an offset counts slots from the next instruction --------------------------------------


def BPF_JMP_REG(OP: int, DST: int, SRC: int, OFF: int) -> Instruction:
    """if (dst OP src) goto pc + off."""
    return BPF_RAW_INSN(_op.BPF_JMP | _op.bpf_op(OP) | _op.BPF_X, DST, SRC, OFF, 0)


def BPF_JMP_IMM(OP: int, DST: int, IMM: int, OFF: int) -> Instruction:
    """if (dst OP imm) goto pc + off, imm sign-extended."""
    return BPF_RAW_INSN(_op.BPF_JMP | _op.bpf_op(OP) | _op.BPF_K, DST, 0, OFF, IMM)


def BPF_JMP32_REG(OP: int, DST: int, SRC: int, OFF: int) -> Instruction:
    """if ((u32) dst OP (u32) src) goto pc + off."""
    return BPF_RAW_INSN(_op.BPF_JMP32 | _op.bpf_op(OP) | _op.BPF_X, DST, SRC, OFF, 0)


def BPF_JMP32_IMM(OP: int, DST: int, IMM: int, OFF: int) -> Instruction:
    """if ((u32) dst OP imm) goto pc + off."""
    return BPF_RAW_INSN(_op.BPF_JMP32 | _op.bpf_op(OP) | _op.BPF_K, DST, 0, OFF, IMM)


def BPF_JMP_A(OFF: int) -> Instruction:
    """goto pc + off."""
    return BPF_RAW_INSN(_op.BPF_JMP | _op.BPF_JA, 0, 0, OFF, 0)


def BPF_JMP32_A(IMM: int) -> Instruction:
    """gotol pc + imm: a jump of 32-bit reach."""
    return BPF_RAW_INSN(_op.BPF_JMP32 | _op.BPF_JA, 0, 0, 0, IMM)


def BPF_MAY_GOTO(OFF: int) -> Instruction:
    """goto pc + off once the program has looped long enough."""
    return BPF_RAW_INSN(_op.BPF_JMP | _op.BPF_JCOND, 0, 0, OFF, 0)


def BPF_CALL_FUNC(FUNC: int) -> Instruction:
    """r0 = helper FUNC (BPF_FUNC_...) of r1 to r5."""
    return BPF_RAW_INSN(_op.BPF_JMP | _op.BPF_CALL, 0, 0, 0, FUNC)


BPF_EMIT_CALL = BPF_CALL_FUNC


def BPF_CALL_REL(TGT: int) -> Instruction:
    """r0 = the subprogram at pc + TGT, of r1 to r5."""
    return BPF_RAW_INSN(_op.BPF_JMP | _op.BPF_CALL, 0, _op.BPF_PSEUDO_CALL, 0, TGT)


def BPF_CALL_KFUNC(OFF: int, IMM: int) -> Instruction:
    """r0 = the kernel function of BTF id IMM, in the BTF at OFF of ``fd_array``."""
    return BPF_RAW_INSN(_op.BPF_JMP | _op.BPF_CALL, 0, _op.BPF_PSEUDO_KFUNC_CALL, OFF, IMM)


def BPF_EXIT_INSN() -> Instruction:
    """return r0."""
    return BPF_RAW_INSN(_op.BPF_JMP | _op.BPF_EXIT, 0, 0, 0, 0)
