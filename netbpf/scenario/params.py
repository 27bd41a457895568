"""The table of cases of one file: ``${name}`` in any string, or as a whole value, stands for a row's parameter.

    cases = [{ id = "https", port = 443, wanted = "accept" }, { id = "http", port = 80, wanted = "drop" }]

A string that is nothing but ``${name}`` becomes the parameter itself, number or table, and errors and edits go to the row.
``$${`` writes ``${``. Knows trees of values; no key of a scenario but ``cases`` and ``id``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from netbpf.scenario.toml_map import Node
from netbpf.sources.lexer import did_you_mean

_PARAMETER = re.compile(r"\$(\$\{)|\$\{([^}]*)\}")
_ID = re.compile(r"[^\s\[\]]+\Z")
MAX_CASES = 10_000


@dataclass(frozen=True, slots=True)
class CaseTree:
    """One case: its ``id`` (empty for the only case of a file), and the tree with every parameter put in."""

    id: str
    tree: Node
    row: Node | None = None


def expand(root: Node) -> Iterator[CaseTree]:
    """Every case of a file, in order. Raises SourceError."""
    rows = root.table.get("cases")
    rest = replace(root, items={key: node for key, node in root.table.items() if key != "cases"})
    if rows is None:
        yield CaseTree("", _Filler({}).fill(rest))
        return
    if not rows.is_array or not rows.array or not all(row.is_table for row in rows.array):
        rows.fail("cases is a list of tables, one a case: cases = [{ id = \"https\", port = 443 }]")
    if len(rows.array) > MAX_CASES:
        rows.fail_key(f"{len(rows.array)} cases: at most {MAX_CASES} in one file")
    seen: dict[str, Node] = {}
    for row in rows.array:
        case_id = _case_id(row)
        if case_id in seen:
            row.fail(f"a second case of id {case_id!r}: the first is in line {seen[case_id].line}")
        seen[case_id] = row
        yield CaseTree(case_id, _fill_row(rest, row), row)


def _case_id(row: Node) -> str:
    """What the row calls itself, or its parameters in a row."""
    given = row.table.get("id")
    if given is None:
        words = (f"{key}={_word(node.plain())}" for key, node in row.table.items())
        return ",".join(words) or row.fail("a case needs an id or parameters")
    if not isinstance(given.value, str) or not _ID.match(given.value):
        given.fail("an id is a text without blanks and brackets")
    return given.value


def _word(value: Any) -> str:
    return re.sub(r"[\s\[\]]+", "_", value if isinstance(value, str) else repr(value))


def _fill_row(rest: Node, row: Node) -> Node:
    filler = _Filler({key: node for key, node in row.table.items() if key != "id"})
    tree = filler.fill(rest)
    for name, node in filler.rows.items():
        if name not in filler.used:
            node.fail_key(f"nothing in this file uses ${{{name}}}")
    return tree


class _Filler:
    """Puts a row's values in; remembers which were used."""

    def __init__(self, rows: dict[str, Node]) -> None:
        self.rows, self.used = rows, set[str]()

    def fill(self, node: Node) -> Node:
        if isinstance(node.items, dict):
            pairs = ((self._text(key, child, is_key=True), self.fill(child)) for key, child in node.items.items())
            return replace(node, items=dict(pairs))
        if isinstance(node.items, list):
            return replace(node, items=[self.fill(child) for child in node.items])
        if not isinstance(node.value, str) or "$" not in node.value:
            return node
        whole = _PARAMETER.fullmatch(node.value)
        if whole is not None and whole[2] is not None:
            row = self._parameter(whole[2], node)
            return replace(row, key_start=node.key_start, key_end=node.key_end, parameter=whole[2])
        return replace(node, value=self._text(node.value, node))

    def _text(self, text: str, node: Node, *, is_key: bool = False) -> str:
        if "$" not in text:
            return text
        return _PARAMETER.sub(lambda m: m[1] or self._word(m[2], node, is_key), text)

    def _word(self, name: str, node: Node, is_key: bool) -> str:
        row = self._parameter(name, node, is_key)
        if row.items is not None:
            node.fail(f"${{{name}}} is no text and no number: it can only stand alone, as a whole value")
        return str(row.value).lower() if isinstance(row.value, bool) else str(row.value)

    def _parameter(self, name: str, node: Node, is_key: bool = False) -> Node:
        row = self.rows.get(name)
        if row is None:
            known = f"{did_you_mean(name, self.rows)}" if self.rows else ": this file has no cases with parameters"
            (node.fail_key if is_key else node.fail)(f"no case has a parameter {name!r}{known}")
        self.used.add(name)
        return row
