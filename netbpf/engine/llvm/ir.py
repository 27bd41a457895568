"""Writing LLVM's text form: fresh names, one line an instruction. Knows no BPF.

Text, because it parses in milliseconds where a builder of objects takes tens of them.
"""

from __future__ import annotations

EMPTY = "!0"  # what metadata names that says nothing more


class Function:
    """The body of one function under construction. Values are operand texts: ``%t3`` or a decimal."""

    def __init__(self, head: str) -> None:
        self.lines: list[str] = [head + " {", "entry:"]
        self._n = 0
        self.open = True  # the current block has no terminator yet

    def name(self) -> str:
        self._n += 1
        return f"%t{self._n}"

    def fresh_label(self, stem: str) -> str:
        self._n += 1
        return f"{stem}{self._n}"

    def op(self, text: str) -> str:
        """``%t = text``; the new value."""
        v = self.name()
        self.lines.append(f"  {v} = {text}")
        return v

    def do(self, text: str) -> None:
        """An instruction without a value."""
        self.lines.append("  " + text)

    def label(self, name: str) -> None:
        """Begin a block, falling into it where the one before is open."""
        if self.open:
            self.do(f"br label %{name}")
        self.lines.append(f"{name}:")
        self.open = True

    def br(self, label: str) -> None:
        self.do(f"br label %{label}")
        self.open = False

    def cond(self, test: str, yes: str, no: str) -> None:
        self.do(f"br i1 {test}, label %{yes}, label %{no}")
        self.open = False

    def unlikely(self, test: str, yes: str, no: str) -> None:
        """``cond`` whose ``yes`` is rare."""
        self.cond(self.op(f"call i1 @llvm.expect.i1(i1 {test}, i1 false)"), yes, no)

    def rarely(self, test: str, yes: str, no: str) -> None:
        """``unlikely``, of a test whose parts say one thing or the other too often to be tests of their own."""
        test = self.op(f"call i1 @llvm.expect.i1(i1 {test}, i1 false)")
        self.do(f"br i1 {test}, label %{yes}, label %{no}, !unpredictable {EMPTY}")
        self.open = False

    def ret(self, text: str) -> None:
        self.do(f"ret {text}")
        self.open = False

    def text(self) -> str:
        return "\n".join([*self.lines, "}"])

    # --- small idioms ---------------------------------------------------------------------------------------------
    def gep(self, base: str, offset: int | str) -> str:
        """Pointer ``offset`` bytes after ``base``."""
        if offset == 0:
            return base
        return self.op(f"getelementptr i8, ptr {base}, i64 {offset}")

    def load(self, bits: int, ptr: str, align: int = 1) -> str:
        return self.op(f"load i{bits}, ptr {ptr}, align {align}")

    def store(self, bits: int, value: str, ptr: str, align: int = 1) -> None:
        self.do(f"store i{bits} {value}, ptr {ptr}, align {align}")

    def prefetch(self, ptr: str, locality: int = 3) -> None:
        """Have a cache line brought in to be read; ``locality`` as LLVM has it: 3 the nearest cache, 2 the one behind it."""
        self.do(f"call void @llvm.prefetch.p0(ptr {ptr}, i32 0, i32 {locality}, i32 1)")

    def zext(self, value: str, bits: int, to: int = 64) -> str:
        """Zero-extend; also of a decimal."""
        if bits == to:
            return value
        if not value.startswith("%"):
            return str(int(value) & ((1 << bits) - 1))
        return self.op(f"zext i{bits} {value} to i{to}")

    def sext(self, value: str, bits: int, to: int = 64) -> str:
        return value if bits == to else self.op(f"sext i{bits} {value} to i{to}")

    def trunc(self, value: str, bits: int, of: int = 64) -> str:
        """The low bits; also of a decimal."""
        if bits == of:
            return value
        if not value.startswith("%"):
            return signed_text(int(value), bits)
        return self.op(f"trunc i{of} {value} to i{bits}")

    def bswap(self, value: str, bits: int) -> str:
        return value if bits == 8 else self.op(f"call i{bits} @llvm.bswap.i{bits}(i{bits} {value})")

    def math(self, name: str, left: str | int, right: str | int) -> str:
        """A 64-bit operation of two values: add, sub, mul, and, or, shl, lshr, udiv ..."""
        return self.op(f"{name} i64 {left}, {right}")

    def test(self, how: str, left: str | int, right: str | int) -> str:
        """An unsigned or equality comparison of 64-bit values: eq, ne, ult, ule, ugt, uge."""
        return self.op(f"icmp {how} i64 {left}, {right}")

    def both(self, left: str, right: str) -> str:
        """i1: whether two tests hold."""
        return self.op(f"and i1 {left}, {right}")

    def select(self, test: str, bits: int, yes: str, no: str) -> str:
        return self.op(f"select i1 {test}, i{bits} {yes}, i{bits} {no}")

    def unforeseen(self, test: str, bits: int, yes: str, no: str) -> str:
        """``select`` that is not to become a branch, as nobody would foresee which way it goes."""
        return self.op(f"select i1 {test}, i{bits} {yes}, i{bits} {no}, !unpredictable {EMPTY}")


def return_address(f: Function, at: str) -> None:
    """Return where a value is; the caller need not look whether it is 0."""
    address = f.op(f"ptrtoint ptr {at} to i64")
    f.do(f"call void @llvm.assume(i1 {f.test('ne', address, 0)})")
    f.ret(f"i64 {address}")


def signed_text(value: int, bits: int) -> str:
    """A constant as LLVM reads it: signed decimal of that width."""
    value &= (1 << bits) - 1
    return str(value - (1 << bits) if value >> (bits - 1) else value)


INTRINSICS = "\n".join(
    [
        *(f"declare i{n} @llvm.bswap.i{n}(i{n})" for n in (16, 32, 64)),
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
        "declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)",
        "declare void @llvm.memcpy.inline.p0.p0.i64(ptr, ptr, i64, i1)",
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
        "declare i1 @llvm.expect.i1(i1, i1)",
        "declare void @llvm.assume(i1)",
        "declare i64 @llvm.ctlz.i64(i64, i1)",
        f"{EMPTY} = !{{}}",
    ]
)
