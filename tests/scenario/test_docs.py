"""Every example of docs/scenarios.md holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from netbpf.host.sim.host import SimHost
from netbpf.pytest_plugin import LoadedProgram, _load
from netbpf.scenario.read import read_text
from netbpf.scenario.show import format_result
from netbpf.scenario.suite import PASSED, items_of, run_item

PAGE = Path(__file__).parents[2] / "docs" / "scenarios.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
EXAMPLES = [text for kind, text in BLOCKS if kind == "toml"]


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples(text: str) -> None:
    for item in items_of(read_text(text, str(PAGE.parent / "example.scenario.toml"))):
        result = run_item(item)
        assert result.status == PASSED, format_result(result)


def test_the_example_in_python() -> None:
    scope: dict[str, Any] = {}
    (text,) = (text for kind, text in BLOCKS if kind == "python")
    exec(compile(text, "docs/scenarios.md", "exec"), scope)
    with SimHost().process() as process:

        def load_program(source: Any, **options: Any) -> LoadedProgram:
            return _load(process, source, options)

        scope["test_https"](load_program)


def test_every_key_is_in_the_page() -> None:
    """What the reader asks for by name is documented."""
    rooms = Path(__file__).parents[2] / "netbpf" / "scenario" / "read.py"
    asked = set(re.findall(r"t(?:op)?\.(?:take|text|integer|choice|duration|tables|named)\(\"(\w+)\"", rooms.read_text()))
    page = PAGE.read_text()
    assert not [key for key in sorted(asked) if not re.search(rf"\b{key}\b", page)]
