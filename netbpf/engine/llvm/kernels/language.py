"""The small language of this folder: Python's syntax, 64-bit unsigned numbers, memory by address; compiled to LLVM text.

    u8[a] u16[a] u32[a] u64[a]     memory at address a, to read and to write
    copy(to, source, size)         bytes, not overlapping
    move(to, source, size)         bytes
    zero(to, size)
    leading_zeros(x)               of 64 bits
    prefetch(a)                    have the line at address a, which need not be there, brought into the second cache
    NAMES_IN_CAPITALS              numbers of this map, known when it is compiled or (``Loaded``) words of what ``m`` points to
    NAME = 3                       numbers of the module

A function takes numbers and returns one (0 where it says nothing). There are assignments, if, while, break, continue, return,
calls, + - * // % & | ^ << >>, comparisons (unsigned), and, or, not, x if c else y. Functions that a module declares with the
body ``...`` are those of ``maps``: ``External`` tells their types.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final, NamedTuple, TypeVar

from netbpf.engine.llvm.ir import Function, signed_text
from netbpf.errors import InternalError


class Memory:
    """What ``u32`` and its like are to a type checker."""

    def __getitem__(self, address: int) -> int:
        raise NotImplementedError

    def __setitem__(self, address: int, value: int) -> None:
        raise NotImplementedError


u8 = u16 = u32 = u64 = Memory()
Kernel = TypeVar("Kernel", bound=Callable[..., int | None])


def copy(to: int, source: int, size: int) -> None:
    raise NotImplementedError


def move(to: int, source: int, size: int) -> None:
    raise NotImplementedError


def zero(to: int, size: int) -> None:
    raise NotImplementedError


def inline(kernel: Kernel) -> Kernel:
    """For a kernel that is always inlined."""
    return kernel


def apart(kernel: Kernel) -> Kernel:
    """For a kernel that code short of registers calls: it stays a function of its own, and keeps them (``preserve_mostcc``)."""
    return kernel


def leading_zeros(x: int) -> int:
    raise NotImplementedError


def prefetch(address: int) -> None:
    raise NotImplementedError


class External(NamedTuple):
    """A function of the module that is no kernel: its name before the map's number, types of arguments ("ptr", "i32", "i64") and
    of the result ("void": none)."""

    name: str
    args: tuple[str, ...]
    result: str


class Loaded(NamedTuple):
    """A number that lies ``offset`` bytes after a function's argument ``m``."""

    bits: int
    offset: int


Number = int | Loaded

_WIDTHS: Final = {"u8": 8, "u16": 16, "u32": 32, "u64": 64}
_BINARY: Final[dict[type[ast.operator], str]] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.FloorDiv: "udiv", ast.Mod: "urem", ast.BitAnd: "and",
    ast.BitOr: "or", ast.BitXor: "xor", ast.LShift: "shl", ast.RShift: "lshr",
}  # fmt: skip
_COMPARE: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "ult", ast.LtE: "ule", ast.Gt: "ugt", ast.GtE: "uge",
}  # fmt: skip


class _Source(NamedTuple):
    functions: tuple[ast.FunctionDef, ...]
    numbers: Mapping[str, int]


@cache
def _source(name: str) -> _Source:
    """The functions and numbers of a module of this folder, and of those it takes names from."""
    spec = importlib.util.find_spec(f"netbpf.engine.llvm.kernels.{name}")
    if spec is None or spec.origin is None:
        raise InternalError(f"no kernels are called {name}")
    with open(spec.origin, encoding="utf-8") as f:
        tree = ast.parse(f.read())
    functions, numbers = list[ast.FunctionDef](), dict[str, int]()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and ".kernels." in node.module and "language" not in node.module:
            other = _source(node.module.rpartition(".")[2])
            functions += other.functions
            numbers |= other.numbers
        elif isinstance(node, ast.FunctionDef):
            functions.append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            numbers[node.targets[0].id] = int(ast.literal_eval(node.value))
    return _Source(tuple(functions), numbers)


def compile_kernels(name: str, suffix: str, numbers: Mapping[str, Number], externals: Mapping[str, External]) -> str:
    """LLVM text of a module's functions, each called ``@name`` + ``suffix``, all numbers i64."""
    source = _source(name)
    known = {**source.numbers, **numbers}
    defined = {f.name: _mark(f) for f in source.functions if not _is_declared(f)}
    return "\n".join(_Kernel(f, suffix, known, externals, defined).text() for f in source.functions if f.name in defined)


