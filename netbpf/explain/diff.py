"""Where two packets part: their paths side by side, instruction by instruction. Pure: two paths in, rows or lines out."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any, Final, NamedTuple

from netbpf.explain.listing import Listing
from netbpf.explain.steps import Path, Step
from netbpf.explain.text import WIDTH, format_step, headline, notes, wrapped

MAX_MATCHED: Final = 3000  # steps between common start and common end that are matched; what is more is told as different
MIN_GAP: Final = 3  # equal steps in a row that are worth a line of their own


class Row(NamedTuple):
    """A step of both paths, or of one: None where the other has none."""

    left: Step | None
    right: Step | None


def diff_paths(left: Path, right: Path) -> list[Row]:
    """The steps of both, those at the same instruction of the same program and depth in one row."""
    a, b = [_key(left, s) for s in left.steps], [_key(right, s) for s in right.steps]
    head = _common(a, b)
    tail = _common(a[head:][::-1], b[head:][::-1])
    rows = [Row(*pair) for pair in zip(left.steps[:head], right.steps[:head], strict=True)]
    rows += _middle(left.steps[head : len(a) - tail], right.steps[head : len(b) - tail], left, right)
    ends = zip(left.steps[len(a) - tail :], right.steps[len(b) - tail :], strict=True)
    return rows + [Row(*pair) for pair in ends]


def parting(rows: list[Row]) -> int | None:
    """The index of the last row before the paths part; None where they never do, -1 where they part at once."""
    first = next((i for i, row in enumerate(rows) if row.left is None or row.right is None), None)
    return None if first is None else first - 1


def _key(path: Path, step: Step) -> tuple[str, int, int]:
    listing = path.listings[step.program]
    return listing.digest, step.pc, step.depth


def _common(a: list[Any], b: list[Any]) -> int:
    """How many elements both begin with."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def _middle(a: tuple[Step, ...], b: tuple[Step, ...], left: Path, right: Path) -> list[Row]:
    if max(len(a), len(b)) > MAX_MATCHED:
        return [*(Row(s, None) for s in a), *(Row(None, s) for s in b)]
    rows: list[Row] = []
    matcher = SequenceMatcher(None, [_key(left, s) for s in a], [_key(right, s) for s in b], autojunk=False)
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        if tag == "equal":
            rows += [Row(*pair) for pair in zip(a[a0:a1], b[b0:b1], strict=True)]
        else:
            rows += [*(Row(s, None) for s in a[a0:a1]), *(Row(None, s) for s in b[b0:b1])]
    return rows


# --- words --------------------------------------------------------------------------------------------------------------
def format_diff(left: Path, right: Path, *, width: int = WIDTH) -> Iterator[str]:
    """The lines: both packets, where they part, then the rows; - is what only the first did, + the second."""
    for path in (left, right):
        yield from wrapped(headline(path), width)
    rows = diff_paths(left, right)
    yield ""
    yield from wrapped(_verdict(left, right, rows), width)
    if rows:
        yield ""
    equal: list[Row] = []
    for row in [*rows, None]:
        if row is not None and row.left is not None and row.right is not None and notes(row.left) == notes(row.right):
            equal.append(row)
            continue
        yield from _equal_rows(left, equal, width)
        equal.clear()
        if row is not None:
            yield from _row(left, right, row, width)
    yield ""
    for path in (left, right):
        yield from wrapped(f"packet {path.number}: {path.outcome}", width)


def _verdict(left: Path, right: Path, rows: list[Row]) -> str:
    at = parting(rows)
    if at is None:
        same = all(notes(r.left) == notes(r.right) for r in rows if r.left and r.right)
        return "both take the same path" + (" with the same values" if same else " with other values")
    step = rows[at].left if at >= 0 else None
    if step is None:
        return "the paths part before the first instruction"
    listing = left.listings[step.program]
    source = listing.source(step.pc)
    where = f" ({source.place or source.text})" if source is not None else ""
    return f"the paths part at insn {step.pc} of {listing.name or 'the program'}{where}: {listing.text(step.pc)}"


def _equal_rows(path: Path, rows: list[Row], width: int) -> Iterator[str]:
    if len(rows) > MIN_GAP:
        yield f"  ... {len(rows)} instructions alike ..."
        return
    for row in rows:
        assert row.left is not None
        for line in format_step(row.left, path.listings[row.left.program], width - 2):
            yield f"  {line}"


def _row(left: Path, right: Path, row: Row, width: int) -> Iterator[str]:
    if row.left is not None and row.right is not None:
        yield from _both(left, right, row.left, row.right, width)
        return
    step, path, mark = (row.left, left, "-") if row.left is not None else (row.right, right, "+")
    assert step is not None
    for line in format_step(step, path.listings[step.program], width - 2):
        yield f"{mark} {line}"


def _both(left: Path, right: Path, a: Step, b: Step, width: int) -> Iterator[str]:
    """One instruction, and what it did with either packet."""
    listing = left.listings[a.program]
    yield f"  {'  ' * a.depth}{a.pc:4d}: {listing.text(a.pc)}"[:width]
    for mark, step, path in (("-", a, left), ("+", b, right)):
        for note in notes(step) or [""]:
            yield from wrapped(f"{mark}       packet {path.number}: {note}", width)


def diff_json(left: Path, right: Path) -> dict[str, Any]:
    """``packets``: both paths; ``parted_at``: the step number of the last instruction both were at, with its place; null where
    the paths are the same; ``rows``: pairs of step numbers, null where one path was not there."""
    rows = diff_paths(left, right)
    at = parting(rows)
    return {
        "packets": [left.as_json(), right.as_json()],
        "parted_at": _place(left.listings, rows[at].left) if at is not None and at >= 0 else None,
        "same_path": at is None,
        "rows": [[s.index if s is not None else None for s in row] for row in rows],
    }


def _place(listings: tuple[Listing, ...], step: Step | None) -> dict[str, Any] | None:
    if step is None:
        return None
    listing = listings[step.program]
    source = listing.source(step.pc)
    return {
        "step": step.index, "program": listing.name, "pc": step.pc, "instruction": listing.text(step.pc),
        "source": source.as_json() if source is not None else None,
    }  # fmt: skip
