"""Where everything stands in a TOML text: a tree of its values with their places, for errors with a caret and for edits in place.

``tomllib`` says whether a text is TOML and what its values are; here only places are found, in a text that is known to be valid.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from netbpf.errors import SourceError

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"\d{4}-\d{2}-\d{2} \d[\d:.+-]*Z?|[^\s,\]}#]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_STRINGS: Final = (
    re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}', re.DOTALL),
    re.compile(r"'''(?:[^']|'{1,2}(?!'))*'{3,5}", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")


class Text:
    """A text with its path; turns offsets into lines and columns, which count from 1."""

    def __init__(self, text: str, path: str) -> None:
        self.text, self.path = text, path
        self._starts = [0, *(m.end() for m in re.finditer("\n", text))]

    def place(self, offset: int) -> tuple[int, int]:
        """(line, column) of an offset."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line, without its end."""
        start = self._starts[number - 1]
        return self.text[start:].split("\n", 1)[0].rstrip("\r")

    def fail(self, message: str, start: int, end: int) -> NoReturn:
        """Raise SourceError with a caret under [start, end), which is cut to the first line."""
        line, column = self.place(start)
        shown = self.line(line)
        width = max(1, min(end - start, len(shown) - column + 1))
        raise SourceError(message, path=self.path, line=line, column=column, source_line=shown, width=width)


@dataclass(eq=False)
class Node:
    """A value and its place. ``items`` are the children of a table, by key, or of an array, in order.

    ``start`` and ``end`` bound the value's text (of a ``[table]``, its header); ``key_start``, ``key_end`` its key's.
    ``body_end`` of a ``[table]`` is where a line for a new key goes; -1 for all others.
    """

    text: Text
    start: int
    end: int
    value: Any = None
    items: dict[str, Node] | list[Node] | None = None
    key_start: int = -1
    key_end: int = -1
    body_end: int = -1
    parameter: str = ""  # the ${name} whose value stands here

    @property
    def is_table(self) -> bool:
        return isinstance(self.items, dict)

    @property
    def is_array(self) -> bool:
        return isinstance(self.items, list)

    @property
    def table(self) -> dict[str, Node]:
        assert isinstance(self.items, dict)
        return self.items

    @property
    def array(self) -> list[Node]:
        assert isinstance(self.items, list)
        return self.items

    @property
    def line(self) -> int:
        """The line of the key, or of the value where it has none."""
        return self.text.place(self.key_start if self.key_start >= 0 else self.start)[0]

    def plain(self) -> Any:
        """The value as Python has it."""
        if isinstance(self.items, dict):
            return {key: child.plain() for key, child in self.items.items()}
        if isinstance(self.items, list):
            return [child.plain() for child in self.items]
        return self.value

    def fail(self, message: str) -> NoReturn:
        """Raise SourceError that points at the value."""
        self.text.fail(message, self.start, self.end)

    def fail_key(self, message: str) -> NoReturn:
        """Raise SourceError that points at the key."""
        if self.key_start < 0:
            self.fail(message)
        self.text.fail(message, self.key_start, self.key_end)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        children = self.items.values() if isinstance(self.items, dict) else self.items or ()
        for child in children:
            yield from child.walk()


