"""What runs a program once: on the packet that Args and Meta describe, or a subprogram of it for Python.

Single runs start quickly: nothing here brings the packet loop along.
"""

from __future__ import annotations

from netbpf.engine.llvm.abi import ARGS
from netbpf.engine.llvm.ir import Function
from netbpf.engine.llvm.lowerer import Lowerer


def args_parameter(lowerer: Lowerer) -> str:
    """Args as a parameter. Python writes them while the code runs, and so does a later tail call to the same program."""
    return "ptr %a" if lowerer.may_fault else "ptr noalias %a"


def load_maps(f: Function, n_maps: int) -> None:
    """The addresses of the program's maps, out of Args."""
    if n_maps:
        table = f.op(f"load ptr, ptr {f.gep('%a', ARGS['maps'])}, align 8")
        for i in range(n_maps):
            f.lines.append(f"  %m{i} = load ptr, ptr {f.gep(table, 8 * i)}, align 8")


def _load_packet(f: Function) -> None:
    """The packet that Args and Meta describe."""
    for field, name, kind in (
        ("meta", "meta", "ptr"),
        ("skb_pkt", "pkt", "ptr"),
        ("skb_pkt", "mac", "ptr"),
        ("skb_len", "len", "i64"),
        ("skb_cap", "cap", "i64"),
    ):
        f.lines.append(f"  %{name} = load {kind}, ptr {f.gep('%a', ARGS[field])}, align 8")


def emit_one(lowerer: Lowerer) -> str:
    """Run once on the packet that Args and Meta describe; the full R0."""
    f = Function(f"define i64 @run({args_parameter(lowerer)}) nounwind")
    load_maps(f, len(lowerer.program.maps))
    _load_packet(f)
    f.ret(f"i64 {f.op(f'call i64 @prog({lowerer.around.passed})')}")
    return f.text()


def emit_enter(lowerer: Lowerer) -> str:
    """Run subprogram ``Args.subprog`` with R1..R5 of Args, for Python called back from native code (a callback's caller)."""
    f = Function(f"define i64 @enter({args_parameter(lowerer)}) nounwind")
    load_maps(f, len(lowerer.program.maps))
    _load_packet(f)
    args = ", ".join(f"i64 {f.load(64, f.gep('%a', ARGS[f'r{r}']), 8)}" for r in range(1, 6))
    which = f.load(64, f.gep("%a", ARGS["subprog"]), 8)
    cases = range(1, len(lowerer.subprogs))
    f.do(f"switch i64 {which}, label %none [ {' '.join(f'i64 {k}, label %s{k}' for k in cases)} ]")
    f.open = False
    for k in cases:
        f.label(f"s{k}")
        f.ret(f"i64 {f.op(f'call i64 @sub{k}({args}, {lowerer.around.passed})')}")
    f.label("none")
    f.ret("i64 0")
    return f.text()
