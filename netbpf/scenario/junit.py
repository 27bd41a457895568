"""Results as a JUnit XML report, in the form that CI services read. Knows results; writes text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from netbpf.scenario.show import format_result
from netbpf.scenario.suite import BROKEN, FAILED, SKIPPED, Result

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENT: Final = {FAILED: "failure", BROKEN: "error", SKIPPED: "skipped"}


def junit_xml(results: Sequence[Result], broken: Sequence[tuple[str, str]] = ()) -> str:
    """The report of a run; ``broken`` are (path, why) of files that could not be read."""
    count = {status: sum(r.status == status for r in results) for status in _ELEMENT}
    seconds = sum(r.seconds for r in results)
    head = (
        f'<testsuite name="netbpf" tests="{len(results) + len(broken)}" failures="{count[FAILED]}"'
        f' errors="{count[BROKEN] + len(broken)}" skipped="{count[SKIPPED]}" time="{seconds:.3f}">'
    )
    rows = [_case(r) for r in results] + [_broken(path, why) for path, why in broken]
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', f"<testsuites>{head}", *rows, "</testsuite></testsuites>", ""])


def _case(result: Result) -> str:
    case = result.item.case
    head = (
        f"<testcase classname={_attribute(case.path)} name={_attribute(result.item.id)} file={_attribute(case.path)}"
        f' line="{case.line}" time="{result.seconds:.3f}"'
    )
    element = _ELEMENT.get(result.status)
    if element is None:
        return f"{head}/>"
    text = format_result(result)
    first = text.split("\n", 1)[0]
    return f"{head}><{element} message={_attribute(first)}>{escape(_clean(text))}</{element}></testcase>"


def _broken(path: str, why: str) -> str:
    first = why.split("\n", 1)[0]
    body = f"<error message={_attribute(first)}>{escape(_clean(why))}</error>"
    return f"<testcase classname={_attribute(path)} name=\"reading\">{body}</testcase>"


def _attribute(text: str) -> str:
    return quoteattr(_clean(text))


def _clean(text: str) -> str:
    """What XML cannot hold, as escapes."""
    return _NOT_XML.sub(lambda m: f"\\x{ord(m[0]):02x}", text)
