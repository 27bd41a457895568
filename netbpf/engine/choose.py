"""Engines by the name --engine calls them. An engine's package is imported when it is chosen."""

from __future__ import annotations

import importlib
from typing import Final

from netbpf.engine.base import Engine
from netbpf.errors import UsageError

ENGINES: Final[dict[str, tuple[str, str]]] = {
    "interp": ("netbpf.engine.interp.engine", "InterpEngine"),
    "native": ("netbpf.engine.llvm.engine", "NativeEngine"),
}
"""Module and class by name."""

DEFAULT_ENGINE: Final = "interp"


def get_engine(name: str | None = None) -> Engine:
    """The engine called ``name``, the default one for None. Raises UsageError that lists the names."""
    row = ENGINES.get(name or DEFAULT_ENGINE)
    if row is None:
        raise UsageError(f"no engine is called {name!r}: choose from {', '.join(ENGINES)}")
    module, engine = row
    found: Engine = getattr(importlib.import_module(module), engine)()
    return found
