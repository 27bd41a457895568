"""The LLVM module of a program for one variant: its functions, its maps' operations, and what runs it."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from netbpf.engine.llvm.instructions import SubprogLowerer
from netbpf.engine.llvm.ir import INTRINSICS
from netbpf.engine.llvm.lowerer import Lowerer
from netbpf.engine.llvm.needs import needs_checks
from netbpf.engine.llvm.single import emit_enter, emit_one
from netbpf.engine.llvm.variant import SINGLE, Variant
from netbpf.program import VerifiedProgram


class Module(NamedTuple):
    """LLVM text, and what Python must know to run it."""

    text: str
    calls_back: bool
    is_checked: bool


def module(program: VerifiedProgram, variant: Variant) -> Module:
    """The whole LLVM module of a program for one variant. Raises UnsupportedProgram."""
    lowerer, functions = _lower(program, variant, calls_back=False)
    if lowerer.called_back:
        lowerer, functions = _lower(program, variant, calls_back=True)
    enter = emit_enter(lowerer) if lowerer.called_back and len(lowerer.subprogs) > 1 else ""
    parts = [INTRINSICS, _maps(lowerer), _kernels(lowerer.used_kernels), functions, _run(lowerer, variant), enter]
    return Module("\n".join(parts), lowerer.called_back, lowerer.checked)


def _run(lowerer: Lowerer, variant: Variant) -> str:
    if variant.kind in SINGLE:
        return emit_one(lowerer)
    from netbpf.engine.llvm.loop import emit_loop

    loop = emit_loop(lowerer, variant)
    if not variant.sharded:
        return loop
    from netbpf.engine.llvm.kernels.language import compile_kernels

    return f"{compile_kernels('flow', '_key', {}, {})}\n{loop}"


def _maps(lowerer: Lowerer) -> str:
    maps = lowerer.program.maps
    if not maps:
        return ""
    from netbpf.engine.llvm.maps import Wanted, emit_inner, emit_map

    wanted = Wanted(lowerer.walked, lowerer.tallied)
    own = [emit_map(i, m, wanted) for i, m in enumerate(maps)]
    return "\n".join([*own, *(emit_inner(i, maps[i], wanted) for i in sorted(lowerer.used_inner))])


def _kernels(names: Set[str]) -> str:
    """Modules of kernels that belong to no map, their functions called ``@FUNCTION.MODULE``."""
    if not names:
        return ""
    from netbpf.engine.llvm.kernels.language import compile_kernels

    return "\n".join(compile_kernels(name, f".{name}", {}, {}) for name in sorted(names))


def _lower(program: VerifiedProgram, variant: Variant, *, calls_back: bool) -> tuple[Lowerer, str]:
    checked = variant.checked or needs_checks(program)
    lowerer = Lowerer(program, variant.kind, checked=checked, calls_back=calls_back)
    return lowerer, _straight(lowerer, variant) or lowerer.functions(_second_half(lowerer, variant))


def _straight(lowerer: Lowerer, variant: Variant) -> str:
    """The program without branches, for a loop; "" where it cannot be."""
    if variant.kind in SINGLE:
        return ""
    from netbpf.engine.llvm.decide import decider

    return decider(lowerer)


def _second_half(lowerer: Lowerer, variant: Variant) -> SubprogLowerer | None:
    """The main program as a loop wants it that looks ahead."""
    if not lowerer.program.maps:
        return None
    from netbpf.engine.llvm.ahead import worth_while
    from netbpf.engine.llvm.halves import SecondHalf
    from netbpf.engine.llvm.lots import rest_in_lots

    tables = worth_while(lowerer, variant)
    if not tables:
        return None
    half = SecondHalf(lowerer, tables)
    lowerer.split = half.split
    rest = rest_in_lots(lowerer, variant, half.split)
    lowerer.in_lots = rest is not None
    return rest or half
