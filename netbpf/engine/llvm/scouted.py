"""The packet loop's side of ``kernels.scouts``: where it tells them where it is, and has them go on by a step.

They walk while the cursor of ``prefetch`` is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netbpf.engine.llvm.kernels import scouts
from netbpf.engine.llvm.kernels.language import compile_kernels
from netbpf.engine.llvm.prefetch import PREFETCH_STEP

if TYPE_CHECKING:
    from netbpf.engine.llvm.loop import Loop
    from netbpf.engine.llvm.variant import Variant


def emit_scouts(variant: Variant, chains: int = scouts.CHAINS) -> str:
    """The functions that walk ahead in so many places, for a loop that has them do so."""
    caplen_at, wirelen_at = (12, 8) if variant.wirelen_first else (8, 12)
    layout = {
        "IS_PCAPNG": int(variant.kind == "pcapng"), "IS_BIG": int(variant.big_endian), "HEADER": variant.header_bytes,
        "CAPLEN_AT": caplen_at, "WIRELEN_AT": wirelen_at, "CHAINS": chains, "BLOCK": chains * scouts.SEGMENT,
    }  # fmt: skip
    return compile_kernels("scouts", ".scouts", layout, {})


def begin_scouts(p: Loop, pos: str) -> None:
    """Before the first packet."""
    f = p.f
    f.lines.append(f"  %scouts = alloca [{scouts.STATE_BYTES} x i8], align 8")
    f.store(64, _address(p, p.end), f.gep("%scouts", scouts.END), 8)
    _ask(p, "begin", pos, p.get("pf"))


def emit_survey(p: Loop, pos: str, cursor: str) -> None:
    """Where the cursor has come to another block, see whether records have become large."""
    f = p.f
    is_far = f.test("ult", f.math("and", cursor, scouts.BLOCK - 1), PREFETCH_STEP)
    f.unlikely(is_far, "survey", "surveyed")
    f.label("survey")
    _ask(p, "begin", pos, cursor)
    f.br("frame")
    f.label("surveyed")


def _ask(p: Loop, function: str, pos: str, cursor: str) -> None:
    """Tell the scouts where the loop is; they say whether they walk ahead. Else the cursor is ``cursor``."""
    f = p.f
    f.store(64, _address(p, pos), f.gep("%scouts", scouts.AT), 8)
    f.store(64, p.get("n"), f.gep("%scouts", scouts.PACKETS), 8)
    walk = f.op(f"call preserve_mostcc i64 @{function}.scouts(i64 {_state(p)})")
    p.set("pf", f.select(f.test("eq", walk, 0), 64, cursor, "0"))


def emit_scout(p: Loop, pos: str) -> None:
    """A step of those who walk ahead, where they do; else on in what comes next."""
    f = p.f
    f.cond(f.test("eq", p.get("pf"), 0), "scout", "touch")
    f.label("scout")
    ask_at = f.load(64, f.gep("%scouts", scouts.ASK_AT), 8)
    f.unlikely(f.test("uge", _address(p, pos), ask_at), "turn", "step")
    f.label("turn")
    _ask(p, "turn", pos, pos)
    f.br("frame")
    f.label("step")
    f.cond(p.has_step(), "go_on", "frame")
    f.label("go_on")
    f.op(f"call i64 @step.scouts(i64 {_state(p)})")
    f.br("frame")


def _state(p: Loop) -> str:
    return p.f.op("ptrtoint ptr %scouts to i64")


def _address(p: Loop, at: str) -> str:
    return p.f.op(f"ptrtoint ptr {p.f.gep(p.buf, at)} to i64")
