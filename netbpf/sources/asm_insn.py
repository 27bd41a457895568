"""One instruction's text -> its slots: the sentences of the kernel's log, of bpftool and of LLVM's BPF assembler.

Knows the grammar of a single line. Labels and maps by name are asked of a :class:`Scope`; what a label stands for is
settled by whoever holds the whole text (``asm``), through the fix-ups recorded here.

The sentence decides the opcode. Where two opcodes share a sentence (``r1 = 5`` is MOV or LD_IMM64) the opcode byte in
front, if given, or ``ll`` behind decides; without either the value does: what fits 32 signed bits is a MOV.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from netbpf.ints import S16_MAX, S16_MIN, S32_MAX, S32_MIN, U32_MAX, s32
from netbpf.isa import opcodes as op
from netbpf.isa.disasm import (
    ADDR_PERCPU,
    ADDR_SPACE_CAST,
    ALU_SIGNS,
    ATOMIC_FETCH_NAMES,
    ATOMIC_SIGNS,
    JMP_SIGNS,
    MOVSX_CASTS,
    SIGNED_ALU_SIGNS,
    SIGNED_SIZE_NAMES,
    SIZE_NAMES,
)
from netbpf.isa.instruction import Instruction, split_imm64
from netbpf.sources.lexer import IDENT, NUMBER, Cursor, Token, did_you_mean, expression, sum_terms

LD_IMM64: Final = op.BPF_LD | op.BPF_IMM | op.BPF_DW
CALL: Final = op.BPF_JMP | op.BPF_CALL
CALLX: Final = CALL | op.BPF_X
GOTOL: Final = op.BPF_JMP32 | op.BPF_JA

_TWO_OPERAND_ALU: Final = {
    sign: operation
    for operation, sign in ALU_SIGNS.items()
    if operation not in (op.BPF_NEG, op.BPF_END, op.BPF_MOV) and sign != "(null)"
}
_SIGNED_ALU: Final = {sign: operation for operation, sign in SIGNED_ALU_SIGNS.items()}
_CONDITIONS: Final = {
    sign: operation
    for operation, sign in JMP_SIGNS.items()
    if operation not in (op.BPF_JA, op.BPF_CALL, op.BPF_EXIT) and sign != "(null)"
}
_SIZES: Final = {name: size for size, name in SIZE_NAMES.items()}
_SIGNED_SIZES: Final = {name: size for size, name in SIGNED_SIZE_NAMES.items()}
_CASTS: Final = {name.strip("()"): bits for bits, name in MOVSX_CASTS.items()}
_ATOMIC_ASSIGN: Final = {sign: operation for operation, sign in ATOMIC_SIGNS.items()}
_BYTE_ORDERS: Final = {
    f"{kind}{bits}": (code, bits)
    for kind, code in (("le", 0xD4), ("be", 0xDC), ("bswap", 0xD7))
    for bits in (16, 32, 64)
}
REGISTERS: Final = {f"{letter}{n}": (letter, n) for letter in "rw" for n in range(16)} | {"fp": ("r", 10)}


_REAL_REGISTERS: Final = [f"{letter}{n}" for letter in "rw" for n in range(11)]


class Fixup(NamedTuple):
    """A slot that waits for a label: ``field`` is "off" or "imm" of slot ``pc``, counted from ``pc + 1``."""

    pc: int
    field: str
    label: Token


class Scope:
    """What a line may refer to: constants, maps (name -> index) and helpers (name without bpf_ -> number), the labels
    that the text has anywhere; and the fix-ups it leaves behind."""

    __slots__ = ("constants", "map_index", "labels", "helpers", "fixups")

    def __init__(self, constants: dict[str, int], helpers: dict[str, int]) -> None:
        self.constants, self.helpers = constants, helpers
        self.map_index: dict[str, int] = {}
        self.labels: frozenset[str] = frozenset()
        self.fixups: list[tuple[Fixup, Cursor]] = []


class Operand(NamedTuple):
    """A register as written: ``letter`` is r or w."""

    letter: str
    number: int
    token: Token


Slots = tuple[Instruction, ...]


class InsnReader:
    """Reads one instruction at ``pc``. ``code`` is the opcode byte the text gave in front, or None."""

    __slots__ = ("cursor", "scope", "pc", "code")

    def __init__(self, cursor: Cursor, scope: Scope, pc: int, code: int | None = None) -> None:
        self.cursor, self.scope, self.pc, self.code = cursor, scope, pc, code

    def read(self) -> Slots:
        """The slots of the instruction; raises SourceError at the word that fits no sentence."""
        c = self.cursor
        token = c.token
        if c.is_at("*"):
            slots = self._store()
        elif token.kind == IDENT and token.text in REGISTERS:
            slots = self._assignment()
        else:
            handler = _KEYWORDS.get(token.text) if token.kind == IDENT else None
            if handler is None:
                c.fail(token, f"'{token.text}' begins no instruction{did_you_mean(token.text, _first_words())}")
            c.next()
            slots = handler(self)
        c.end()
        return slots

    # --- operands -------------------------------------------------------------------------------------------------------

    def register(self) -> Operand:
        token = self.cursor.token
        if token.kind != IDENT or token.text not in REGISTERS:
            got = f", got '{token.text}'" if token.text else ", the line ends here"
            self.cursor.fail(token, f"expected a register{got}{did_you_mean(token.text, _REAL_REGISTERS)}")
        self.cursor.next()
        return Operand(*REGISTERS[token.text], token)

    def wide(self, why: str) -> int:
        """A 64-bit register's number; ``why`` completes 'must be 64 bits wide: ...'."""
        reg = self.register()
        if reg.letter == "w":
            self.cursor.fail(reg.token, f"'{reg.token.text}' must be 64 bits wide ('r{reg.number}'): {why}")
        return reg.number

    def same(self, first: Operand, why: str) -> None:
        """The next register must be ``first`` again."""
        again = self.register()
        if again[:2] != first[:2]:
            self.cursor.fail(again.token, f"must be '{first.token.text}' again: {why}")

    def at_register(self, ahead: int = 0) -> bool:
        token = self.cursor.peek(ahead)
        return token.kind == IDENT and token.text in REGISTERS

    def value(self, what: str = "a number") -> int:
        return expression(self.cursor, self.scope.constants, what)

    def imm32(self, *, unsigned: bool = True) -> int:
        """An imm as s32; with ``unsigned`` a u32 is taken for its bits."""
        token = self.cursor.token
        value = self.value()
        if not S32_MIN <= value <= (U32_MAX if unsigned else S32_MAX):
            self.cursor.fail(token, f"{value} does not fit {'32' if unsigned else 'a signed 32-bit'} imm")
        return s32(value)

    def offset(self, token: Token, value: int, what: str = "offset") -> int:
        if not S16_MIN <= value <= S16_MAX:
            hint = "; 'gotol' reaches further" if what == "jump" else ""
            self.cursor.fail(token, f"{what} {value:+d} does not fit 16 bits{hint}")
        return value

    def based(self) -> tuple[int, int]:
        """``r10 - 4``: (register, offset)."""
        base = self.wide("it is an address")
        token = self.cursor.token
        return base, self.offset(token, sum_terms(self.cursor, self.scope.constants, "an offset"))

    def size(self, *, signed: bool = False) -> tuple[int, bool]:
        """``(u32 *)``: (size, whether it is sign-extending)."""
        c = self.cursor
        c.expect("(", "'*'" if signed else "")
        token = c.ident("a size (u8, u16, u32, u64)")
        allowed = {**_SIZES, **(_SIGNED_SIZES if signed else {})}
        if token.text not in allowed:
            c.fail(token, f"'{token.text}' is no size{did_you_mean(token.text, allowed)}: {', '.join(allowed)}")
        c.expect("*", token.text)
        c.expect(")")
        return allowed[token.text], token.text in _SIGNED_SIZES

    def place(self) -> tuple[int, int, int]:
        """``(u32 *)(r1 + 4)``: (size, register, offset)."""
        size, _ = self.size()
        return size, *self.address()

    def address(self) -> tuple[int, int]:
        self.cursor.expect("(")
        base, off = self.based()
        self.cursor.expect(")")
        return base, off

    # --- stores -----------------------------------------------------------------------------------------------------------

    def _store(self) -> Slots:
        c = self.cursor
        c.expect("*")
        size, dst, off = self.place()
        c.expect("=", "an address to store at")
        if not self.at_register():
            return (Instruction(op.BPF_ST | op.BPF_MEM | size, dst, 0, off, self.imm32(unsigned=size != op.BPF_DW)),)
        return (Instruction(op.BPF_STX | op.BPF_MEM | size, dst, self._stored(size), off, 0),)

    def _stored(self, size: int) -> int:
        """The register stored; a 32-bit one where at most 32 bits are."""
        reg = self.register()
        if reg.letter == "w" and size == op.BPF_DW:
            self.cursor.fail(reg.token, f"'{reg.token.text}' holds 32 bits, 64 are stored: write 'r{reg.number}'")
        return reg.number

    def _lock(self) -> Slots:
        c = self.cursor
        c.expect("*", "'lock'")
        size, dst, off = self.place()
        sign = c.next()
        if sign.text not in _ATOMIC_ASSIGN:
            c.fail(sign, f"expected one of {' '.join(_ATOMIC_ASSIGN)}, got '{sign.text}'")
        return (self._atomic(size, dst, self._stored(size), off, _ATOMIC_ASSIGN[sign.text]),)

    def _atomic(self, size: int, dst: int, src: int, off: int, operation: int) -> Instruction:
        return Instruction(op.BPF_STX | op.BPF_ATOMIC | size, dst, src, off, operation)

    def _store_release(self) -> Slots:
        c = self.cursor
        c.expect("(", "'store_release'")
        size, dst, off = self.place()
        c.expect(",")
        src = self._stored(size)
        c.expect(")")
        return (self._atomic(size, dst, src, off, op.BPF_STORE_REL),)

    # --- assignments ------------------------------------------------------------------------------------------------------

    def _assignment(self) -> Slots:
        dst = self.register()
        sign = self.cursor.next()
        if sign.text == "=":
            return self._set(dst)
        signed = sign.text in _SIGNED_ALU
        operation = _SIGNED_ALU.get(sign.text, _TWO_OPERAND_ALU.get(sign.text))
        if operation is None:
            known = [*_TWO_OPERAND_ALU, *_SIGNED_ALU, "="]
            self.cursor.fail(sign, f"expected an operator after '{dst.token.text}': {' '.join(known)}")
        return (self._alu(dst, operation, int(signed)),)

    def _alu(self, dst: Operand, operation: int, off: int) -> Instruction:
        cls = op.BPF_ALU64 if dst.letter == "r" else op.BPF_ALU
        if not self.at_register():
            token = self.cursor.token
            imm = self.value()
            if dst.letter == "r" and not S32_MIN <= imm <= S32_MAX:
                self.cursor.fail(token, f"{imm} does not fit the signed 32-bit imm of a 64-bit operation: move it to a register")
            if not S32_MIN <= imm <= U32_MAX:
                self.cursor.fail(token, f"{imm} does not fit 32 bits")
            return Instruction(cls | operation | op.BPF_K, dst.number, 0, off, s32(imm))
        return Instruction(cls | operation | op.BPF_X, dst.number, self._like(dst), off, 0)

    def _like(self, dst: Operand) -> int:
        """A source register as wide as ``dst``."""
        src = self.register()
        if src.letter != dst.letter:
            self.cursor.fail(src.token, f"'{src.token.text}' is not as wide as '{dst.token.text}'")
        return src.number

    def _set(self, dst: Operand) -> Slots:
        c = self.cursor
        token = c.token
        if self.at_register():
            return (self._move(dst, 0),)
        if c.is_at("-") and self.at_register(1):
            c.next()
            self.same(dst, "negation is in place")
            return (Instruction((op.BPF_ALU64 if dst.letter == "r" else op.BPF_ALU) | op.BPF_NEG, dst.number),)
        if c.is_at("(") and c.peek().text in _CASTS and c.peek(2).text == ")":
            bits = _CASTS[c.peek().text]
            c.at += 3
            return (self._move(dst, bits),)
        if c.is_at("*"):
            return (self._load(dst),)
        if c.is_at("&"):
            return (self._percpu(dst),)
        if token.kind == IDENT:
            handler = _RIGHT_SIDES.get(token.text)
            if handler is not None and (token.text in _BYTE_ORDERS or c.peek().text in ("(", "[")):
                return handler(self, dst)
            if self._is_symbol(token):
                return self._symbol(dst)
        return self._constant(dst)

    def _move(self, dst: Operand, off: int) -> Instruction:
        """``r1 = r2``, ``w1 = (s8)w2``; LLVM also writes ``r1 = w2`` (w1 = w2, zero-extended) and ``r1 = (s32)w2``."""
        mixed = dst.letter == "r" and self.cursor.token.text.startswith("w")
        src = self.register().number if mixed else self._like(dst)
        cls = op.BPF_ALU if dst.letter == "w" or (mixed and not off) else op.BPF_ALU64
        return Instruction(cls | op.BPF_MOV | op.BPF_X, dst.number, src, off, 0)

    def _load(self, dst: Operand) -> Instruction:
        c = self.cursor
        c.expect("*")
        size, signed = self.size(signed=True)
        if not signed and c.accept("skb"):
            return self._packet_load(dst, size)
        src, off = self.address()
        mode = op.BPF_MEMSX if signed else op.BPF_MEM
        if dst.letter == "w" and (signed or size == op.BPF_DW):
            self.cursor.fail(dst.token, f"this load fills 64 bits: write 'r{dst.number}'")
        return Instruction(op.BPF_LDX | mode | size, dst.number, src, off, 0)

    def _packet_load(self, dst: Operand, size: int) -> Instruction:
        c = self.cursor
        if dst.number != 0:
            c.fail(dst.token, "a packet load always goes to r0")
        c.expect("[", "'skb'")
        if self.at_register():
            src = self.wide("it is an offset into the packet")
            token = c.token
            imm = sum_terms(c, self.scope.constants, "an offset")
            if not S32_MIN <= imm <= U32_MAX:
                c.fail(token, f"{imm} does not fit 32 bits")
            insn = Instruction(op.BPF_LD | op.BPF_IND | size, 0, src, 0, s32(imm))
        else:
            insn = Instruction(op.BPF_LD | op.BPF_ABS | size, 0, 0, 0, self.imm32())
        c.expect("]")
        return insn

    def _percpu(self, dst: Operand) -> Instruction:
        c = self.cursor
        for word in ("&", "(", "void", "__percpu", "*", ")", "("):
            c.expect(word)
        src = self.wide("it is an address")
        c.expect(")")
        return Instruction(op.BPF_ALU64 | op.BPF_MOV | op.BPF_X, self._full(dst), src, ADDR_PERCPU, 0)

    def _full(self, dst: Operand) -> int:
        if dst.letter == "w":
            self.cursor.fail(dst.token, f"this needs a 64-bit register: write 'r{dst.number}'")
        return dst.number

    def _byte_order(self, dst: Operand) -> Slots:
        code, bits = _BYTE_ORDERS[self.cursor.next().text]
        number = self._full(dst)
        self.same(dst, "bytes are swapped in place")
        return (Instruction(code, number, 0, 0, bits),)

    def _addr_space_cast(self, dst: Operand) -> Slots:
        c = self.cursor
        c.next()
        c.expect("(")
        src = self.wide("it is an address")
        spaces = []
        for _ in range(2):
            c.expect(",")
            token = c.token
            spaces.append(self.value("an address space"))
            if not 0 <= spaces[-1] <= 0xFFFF:
                c.fail(token, f"address space {spaces[-1]} does not fit 16 bits")
        c.expect(")")
        imm = s32(spaces[0] << 16 | spaces[1])
        return (Instruction(op.BPF_ALU64 | op.BPF_MOV | op.BPF_X, self._full(dst), src, ADDR_SPACE_CAST, imm),)

    # --- atomics that give a value back -------------------------------------------------------------------------------------

    def _fetching(self, dst: Operand) -> Slots:
        """``r1 = atomic64_fetch_add((u64 *)(r2 + 0), r1)``, ``atomic_xchg``, ``atomic_cmpxchg``."""
        c = self.cursor
        word = c.next()
        c.expect("(", word.text)
        size, base, off = self.place()
        if ("64" in word.text) != (size == op.BPF_DW) and word.text.startswith("atomic64"):
            c.fail(word, f"'{word.text}' works on a u64")
        return self._fetch_tail(dst, word, size, base, off)

    def _llvm_exchange(self, dst: Operand) -> Slots:
        """``r1 = xchg_64(r2 + 0, r1)``, ``w0 = cmpxchg32_32(r2 + 0, w0, w1)``."""
        c = self.cursor
        word = c.next()
        c.expect("(", word.text)
        base, off = self.based()
        return self._fetch_tail(dst, word, op.BPF_DW if word.text.endswith("_64") else op.BPF_W, base, off)

    def _fetch_tail(self, dst: Operand, word: Token, size: int, base: int, off: int) -> Slots:
        c = self.cursor
        c.expect(",")
        operation = _FETCHING[word.text]
        if operation == op.BPF_CMPXCHG:
            if dst.number != 0:
                c.fail(dst.token, "compare-and-exchange gives the old value back in r0")
            self.same(dst, "it is what memory is compared with")
            c.expect(",")
            src = self._stored(size)
        else:
            self.same(dst, "the old value goes where the operand was")
            src = dst.number
        c.expect(")")
        return (self._atomic(size, base, src, off, operation),)

    def _load_acquire(self, dst: Operand) -> Slots:
        c = self.cursor
        c.next()
        c.expect("(", "'load_acquire'")
        size, src, off = self.place()
        c.expect(")")
        return (self._atomic(size, dst.number, src, off, op.BPF_LOAD_ACQ),)

    # --- 64-bit immediates --------------------------------------------------------------------------------------------------

    def _constant(self, dst: Operand) -> Slots:
        c = self.cursor
        token = c.token
        value = self.value("a register, load, map or number")
        if c.accept("ll") or self.code == LD_IMM64 or (dst.letter == "r" and not S32_MIN <= value <= S32_MAX):
            return self._pair(self._full(dst), 0, *split_imm64(value))
        if dst.letter == "w" and not S32_MIN <= value <= U32_MAX:
            c.fail(token, f"{value} does not fit 32 bits")
        cls = op.BPF_ALU64 if dst.letter == "r" else op.BPF_ALU
        return (Instruction(cls | op.BPF_MOV | op.BPF_K, dst.number, 0, 0, s32(value)),)

    def _pair(self, dst: int, src: int, low: int, high: int) -> Slots:
        return Instruction(LD_IMM64, dst, src, 0, low), Instruction(0, 0, 0, 0, high)

    def _map(self, dst: Operand) -> Slots:
        """``map[counts]``, ``map[counts][0]+8``, ``map[fd:5]``, ``map[id:5][0]+16``, ``map[idx:1]+16``."""
        c = self.cursor
        c.next()
        c.expect("[")
        if c.peek().text == ":":
            by = c.next()
            if by.text not in _MAP_SOURCES:
                c.fail(by, f"a map is told by name or by {', '.join(_MAP_SOURCES)}")
            c.next()
            whole, value = _MAP_SOURCES[by.text]
            low = self.imm32()
        else:
            whole, value = _MAP_SOURCES["idx"]
            low = self._map_by_name()
        c.expect("]")
        if not (c.is_at("[") or c.is_at("+")):
            return self._pair(self._full(dst), whole, low, 0)
        if c.accept("["):
            if c.next().text != "0":
                c.fail(c.peek(-1), "only element 0 of an array has an address")
            c.expect("]")
        return self._pair(self._full(dst), value, low, self._value_offset())

    def _value_offset(self) -> int:
        token = self.cursor.token
        off = sum_terms(self.cursor, self.scope.constants, "an offset into the value")
        if not S32_MIN <= off <= U32_MAX:
            self.cursor.fail(token, f"offset {off} does not fit 32 bits")
        return s32(off)

    def _map_by_name(self) -> int:
        token = self.cursor.ident("a map's name")
        if token.text not in self.scope.map_index:
            self.cursor.fail(token, f"no .map is called '{token.text}'{did_you_mean(token.text, self.scope.map_index)}")
        return self.scope.map_index[token.text]

    def _is_symbol(self, token: Token) -> bool:
        """A word that LLVM's assembler would take for a symbol: a map, or any unknown word before ``ll``."""
        scope = self.scope
        return token.text in scope.map_index or (token.text not in scope.constants and self.cursor.peek().text == "ll")

    def _symbol(self, dst: Operand) -> Slots:
        """``r1 = counts ll``: the map; ``r1 = func ll``: the subprogram."""
        token = self.cursor.next()
        index = self.scope.map_index.get(token.text)
        self.cursor.accept("ll")
        if index is not None:
            return self._pair(self._full(dst), op.BPF_PSEUDO_MAP_IDX, index, 0)
        self._fixup("imm", token)
        return self._pair(self._full(dst), op.BPF_PSEUDO_FUNC, 0, 0)

    def _subprog(self, dst: Operand) -> Slots:
        """``subprog[+5]``, ``subprog[label]``."""
        c = self.cursor
        c.next()
        c.expect("[")
        imm = 0
        if c.token.kind == IDENT and c.token.text not in self.scope.constants:
            self._fixup("imm", c.next())
        else:
            imm = self.imm32()
        c.expect("]")
        return self._pair(self._full(dst), op.BPF_PSEUDO_FUNC, imm, 0)

    def _btf(self, dst: Operand) -> Slots:
        """``btf[id:5]``, ``btf[id:5]+7`` with the descriptor of the BTF object."""
        c = self.cursor
        c.next()
        for word in ("[", "id", ":"):
            c.expect(word)
        low = self.imm32()
        c.expect("]")
        return self._pair(self._full(dst), op.BPF_PSEUDO_BTF_ID, low, self._value_offset())

    # --- jumps and calls ----------------------------------------------------------------------------------------------------

    def _fixup(self, where: str, label: Token) -> None:
        self.scope.fixups.append((Fixup(self.pc, where, label), self.cursor))

    def target(self, where: str) -> int:
        """``pc+5``, ``+5``, ``+0x5 <main+0x30>``, ``pc+5#name`` or a label (0 until it is fixed up)."""
        c = self.cursor
        token = c.token
        if c.is_at("pc") and c.peek().text in ("+", "-"):
            c.next()
        if c.is_at("+", "-"):
            token = c.token
            value = sum_terms(c, self.scope.constants, "a jump distance")
            self._skip_annotation()
            return self.offset(token, value, "jump") if where == "off" else self._reach(token, value)
        self._fixup(where, c.ident("a label or pc+N"))
        self._skip_annotation()
        return 0

    def _reach(self, token: Token, value: int) -> int:
        if not S32_MIN <= value <= S32_MAX:
            self.cursor.fail(token, f"jump {value:+d} does not fit 32 bits")
        return value

    def _skip_annotation(self) -> None:
        """``<main+0x30>`` and ``#0xffff...`` repeat in other words where a jump goes."""
        c = self.cursor
        if c.accept("<"):
            while not c.accept(">"):
                if c.ended():
                    c.fail(c.token, "expected '>'")
                c.next()
        elif c.accept("#"):
            c.next()

    def _goto(self) -> Slots:
        return (Instruction(op.BPF_JMP | op.BPF_JA, 0, 0, self.target("off"), 0),)

    def _gotol(self) -> Slots:
        return (Instruction(GOTOL, 0, 0, 0, self.target("imm")),)

    def _may_goto(self) -> Slots:
        return (Instruction(op.BPF_JMP | op.BPF_JCOND, 0, 0, self.target("off"), 0),)

    def _if(self) -> Slots:
        c = self.cursor
        dst = self.register()
        cls = op.BPF_JMP if dst.letter == "r" else op.BPF_JMP32
        sign = c.next()
        if sign.text not in _CONDITIONS:
            c.fail(sign, f"expected a comparison after '{dst.token.text}': {' '.join(_CONDITIONS)}")
        operation = _CONDITIONS[sign.text]
        if self.at_register():
            src, imm, source = self._like(dst), 0, op.BPF_X
        else:
            src, imm, source = 0, self.imm32(), op.BPF_K
        c.expect("goto", "the comparison")
        return (Instruction(cls | operation | source, dst.number, src, self.target("off"), imm),)

    def _exit(self) -> Slots:
        return (Instruction(op.BPF_JMP | op.BPF_EXIT),)

    def _nospec(self) -> Slots:
        return (Instruction(op.BPF_ST | op.BPF_ATOMIC),)

    def _callx(self) -> Slots:
        return (Instruction(CALLX, self.wide("it is an address")),)

    def _call(self) -> Slots:
        """``call 1``, ``call bpf_map_lookup_elem#1``, ``call pc+2``, ``call label``, ``call kernel-function#7``."""
        c = self.cursor
        token = c.token
        if token.kind == NUMBER or (c.is_at("-") and c.peek().kind == NUMBER):
            return (Instruction(CALL, 0, 0, 0, self.imm32()),)
        if c.is_at("+", "-") or (c.is_at("pc") and c.peek().text in ("+", "-")):
            return (Instruction(CALL, 0, op.BPF_PSEUDO_CALL, 0, self.target("imm")),)
        if c.is_at("kernel") and c.peek().text == "-" and c.peek(2).text == "function":
            c.at += 3
            c.expect("#")
            return (Instruction(CALL, 0, op.BPF_PSEUDO_KFUNC_CALL, 0, self.imm32()),)
        word = c.ident("a helper, a label or pc+N")
        return self._call_by_name(word, self.imm32() if c.accept("#") else None)

    def _call_by_name(self, word: Token, number: int | None) -> Slots:
        known = self._helper(word.text)
        if number is None:
            if known is not None and word.text not in self.scope.labels:
                return (Instruction(CALL, 0, 0, 0, known),)
            self._fixup("imm", word)
            self._skip_annotation()
            return (Instruction(CALL, 0, op.BPF_PSEUDO_CALL, 0, 0),)
        if known is not None and known != number:
            self.cursor.fail(word, f"helper '{word.text}' is number {known}, not {number}")
        if known is None and word.text != "unknown":
            return (Instruction(CALL, 0, op.BPF_PSEUDO_KFUNC_CALL, 0, number),)
        return (Instruction(CALL, 0, 0, 0, number),)

    def _helper(self, word: str) -> int | None:
        return self.scope.helpers.get(word.removeprefix("bpf_"))


