"""HTML and SVG built from values: every text is escaped here, in one place, so that no page can forget to.

A child or attribute that is :class:`Markup` was made by this module and is taken as it is; anything else is text. Knows no page.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Final

UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that are shown as escapes: controls, marks that turn the direction of text, lone surrogates."""
_VOID: Final = frozenset({"meta", "br", "hr", "link"})


class Markup(str):
    """HTML that is already escaped."""

    __slots__ = ()


Child = object  # Markup, text, a number; None gives nothing; an iterable of these


def visible(text: str) -> str:
    """Text without characters that do something: those are written as escapes (``\\x1b``, ``\\u202e``)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in UNPRINTABLE else _escaped(c) for c in text)


def _escaped(c: str) -> str:
    return c.encode("unicode_escape", "surrogatepass").decode() if not 0xD800 <= ord(c) < 0xE000 else f"\\u{ord(c):04x}"


def escape(value: object) -> Markup:
    """A value as the text of an element or of a quoted attribute."""
    return value if isinstance(value, Markup) else Markup(html.escape(visible(str(value)), quote=True))


def join(*children: Child) -> Markup:
    """Children one after another."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Iterable) and not isinstance(child, str):
            parts.append(join(*child))
        else:
            parts.append(escape(child))
    return Markup("".join(parts))


def element(name: str, /, *children: Child, **attributes: object) -> Markup:
    """``<name attribute="...">children</name>``. An underscore at the end of an attribute's name goes (``class_``), others become
    dashes; True writes the name alone; None and False leave it out."""
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(value)}"'


def table(
    head: Sequence[object],
    rows: Iterable[Iterable[object]],
    *,
    caption: str,
    classes: Mapping[int, str] | None = None,
    at: Iterable[float] | None = None,
) -> Markup:
    """A table with a caption and a header row; the first column names its row. ``classes`` are those of columns by number, "n"
    for numbers. ``at`` says where in a plot each row belongs, from 0 to 1."""
    kinds = classes or {}
    header = [element("th", text, scope="col", class_=kinds.get(i)) for i, text in enumerate(head)]
    places = at if at is not None else itertools.repeat(None)
    body = [
        element("tr", [_cell(i, text, kinds.get(i)) for i, text in enumerate(row)], data_at=None if x is None else f"{x:.4f}")
        for row, x in zip(rows, places, strict=False)
    ]
    return element("table", element("caption", caption), element("thead", element("tr", header)), element("tbody", body))


def _cell(i: int, text: object, kind: str | None) -> Markup:
    return element("th", text, scope="row", class_=kind) if i == 0 else element("td", text, class_=kind)


def scroll(label: str, *children: Child, kind: str = "") -> Markup:
    """Children that may be wider than the page: they scroll by themselves, by keyboard too."""
    return element("div", *children, class_=f"scroll {kind}".rstrip(), tabindex=0, role="region", aria_label=label)


def source_hash(text: str) -> str:
    """What a content security policy calls an inline script or style sheet by."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def page(title: str, body: Markup) -> str:
    """A whole document with the style sheet and the script of this folder inside. Its policy allows these two and nothing else:
    no network, no other script."""
    style, script = _text_of("page.css"), _text_of("page.js")
    allowed = f"style-src {source_hash(style)}; script-src {source_hash(script)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=Markup(policy)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        Markup(f"<style>{style}</style>"),
    ]
    tail = Markup(f"<script>{script}</script>")
    return "<!DOCTYPE html>\n" + element("html", element("head", head), element("body", body, tail), lang="en") + "\n"


def _text_of(name: str) -> str:
    return resources.files("netbpf.report").joinpath(name).read_text("utf-8")
