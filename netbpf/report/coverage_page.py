"""The page of coverage: for each program its source lines, its instructions with how often each ran, jumps both ways, and what
the verifier knew at each instruction.

Draws :class:`ProgramCoverage` values; counts nothing. No state is told by colour alone: each has a sign and words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from netbpf.explain.coverage import LineHits, ProgramCoverage, Share
from netbpf.explain.coverage_text import program_label
from netbpf.explain.listing import SourceLine
from netbpf.report.html import Child, Markup, element, join, page, scroll, table
from netbpf.report.listing_view import heat_bar

HIT: Final = "hit"
HALF: Final = "half"
NEVER: Final = "never"
DEAD: Final = "dead"
SIGNS: Final = {HIT: "●", HALF: "◐", NEVER: "○", DEAD: "-"}
WORDS: Final = {
    HIT: "ran",
    HALF: "ran, but a jump went one way only",
    NEVER: "never ran",
    DEAD: "no run can reach it, as the verifier proved",
}
COLUMNS: Final = 6  # of a listing


def render(programs: Sequence[ProgramCoverage], title: str = "") -> str:
    """The whole HTML document; ``title`` is what the coverage is of, by default the programs' names."""
    named = title or _names(programs)
    sections = [_program(i, p) for i, p in enumerate(programs)]
    body = join(_header(programs, named), element("main", _overview(programs), sections))
    return page(f"netbpf coverage: {named}", body)


def _names(programs: Sequence[ProgramCoverage]) -> str:
    """What a page of these programs is called."""
    if len(programs) == 1:
        return program_label(programs[0])
    files = sorted({p.path.rsplit("/", 1)[-1] for p in programs if p.path})
    return f"{len(programs)} programs" + (f" of {', '.join(files)}" if files else "")


def _header(programs: Sequence[ProgramCoverage], title: str) -> Markup:
    signs = [element("li", element("span", SIGNS[s], class_=f"sign {s}", aria_hidden="true"), WORDS[s]) for s in SIGNS]
    return element(
        "header",
        element("p", "netbpf coverage", class_="kicker"),
        element("h1", title),
        _tiles(programs),
        element("ul", signs, class_="legend", aria_label="Signs"),
    )


def _tiles(programs: Sequence[ProgramCoverage]) -> Markup:
    shares = (
        ("Instructions", [p.instructions for p in programs], "that a run can reach"),
        ("Jumps", [p.branches for p in programs], "each both ways"),
        ("Source lines", [p.source_lines for p in programs], "with instructions"),
        ("Functions", [p.function_share for p in programs], ""),
    )
    tiles = [_tile(name, _sum(each), words) for name, each, words in shares]
    runs = sum(p.runs for p in programs)
    runs_tile = element("div", element("dt", "Runs"), element("dd", f"{runs:,}", element("small", "counted in the interpreter")))
    return element("dl", [*tiles, runs_tile], class_="tiles")


def _tile(name: str, share: Share, words: str) -> Markup:
    said = f"{share.percent:.1f} %" if share.total else "none"
    return element("div", element("dt", name), element("dd", said, element("small", f"{share.hit:,} of {share.total:,} {words}")))


def _sum(shares: Sequence[Share]) -> Share:
    return Share(sum(s.hit for s in shares), sum(s.total for s in shares))


def _overview(programs: Sequence[ProgramCoverage]) -> Markup:
    """A row a program, where there are several."""
    if len(programs) < 2:
        return Markup("") if programs else element("p", "No program was counted.")
    rows = [
        (element("a", program_label(p), href=f"#p{i}"), f"{p.runs:,}", *map(_share_words, _shares_of(p)))
        for i, p in enumerate(programs)
    ]
    head = ("program", "runs", "instructions", "jumps both ways", "source lines")
    numbers = table(head, rows, caption="Programs", classes=dict.fromkeys(range(1, 5), "n"))
    return element("section", element("h2", "Programs"), scroll("Programs", numbers))


def _shares_of(program: ProgramCoverage) -> tuple[Share, Share, Share]:
    return program.instructions, program.branches, program.source_lines


def _share_words(share: Share) -> str:
    return f"{share.percent:.0f} % ({share})" if share.total else "none"


# --- a program --------------------------------------------------------------------------------------------------------------


def _program(number: int, program: ProgramCoverage) -> Markup:
    title = element("h2", program_label(program), id=f"p{number}-title")
    parts: list[Child] = [title, element("p", _words(program), class_="soft")]
    if len(program.functions) > 1:
        parts.append(_functions(number, program))
    lines = program.line_hits()
    if lines:
        parts += [element("h3", "Source"), _source_view(number, lines)]
    tools = [element("button", "Only what was missed", type="button", data_toggle="only-missed", aria_pressed="false")]
    if program.states:
        tools.append(element("button", "Open all verifier states", type="button", data_toggle="states", aria_pressed="false"))
        tools.append(element("span", "or click an instruction for what the verifier knew there", class_="soft"))
    parts += [element("h3", "Instructions"), element("p", tools, class_="tools"), _listing(number, program)]
    return element("section", parts, id=f"p{number}", class_="program", aria_labelledby=f"p{number}-title")


