"""Scenario files made to say what came of them: the values of expectations that were not met, rewritten in place.

Comments and everything else stay. What cannot be rewritten (a program that is refused where it should load) is left to the user.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from netbpf.scenario.check import Problem
from netbpf.scenario.suite import Result
from netbpf.scenario.toml_map import Node, Text
from netbpf.scenario.write import Edits


@dataclass
class Updater:
    """Gathers what must change; ``write`` does it, file by file."""

    _changes: dict[str, dict[tuple[int, int], tuple[Node, Any, str]]] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)

    def take(self, result: Result) -> bool:
        """Whether every problem of a result can be rewritten; then all of them will be."""
        problems = result.problems
        if not problems or result.differences or not all(p.changes for p in problems):
            return False
        taken = [self._take(result, problem) for problem in problems]
        return all(taken)

    def _take(self, result: Result, problem: Problem) -> bool:
        case = result.item.case
        mine = self._changes.setdefault(case.path, {})
        for node, value in problem.changes:
            known = mine.get((node.start, node.end))
            if known is not None and known[1] != value:
                line = node.text.place(node.start)[0]
                cases = f"{known[2] or 'one case'} and {case.id or 'another run'}"
                self.conflicts.append(f"{case.path}:{line}: {cases} want different values here: make it a parameter")
                return False
            mine[node.start, node.end] = (node, value, case.id)
        return True

    def write(self) -> list[str]:
        """Rewrite the files; their paths. A file that was changed since it was read is left alone and told in ``conflicts``."""
        written = []
        for path, changes in self._changes.items():
            edits, text = Edits(), _text_of(node for node, _, _ in changes.values())
            for node, value, _ in changes.values():
                edits.change(node, value)
            if text is not None and self._replace(path, text.text, edits.made(text.text)):
                written.append(path)
        return written

    def _replace(self, path: str, before: str, after: str) -> bool:
        with open(path, encoding="utf-8", newline="") as f:
            if f.read() != before:
                self.conflicts.append(f"{path}: changed while it was run: not rewritten")
                return False
        if after == before:
            return False
        part = f"{path}.new"
        with open(part, "w", encoding="utf-8", newline="") as f:
            f.write(after)
        os.replace(part, path)
        return True


def _text_of(nodes: Iterable[Node]) -> Text | None:
    return next((node.text for node in nodes), None)
