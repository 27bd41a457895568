"""Having the packets that come next brought into the cache, while the loop is at those before.

Small records: every line, by a cursor PREFETCH_BYTES ahead. Large ones, of which a program looks at the beginning: by
``kernels.scouts``, which find out by themselves where records begin. Which it is, the records say, again and again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from netbpf.engine.llvm.loop import Loop

CACHE_LINE: Final = 64
PREFETCH_BLOCK: Final = 1 << 16
PREFETCH_STREAMS: Final = 4
PREFETCH_STEP: Final = PREFETCH_STREAMS * CACHE_LINE
NO_PREFETCH: Final = str(1 << 62)  # where the cursor is, beyond every window, where there is too little to walk
PREFETCH_BYTES: Final = PREFETCH_BLOCK + 4096


def begin(p: Loop, pos: str) -> None:
    """Set the cursor, before the first packet. It is 0 while scouts walk ahead."""
    f = p.f
    short = f.test("ult", f.math("sub", p.end, pos), PREFETCH_BLOCK)
    p.set("pf", f.select(short, 64, NO_PREFETCH, f.math("add", pos, CACHE_LINE)))
    if p.prefetches and p.variant.scouted:
        from netbpf.engine.llvm.scouted import begin_scouts

        begin_scouts(p, pos)


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
        from netbpf.engine.llvm.scouted import emit_scout, emit_survey

        emit_scout(p, pos)
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
        emit_survey(p, pos, after)
    f.cond(f.test("ult", after, target), "touch", "frame")