def _words(program: ProgramCoverage) -> str:
    said = f"{program.runs:,} runs; {_share_words(program.instructions)} of its instructions, "
    said += f"{_share_words(program.branches)} of its jumps' ways, {_share_words(program.source_lines)} of its source lines."
    return f"{said} From {program.path}." if program.path else said


def _functions(number: int, program: ProgramCoverage) -> Markup:
    rows = [(element("a", f.name or f"at {f.start}", href=f"#p{number}-{f.start}"), f"{n:,}") for f, n in program.function_hits()]
    numbers = table(("function", "entered"), rows, caption="How often each was entered", classes={1: "n"})
    return join(element("h3", "Functions"), numbers)


# --- source -----------------------------------------------------------------------------------------------------------------


def _source_view(number: int, lines: Sequence[LineHits]) -> Markup:
    parts: list[Child] = []
    for file, rows in groupby(lines, key=lambda row: row.source.file):
        parts.append(_file(number, file, list(rows)))
    return join(parts)


def _file(number: int, file: str, rows: list[LineHits]) -> Markup:
    most = max(row.hits for row in rows)
    body: list[Markup] = []
    before = rows[0].source.line
    for row in rows:
        if row.source.line > before + 1:
            body.append(element("tr", element("td", "⋮"), element("td", colspan=COLUMNS - 1), class_="gap"))
        before = row.source.line
        body.append(_line(number, row, most))
    heads = [element("th", text, scope="col", class_=kind) for text, kind in _HEADS["line", "source"]]
    caption = element("caption", f"{file}: lines that have instructions")
    listing = element("table", caption, element("thead", element("tr", heads)), element("tbody", body))
    return scroll(f"Source lines of {file}", listing, kind="listing full")


_HEADS: Final = {
    names: ((names[0], None), ("", "sign"), ("runs", "n"), ("", "heat"), ("ways of jumps", None), (names[1], None))
    for names in (("line", "source"), ("pc", "instruction"))
}


def _line(number: int, row: LineHits, most: int) -> Markup:
    ways = [way > 0 for _, taken, passed in row.branches for way in (taken, passed)]
    status = NEVER if not row.hits else HALF if not all(ways) else HIT
    said = f"{sum(ways)} of {len(ways)}" if ways else ""
    link = element("a", row.source.line, href=f"#p{number}-{row.pcs[0]}")
    return _row(link, status, row.hits, most, said, row.source.text)


def _row(name: Child, status: str, hits: int, most: int, ways: Child, text: Child, id_: str | None = None) -> Markup:
    """A row of either listing: six cells, the second a sign that is read aloud in words."""
    cells = (
        element("th", name, scope="row"),
        element("td", SIGNS[status], class_=f"sign {status}", title=WORDS[status], aria_label=WORDS[status]),
        element("td", f"{hits:,}", class_="n"),
        element("td", heat_bar(hits, most), class_="heat"),
        element("td", ways, class_="ways"),
        element("td", text),
    )
    return element("tr", cells, class_=status, id=id_)


# --- instructions -------------------------------------------------------------------------------------------------------------


def _listing(number: int, program: ProgramCoverage) -> Markup:
    most = max(program.hits.values(), default=0)
    heads = [element("th", text, scope="col", class_=kind) for text, kind in _HEADS["pc", "instruction"]]
    body = list(_rows(number, program, most))
    caption = element("caption", f"Instructions of {program_label(program)}")
    listing = element("table", caption, element("thead", element("tr", heads)), element("tbody", body))
    return scroll(f"Instructions of {program_label(program)}", listing, kind="listing full")


def _rows(number: int, program: ProgramCoverage, most: int) -> Iterator[Markup]:
    functions = {f.start: f.name for f in program.functions} if len(program.functions) > 1 else {}
    lines, jumps, dead = dict(program.lines), set(program.jumps), set(program.dead)
    last = ""
    for pc, text in program.insns:
        if pc in functions:
            last = ""
            yield _between("function", functions[pc] or f"function at {pc}")
        if pc in lines and (said := _source_words(lines[pc])) not in ("", last):
            last = said
            yield _between("src", said)
        hits = program.hits.get(pc, 0)
        ways = program.ways(pc) if pc in jumps else None
        status = DEAD if pc in dead else NEVER if not hits else HALF if ways and 0 in ways else HIT
        told = _with_states(text, program.states.get(pc, ()))
        yield _row(pc, status, hits, most, _ways_words(ways) if ways and hits else "", told, f"p{number}-{pc}")


def _between(kind: str, text: str) -> Markup:
    return element("tr", element("td", colspan=COLUMNS - 1), element("td", text), class_=kind)


def _source_words(source: SourceLine) -> str:
    """``; at += 4;   @ flows.c:53``; nothing for a record without text."""
    return (f"; {source.text}" + (f"   @ {source.place}" if source.place else "")) if source.text else ""


def _ways_words(ways: tuple[int, int]) -> str:
    """``taken 305, fell through 227``: how often a jump was taken, and how often the run went on behind it."""
    taken, passed = ways
    return f"taken {taken:,}, fell through {passed:,}"


def _with_states(text: str, states: Sequence[str]) -> Child:
    """An instruction that opens to show what the verifier knew there."""
    if not states:
        return text
    known = [element("div", state, class_="state") for state in states]
    return element("details", element("summary", text), known, class_="states")
