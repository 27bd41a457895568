"""One instruction as text, in the words of the kernel's verifier log and of ``bpftool prog dump xlated``.

The two print the same sentences and differ in how they name what an immediate points at: the log shows an address or
a number, bpftool shows maps by id. That difference is :class:`Names`, so this room knows no map and no program.

Every one of the 256 opcodes has a row in a table built below; opcodes that are no instruction print what the kernel
prints for them (``BUG_...``), and never raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from netbpf.abi.classic import CLASSIC_FUNC_NAMES
from netbpf.ints import u32
from netbpf.isa import funcs
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction

Style = Literal["verifier", "xlated"]

CLASS_NAMES: Final = ("ld", "ldx", "st", "stx", "alu", "jmp", "jmp32", "alu64")
SIZE_NAMES: Final = {op.BPF_W: "u32", op.BPF_H: "u16", op.BPF_B: "u8", op.BPF_DW: "u64"}
SIGNED_SIZE_NAMES: Final = {op.BPF_W: "s32", op.BPF_H: "s16", op.BPF_B: "s8", op.BPF_DW: "s64"}

ALU_SIGNS: Final = {
    op.BPF_ADD: "+=",
    op.BPF_SUB: "-=",
    op.BPF_MUL: "*=",
    op.BPF_DIV: "/=",
    op.BPF_OR: "|=",
    op.BPF_AND: "&=",
    op.BPF_LSH: "<<=",
    op.BPF_RSH: ">>=",
    op.BPF_NEG: "neg",
    op.BPF_MOD: "%=",
    op.BPF_XOR: "^=",
    op.BPF_MOV: "=",
    op.BPF_ARSH: "s>>=",
    op.BPF_END: "endian",
    0xE0: "(null)",
    0xF0: "(null)",
}
SIGNED_ALU_SIGNS: Final = {op.BPF_DIV: "s/=", op.BPF_MOD: "s%="}
MOVSX_CASTS: Final = {8: "(s8)", 16: "(s16)", 32: "(s32)"}

JMP_SIGNS: Final = {
    op.BPF_JA: "jmp",
    op.BPF_JEQ: "==",
    op.BPF_JGT: ">",
    op.BPF_JGE: ">=",
    op.BPF_JSET: "&",
    op.BPF_JNE: "!=",
    op.BPF_JSGT: "s>",
    op.BPF_JSGE: "s>=",
    op.BPF_CALL: "call",
    op.BPF_EXIT: "exit",
    op.BPF_JLT: "<",
    op.BPF_JLE: "<=",
    op.BPF_JSLT: "s<",
    op.BPF_JSLE: "s<=",
    0xE0: "(null)",
    0xF0: "(null)",
}

ATOMIC_SIGNS: Final = {op.BPF_ADD: "+=", op.BPF_AND: "&=", op.BPF_OR: "|=", op.BPF_XOR: "^="}
ATOMIC_FETCH_NAMES: Final = {
    op.BPF_ADD | op.BPF_FETCH: "add",
    op.BPF_AND | op.BPF_FETCH: "and",
    op.BPF_OR | op.BPF_FETCH: "or",
    op.BPF_XOR | op.BPF_FETCH: "xor",
}

ADDR_SPACE_CAST: Final = 1  # off of r = addr_space_cast(...)
ADDR_PERCPU: Final = -1  # off of r = &(void __percpu *)(...)


class Names(NamedTuple):
    """How an instruction's immediates are called. Each function may return None for 'no name: print the number'.

    ``imm64(insn, value)`` names an LD_IMM64 (``value`` is the whole 64 bits); ``call(insn)`` names what a call reaches,
    for a call of a subprogram the text after ``pc``.
    """

    imm64: Callable[[Instruction, int], str | None] | None = None
    call: Callable[[Instruction], str | None] | None = None


def xlated_imm64(insn: Instruction, value: int) -> str | None:
    """bpftool's words for the pseudo sources of LD_IMM64."""
    lo, hi = value & 0xFFFF_FFFF, value >> 32
    match insn.src:
        case op.BPF_PSEUDO_MAP_FD:
            return f"map[id:{lo}]"
        case op.BPF_PSEUDO_MAP_VALUE:
            return f"map[id:{lo}][0]+{hi}"
        case op.BPF_PSEUDO_MAP_IDX_VALUE:
            return f"map[idx:{lo}]+{hi}"
        case op.BPF_PSEUDO_FUNC:
            return f"subprog[{insn.imm:+d}]"
    return None


