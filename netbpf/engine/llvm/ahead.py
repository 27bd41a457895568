"""Looking ahead: of the next packets in a window, the entries of large tables that the program will ask for first are brought
into the cache, so that many wait for memory at once instead of one after the other.

``@ahead(args, from)`` walks up to LOT records as the loop will, and runs the program on each up to its first operation on a
table (``@key``), which is made of its instructions again, but ends with nothing found before anything that others could see:
a store outside the frame, a call that does more than read. What it finds is a hint: where it is wrong (a field of the context is
that of another packet), some memory is touched in vain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from netbpf.abi.helpers import FUNC_IDS
from netbpf.engine.llvm.checks import READ
from netbpf.engine.llvm.fetch import FETCHERS
from netbpf.engine.llvm.ir import Function
from netbpf.engine.llvm.loop import Loop
from netbpf.engine.llvm.lower import Lowerer, SubprogLowerer
from netbpf.engine.llvm.map_refs import native_map
from netbpf.engine.llvm.maps import table_prefetches
from netbpf.engine.llvm.shape import LRU_TABLES, TABLES
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import BPF_X, bpf_src
from netbpf.maps.table import COUNT

if TYPE_CHECKING:
    from netbpf.engine.llvm.variant import Variant
    from netbpf.maps.base import Map

LOT: Final = 32
LARGE_BYTES: Final = 1 << 18  # what a processor's own caches hold of a table beside the packets
WALKED: Final = frozenset({"pcap", "pcapng"})
_KEYED: Final = frozenset(FUNC_IDS[name] for name in ("map_lookup_elem", "map_update_elem", "map_delete_elem"))
_READING: Final = frozenset(FUNC_IDS[name] for name in ("skb_load_bytes", "skb_load_bytes_relative"))


def worth_while(lowerer: Lowerer, variant: Variant) -> tuple[int, ...]:
    """The tables, by index, that may outgrow the near caches, where a loop can look ahead."""
    if variant.kind not in WALKED or lowerer.may_fault:
        return ()
    return tuple(i for i, m in enumerate(lowerer.program.maps) if _is_table(m) and _bytes(m, m.spec.max_entries) >= LARGE_BYTES)


def _is_table(m: Map) -> bool:
    return m.spec.map_type in TABLES | LRU_TABLES


def _bytes(m: Any, elements: int) -> int:
    return int(elements * m.elem_size)


class KeyLowerer(SubprogLowerer):
    """``i64 @key(surroundings)``: index + 1 of the table that the packet is first looked up in, and above 32 bits its key's hash;
    0 where there is none that is known without doing anything."""

    def __init__(self, owner: Lowerer, tables: tuple[int, ...]) -> None:
        super().__init__(owner, 0)
        self._tables = tables

    def _head(self) -> str:
        return f"define internal i64 @key({self.owner.around.main_params}) alwaysinline nounwind"

    def leave(self, value: str) -> None:
        self.f.ret("i64 0")

    def _call(self, pc: int, i: Instruction) -> None:
        number = 0 if i.src or bpf_src(i.code) == BPF_X else i.imm
        if number in _KEYED and self._is_slot(pc, 2):
            self._find(pc)
        elif number in _READING and self._is_slot(pc, 3) and self._is_number(pc, 4):
            super()._call(pc, i)
        else:
            self.leave("0")

    def _is_slot(self, pc: int, r: int) -> bool:
        """Whether R points to a place in the frame that is known."""
        known = self.known(pc, r)
        return known is not None and known.kind == "fp"

    def _is_number(self, pc: int, r: int) -> bool:
        known = self.known(pc, r)
        return known is not None and known.kind == "num"

    def _find(self, pc: int) -> None:
        m = native_map(self, pc, TABLES | LRU_TABLES)
        if m is None or m.number not in self._tables:
            self.leave("0")
            return
        f = self.f
        at = self.pointer(pc, 2, 0, m.spec.key_size, READ)
        key = f.zext(f.op(f"call i32 @hash{m.suffix}(ptr {m.base}, ptr {at})"), 32)
        f.ret(f"i64 {f.math('or', f.math('shl', key, 32), m.number + 1)}")

    def _load_class(self, pc: int, i: Instruction) -> None:
        self._only(self._is_ctx(pc, i.src) or self._is_slot(pc, i.src), super()._load_class, pc, i)

    def _store(self, pc: int, i: Instruction) -> None:
        self._only(self._is_slot(pc, i.dst), super()._store, pc, i)

    def _atomic(self, pc: int, i: Instruction) -> None:
        self._only(self._is_slot(pc, i.dst), super()._atomic, pc, i)

    def _only(self, harmless: bool, emit: Callable[[int, Instruction], None], pc: int, i: Instruction) -> None:
        if harmless:
            emit(pc, i)
        else:
            self.leave("0")


class Ahead(Loop):
    """``i64 @ahead(args, from)``: look at the packets from ``from`` on; where it stopped."""

    prefetches = False

    def __init__(self, lowerer: Lowerer, variant: Variant, tables: tuple[int, ...]) -> None:
        super().__init__(lowerer, replace(variant, results=False, output=""))
        self._tables = tables
        self.f = Function("define internal i64 @ahead(ptr noalias %a, i64 %from) noinline nounwind")

    def text(self) -> str:
        f, maps = self.f, self.owner.program.maps
        f.lines.append(f"  %found = alloca [{LOT} x i64], align 8")
        self._prologue()
        self.stop = "-1"
        f.label("head")
        f.cond(f.test("uge", self.get("n"), LOT), "leave", "fetch")
        f.label("fetch")
        FETCHERS[self.variant.kind](self)
        f.label("frame")
        if self.variant.sharded:
            self.pass_over()
        self._context()
        f.label("go")
        self._look()
        for name in ("ended", "tick", "odd"):
            f.label(name)
            f.br("leave")
        f.label("leave")
        self._reach()
        f.ret(f"i64 {self.get('pos')}")
        prefetches = [table_prefetches(i, maps[i]) for i in self._tables]
        return "\n".join([*prefetches, KeyLowerer(self.owner, self._tables).text(), f.text()])

    def first(self) -> str:
        return "%from"

    def set_clock(self) -> None:
        """The time stays that of the packet at hand."""

    def _look(self) -> None:
        """What the packet looks up, and its bucket asked for."""
        f, n = self.f, self.get("n")
        self.load_packet()
        found = f.op(f"call i64 @key({self.owner.around.passed})")
        f.store(64, found, f.gep("%found", f.math("shl", n, 3)), 8)
        self._of_table("near", found)
        self.set("n", f.math("add", n, 1))
        self.set("pos", self.get("next"))
        f.br("head")

    def _reach(self) -> None:
        """By now buckets are there: have the elements brought in that they name."""
        f = self.f
        self.set("seen", "0")
        f.label("each")
        k = self.get("seen")
        f.cond(f.test("uge", k, self.get("n")), "done", "reach")
        f.label("reach")
        self._of_table("reach", f.load(64, f.gep("%found", f.math("shl", k, 3)), 8))
        self.set("seen", f.math("add", k, 1))
        f.br("each")
        f.label("done")

    def _of_table(self, function: str, found: str) -> None:
        """Call a function of the table that was found, if any was, with the hash."""
        f = self.f
        index, key_hash = f.trunc(found, 32), f.trunc(f.math("lshr", found, 32), 32)
        after = f.fresh_label("called")
        names = {i: f.fresh_label(function) for i in self._tables}
        f.do(f"switch i32 {index}, label %{after} [ {' '.join(f'i32 {i + 1}, label %{name}' for i, name in names.items())} ]")
        f.open = False
        for i, name in names.items():
            f.label(name)
            f.do(f"call void @{function}{i}(ptr %m{i}, i32 {key_hash})")
            f.br(after)
        f.label(after)


def is_grown(f: Function, lowerer: Lowerer, tables: tuple[int, ...]) -> str:
    """i1: whether one of the tables holds more by now than the near caches do."""
    large = "0"
    for i in tables:
        m = lowerer.program.maps[i]
        held = f.math("mul", f.zext(f.load(32, f.gep(f"%m{i}", 4 * COUNT), 4), 32), _bytes(m, 1))
        large = f.op(f"or i1 {large}, {f.test('uge', held, LARGE_BYTES)}")
    return large
