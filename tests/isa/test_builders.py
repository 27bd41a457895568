"""The macros against the bytes that C's give, and against the disassembler; the manual page's program as printed."""

from __future__ import annotations

import pytest

from netbpf.abi.helpers import FUNC_IDS
from netbpf.isa import funcs
from netbpf.isa.builders import *  # noqa: F403
from netbpf.isa.builders import BPF_LD_IMM64, BPF_MOV64_IMM, BPF_RAW_INSN, assemble, flatten
from netbpf.isa.disasm import format_insn
from netbpf.isa.instruction import Instruction, encode

# ruff: noqa: F405


def test_the_manual_pages_program_as_printed() -> None:
    map_fd = 3
    prog = (
        BPF_MOV64_REG(BPF_REG_6, BPF_REG_1),           # r6 = r1
        BPF_LD_ABS(BPF_B, 14 + 9),                     # r0 = ip->proto
        BPF_STX_MEM(BPF_W, BPF_REG_10, BPF_REG_0, -4), # *(u32 *)(fp - 4) = r0
        BPF_MOV64_REG(BPF_REG_2, BPF_REG_10),          # r2 = fp
        BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, -4),         # r2 = r2 - 4
        BPF_LD_MAP_FD(BPF_REG_1, map_fd),              # r1 = map_fd
        BPF_CALL_FUNC(BPF_FUNC_map_lookup_elem),       # r0 = map_lookup(r1, r2)
        BPF_JMP_IMM(BPF_JEQ, BPF_REG_0, 0, 2),         # if (r0 == 0) goto pc+2
        BPF_MOV64_IMM(BPF_REG_1, 1),                   # r1 = 1
        BPF_XADD(BPF_DW, BPF_REG_0, BPF_REG_1, 0, 0),  # lock *(u64 *)r0 += r1
        BPF_MOV64_IMM(BPF_REG_0, 0),                   # r0 = 0
        BPF_EXIT_INSN(),                               # return r0
    )  # fmt: skip
    assert encode(assemble(prog)).hex() == (
        "bf16000000000000" "3000000017000000" "630afcff00000000" "bfa2000000000000" "07020000fcffffff" "1811000003000000"
        "0000000000000000" "8500000001000000" "1500020000000000" "b701000001000000" "db10000000000000" "b700000000000000"
        "9500000000000000"
    )  # fmt: skip