def _verifier_call(insn: Instruction) -> str | None:
    """The log calls kernel function 0 by an empty name; other kernel functions are named by BTF, which is not here."""
    return "" if insn.src == op.BPF_PSEUDO_KFUNC_CALL and not insn.imm and not insn.off else None


VERIFIER: Final = Names(call=_verifier_call)
XLATED: Final = Names(imm64=xlated_imm64)
_STYLES: Final = {"verifier": VERIFIER, "xlated": XLATED}


def format_insn(
    insn: Instruction, next_insn: Instruction | None = None, *, style: Style = "verifier", names: Names | None = None
) -> str:
    """The kernel's text of one instruction, opcode byte first: ``(b7) r1 = 0``.

    ``next_insn`` is the following slot, whose imm is the high half of an LD_IMM64 (taken as 0 when not given). ``names``
    overrides what ``style`` implies. Never raises: an opcode that does not exist reads ``BUG_...`` as in the kernel.
    """
    return _FORMATTERS[insn.code & 0xFF](insn, next_insn, names or _STYLES[style])


def format_insns(
    insns: Sequence[Instruction], *, style: Style = "xlated", names: Names | None = None, start: int = 0
) -> Iterator[str]:
    """A program's lines, ``   0: (bf) r6 = r1`` as bpftool numbers them (``0: (bf) r6 = r1`` in the log's style).

    The second slot of an LD_IMM64 has no line. ``start`` is the number of the first slot.
    """
    numbered = "{:4d}: {}" if style == "xlated" else "{}: {}"
    skip = False
    for i, insn in enumerate(insns):
        if skip:
            skip = False
            continue
        following = insns[i + 1] if i + 1 < len(insns) else None
        yield numbered.format(start + i, format_insn(insn, following, style=style, names=names))
        skip = op.is_ld_imm64(insn.code) and following is not None


_HELPER_NAMES: Final[dict[int, str]] = {
    **{number: name.replace("BPF_FUNC_", "bpf_") for name, number in vars(funcs).items() if name.startswith("BPF_FUNC_")},
    **CLASSIC_FUNC_NAMES,
}


def helper_name(func_id: int) -> str | None:
    """``bpf_map_lookup_elem`` for 1; None for a number that is no helper's."""
    return _HELPER_NAMES.get(func_id)


# --- one function per sentence; `letter` is w or r --------------------------------------------------------------------

_Formatter = Callable[[Instruction, "Instruction | None", Names], str]


def _alu_end(letter: str, sign: str) -> _Formatter:
    def text(i: Instruction, _n: Instruction | None, _names: Names) -> str:
        if i.code & 7 == op.BPF_ALU64:
            kind = "bswap"
        else:
            kind = "be" if i.code & op.BPF_TO_BE else "le"
        return f"({i.code:02x}) r{i.dst} = {kind}{i.imm} r{i.dst}"

    return text


def _alu_neg(letter: str, sign: str) -> _Formatter:
    return lambda i, _n, _names: f"({i.code:02x}) {letter}{i.dst} = -{letter}{i.dst}"


def _signed_sign(i: Instruction, sign: str) -> str:
    """``s/=`` and ``s%=`` where off says that a division is signed."""
    return SIGNED_ALU_SIGNS.get(i.code & 0xF0, sign) if i.off == 1 else sign


def _alu_imm(letter: str, sign: str) -> _Formatter:
    return lambda i, _n, _names: f"({i.code:02x}) {letter}{i.dst} {_signed_sign(i, sign)} {i.imm}"


def _alu_reg(letter: str, sign: str) -> _Formatter:
    return lambda i, _n, _names: f"({i.code:02x}) {letter}{i.dst} {_signed_sign(i, sign)} {letter}{i.src}"


