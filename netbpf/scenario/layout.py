"""How the bytes of a map's key or value, or of an event, are written in a scenario: layouts, from declarations and from BTF.

    "u64"                                   a number
    "ip4 saddr, be16 sport, u8 proto, pad 1"   a table of those names, packed
    "<QQ"                                   a list, by Python's struct module

``encode`` takes what a scenario says, ``decode`` gives what it would say. Knows bytes and words; no map, no file.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final, Literal

from netbpf.btf import (
    KIND_ARRAY,
    KIND_DATASEC,
    KIND_ENUM,
    KIND_ENUM64,
    KIND_INT,
    KIND_PTR,
    KIND_STRUCT,
    KIND_UNION,
    Btf,
    BtfType,
)
from netbpf.sources.lexer import did_you_mean


class LayoutError(ValueError):
    """A value that does not fit its layout, or a layout that is none; the text says why."""


class Layout(ABC):
    """``size`` bytes and how they are said."""

    size: int

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """The bytes of what a scenario says. Raises LayoutError."""

    @abstractmethod
    def decode(self, data: bytes) -> Any:
        """What a scenario would say of ``size`` bytes."""

    def matches(self, said: Any, data: bytes, *, partly: bool = False) -> bool:
        """Whether ``data`` is what is said; with ``partly``, in the fields that are named. Raises LayoutError."""
        return self.encode(said) == data

    def of_key(self, text: str) -> Any:
        """What a key of a TOML table, which is always text, says: ``encode`` takes it."""
        return text


@dataclass(frozen=True)
class Number(Layout):
    """A whole number; ``names`` are those of an enumeration."""

    size: int
    signed: bool = False
    order: Literal["little", "big"] = "little"
    names: tuple[tuple[str, int], ...] = ()
    is_bool: bool = False

    def encode(self, value: Any) -> bytes:
        number = self._number(value)
        bits = 8 * self.size
        low, high = (-(1 << (bits - 1)), 1 << bits) if bits else (0, 1)
        if not low <= number < high:
            raise LayoutError(f"{number} does not fit {self.size} bytes")
        return (number & ((1 << bits) - 1)).to_bytes(self.size, self.order)

    def _number(self, value: Any) -> int:
        if isinstance(value, str) and self.names:
            for name, number in self.names:
                if name == value:
                    return number
            raise LayoutError(f"{value!r} is no name of this enumeration{did_you_mean(value, [n for n, _ in self.names])}")
        if isinstance(value, bool) and not self.is_bool:
            raise LayoutError(f"expected a number, got {str(value).lower()}")
        if not isinstance(value, int):
            raise LayoutError(f"expected a number, got {_kind(value)}")
        return int(value)

    def decode(self, data: bytes) -> Any:
        number = int.from_bytes(data, self.order, signed=self.signed)
        if self.is_bool and number in (0, 1):
            return bool(number)
        return next((name for name, value in self.names if value == number), number)

    def of_key(self, text: str) -> Any:
        try:
            return int(text, 0)
        except ValueError:
            return text


@dataclass(frozen=True)
class Address(Layout):
    """An IPv4 (4 bytes) or IPv6 (16) address as it stands on the wire."""

    size: int

    def encode(self, value: Any) -> bytes:
        try:
            if isinstance(value, str):
                packed = ipaddress.ip_address(value).packed
                if len(packed) == self.size:
                    return packed
        except ValueError:
            pass
        raise LayoutError(f"{value!r} is no IPv{4 if self.size == 4 else 6} address")

    def decode(self, data: bytes) -> Any:
        return str(ipaddress.ip_address(data))


@dataclass(frozen=True)
class Octets(Layout):
    """Bytes as hex digits (``mac``: with colons between), or as text that zeros fill."""

    size: int
    is_text: bool = False
    is_mac: bool = False

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise LayoutError(f"expected {'text' if self.is_text else 'hex digits'}, got {_kind(value)}")
        if self.is_text and not value.startswith('hex"'):
            data = value.encode()
            if len(data) > self.size:
                raise LayoutError(f"{value!r} has {len(data)} bytes, there is room for {self.size}")
            return data.ljust(self.size, b"\0")
        digits = value[4:-1] if value.startswith('hex"') else value
        try:
            data = bytes.fromhex(digits.replace(":", " "))
        except ValueError:
            raise LayoutError(f"{value!r} is no hex digits") from None
        if len(data) != self.size:
            raise LayoutError(f"{len(data)} bytes, there must be {self.size}")
        return data

    def decode(self, data: bytes) -> Any:
        if self.is_mac:
            return data.hex(":")
        if self.is_text:
            text, _, rest = data.partition(b"\0")
            if not any(rest) and text.isascii() and text.decode().isprintable():
                return text.decode()
            return f'hex"{data.hex(" ")}"'
        return data.hex(" ")


@dataclass(frozen=True)
class Many(Layout):
    """``count`` of one layout, a list."""

    element: Layout
    count: int

    @property
    def size(self) -> int:  # type: ignore[override]  # a frozen field in its siblings
        return self.element.size * self.count

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, list) or len(value) != self.count:
            raise LayoutError(f"expected a list of {self.count}, got {_kind(value)}")
        return b"".join(self.element.encode(v) for v in value)

    def decode(self, data: bytes) -> Any:
        step = self.element.size
        return [self.element.decode(data[i * step : (i + 1) * step]) for i in range(self.count)]


@dataclass(frozen=True)
class Field:
    """A member of a struct: where it lies and how it is said."""

    name: str
    off: int
    layout: Layout


@dataclass(frozen=True)
class Struct(Layout):
    """Named fields, a table. Bytes that no field covers are padding: written as zeros, and not compared."""

    size: int
    fields: tuple[Field, ...]

    def encode(self, value: Any) -> bytes:
        out = bytearray(self.size)
        for name, said in self._table(value).items():
            f = self._field(name)
            out[f.off : f.off + f.layout.size] = _encode_field(f, said)
        return bytes(out)

    def decode(self, data: bytes) -> Any:
        return {f.name: f.layout.decode(data[f.off : f.off + f.layout.size]) for f in self.fields}

    def matches(self, said: Any, data: bytes, *, partly: bool = False) -> bool:
        table = self._table(said)
        missing = [f.name for f in self.fields if f.name not in table]
        if missing and not partly:
            raise LayoutError(f"nothing is said of {', '.join(missing)}: name every field, or set match = \"subset\"")
        return all(
            f.layout.matches(said, data[f.off : f.off + f.layout.size], partly=partly)
            for f, said in ((self._field(name), said) for name, said in table.items())
        )

    def _table(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise LayoutError(f"expected a table of {', '.join(f.name for f in self.fields)}, got {_kind(value)}")
        return value

    def _field(self, name: str) -> Field:
        found = next((f for f in self.fields if f.name == name), None)
        if found is None:
            names = [f.name for f in self.fields]
            raise LayoutError(f"there is no field {name!r}{did_you_mean(name, names) or ': ' + ', '.join(names)}")
        return found


def _encode_field(f: Field, said: Any) -> bytes:
    try:
        return f.layout.encode(said)
    except LayoutError as e:
        raise LayoutError(f"{f.name}: {e}") from None


@dataclass(frozen=True)
class PythonStruct(Layout):
    """A format of Python's struct module: one value, or a list where it has several."""

    format: struct.Struct
    count: int

    @property
    def size(self) -> int:  # type: ignore[override]  # a frozen field in its siblings
        return self.format.size

    def encode(self, value: Any) -> bytes:
        values = value if isinstance(value, list) else [value]
        try:
            return self.format.pack(*(v.encode() if isinstance(v, str) else v for v in values))
        except struct.error as e:
            raise LayoutError(f"{value!r} is not of the format {self.format.format!r}: {e}") from None

    def decode(self, data: bytes) -> Any:
        values = [_said(v) for v in self.format.unpack(data)]
        return values[0] if self.count == 1 else values

    def of_key(self, text: str) -> Any:
        return Number(8).of_key(text)


