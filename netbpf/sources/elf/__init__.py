"""Clang objects (ELF EM_BPF) -> ProgramSpec. ``list_programs`` and ``read_object`` are all that other rooms need.

They are imported when first used: who wants a section's bytes takes ``reader`` alone.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what type checkers take for True
if TYPE_CHECKING:
    from netbpf.sources.elf.object import Entry, list_programs, read_object

__all__ = ["Entry", "list_programs", "read_object"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from netbpf.sources.elf import object as found

    return getattr(found, name)
