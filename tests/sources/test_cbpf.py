"""Classic BPF read and written in every form, checked and translated; libpcap's own printer as a second opinion."""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf.errors import ProgramRejected, SourceError
from netbpf.isa.classic import (
    ALLOWED_CODES,
    BPF_JUMP,
    BPF_STMT,
    CONDITIONAL_JUMPS,
    ClassicProgram,
    SockFilter,
    decode_classic,
    encode_classic,
)
from netbpf.isa.disasm import format_insns
from netbpf.sources import cbpf
from netbpf.sources.cbpf_check import check_classic, check_savefile
from netbpf.sources.cbpf_convert import convert

# tcpdump -d 'ip and tcp port 443'
TCP443 = """\
(000) ldh      [12]
(001) jeq      #0x800           jt 2	jf 12
(002) ldb      [23]
(003) jeq      #0x6             jt 4	jf 12
(004) ldh      [20]
(005) jset     #0x1fff          jt 12	jf 6
(006) ldxb     4*([14]&0xf)
(007) ldh      [x + 14]
(008) jeq      #0x1bb           jt 11	jf 9
(009) ldh      [x + 16]
(010) jeq      #0x1bb           jt 11	jf 12
(011) ret      #262144
(012) ret      #0
"""
IP_DD = "{ 0x28, 0, 0, 0x0000000c },\n{ 0x15, 0, 1, 0x00000800 },\n{ 0x6, 0, 0, 0x00040000 },\n{ 0x6, 0, 0, 0x00000000 },\n"
IP_DDD = "4\n40 0 0 12\n21 0 1 2048\n6 0 0 262144\n6 0 0 0\n"
IP = (BPF_STMT(0x28, 12), BPF_JUMP(0x15, 0x800, 0, 1), BPF_STMT(6, 262144), BPF_STMT(6, 0))


def test_what_tcpdump_prints_reads_and_prints_again() -> None:
    assert cbpf.format_d(cbpf.parse(TCP443)) == TCP443
    assert cbpf.parse(IP_DD) == cbpf.parse(IP_DDD) == IP
    assert cbpf.format_dd(IP) == IP_DD
    assert cbpf.format_ddd(IP) == IP_DDD


def test_other_spellings() -> None:
    assert cbpf.parse("4,40 0 0 12,21 0 1 2048,6 0 0 262144,6 0 0 0") == IP
    assert cbpf.parse("4,40 0 0 12,21 0 1 2048,6 0 0 262144,6 0 0 0,\n") == IP
    array = "struct sock_filter code[] = {\n\t{0x28,0,0,12}, /* ldh */ {0x15, 0, 01, 2048U },\n{ 6, 0, 0, 0x40000 },{6,0,0,0}, };"
    assert cbpf.parse(array) == IP
    assert cbpf.parse("{ 6, 0, 0, -1 }") == (BPF_STMT(6, -1),)