def _said(value: Any) -> Any:
    return value.rstrip(b"\0").decode("latin-1") if isinstance(value, bytes) else value


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "a table" if isinstance(value, dict) else repr(value)


# --- from declarations ------------------------------------------------------------------------------------------------

_INTEGERS: Final = {
    **{f"u{8 * n}": Number(n) for n in (1, 2, 4, 8)},
    **{f"s{8 * n}": Number(n, signed=True) for n in (1, 2, 4, 8)},
    **{f"be{8 * n}": Number(n, order="big") for n in (2, 4, 8)},
}
_WORDS: Final[dict[str, Layout]] = {
    **_INTEGERS,
    "bool": Number(1, is_bool=True),
    "ip4": Address(4),
    "ip6": Address(16),
    "mac": Octets(6, is_mac=True),
}
_DECLARATION = re.compile(
    r"\s*(?P<type>[A-Za-z]\w*)(?:\s+(?P<name>[A-Za-z_]\w*|\d+))?\s*(?:\[\s*(?P<count>\d+)\s*\])?\s*\Z", re.ASCII
)
_PYTHON = re.compile(r"[@=<>!]?(?:\s*\d*[xcbB?hHiIlLqQnNefdsp])+\s*\Z")
MAX_BYTES: Final = 1 << 16


