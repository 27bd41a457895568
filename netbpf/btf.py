"""BPF Type Format: the type and string sections of one blob, as Documentation/bpf/btf.rst lays them out.

Parses and answers questions about types; knows no program and no map. Type 0 is void.

    header: u16 magic 0xeb9f, u8 version 1, u8 flags, u32 hdr_len, u32 type_off, type_len, str_off, str_len (after hdr_len)
    type:   u32 name_off, u32 info (vlen: 0-15, kind: 24-28, kind_flag: 31), u32 size_or_type, then rows by kind
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from netbpf.errors import BpfError

KIND_INT: Final = 1
KIND_PTR: Final = 2
KIND_ARRAY: Final = 3
KIND_STRUCT: Final = 4
KIND_UNION: Final = 5
KIND_ENUM: Final = 6
KIND_FWD: Final = 7
KIND_TYPEDEF: Final = 8
KIND_VOLATILE: Final = 9
KIND_CONST: Final = 10
KIND_RESTRICT: Final = 11
KIND_FUNC: Final = 12
KIND_FUNC_PROTO: Final = 13
KIND_VAR: Final = 14
KIND_DATASEC: Final = 15
KIND_FLOAT: Final = 16
KIND_DECL_TAG: Final = 17
KIND_TYPE_TAG: Final = 18
KIND_ENUM64: Final = 19

MODIFIERS: Final = frozenset({KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT, KIND_TYPE_TAG})
FUNC_STATIC: Final = 0
FUNC_GLOBAL: Final = 1
FUNC_EXTERN: Final = 2
POINTER_BYTES: Final = 8
MAX_RESOLVE_DEPTH: Final = 32
MAX_STRING: Final = 4096  # a damaged blob may be one string, and every name in it

_HEADER: Final = struct.Struct("<HBBIIIII")
_TYPE: Final = struct.Struct("<III")
_MAGIC: Final = 0xEB9F

# what follows the 12 bytes of a type: (struct of a row, one row per vlen)
_ROWS: Final[dict[int, tuple[struct.Struct, bool]]] = {
    KIND_INT: (struct.Struct("<I"), False),  # encoding 24-27, bit offset 16-23, bits 0-7
    KIND_ARRAY: (struct.Struct("<III"), False),  # element type, index type, number
    KIND_STRUCT: (struct.Struct("<III"), True),  # name, type, offset in bits
    KIND_UNION: (struct.Struct("<III"), True),
    KIND_ENUM: (struct.Struct("<Ii"), True),  # name, value
    KIND_FUNC_PROTO: (struct.Struct("<II"), True),  # name, type
    KIND_VAR: (struct.Struct("<I"), False),  # linkage
    KIND_DATASEC: (struct.Struct("<III"), True),  # type, offset, size
    KIND_DECL_TAG: (struct.Struct("<i"), False),  # component
    KIND_ENUM64: (struct.Struct("<III"), True),  # name, low half, high half
}


class BtfType(NamedTuple):
    """One type. ``size_or_type``: bytes of an int, struct, union, enum, float; the type meant by the others. ``rows``: what
    follows, in the layout of its kind (see _ROWS)."""

    kind: int
    name_off: int
    vlen: int
    kind_flag: bool
    size_or_type: int
    rows: tuple[tuple[int, ...], ...]


class Member(NamedTuple):
    """A member of a struct or union, or a parameter (offset 0)."""

    name: str
    type_id: int
    bit_offset: int
    bitfield_size: int


class Btf:
    """A parsed blob. ``Btf.parse`` raises BpfError(EINVAL) for one that is malformed."""

    def __init__(self, types: list[BtfType], strings: bytes) -> None:
        self.types = types
        self.strings = strings

    @classmethod
    def parse(cls, data: bytes) -> Btf:
        types_section, strings = _sections(data)
        return cls([BtfType(0, 0, 0, False, 0, ()), *_parse_types(types_section)], strings)

    def string(self, offset: int) -> str:
        """The string at ``offset`` of the string section, MAX_STRING bytes of it at most; empty where there is none."""
        if not 0 <= offset < len(self.strings):
            return ""
        end = self.strings.find(b"\0", offset, offset + MAX_STRING)
        return self.strings[offset : end if end >= 0 else offset + MAX_STRING].decode("utf-8", "replace")

    def has_string(self, offset: int) -> bool:
        return 0 <= offset < len(self.strings)

    def type(self, type_id: int) -> BtfType | None:
        return self.types[type_id] if 0 <= type_id < len(self.types) else None

    def name(self, type_id: int) -> str:
        t = self.type(type_id)
        return self.string(t.name_off) if t is not None else ""

    def skip_modifiers(self, type_id: int) -> int:
        """The type behind typedefs, const, volatile, restrict and type tags."""
        for _ in range(MAX_RESOLVE_DEPTH):
            t = self.type(type_id)
            if t is None or t.kind not in MODIFIERS:
                return type_id
            type_id = t.size_or_type
        return 0

    def size(self, type_id: int) -> int:
        """Bytes of a value of the type; 0 where it has none (void, functions, forward declarations)."""
        factor = 1
        for _ in range(MAX_RESOLVE_DEPTH):
            type_id = self.skip_modifiers(type_id)
            t = self.types[type_id] if type_id < len(self.types) else None
            if t is None:
                return 0
            if t.kind == KIND_ARRAY:
                factor, type_id = factor * t.rows[0][2], t.rows[0][0]
                continue
            return factor * _own_size(t)
        return 0

    def members(self, type_id: int) -> Iterator[Member]:
        """The members of a struct or union, the parameters of a function prototype."""
        return (self.member(type_id, i) for i in range(len(self.types[type_id].rows)))

    def member(self, type_id: int, index: int) -> Member:
        """One of ``members``."""
        t = self.types[type_id]
        row = t.rows[index]
        offset = row[2] if len(row) > 2 else 0
        bits = offset >> 24 if t.kind_flag else 0
        return Member(self.string(row[0]), row[1], offset & 0xFFFFFF if t.kind_flag else offset, bits)

    def decl_tags(self, type_id: int, component: int) -> list[str]:
        """The declaration tags on a type's member or parameter ``component`` (-1: on the type itself)."""
        return [
            self.string(t.name_off)
            for t in self.types
            if t.kind == KIND_DECL_TAG and t.size_or_type == type_id and t.rows[0][0] == component
        ]

    def find(self, name: str, kind: int) -> int:
        """The id of the type of that name and kind, or 0."""
        return next((i for i, t in enumerate(self.types) if t.kind == kind and self.is_string(t.name_off, name)), 0)

    def is_string(self, offset: int, text: str) -> bool:
        """Whether the string at ``offset`` is ``text``, without reading further than that."""
        return self.strings.startswith(text.encode() + b"\0", offset)

    def encode(self) -> bytes:
        """The blob: what ``parse`` reads, type for type."""
        types = b"".join(map(_encode_type, self.types[1:]))
        header = _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(types), len(types), len(self.strings))
        return header + types + self.strings


