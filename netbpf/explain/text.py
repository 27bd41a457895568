"""A path in words, 80 columns wide: source lines, instructions, and beside each what it did. Pure: a path in, lines out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from netbpf.explain.listing import Listing, SourceLine
from netbpf.explain.steps import Load, Path, Step, Test

WIDTH: Final = 80
NOTE_COLUMN: Final = 38
EQUALITY: Final = frozenset({"==", "!="})
OPPOSITE: Final = {
    "==": "!=", "!=": "==", ">": "<=", ">=": "<", "<": ">=", "<=": ">", "s>": "s<=", "s>=": "s<", "s<": "s>=", "s<=": "s>",
}  # fmt: skip


def format_path(path: Path, *, width: int = WIDTH) -> Iterator[str]:
    """The lines of a path: what packet it is, the steps, what was printed, the verdict."""
    yield from wrapped(headline(path), width)
    if path.steps:
        yield ""
    yield from format_steps(path, path.steps, width=width)
    for line in path.trace:
        yield from wrapped(f"printed: {line}", width)
    if path.steps:
        yield ""
    yield from wrapped(path.outcome, width)


def headline(path: Path) -> str:
    """``packet 37: 54 bytes: IPv4 10.0.0.1 > 10.0.0.2 TCP 1 > 2``."""
    if path.skb is None:
        return f"packet {path.number}"
    length, have = path.skb.len, len(path.skb.head) - path.skb.data_off
    cut = f" ({have} captured)" if have < length else ""
    tag = f", VLAN {path.skb.vlan_tci & 0xFFF} beside it" if path.skb.vlan_present else ""
    return f"packet {path.number}: {length} bytes{cut}{tag}: {path.dissection.summary()}"


def format_steps(path: Path, steps: tuple[Step, ...], *, width: int = WIDTH) -> Iterator[str]:
    """Lines of some steps of a path; a gap in their numbers is told."""
    shown: tuple[int, str, str] | None = None
    expected = steps[0].index if steps else 0
    for step in steps:
        if step.index != expected:
            yield f"  ... {step.index - expected} steps left out ..."
        expected = step.index + 1
        listing = path.listings[step.program]
        source = listing.source(step.pc)
        if source is not None and source.text:
            if (step.program, source.place, source.text) != shown:
                yield from source_line(source, step.depth, width)
            shown = step.program, source.place, source.text
        yield from format_step(step, listing, width)


def source_line(source: SourceLine, depth: int, width: int) -> Iterator[str]:
    """A line of the source, its place at the right where there is room."""
    text = "  " * depth + f"; {source.text}"
    gap = width - len(text) - len(source.place)
    yield f"{text}{' ' * gap}{source.place}" if source.place and gap > 1 else _cut(text, width)


def format_step(step: Step, listing: Listing, width: int = WIDTH) -> Iterator[str]:
    """An instruction and its notes, which go on below it when they are long."""
    head = "  " * step.depth + f"{step.pc:4d}: {listing.text(step.pc)}"
    told = notes(step)
    if not told:
        yield _cut(head, width)
        return
    if len(head) >= NOTE_COLUMN:
        yield _cut(head, width)
        head = ""
    for note in told:
        for line in textwrap.wrap(note, width - NOTE_COLUMN - 2, break_on_hyphens=False) or [""]:
            yield f"{head:{NOTE_COLUMN}}; {line}"
            head = ""


def notes(step: Step) -> list[str]:
    """What the step did, in words."""
    told = []
    if step.call is not None:
        told.append(call_text(step))
    if step.load is not None:
        told += load_text(step.load)
    if step.branch is not None:
        told.append(branch_text(step))
    if step.store and not step.changes:
        told.append(step.store)
    told += [change.text for change in step.changes]
    told += [f"r{reg} = {text}" for reg, text in step.changed]
    return told


def load_text(load: Load) -> list[str]:
    """``IPv4.proto at 23 = 17, wanted 6``; what was made of the value before it was compared has a line of its own."""
    at = f" at {load.at}" if load.at else ""
    if load.value is None:
        return [f"{load.what}{at}: outside the packet{'' if load.size > 4 else ', which ends the function with 0'}"]
    first = f"{load.what}{at} = {load.shown}" if load.shown else f"{load.what}{at}"
    lines = [first + tests_text([t for t in load.tests if t.of == load.what])]
    for of in dict.fromkeys(t.of for t in load.tests if t.of != load.what):
        mine = [t for t in load.tests if t.of == of]
        lines.append(f"{of} = {mine[0].shown}{tests_text(mine)}")
    return lines


def tests_text(tests: list[Test]) -> str:
    """``, wanted 6, then 17``; ``, > 1023: no``."""
    words = []
    for i, test in enumerate(tests):
        if test.sign not in EQUALITY:
            words.append(f"{test.sign} {test.wanted}: {'yes' if test.holds else 'no'}")
        else:
            words.append(f"{'then' if i and tests[i - 1].sign in EQUALITY else 'wanted'} {test.wanted}")
    return "".join(f", {word}" for word in words)


def branch_text(step: Step) -> str:
    """``-> 11: 0 == 0``; of a jump not taken what holds instead of its condition."""
    branch = step.branch
    assert branch is not None
    if branch.sign == "may_goto":
        return f"-> {branch.target}" if branch.taken else "not taken"
    if branch.taken:
        return f"-> {branch.target}: {branch.left} {branch.sign} {branch.right}"
    if branch.sign == "&":
        return f"not taken: {branch.left} & {branch.right} is 0"
    return f"not taken: {branch.left} {OPPOSITE[branch.sign]} {branch.right}"


def call_text(step: Step) -> str:
    """``(map=counts, key=17) -> counts[17] = 1``; the instruction has the name."""
    call = step.call
    assert call is not None
    inside = f"({', '.join(f'{name}={value}' for name, value in call.args)})"
    return f"{inside} -> {call.result}" if call.result else inside


def wrapped(text: str, width: int) -> Iterator[str]:
    """The text in lines, those that follow indented."""
    yield from textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False) or [""]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."