BPF_ASM = [
    ("ld [4]", SockFilter(0x20, 0, 0, 4)),
    ("ldh [x + 2]", SockFilter(0x48, 0, 0, 2)),
    ("ldb [%x+2]", SockFilter(0x50, 0, 0, 2)),
    ("ldb [x]", SockFilter(0x50, 0, 0, 0)),
    ("ldb [x - 2]", SockFilter(0x50, 0, 0, 0xFFFFFFFE)),
    ("ld M[3]", SockFilter(0x60, 0, 0, 3)),
    ("ld #5", SockFilter(0x00, 0, 0, 5)),
    ("ldi #0xffffffff", SockFilter(0x00, 0, 0, 0xFFFFFFFF)),
    ("ld len", SockFilter(0x80, 0, 0, 0)),
    ("ld #pktlen", SockFilter(0x80, 0, 0, 0)),
    ("ldx len", SockFilter(0x81, 0, 0, 0)),
    ("ldx M[15]", SockFilter(0x61, 0, 0, 15)),
    ("ldxi #2", SockFilter(0x01, 0, 0, 2)),
    ("ldx 4*([14]&0xf)", SockFilter(0xB1, 0, 0, 14)),
    ("ldxb 4*([14]&0xf)", SockFilter(0xB1, 0, 0, 14)),
    ("st M[0]", SockFilter(0x02)),
    ("stx M[1]", SockFilter(0x03, 0, 0, 1)),
    ("ld proto", SockFilter(0x20, 0, 0, 0xFFFFF000)),
    ("ld #type", SockFilter(0x20, 0, 0, 0xFFFFF004)),
    ("ldb vlan_avail", SockFilter(0x30, 0, 0, 0xFFFFF030)),
    ("ldh vlan_tpid", SockFilter(0x28, 0, 0, 0xFFFFF03C)),
    ("ld rand", SockFilter(0x20, 0, 0, 0xFFFFF038)),
    ("ld poff", SockFilter(0x20, 0, 0, 0xFFFFF034)),
    ("add #-1", SockFilter(0x04, 0, 0, 0xFFFFFFFF)),
    ("mod x", SockFilter(0x9C)),
    ("xor %x", SockFilter(0xAC)),
    ("rsh #3", SockFilter(0x74, 0, 0, 3)),
    ("neg", SockFilter(0x84)),
    ("tax", SockFilter(0x07)),
    ("txa", SockFilter(0x87)),
    ("ret a", SockFilter(0x16)),
    ("ret %a", SockFilter(0x16)),
    ("ret", SockFilter(0x16)),
    ("ret #-1", SockFilter(0x06, 0, 0, 0xFFFFFFFF)),
]


@pytest.mark.parametrize(("text", "insn"), BPF_ASM, ids=[text for text, _ in BPF_ASM])
def test_bpf_asm_words(text: str, insn: SockFilter) -> None:
    assert cbpf.parse(text) == (insn,)


def test_bpf_asm_labels_and_one_way_jumps() -> None:
    text = """
        ldh [12]            ; EtherType
        jne #0x800, drop    /* not IP */
        jeq x, keep, drop
        jlt #5, keep
        jle #5, keep
        jneq x, keep
        jset #1, keep
        jgt #1, drop, keep
        jmp keep
        ja drop
    keep: ret #-1
    drop: ret #0
    """
    jumps = [(i.code, i.jt, i.jf, i.k) for i in cbpf.parse(text)[1:-2]]
    assert jumps == [
        (0x15, 0, 9, 0x800), (0x1D, 7, 8, 0), (0x35, 0, 6, 5), (0x25, 0, 5, 5), (0x1D, 0, 4, 0), (0x45, 3, 0, 1), (0x25, 3, 2, 1),
        (0x05, 0, 0, 1), (0x05, 0, 0, 1),
    ]  # fmt: skip


ERRORS = [
    ("jqe #1, a", 1, 1, "'jqe' is no mnemonic; did you mean 'jne'?"),
    ("ret #0\nldb #5", 2, 5, "'ldb' takes [k], [x + k]"),
    ("ld prot", 1, 4, "'prot' is no extension; did you mean 'proto'?"),
    ("jeq #1", 1, 7, "expected ',' after the operand"),
    ("jeq #1, a, b\na: ret #0", 1, 12, "no label 'b'"),
    ("a: ret #0\njeq #1, a", 2, 9, "'a' is -2 instructions away: classic jumps go forward only"),
    ("jeq #1, a\n" + "txa\n" * 256 + "a: ret #0", 1, 9, "a conditional jump reaches 255 instructions"),
    ("jeq [1], a, b", 1, 5, "'jeq' compares with #k or x"),
    ("ld #4294967296", 1, 5, "4294967296 does not fit 32 bits"),
    ("ldx 4*([14]&0xe)", 1, 13, "the mask is 0xf"),
    ("ldx 4*14", 1, 7, "expected 4*([k]&0xf)"),
    ("ld 12", 1, 4, "expected an operand"),
    ("a: ret #0\na: ret #0", 2, 1, "label 'a' is at insn 0 already"),
    ("(000) ret      #0\n(002) ret      #0", 2, 1, "this is insn 1, the line says 2"),
    ("(000) jeq      #0x6             jt 1", 1, 37, "expected 'jf', the line ends here"),
    ("2\n6 0 0 0", 1, 0, "2 instructions are announced, 1 are here"),
    ("1\n6 0 256 0", 2, 1, "jf 256 does not fit its field"),
    ("1\n6 0 0 4294967296", 2, 1, "k 4294967296 does not fit its field"),
    ("{ 0x10000, 0, 0, 0 }", 1, 1, "code 65536 does not fit its field"),
    ("{ 6, 0, 0, 0xzz }", 1, 12, "'0xzz' is no number"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), ERRORS, ids=[e[0][:30] for e in ERRORS])
