"""Looking ahead: of the next packets in a window, the entries of large tables that the program will ask for first are brought
into the cache, so that many wait for memory at once instead of one after the other.

``@ahead(args, from, rows)`` walks up to LOT records as the loop will, and runs the program on each up to its first operation on
a table, or anything else that others could see or have changed (``halves.FirstHalf``). How far each came is in its row: the loop
walks the same records, and the program goes on from there (``halves.SecondHalf``). The row behind the last is empty, as is the
one there is before anything is looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from netbpf.engine.llvm.halves import LOT, REACH, SplitLoop, emit_beginning, emit_on_table
from netbpf.engine.llvm.ir import Function
from netbpf.engine.llvm.lowerer import Lowerer
from netbpf.engine.llvm.shape import LRU_TABLES, TABLES
from netbpf.maps.table import COUNT

if TYPE_CHECKING:
    from netbpf.engine.llvm.split import Split
    from netbpf.engine.llvm.variant import Variant
    from netbpf.maps.base import Map

LARGE_BYTES: Final = 1 << 18  # what a processor's own caches hold of a table beside the packets
LOOK_AGAIN_BYTES: Final = 1 << 20  # so often it is asked whether a table has outgrown them
WALKED: Final = frozenset({"pcap", "pcapng"})


def worth_while(lowerer: Lowerer, variant: Variant) -> tuple[int, ...]:
    """The tables, by index, that may outgrow the near caches, where a loop can look ahead."""
    if variant.kind not in WALKED or lowerer.may_fault:
        return ()
    return tuple(i for i, m in enumerate(lowerer.program.maps) if _is_table(m) and _bytes(m, m.spec.max_entries) >= LARGE_BYTES)


def emit_led_loop(lowerer: Lowerer, variant: Variant, split: Split) -> str:
    """The packet loop, the one ahead of it, and the half of the program that this runs."""
    loops = [Ahead(lowerer, variant, split).text(), Led(lowerer, variant, split).text()]
    return "\n".join([emit_beginning(lowerer, split), *loops])


def _is_table(m: Map) -> bool:
    return m.spec.map_type in TABLES | LRU_TABLES


def _bytes(m: Any, elements: int) -> int:
    return int(elements * m.elem_size)


class Ahead(SplitLoop):
    """``i64 @ahead(args, from, rows)``: look at the packets from ``from`` on; where it stopped."""

    prefetches = False

    def __init__(self, lowerer: Lowerer, variant: Variant, split: Split) -> None:
        super().__init__(lowerer, variant._replace(results=False, output=""), split)
        self.f = Function("define internal i64 @ahead(ptr noalias %a, i64 %from, ptr noalias %rows) noinline nounwind")

    def text(self) -> str:
        f = self.f
        self._prologue()
        self.stop = ""  # whatever the time: the loop stops in time
        f.label("head")
        f.cond(f.test("uge", self.get("n"), LOT), "leave", "fetch")
        f.label("fetch")
        self.fetch()
        f.label("frame")
        if self.variant.sharded:
            self.pass_over()
        self._context()
        f.label("go")
        self._look()
        for name in ("ended", "tick", "odd", "strange"):
            f.label(name)
            f.br("leave")
        f.label("leave")
        f.store(64, "0", self._row(self.get("n")), 8)
        self._reach()
        f.ret(f"i64 {self.get('pos')}")
        return f.text()

    def first(self) -> str:
        return "%from"

    def set_clock(self) -> None:
        """The time stays that of the packet at hand."""

    def _row(self, n: str) -> str:
        return self.f.gep("%rows", self.f.math("mul", n, self._split.row_bytes()))

    def _look(self) -> None:
        """How far the program comes with the packet, and the bucket that it looks into asked for."""
        f, n = self.f, self.get("n")
        self.load_packet()
        row = self._row(n)
        found = f.op(f"call i64 @begin({self.owner.around.passed}, ptr {row})")
        f.store(64, found, row, 8)
        emit_on_table(f, self._split, "near", found)
        self.set("n", f.math("add", n, 1))
        self.set("pos", self.get("next"))
        f.br("head")

    def _reach(self) -> None:
        """By now buckets are there: have the elements brought in that the first of them name."""
        f, n = self.f, self.get("n")
        most = f.select(f.test("ult", n, REACH), 64, n, str(REACH))
        self.set("seen", "0")
        f.label("each")
        k = self.get("seen")
        f.cond(f.test("uge", k, most), "done", "reach")
        f.label("reach")
        emit_on_table(f, self._split, "reach", f.load(64, self._row(k), 8))
        self.set("seen", f.math("add", k, 1))
        f.br("each")
        f.label("done")


class Led(SplitLoop):
    """The loop behind: what was found out about the packet at hand is used."""

    def _prologue(self) -> None:
        super()._prologue()
        f = self.f
        f.lines.append(f"  %rows = alloca [{(LOT + 1 + REACH) * self._split.row_bytes()} x i8], align 8")
        f.store(64, "0", "%rows", 8)

    def look_ahead(self) -> None:
        """Past what was looked at, look at some more. Nothing is before a table has grown: the one row there is says nothing."""
        f, pos = self.f, self.get("pos")
        f.cond(f.test("uge", pos, self.get("seen")), "unseen", "looked")
        f.label("unseen")
        f.cond(_is_grown(f, self.owner, self._split.tables), "ahead", "small")
        f.label("small")
        self.set("seen", f.math("add", pos, LOOK_AGAIN_BYTES))
        f.br("looked")
        f.label("ahead")
        self.set("seen", f.op(f"call i64 @ahead(ptr %a, i64 {pos}, ptr %rows)"))
        self.set("row", "0")
        f.label("looked")

    def run_program(self) -> str:
        """From where the packet's row says on."""
        return self.f.op(f"call i64 @prog({self.owner.around.passed}, ptr %rows, ptr %row.v)")


def _is_grown(f: Function, lowerer: Lowerer, tables: tuple[int, ...]) -> str:
    """i1: whether one of the tables holds more by now than the near caches do."""
    large = "0"
    for i in tables:
        m = lowerer.program.maps[i]
        held = f.math("mul", f.zext(f.load(32, f.gep(f"%m{i}", 4 * COUNT), 4), 32), _bytes(m, 1))
        large = f.op(f"or i1 {large}, {f.test('uge', held, LARGE_BYTES)}")
    return large
