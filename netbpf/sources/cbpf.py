"""Classic BPF in the forms it comes in, and out again; a filter of any of them -> ProgramSpec.

    -ddd       4            the count, then ``code jt jf k`` a line, decimal   (also in one line with commas: iptables' form)
               40 0 0 12
    -dd        { 0x28, 0, 0, 0x0000000c },                                     a C array
    -d         (000) ldh      [12]                                             libpcap's bpf_dump
    bpf_asm    ldh [12] / jne #0x800, drop / drop: ret #0                      the kernel's tools/bpf language (``cbpf_asm``)
    bytes      struct sock_filter[]

Knows the words; what a filter may do is ``cbpf_check``, what it becomes is ``cbpf_convert``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from netbpf.abi.classic import ANCILLARY_NAMES
from netbpf.errors import SourceError
from netbpf.ints import s32
from netbpf.isa.classic import BPF_A, BPF_LEN, BPF_MISC, BPF_MSH, BPF_RET, BPF_TAX, BPF_TXA, ClassicProgram, SockFilter
from netbpf.isa.opcodes import (
    BPF_ABS,
    BPF_ADD,
    BPF_ALU,
    BPF_AND,
    BPF_B,
    BPF_DIV,
    BPF_H,
    BPF_IMM,
    BPF_IND,
    BPF_JA,
    BPF_JEQ,
    BPF_JGE,
    BPF_JGT,
    BPF_JMP,
    BPF_JSET,
    BPF_K,
    BPF_LD,
    BPF_LDX,
    BPF_LSH,
    BPF_MEM,
    BPF_MOD,
    BPF_MUL,
    BPF_NEG,
    BPF_OR,
    BPF_RSH,
    BPF_ST,
    BPF_STX,
    BPF_SUB,
    BPF_W,
    BPF_X,
    BPF_XOR,
    bpf_class,
    bpf_op,
)
from netbpf.program import FILE_VIEW, SOCKET_VIEW, ProgramSpec
from netbpf.sources.cbpf_check import ancillary, check_classic, check_savefile

_NUMBERS = re.compile(r"\s*\d+\s*(?:[,\n]\s*\d+\s+\d+\s+\d+\s+\d+\s*)+,?\s*\Z")
_C_ROW = re.compile(r"\{\s*(\w+)\s*,\s*(\w+)\s*,\s*(\w+)\s*,\s*(-?\w+)\s*,?\s*\}")
_C_COMMENTS = re.compile(r"(?:\s|/\*.*?\*/|//[^\n]*)*", re.DOTALL)
_C_ARRAY = re.compile(r"\bsock_filter\b[^;{}]{0,200}=\s*\{[^;{}]{0,200}\{")  # a comment may lie between the braces
_LIMITS: Final = (0xFFFF, 0xFF, 0xFF, 0xFFFF_FFFF)
_FIELD_NAMES: Final = ("code", "jt", "jf", "k")


# --- reading --------------------------------------------------------------------------------------------------------------


def looks_classic(text: str) -> bool:
    """Whether ``text`` is one of the forms read here: numbers, C rows or an array of them that is declared, or lines of which the
    first has a classic mnemonic."""
    if _NUMBERS.match(text) or _looks_like_c(text):
        return True
    from netbpf.sources import cbpf_asm

    return cbpf_asm.looks_classic(text)


def _looks_like_c(text: str) -> bool:
    comments = _C_COMMENTS.match(text)
    return bool(_C_ROW.match(text, comments.end() if comments else 0) or _C_ARRAY.search(text))


def parse(text: str, path: str = "<filter>") -> ClassicProgram:
    """The filter in ``text``, whichever of the forms it is in. Raises SourceError with the place."""
    if _NUMBERS.match(text):
        return parse_ddd(text, path)
    if _C_ROW.search(text):
        return parse_dd(text, path)
    from netbpf.sources import cbpf_asm

    return cbpf_asm.parse(text, path)


def parse_ddd(text: str, path: str = "<filter>") -> ClassicProgram:
    """``tcpdump -ddd``: a count, then a row of four decimal numbers for each instruction; rows end with a line or a comma."""
    rows = [(number, row) for number, line in enumerate(text.split("\n"), 1) for row in line.split(",") if row.strip()]
    if not rows:
        raise SourceError("no filter here", path=path)
    (line, first), body = rows[0], rows[1:]
    count = _fields(first, 1, line, path)[0]
    if count != len(body):
        raise SourceError(f"{count} instructions are announced, {len(body)} are here", path=path, line=line, source_line=first)
    return tuple(SockFilter(*_fields(row, 4, number, path)) for number, row in body)


def _fields(row: str, wanted: int, line: int, path: str) -> list[int]:
    words = row.split()
    if len(words) != wanted or not all(word.isdecimal() and len(word) <= 10 for word in words):
        what = "a count" if wanted == 1 else "four decimal numbers: code jt jf k"
        raise SourceError(f"expected {what}", path=path, line=line, column=1, source_line=row, width=max(len(row.strip()), 1))
    values = [int(word) for word in words]
    return _limited(values, line, row, path) if wanted == 4 else values


def _limited(values: list[int], line: int, row: str, path: str) -> list[int]:
    for name, value, limit in zip(_FIELD_NAMES, values, _LIMITS, strict=True):
        if not 0 <= value <= limit:
            raise SourceError(f"{name} {value} does not fit its field", path=path, line=line, column=1, source_line=row)
    return values


def parse_dd(text: str, path: str = "<filter>") -> ClassicProgram:
    """A C array: ``{ 0x28, 0, 0, 0x0000000c },`` rows; anything around them (comments, declarations) is passed over."""
    out = []
    for line, row in enumerate(text.split("\n"), 1):
        for found in _C_ROW.finditer(row):
            values = [_c_number(word, line, row, path) for word in found.groups()]
            values[3] &= 0xFFFF_FFFF if values[3] >= -(1 << 31) else -1
            out.append(SockFilter(*_limited(values, line, row, path)))
    if not out:
        raise SourceError("no { code, jt, jf, k } here", path=path)
    return tuple(out)


def _c_number(word: str, line: int, row: str, path: str) -> int:
    digits = word.lower().rstrip("ul")
    try:
        if len(digits) < 20:
            is_octal = len(digits) > 1 and digits.isdecimal() and digits[0] == "0"
            return int(digits, 8 if is_octal else 0)
    except ValueError:
        pass
    column = row.index(word) + 1
    raise SourceError(f"'{word}' is no number", path=path, line=line, column=column, source_line=row, width=len(word))


# --- writing --------------------------------------------------------------------------------------------------------------


def format_ddd(insns: ClassicProgram) -> str:
    """As ``tcpdump -ddd`` prints."""
    return f"{len(insns)}\n" + "".join(f"{i.code} {i.jt} {i.jf} {i.k}\n" for i in insns)


def format_dd(insns: ClassicProgram) -> str:
    """As ``tcpdump -dd`` prints: rows of a C array."""
    return "".join(f"{{ {i.code:#x}, {i.jt}, {i.jf}, 0x{i.k:08x} }},\n" for i in insns)


def format_d(insns: ClassicProgram) -> str:
    """As ``tcpdump -d`` of libpcap 1.11 prints."""
    return "".join(f"{format_one(insn, pc)}\n" for pc, insn in enumerate(insns))


def format_one(insn: SockFilter, pc: int) -> str:
    """One line of libpcap's bpf_dump: ``(001) jeq      #0x800           jt 2	jf 5``. Never raises."""
    word, operand = _words(insn, pc)
    if bpf_class(insn.code) == BPF_JMP and bpf_op(insn.code) != BPF_JA:
        return f"({pc:03d}) {word:<8} {operand:<16} jt {pc + 1 + insn.jt}\tjf {pc + 1 + insn.jf}"
    return f"({pc:03d}) {word:<8} {operand}".rstrip()  # libpcap before 1.11 leaves blanks where there is no operand


