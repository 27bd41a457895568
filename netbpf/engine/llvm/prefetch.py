"""Having the packets that come next brought into the cache, while the loop is at those before.

Small records: every line, by a cursor PREFETCH_BYTES ahead. Large ones, of which a program looks at the beginning: by
``kernels.scouts``, which find out by themselves where records begin. Which it is, the records say, again and again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netbpf.engine.llvm.kernels import scouts
from netbpf.engine.llvm.kernels.language import compile_kernels

if TYPE_CHECKING:
    from netbpf.engine.llvm.loop import Loop
    from netbpf.engine.llvm.variant import Variant

CACHE_LINE: Final = 64
PREFETCH_BLOCK: Final = 1 << 16
PREFETCH_STREAMS: Final = 4
PREFETCH_STEP: Final = PREFETCH_STREAMS * CACHE_LINE
NO_PREFETCH: Final = str(1 << 62)  # where the cursor is, beyond every window, where there is too little to walk
PREFETCH_BYTES: Final = PREFETCH_BLOCK + 4096


def emit_scouts(variant: Variant) -> str:
    """The functions that walk ahead, for a loop that has them do so."""
    if not variant.scouted:
        return ""
    caplen_at, wirelen_at = (12, 8) if variant.wirelen_first else (8, 12)
    layout = {
        "IS_PCAPNG": int(variant.kind == "pcapng"), "IS_BIG": int(variant.big_endian), "HEADER": variant.header_bytes,
        "CAPLEN_AT": caplen_at, "WIRELEN_AT": wirelen_at,
    }  # fmt: skip
    return compile_kernels("scouts", ".scouts", layout, {})


def begin(p: Loop, pos: str) -> None:
    """Set the cursor, before the first packet. It is 0 while scouts walk ahead."""
    f = p.f
    short = f.test("ult", f.math("sub", p.end, pos), PREFETCH_BLOCK)
    p.set("pf", f.select(short, 64, NO_PREFETCH, f.math("add", pos, CACHE_LINE)))
    if p.prefetches and p.variant.scouted:
        f.lines.append(f"  %scouts = alloca [{scouts.STATE_BYTES} x i8], align 8")
        f.store(64, _address(p, p.end), f.gep("%scouts", scouts.END), 8)
        _ask(p, "begin", pos, p.get("pf"))


def emit_prefetch(p: Loop, pos: str) -> None:
    """For the record at ``pos``; on in block ``frame``."""
    f = p.f
    if not p.prefetches:
        f.br("frame")
        return
    target = f.math("add", pos, PREFETCH_BYTES)
    f.cond(f.test("ult", p.get("pf"), target), "behind", "frame")
    f.label("behind")
    if p.variant.scouted:
        _scout(p, pos)
    f.label("touch")
    # a processor serves several streams faster than one, and its second cache holds more than a block
    cursor = p.get("pf")
    within = f.math("and", cursor, PREFETCH_BLOCK - 1)
    line = f.gep(p.buf, f.math("add", f.math("sub", cursor, within), f.math("udiv", within, PREFETCH_STREAMS)))
    for stream in range(PREFETCH_STREAMS):
        f.prefetch(f.gep(line, stream * (PREFETCH_BLOCK // PREFETCH_STREAMS)), 2)
    after = f.math("add", cursor, PREFETCH_STEP)
    p.set("pf", after)
    if p.variant.scouted:
        is_far = f.test("ult", f.math("and", cursor, scouts.BLOCK - 1), PREFETCH_STEP)
        f.unlikely(is_far, "survey", "surveyed")
        f.label("survey")
        _ask(p, "begin", pos, after)
        f.br("frame")
        f.label("surveyed")
    f.cond(f.test("ult", after, target), "touch", "frame")


def _ask(p: Loop, function: str, pos: str, cursor: str) -> None:
    """Tell the scouts where the loop is; they say whether they walk ahead. Else the cursor is ``cursor``."""
    f = p.f
    f.store(64, _address(p, pos), f.gep("%scouts", scouts.AT), 8)
    f.store(64, p.get("n"), f.gep("%scouts", scouts.PACKETS), 8)
    walk = f.op(f"call preserve_mostcc i64 @{function}.scouts(i64 {_state(p)})")
    p.set("pf", f.select(f.test("eq", walk, 0), 64, cursor, "0"))


def _scout(p: Loop, pos: str) -> None:
    """A step of those who walk ahead, where they do; else on in what comes next."""
    f = p.f
    f.cond(f.test("eq", p.get("pf"), 0), "scout", "touch")
    f.label("scout")
    block = f.load(64, f.gep("%scouts", scouts.BLOCK_AT), 8)
    f.unlikely(f.test("uge", _address(p, pos), block), "turn", "step")
    f.label("turn")
    _ask(p, "turn", pos, pos)
    f.br("frame")
    f.label("step")
    f.op(f"call i64 @step.scouts(i64 {_state(p)})")
    f.br("frame")


def _state(p: Loop) -> str:
    return p.f.op("ptrtoint ptr %scouts to i64")


def _address(p: Loop, at: str) -> str:
    return p.f.op(f"ptrtoint ptr {p.f.gep(p.buf, at)} to i64")