def parse(text: str, path: str) -> Node:
    """The tree of a TOML text. Raises SourceError with the place of what is no TOML."""
    whole = Text(text, path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        _fail_toml(whole, str(e))
    except RecursionError:
        raise SourceError("nested too deep", path=path) from None
    root = _Scanner(whole).run()
    _take_values(root, values)
    return root


def _fail_toml(whole: Text, message: str) -> NoReturn:
    found = _AT.search(message)
    words = message[: found.start()] if found else message
    if found is None or found[1] is None:
        offset = len(whole.text.rstrip())
    else:
        offset = whole._starts[int(found[1]) - 1] + int(found[2]) - 1
    whole.fail(f"no TOML: {words[0].lower()}{words[1:]}", min(offset, len(whole.text)), offset + 1)


def _take_values(node: Node, value: Any) -> None:
    if isinstance(node.items, dict):
        for key, child in node.items.items():
            _take_values(child, value[key])
    elif isinstance(node.items, list):
        for child, element in zip(node.items, value, strict=True):
            _take_values(child, element)
    else:
        node.value = value


@dataclass
class _Key:
    name: str
    start: int
    end: int


@dataclass
class _Scanner:
    """One pass over a valid text. ``at`` is where it stands."""

    whole: Text
    at: int = 0
    text: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = self.whole.text

    def run(self) -> Node:
        root = Node(self.whole, 0, 0, items={}, body_end=0)
        table = root
        while True:
            self._skip(_BLANK)
            if self.at >= len(self.text):
                return root
            if self.text[self.at] == "[":
                table = self._header(root)
            else:
                self._pair(table)
                table.body_end = self._line_end()

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def _line_end(self) -> int:
        end = self.text.find("\n", self.at)
        return len(self.text) if end < 0 else end + 1

    # --- keys ---------------------------------------------------------------------------------------------------------
    def _key(self) -> list[_Key]:
        """``a."b".c``, up to what is no part of it."""
        parts = []
        while True:
            self._skip(_SPACE)
            start = self.at
            if self.text[start] in "\"'":
                word = self._string()
                parts.append(_Key(tomllib.loads(f"x={word}")["x"], start, self.at))
            else:
                found = _BARE.match(self.text, start)
                assert found is not None
                self.at = found.end()
                parts.append(_Key(found[0], start, self.at))
            self._skip(_SPACE)
            if self.text[self.at : self.at + 1] != ".":
                return parts
            self.at += 1

    def _header(self, root: Node) -> Node:
        start, double = self.at, self.text.startswith("[[", self.at)
        self.at += 2 if double else 1
        *above, last = self._key()
        self.at += 2 if double else 1
        table = self._descend(root, above)
        made = Node(self.whole, start, self.at, items={}, key_start=last.start, key_end=last.end, body_end=self._line_end())
        if double:
            new = Node(self.whole, start, self.at, items=[], key_start=last.start, key_end=last.end)
            table.table.setdefault(last.name, new).array.append(made)
            return made
        there = table.table.setdefault(last.name, made)  # one that dotted headers made before
        there.start, there.end, there.key_start, there.key_end = start, self.at, last.start, last.end
        there.body_end = made.body_end
        return there

    def _descend(self, table: Node, keys: list[_Key]) -> Node:
        """The table below ``table`` that dotted keys name, made where it is not there; of an array of tables its last."""
        for key in keys:
            made = Node(self.whole, key.start, key.end, items={}, key_start=key.start, key_end=key.end)
            table = table.table.setdefault(key.name, made)
            if table.is_array:
                table = table.array[-1]
        return table

    def _pair(self, table: Node) -> None:
        *above, last = self._key()
        self.at += 1  # the equals sign
        self._skip(_SPACE)
        value = self._value()
        value.key_start, value.key_end = last.start, last.end
        self._descend(table, above).table[last.name] = value

    # --- values -------------------------------------------------------------------------------------------------------
    def _value(self) -> Node:
        start, first = self.at, self.text[self.at]
        if first in "\"'":
            self._string()
            return Node(self.whole, start, self.at)
        if first == "[":
            return self._array()
        if first == "{":
            return self._inline()
        self._skip(_SCALAR)
        return Node(self.whole, start, self.at)

    def _string(self) -> str:
        for pattern in _STRINGS:
            found = pattern.match(self.text, self.at)
            if found is not None:
                self.at = found.end()
                return found[0]
        raise AssertionError("a valid text has a whole string here")

    def _array(self) -> Node:
        start = self.at
        elements: list[Node] = []
        self.at += 1
        while True:
            self._skip(_BLANK)
            if self.text[self.at] == "]":
                self.at += 1
                return Node(self.whole, start, self.at, items=elements)
            elements.append(self._value())
            self._skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1

    def _inline(self) -> Node:
        node = Node(self.whole, self.at, self.at, items={})
        self.at += 1
        while True:
            self._skip(_BLANK)
            if self.text[self.at] == "}":
                self.at += 1
                node.end = self.at
                return node
            self._pair(node)
            self._skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