def _words(insn: SockFilter, pc: int) -> tuple[str, str]:
    if insn.code not in _SENTENCES:
        return "unimp", f"{insn.code:#x}"
    word, operand = _SENTENCES[insn.code]
    number = ancillary(insn)
    if number is not None and number in ANCILLARY_NAMES:
        return word, f"[{ANCILLARY_NAMES[number][0]}]"
    k = insn.k
    return word, operand.format(d=s32(k), x=f"{k:#x}", target=pc + 1 + s32(k))


def _sentences() -> dict[int, tuple[str, str]]:
    """code -> (libpcap's mnemonic, its operand with {d} decimal, {x} hexadecimal, {target} a jump's)."""
    rows = {
        BPF_RET | BPF_K: ("ret", "#{d}"),
        BPF_RET | BPF_A: ("ret", ""),
        BPF_LD | BPF_W | BPF_LEN: ("ld", "#pktlen"),
        BPF_LDX | BPF_W | BPF_LEN: ("ldx", "#pktlen"),
        BPF_LD | BPF_IMM: ("ld", "#{x}"),
        BPF_LDX | BPF_IMM: ("ldx", "#{x}"),
        BPF_LDX | BPF_MSH | BPF_B: ("ldxb", "4*([{d}]&0xf)"),
        BPF_LD | BPF_MEM: ("ld", "M[{d}]"),
        BPF_LDX | BPF_MEM: ("ldx", "M[{d}]"),
        BPF_ST: ("st", "M[{d}]"),
        BPF_STX: ("stx", "M[{d}]"),
        BPF_JMP | BPF_JA: ("ja", "{target}"),
        BPF_ALU | BPF_NEG: ("neg", ""),
        BPF_MISC | BPF_TAX: ("tax", ""),
        BPF_MISC | BPF_TXA: ("txa", ""),
    }
    for size, word in ((BPF_W, "ld"), (BPF_H, "ldh"), (BPF_B, "ldb")):
        rows[BPF_LD | size | BPF_ABS] = (word, "[{d}]")
        rows[BPF_LD | size | BPF_IND] = (word, "[x + {d}]")
    for operation, word, base in _OPERATIONS:
        rows[BPF_ALU | operation | BPF_K] = (word, f"#{{{base}}}")
        rows[BPF_ALU | operation | BPF_X] = (word, "x")
    for operation, word in ((BPF_JEQ, "jeq"), (BPF_JGT, "jgt"), (BPF_JGE, "jge"), (BPF_JSET, "jset")):
        rows[BPF_JMP | operation | BPF_K] = (word, "#{x}")
        rows[BPF_JMP | operation | BPF_X] = (word, "x")
    return rows