def _own_size(t: BtfType) -> int:
    if t.kind == KIND_PTR:
        return POINTER_BYTES
    if t.kind in (KIND_INT, KIND_STRUCT, KIND_UNION, KIND_ENUM, KIND_FLOAT, KIND_ENUM64, KIND_DATASEC):
        return t.size_or_type
    return 0


def _malformed(text: str) -> BpfError:
    return BpfError(errno.EINVAL, f"EINVAL: BTF: {text}")


def _sections(data: bytes) -> tuple[bytes, bytes]:
    """(types, strings) of a blob whose header makes sense."""
    if len(data) < _HEADER.size:
        raise _malformed(f"header needs {_HEADER.size} bytes, blob has {len(data)}")
    magic, version, flags, hdr_len, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != 1 or flags:
        raise _malformed(f"magic {magic:#x} version {version} flags {flags:#x}")
    types, strings = data[hdr_len + type_off :][:type_len], data[hdr_len + str_off :][:str_len]
    if hdr_len < _HEADER.size or len(types) != type_len or len(strings) != str_len:
        raise _malformed("sections reach beyond the blob")
    if not strings or strings[0] or strings[-1]:
        raise _malformed("string section must begin and end with a zero byte")
    return types, strings


def _parse_types(data: bytes) -> Iterator[BtfType]:
    pos, end = 0, len(data)
    while pos < end:
        if pos + _TYPE.size > end:
            raise _malformed(f"type at offset {pos} is cut short")
        name_off, info, size_or_type = _TYPE.unpack_from(data, pos)
        pos += _TYPE.size
        kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
        if not KIND_INT <= kind <= KIND_ENUM64:
            raise _malformed(f"unknown kind {kind} at offset {pos - _TYPE.size}")
        rows: tuple[tuple[int, ...], ...] = ()
        if kind in _ROWS:
            layout, many = _ROWS[kind]
            size = layout.size * (vlen if many else 1)
            if pos + size > end:
                raise _malformed(f"rows of the type at offset {pos - _TYPE.size} are cut short")
            rows = tuple(layout.iter_unpack(data[pos : pos + size]))
            pos += size
        yield BtfType(kind, name_off, vlen, bool(info >> 31), size_or_type, rows)


