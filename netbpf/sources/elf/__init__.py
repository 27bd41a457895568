"""Clang objects (ELF EM_BPF) -> ProgramSpec. ``list_programs`` and ``read_object`` are all that other rooms need."""

from netbpf.sources.elf.object import Entry, list_programs, read_object

__all__ = ["Entry", "list_programs", "read_object"]
