"""What a loop in native code leaves behind of a packet: its row in the columns of verdicts, its record in a written capture.

A written capture is bytes in a buffer that Python empties: little-endian, as ``packet.pcap`` and ``packet.pcapng`` write them.
Whether the record has room is asked before the program runs (block ``room`` leaves with nothing consumed). A pcapng block of
an interface that the file does not know yet ends the run behind it: Python describes the interface before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netbpf.engine.llvm.abi import ARGS
from netbpf.packet.layout import LAYOUT_ROW_WORDS
from netbpf.packet.sink import WRITTEN_SNAPLEN

if TYPE_CHECKING:
    from netbpf.engine.llvm.loop import Loop

OVERHEAD_BYTES: Final = 64  # of a record beside its packet, at most
PCAP_HEADER, BLOCK_HEADER = 16, 28
EPB: Final = 6
FLAGS_OPTION: Final = 4 << 16 | 2  # code 2, 4 bytes


def emit_columns(p: Loop, verdict: str, short: str, trimmed: str) -> None:
    """The packet's row: verdict, bytes kept, whether it lost some."""
    f, n = p.f, p.get("n")
    kept = f.select(short, 64, verdict, "%len")
    for column, bits, value in (("verdict_col", 32, verdict), ("kept_col", 32, kept), ("trimmed_col", 8, trimmed)):
        f.store(bits, f.trunc(value, bits), f.op(f"getelementptr i{bits}, ptr {p.results[column]}, i64 {n}"), bits // 8)


def emit_room(p: Loop) -> None:
    """Go on where a record of this packet has room, and can hold its time."""
    f = p.f
    need = f.math("add", _most(p, p.get("caplen")), OVERHEAD_BYTES)
    f.cond(f.test("ugt", f.math("add", p.get("out"), need), p.out_size), "room", "roomy_out")
    f.label("roomy_out")
    if p.variant.output == "pcap":
        seconds = f.math("udiv", p.get_ns(), 1000000000)
        f.cond(f.test("ugt", seconds, 4294967295), "odd", "timely")
        f.label("timely")


def _most(p: Loop, size: str) -> str:
    return p.f.select(p.f.test("ult", size, WRITTEN_SNAPLEN), 64, size, str(WRITTEN_SNAPLEN))


def emit_store(p: Loop, verdict: str, accepted: str, short: str) -> None:
    """Append the packet where it was accepted, cut as the verdict says; then on in block ``head``."""
    f = p.f
    f.cond(accepted, "keep", "head")
    f.label("keep")
    caplen = p.get("caplen")
    cut = f.math("add", verdict, p.get("moved"))  # a tag that was moved out is in the capture's bytes
    wanted = f.select(short, 64, cut, caplen)
    size = _most(p, f.select(f.test("ult", wanted, caplen), 64, wanted, caplen))
    at = f.gep(p.out, p.get("out"))
    if p.variant.output == "pcap":
        _record(p, at, size)
    else:
        _block(p, at, size)


def _put(p: Loop, at: str, off: int, value: str) -> None:
    p.f.store(32, p.f.trunc(value, 32), p.f.gep(at, off))


def _copy(p: Loop, to: str, size: str) -> None:
    p.f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr {p.raw()}, i64 {size}, i1 false)")


def _record(p: Loop, at: str, size: str) -> None:
    f, ts = p.f, p.get_ns()
    seconds, ns = f.math("udiv", ts, 1000000000), f.math("urem", ts, 1000000000)
    fraction = ns if p.variant.output_unit_ns == 1 else f.math("udiv", ns, p.variant.output_unit_ns)
    for k, word in enumerate((seconds, fraction, size, p.get("wirelen"))):
        _put(p, at, 4 * k, word)
    _copy(p, f.gep(at, PCAP_HEADER), size)
    p.set("out", f.math("add", f.math("add", p.get("out"), size), PCAP_HEADER))
    _written(p)
    f.br("head")


def _written(p: Loop) -> None:
    p.set("written", p.f.math("add", p.get("written"), 1))


def _block(p: Loop, at: str, size: str) -> None:
    """An enhanced packet block, its padding zero, with epb_flags where the direction is known."""
    f, ts, direction = p.f, p.get_ns(), p.get("direction")
    interface = f.math("sub", p.get("interface"), p.arg("first_interface"))
    row = f.gep(p.layouts, f.math("mul", interface, 8 * LAYOUT_ROW_WORDS))
    number = f.load(64, f.gep(row, 40), 8)  # one more than the file's number of it; 0: it has none yet
    padded = f.math("and", f.math("add", size, 3), -4)
    directed = f.test("ne", direction, 0)
    extra = f.select(directed, 64, "12", "0")
    total = f.math("add", f.math("add", padded, extra), BLOCK_HEADER + 4)
    end = f.gep(at, f.math("add", padded, BLOCK_HEADER))
    _put(p, end, -4, "0")
    high = f.math("lshr", ts, 32)
    for k, word in enumerate((str(EPB), total, f.math("sub", number, 1), high, ts, size, p.get("wirelen"))):
        _put(p, at, 4 * k, word)
    _copy(p, f.gep(at, BLOCK_HEADER), size)
    f.cond(directed, "directed", "closed")
    f.label("directed")
    for k, word in enumerate((str(FLAGS_OPTION), direction, "0")):
        _put(p, end, 4 * k, word)
    f.label("closed")
    _put(p, f.gep(at, f.math("sub", total, 4)), 0, total)
    begun = p.get("out")
    p.set("out", f.math("add", begun, total))
    _written(p)
    f.cond(f.test("eq", number, 0), "unknown", "head")
    f.label("unknown")
    f.store(64, interface, f.gep("%a", ARGS["out_interface"]), 8)
    f.store(64, begun, f.gep("%a", ARGS["out_mark"]), 8)
    f.br("described")