_OPERATIONS: Final = (
    (BPF_ADD, "add", "d"),
    (BPF_SUB, "sub", "d"),
    (BPF_MUL, "mul", "d"),
    (BPF_DIV, "div", "d"),
    (BPF_MOD, "mod", "d"),
    (BPF_AND, "and", "x"),
    (BPF_OR, "or", "x"),
    (BPF_XOR, "xor", "x"),
    (BPF_LSH, "lsh", "d"),
    (BPF_RSH, "rsh", "d"),
)
_SENTENCES: Final = _sentences()


# --- to a program -----------------------------------------------------------------------------------------------------------


def to_spec(insns: ClassicProgram, name: str = "", *, savefile: bool = False) -> ProgramSpec:
    """The filter checked as the kernel checks it and translated to eBPF, its classic lines as source lines.

    With ``savefile`` checked and translated as libpcap understands it on a capture file. Raises ProgramRejected(EINVAL).
    """
    from netbpf.sources.cbpf_convert import convert  # listings do without

    (check_savefile if savefile else check_classic)(insns)
    converted = convert(insns, savefile=savefile)
    lines = tuple(_source_lines(insns, converted.origin))
    view = FILE_VIEW if savefile else SOCKET_VIEW
    return ProgramSpec(converted.insns, name=name, source_lines=lines, classic=insns, view=view)


def _source_lines(insns: ClassicProgram, origin: tuple[int, ...]) -> Iterator[tuple[int, str]]:
    previous = -1
    for pc, classic_pc in enumerate(origin):
        if classic_pc != previous:
            yield pc, format_one(insns[classic_pc], classic_pc)
            previous = classic_pc
