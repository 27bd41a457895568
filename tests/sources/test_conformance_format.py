"""uBPF assembly and bpf_conformance's files: every file of the suite reads; each mnemonic's slot; errors with places."""

from __future__ import annotations

import pytest
from support.vectors import vectors_dir

from netbpf.errors import SourceError
from netbpf.isa.disasm import format_insn
from netbpf.isa.instruction import Instruction, decode
from netbpf.sources import conformance, ubpf_asm

LINES = [
    ("mov %r0, 1", "(b7) r0 = 1"),
    ("mov64 %r0, %r1", "(bf) r0 = r1"),
    ("mov32 %r0, 0xffffffff", "(b4) w0 = -1"),
    ("movsx832 %r0, %r1", "(bc) w0 = (s8)w1"),
    ("movsx3264 %r0, %r1", "(bf) r0 = (s32)r1"),
    ("add32 %r0, -3", "(04) w0 += -3"),
    ("arsh %r0, %r2", "(cf) r0 s>>= r2"),
    ("sdiv32 %r0, 2", "(34) w0 s/= 2"),
    ("smod %r0, %r1", "(9f) r0 s%= r1"),
    ("neg %r3", "(87) r3 = -r3"),
    ("neg32 %r3", "(84) w3 = -w3"),
    ("le16 %r0", "(d4) r0 = le16 r0"),
    ("be64 %r0", "(dc) r0 = be64 r0"),
    ("swap32 %r0", "(d7) r0 = bswap32 r0"),
    ("bswap16 %r0", "(d7) r0 = bswap16 r0"),
    ("ldxb %r0, [%r1]", "(71) r0 = *(u8 *)(r1 +0)"),
    ("ldxsw %r0, [%r1+4]", "(81) r0 = *(s32 *)(r1 +4)"),
    ("ldxdw %r0, [%r10-8]", "(79) r0 = *(u64 *)(r10 -8)"),
    ("stxh [%r1+2], %r2", "(6b) *(u16 *)(r1 +2) = r2"),
    ("stdw [%r10-8], 0xcd", "(7a) *(u64 *)(r10 -8) = 205"),
    ("ja +2", "(05) goto pc+2"),
    ("ja32 -2", "(06) gotol pc-2"),
    ("jeq %r1, 0x80000000, +1", "(15) if r1 == 0x80000000 goto pc+1"),
    ("jsle32 %r1, %r2, -1", "(de) if w1 s<= w2 goto pc-1"),
    ("jset %r1, 8, +0", "(45) if r1 & 0x8 goto pc+0"),
    ("call 5", "(85) call bpf_ktime_get_ns#5"),
    ("call helper 5", "(85) call bpf_ktime_get_ns#5"),
    ("call local +3", "(85) call pc+3"),
    ("call runtime 7", "(85) call kernel-function#7"),
    ("lock add [%r10-8], %r1", "(db) lock *(u64 *)(r10 -8) += r1"),
    ("lock fetch xor32 [%r10-8], %r1", "(c3) r1 = atomic_fetch_xor((u32 *)(r10 -8), r1)"),
    ("lock xchg [%r10-8], %r1", "(db) r1 = atomic64_xchg((u64 *)(r10 -8), r1)"),
    ("lock cmpxchg32 [%r10-8], %r1", "(c3) r0 = atomic_cmpxchg((u32 *)(r10 -8), r0, r1)"),
    ("exit  # the end", "(95) exit"),
]


@pytest.mark.parametrize(("line", "words"), LINES, ids=[line for line, _ in LINES])
def test_mnemonics(line: str, words: str) -> None:
    (insn,) = ubpf_asm.parse(line)
    assert format_insn(insn) == words


def test_call_through_a_register_and_64_bit_immediate() -> None:
    assert ubpf_asm.parse("call %r2") == (Instruction(0x8D, 2),)
    pair = Instruction(0x18, 1, 0, 0, 0x55667788), Instruction(0, 0, 0, 0, 0x11223344)
    assert ubpf_asm.parse("lddw %r1, 0x1122334455667788") == pair