def test_errors_have_a_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(SourceError) as e:
        cbpf.parse(text)
    assert message in e.value.message
    assert (e.value.line, e.value.column) == (line, column)


any_insn = st.builds(SockFilter, st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFFFFFF))
CODES = sorted(ALLOWED_CODES - {0x81})  # of ldx len libpcap prints no words


@st.composite
def writable_filters(draw: st.DrawFn) -> ClassicProgram:
    """Filters that -d can say in full: known codes, jt and jf in jumps only."""
    out = []
    for _ in range(draw(st.integers(1, 8))):
        code = draw(st.sampled_from(CODES))
        k = draw(st.one_of(st.integers(0, 0xFFFFFFFF), st.sampled_from([0xFFFFF000 + 4 * i for i in range(17)])))
        jumps = code in CONDITIONAL_JUMPS
        no_k = (code & 7 in (4, 5) and code & 8) or code in (0x84, 0x07, 0x87, 0x16, 0x80)
        jt, jf = (draw(st.integers(0, 255)) if jumps else 0 for _ in range(2))
        out.append(SockFilter(code, jt, jf, draw(st.integers(0, 9)) if code == 5 else 0 if no_k else k))
    return tuple(out)


@given(st.lists(any_insn, min_size=1, max_size=8).map(tuple))
def test_numbers_and_bytes_keep_every_field(insns: ClassicProgram) -> None:
    assert cbpf.parse(cbpf.format_dd(insns)) == insns
    assert cbpf.parse(cbpf.format_ddd(insns)) == insns
    assert decode_classic(encode_classic(insns)) == insns
    assert cbpf.format_d(insns).count("\n") == len(insns)


@settings(deadline=None)
@given(writable_filters())
def test_listings_keep_what_they_say(insns: ClassicProgram) -> None:
    assert cbpf.parse(cbpf.format_d(insns)) == insns


WORDS = "ldh jeq ret ja [ ] x + M # 12 -1 0x , a: a , { } ( ) (000) jt jf len\n 4 * &0xf".split(" ")


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)))
def test_any_text_is_answered(text: str) -> None:
    try:
        cbpf.parse(text)
    except SourceError as e:
        assert e.path == "<filter>"  # noqa: PT017


# --- libpcap's printer --------------------------------------------------------------------------------------------------------


class _BpfInsn(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]


def test_listing_is_libpcaps_for_every_code() -> None:
    name = ctypes.util.find_library("pcap")
    if name is None:
        pytest.skip("no libpcap here")
    libpcap = ctypes.CDLL(name)
    libpcap.bpf_image.restype = ctypes.c_char_p
    libpcap.bpf_image.argtypes = [ctypes.POINTER(_BpfInsn), ctypes.c_int]
    ks = (0, 1, 0x800, 0xFFFFFFFB, 0xFFF00000, *(0xFFFFF000 + i for i in (0, 1, 4, 36, 40, 48, 52, 56, 60, 64)))
    for code in (*range(0x200), 0xFFFF):
        for k in ks:
            for pc in (0, 7, 1234):
                insn = SockFilter(code, 1, 2, k)
                theirs = libpcap.bpf_image(ctypes.byref(_BpfInsn(*insn)), pc).decode()
                if code == 0x81 and "unimp" in theirs:  # libpcap before 1.11 does not know it
                    theirs = f"({pc:03d}) ldx      #pktlen"
                assert cbpf.format_one(insn, pc) == theirs.rstrip()