_MAP_SOURCES: Final = {
    "fd": (op.BPF_PSEUDO_MAP_FD, op.BPF_PSEUDO_MAP_VALUE),
    "id": (op.BPF_PSEUDO_MAP_FD, op.BPF_PSEUDO_MAP_VALUE),
    "idx": (op.BPF_PSEUDO_MAP_IDX, op.BPF_PSEUDO_MAP_IDX_VALUE),
}

_FETCHING: Final[dict[str, int]] = {
    **{f"atomic{wide}_fetch_{name}": operation for wide in ("", "64") for operation, name in ATOMIC_FETCH_NAMES.items()},
    **{f"atomic{wide}_xchg": op.BPF_XCHG for wide in ("", "64")},
    **{f"atomic{wide}_cmpxchg": op.BPF_CMPXCHG for wide in ("", "64")},
    **dict.fromkeys(("xchg_64", "xchg32_32", "xchg_32"), op.BPF_XCHG),
    **dict.fromkeys(("cmpxchg_64", "cmpxchg32_32", "cmpxchg_32"), op.BPF_CMPXCHG),
}

_RIGHT_SIDES: Final[dict[str, Callable[[InsnReader, Operand], Slots]]] = {
    **dict.fromkeys(_BYTE_ORDERS, InsnReader._byte_order),
    **{word: InsnReader._fetching if word.startswith("atomic") else InsnReader._llvm_exchange for word in _FETCHING},
    "load_acquire": InsnReader._load_acquire,
    "addr_space_cast": InsnReader._addr_space_cast,
    "map": InsnReader._map,
    "subprog": InsnReader._subprog,
    "btf": InsnReader._btf,
}

_KEYWORDS: Final[dict[str, Callable[[InsnReader], Slots]]] = {
    "if": InsnReader._if,
    "goto": InsnReader._goto,
    "gotol": InsnReader._gotol,
    "may_goto": InsnReader._may_goto,
    "call": InsnReader._call,
    "callx": InsnReader._callx,
    "exit": InsnReader._exit,
    "lock": InsnReader._lock,
    "store_release": InsnReader._store_release,
    "nospec": InsnReader._nospec,
}


def _first_words() -> Iterable[str]:
    return [*_KEYWORDS, *_REAL_REGISTERS]
