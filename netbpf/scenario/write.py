"""Values as TOML text, and edits of a text in place: what changes is rewritten, comments and all else stay as they were."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from netbpf.scenario.toml_map import Node

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}


def render(value: Any) -> str:
    """A value as one line of TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(render, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{render_key(k)} = {render(v)}" for k, v in value.items()) + " }" if value else "{}"
    return repr(value)


def render_key(key: Any) -> str:
    """A key, quoted where it must be."""
    text = str(key)
    return text if _BARE.match(text) else _string(text)


def _string(text: str) -> str:
    if '"' in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return '"' + "".join(_ESCAPES.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'


@dataclass
class Edits:
    """Replacements to make in one text, gathered first and made together."""

    replacements: dict[tuple[int, int], str] = field(default_factory=dict)

    def change(self, node: Node, value: Any) -> None:
        """Make the text of ``node`` say ``value``: only what differs is touched."""
        if node.is_table and isinstance(value, dict):
            self._change_table(node, value)
        elif node.is_array and isinstance(value, list) and node.array and value:
            self._change_array(node, value)
        elif node.plain() != value or type(node.plain()) is not type(value):
            self.replacements[node.start, node.end] = render(value)

    def _change_table(self, node: Node, value: dict[str, Any]) -> None:
        wanted = {str(k): v for k, v in value.items()}
        if node.text.text[node.start : node.start + 1] == "{" and set(node.table) != set(wanted):
            self.replacements[node.start, node.end] = render(value)  # one line: it has no comments
            return
        for key, child in node.table.items():
            if key in wanted:
                self.change(child, wanted[key])
            else:
                self._drop_line(child)
        self._add_lines(node, {k: v for k, v in wanted.items() if k not in node.table})

    def _add_lines(self, node: Node, new: dict[str, Any]) -> None:
        """Lines at the end of a ``[table]``, or behind the last of its dotted keys."""
        if not new:
            return
        text, at, lead = node.text.text, node.body_end, ""
        if at < 0:
            last = max(node.table.values(), key=lambda n: n.end)
            lead = text[text.rfind("\n", 0, last.key_start) + 1 : last.key_start]
            at = text.find("\n", last.end) + 1 or len(text)
        lines = "".join(f"{lead}{render_key(k)} = {render(v)}\n" for k, v in new.items())
        self.replacements[at, at] = ("" if text[:at].endswith("\n") or not at else "\n") + lines

    def _drop_line(self, node: Node) -> None:
        text = node.text.text
        start = text.rfind("\n", 0, node.key_start) + 1
        end = text.find("\n", node.end)
        self.replacements[start, len(text) if end < 0 else end + 1] = ""

    def _change_array(self, node: Node, value: list[Any]) -> None:
        old = node.array
        for child, wanted in zip(old, value, strict=False):
            self.change(child, wanted)
        last = old[-1].end
        if len(value) > len(old):
            self.replacements[last, last] = "".join(f", {render(v)}" for v in value[len(old) :])
        elif len(value) < len(old):
            self.replacements[old[len(value) - 1].end, last] = ""

    def made(self, text: str) -> str:
        """The text with every replacement made."""
        for (start, end), new in sorted(self.replacements.items(), reverse=True):
            text = text[:start] + new + text[end:]
        return text
