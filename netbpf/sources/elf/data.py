"""Global data of an object as maps: .rodata, .data, .bss (and .rodata.x, .data.x, .bss.x), and .kconfig.

Each section is an array map of one element, as libbpf makes it. Knows sections and types; no instruction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Final, NamedTuple

from netbpf.abi.maps import BPF_F_MMAPABLE, BPF_F_RDONLY_PROG, MapType
from netbpf.btf import KIND_ARRAY, KIND_DATASEC, KIND_ENUM, KIND_INT, KIND_VAR, Btf, BtfType
from netbpf.errors import SourceError
from netbpf.maps.spec import MapSpec
from netbpf.program import MapDecl
from netbpf.sources.elf.debug import KCONFIG, VAR_EXTERN
from netbpf.sources.elf.maps import MapTable, Place
from netbpf.sources.elf.reader import SHF_ALLOC, SHT_NOBITS, STB_WEAK, ElfFile

LINUX_VERSION: Final = 6 << 16 | 18 << 8  # the kernel that is simulated
# what libbpf answers itself
VIRTUAL: Final[dict[str, int]] = {
    "LINUX_KERNEL_VERSION": LINUX_VERSION,
    "LINUX_HAS_BPF_COOKIE": 1,
    "LINUX_HAS_SYSCALL_WRAPPER": 1,
}

NAME_BYTES: Final = 15
MIN_SECTION_NAME: Final = 7
MAX_DATA_BYTES: Final = (1 << 31) - 1
_DATA: Final = re.compile(r"\.(rodata|data|bss)(\..*)?$", re.DOTALL)
_TRISTATE: Final = {"n": 0, "y": 1, "m": 2}
_INT_SIGNED: Final = 1
_INT_BOOL: Final = 4
MAX_EXTERN_BYTES: Final = 4096

Setting = str | int


def data_maps(elf: ElfFile, btf: Btf | None, table: MapTable) -> None:
    """A map for every section of global data; what is read-only is frozen."""
    datasecs = _datasecs(btf)
    for section in elf.sections:
        kind = _DATA.match(section.name)
        if kind is None or not section.size or not section.flags & SHF_ALLOC or section.is_code:
            continue
        if section.size > MAX_DATA_BYTES:
            raise elf.wrong(section, 0, f"{section.size} bytes of data: a map holds {MAX_DATA_BYTES}")
        read_only = kind[1] == "rodata"
        spec = _spec(map_name(elf.path, section.name), section.size, datasecs.get(section.name, 0), read_only=read_only)
        zero = section.type == SHT_NOBITS or kind[1] == "bss"
        contents = () if zero else ((bytes(4), elf.content(section)),)
        table.add(MapDecl(spec, contents, frozen=read_only), Place(section.number, 0, section.size))


def _datasecs(btf: Btf | None) -> dict[str, int]:
    types = btf.types if btf is not None else []
    return {btf.string(t.name_off): i for i, t in enumerate(types) if t.kind == KIND_DATASEC} if btf is not None else {}


def _spec(name: str, size: int, datasec: int, *, read_only: bool) -> MapSpec:
    flags = BPF_F_MMAPABLE | (BPF_F_RDONLY_PROG if read_only else 0)
    return MapSpec(MapType.ARRAY, 4, size, 1, flags, name, btf_value_type_id=datasec)


def map_name(path: str, section: str) -> str:
    """libbpf's name of a section's map: the beginning of the object's name and as much of the section's as fits in 15 bytes."""
    if section.count(".") > 1:  # .rodata.x, .data.x: the section's name alone
        cut = section[:NAME_BYTES]
    else:
        stem = PurePath(path).name.split(".")[0]
        room = max(MIN_SECTION_NAME, len(section))
        cut = stem[: max(NAME_BYTES - room, 0)] + section[: min(room, NAME_BYTES)]
    return re.sub(r"[^A-Za-z0-9_.]", "_", cut)


# --- .kconfig ---------------------------------------------------------------------------------------------------------
class Extern(NamedTuple):
    """A variable of .kconfig. ``align`` and ``size`` in bytes."""

    name: str
    var_id: int
    type_id: int
    size: int
    align: int
    is_weak: bool


def kconfig_map(
    elf: ElfFile, btf: Btf | None, settings: Mapping[str, Setting], table: MapTable
) -> tuple[dict[str, int], dict[int, int]]:
    """Add the map of .kconfig, frozen. Gives the offsets in it by name, and by the variable's type id.

    ``settings`` are values by name: "y", "n", "m", numbers, or text, in quotes or not. Raises SourceError for a value that
    is missing and not weak, or that its type does not hold.
    """
    datasec_id = btf.find(KCONFIG, KIND_DATASEC) if btf is not None else 0
    if btf is None or not datasec_id:
        return {}, {}
    externs = sorted(_externs(elf, btf, btf.types[datasec_id]), key=lambda e: (-e.align, -e.size, e.name))
    by_name: dict[str, int] = {}
    by_id: dict[int, int] = {}
    data = bytearray()
    for e in externs:
        data += bytes(-len(data) % e.align)
        by_name[e.name] = by_id[e.var_id] = len(data)
        data += _value(elf, btf, e, settings)
        if len(data) > MAX_DATA_BYTES:
            raise elf.damaged("section '.BTF'", 0, f"{len(data)} bytes of {KCONFIG}")
    if data:
        spec = _spec(map_name(elf.path, KCONFIG), len(data), datasec_id, read_only=True)
        table.add(MapDecl(spec, ((bytes(4), bytes(data)),), frozen=True), Place(-1, 0, len(data)))
    return by_name, by_id


def _externs(elf: ElfFile, btf: Btf, datasec: BtfType) -> Iterator[Extern]:
    weak = {s.name for s in elf.symbols if s.section == 0 and s.bind == STB_WEAK}
    for var_id, _, _ in datasec.rows:
        var = btf.type(var_id)
        if var is None or var.kind != KIND_VAR or var.rows[0][0] != VAR_EXTERN:
            raise elf.damaged("section '.BTF'", 0, f"type {var_id} in {KCONFIG} is no extern variable")
        name, size = btf.string(var.name_off), btf.size(var.size_or_type)
        t = btf.type(btf.skip_modifiers(var.size_or_type))
        if not 0 < size <= MAX_EXTERN_BYTES or t is None:
            raise elf.damaged("section '.BTF'", 0, f"extern {name} has {size} bytes")
        align = 1 if t.kind == KIND_ARRAY else min(size, 8)
        yield Extern(name, var_id, var.size_or_type, size, align, name in weak)


def _value(elf: ElfFile, btf: Btf, e: Extern, settings: Mapping[str, Setting]) -> bytes:
    """The bytes of one variable."""
    setting = settings.get(e.name, VIRTUAL.get(e.name))
    if setting is None:
        if not e.is_weak:
            raise SourceError(f"extern {e.name} has no value and is not weak: give one (--kconfig {e.name}=...)", path=elf.path)
        return bytes(e.size)
    t = btf.types[btf.skip_modifiers(e.type_id)]
    if t.kind == KIND_ARRAY:
        text = str(setting)
        text = text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text
        return text.encode()[: e.size - 1].ljust(e.size, b"\0")
    number = _number(setting, t)
    if number is None:
        raise SourceError(f"extern {e.name}: {setting!r} is no value of its type", path=elf.path)
    signed = t.kind == KIND_INT and bool(t.rows[0][0] >> 24 & _INT_SIGNED)
    low, high = (-(1 << 8 * e.size - 1), 1 << 8 * e.size - 1) if signed else (0, 1 << 8 * e.size)
    if not low <= number < high:
        raise SourceError(f"extern {e.name}: {number} does not fit in {e.size} bytes", path=elf.path)
    return number.to_bytes(e.size, "little", signed=signed)


def _number(setting: Setting, t: BtfType) -> int | None:
    """A setting as a number: y, n and m as a bool, an enum libbpf_tristate or a char (their letter) has them, else C's forms."""
    if t.kind not in (KIND_INT, KIND_ENUM):
        return None
    if isinstance(setting, int):
        return setting
    if setting in _TRISTATE:
        if t.kind == KIND_ENUM:
            return _TRISTATE[setting]
        if t.rows[0][0] >> 24 & _INT_BOOL:
            return None if setting == "m" else _TRISTATE[setting]
        return ord(setting) if t.size_or_type == 1 else None
    try:
        return int(setting, 0)
    except ValueError:
        return None