TEXTS = [
    (BPF_ALU64_REG(BPF_ADD, 1, 2), "(0f) r1 += r2"),
    (BPF_ALU64_REG_OFF(BPF_DIV, 1, 2, 1), "(3f) r1 s/= r2"),
    (BPF_ALU32_REG(BPF_XOR, 1, 2), "(ac) w1 ^= w2"),
    (BPF_ALU32_REG_OFF(BPF_MOD, 1, 2, 1), "(9c) w1 s%= w2"),
    (BPF_ALU64_IMM(BPF_ARSH, 1, 3), "(c7) r1 s>>= 3"),
    (BPF_ALU64_IMM_OFF(BPF_MOD, 1, 3, 1), "(97) r1 s%= 3"),
    (BPF_ALU32_IMM(BPF_SUB, 1, -3), "(14) w1 -= -3"),
    (BPF_ALU32_IMM_OFF(BPF_DIV, 1, 3, 1), "(34) w1 s/= 3"),
    (BPF_ENDIAN(BPF_TO_BE, 1, 16), "(dc) r1 = be16 r1"),
    (BPF_ENDIAN(BPF_TO_LE, 1, 32), "(d4) r1 = le32 r1"),
    (BPF_BSWAP(1, 64), "(d7) r1 = bswap64 r1"),
    (BPF_NEG64(4), "(87) r4 = -r4"),
    (BPF_NEG32(4), "(84) w4 = -w4"),
    (BPF_MOV32_REG(4, 5), "(bc) w4 = w5"),
    (BPF_MOV32_IMM(4, 0xFFFFFFFF), "(b4) w4 = -1"),
    (BPF_MOV64_RAW(BPF_X, 4, 5, 0), "(bf) r4 = r5"),
    (BPF_MOV32_RAW(BPF_K, 4, 0, 9), "(b4) w4 = 9"),
    (BPF_MOVSX64_REG(4, 5, 32), "(bf) r4 = (s32)r5"),
    (BPF_MOVSX32_REG(4, 5, 8), "(bc) w4 = (s8)w5"),
    (BPF_LD_ABS(BPF_H, 12), "(28) r0 = *(u16 *)skb[12]"),
    (BPF_LD_IND(BPF_W, 7, -4), "(40) r0 = *(u32 *)skb[r7 + -4]"),
    (BPF_LDX_MEM(BPF_DW, 1, 10, -8), "(79) r1 = *(u64 *)(r10 -8)"),
    (BPF_LDX_MEMSX(BPF_H, 1, 10, -8), "(89) r1 = *(s16 *)(r10 -8)"),
    (BPF_STX_MEM(BPF_B, 10, 1, -8), "(73) *(u8 *)(r10 -8) = r1"),
    (BPF_ST_MEM(BPF_H, 10, -8, 5), "(6a) *(u16 *)(r10 -8) = 5"),
    (BPF_ST_NOSPEC(), "(c2) nospec"),
    (BPF_ATOMIC_OP(BPF_W, BPF_AND | BPF_FETCH, 1, 2, 4), "(c3) r2 = atomic_fetch_and((u32 *)(r1 +4), r2)"),
    (BPF_ATOMIC_OP(BPF_DW, BPF_CMPXCHG, 1, 2, 4), "(db) r0 = atomic64_cmpxchg((u64 *)(r1 +4), r0, r2)"),
    (BPF_STX_XADD(BPF_W, 1, 2, 4), "(c3) lock *(u32 *)(r1 +4) += r2"),
    (BPF_LOAD_ACQUIRE(BPF_B, 1, 2, 4), "(d3) r1 = load_acquire((u8 *)(r2 +4))"),
    (BPF_STORE_RELEASE(BPF_B, 1, 2, 4), "(d3) store_release((u8 *)(r1 +4), r2)"),
    (BPF_JMP_REG(BPF_JSLT, 1, 2, -3), "(cd) if r1 s< r2 goto pc-3"),
    (BPF_JMP32_REG(BPF_JGE, 1, 2, 3), "(3e) if w1 >= w2 goto pc+3"),
    (BPF_JMP32_IMM(BPF_JSET, 1, 2, 3), "(46) if w1 & 0x2 goto pc+3"),
    (BPF_JMP_A(7), "(05) goto pc+7"),
    (BPF_JMP32_A(70000), "(06) gotol pc+70000"),
    (BPF_MAY_GOTO(2), "(e5) may_goto pc+2"),
    (BPF_CALL_FUNC(BPF_FUNC_ktime_get_ns), "(85) call bpf_ktime_get_ns#5"),
    (BPF_EMIT_CALL(BPF_FUNC_ktime_get_ns), "(85) call bpf_ktime_get_ns#5"),
    (BPF_CALL_REL(-2), "(85) call pc-2"),
    (BPF_CALL_KFUNC(0, 77), "(85) call kernel-function#77"),
]


@pytest.mark.parametrize(("insn", "text"), TEXTS, ids=lambda v: v if isinstance(v, str) else "")
def test_one_slot(insn: Instruction, text: str) -> None:
    assert format_insn(insn) == text


PAIRS = [
    (BPF_LD_IMM64(1, -1), "0xffffffffffffffff"),
    (BPF_LD_IMM64(1, 2**64 - 2), "0xfffffffffffffffe"),
    (BPF_LD_MAP_FD(1, 5), "map[id:5]"),
    (BPF_LD_MAP_VALUE(1, 5, 16), "map[id:5][0]+16"),
    (BPF_LD_MAP_IDX(1, 5), "0x5"),
    (BPF_LD_MAP_IDX_VALUE(1, 5, 16), "map[idx:5]+16"),
    (BPF_LD_BTF_ID(1, 5, 9), "0x900000005"),
    (BPF_LD_FUNC(1, 5), "subprog[+5]"),
]


@pytest.mark.parametrize(("pair", "text"), PAIRS, ids=lambda v: v if isinstance(v, str) else "")
def test_two_slots(pair: tuple[Instruction, Instruction], text: str) -> None:
    assert format_insn(*pair, style="xlated") == f"(18) r1 = {text}"


def test_nested_sequences_flatten() -> None:
    one = BPF_MOV64_IMM(0, 1)
    pair = BPF_LD_IMM64(1, 5)
    assert assemble(one, [pair, (one, [one])], (i for i in pair)) == (one, *pair, one, one, *pair)
    assert list(flatten()) == []


TOO_LARGE = [(256, 0, 0, 0, 0), (0, 16, 0, 0, 0), (0, 0, -1, 0, 0), (0, 0, 0, 1 << 15, 0), (0, 0, 0, 0, 1 << 32)]


@pytest.mark.parametrize("fields", TOO_LARGE)
def test_what_does_not_fit_is_refused(fields: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="fit"):
        BPF_RAW_INSN(*fields)
    with pytest.raises(ValueError, match="64 bits"):
        BPF_LD_IMM64(0, 1 << 64)


def test_function_numbers_are_the_tables() -> None:
    in_module = {n.removeprefix("BPF_FUNC_"): v for n, v in vars(funcs).items() if n.startswith("BPF_FUNC_")}
    assert in_module == dict(FUNC_IDS)
