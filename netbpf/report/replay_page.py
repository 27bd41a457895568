"""The page of a replay: what became of the packets, when, by protocol; what the maps held; where the program spent its time.

Draws a :class:`ReplayReport`; gathers nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

from netbpf.report import plot
from netbpf.report.html import Child, Markup, element, join, page, scroll, table
from netbpf.report.listing_view import heat_bar, listing_view
from netbpf.report.model import VERDICTS, Bins, InsnRow, MapCurves, MapTable, ReplayReport
from netbpf.report.ticks import duration, si

FILLS: Final = ("accepted", "trimmed", "dropped")  # classes of the style sheet, in the order of VERDICTS
MAX_PROTOCOLS: Final = 14
HOTTEST: Final = 10
LONG: Final = 40  # characters of a key or value that take more than one line
_SECTIONS: Final = (
    ("time", "Over trace time"),
    ("protocols", "Protocols"),
    ("maps", "Maps"),
    ("hot", "Hot instructions"),
    ("program", "Program"),
    ("run", "This run"),
)


def render(report: ReplayReport) -> str:
    """The whole HTML document."""
    bodies = (_over_time, _protocols, _maps, _hot, _program, _run)
    sections = [
        element("section", element("h2", title, id=f"{name}-title"), body(report), id=name, aria_labelledby=f"{name}-title")
        for (name, title), body in zip(_SECTIONS, bodies, strict=True)
    ]
    body = join(_header(report), element("main", sections), _PATTERNS)
    return page(f"netbpf replay: {report.title}", body)


_PATTERNS: Final = Markup(
    '<svg class="defs" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6"></rect><path d="M1.5,0V6"></path></pattern>'
    '<pattern id="dots" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect width="6" height="6"></rect><circle cx="3" cy="3" r="1.9"></circle></pattern></defs></svg>'
)


def _header(report: ReplayReport) -> Markup:
    links = [element("a", title, href=f"#{name}") for name, title in _SECTIONS]
    return element(
        "header",
        element("p", "netbpf replay", class_="kicker"),
        element("h1", report.title),
        [element("p", warning, class_="warning", role="note") for warning in report.warnings],
        _tiles(report),
        element("nav", links, aria_label="Sections"),
    )


def _tiles(report: ReplayReport) -> Markup:
    packets = report.packets
    rate = f"{si(packets / report.trace_s)}/s on average" if report.trace_s > 0 else "one moment"
    tiles = [
        ("Packets", f"{packets:,}", rate),
        ("Accepted", f"{report.accepted:,}", percent(report.accepted, packets)),
        ("of these trimmed", f"{report.trimmed:,}", percent(report.trimmed, packets)),
        ("Dropped", f"{report.dropped:,}", percent(report.dropped, packets)),
        ("On the wire", f"{si(report.bytes)}B" if report.bytes >= 10_000 else f"{report.bytes:,} B", "with all headers"),
        ("Trace time", duration(report.trace_s), f"{len(report.bins)} steps of {duration(report.bins.width_ns / 1e9)}"),
    ]
    shown = [element("div", element("dt", a), element("dd", b, element("small", c))) for a, b, c in tiles]
    return element("dl", shown, class_="tiles")


def percent(part: int, whole: int) -> str:
    """``57.3 %``; "none" of nothing."""
    return f"{100 * part / whole:.3g} %" if whole else "none"


# --- over trace time ------------------------------------------------------------------------------------------------------


def _over_time(report: ReplayReport) -> Markup:
    if not report.packets:
        return element("p", "No packet was replayed.")
    return join(_packets_plot(report), _bits_plot(report), [_curves_plot(report, curves) for curves in report.map_curves])


def _figure(title: str, said: str, legend: Sequence[tuple[Markup, str]], drawing: Markup, numbers: Markup) -> Markup:
    """A plot with its legend and, folded away, its numbers."""
    items = [element("li", swatch, name) for swatch, name in legend]
    details = element("details", element("summary", "The numbers as a table"), scroll(f"{title}: numbers", numbers, kind="tall"))
    caption = element("figcaption", element("h3", title), element("p", said, class_="soft"))
    readout = element("p", class_="readout", aria_live="polite")
    return element("figure", caption, element("ul", items, class_="legend"), drawing, readout, details, class_="plot")


def _swatch(*shapes: Markup) -> Markup:
    return element("svg", shapes, viewBox="0 0 30 14", aria_hidden="true")


def fill_swatch(kind: str) -> Markup:
    """A sample of an area."""
    return _swatch(element("rect", x=1, y=1, width=28, height=12, class_=f"area {kind}"))


def line_swatch(series: int, *, marked: bool) -> Markup:
    """A sample of a line, and of its mark."""
    mark = element("path", d=plot.mark(series, 15, 7), class_=f"mark s{series}") if marked else Markup("")
    return _swatch(element("path", d="M0,7L30,7", class_=f"line s{series}"), mark)


def _span_s(report: ReplayReport) -> float:
    """The time that plots span: the trace's, and one step where all packets came at once."""
    return report.trace_s or report.bins.width_ns / 1e9


