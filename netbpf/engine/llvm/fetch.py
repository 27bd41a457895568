"""The next packet of a loop in native code: a row of columns, a record of a pcap window, a block of a pcapng one (of
a ring: ``ring``).

A fetcher sets the loop's slots caplen, wirelen, stamp, interface, direction and next, and ``%raw.v``, the packet's first byte,
then goes on in block ``frame``; or it leaves for ``ended`` (nothing whole is left), ``tick`` (the packet's time is stop_ns or
later; not of a loop without a stop_ns), ``odd`` (Python deals with what is there) or ``strange`` (a tolerant loop does). Nothing
was consumed then.

A stamp is the packet's time in a form that orders as times do: of a pcap record seconds << 32 | fraction, as two multiplications
a packet tell in a loop this short; else nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from netbpf.engine.llvm.ir import Function
from netbpf.engine.llvm.prefetch import emit_prefetch
from netbpf.packet.layout import LAYOUT_ROW_WORDS

if TYPE_CHECKING:
    from netbpf.engine.llvm.loop import Loop

COLUMNS: Final = ("offset", "caplen", "wirelen", "ts", "direction", "interface")

SHB, IDB, OPB, SPB, EPB = 0x0A0D_0D0A, 1, 2, 3, 6
PACKET_BODY: Final = 28  # where an enhanced or obsolete packet block's packet begins
EPB_FLAGS: Final = 2
MAX_BLOCK_BYTES: Final = 16 << 20


def stop_at_tick(p: Loop) -> None:
    f = p.f
    if p.stop:
        f.cond(f.test("uge", p.get("stamp"), p.stop), "tick", "before")
        f.label("before")


def _word(p: Loop, base: str, off: int, bits: int = 32) -> str:
    """An integer of a header, in the file's byte order, as i64."""
    f = p.f
    word = f.load(bits, f.gep(base, off))
    return f.zext(f.bswap(word, bits) if p.variant.big_endian else word, bits)