def _encode_type(t: BtfType) -> bytes:
    head = _TYPE.pack(t.name_off, t.vlen | t.kind << 24 | t.kind_flag << 31, t.size_or_type)
    return head + b"".join(_ROWS[t.kind][0].pack(*row) for row in t.rows)


SPECIAL_FIELDS: Final[dict[str, str]] = {
    "bpf_spin_lock": "spin_lock",
    "bpf_res_spin_lock": "res_spin_lock",
    "bpf_timer": "timer",
    "bpf_wq": "workqueue",
    "bpf_task_work": "task_work",
    "bpf_list_head": "list_head",
    "bpf_list_node": "list_node",
    "bpf_rb_root": "rb_root",
    "bpf_rb_node": "rb_node",
    "bpf_refcount": "refcount",
}


def special_fields(btf: Btf, type_id: int) -> dict[str, int]:
    """The fields of a map value that a program may not touch as bytes: name -> offset in bytes."""
    return _special_fields(btf, type_id, {}, MAX_RESOLVE_DEPTH)


def _special_fields(btf: Btf, type_id: int, known: dict[int, dict[str, int]], depth: int) -> dict[str, int]:
    """Those of one type. ``known`` holds the types seen so far, empty for one that is being looked into: in a damaged blob a
    type may hold itself, be held many times over, or stand at the end of a long chain."""
    type_id = btf.skip_modifiers(type_id)
    t = btf.type(type_id)
    if t is None or not depth or t.kind not in (KIND_STRUCT, KIND_DATASEC):
        return {}
    if type_id in known:
        return known[type_id]
    if t.kind == KIND_STRUCT and btf.string(t.name_off) in SPECIAL_FIELDS:
        return {SPECIAL_FIELDS[btf.string(t.name_off)]: 0}
    found: dict[str, int] = {}
    known[type_id] = found
    members = [(m.type_id, m.bit_offset // 8) for m in btf.members(type_id)] if t.kind == KIND_STRUCT else _variables(btf, t)
    for member_type, offset in members:
        inner = _special_fields(btf, member_type, known, depth - 1)
        found |= {name: offset + within for name, within in inner.items()}
    return found


def _variables(btf: Btf, datasec: BtfType) -> list[tuple[int, int]]:
    return [(btf.types[type_id].size_or_type, offset) for type_id, offset, _ in datasec.rows if type_id < len(btf.types)]


# --- values -----------------------------------------------------------------------------------------------------------
_INT_SIGNED: Final = 1
_INT_BOOL: Final = 4


def format_value(btf: Btf, type_id: int, data: bytes) -> Any:
    """What JSON can say of a value's bytes by its type, as bpftool's ``formatted``: numbers, names of enumerators, pointers as
    "0x..", dicts of members, lists, text for arrays of char that hold some. A number for the bytes of a type that is void."""
    return _format(btf, type_id, data, MAX_RESOLVE_DEPTH)


def _format(btf: Btf, type_id: int, data: bytes, depth: int) -> Any:
    t = btf.type(btf.skip_modifiers(type_id))
    if t is None or not depth or t.kind not in _FORMATS:
        return int.from_bytes(data, "little")
    return _FORMATS[t.kind](btf, btf.skip_modifiers(type_id), t, data, depth - 1)


def _format_int(btf: Btf, type_id: int, t: BtfType, data: bytes, depth: int) -> Any:
    encoding = t.rows[0][0] >> 24 & 0xF
    number = int.from_bytes(data, "little", signed=encoding & _INT_SIGNED != 0)
    return bool(number) if encoding & _INT_BOOL else number


def _format_enum(btf: Btf, type_id: int, t: BtfType, data: bytes, depth: int) -> Any:
    number = int.from_bytes(data, "little")
    mask = (1 << 8 * len(data)) - 1
    for row in t.rows:
        value = row[1] | row[2] << 32 if t.kind == KIND_ENUM64 else row[1]
        if value & mask == number:
            return btf.string(row[0])
    return number


def _format_ptr(btf: Btf, type_id: int, t: BtfType, data: bytes, depth: int) -> Any:
    return f"{int.from_bytes(data, 'little'):#x}"


def _format_array(btf: Btf, type_id: int, t: BtfType, data: bytes, depth: int) -> Any:
    element, _, count = t.rows[0]
    size = btf.size(element)
    if size == 1 and btf.name(btf.skip_modifiers(element)) == "char":
        text, zero, rest = data.partition(b"\0")
        if zero and not any(rest) and text.isascii() and text.decode("latin-1").isprintable():
            return text.decode("latin-1")
    return [
        _format(btf, element, data[i * size : (i + 1) * size], depth) for i in range(min(count, len(data) // size if size else 0))
    ]


def _format_members(btf: Btf, type_id: int, t: BtfType, data: bytes, depth: int) -> Any:
    out: dict[str, Any] = {}
    for m in btf.members(type_id):
        at, size = m.bit_offset // 8, btf.size(m.type_id)
        if m.bitfield_size:
            value: Any = _bitfield(btf, m, data)
        else:
            value = _format(btf, m.type_id, data[at : at + size], depth)
        if m.name:
            out[m.name] = value
        elif isinstance(value, dict):
            out |= value
    return out


def _bitfield(btf: Btf, m: Member, data: bytes) -> int:
    number = int.from_bytes(data, "little") >> m.bit_offset & ((1 << m.bitfield_size) - 1)
    t = btf.type(btf.skip_modifiers(m.type_id))
    is_signed = t is not None and t.kind == KIND_INT and bool(t.rows[0][0] >> 24 & _INT_SIGNED)
    return number - (1 << m.bitfield_size) if is_signed and number >> (m.bitfield_size - 1) else number


def _format_datasec(btf: Btf, type_id: int, t: BtfType, data: bytes, depth: int) -> Any:
    rows = [(btf.types[var], at, size) for var, at, size in t.rows if var < len(btf.types)]
    return {
        btf.string(t.name_off): [
            {btf.string(v.name_off): _format(btf, v.size_or_type, data[at : at + size], depth)} for v, at, size in rows
        ]
    }


_FORMATS: Final[dict[int, Callable[[Btf, int, BtfType, bytes, int], Any]]] = {
    KIND_INT: _format_int,
    KIND_ENUM: _format_enum,
    KIND_ENUM64: _format_enum,
    KIND_PTR: _format_ptr,
    KIND_ARRAY: _format_array,
    KIND_STRUCT: _format_members,
    KIND_UNION: _format_members,
    KIND_DATASEC: _format_datasec,
}