def _middles(report: ReplayReport) -> Iterator[float]:
    """The middle of each step, as a share of the span."""
    span, step = _span_s(report), report.bins.width_ns / 1e9
    return (min(1.0, (i + 0.5) * step / span) for i in range(len(report.bins)))


def _packets_plot(report: ReplayReport) -> Markup:
    bins, step_s = report.bins, report.bins.width_ns / 1e9
    totals = [sum(three) for three in zip(*bins.packets, strict=True)]
    peak = max(range(len(totals)), key=totals.__getitem__)
    said = (
        f"By verdict, stacked; each step is {duration(step_s)}. Peak {si(totals[peak] / step_s)}/s at {_at(peak, bins)}, "
        f"average {si(report.packets / _span_s(report))}/s."
    )
    rates = [[n / step_s for n in column] for column in bins.packets]
    drawing = plot.time_plot(
        f"Packets per second over trace time. {said}",
        _span_s(report),
        max(totals) / step_s,
        plot.stacked_steps(rates, step_s, FILLS),
    )
    rows = zip((_at(i, bins) for i in range(len(bins))), *bins.packets, (si(n / step_s) for n in totals), strict=True)
    head = ("from", *VERDICTS, "packets/s")
    numbers = table(head, rows, caption=f"Packets in each {duration(step_s)}", classes=_numeric(1, 5), at=_middles(report))
    legend = [(fill_swatch(kind), name) for kind, name in zip(FILLS, VERDICTS, strict=True)]
    return _figure("Packets per second", said, legend, drawing, numbers)


def _numeric(first: int, end: int) -> dict[int, str]:
    return dict.fromkeys(range(first, end), "n")


def _at(i: int, bins: Bins) -> str:
    return duration(i * bins.width_ns / 1e9)


def _bits_plot(report: ReplayReport) -> Markup:
    bins, step_s = report.bins, report.bins.width_ns / 1e9
    wire, kept = ([8 * n / step_s for n in column] for column in (bins.wire_bytes, bins.kept_bytes))
    total_kept = sum(bins.kept_bytes)
    said = (
        f"{report.bytes:,} bytes on the wire; {total_kept:,} bytes ({percent(total_kept, report.bytes)}) reach the socket, "
        "after drops and trims."
    )
    draw = plot.together(plot.step_line(wire, step_s, 0), plot.step_line(kept, step_s, 1))
    drawing = plot.time_plot(f"Bits per second over trace time. {said}", _span_s(report), max(wire), draw)
    rows = zip((_at(i, bins) for i in range(len(bins))), bins.wire_bytes, bins.kept_bytes, (si(b) for b in wire), strict=True)
    head = ("from", "bytes on the wire", "bytes kept", "bit/s on the wire")
    numbers = table(head, rows, caption=f"Bytes in each {duration(step_s)}", classes=_numeric(1, 4), at=_middles(report))
    legend = [(line_swatch(0, marked=False), "on the wire"), (line_swatch(1, marked=False), "kept by the socket")]
    return _figure("Bits per second", said, legend, drawing, numbers)