def _mark(f: ast.FunctionDef) -> str:
    """The name of its decorator, or ""."""
    return next((d.id for d in f.decorator_list if isinstance(d, ast.Name)), "")


def _convention(mark: str) -> str:
    return "preserve_mostcc " if mark == "apart" else ""


def _is_declared(f: ast.FunctionDef) -> bool:
    last = f.body[-1]
    return isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant) and last.value.value is ...


class _Kernel:
    """One function."""

    def __init__(
        self,
        node: ast.FunctionDef,
        suffix: str,
        numbers: Mapping[str, Number],
        externals: Mapping[str, External],
        defined: Mapping[str, str],
    ) -> None:
        self.node, self.suffix, self.numbers, self.externals, self.defined = node, suffix, numbers, externals, defined
        self.args = [a.arg for a in node.args.args]
        mark = defined[node.name]
        how = {"inline": "alwaysinline ", "apart": "noinline cold minsize optsize ", "": ""}[mark]
        params = ", ".join(f"i64 %{a}" for a in self.args)
        self.f = Function(f"define internal {_convention(mark)}i64 @{node.name}{suffix}({params}) {how}nounwind")
        self.loops: list[tuple[str, str]] = []

    def text(self) -> str:
        f = self.f
        names = {n.id for n in ast.walk(self.node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        for name in sorted(names | set(self.args)):
            f.lines.append(f"  %{name}.v = alloca i64")
        for name in self.args:
            f.store(64, f"%{name}", f"%{name}.v", 8)
        self.locals = names | set(self.args)
        self._block(self.node.body)
        if f.open:
            f.ret("i64 0")
        return f.text()

    # --- statements --------------------------------------------------------------------------------------------------
    def _block(self, body: list[ast.stmt]) -> None:
        for node in body:
            if not self.f.open:
                return
            self._statement(node)

    def _statement(self, node: ast.stmt) -> None:
        f = self.f
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Expr(value=value):
                self._value(value)
            case ast.Assign(targets=[target], value=value):
                self._assign(target, self._value(value))
            case ast.AugAssign(target=target, op=op, value=value):
                self._assign(target, f.math(_BINARY[type(op)], self._value(target), self._value(value)))
            case ast.Return(value=value):
                f.ret(f"i64 {self._value(value) if value is not None else 0}")
            case ast.If(test=test, body=body, orelse=orelse):
                fixed = self._fixed(test)
                if fixed is None:
                    self._if(test, body, orelse)
                else:
                    self._block(body if fixed else orelse)
            case ast.While(test=test, body=body):
                self._while(test, body)
            case ast.Break():
                f.br(self.loops[-1][1])
            case ast.Continue():
                f.br(self.loops[-1][0])
            case _:
                raise InternalError(f"the language of kernels has no {type(node).__name__} (line {node.lineno})")

    def _assign(self, target: ast.expr, value: str) -> None:
        match target:
            case ast.Name(id=name):
                self.f.store(64, value, f"%{name}.v", 8)
            case ast.Subscript(value=ast.Name(id=width), slice=address):
                bits = _WIDTHS[width]
                self.f.store(bits, self.f.trunc(value, bits), self._pointer(self._value(address)))
            case _:
                raise InternalError("a name or memory is assigned to")

    def _fixed(self, test: ast.expr) -> int | None:
        """What a condition is that consists of a number of the module; None where it is another. It saves LLVM the time over code
        that cannot be reached."""
        number = self.numbers.get(test.id) if isinstance(test, ast.Name) else None
        return number if isinstance(number, int) else None

    def _if(self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt]) -> None:
        f = self.f
        yes, no, done = (f.fresh_label(n) for n in ("yes", "no", "done"))
        self._branch(test, yes, no if orelse else done)
        f.label(yes)
        self._block(body)
        if f.open:
            f.br(done)
        if orelse:
            f.label(no)
            self._block(orelse)
            if f.open:
                f.br(done)
        f.label(done)

    def _while(self, test: ast.expr, body: list[ast.stmt]) -> None:
        f = self.f
        head, inside, done = (f.fresh_label(n) for n in ("while", "body", "end"))
        f.label(head)
        self._branch(test, inside, done)
        f.label(inside)
        self.loops.append((head, done))
        self._block(body)
        self.loops.pop()
        if f.open:
            f.br(head)
        f.label(done)

    # --- conditions ----------------------------------------------------------------------------------------------------
    def _branch(self, test: ast.expr, yes: str, no: str) -> None:
        """Go to ``yes`` where the condition holds, else to ``no``."""
        f = self.f
        match test:
            case ast.BoolOp(op=op, values=values):
                for value in values[:-1]:
                    further = f.fresh_label("and" if isinstance(op, ast.And) else "or")
                    self._branch(value, *((further, no) if isinstance(op, ast.And) else (yes, further)))
                    f.label(further)
                self._branch(values[-1], yes, no)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._branch(operand, no, yes)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                f.cond(f.test(_COMPARE[type(op)], self._value(left), self._value(right)), yes, no)
            case _:
                f.cond(f.test("ne", self._value(test), 0), yes, no)

    # --- values --------------------------------------------------------------------------------------------------------
    def _pointer(self, address: str) -> str:
        return self.f.op(f"inttoptr i64 {address} to ptr")

    def _value(self, node: ast.expr) -> str:
        f = self.f
        match node:
            case ast.Constant(value=int(value)):
                return signed_text(int(value), 64)
            case ast.Name(id=name) if name in self.locals:
                return f.load(64, f"%{name}.v", 8)
            case ast.Name(id=name) if name in self.numbers:
                return self._number(self.numbers[name])
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return f.math("sub", 0, self._value(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return f.math(_BINARY[type(op)], self._value(left), self._value(right))
            case ast.Subscript(value=ast.Name(id=width), slice=address):
                return f.zext(f.load(_WIDTHS[width], self._pointer(self._value(address))), _WIDTHS[width])
            case ast.Call(func=ast.Name(id=name), args=args):
                return self._call(name, [self._value(a) for a in args])
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()) | ast.IfExp():
                return self._choice(node)
            case _:
                raise InternalError(f"the language of kernels has no {ast.dump(node)} (line {node.lineno})")

    def _number(self, number: Number) -> str:
        if isinstance(number, int):
            return signed_text(number, 64)
        address = self.f.math("add", self.f.load(64, "%m.v", 8), number.offset)
        return self.f.zext(self.f.load(number.bits, self._pointer(address)), number.bits)

    def _choice(self, node: ast.expr) -> str:
        """A condition as 1 or 0, or one of two values."""
        f = self.f
        fixed = self._fixed(node.test) if isinstance(node, ast.IfExp) else None
        if isinstance(node, ast.IfExp) and fixed is not None:
            return self._value(node.body if fixed else node.orelse)
        test, first, second = (node.test, node.body, node.orelse) if isinstance(node, ast.IfExp) else (node, None, None)
        slot = f"%c{len(f.lines)}.v"
        f.lines.insert(2, f"  {slot} = alloca i64")
        yes, no, done = (f.fresh_label(n) for n in ("yes", "no", "chosen"))
        self._branch(test, yes, no)
        for label, value, number in ((yes, first, "1"), (no, second, "0")):
            f.label(label)
            f.store(64, number if value is None else self._value(value), slot, 8)
            f.br(done)
        f.label(done)
        return f.load(64, slot, 8)

    def _call(self, name: str, args: list[str]) -> str:
        f = self.f
        if name in self.defined:
            return f.op(f"call {_convention(self.defined[name])}i64 @{name}{self.suffix}({', '.join(f'i64 {a}' for a in args)})")
        if name in self.externals:
            return self._external(self.externals[name], args)
        if name == "leading_zeros":
            return f.op(f"call i64 @llvm.ctlz.i64(i64 {args[0]}, i1 false)")
        if name == "prefetch":
            f.prefetch(self._pointer(args[0]), 2)
            return "0"
        if name in ("copy", "move"):
            to, source = self._pointer(args[0]), self._pointer(args[1])
            how = "memcpy" if name == "copy" else "memmove"
            f.do(f"call void @llvm.{how}.p0.p0.i64(ptr {to}, ptr {source}, i64 {args[2]}, i1 false)")
            return "0"
        if name == "zero":
            f.do(f"call void @llvm.memset.p0.i64(ptr {self._pointer(args[0])}, i8 0, i64 {args[1]}, i1 false)")
            return "0"
        raise InternalError(f"the language of kernels has no function {name}")

    def _external(self, e: External, args: list[str]) -> str:
        f = self.f
        passed = []
        for kind, value in zip(e.args, args, strict=True):
            given = self._pointer(value) if kind == "ptr" else f.trunc(value, int(kind[1:]))
            passed.append(f"{kind} {given}")
        call = f"call {e.result} @{e.name}{self.suffix}({', '.join(passed)})"
        if e.result == "void":
            f.do(call)
            return "0"
        return f.zext(f.op(call), int(e.result[1:]))
