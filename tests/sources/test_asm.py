"""The assembler's language: what each sentence becomes, from which tools, and what is said of text that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from netbpf.errors import SourceError
from netbpf.isa.builders import *  # noqa: F403
from netbpf.isa.builders import Instruction, assemble
from netbpf.isa.disasm import format_insns
from netbpf.maps.spec import MapSpec
from netbpf.program import MapDecl, ProgramSpec
from netbpf.sources.asm import format_program, parse

# ruff: noqa: F405

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def insns(text: str) -> tuple[Instruction, ...]:
    return parse(text).insns


SENTENCES = [
    ("r1 = 5", BPF_MOV64_IMM(1, 5)),
    ("r1 = -5", BPF_MOV64_IMM(1, -5)),
    ("w1 = 0xffffffff", BPF_MOV32_IMM(1, -1)),
    ("r1 = r2", BPF_MOV64_REG(1, 2)),
    ("w1 = w2", BPF_MOV32_REG(1, 2)),
    ("r1 = (s16)r2", BPF_MOVSX64_REG(1, 2, 16)),
    ("w1 = (s8)w2", BPF_MOVSX32_REG(1, 2, 8)),
    ("r1 = w2", BPF_MOV32_REG(1, 2)),
    ("r1 = (s32)w2", BPF_MOVSX64_REG(1, 2, 32)),
    ("r1 = -r1", BPF_NEG64(1)),
    ("w1 = -w1", BPF_NEG32(1)),
    ("fp = fp", BPF_MOV64_REG(10, 10)),
    ("r1 += r2", BPF_ALU64_REG(BPF_ADD, 1, 2)),
    ("w1 s>>= 3", BPF_ALU32_IMM(BPF_ARSH, 1, 3)),
    ("r1 s/= r2", BPF_ALU64_REG_OFF(BPF_DIV, 1, 2, 1)),
    ("w1 s%= 7", BPF_ALU32_IMM_OFF(BPF_MOD, 1, 7, 1)),
    ("w1 &= 0xff00ff00", BPF_ALU32_IMM(BPF_AND, 1, 0xFF00FF00)),
    ("r1 = be16 r1", BPF_ENDIAN(BPF_TO_BE, 1, 16)),
    ("r1 = le64 r1", BPF_ENDIAN(BPF_TO_LE, 1, 64)),
    ("r1 = bswap32 r1", BPF_BSWAP(1, 32)),
    ("r0 = *(u8 *)skb[23]", BPF_LD_ABS(BPF_B, 23)),
    ("r0 = *(u16 *)skb[SKF_NET_OFF + 6]", BPF_LD_ABS(BPF_H, -0x100000 + 6)),
    ("r0 = *(u32 *)skb[r7 + -4]", BPF_LD_IND(BPF_W, 7, -4)),
    ("r0 = *(u32 *)skb[r7]", BPF_LD_IND(BPF_W, 7, 0)),
    ("r0 = *(u32 *)skb[r7 + 14]", BPF_LD_IND(BPF_W, 7, 14)),
    ("r1 = *(u64 *)(r2 +8)", BPF_LDX_MEM(BPF_DW, 1, 2, 8)),
    ("w1 = *(u32 *)(r2 - 8)", BPF_LDX_MEM(BPF_W, 1, 2, -8)),
    ("r1 = *(s32 *)(r2 + 0)", BPF_LDX_MEMSX(BPF_W, 1, 2, 0)),
    ("r1 = *(u8 *)(r2)", BPF_LDX_MEM(BPF_B, 1, 2, 0)),
    ("*(u64 *)(r10 -8) = r1", BPF_STX_MEM(BPF_DW, 10, 1, -8)),
    ("*(u16 *)(r10 - 8) = w1", BPF_STX_MEM(BPF_H, 10, 1, -8)),
    ("*(u32 *)(r10 -8) = 0xdeadbeef", BPF_ST_MEM(BPF_W, 10, -8, 0xDEADBEEF)),
    ("lock *(u64 *)(r1 +8) += r2", BPF_STX_XADD(BPF_DW, 1, 2, 8)),
    ("lock *(u32 *)(r1 + 8) ^= w2", BPF_ATOMIC_OP(BPF_W, BPF_XOR, 1, 2, 8)),
    ("r2 = atomic64_fetch_or((u64 *)(r1 +8), r2)", BPF_ATOMIC_OP(BPF_DW, BPF_OR | BPF_FETCH, 1, 2, 8)),
    ("w2 = atomic_fetch_add((u32 *)(r1 + 8), w2)", BPF_ATOMIC_OP(BPF_W, BPF_ADD | BPF_FETCH, 1, 2, 8)),
    ("r2 = atomic_xchg((u32 *)(r1 +8), r2)", BPF_ATOMIC_OP(BPF_W, BPF_XCHG, 1, 2, 8)),
    ("r0 = atomic64_cmpxchg((u64 *)(r1 +8), r0, r2)", BPF_ATOMIC_OP(BPF_DW, BPF_CMPXCHG, 1, 2, 8)),
    ("r2 = xchg_64(r1 + 8, r2)", BPF_ATOMIC_OP(BPF_DW, BPF_XCHG, 1, 2, 8)),
    ("w2 = xchg32_32(r1 + 8, w2)", BPF_ATOMIC_OP(BPF_W, BPF_XCHG, 1, 2, 8)),
    ("r0 = cmpxchg_64(r1 + 8, r0, r2)", BPF_ATOMIC_OP(BPF_DW, BPF_CMPXCHG, 1, 2, 8)),
    ("w0 = cmpxchg32_32(r1 + 8, w0, w2)", BPF_ATOMIC_OP(BPF_W, BPF_CMPXCHG, 1, 2, 8)),
    ("r1 = load_acquire((u8 *)(r2 +8))", BPF_LOAD_ACQUIRE(BPF_B, 1, 2, 8)),
    ("store_release((u16 *)(r1 +8), r2)", BPF_STORE_RELEASE(BPF_H, 1, 2, 8)),
    ("r1 = &(void __percpu *)(r2)", Instruction(0xBF, 1, 2, -1, 0)),
    ("r1 = addr_space_cast(r2, 1, 2)", Instruction(0xBF, 1, 2, 1, 0x10002)),
    ("goto pc+3", BPF_JMP_A(3)),
    ("goto +0x3 <main+0x20>", BPF_JMP_A(3)),
    ("gotol pc-70000", BPF_JMP32_A(-70000)),
    ("may_goto pc+1", BPF_MAY_GOTO(1)),
    ("if r1 == 0x0 goto pc+2", BPF_JMP_IMM(BPF_JEQ, 1, 0, 2)),
    ("if r1 != 0xffffffff goto pc+2", BPF_JMP_IMM(BPF_JNE, 1, -1, 2)),
    ("if w1 s< -5 goto +2", BPF_JMP32_IMM(BPF_JSLT, 1, -5, 2)),
    ("if r1 & r2 goto pc-2", BPF_JMP_REG(BPF_JSET, 1, 2, -2)),
    ("call 1", BPF_CALL_FUNC(1)),
    ("call bpf_map_lookup_elem#1", BPF_CALL_FUNC(1)),
    ("call bpf_map_lookup_elem", BPF_CALL_FUNC(1)),
    ("call map_lookup_elem", BPF_CALL_FUNC(1)),
    ("call unknown#1000", BPF_CALL_FUNC(1000)),
    ("call -1", BPF_CALL_FUNC(-1)),
    ("call pc+2", BPF_CALL_REL(2)),
    ("call pc+2#0xffffffffc0000000", BPF_CALL_REL(2)),
    ("call pc+2#bpf_prog_6deef7357e7b4530_F", BPF_CALL_REL(2)),
    ("call bpf_rdonly_cast#7777", BPF_CALL_KFUNC(0, 7777)),
    ("call kernel-function#7", BPF_CALL_KFUNC(0, 7)),
    ("callx r3", Instruction(0x8D, 3)),
    ("exit", BPF_EXIT_INSN()),
    ("nospec", BPF_ST_NOSPEC()),
    (".insn 0xff 15 15 -32768 -2147483648", Instruction(255, 15, 15, -32768, -(1 << 31))),
    (".insn 0x95", BPF_EXIT_INSN()),
]


@pytest.mark.parametrize(("text", "insn"), SENTENCES, ids=[text for text, _ in SENTENCES])
def test_one_slot(text: str, insn: Instruction) -> None:
    assert insns(text) == (insn,)


PAIRS = [
    ("r1 = 5 ll", BPF_LD_IMM64(1, 5)),
    ("(18) r1 = 0x5", BPF_LD_IMM64(1, 5)),
    ("r1 = 0xffff88826d8c7400", BPF_LD_IMM64(1, 0xFFFF88826D8C7400)),
    ("r1 = 0xffffffff", BPF_LD_IMM64(1, 0xFFFFFFFF)),
    ("r1 = -0x80000001", BPF_LD_IMM64(1, -0x80000001)),
    ("r1 = map[id:5]", BPF_LD_MAP_FD(1, 5)),
    ("r1 = map[fd:5]", BPF_LD_MAP_FD(1, 5)),
    ("r1 = map[id:5][0]+16", BPF_LD_MAP_VALUE(1, 5, 16)),
    ("r1 = map[idx:5]+16", BPF_LD_MAP_IDX_VALUE(1, 5, 16)),
    ("r1 = map[idx:5]", BPF_LD_MAP_IDX(1, 5)),
    ("r1 = subprog[+5]", BPF_LD_FUNC(1, 5)),
    ("r1 = btf[id:5]+3", BPF_LD_BTF_ID(1, 5, 3)),
]


@pytest.mark.parametrize(("text", "pair"), PAIRS, ids=[text for text, _ in PAIRS])
def test_two_slots(text: str, pair: tuple[Instruction, Instruction]) -> None:
    assert insns(text) == pair


def test_maps_by_name() -> None:
    spec = parse(
        """
        .map a hash key=4 value=8 entries=1
        .map .bss array key=4 value=64 entries=1
        r1 = map[a]
        r1 = a ll
        r1 = map[.bss][0]+8
        r1 = map[.bss] + 4 * 2
        """
    )
    a, value = BPF_LD_MAP_IDX(1, 0), BPF_LD_MAP_IDX_VALUE(1, 1, 8)
    assert spec.insns == assemble(a, a, value, value)
    assert [decl.spec.name for decl in spec.maps] == ["a", ".bss"]


def test_labels_go_both_ways_and_name_subprograms() -> None:
    assert insns(
        """
        start:  r1 -= 1
                if r1 != 0 goto start
                r2 = 5 ll
                goto end
                call f
                r1 = f ll
                r1 = subprog[f]
                gotol end
        end:    exit
        f: g:   goto g
        """
    ) == assemble(
        BPF_ALU64_IMM(BPF_SUB, 1, 1),
        BPF_JMP_IMM(BPF_JNE, 1, 0, -2),
        BPF_LD_IMM64(2, 5),
        BPF_JMP_A(6),
        BPF_CALL_REL(6),
        BPF_LD_FUNC(1, 5),
        BPF_LD_FUNC(1, 3),
        BPF_JMP32_A(0),
        BPF_EXIT_INSN(),
        BPF_JMP_A(-1),
    )


def test_a_label_hides_a_helper_of_the_same_name() -> None:
    assert insns("call bpf_ktime_get_ns\nexit\nbpf_ktime_get_ns: exit")[0] == BPF_CALL_REL(1)


def test_constants_and_expressions() -> None:
    assert insns(
        """
        .const ETH = 14
        .equ PROTO, ETH + 9
        MASK = ~0xf & 0xff      # the gas way
        r0 = *(u8 *)skb[PROTO]
        r1 = MASK >> 4 | 1 << 8
        r2 = -(3 - 10) * 2 % 5
        r3 = -7 / 2
        *(u64 *)(fp - ETH + 6) = BPF_NOEXIST
        """
    ) == assemble(
        BPF_LD_ABS(BPF_B, 23), BPF_MOV64_IMM(1, 0x10F), BPF_MOV64_IMM(2, 4), BPF_MOV64_IMM(3, -3), BPF_ST_MEM(BPF_DW, 10, -8, 1)
    )


def test_comments_in_every_style() -> None:
    assert insns("; one\n# two\n// three\n/* four\nr0 = 1 */ r0 = 2 ; five\nexit # six\n/* seven */ exit // eight") == assemble(
        BPF_MOV64_IMM(0, 2), BPF_EXIT_INSN(), BPF_EXIT_INSN()
    )


def test_directives() -> None:
    spec = parse(
        """
        .type xdp
        .license Dual BSD/GPL   ; words
        .name pass_all
        .flags BPF_F_STRICT_ALIGNMENT | 8
        .attach_type 37
        .btf hex"9feb"
        .btf hex"01 00"
        .func_info 0, 3
        .line_info 0, 1, 2, 3
        .source_line 1 "return XDP_PASS;"
        r0 = 2
        exit
        """
    )
    assert spec == ProgramSpec(
        assemble(BPF_MOV64_IMM(0, 2), BPF_EXIT_INSN()),
        prog_type=6,
        license="Dual BSD/GPL",
        name="pass_all",
        prog_flags=9,
        expected_attach_type=37,
        btf=b"\x9f\xeb\x01\x00",
        func_info=((0, 3),),
        line_info=((0, 1, 2, 3),),
        source_lines=((1, "return XDP_PASS;"),),
    )


def test_maps_with_contents() -> None:
    spec = parse(
        """
        .map ports hash key=2 value=4 entries=64 flags=BPF_F_NO_PREALLOC {
            be16 443: 1
            hex"00 50": u8 1, ...
            0x1f90: "abcd"          ; little endian, as the CPU's
        }
        .map acl lpm_trie key=8 value=1 entries=8 flags=1 {
            u32 8, ip"10.0.0.0": -1
        }
        .map hosts hash key=6 value=0 entries=2 {
            mac"02:00:00:00:00:01": 0
        }
        .map outer array_of_maps key=4 value=4 entries=2 inner(array key=4 value=8 entries=1 name=in)
        .map .rodata array key=4 value=4 entries=1 flags=BPF_F_RDONLY_PROG frozen {
            0: 7
        }
        """
    )
    inner = MapSpec(2, 4, 8, 1, name="in")
    assert spec.maps == (
        MapDecl(
            MapSpec(1, 2, 4, 64, 1, "ports"),
            ((b"\x01\xbb", b"\1\0\0\0"), (b"\0P", b"\1\0\0\0"), (b"\x90\x1f", b"abcd")),
        ),
        MapDecl(MapSpec(11, 8, 1, 8, 1, "acl"), ((b"\x08\0\0\0\x0a\0\0\0", b"\xff"),)),
        MapDecl(MapSpec(1, 6, 0, 2, 0, "hosts"), ((b"\2\0\0\0\0\1", b""),)),
        MapDecl(MapSpec(12, 4, 4, 2, name="outer", inner=inner)),
        MapDecl(MapSpec(2, 4, 4, 1, 128, ".rodata"), ((b"\0\0\0\0", b"\7\0\0\0"),), frozen=True),
    )


def test_slots_pins_and_further_programs() -> None:
    spec = parse(
        """
        .map jumps prog_array key=4 value=4 entries=4 pin="/sys/fs/bpf/jumps" {
            0: &tail
            1: &"odd name"
        }
        L: r2 = map[jumps]
        exit
        .program tail
        .license "MIT"
        L: r2 = map[jumps]
        goto L
        .program "odd name" own
        exit
        """
    )
    jumps = BPF_LD_MAP_IDX(2, 0)
    slots = ((bytes(4), "tail"), (b"\1\0\0\0", "odd name"))
    maps = (MapDecl(MapSpec(3, 4, 4, 4, name="jumps"), slots=slots, pin_path="/sys/fs/bpf/jumps"),)
    tail = ProgramSpec(assemble(jumps, BPF_JMP_A(-3)), name="tail", license="MIT", maps=maps)
    odd = ProgramSpec(assemble(BPF_EXIT_INSN()), name="odd name")
    assert spec == ProgramSpec(assemble(jumps, BPF_EXIT_INSN()), maps=maps, others=(tail, odd))
    assert parse(format_program(spec)) == spec


def test_per_cpu_values_may_be_given_for_every_cpu() -> None:
    text = '.map m percpu_array key=4 value=4 entries=1 {{\n0: {}\n}}'
    assert parse(text.format("7")).maps[0].contents[0][1] == b"\7\0\0\0"
    assert parse(text.format("u64 7, u64 8")).maps[0].contents[0][1] == b"\7" + bytes(7) + b"\x08" + bytes(7)
    with pytest.raises(SourceError, match="has 6 bytes, the map's has 4"):
        parse(text.format("u32 7, u16 8"))


# --- what other tools print ---------------------------------------------------------------------------------------------------

COUNTING = parse((SCENARIOS / "counting.s").read_text()).insns


def test_the_scenario_is_the_manual_pages_program() -> None:
    assert assemble(
        BPF_MOV64_REG(BPF_REG_6, BPF_REG_1),
        BPF_LD_ABS(BPF_B, 14 + 9),
        BPF_STX_MEM(BPF_W, BPF_REG_10, BPF_REG_0, -4),
        BPF_MOV64_REG(BPF_REG_2, BPF_REG_10),
        BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, -4),
        BPF_LD_MAP_IDX(BPF_REG_1, 0),
        BPF_CALL_FUNC(BPF_FUNC_map_lookup_elem),
        BPF_JMP_IMM(BPF_JEQ, BPF_REG_0, 0, 2),
        BPF_MOV64_IMM(BPF_REG_1, 1),
        BPF_XADD(BPF_DW, BPF_REG_0, BPF_REG_1, 0, 0),
        BPF_MOV64_IMM(BPF_REG_0, 0),
        BPF_EXIT_INSN(),
    ) == COUNTING


def test_bpftool_xlated() -> None:
    maps = BPF_LD_MAP_FD(1, 5), BPF_LD_MAP_VALUE(2, 6, 16)
    program = assemble(BPF_MOV64_REG(6, 1), maps, BPF_LD_FUNC(3, 1), BPF_CALL_REL(0), BPF_EXIT_INSN())
    listing = "int count(struct __sk_buff * skb):\n; r6 = ctx;\n" + "\n".join(format_insns(program))
    assert insns(listing) == program


def test_a_verifier_log_is_read_once_per_instruction() -> None:
    log = """\
