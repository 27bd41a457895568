"""Classic BPF as text -> instructions: the language of the kernel's bpf_asm, and the listings of ``tcpdump -d``.

    start:  ldh [12]            ; addressing modes: [k], [x + k], M[k], #k, x, a, 4*([k]&0xf), an extension's word
            jne #0x800, drop    ; one target: the other way is the next instruction
            ld  poff            ; extensions: len proto type poff ifidx nla nlan mark queue hatype rxhash cpu vlan_tci ...
            jeq #6, keep, drop
    keep:   ret #-1
    drop:   ret #0

A mnemonic is a row of a table: its code by addressing mode. In a listing, ``(003)`` numbers the lines and jumps name them.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from netbpf.abi.classic import ANCILLARY_NAMES
from netbpf.abi.net import SKF_AD_OFF
from netbpf.ints import S32_MIN, U32_MAX, u32
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
)
from netbpf.sources.lexer import IDENT, WITHOUT_HASH_COMMENTS, Cursor, Line, Token, did_you_mean, expression, split_lines

# addressing modes
_NONE: Final = ""
_NUMBER: Final = "#k"
_X: Final = "x"
_ACC: Final = "a"
_ABSOLUTE: Final = "[k]"
_INDIRECT: Final = "[x + k]"
_SCRATCH: Final = "M[k]"
_HEADER: Final = "4*([k]&0xf)"
_LENGTH: Final = "len"

_LISTED = re.compile(r"\s*\((\d{3,})\)(?=\s)")

_EXTENSIONS: Final = {word: u32(SKF_AD_OFF) + number for number, words in ANCILLARY_NAMES.items() for word in words if word}


_OPERATIONS: Final = {
    "add": BPF_ADD,
    "sub": BPF_SUB,
    "mul": BPF_MUL,
    "div": BPF_DIV,
    "mod": BPF_MOD,
    "and": BPF_AND,
    "or": BPF_OR,
    "xor": BPF_XOR,
    "lsh": BPF_LSH,
    "rsh": BPF_RSH,
}


def _load_rows() -> dict[str, dict[str, int]]:
    packet = {word: {_ABSOLUTE: BPF_LD | size | BPF_ABS, _INDIRECT: BPF_LD | size | BPF_IND}
              for word, size in (("ld", BPF_W), ("ldh", BPF_H), ("ldb", BPF_B))}  # fmt: skip
    packet["ld"] |= {_SCRATCH: BPF_LD | BPF_MEM, _NUMBER: BPF_LD | BPF_IMM, _LENGTH: BPF_LD | BPF_LEN}
    header = {_HEADER: BPF_LDX | BPF_B | BPF_MSH}
    return packet | {
        "ldi": {_NUMBER: BPF_LD | BPF_IMM},
        "ldx": {_SCRATCH: BPF_LDX | BPF_MEM, _NUMBER: BPF_LDX | BPF_IMM, _LENGTH: BPF_LDX | BPF_LEN, **header},
        "ldxi": {_NUMBER: BPF_LDX | BPF_IMM},
        "ldxb": header,
        "st": {_SCRATCH: BPF_ST},
        "stx": {_SCRATCH: BPF_STX},
    }


def _rows() -> dict[str, dict[str, int]]:
    rows = _load_rows() | {
        "neg": {_NONE: BPF_ALU | BPF_NEG},
        "tax": {_NONE: BPF_MISC | BPF_TAX},
        "txa": {_NONE: BPF_MISC | BPF_TXA},
        "ret": {_NUMBER: BPF_RET | BPF_K, _ACC: BPF_RET | BPF_A, _NONE: BPF_RET | BPF_A},
    }
    for word, operation in _OPERATIONS.items():
        rows[word] = {_NUMBER: BPF_ALU | operation | BPF_K, _X: BPF_ALU | operation | BPF_X}
    return rows


ROWS: Final = _rows()
# word -> (operation, whether the targets change places: bpf_asm's jne is a jeq whose taken way is the false one)
JUMPS: Final[dict[str, tuple[int, bool]]] = {
    "jeq": (BPF_JEQ, False),
    "jgt": (BPF_JGT, False),
    "jge": (BPF_JGE, False),
    "jset": (BPF_JSET, False),
    "jne": (BPF_JEQ, True),
    "jneq": (BPF_JEQ, True),
    "jlt": (BPF_JGE, True),
    "jle": (BPF_JGT, True),
}
_MNEMONICS: Final = (*ROWS, *JUMPS, "ja", "jmp")


class _Target(NamedTuple):
    """Where a jump goes: a label, or a listing's line number; ``field`` is "jt", "jf" or "k"."""

    pc: int
    field: str
    token: Token
    cursor: Cursor