def _mov_reg(letter: str, sign: str) -> _Formatter:
    wide = letter == "r"

    def text(i: Instruction, _n: Instruction | None, _names: Names) -> str:
        if i.off == 0:
            return f"({i.code:02x}) {letter}{i.dst} = {letter}{i.src}"
        if wide and i.off == ADDR_SPACE_CAST:
            imm = u32(i.imm)
            return f"({i.code:02x}) r{i.dst} = addr_space_cast(r{i.src}, {imm >> 16}, {imm & 0xFFFF})"
        if wide and i.off == ADDR_PERCPU:
            return f"({i.code:02x}) r{i.dst} = &(void __percpu *)(r{i.src})"
        return f"({i.code:02x}) {letter}{i.dst} = {MOVSX_CASTS.get(i.off, '')}{letter}{i.src}"

    return text


def _bug(kind: str) -> _Formatter:
    return lambda i, _n, _names: f"BUG_{kind}{i.code:02x}"


def _ldx(size: str) -> _Formatter:
    return lambda i, _n, _names: f"({i.code:02x}) r{i.dst} = *({size} *)(r{i.src} {i.off:+d})"


def _stx(size: str) -> _Formatter:
    return lambda i, _n, _names: f"({i.code:02x}) *({size} *)(r{i.dst} {i.off:+d}) = r{i.src}"


def _st(size: str) -> _Formatter:
    return lambda i, _n, _names: f"({i.code:02x}) *({size} *)(r{i.dst} {i.off:+d}) = {i.imm}"


def _nospec(i: Instruction, _n: Instruction | None, _names: Names) -> str:
    return f"({i.code:02x}) nospec"


def _ld_abs(size: str) -> _Formatter:
    return lambda i, _n, _names: f"({i.code:02x}) r0 = *({size} *)skb[{i.imm}]"


def _ld_ind(size: str) -> _Formatter:
    return lambda i, _n, _names: f"({i.code:02x}) r0 = *({size} *)skb[r{i.src} + {i.imm}]"


def _ld_imm64(i: Instruction, following: Instruction | None, names: Names) -> str:
    value = u32(i.imm) | (u32(following.imm) << 32 if following is not None else 0)
    named = names.imm64(i, value) if names.imm64 is not None else None
    return f"({i.code:02x}) r{i.dst} = {named if named is not None else f'0x{value:x}'}"


def _atomic(size: str) -> _Formatter:
    wide = "64" if size == "u64" else ""

    def text(i: Instruction, _n: Instruction | None, _names: Names) -> str:
        imm, place = i.imm, f"({size} *)(r{i.dst} {i.off:+d})"
        if imm in ATOMIC_SIGNS:
            return f"({i.code:02x}) lock *{place} {ATOMIC_SIGNS[imm]} r{i.src}"
        if imm in ATOMIC_FETCH_NAMES:
            return f"({i.code:02x}) r{i.src} = atomic{wide}_fetch_{ATOMIC_FETCH_NAMES[imm]}({place}, r{i.src})"
        match imm:
            case op.BPF_XCHG:
                return f"({i.code:02x}) r{i.src} = atomic{wide}_xchg({place}, r{i.src})"
            case op.BPF_CMPXCHG:
                return f"({i.code:02x}) r0 = atomic{wide}_cmpxchg({place}, r0, r{i.src})"
            case op.BPF_LOAD_ACQ:
                return f"({i.code:02x}) r{i.dst} = load_acquire(({size} *)(r{i.src} {i.off:+d}))"
            case op.BPF_STORE_REL:
                return f"({i.code:02x}) store_release({place}, r{i.src})"
        return f"BUG_{i.code:02x}"

    return text


def _call(i: Instruction, _n: Instruction | None, names: Names) -> str:
    named = names.call(i) if names.call is not None else None
    if i.src == op.BPF_PSEUDO_CALL:
        return f"({i.code:02x}) call pc{named if named is not None else format(i.imm, '+d')}"
    if named is None and i.src == 0:
        named = helper_name(i.imm)
    if named is None:
        named = "kernel-function" if i.src == op.BPF_PSEUDO_KFUNC_CALL else "unknown"
    return f"({i.code:02x}) call {named}#{i.imm}"


def _goto(i: Instruction, _n: Instruction | None, _names: Names) -> str:
    return f"({i.code:02x}) goto pc{i.off:+d}"