func#0 @0
0: R1=ctx() R10=fp0
; int x = skb->len; @ a.c:3
0: (b7) r0 = 0                        ; R0_w=0
1: (61) r1 = *(u32 *)(r1 +0)          ; R1_w=scalar(umax=0xffffffff)
2: (15) if r1 == 0x0 goto pc+2        ; R1_w=scalar(umin=1)
3: (b7) r0 = 1                        ; R0_w=1
mark_precise: frame0: last_idx 3 first_idx 0 subseq_idx -1
mark_precise: frame0: regs=r0 stack= before 2: (15) if r1 == 0x0 goto pc+2
4: (05) goto pc+0
5: (95) exit

from 2 to 5: R0=0 R1=0 R10=fp0
5: R0=0
5: (95) exit
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0
"""
    assert insns(log) == assemble(
        BPF_MOV64_IMM(0, 0),
        BPF_LDX_MEM(BPF_W, 1, 1, 0),
        BPF_JMP_IMM(BPF_JEQ, 1, 0, 2),
        BPF_MOV64_IMM(0, 1),
        BPF_JMP_A(0),
        BPF_EXIT_INSN(),
    )


def test_log_lines_that_go_on() -> None:
    log = "func#0 @0\n0: (15) if r1 == 0x0 goto pc+1 1: R1=scalar(umin=1)\n"
    log += "1: (05) goto pc-2 infinite loop detected at insn 0\n2: (95) exit"
    assert insns(log) == assemble(BPF_JMP_IMM(BPF_JEQ, 1, 0, 1), BPF_JMP_A(-2), BPF_EXIT_INSN())


def test_the_table_of_live_registers_has_what_no_path_reached() -> None:
    log = """\