def _curves_plot(report: ReplayReport, curves: MapCurves) -> Markup:
    span = _span_s(report)
    times = [min(t, span) for t in curves.times_s]  # the last interval ends with the trace
    top = max(v for curve in curves.curves for v in curve.values if v is not None)
    said = f"Read at the end of every {duration(report.interval_s)} of trace time (--interval), drawn at {len(times)} of them."
    if curves.left_out:
        said += f" {curves.left_out} more entries changed and are not drawn."
    draw = plot.together(*(plot.marked_line(times, curve.values, i) for i, curve in enumerate(curves.curves)))
    last = ", ".join(f"{curve.label}: {curve.values[-1]}" for curve in curves.curves)
    drawing = plot.time_plot(f"Entries of map {curves.map_name} over trace time, at the end {last}.", span, top, draw, whole=True)
    columns = [["" if v is None else f"{v:,}" for v in curve.values] for curve in curves.curves]
    rows = zip((duration(t) for t in times), *columns, strict=True)
    head = ("at", *(plot.shorten(curve.label, 40) for curve in curves.curves))
    numbers = table(
        head, rows, caption=f"Entries of {curves.map_name}", classes=_numeric(1, len(head)), at=(t / span for t in times)
    )
    legend = [
        (line_swatch(i, marked=True), f"{plot.shorten(curve.label, 60)}, at the end {curve.values[-1]:,}")
        for i, curve in enumerate(curves.curves)
    ]
    return _figure(f"Map {curves.map_name}", said, legend, drawing, numbers)


# --- protocols ------------------------------------------------------------------------------------------------------------


def _protocols(report: ReplayReport) -> Markup:
    if not report.protocols:
        return element("p", "No packet was replayed.")
    rows = report.protocols[:MAX_PROTOCOLS]
    rest = report.protocols[MAX_PROTOCOLS:]
    if rest:
        rows = [*rows, (f"{len(rest)} others", _sum_of([counts for _, counts in rest]))]
    bars = [plot.Bar(label, tuple(zip(FILLS, counts, strict=True)), _mix_note(counts)) for label, counts in rows]
    drawing = plot.bar_plot("Packets by protocol and verdict: " + "; ".join(f"{b.label} {b.note}" for b in bars), bars)
    numbers = table(
        ("protocol", "packets", *VERDICTS),
        [(label, sum(counts), *counts) for label, counts in report.protocols],
        caption="Packets by protocol and verdict",
        classes=_numeric(1, 5),
    )
    legend = [element("li", fill_swatch(kind), name) for kind, name in zip(FILLS, VERDICTS, strict=True)]
    details = element("details", element("summary", "The numbers as a table"), scroll("Protocols: numbers", numbers, kind="tall"))
    said = element("p", "Every packet, by what it carries behind VLAN tags and IPv6 extension headers.", class_="soft")
    return element("figure", element("figcaption", said), element("ul", legend, class_="legend"), drawing, details)


