"""uBPF's assembly (``mov32 %r0, 1``), the language of the bpf_conformance suite -> instructions.

A mnemonic is an operation, its width behind it: none or ``64`` is 64 bits, ``32`` is 32. Every mnemonic is a row of a
table: its opcode and the operands it takes. ``exit`` also names the first exit of a text as a jump target.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from netbpf.ints import S16_MAX, S16_MIN, S32_MIN, U32_MAX, s32
from netbpf.isa import opcodes as op
from netbpf.isa.instruction import Instruction, Program, split_imm64
from netbpf.sources.lexer import IDENT, Cursor, Line, Token, did_you_mean, expression


class _Row(NamedTuple):
    """``operands`` is a form of :data:`_FORMS`; ``off`` and ``imm`` are what the mnemonic itself says."""

    code: int
    operands: str
    off: int = 0
    imm: int = 0


_ALU: Final = {
    "add": op.BPF_ADD,
    "sub": op.BPF_SUB,
    "mul": op.BPF_MUL,
    "div": op.BPF_DIV,
    "or": op.BPF_OR,
    "and": op.BPF_AND,
    "lsh": op.BPF_LSH,
    "rsh": op.BPF_RSH,
    "mod": op.BPF_MOD,
    "xor": op.BPF_XOR,
    "mov": op.BPF_MOV,
    "arsh": op.BPF_ARSH,
}
_JUMPS: Final = {
    "jeq": op.BPF_JEQ,
    "jgt": op.BPF_JGT,
    "jge": op.BPF_JGE,
    "jset": op.BPF_JSET,
    "jne": op.BPF_JNE,
    "jsgt": op.BPF_JSGT,
    "jsge": op.BPF_JSGE,
    "jlt": op.BPF_JLT,
    "jle": op.BPF_JLE,
    "jslt": op.BPF_JSLT,
    "jsle": op.BPF_JSLE,
}
_SIZES: Final = {"b": op.BPF_B, "h": op.BPF_H, "w": op.BPF_W, "dw": op.BPF_DW}
_ATOMICS: Final = {"add": op.BPF_ADD, "or": op.BPF_OR, "and": op.BPF_AND, "xor": op.BPF_XOR}
_EXCHANGES: Final = {"xchg": op.BPF_XCHG, "cmpxchg": op.BPF_CMPXCHG}
_ALU_WIDTHS: Final = (("", op.BPF_ALU64), ("64", op.BPF_ALU64), ("32", op.BPF_ALU))


def _rows() -> dict[str, _Row]:
    rows: dict[str, _Row] = {
        "exit": _Row(op.BPF_JMP | op.BPF_EXIT, "nothing"),
        "ja": _Row(op.BPF_JMP | op.BPF_JA, "target16"),
        "ja32": _Row(op.BPF_JMP32 | op.BPF_JA, "target32"),
        "call": _Row(op.BPF_JMP | op.BPF_CALL, "call"),
        "lddw": _Row(op.BPF_LD | op.BPF_IMM | op.BPF_DW, "reg imm64"),
    }
    for width, cls in _ALU_WIDTHS:
        rows |= {f"{name}{width}": _Row(cls | code, "reg value") for name, code in _ALU.items()}
        rows |= {f"s{name}{width}": _Row(cls | _ALU[name], "reg value", off=1) for name in ("div", "mod")}
        rows[f"neg{width}"] = _Row(cls | op.BPF_NEG, "reg")
    for bits in (8, 16, 32):
        rows[f"movsx{bits}64"] = _Row(op.BPF_ALU64 | op.BPF_MOV | op.BPF_X, "reg reg", off=bits)
    for bits in (8, 16):
        rows[f"movsx{bits}32"] = _Row(op.BPF_ALU | op.BPF_MOV | op.BPF_X, "reg reg", off=bits)
    for name, code in (("le", 0xD4), ("be", 0xDC), ("swap", 0xD7), ("bswap", 0xD7)):
        rows |= {f"{name}{bits}": _Row(code, "reg", imm=bits) for bits in (16, 32, 64)}
    for name, code in _JUMPS.items():
        rows[name] = _Row(op.BPF_JMP | code, "reg value target16")
        rows[f"{name}32"] = _Row(op.BPF_JMP32 | code, "reg value target16")
    for name, size in _SIZES.items():
        rows[f"ldx{name}"] = _Row(op.BPF_LDX | op.BPF_MEM | size, "reg [src]")
        rows[f"stx{name}"] = _Row(op.BPF_STX | op.BPF_MEM | size, "[dst] reg")
        rows[f"st{name}"] = _Row(op.BPF_ST | op.BPF_MEM | size, "[dst] imm")
        if name != "dw":
            rows[f"ldxs{name}"] = _Row(op.BPF_LDX | op.BPF_MEMSX | size, "reg [src]")
    return rows


def _lock_rows() -> dict[str, _Row]:
    """What may follow ``lock`` (and ``lock fetch``, which adds BPF_FETCH)."""
    rows = {}
    for name, imm in (_ATOMICS | _EXCHANGES).items():
        rows[name] = _Row(op.BPF_STX | op.BPF_ATOMIC | op.BPF_DW, "[dst] reg", imm=imm)
        rows[f"{name}32"] = _Row(op.BPF_STX | op.BPF_ATOMIC | op.BPF_W, "[dst] reg", imm=imm)
    return rows


ROWS: Final = _rows()
LOCK_ROWS: Final = _lock_rows()


def parse(text: str, path: str = "<text>") -> Program:
    """The instructions of ``text``. Raises SourceError with line, column and caret."""
    return _Assembler(path).run(text)


class _Assembler:
    def __init__(self, path: str) -> None:
        self.path = path
        self.insns: list[Instruction] = []
        self.labels: dict[str, int] = {}
        self.jumps: list[tuple[int, str, Token, Cursor]] = []

    def run(self, text: str) -> Program:
        for number, raw in enumerate(text.split("\n"), 1):
            self._line(Line(number, raw.rstrip("\r"), raw.split("#", 1)[0].rstrip()))
        for pc, where, token, cursor in self.jumps:
            self._settle(pc, where, token, cursor)
        return tuple(self.insns)

    def _line(self, line: Line) -> None:
        c = Cursor(line, self.path)
        while c.token.kind == IDENT and c.peek().text == ":":
            label = c.next()
            c.next()
            if self.labels.setdefault(label.text, len(self.insns)) != len(self.insns):
                c.fail(label, f"label '{label.text}' is at insn {self.labels[label.text]} already")
        if c.ended():
            return
        word = c.ident("a mnemonic")
        if word.text == "exit":
            self.labels.setdefault("exit", len(self.insns))
        row = self._locked(c) if word.text == "lock" else self._row(c, word, ROWS)
        self.insns += self._read(c, row)
        c.end()

    def _row(self, c: Cursor, word: Token, rows: dict[str, _Row]) -> _Row:
        if word.text not in rows:
            c.fail(word, f"'{word.text}' is no mnemonic{did_you_mean(word.text, rows)}")
        return rows[word.text]

    def _locked(self, c: Cursor) -> _Row:
        fetch = op.BPF_FETCH if c.accept("fetch") else 0
        row = self._row(c, c.ident("an atomic operation"), LOCK_ROWS)
        return row._replace(imm=row.imm | fetch)

    def _read(self, c: Cursor, row: _Row) -> list[Instruction]:
        """The slots of a row, its operands read from the line."""
        if row.operands == "call":
            return [self._call(c)]
        code, dst, src, off, imm = row.code, 0, 0, row.off, row.imm
        high: int | None = None
        for i, form in enumerate(row.operands.split()):
            if i:
                c.expect(",")
            match form:
                case "reg" if i:
                    src = self._register(c)
                case "reg":
                    dst = self._register(c)
                case "[dst]":
                    dst, off = self._memory(c)
                case "[src]":
                    src, off = self._memory(c)
                case "value" if c.is_at("%"):
                    code, src = code | op.BPF_X, self._register(c)
                case "value" | "imm":
                    imm = self._imm(c)
                case "imm64":
                    imm, high = split_imm64(expression(c, {}))
                case "target16":
                    off = self._target(c, "off", S16_MIN, S16_MAX)
                case "target32":
                    imm = self._target(c, "imm", S32_MIN, -S32_MIN - 1)
        first = Instruction(code, dst, src, off, imm)
        return [first] if high is None else [first, Instruction(0, 0, 0, 0, high)]

    def _register(self, c: Cursor) -> int:
        sign = c.token
        c.expect("%")
        name = c.ident("a register")
        digits = name.text[1:]
        if name.text[0] != "r" or not digits.isdecimal() or int(digits) > 15:
            c.fail(sign._replace(text=f"%{name.text}"), f"'%{name.text}' is no register")
        return int(digits)

    def _memory(self, c: Cursor) -> tuple[int, int]:
        """``[%r1+4]``: (register, offset)."""
        c.expect("[")
        register = self._register(c)
        at, off = c.token, 0
        if c.is_at("+", "-"):
            off = expression(c, {}, "an offset")
        if not S16_MIN <= off <= S16_MAX:
            c.fail(at, f"offset {off} does not fit 16 bits")
        c.expect("]")
        return register, off

    def _imm(self, c: Cursor) -> int:
        token = c.token
        value = expression(c, {}, "an immediate")
        if not S32_MIN <= value <= U32_MAX:
            c.fail(token, f"{value} does not fit 32 bits")
        return s32(value)

    def _target(self, c: Cursor, where: str, low: int, high: int) -> int:
        """``+3``, ``-2`` or a label, which is 0 until it is settled."""
        token = c.token
        if not c.is_at("+", "-"):
            self.jumps.append((len(self.insns), where, c.ident("a label, +N or -N"), c))
            return 0
        distance = expression(c, {}, "a distance")
        if not low <= distance <= high:
            c.fail(token, f"jump {distance:+d} is too far")
        return distance

    def _call(self, c: Cursor) -> Instruction:
        """``call 5``, ``call helper 5``, ``call %r2``, ``call local label``, ``call runtime 7``."""
        code = op.BPF_JMP | op.BPF_CALL
        if c.accept("local"):
            return Instruction(code, 0, op.BPF_PSEUDO_CALL, 0, self._target(c, "imm", S32_MIN, -S32_MIN - 1))
        if c.accept("runtime"):
            return Instruction(code, 0, op.BPF_PSEUDO_KFUNC_CALL, 0, self._imm(c))
        c.accept("helper")
        if c.is_at("%"):
            return Instruction(code | op.BPF_X, self._register(c))
        return Instruction(code, 0, 0, 0, self._imm(c))

    def _settle(self, pc: int, where: str, token: Token, cursor: Cursor) -> None:
        if token.text not in self.labels:
            cursor.fail(token, f"no label '{token.text}'{did_you_mean(token.text, self.labels)}")
        distance = self.labels[token.text] - pc - 1
        if where == "imm":
            self.insns[pc] = self.insns[pc]._replace(imm=distance)
        elif S16_MIN <= distance <= S16_MAX:
            self.insns[pc] = self.insns[pc]._replace(off=distance)
        else:
            cursor.fail(token, f"'{token.text}' is {distance:+d} slots away, which 16 bits do not hold")