func#0 @0
Live regs before insn:
      0: .......... (b7) r0 = 0
  1   1: 0......... (05) goto pc+1
      2: .......... (b7) r0 = 1
      3: 0......... (95) exit
0: R1=ctx() R10=fp0
0: (b7) r0 = 0                        ; R0=0
3: (95) exit
"""
    assert len(insns(log)) == 4


def test_a_log_with_a_gap_says_which_instructions_are_missing() -> None:
    with pytest.raises(SourceError, match="insns 1 to 2 missing before this line, the line says 3") as e:
        parse("func#0 @0\n0: (b7) r0 = 0    ; R0=0\n3: (95) exit\n")
    assert (e.value.line, e.value.column) == (3, 1)


def test_llvm_objdump() -> None:
    text = """
foo.o:\tfile format elf64-bpf

Disassembly of section socket:

0000000000000000 <main>:
       0:\tbf 16 00 00 00 00 00 00\tr6 = r1
       1:\t18 01 00 00 78 56 34 12 00 00 00 00 00 00 00 00\tr1 = 0x12345678 ll
       3:\t15 00 01 00 00 00 00 00\tif r0 == 0x0 goto +0x1 <LBB0_2>
       4:\tb7 00 00 00 00 00 00 00\tr0 = 0x0

0000000000000028 <LBB0_2>:
       5:\t95 00 00 00 00 00 00 00\texit