# --- checking -----------------------------------------------------------------------------------------------------------------

REFUSED = [
    ((), "a classic filter has 1 to 4096 instructions, not 0"),
    ((BPF_STMT(6, 0),) * 4097, "not 4097"),
    ((SockFilter(0x0E), BPF_STMT(6, 0)), "insn 0: unknown opcode 0xe"),
    ((BPF_STMT(0x34, 0), BPF_STMT(6, 0)), "insn 0: division by zero"),
    ((BPF_STMT(0x74, 32), BPF_STMT(6, 0)), "insn 0: a shift by 32 bits"),
    ((BPF_STMT(0x02, 16), BPF_STMT(6, 0)), "insn 0: M[16]: there are 16 words"),
    ((BPF_STMT(0x05, 1), BPF_STMT(6, 0)), "insn 0: jump to insn 2, outside the filter"),
    ((BPF_STMT(0x05, -1), BPF_STMT(6, 0)), "insn 0: jump to insn 0, outside the filter or backwards"),
    ((BPF_JUMP(0x15, 0, 0, 1), BPF_STMT(6, 0)), "insn 0: jump to insn 2, outside the filter"),
    ((BPF_STMT(0x20, -4096 + 64), BPF_STMT(6, 0)), "insn 0: unknown ancillary data SKF_AD_OFF+64"),
    ((BPF_STMT(0x20, 0),), "insn 0: the last instruction is no 'ret'"),
    ((BPF_JUMP(0x15, 0, 1, 0), BPF_STMT(0x02, 3), BPF_STMT(0x60, 3), BPF_STMT(6, 0)), "insn 2: M[3] may be read before it"),
]