def parse_layout(text: str) -> Layout:
    """The layout a text declares. Raises LayoutError."""
    pieces = [piece for piece in re.split(r"[,;]", text) if piece.strip()]
    found = [_DECLARATION.match(piece) for piece in pieces]
    words = [m["type"] for m in found if m is not None]
    if len(words) == len(pieces) and pieces and (any(w in _WORDS or w in ("char", "pad") for w in words) or len(words) > 1):
        return _declared([m for m in found if m is not None])
    if _PYTHON.match(text):
        return _python(text)
    known = (*_WORDS, "char", "pad")
    hint = did_you_mean(words[0], known) if words else ""
    raise LayoutError(f"{text!r} is no layout{hint}: write \"u64\", \"ip4 saddr, be16 sport\" or a struct format as \"<QQ\"")


def _python(text: str) -> PythonStruct:
    compiled = struct.Struct(text if text[0] in "@=<>!" else f"<{text}")
    return PythonStruct(compiled, len(compiled.unpack(bytes(compiled.size))))


def _declared(found: list[re.Match[str]]) -> Layout:
    if len(found) == 1 and found[0]["name"] is None:
        return _of_word(found[0])
    fields: list[Field] = []
    at = 0
    for m in found:
        layout = _of_word(m)
        if m["type"] != "pad":
            name = m["name"]
            if name is None or name.isdigit():
                raise LayoutError(f"{m[0].strip()!r} needs a name: \"{m['type']} saddr\"")
            if any(f.name == name for f in fields):
                raise LayoutError(f"two fields are called {name!r}")
            fields.append(Field(name, at, layout))
        at += layout.size
    if at > MAX_BYTES:
        raise LayoutError(f"{at} bytes: at most {MAX_BYTES}")
    return Struct(at, tuple(fields))


def _of_word(m: re.Match[str]) -> Layout:
    word, count = m["type"], int(m["count"] or 0)
    if count > MAX_BYTES:
        raise LayoutError(f"{count} elements: at most {MAX_BYTES}")
    if word == "char":
        return Octets(count or 1, is_text=True)
    if word == "pad":
        size = int(m["name"]) if m["name"] and m["name"].isdigit() else 1
        return Octets(size * (count or 1))
    layout = _WORDS.get(word)
    if layout is None:
        raise LayoutError(f"there is no type {word!r}{did_you_mean(word, (*_WORDS, 'char', 'pad'))}")
    if count and word == "u8":
        return Octets(count)
    return Many(layout, count) if count else layout