"""
    assert insns(text) == assemble(
        BPF_MOV64_REG(6, 1), BPF_LD_IMM64(1, 0x12345678), BPF_JMP_IMM(BPF_JEQ, 0, 0, 1), BPF_MOV64_IMM(0, 0), BPF_EXIT_INSN()
    )


def test_llvm_assembler_output() -> None:
    text = """
\t.section\tsocket,"ax",@progbits
\t.globl\tmain                            # -- Begin function main
\t.p2align\t3
\t.type\tmain,@function
main:                                   # @main
\t.cfi_startproc
# %bb.0:
\tw0 = 0
\tr1 = *(u32 *)(r1 + 0)
\tif w1 s> 5 goto .LBB0_2
# %bb.1:
\tw0 = 1
.LBB0_2:
\texit
.Lfunc_end0:
\t.size\tmain, .Lfunc_end0-main
                                        # -- End function
\t.addrsig
"""
    assert insns(text) == assemble(
        BPF_MOV32_IMM(0, 0), BPF_LDX_MEM(BPF_W, 1, 1, 0), BPF_JMP32_IMM(BPF_JSGT, 1, 5, 1), BPF_MOV32_IMM(0, 1), BPF_EXIT_INSN()
    )


# --- errors -------------------------------------------------------------------------------------------------------------------

ERRORS = [
    ("r0 = 0 foo", 8, "'foo' is left over after a whole statement"),
    ("eixt", 1, "'eixt' begins no instruction; did you mean 'exit'?"),
    ("r0 =", 5, "expected a register, load, map or number, the line ends here"),
    ("r0 == 1", 4, "expected an operator after 'r0': "),
    ("w0 = r1", 6, "'r1' is not as wide as 'w0'"),
    ("w0 += r1", 7, "'r1' is not as wide as 'w0'"),
    ("r0 = r1x", 6, "'r1x' is no register, load, map or number and no constant"),
    ("r1 &= 0xffffffff", 7, "4294967295 does not fit the signed 32-bit imm of a 64-bit operation"),
    ("w1 = 0x100000000", 6, "4294967296 does not fit 32 bits"),
    ("r1 = 1 << 64", 8, "the value does not fit 64 bits"),
    ("r1 = 1 / 0", 8, "division by zero"),
    ("r1 = 1 << 65", 8, "a shift by 65 bits"),
    ("r1 = 12abc", 6, "'12abc' is no number"),
    ("r1 = " + "(" * 100 + "1", 57, "nested too deep"),
    ("r1 = -r2", 7, "must be 'r1' again: negation is in place"),
    ("r1 = be16 r2", 11, "must be 'r1' again: bytes are swapped in place"),
    ("r1 = *(u32 *)skb[4]", 1, "a packet load always goes to r0"),
    ("r1 = *(u33 *)(r2 + 0)", 8, "'u33' is no size; did you mean 'u32'?: u32, u16"),
    ("r1 = *(u32)(r2 + 0)", 11, "expected '*' after u32, got ')'"),
    ("r1 = *(u32 *)(w2 + 0)", 15, "'w2' must be 64 bits wide ('r2'): it is an address"),
    ("w1 = *(u64 *)(r2 + 0)", 1, "this load fills 64 bits: write 'r1'"),
    ("*(u64 *)(r2 + 0) = w1", 20, "'w1' holds 32 bits, 64 are stored: write 'r1'"),
    ("r1 = *(u32 *)(r2 + 40000)", 18, "offset +40000 does not fit 16 bits"),
    ("lock *(u32 *)(r2 + 0) -= r1", 23, "expected one of += "),
    ("r1 = atomic64_fetch_add((u32 *)(r2 + 0), r1)", 6, "'atomic64_fetch_add' works on a u64"),
    ("r1 = atomic_xchg((u32 *)(r2 + 0), r3)", 35, "must be 'r1' again: the old value goes where the operand was"),
    ("r1 = atomic_cmpxchg((u32 *)(r2 + 0), r0, r1)", 1, "compare-and-exchange gives the old value back in r0"),
    ("if r1 = 0 goto pc+1", 7, "expected a comparison after 'r1': "),
    ("if r1 == 0 got pc+1", 12, "expected 'goto' after the comparison, got 'got'"),
    ("goto end", 6, "'end' is no label of this text"),
    ("done: exit\ngoto dome", 6, "'dome' is no label of this text; did you mean 'done'?"),
    ("goto pc+40000", 8, "jump +40000 does not fit 16 bits; 'gotol' reaches further"),
    ("call bpf_map_lookup_elm", 6, "no helper and no label of this text; did you mean 'bpf_map_lookup_elem'?"),
    ("call bpf_map_lookup_elem#2", 6, "helper 'bpf_map_lookup_elem' is number 1, not 2"),
    ("a: exit\na: exit", 1, "label 'a' is at insn 0 already"),
    ("r1: exit", 1, "'r1' is a register and can't be a label"),
    ("goto a\na:", 6, "label 'a' has no instruction behind it"),
    ("(bf) r1 = 5", 6, "these words are opcode (b7), the line says (bf)"),
    ("1: exit", 1, "insn 0 missing before this line, the line says 1"),
    ("0: exit\n0: exit", 1, "this is insn 1, the line says 0"),
    ("r0 = 0; exit;", 7, "';' begins a comment: one instruction a line"),
    ("r1 = map[foo]", 10, "no .map is called 'foo'"),
    (".map counts hash\nr1 = map[count]", 10, "no .map is called 'count'; did you mean 'counts'?"),
    (".map m hsah key=4", 8, "'hsah' is no kind of map; did you mean 'hash'?"),
    (".map m hash keys=4", 13, "a map has no 'keys'; did you mean 'key'?: key, value"),
    (".map m hash key=-4", 17, "key=-4 does not fit its field"),
    (".map m hash key 4", 17, "expected '=' after 'key', got '4'"),
    (".map m hash key=4 value=4 { 1: 2 }", 29, "contents go on lines of their own"),
    (".map m hash key=1 value=1 {\n1: 2", 6, "the contents of map 'm' have no closing '}'"),
    (".map m hash key=1 value=1 {\n256: 2\n}", 1, "256 does not fit 1 bytes"),
    (".map m hash key=2 value=1 {\nu8 1: 2\n}", 1, "this key has 1 bytes, the map's has 2; end with ', ...' to fill with zeros"),
    (".map m hash key=2 value=1 {\nu9 1: 2\n}", 1, "'u9' is no key and no constant"),
    ('.map m hash key=4 value=1 {\nip"10.0.0": 2\n}', 1, "ip: '10.0.0' does not appear to be"),
    (".licence GPL", 1, "unknown directive '.licence'; did you mean '.license'?"),
    (".type socket_filer", 7, "'socket_filer' is no program type; did you mean 'socket_filter'?"),
    (".section maps", 1, "one text is one program: data and its sections need an object file"),
    ('.section license,"aw",@progbits', 1, "data and its sections need an object file"),
    (".long 5", 1, "data and its sections need an object file"),
    (".insn 0x100", 7, "code 256 is not within 0 to 255"),
    (".const r1 = 5", 8, "'r1' is a register and can't be a constant"),
    ("A = 1\nA = 2", 1, "'A' is 1 already"),
    ('.name "a\\q"', 7, "\\q is no escape"),
    ("r1 = ?", 6, "'?' means nothing here"),
    ("r1 = lenght", 6, "'lenght' is no register, load, map or number and no constant"),
]


@pytest.mark.parametrize(("text", "column", "message"), ERRORS, ids=[text[:40] for text, _, _ in ERRORS])
def test_errors_point_at_the_word(text: str, column: int, message: str) -> None:
    with pytest.raises(SourceError) as e:
        parse(text, "prog.s")
    assert message in e.value.message
    assert e.value.path == "prog.s"
    assert e.value.column == column
    assert e.value.source_line in text.split("\n")


def test_an_error_is_shown_with_a_caret() -> None:
    with pytest.raises(SourceError) as e:
        parse("r0 = 0\n\tcall bpf_map_lookup_elm  ; oops\nexit", "prog.s")
    assert str(e.value) == (
        "prog.s:2:7: 'bpf_map_lookup_elm' is no helper and no label of this text; did you mean 'bpf_map_lookup_elem'?\n"
        "  \tcall bpf_map_lookup_elm  ; oops\n"
        "  \t     ^^^^^^^^^^^^^^^^^^"
    )


def test_log_without_instructions() -> None:
    with pytest.raises(SourceError, match="log level 2"):
        parse("func#0 @0\nprocessed 0 insns (limit 1000000)")


def test_formatted_text_is_for_people() -> None:
    assert format_program(parse((SCENARIOS / "counting.s").read_text())) == (
        ".type socket_filter\n"
        '.license "GPL"\n'
        ".name counting\n"
        ".map counts hash key=4 value=8 entries=2 {\n"
        "    6: 0\n"
        "    17: 0\n"
        "}\n"
        "\n"
        "    r6 = r1\n"
        "    r0 = *(u8 *)skb[23]\n"
        "    *(u32 *)(r10 -4) = r0\n"
        "    r2 = r10\n"
        "    r2 += -4\n"
        "    r1 = map[counts]\n"
        "    call bpf_map_lookup_elem#1\n"
        "    if r0 == 0x0 goto L11\n"
        "    r1 = 1\n"
        "    lock *(u64 *)(r0 +0) += r1\n"
        "L11:\n"
        "    r0 = 0\n"
        "    exit\n"
    )
