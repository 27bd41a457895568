"""netbpf: Linux socket filtering in user space, as the kernel does it.

The public names below are imported when they are first used, so that ``import netbpf`` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what type checkers take for True: importing typing would cost more than all else here
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_PUBLIC: dict[str, str] = {
    "Coverage": "netbpf.explain.coverage",
    "Filter": "netbpf.replay.filter",
    "WatchedSession": "netbpf.explain.session",
    "attach": "netbpf.host.attached",
    "load": "netbpf.sources.load",
}
"""Public name -> the module that defines it."""

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    import importlib  # a quick start does without

    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'netbpf' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value
