"""The .BTF of an object as the kernel takes it: relocated, sized, sorted, and functions of hidden visibility made static.

A compiler leaves sizes of sections and places of variables to the loader; the kernel refuses BTF without them. Knows
sections and symbols; reads no map definition.
"""

from __future__ import annotations

from typing import Final

from netbpf.btf import (
    FUNC_EXTERN,
    FUNC_GLOBAL,
    FUNC_STATIC,
    KIND_DATASEC,
    KIND_FUNC,
    KIND_INT,
    KIND_VAR,
    Btf,
    BtfType,
)
from netbpf.errors import BpfError
from netbpf.sources.elf.reader import STT_FUNC, STV_HIDDEN, STV_INTERNAL, ElfFile, Section

R_BPF_64_64: Final = 1
R_BPF_64_ABS64: Final = 2
R_BPF_64_ABS32: Final = 3
R_BPF_64_NODYLD32: Final = 4
R_BPF_64_32: Final = 10
# bytes that a relocation of data writes; before clang 13 the last two kinds stood for all of them
DATA_BYTES: Final = {R_BPF_64_ABS64: 8, R_BPF_64_ABS32: 4, R_BPF_64_NODYLD32: 4, R_BPF_64_64: 8, R_BPF_64_32: 4}

MAX_BTF_BYTES: Final = 16 << 20
MAX_U32: Final = (1 << 32) - 1
VAR_GLOBAL: Final = 1
VAR_EXTERN: Final = 2
KCONFIG: Final = ".kconfig"
KSYMS: Final = ".ksyms"


def relocated(elf: ElfFile, section: Section) -> bytes:
    """The bytes of a section of data with every relocation applied: symbol's value plus what was there."""
    data = bytearray(elf.content(section))
    for r in elf.relocations(section):
        size = DATA_BYTES.get(r.type)
        if size is None or r.offset + size > len(data):
            raise elf.wrong(section, r.offset, f"a relocation of type {r.type} in {len(data)} bytes of data")
        value = int.from_bytes(data[r.offset : r.offset + size], "little") + r.symbol.value
        data[r.offset : r.offset + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(data)


def read_btf(elf: ElfFile, section: Section) -> Btf:
    """The types of .BTF, as the compiler wrote them, places of variables relocated."""
    if section.size > MAX_BTF_BYTES:
        raise elf.wrong(section, 0, f"{section.size} bytes: the kernel takes {MAX_BTF_BYTES} at most")
    try:
        return Btf.parse(relocated(elf, section))
    except BpfError as e:
        raise elf.wrong(section, 0, str(e).removeprefix("EINVAL: BTF: ")) from None


def loadable(elf: ElfFile, btf: Btf, kconfig: dict[int, int]) -> bytes:
    """The blob for BPF_BTF_LOAD. ``kconfig``: type id of a variable of .kconfig -> its offset in that map."""
    types = list(btf.types)
    hidden = {s.name for s in elf.symbols if s.type == STT_FUNC and s.visibility in (STV_HIDDEN, STV_INTERNAL)}
    for i, t in enumerate(btf.types):
        if t.kind == KIND_DATASEC:
            types[i] = _datasec(elf, btf, types, t, kconfig)
        elif t.kind == KIND_FUNC and t.vlen == FUNC_GLOBAL and hidden and btf.string(t.name_off) in hidden:
            types[i] = t._replace(vlen=FUNC_STATIC)
    return Btf(types, btf.strings).encode()


def _datasec(elf: ElfFile, btf: Btf, types: list[BtfType], t: BtfType, kconfig: dict[int, int]) -> BtfType:
    """The section's type with its size, variables in the order of their places."""
    name = btf.string(t.name_off)
    if name == KSYMS:
        return _ksyms(btf, types, t)
    if name == KCONFIG:
        rows = [(var, kconfig.get(var, offset), size) for var, offset, size in t.rows]
        for var, _, _ in rows:
            if var < len(types) and types[var].kind == KIND_VAR:
                types[var] = types[var]._replace(rows=((VAR_GLOBAL,),))
        end = max((offset + size for _, offset, size in rows), default=0)
        if end > MAX_U32:
            raise elf.damaged("section '.BTF'", 0, f"{end} bytes of {KCONFIG}")
        return t._replace(size_or_type=end, rows=tuple(sorted(rows, key=_place)))
    section = elf.section(name)
    size = t.size_or_type or (section.size if section is not None else 0)
    return t._replace(size_or_type=size & MAX_U32, rows=tuple(sorted(t.rows, key=_place)))


def _place(row: tuple[int, ...]) -> int:
    return row[1]


def _ksyms(btf: Btf, types: list[BtfType], t: BtfType) -> BtfType:
    """Kernel symbols are no data: each becomes a number of 4 bytes, and a function that of no linkage the kernel refuses."""
    number = next((i for i, row in enumerate(btf.types) if row.kind == KIND_INT and row.size_or_type == 4), 0)
    rows = []
    for at, (type_id, _, _) in enumerate(t.rows):
        row = types[type_id] if type_id < len(types) else None
        if row is not None and row.kind == KIND_FUNC and row.vlen == FUNC_EXTERN:
            types[type_id] = BtfType(KIND_VAR, row.name_off, 0, False, number, ((VAR_GLOBAL,),))
        elif row is not None and row.kind == KIND_VAR:
            types[type_id] = row._replace(size_or_type=number, rows=((VAR_GLOBAL,),))
        rows.append((type_id, 4 * at, 4))
    return t._replace(size_or_type=4 * len(rows), rows=tuple(rows))