# --- columns -----------------------------------------------------------------------------------------------------------------
def fetch_row(p: Loop) -> None:
    f = p.f
    i = p.get("pos")
    f.cond(f.test("uge", i, p.end), "ended", "row")
    f.label("row")
    for name, bits in (("offset", 64), ("caplen", 32), ("wirelen", 32), ("ts", 64), ("interface", 32), ("direction", 8)):
        at = f.op(f"getelementptr i{bits}, ptr {p.columns[name]}, i64 {i}")
        value = f.zext(f.load(bits, at, bits // 8), bits)
        if name == "offset":
            p.set_raw(f.gep(p.buf, value))
        else:
            p.set("stamp" if name == "ts" else name, value)
    p.set("next", f.math("add", i, 1))
    stop_at_tick(p)


# --- pcap ---------------------------------------------------------------------------------------------------------------------
def fetch_record(p: Loop) -> None:
    f, v = p.f, p.variant
    pos = p.get("pos")
    data = f.math("add", pos, v.header_bytes)
    f.cond(f.test("ugt", data, p.end), "ended", "header")
    f.label("header")
    at = f.gep(p.buf, pos)
    caplen, wirelen = _word(p, at, 12 if v.wirelen_first else 8), _word(p, at, 8 if v.wirelen_first else 12)
    p.set("caplen", caplen)
    f.unlikely(f.test("ugt", caplen, p.usual_caplen), "large" if v.tolerant else "strange", "sane")
    if v.tolerant:
        f.label("large")
        p.set("caplen", p.snaplen)
        f.cond(f.test("ugt", caplen, p.max_caplen), "odd", "sane")
    f.label("sane")
    after = f.math("add", data, caplen)
    f.cond(f.test("ugt", after, p.end), "ended", "whole")
    f.label("whole")
    p.set("wirelen", wirelen)
    p.set("next", after)
    p.set_raw(f.gep(p.buf, data))
    if p.stop:
        _stamp(p, at)
    stop_at_tick(p)
    emit_prefetch(p, pos)


def _stamp(p: Loop, at: str) -> None:
    """A record's time. A fraction of a second or more is carried over to the seconds, as far as those hold it."""
    f = p.f
    words = f.load(64, at)
    stamp = f.bswap(words, 64) if p.variant.big_endian else f.math("or", f.math("shl", words, 32), f.math("lshr", words, 32))
    p.set("stamp", stamp)
    f.unlikely(f.test("uge", f.math("and", stamp, 0xFFFF_FFFF), p.units), "carry" if p.variant.tolerant else "strange", "stamped")
    if p.variant.tolerant:
        _carry(p, stamp)
    f.label("stamped")


def _carry(p: Loop, stamp: str) -> None:
    f = p.f
    f.label("carry")
    carried = f.op(f"call preserve_mostcc i64 @carry(i64 {stamp}, i64 {p.scale})")
    p.set("stamp", carried)
    f.cond(f.test("eq", carried, -1), "odd", "stamped")


def carry_function() -> str:
    """``@carry`` as ``_stamp`` calls it; it keeps the registers, as those of the loop are few."""
    f = Function("define internal preserve_mostcc i64 @carry(i64 %stamp, i64 %scale) noinline cold nounwind")
    f.ret(f"i64 {_as_stamp(f, _stamp_ns(f, '%stamp', '%scale'), '%scale')}")
    return f.text()


def _as_stamp(f: Function, ns: str, scale: str) -> str:
    """A time of pcap records, rounded up to their units; all ones where their seconds do not reach it."""
    seconds, rest = f.math("udiv", ns, 1_000_000_000), f.math("urem", ns, 1_000_000_000)
    fraction = f.math("udiv", f.math("add", rest, f.math("sub", scale, 1)), scale)
    stamp = f.math("or", f.math("shl", seconds, 32), fraction)
    return f.select(f.test("ugt", seconds, 0xFFFF_FFFF), 64, "-1", stamp)


def _stamp_ns(f: Function, stamp: str, scale: str) -> str:
    fraction = f.math("mul", f.math("and", stamp, 0xFFFF_FFFF), scale)
    return f.math("add", f.math("mul", f.math("lshr", stamp, 32), 1_000_000_000), fraction)


def stamp_ns(p: Loop, stamp: str) -> str:
    """A stamp in nanoseconds."""
    return _stamp_ns(p.f, stamp, p.scale) if p.variant.kind == "pcap" else stamp


def ns_stamp(p: Loop, ns: str) -> str:
    """The first stamp at a time or after it."""
    return _as_stamp(p.f, ns, p.scale) if p.variant.kind == "pcap" else ns


# --- pcapng -------------------------------------------------------------------------------------------------------------------
def fetch_block(p: Loop) -> None:
    """A packet block, whatever its kind, of an interface in the table; blocks without a packet are passed over, but those that
    change what is known (a section, an interface) are odd, and so is what is broken."""
    f = p.f
    pos = p.get("pos")
    f.cond(f.test("ugt", f.math("add", pos, 12), p.end), "ended", "block")
    f.label("block")
    at = f.gep(p.buf, pos)
    kind, total = _word(p, at, 0), _word(p, at, 4)
    aligned = f.test("eq", f.math("and", total, 3), 0)
    sane = f.test("ule", f.math("sub", total, 12), MAX_BLOCK_BYTES - 12)
    f.cond(f.both(aligned, sane), "sized", "odd")
    f.label("sized")
    after = f.math("add", pos, total)
    f.cond(f.test("ugt", after, p.end), "ended", "whole")
    f.label("whole")
    again = _word(p, f.gep(p.buf, f.math("sub", after, 4)), 0)
    f.cond(f.test("eq", again, total), "known", "odd")
    f.label("known")
    p.set("next", after)
    p.set("direction", "0")
    packets = f"i64 {EPB}, label %enhanced i64 {OPB}, label %obsolete i64 {SPB}, label %simple"
    f.do(f"switch i64 {kind}, label %pass [ {packets} i64 {SHB}, label %odd i64 {IDB}, label %odd ]")
    f.open = False
    f.label("pass")
    p.set("pos", after)
    f.br("head")
    _simple(p, at, total)
    f.label("obsolete")
    p.set("interface", _word(p, at, 8, 16))
    f.br("timed")
    f.label("enhanced")
    p.set("interface", _word(p, at, 8))
    f.br("timed")
    f.label("timed")
    _timed(p, pos, at, total)
    f.label("told")
    p.set("interface", f.math("add", p.get("interface"), p.arg("first_interface")))
    stop_at_tick(p)
    emit_prefetch(p, pos)


def _row(p: Loop, name: str) -> str:
    """The table's row of the interface in slot ``interface``; on in block ``name`` where there is one of a usable kind."""
    f = p.f
    interface = p.get("interface")
    f.cond(f.test("ult", interface, p.n_layouts), name + "_row", "odd")
    f.label(name + "_row")
    row = f.gep(p.layouts, f.math("mul", interface, 8 * LAYOUT_ROW_WORDS))
    f.cond(f.test("ne", f.load(64, row, 8), 0), name, "odd")
    f.label(name)
    return row


def _simple(p: Loop, at: str, total: str) -> None:
    """A simple packet block: of interface 0, without a time."""
    f = p.f
    f.label("simple")
    p.set("interface", "0")
    f.cond(f.test("ult", total, 16), "odd", "long")
    f.label("long")
    row = _row(p, "plain")
    snaplen, wirelen = f.load(64, f.gep(row, 8), 8), _word(p, at, 8)
    caplen = f.select(f.test("ult", wirelen, snaplen), 64, wirelen, snaplen)
    fits = f.test("ule", f.math("add", caplen, 16), total)
    small = f.test("ule", caplen, p.max_caplen)
    f.cond(f.both(fits, small), "untimed", "odd")
    f.label("untimed")
    for slot, value in (("caplen", caplen), ("wirelen", wirelen), ("stamp", "0")):
        p.set(slot, value)
    p.set_raw(f.gep(at, 12))
    f.br("told")


def _timed(p: Loop, pos: str, at: str, total: str) -> None:
    """An enhanced or obsolete packet block: they differ in where the interface stands alone."""
    f = p.f
    f.cond(f.test("ult", total, PACKET_BODY + 4), "odd", "roomy")
    f.label("roomy")
    row = _row(p, "measured")
    caplen, snaplen = _word(p, at, 20), f.load(64, f.gep(row, 8), 8)
    options = f.math("add", f.math("and", f.math("add", caplen, 3), -4), PACKET_BODY)
    fits = f.test("ule", f.math("add", options, 4), total)
    for limit in (snaplen, p.max_caplen):
        fits = f.both(fits, f.test("ule", caplen, limit))
    f.cond(fits, "stamp", "odd")
    f.label("stamp")
    p.set("caplen", caplen)
    p.set("wirelen", _word(p, at, 24))
    p.set("stamp", _ticks_to_ns(p, row, f.math("or", f.math("shl", _word(p, at, 12), 32), _word(p, at, 16))))
    p.set_raw(f.gep(at, PACKET_BODY))
    first = f.math("add", pos, options)
    last = f.math("sub", f.math("add", pos, total), 4)
    f.cond(f.test("eq", first, last), "told", "flagged")
    f.label("flagged")
    _direction(p, first, last)


def _ticks_to_ns(p: Loop, row: str, ticks: str) -> str:
    """ticks * multiplier / divisor + offset, divided first so that nothing is lost: the table's rows promise that
    multiplier * divisor fits into 64 bits."""
    f = p.f
    multiplier, divisor, offset = (f.load(64, f.gep(row, 16 + 8 * k), 8) for k in range(3))
    whole, rest = f.math("udiv", ticks, divisor), f.math("urem", ticks, divisor)
    part = f.math("udiv", f.math("mul", rest, multiplier), divisor)
    return f.math("add", f.math("add", f.math("mul", whole, multiplier), part), offset)


def _direction(p: Loop, first: str, last: str) -> None:
    """epb_flags' two low bits from the options at [first, last): 1 inbound, 2 outbound; a list out of order ends it."""
    f = p.f
    p.set("option", first)
    f.label("option")
    at = p.get("option")
    value = f.math("add", at, 4)
    f.cond(f.test("ugt", value, last), "told", "coded")
    f.label("coded")
    here = f.gep(p.buf, at)
    code, size = _word(p, here, 0, 16), _word(p, here, 2, 16)
    after = f.math("add", value, f.math("and", f.math("add", size, 3), -4))
    ends = f.op(f"or i1 {f.test('ugt', after, last)}, {f.test('eq', code, 0)}")
    f.cond(ends, "told", "inside")
    f.label("inside")
    p.set("option", after)
    flags = f.both(f.test("eq", code, EPB_FLAGS), f.test("eq", size, 4))
    f.cond(flags, "flags", "option")
    f.label("flags")
    both = f.math("and", _word(p, f.gep(p.buf, value), 0), 3)
    p.set("direction", f.select(f.test("eq", both, 3), 64, "0", both))
    f.br("told")


FETCHERS: Final[dict[str, Callable[[Loop], None]]] = {
    "columns": fetch_row, "pcap": fetch_record, "pcapng": fetch_block,
}  # fmt: skip
