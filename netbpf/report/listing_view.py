"""A program as a table: instruction numbers, counts, a bar for each count, the text; source lines between them. Draws only."""

from __future__ import annotations

from netbpf.report.html import Markup, element, scroll
from netbpf.report.model import InsnRow, ProgramListing

BAR_PX = 70


def listing_view(program: ProgramListing, most: int) -> Markup:
    """The listing, its bars to the scale of ``most`` executions."""
    rows: list[Markup] = []
    for row in program.rows:
        rows += [_source(line) for line in row.source]
        rows.append(_insn(row, most))
    heads = [element("th", text, scope="col") for text in ("pc", "executed", "", "instruction")]
    body = element("table", element("thead", element("tr", heads)), element("tbody", rows))
    return scroll(f"Instructions of {program.name}", body, kind="listing")


def _source(line: str) -> Markup:
    return element("tr", element("td"), element("td"), element("td"), element("td", line), class_="src")


def _insn(row: InsnRow, most: int) -> Markup:
    cells = (
        element("th", row.pc, scope="row"),
        element("td", f"{row.count:,}", class_="n"),
        element("td", heat_bar(row.count, most), class_="heat"),
        element("td", row.text),
    )
    return element("tr", cells, class_=None if row.count else "never")


def heat_bar(count: int, most: int) -> Markup:
    """A bar of ``count`` out of ``most``; the number itself stands beside it."""
    width = BAR_PX * count / most if most else 0.0
    bar = element("rect", width=f"{max(width, 1.0):.1f}", height=9, class_="bar") if count else None
    shapes = (element("rect", width=BAR_PX, height=9, class_="track"), bar)
    return element("svg", shapes, viewBox=f"0 0 {BAR_PX} 9", width=BAR_PX, height=9, aria_hidden="true")