def _sum_of(rows: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    a, b, c = (sum(column) for column in zip(*rows, strict=True))
    return a, b, c


def _mix_note(counts: tuple[int, int, int]) -> str:
    """``305: all dropped``, or the share that is accepted."""
    total, (whole, trimmed, _) = sum(counts), counts
    for name, n in zip(VERDICTS, counts, strict=True):
        if n == total:
            return f"{total:,}, all {name}"
    return f"{total:,}, {percent(whole + trimmed, total)} accepted" + (f", {trimmed:,} cut" if trimmed else "")


# --- maps -----------------------------------------------------------------------------------------------------------------


def _maps(report: ReplayReport) -> Markup:
    if not report.map_tables:
        return element("p", "The program has no maps.")
    return join([_map(t) for t in report.map_tables])


def _map(t: MapTable) -> Markup:
    head: list[Child] = [element("h3", t.name), element("p", _map_words(t), class_="soft")]
    if not t.rows:
        return join(head)
    numbered = [row.number for row in t.rows]
    top = max((n for n in numbered if n is not None), default=0)
    rows = [(row.key, row.value, _share(row.number, top), row.key_hex, row.value_hex) for row in t.rows]
    names = ("key", "value", "", "key bytes", "value bytes")
    wide = {i: "long" for i in (0, 1) if any(len(str(row[i])) > LONG for row in rows)}
    classes = {0: "value", 1: "value", 2: "heat", 3: "hex", 4: "hex", **wide}
    caption = f"Entries of {t.name}" + (f", largest {t.order} first" if t.order else ", in the map's order")
    return join(head, scroll(f"Entries of map {t.name}", table(names, rows, caption=caption, classes=classes)))


def _map_words(t: MapTable) -> str:
    said = f"{t.kind}, room for {t.max_entries:,} entries"
    if t.total:
        said += f"; {t.total:,} there at the end" + (f", {len(t.rows)} shown" if len(t.rows) < t.total else "")
    elif not t.note:
        said += "; empty at the end"
    return f"{said}. {t.note}".rstrip()


def _share(value: int | None, top: int) -> Markup:
    """A small bar beside a number that stands in words in its row; nothing where entries have no order."""
    return Markup("") if value is None else heat_bar(max(0, value), max(0, top))


# --- instructions -----------------------------------------------------------------------------------------------------------


def _hot(report: ReplayReport) -> Markup:
    insns = report.insns
    if not insns.executed:
        return element("p", "No instruction was executed.")
    counted = "every packet" if insns.whole else f"the first {insns.packets:,} packets"
    said = (
        f"Counted on {counted}, run on the reference interpreter with maps of their own: {insns.executed:,} instructions, "
        f"{insns.executed / insns.packets:.4g} a packet."
    )
    hottest = sorted(_named_rows(report), key=lambda item: -item[1].count)[:HOTTEST]
    bars = [
        plot.Bar(f"{prefix}{row.pc}: {row.text}", (("plain", row.count),), f"{row.count:,}, {percent(row.count, insns.executed)}")
        for prefix, row in hottest
        if row.count
    ]
    label = "The most executed instructions: " + "; ".join(f"{b.label}, {b.note}" for b in bars)
    numbers = table(
        ("instruction", "executed", "share"),
        [(f"{p}{row.pc}: {row.text}", f"{row.count:,}", percent(row.count, insns.executed)) for p, row in hottest],
        caption="The most executed instructions",
        classes=_numeric(1, 3),
    )
    details = element("details", element("summary", "The numbers as a table"), scroll("Hot instructions: numbers", numbers))
    return element("figure", element("figcaption", element("p", said, class_="soft")), plot.bar_plot(label, bars), details)


def _named_rows(report: ReplayReport) -> Iterator[tuple[str, InsnRow]]:
    """All instructions; where several programs ran, each with its program's name in front."""
    programs = report.insns.programs
    return chain.from_iterable(((f"{p.name} " if len(programs) > 1 else "", row) for row in p.rows) for p in programs)


def _program(report: ReplayReport) -> Markup:
    most = max((row.count for p in report.insns.programs for row in p.rows), default=0)
    said = "Instruction, how often it was executed, and its text; greyed where it never was."
    parts: list[Child] = [element("p", said, class_="soft")]
    for program in report.insns.programs:
        parts += [element("h3", program.name), listing_view(program, most)]
    return join(parts)


def _run(report: ReplayReport) -> Markup:
    return element("dl", [join(element("dt", what), element("dd", text)) for what, text in report.summary], class_="facts")