# --- from BTF ---------------------------------------------------------------------------------------------------------
_SIGNED, _BOOL = 1, 4
_MAX_DEPTH: Final = 16


def btf_layout(btf: Btf, type_id: int, depth: int = _MAX_DEPTH) -> Layout:
    """The layout of a type. Raises LayoutError for one that has none (a bit field, a union, a function)."""
    t = btf.type(btf.skip_modifiers(type_id))
    if t is None or not depth:
        raise LayoutError("its type is void or nested too deep")
    size = btf.size(type_id)
    if t.kind == KIND_INT:
        encoding = t.rows[0][0] >> 24 & 0xF
        return Number(size, signed=bool(encoding & _SIGNED), is_bool=bool(encoding & _BOOL))
    if t.kind in (KIND_ENUM, KIND_ENUM64):
        return Number(size, names=tuple((btf.string(row[0]), _enumerator(row, t.kind)) for row in t.rows))
    if t.kind == KIND_PTR:
        return Number(8)
    if t.kind == KIND_ARRAY:
        element, _, count = t.rows[0]
        if btf.size(element) == 1 and btf.name(btf.skip_modifiers(element)) == "char":
            return Octets(count, is_text=True)
        return Many(btf_layout(btf, element, depth - 1), count)
    if t.kind == KIND_DATASEC:
        return Struct(size, tuple(_variables(btf, t, depth)))
    if t.kind == KIND_STRUCT:
        return Struct(size, tuple(_members(btf, type_id, depth)))
    raise LayoutError("a union has no layout: say key and value of the map" if t.kind == KIND_UNION else "its type is no data")


def _enumerator(row: tuple[int, ...], kind: int) -> int:
    return row[1] | row[2] << 32 if kind == KIND_ENUM64 else row[1]


def _variables(btf: Btf, section: BtfType, depth: int) -> list[Field]:
    """The variables of .data, .bss or .rodata."""
    return [
        Field(btf.name(var), off, btf_layout(btf, btf.types[var].size_or_type, depth - 1))
        for var, off, _ in section.rows
        if var < len(btf.types)
    ]


def _members(btf: Btf, type_id: int, depth: int) -> list[Field]:
    fields = []
    for m in btf.members(btf.skip_modifiers(type_id)):
        if m.bitfield_size:
            raise LayoutError(f"{m.name} is a bit field: say key and value of the map")
        layout = btf_layout(btf, m.type_id, depth - 1)
        at = m.bit_offset // 8
        if m.name:
            fields.append(Field(m.name, at, layout))
        elif isinstance(layout, Struct):
            fields += [Field(f.name, at + f.off, f.layout) for f in layout.fields]
    return fields


# --- where nothing is declared ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Untyped(Layout):
    """Bytes of which nothing is known but their number: a number, or the assembly's pieces (``'ip"10.0.0.1", u16 80, ...'``)."""

    size: int

    def encode(self, value: Any) -> bytes:
        if isinstance(value, int) and not isinstance(value, bool):
            return Number(self.size).encode(value)
        if not isinstance(value, str):
            raise LayoutError(f"expected a number or text, got {_kind(value)}: say key and value of the map for a table or list")
        from netbpf.errors import SourceError
        from netbpf.sources.asm_decl import read_datum

        try:
            return read_datum(value, self.size)
        except SourceError as e:
            raise LayoutError(e.message) from None

    def decode(self, data: bytes) -> Any:
        return int.from_bytes(data, "little") if len(data) in (1, 2, 4, 8) else f'hex"{data.hex(" ")}"'


@dataclass(frozen=True)
class Hex(Layout):
    """Bytes of any number, as hex digits: an event of which nothing is declared."""

    size: int = 0

    def encode(self, value: Any) -> bytes:
        try:
            return bytes.fromhex(value)
        except (TypeError, ValueError):
            raise LayoutError(f"{value!r} is no hex digits: say value of the map for anything else") from None

    def decode(self, data: bytes) -> Any:
        return data.hex(" ")
