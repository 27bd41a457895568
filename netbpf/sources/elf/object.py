"""A clang object -> the programs in it, and any of them as a ProgramSpec ready to load.

Brings the readers together: sections and symbols (reader), types (debug, ext), maps (maps, data), code (link, core). What the
object says wrongly is one SourceError with section and offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

from netbpf.btf import KIND_FUNC, Btf
from netbpf.errors import BpfError, SourceError
from netbpf.isa.instruction import Instruction
from netbpf.program import MapDecl, ProgramSpec
from netbpf.sources.elf import data as globals_
from netbpf.sources.elf import maps as definitions
from netbpf.sources.elf.core import Core, CoreError
from netbpf.sources.elf.debug import loadable, read_btf, relocated
from netbpf.sources.elf.ext import Ext, read_ext
from netbpf.sources.elf.link import Code, Function, Linked, Linker
from netbpf.sources.elf.reader import ElfFile
from netbpf.sources.elf.sections import TARGETED, section_kind

ELF_MAGIC: Final = b"\x7fELF"
VMLINUX: Final = "/sys/kernel/btf/vmlinux"


class Entry(NamedTuple):
    """A program of an object. ``prog_type`` is BPF_PROG_TYPE_UNSPEC (0) where the section's name says none; ``insns`` counts
    its own slots, without what it calls."""

    name: str
    section: str
    prog_type: int
    insns: int


def list_programs(data: bytes, path: str = "<object>") -> tuple[Entry, ...]:
    """The programs of an object, in order of sections and places. Raises SourceError."""
    return tuple(_entry(f, elf) for elf in (ElfFile(data, path),) for f in Code(elf).programs)


def read_object(
    data: bytes,
    path: str = "<object>",
    *,
    program: str | None = None,
    kconfig: Mapping[str, str | int] | None = None,
    kernel_btf: str | None = None,
) -> ProgramSpec:
    """One program of an object with all maps, linked with the functions it calls.

    ``program`` is its symbol or its section; without it the object must hold one program, or one that no program array
    names. ``kconfig``: values of externs in .kconfig, by name ("y", "m", "n", numbers, text). ``kernel_btf``: the file of types
    (BTF, or an object with it) for CO-RE, by default the running kernel's. Raises SourceError.
    """
    return _Object(data, path, kconfig or {}, kernel_btf).read(program)


def _entry(function: Function, elf: ElfFile) -> Entry:
    section = elf.sections[function.section].name
    kind = section_kind(section)
    return Entry(function.name, section, kind.prog_type if kind else 0, function.end - function.start)


def _types_in(data: bytes, path: str) -> Btf:
    """The types in a file: bare BTF, or an object with a .BTF section. Raises SourceError, or BpfError for bare BTF."""
    if not data.startswith(ELF_MAGIC):
        return Btf.parse(data)
    elf = ElfFile(data, path)
    section = elf.section(".BTF")
    if section is None:
        raise SourceError("an object without .BTF: no types", path=path)
    return read_btf(elf, section)


class _Object:
    """An object being read."""

    def __init__(self, data: bytes, path: str, kconfig: Mapping[str, str | int], kernel_btf: str | None) -> None:
        self.path, self.kernel_btf = path, kernel_btf
        self.elf = ElfFile(data, path)
        self.code = Code(self.elf)
        section = self.elf.section(".BTF")
        self.btf = read_btf(self.elf, section) if section is not None and section.size else None
        self.maps = definitions.MapTable()
        self._read_maps()
        self.externs, places = globals_.kconfig_map(self.elf, self.btf, kconfig, self.maps)
        self.blob = loadable(self.elf, self.btf, places) if self.btf is not None else b""

    def read(self, program: str | None) -> ProgramSpec:
        main = self._choose(program)
        spec = self._spec(main)
        return spec._replace(others=tuple(spec if f == main else self._spec(f) for f in self._slot_functions()))

    # --- maps ---------------------------------------------------------------------------------------------------------
    def _read_maps(self) -> None:
        elf = self.elf
        legacy, modern = elf.section(definitions.LEGACY_MAPS), elf.section(definitions.BTF_MAPS)
        if legacy is not None and legacy.size:
            definitions.legacy_maps(elf, legacy, self.maps)
        if modern is not None and modern.size:
            definitions.btf_maps(elf, modern, self.btf or Btf([], b"\0"), self.maps)
            definitions.fill_slots(elf, modern, self.maps)
        globals_.data_maps(elf, self.btf, self.maps)

    @cached_property
    def _slot_names(self) -> frozenset[str]:
        """Names of the programs in program arrays."""
        maps = {d.spec.name for d in self.maps.decls}
        return frozenset(name for d in self.maps.decls for _, name in d.slots if name not in maps)

    def _slot_functions(self) -> list[Function]:
        by_name = {f.name: f for f in self.code.programs}
        for name in sorted(self._slot_names):
            if name not in by_name:
                raise SourceError(f"section '.maps': function {name!r} in a slot is no program", path=self.path)
        return [by_name[name] for name in sorted(self._slot_names)]

    # --- programs -----------------------------------------------------------------------------------------------------
    def _choose(self, program: str | None) -> Function:
        """The program asked for: by symbol, else by section, else the only one."""
        programs = self.code.programs
        if not programs:
            raise SourceError('no program: no global function in a section of its own (SEC("socket"))', path=self.path)
        if program is None:
            found = [f for f in programs if f.name not in self._slot_names] if len(programs) > 1 else programs
            what = f"{len(programs)} programs: name one"
        else:
            found = [f for f in programs if f.name == program]
            found = found or [f for f in programs if self.elf.sections[f.section].name == program]
            what = f"no program {program!r}" if not found else f"{len(found)} programs in section {program!r}: name one"
        if len(found) != 1:
            names = ", ".join(f"{f.name} ({self.elf.sections[f.section].name})" for f in programs[:20])
            raise SourceError(f"{what}: {names}", path=self.path)
        return found[0]

    def _spec(self, function: Function) -> ProgramSpec:
        section = self.elf.sections[function.section].name
        kind = section_kind(section)
        if kind is None:
            why = "needs a hook of a running kernel" if section.lstrip("?").split("/")[0] in TARGETED else "names no program type"
            raise SourceError(f"section {section!r} of program {function.name!r} {why}", path=self.path)
        linked = self._linker.link(function)
        return ProgramSpec(
            linked.insns,
            prog_type=int(kind.prog_type),
            license=self._license,
            name=function.name,
            maps=self._decls,
            prog_flags=kind.prog_flags,
            expected_attach_type=kind.attach_type,
            btf=self.blob,
            func_info=self._func_info(linked),
            line_info=tuple((pc, name, line, col) for pc, name, line, col in linked.line_info) if linked.func_info else (),
        )

    def _func_info(self, linked: Linked) -> tuple[tuple[int, int], ...]:
        return tuple((pc, type_id) for pc, type_id in linked.func_info)

    @cached_property
    def _decls(self) -> tuple[MapDecl, ...]:
        return tuple(self.maps.decls)

    @cached_property
    def _license(self) -> str:
        """The text of section ``license``; empty (not GPL-compatible) without it."""
        section = self.elf.section("license")
        return self.elf.content(section).split(b"\0")[0].decode("latin-1")[:127] if section is not None else ""

    @cached_property
    def _linker(self) -> Linker:
        return Linker(
            self.code,
            self.maps,
            self._ext,
            kconfig=self.externs,
            fix_core=self._fix_core,
            kernel_function=self._kernel_function,
        )

    @cached_property
    def _ext(self) -> Ext | None:
        section = self.elf.section(".BTF.ext")
        if section is None or self.btf is None or not section.size:
            return None
        return read_ext(self.elf, section, relocated(self.elf, section), self.btf)

    # --- the kernel's types -------------------------------------------------------------------------------------------
    @cached_property
    def _core(self) -> Core:
        assert self.btf is not None  # .BTF.ext is read with .BTF only
        return Core(self.btf, lambda: self._kernel_types)

    @cached_property
    def _kernel_types(self) -> Btf:
        path = self.kernel_btf or VMLINUX
        try:
            return _types_in(Path(path).read_bytes(), path)
        except OSError as e:
            text = f"CO-RE needs a kernel's types: {e.strerror} ({path}); name a file of BTF (--btf)"
            raise SourceError(text, path=self.path) from None
        except BpfError as e:
            raise SourceError(str(e).removeprefix("EINVAL: "), path=path) from None

    def _kernel_function(self, name: str) -> int:
        """The id of a kernel function in the types named, 0 where none were."""
        return self._kernel_types.find(name, KIND_FUNC) if self.kernel_btf else 0

    def _fix_core(self, code: list[Instruction], pc: int, row: tuple[int, ...], where: str) -> None:
        try:
            self._core.apply(code, pc, row)
        except CoreError as e:
            raise SourceError(f"{where}: CO-RE: {e}", path=self.path) from None