def test_labels_and_the_first_exit() -> None:
    text = "jeq %r1, 0, exit\nL1: ja32 L1\ncall local f\nexit\nf:\nexit"
    assert [(i.off, i.imm) for i in ubpf_asm.parse(text)] == [(2, 0), (0, -1), (0, 1), (0, 0), (0, 0)]


ERRORS = [
    ("mvo %r0, 1", 1, 1, "'mvo' is no mnemonic; did you mean 'mov'?"),
    ("exit\nmov %r16, 1", 2, 5, "'%r16' is no register"),
    ("mov r0, 1", 1, 5, "expected '%'"),
    ("mov %r0 1", 1, 9, "expected ','"),
    ("mov %r0, 0x100000000", 1, 10, "4294967296 does not fit 32 bits"),
    ("ldxw %r0, [%r1+40000]", 1, 15, "offset 40000 does not fit 16 bits"),
    ("ja L1", 1, 4, "no label 'L1'"),
    ("ja +40000", 1, 4, "jump +40000 is too far"),
    ("lock sub [%r1], %r2", 1, 6, "'sub' is no mnemonic"),
    ("L: exit\nexit\nL: exit", 3, 1, "label 'L' is at insn 0 already"),
    ("exit now", 1, 6, "'now' is left over"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), ERRORS, ids=[e[0] for e in ERRORS])
def test_errors(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(SourceError) as e:
        ubpf_asm.parse(text)
    assert (e.value.line, e.value.column) == (line, column)
    assert message in e.value.message


def test_a_data_file() -> None:
    text = "# a test\n-- asm\nmov %r0, 1 # one\n\nexit\n-- mem\n00 ff\n# no\n1234\n-- result\n0x1\n"
    text += "-- no register offset\ncall instruction\n"
    assert conformance.parse(text) == conformance.ConformanceTest(
        (Instruction(0xB7, 0, 0, 0, 1), Instruction(0x95)), b"\x00\xff\x12\x34", 1, None
    )


def test_raw_words_win_over_assembly() -> None:
    test = conformance.parse("-- asm\nlddw %r0, 5\n-- raw\n0x95\n149\n-- error\nit fails\n")
    assert test == conformance.ConformanceTest((Instruction(0x95), Instruction(0x95)), None, None, "it fails")


DAMAGED = [
    ("-- asm\nexit\n", 0, "neither '-- result' nor '-- error'"),
    ("-- result\n0\n", 0, "neither '-- asm' nor '-- raw'"),
    ("-- asm\nexit\n-- result\nzero\n", 4, "'zero' is no 64-bit number"),
    ("-- asm\nexit\n-- result\n-1\n", 4, "'-1' is no 64-bit number"),
    ("-- asm\nexit\n-- mem\n0x12\n-- result\n0\n", 4, "memory is bytes in hex"),
    ("-- asm\n\nexti\n-- result\n0\n", 3, "'exti' is no mnemonic; did you mean 'exit'?"),
    ("-- asmm\nexit\n", 1, "unknown section 'asmm'"),
]


@pytest.mark.parametrize(("text", "line", "message"), DAMAGED, ids=[m for _, _, m in DAMAGED])
def test_damaged_data_files(text: str, line: int, message: str) -> None:
    with pytest.raises(SourceError) as e:
        conformance.parse(text, "x.data")
    assert e.value.line == line
    assert message in e.value.message


@pytest.mark.vectors
def test_every_file_of_the_suite_reads() -> None:
    files = sorted((vectors_dir() / "conformance").glob("*.data"))
    assert len(files) == 225
    for file in files:
        test = conformance.parse(file.read_text(), str(file))
        assert test.insns
        assert test.insns[-1].code == 0x95 or file.stem in ("exit-not-last", "ja32")
        assert test.result is not None


@pytest.mark.vectors
def test_assembly_and_raw_words_of_one_file_agree() -> None:
    text = (vectors_dir() / "conformance" / "lddw.data").read_text()
    raw = conformance.parse(text).insns
    assert conformance.parse(text.replace("-- raw", "-- c")).insns == raw
    assert raw == decode(bytes.fromhex("1800000088776655000000004433221195") + bytes(7))