def _gotol(i: Instruction, _n: Instruction | None, _names: Names) -> str:
    return f"({i.code:02x}) gotol pc{i.imm:+d}"


def _may_goto(i: Instruction, _n: Instruction | None, _names: Names) -> str:
    if i.src:  # no flavour of JCOND but may_goto has a name
        return f"({i.code:02x}) if r{i.dst} (null) 0x{u32(i.imm):x} goto pc{i.off:+d}"
    return f"({i.code:02x}) may_goto pc{i.off:+d}"


def _exit(i: Instruction, _n: Instruction | None, _names: Names) -> str:
    return f"({i.code:02x}) exit"


def _jmp_reg(letter: str, sign: str) -> _Formatter:
    return lambda i, _n, _names: f"({i.code:02x}) if {letter}{i.dst} {sign} {letter}{i.src} goto pc{i.off:+d}"


def _jmp_imm(letter: str, sign: str) -> _Formatter:
    return lambda i, _n, _names: f"({i.code:02x}) if {letter}{i.dst} {sign} 0x{u32(i.imm):x} goto pc{i.off:+d}"


# --- which sentence an opcode takes -----------------------------------------------------------------------------------


def _alu_formatter(code: int) -> _Formatter:
    operation, letter = op.bpf_op(code), "r" if op.bpf_class(code) == op.BPF_ALU64 else "w"
    sign = ALU_SIGNS[operation]
    if operation == op.BPF_END:
        return _alu_end(letter, sign)
    if operation == op.BPF_NEG:
        return _alu_neg(letter, sign)
    if op.bpf_src(code) == op.BPF_K:
        return _alu_imm(letter, sign)
    return _mov_reg(letter, sign) if operation == op.BPF_MOV else _alu_reg(letter, sign)


def _jmp_formatter(code: int) -> _Formatter:
    operation, is_jmp = op.bpf_op(code), op.bpf_class(code) == op.BPF_JMP
    letter = "r" if is_jmp else "w"
    if operation == op.BPF_CALL:
        return _call
    exact = {
        op.BPF_JMP | op.BPF_JA: _goto,
        op.BPF_JMP | op.BPF_JCOND: _may_goto,
        op.BPF_JMP32 | op.BPF_JA: _gotol,
        op.BPF_JMP | op.BPF_EXIT: _exit,
    }
    if code in exact:
        return exact[code]
    return (_jmp_reg if op.bpf_src(code) == op.BPF_X else _jmp_imm)(letter, JMP_SIGNS[operation])


def _memory_formatter(code: int) -> _Formatter:
    cls, mode = op.bpf_class(code), op.bpf_mode(code)
    size, signed = SIZE_NAMES[op.bpf_size(code)], SIGNED_SIZE_NAMES[op.bpf_size(code)]
    if op.is_ld_imm64(code):
        return _ld_imm64
    if code == op.BPF_ST | op.BPF_ATOMIC:
        return _nospec
    rows: dict[tuple[int, int], _Formatter] = {
        (op.BPF_LD, op.BPF_ABS): _ld_abs(size),
        (op.BPF_LD, op.BPF_IND): _ld_ind(size),
        (op.BPF_LDX, op.BPF_MEM): _ldx(size),
        (op.BPF_LDX, op.BPF_MEMSX): _ldx(signed),
        (op.BPF_ST, op.BPF_MEM): _st(size),
        (op.BPF_STX, op.BPF_MEM): _stx(size),
        (op.BPF_STX, op.BPF_ATOMIC): _atomic(size),
    }
    bug_kinds = {op.BPF_LD: "ld_", op.BPF_LDX: "ldx_", op.BPF_ST: "st_", op.BPF_STX: ""}
    return rows.get((cls, mode)) or _bug(bug_kinds[cls])


def _formatter(code: int) -> _Formatter:
    cls = op.bpf_class(code)
    if cls in (op.BPF_ALU, op.BPF_ALU64):
        return _alu_formatter(code)
    return _jmp_formatter(code) if cls in (op.BPF_JMP, op.BPF_JMP32) else _memory_formatter(code)


_FORMATTERS: Final[tuple[_Formatter, ...]] = tuple(_formatter(code) for code in range(256))
