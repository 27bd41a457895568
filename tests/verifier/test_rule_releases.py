"""Every row of every table carries the release that brought it, and the verifier's rules name the place that decides them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module

import pytest

from netbpf.abi.context import CTX_FIELDS
from netbpf.abi.helpers import HELPERS
from netbpf.abi.maps import MAP_KINDS
from netbpf.abi.prog_types import PROG_TYPES
from netbpf.isa.releases import FEATURES
from netbpf.verifier.rule_releases import RULES, RuleRow

NEWEST = (6, 18)


def rows() -> Iterator[tuple[str, str, str]]:
    """(table, name, release) of all there is."""
    yield from (("helper", row.name, row.since) for row in HELPERS.values())
    yield from (("map kind", row.name, row.since) for row in MAP_KINDS.values())
    yield from (("program type", row.name, row.since) for row in PROG_TYPES.values())
    yield from (("instruction", row.name, row.since) for row in FEATURES)
    yield from (("context field", field.name, field.since) for context in CTX_FIELDS.values() for field in context)
    yield from (("rule", row.name, row.since) for row in RULES)


def test_every_table_has_rows() -> None:
    assert {table for table, *_ in rows()} == {"helper", "map kind", "program type", "instruction", "context field", "rule"}


def test_every_row_has_a_release_of_the_kernel() -> None:
    wrong = [row for row in rows() if not re.fullmatch(r"[3-6]\.\d+", row[2])]
    assert not wrong
    newer = [row for row in rows() if tuple(map(int, row[2].split("."))) > NEWEST]
    assert not newer


def test_no_rule_stands_twice() -> None:
    names = [row.name for row in RULES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("rule", RULES, ids=lambda row: row.name)
def test_a_rule_is_decided_where_it_says(rule: RuleRow) -> None:
    module, _, function = rule.where.partition(":")
    assert callable(getattr(import_module(f"netbpf.verifier.{module}"), function))
    assert bool(rule.before) == (rule.since != "3.18")