@pytest.mark.parametrize(("insns", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_refusals(insns: ClassicProgram, message: str) -> None:
    with pytest.raises(ProgramRejected, match="EINVAL") as e:
        check_classic(insns)
    assert message in str(e.value)


def test_a_savefiles_filter_may_do_more() -> None:
    backwards = (BPF_STMT(0x05, 1), BPF_STMT(6, 0), BPF_STMT(0x05, -2))
    with pytest.raises(ProgramRejected, match="no 'ret'"):
        check_savefile(backwards)
    check_savefile((*backwards, BPF_STMT(6, 0)))
    check_savefile((BPF_STMT(0x60, 3), BPF_STMT(0x20, -4000), BPF_STMT(0x74, 31), BPF_STMT(6, 0)))
    check_savefile((BPF_STMT(6, 0),) * 5000)
    with pytest.raises(ProgramRejected, match="jump to insn -1"):
        check_savefile((BPF_STMT(0x05, -2), BPF_STMT(6, 0)))
    with pytest.raises(ProgramRejected, match="jump to insn 0, itself"):
        check_savefile((BPF_STMT(0x05, -1), BPF_STMT(6, 0)))
    with pytest.raises(ProgramRejected, match="a shift by 32 bits"):
        check_savefile((BPF_STMT(0x74, 32), BPF_STMT(6, 0)))
    with pytest.raises(ProgramRejected, match="at least 1 instruction"):
        check_savefile(())


# --- translating --------------------------------------------------------------------------------------------------------------


def translated(text: str) -> list[str]:
    """The eBPF of an instruction, behind the three that every filter begins with."""
    insns = cbpf.parse(text)
    converted = convert(insns if text.startswith("ret") else (*insns, BPF_STMT(0x16, 0)))
    lines = [line[6:] for line in format_insns(converted.insns)][3:]
    return lines if text.startswith("ret") else lines[:-1]


def test_every_filter_begins_with_zeros_and_the_context() -> None:
    lines = [line[6:] for line in format_insns(convert(cbpf.parse("ret a")).insns)]
    assert lines == ["(b4) w0 = 0", "(b4) w7 = 0", "(bf) r6 = r1", "(95) exit"]


TRANSLATIONS = [
    ("ret #5", ["(b4) w0 = 5", "(95) exit"]),
    ("ldh [12]", ["(28) r0 = *(u16 *)skb[12]"]),
    ("ldb [x + 3]", ["(50) r0 = *(u8 *)skb[r7 + 3]"]),
    ("st M[0]", ["(63) *(u32 *)(r10 -64) = r0"]),
    ("stx M[15]", ["(63) *(u32 *)(r10 -4) = r7"]),
    ("ldx M[1]", ["(61) r7 = *(u32 *)(r10 -60)"]),
    ("ld len", ["(61) r0 = *(u32 *)(r6 +0)"]),
    ("ldx #7", ["(b4) w7 = 7"]),
    ("neg", ["(84) w0 = -w0"]),
    ("lsh x", ["(6c) w0 <<= w7"]),
    ("div #3", ["(34) w0 /= 3"]),
    ("div x", ["(56) if w7 != 0x0 goto pc+2", "(b4) w0 = 0", "(95) exit", "(3c) w0 /= w7"]),
    ("tax", ["(bf) r7 = r0"]),
    ("ld proto", ["(61) r0 = *(u32 *)(r6 +16)", "(dc) r0 = be16 r0"]),
    ("ld cpu", ["(85) call bpf_get_smp_processor_id#8"]),
    ("ld poff", ["(bf) r1 = r6", "(bf) r2 = r0", "(bf) r3 = r7", "(85) call skb_get_pay_offset#65536"]),
]


@pytest.mark.parametrize(("text", "lines"), TRANSLATIONS, ids=[t for t, _ in TRANSLATIONS])
def test_translations(text: str, lines: list[str]) -> None:
    assert translated(text) == lines


def test_jumps_fall_through_where_they_can() -> None:
    ways = {
        "jeq #1, b, a": ["(16) if w0 == 0x1 goto pc+1"],
        "jeq #1, a, b": ["(56) if w0 != 0x1 goto pc+1"],
        "jset x, b, c": ["(4e) if w0 & w7 goto pc+1", "(05) goto pc+1"],
        "jset #1, a, b": ["(46) if w0 & 0x1 goto pc+1", "(05) goto pc+1"],
    }
    for jump, lines in ways.items():
        assert translated(f"{jump}\na: neg\nb: neg\nc: neg")[: len(lines)] == lines, jump


def test_a_jump_that_becomes_too_far_is_refused_as_the_kernel_does() -> None:
    def far(count: int) -> ClassicProgram:
        """A way around ``count`` header loads, of seven eBPF instructions each."""
        return BPF_JUMP(0x15, 5, 0, 1), BPF_STMT(0x05, count), *(BPF_STMT(0xB1, 0),) * count, BPF_STMT(6, 0)

    assert convert(far(4093)).insns[4].off == 7 * 4093
    with pytest.raises(ProgramRejected, match="too far"):
        convert(far(5000))


def test_what_no_path_reaches_is_left_out() -> None:
    converted = convert((BPF_STMT(0x05, 2), BPF_STMT(0x04, 1), BPF_STMT(0x06, 1), BPF_STMT(0x06, 2)))
    assert [line[6:] for line in format_insns(converted.insns)][3:] == ["(05) goto pc+0", "(b4) w0 = 2", "(95) exit"]
    assert converted.origin == (-1, -1, -1, 0, 3, 3)


def test_a_spec_has_the_classic_lines_as_its_source() -> None:
    spec = cbpf.to_spec(IP, "ip")
    assert spec.name == "ip"
    assert spec.source_lines == (
        (3, "(000) ldh      [12]"),
        (4, "(001) jeq      #0x800           jt 2\tjf 3"),
        (5, "(002) ret      #262144"),
        (7, "(003) ret      #0"),
    )
