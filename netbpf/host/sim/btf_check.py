"""Whether BPF_BTF_LOAD takes a blob: the kernel's rules on header and sections, on names, on which type refers to which.

The layout of a type's rows is ``netbpf.btf``'s. Rules about one kind's own contents (encodings of ints, order of members) are
checked only where a wrong one would mislead a reader of the blob.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import Final

from netbpf import btf
from netbpf.btf import Btf, BtfType
from netbpf.errors import ENOTSUPP, BpfError

MAGIC: Final = 0xEB9F
HEADER: Final = struct.Struct("<HBBIIIII")
HDR_LEN_END: Final = 8
TYPE_BYTES: Final = 12
INFO_MASK: Final = 0x9F00_FFFF
NAME_OFFSET_MAX: Final = 0xFF_FFFF
_FOLLOWS: Final = btf.MODIFIERS | {btf.KIND_PTR}
_BY_VALUE: Final = btf.MODIFIERS | {btf.KIND_ARRAY, btf.KIND_STRUCT, btf.KIND_UNION, btf.KIND_VAR, btf.KIND_DATASEC}
_REFERS: Final = _FOLLOWS | {btf.KIND_FUNC, btf.KIND_VAR, btf.KIND_DECL_TAG, btf.KIND_FUNC_PROTO}
_TYPE_COLUMNS: Final = {  # in the rows of a kind: where type ids stand
    btf.KIND_ARRAY: (0, 1),
    btf.KIND_STRUCT: (1,),
    btf.KIND_UNION: (1,),
    btf.KIND_FUNC_PROTO: (1,),
    btf.KIND_DATASEC: (0,),
}
_NAME_COLUMN_KINDS: Final = frozenset(
    {btf.KIND_STRUCT, btf.KIND_UNION, btf.KIND_ENUM, btf.KIND_ENUM64, btf.KIND_FUNC_PROTO}
)
_VOID_ALLOWED: Final = _FOLLOWS | {btf.KIND_FUNC_PROTO}


def check_btf(blob: bytes) -> Btf:
    """The parsed blob. Raises BpfError(EINVAL, ENOTSUPP, E2BIG, EEXIST) with the reason."""
    _check_header(blob)
    parsed = Btf.parse(blob)
    _check_infos(parsed, blob)
    for type_id, t in enumerate(parsed.types[1:], 1):
        _check_names(parsed, type_id, t)
    for type_id, t in enumerate(parsed.types[1:], 1):
        _check_references(parsed, type_id, t)
    _check_loops(parsed)
    return parsed


def _refuse(text: str, error: int = errno.EINVAL) -> BpfError:
    return BpfError(error, text)


# --- header and sections ------------------------------------------------------------------------------------------------


def _check_header(blob: bytes) -> None:
    if len(blob) < HDR_LEN_END:
        raise _refuse("hdr_len not found")
    (hdr_len,) = struct.unpack_from("<I", blob, 4)
    if len(blob) < hdr_len:
        raise _refuse("btf_header not found")
    if any(blob[HEADER.size : hdr_len]):
        raise _refuse("Unsupported btf_header", errno.E2BIG)
    known = blob[: min(hdr_len, HEADER.size)].ljust(HEADER.size, b"\0")
    magic, version, flags, _, type_off, type_len, str_off, str_len = HEADER.unpack(known)
    if magic != MAGIC:
        raise _refuse("Invalid magic")
    if version != 1:
        raise _refuse("Unsupported version", ENOTSUPP)
    if flags:
        raise _refuse("Unsupported flags", ENOTSUPP)
    if len(blob) == hdr_len:
        raise _refuse("No data")
    _check_sections(sorted([(type_off, type_len), (str_off, str_len)]), len(blob) - hdr_len)
    _check_strings(blob, hdr_len + str_off, str_len)
    if type_off & 3:
        raise _refuse("Unaligned type_off")
    if not type_len:
        raise _refuse("No type found")


def _check_sections(sections: list[tuple[int, int]], available: int) -> None:
    """One behind the other, without gap, overlap or rest."""
    total = 0
    for offset, length in sections:
        if available < offset:
            raise _refuse("Invalid section offset")
        if total < offset:
            raise _refuse("Unsupported section found")
        if total > offset:
            raise _refuse("Section overlap found")
        if available - total < length:
            raise _refuse("Total section length too long")
        total += length
    if total != available:
        raise _refuse("Unsupported section found")


def _check_strings(blob: bytes, start: int, length: int) -> None:
    if start + length != len(blob):
        raise _refuse("String section is not at the end")
    if not length or length - 1 > NAME_OFFSET_MAX or blob[start] or blob[-1]:
        raise _refuse("Invalid string section")


# --- types --------------------------------------------------------------------------------------------------------------


def _check_infos(parsed: Btf, blob: bytes) -> None:
    """The reserved bits of each type's info."""
    hdr_len, at = struct.unpack_from("<II", blob, 4)
    at += hdr_len
    for t in parsed.types[1:]:
        (info,) = struct.unpack_from("<I", blob, at + 4)
        if info & ~INFO_MASK:
            raise _refuse("Invalid btf_info")
        at += TYPE_BYTES + 4 * sum(map(len, t.rows))  # every column is a word


def _check_names(parsed: Btf, type_id: int, t: BtfType) -> None:
    offsets = [t.name_off, *(row[0] for row in t.rows if t.kind in _NAME_COLUMN_KINDS)]
    if not all(parsed.has_string(offset) for offset in offsets):
        raise _refuse(f"[{type_id}] Invalid name_offset")


def _referred(t: BtfType) -> Iterator[int]:
    """Type ids that a type names."""
    if t.kind in _REFERS:
        yield t.size_or_type
    for column in _TYPE_COLUMNS.get(t.kind, ()):
        for row in t.rows:
            yield row[column]


def _check_references(parsed: Btf, type_id: int, t: BtfType) -> None:
    for other in _referred(t):
        if other >= len(parsed.types) or (not other and t.kind not in _VOID_ALLOWED):
            raise _refuse(f"[{type_id}] Invalid type_id")


def _check_loops(parsed: Btf) -> None:
    """No type contains itself by value, and no chain of pointers and modifiers comes back to its start."""
    for follows in (_BY_VALUE, _FOLLOWS):
        done: set[int] = set()
        for start in range(1, len(parsed.types)):
            _walk(parsed, start, follows, done)


def _walk(parsed: Btf, start: int, follows: frozenset[int], done: set[int]) -> None:
    """Depth first from ``start``; a type met again on its own path is a loop (EEXIST)."""
    path: list[tuple[int, Iterator[int]]] = []
    on_path: set[int] = set()

    def enter(type_id: int) -> None:
        t = parsed.types[type_id]
        path.append((type_id, _referred(t) if t.kind in follows else iter(())))
        on_path.add(type_id)

    if start not in done:
        enter(start)
    while path:
        type_id, rest = path[-1]
        following = next(rest, None)
        if following is None:
            path.pop()
            on_path.discard(type_id)
            done.add(type_id)
        elif following in on_path:
            raise _refuse(f"[{following}] Loop detected", errno.EEXIST)
        elif following and following not in done:
            enter(following)
