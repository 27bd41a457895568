"""Reading a table of a scenario strictly: every key asked for by name, every other key refused with the nearest known one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from netbpf.scenario.toml_map import Node
from netbpf.sources.lexer import did_you_mean

T = TypeVar("T")
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ns|us|ms|s|m|h)\s*\Z")
_UNIT_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}
U64_MAX: Final = (1 << 64) - 1


class Table:
    """A table being read: ``what`` names it in complaints, as "a packet". ``close`` refuses what nobody asked for."""

    def __init__(self, node: Node, what: str) -> None:
        if not node.is_table:
            node.fail(f"{what} is a table, as {{ key = value }}")
        self.node, self.what = node, what
        self._asked: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self.node.table

    def take(self, key: str) -> Node | None:
        """The value under a key, None where there is none."""
        self._asked.append(key)
        return self.node.table.get(key)

    def close(self) -> None:
        """Raise SourceError at the first key that was not asked for."""
        for key, node in self.node.table.items():
            if key not in self._asked:
                known = ", ".join(self._asked)
                node.fail_key(f"{self.what} has no key {key!r}{did_you_mean(key, self._asked) or ': ' + known}")

    def text(self, key: str, default: str = "") -> str:
        node = self.take(key)
        if node is None:
            return default
        return text_of(node, key)

    def integer(self, key: str, default: int, low: int = 0, high: int = U64_MAX) -> int:
        node = self.take(key)
        return default if node is None else integer_of(node, key, low, high)

    def choice(self, key: str, words: Sequence[str], default: str) -> str:
        """One of ``words``."""
        node = self.take(key)
        if node is None:
            return default
        word = text_of(node, key)
        if word not in words:
            node.fail(f"{key} is one of {', '.join(words)}, not {word!r}{did_you_mean(word, words)}")
        return word

    def duration(self, key: str) -> int | None:
        """Nanoseconds of ``"1.5s"``, ``"20ms"`` or a number of seconds."""
        node = self.take(key)
        return None if node is None else duration_of(node, key)

    def tables(self, key: str) -> list[Node]:
        """The tables of an array of tables."""
        node = self.take(key)
        if node is None:
            return []
        if not node.is_array or not all(n.is_table for n in node.array):
            node.fail(f"{key} is a list of tables: write [[{key}]]")
        return node.array

    def named(self, key: str, read: Callable[[str, Node], T]) -> dict[str, T]:
        """A table whose keys are names of the user's: each read by ``read``."""
        node = self.take(key)
        if node is None:
            return {}
        if not node.is_table:
            node.fail(f"{key} is a table of names")
        return {name: read(name, child) for name, child in node.table.items()}


def text_of(node: Node, what: str) -> str:
    """The text in a node. Raises SourceError for anything else."""
    if not isinstance(node.value, str):
        node.fail(f"{what} is text, in quotes")
    return str(node.value)


def integer_of(node: Node, what: str, low: int = 0, high: int = U64_MAX) -> int:
    """The whole number in a node. Raises SourceError for anything else, and outside [low, high]."""
    value = node.value
    if not isinstance(value, int) or isinstance(value, bool):
        node.fail(f"{what} is a whole number")
    if not low <= value <= high:
        node.fail(f"{what} is {low} to {high}, not {value}" if high < U64_MAX else f"{what} is at least {low}, not {value}")
    return int(value)


def duration_of(node: Node, what: str) -> int:
    """Nanoseconds. Raises SourceError."""
    value = node.value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return round(value * 1_000_000_000)
    found = _DURATION.match(value) if isinstance(value, str) else None
    if found is None:
        node.fail(f"{what} is a time: \"1.5s\", \"20ms\", \"100us\", \"5ns\", or a number of seconds")
    whole, _, rest = found[1].partition(".")
    unit = _UNIT_NS[found[2]]
    return int(whole) * unit + (round(float(f"0.{rest}") * unit) if rest else 0)
