"""Engines by the name --engine calls them. An engine's package is imported when it is chosen."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Final

from netbpf.engine.base import Engine
from netbpf.errors import UsageError

ENGINES: Final[dict[str, tuple[str, str]]] = {
    "interp": ("netbpf.engine.interp.engine", "InterpEngine"),
    "native": ("netbpf.engine.llvm.engine", "NativeEngine"),
}
"""Module and class by name."""

DEFAULT_ENGINE: Final = "interp"
"""Where single packets are run, as sockets do: it starts at once."""

NATIVE_MACHINES: Final = frozenset({"x86_64", "AMD64"})
"""Machines whose object files ``llvm.objfile`` can map."""


def get_engine(name: str | None = None) -> Engine:
    """The engine called ``name``, the one for single packets for None. Raises UsageError that lists the names."""
    row = ENGINES.get(name or DEFAULT_ENGINE)
    if row is None:
        raise UsageError(f"no engine is called {name!r}: choose from {', '.join(ENGINES)}")
    module, engine = row
    found: Engine = getattr(importlib.import_module(module), engine)()
    return found


def stream_engine(name: str | None = None, *, use_cache: bool = True, checked: bool = False) -> Engine:
    """The engine called ``name`` for many packets; for None the native one if it can run, else the interpreter, said on stderr.

    ``use_cache`` and ``checked`` are the native engine's. Raises UsageError.
    """
    reason = native_obstacle() if name is None else ""
    if reason:
        print(f"netbpf: {reason}: the interpreter runs the program, some hundred times slower", file=sys.stderr)
    if name not in (None, "native") or reason:
        if checked and name is not None:
            raise UsageError("checks are kept or left out by the native engine; the interpreter always checks")
        return get_engine(name)
    from netbpf.engine.llvm.engine import NativeEngine

    return NativeEngine(use_cache=use_cache, checked=checked)


def native_obstacle() -> str:
    """Why the native engine cannot run here, or ""; imports nothing large."""
    if sys.platform != "linux":
        return f"the native engine has no loader for {sys.platform}"
    if os.uname().machine not in NATIVE_MACHINES:
        return f"the native engine has no loader for {os.uname().machine}"
    if importlib.util.find_spec("llvmlite") is None:
        return "the native engine needs llvmlite, which is not installed (pip install llvmlite)"
    return ""
