"""The tree of a TOML text: the same values as tomllib's, each at its place; edits touch nothing else."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf.errors import SourceError
from netbpf.scenario.toml_map import Node, parse
from netbpf.scenario.write import Edits, render, render_key

TEXT = '''# a comment
netbpf = 1
"quoted key" = "a\\"b"   # after a value
literal = 'C:\\x'
dotted.a.b = [1, 2, # two
  3,
]
multi = """
line one "" quoted
"""
multi2 = \'\'\'it's\'\'\'
when = 1979-05-27 07:32:00
inline = { x = 1, y = { z = "}" }, "w.w" = [ { a = 1 }, { a = 2 } ] }

[table] # header
key = true
[table.sub."deep er"]
n = -1_000.5e3
[[rows]]
a = 1
[rows.inner]
b = 2
[[rows]]
a = 3
[[rows.nested]]
c = "#no comment"
'''


def values(node: Node) -> Any:
    return node.plain()


def test_values_are_those_of_tomllib() -> None:
    assert values(parse(TEXT, "x")) == tomllib.loads(TEXT)


def test_places() -> None:
    root = parse(TEXT, "x")
    for node in root.walk():
        piece = TEXT[node.start : node.end]
        if node.items is None:
            assert tomllib.loads(f"x = {piece}")["x"] == node.value
    rows = root.table["rows"].array
    assert [TEXT[r.start : r.end] for r in rows] == ["[[rows]]", "[[rows]]"]
    assert rows[1].table["nested"].array[0].table["c"].line == TEXT[: TEXT.index("#no")].count("\n") + 1
    deep = root.table["dotted"].table["a"].table["b"]
    assert TEXT[deep.key_start : deep.key_end] == "b"


@pytest.mark.parametrize("text", ["a = ", "a = 1\na = 2", "[x", "a = [1", "a = {", 'a = "', "= 1", "a = 1 b = 2", "\x00"])
def test_what_is_no_toml_is_told_with_its_place(text: str) -> None:
    with pytest.raises(SourceError, match="no TOML") as caught:
        parse(text, "f.toml")
    assert caught.value.line >= 1
    assert str(caught.value).startswith("f.toml:")


KEYS = st.text(max_size=8)
LEAVES = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1), st.booleans(), st.text(max_size=20), st.floats(allow_nan=False, allow_infinity=False)
)
TREES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)), max_leaves=12
)


def document(tables: dict[str, Any]) -> str:
    return "".join(f"{render_key(k)} = {render(v)} # comment {i}\n" for i, (k, v) in enumerate(tables.items()))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, TREES, max_size=5))
def test_what_is_rendered_is_read_back(tables: dict[str, Any]) -> None:
    text = document(tables)
    assert parse(text, "x").plain() == tomllib.loads(text) == tables


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=4), st.dictionaries(KEYS, TREES, max_size=4))
def test_an_edited_text_says_what_was_wanted(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Comments of lines that stay do stay."""
    text = document(before)
    edits = Edits()
    edits.change(parse(text, "x"), after)
    made = edits.made(text)
    assert tomllib.loads(made) == after
    for i, key in enumerate(before):
        if key in after:
            assert f"# comment {i}\n" in made


def test_edits_keep_the_form() -> None:
    text = "[expect.maps.counts.entries]\n# TCP\n6 = 1 # one\n17 = 2\n\n[[packet]]\nexpect = [\n  'drop', # first\n  5,\n]\n"
    root, edits = parse(text, "x"), Edits()
    edits.change(root.table["expect"].table["maps"].table["counts"].table["entries"], {"6": 9, "58": 3})
    edits.change(root.table["packet"].array[0].table["expect"], ["drop", 6, "accept"])
    assert edits.made(text) == (
        "[expect.maps.counts.entries]\n# TCP\n6 = 9 # one\n58 = 3\n\n[[packet]]\nexpect = [\n"
        "  'drop', # first\n  6, \"accept\",\n]\n"
    )