_COMMENTS = re.compile(r"/\*.*?\*/|;[^\n]*|//[^\n]*", re.DOTALL)
_FIRST_WORD = re.compile(r"\s*(?:\(\d{3,}\)\s+)?(?:[A-Za-z_.$][\w.$]*:\s*)*([a-z]+)\b(?!\s*[=:])")


def looks_classic(text: str) -> bool:
    """Whether the first instruction of ``text`` has a classic mnemonic; eBPF's sentences begin with none of them."""
    found = _FIRST_WORD.match(_COMMENTS.sub("", text[:65536]))
    return found is not None and found[1] in _MNEMONICS


def parse(text: str, path: str = "<filter>") -> ClassicProgram:
    """The instructions of ``text``. Raises SourceError with line, column and caret."""
    return _Assembler(path).run(text)


class _Assembler:
    def __init__(self, path: str) -> None:
        self.path = path
        self.insns: list[SockFilter] = []
        self.labels: dict[str, int] = {}
        self.targets: list[_Target] = []

    def run(self, text: str) -> ClassicProgram:
        for line in split_lines(text):
            self._line(line)
        for target in self.targets:
            self._settle(target)
        return tuple(self.insns)

    def _line(self, line: Line) -> None:
        listed = _LISTED.match(line.blanked)
        c = Cursor(line, self.path, listed.end() if listed else 0, WITHOUT_HASH_COMMENTS)
        if listed and int(listed[1]) != len(self.insns):
            token = Token(IDENT, f"({listed[1]})", listed.start(1))
            c.fail(token, f"this is insn {len(self.insns)}, the line says {int(listed[1])}")
        while c.token.kind == IDENT and c.peek().text == ":":
            label = c.next()
            c.next()
            if label.text in self.labels:
                c.fail(label, f"label '{label.text}' is at insn {self.labels[label.text]} already")
            self.labels[label.text] = len(self.insns)
        if not c.ended():
            self.insns.append(self._insn(c, listed is not None))
            c.end()

    def _insn(self, c: Cursor, listed: bool) -> SockFilter:
        word = c.ident("a mnemonic")
        if word.text in ("ja", "jmp"):
            return self._goto(c)
        if word.text in JUMPS:
            return self._jump(c, word, listed)
        if word.text not in ROWS:
            c.fail(word, f"'{word.text}' is no mnemonic{did_you_mean(word.text, _MNEMONICS)}")
        start = c.token
        mode, k = self._operand(c)
        code = ROWS[word.text].get(mode)
        if code is None:
            modes = ", ".join(m or "nothing" for m in ROWS[word.text])
            c.fail(start, f"'{word.text}' takes {modes}")
        return SockFilter(code, 0, 0, k)

    # --- operands -----------------------------------------------------------------------------------------------------

    def _operand(self, c: Cursor) -> tuple[str, int]:
        """(addressing mode, k)."""
        if c.ended():
            return _NONE, 0
        if c.accept("%") or c.is_at("x", "a"):
            register = c.next()
            if register.text not in ("x", "a"):
                c.fail(register, "expected 'x' or 'a'")
            return (_X if register.text == "x" else _ACC), 0
        if c.is_at("["):
            return self._packet(c)
        if c.is_at("M"):
            c.next()
            c.expect("[", "'M'")
            k = self._k(c)
            c.expect("]")
            return _SCRATCH, k
        if c.token.text == "4" and c.peek().text == "*":
            return self._header(c)
        hashed = c.accept("#")
        if c.token.kind == IDENT:
            return self._extension(c)
        if hashed is None:
            c.fail(c.token, "expected an operand: [k], [x + k], M[k], #k, x, a, 4*([k]&0xf) or an extension")
        return _NUMBER, self._k(c)

    def _k(self, c: Cursor) -> int:
        token = c.token
        value = expression(c, {})
        if not S32_MIN <= value <= U32_MAX:
            c.fail(token, f"{value} does not fit 32 bits")
        return u32(value)

    def _packet(self, c: Cursor) -> tuple[str, int]:
        """``[12]``, ``[x + 14]``, ``[%x + 14]``, ``[x]``; in listings also ``[vlan_tci]``."""
        c.expect("[")
        c.accept("%")
        if c.accept("x"):
            mode = _INDIRECT
            k = 0
            if not c.is_at("]"):
                sign = c.accept("-")
                if sign is None:
                    c.expect("+", "'x'")
                k = self._k(c)
                k = u32(-k) if sign else k
        elif c.token.kind == IDENT:
            mode, k = self._extension(c)
        else:
            mode, k = _ABSOLUTE, self._k(c)
        c.expect("]")
        return mode, k

    def _header(self, c: Cursor) -> tuple[str, int]:
        for word in ("*", "(", "["):
            c.next()
            if not c.is_at(word):
                c.fail(c.token, "expected 4*([k]&0xf)")
        c.next()
        k = self._k(c)
        for word in ("]", "&"):
            c.expect(word)
        mask = c.token
        if expression(c, {}) != 0xF:
            c.fail(mask, "the mask is 0xf")
        c.expect(")")
        return _HEADER, k

    def _extension(self, c: Cursor) -> tuple[str, int]:
        word = c.next()
        if word.text in ("len", "pktlen"):
            return _LENGTH, 0
        if word.text not in _EXTENSIONS:
            c.fail(word, f"'{word.text}' is no extension{did_you_mean(word.text, ('len', *_EXTENSIONS))}")
        return _ABSOLUTE, _EXTENSIONS[word.text]

    # --- jumps --------------------------------------------------------------------------------------------------------

    def _target(self, c: Cursor, field: str) -> None:
        """A label or an instruction's number, from which the distance is made when all are known."""
        if c.ended():
            c.fail(c.token, "expected a label, the line ends here")
        self.targets.append(_Target(len(self.insns), field, c.next(), c))

    def _goto(self, c: Cursor) -> SockFilter:
        self._target(c, "k")
        return SockFilter(BPF_JMP | BPF_JA)

    def _jump(self, c: Cursor, word: Token, listed: bool) -> SockFilter:
        operation, swapped = JUMPS[word.text]
        start = c.token
        mode, k = self._operand(c)
        if mode not in (_NUMBER, _X):
            c.fail(start, f"'{word.text}' compares with #k or x")
        taken, other = ("jf", "jt") if swapped else ("jt", "jf")
        if listed or c.is_at("jt"):
            c.expect("jt")
            self._target(c, "jt")
            c.expect("jf")
            self._target(c, "jf")
        else:
            c.expect(",", "the operand")
            self._target(c, taken)
            if c.accept(","):
                self._target(c, other)
        return SockFilter(BPF_JMP | operation | (BPF_X if mode == _X else BPF_K), 0, 0, k)

    def _settle(self, target: _Target) -> None:
        pc, field, token, cursor = target
        if token.text.isdecimal():
            at = int(token.text[:9])
        elif token.text in self.labels:
            at = self.labels[token.text]
        else:
            cursor.fail(token, f"no label '{token.text}'{did_you_mean(token.text, self.labels)}")
        distance = at - pc - 1
        if field == "k":
            self.insns[pc] = self.insns[pc]._replace(k=u32(distance))
        elif 0 <= distance <= 0xFF:
            self.insns[pc] = self.insns[pc]._replace(**{field: distance})
        else:
            why = "classic jumps go forward only" if distance < 0 else "a conditional jump reaches 255 instructions"
            cursor.fail(token, f"'{token.text}' is {distance:+d} instructions away: {why}")
