"""Layouts: what is said becomes bytes and comes back."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.objects import object_bytes

from netbpf.btf import Btf
from netbpf.scenario.layout import LayoutError, Struct, btf_layout, parse_layout
from netbpf.sources.elf import read_object


@pytest.mark.parametrize(
    ("text", "said", "data"),
    [
        ("u64", 5, struct.pack("<Q", 5)),
        ("be16", 443, b"\x01\xbb"),
        ("s8", -1, b"\xff"),
        ("ip4", "10.0.0.1", bytes([10, 0, 0, 1])),
        ("ip6", "fd00::1", bytes([0xFD, *[0] * 14, 1])),
        ("mac", "02:00:00:00:00:01", bytes.fromhex("020000000001")),
        ("char[8]", "eth0", b"eth0\0\0\0\0"),
        ("u8[4]", "01 02 03 ff", b"\x01\x02\x03\xff"),
        ("u16[2]", [1, 2], b"\1\0\2\0"),
        ("bool", True, b"\1"),
        ("ip4 saddr, be16 sport, pad 2", {"saddr": "10.0.0.1", "sport": 80}, b"\x0a\0\0\1\0\x50\0\0"),
        ("<QQ", [1, 2], struct.pack("<QQ", 1, 2)),
        (">I", 1, b"\0\0\0\1"),
        ("4s", "ab", b"ab\0\0"),
        ("d", 1.5, struct.pack("<d", 1.5)),
    ],
)
def test_said_and_bytes(text: str, said: Any, data: bytes) -> None:
    layout = parse_layout(text)
    assert layout.size == len(data)
    assert layout.encode(said) == data
    assert layout.decode(data) == said
    assert layout.matches(said, data)
    assert not layout.matches(said, bytes(b ^ 1 for b in data)) or "pad" in text


@pytest.mark.parametrize(
    ("text", "said", "message"),
    [
        ("u8", 256, "does not fit 1 bytes"),
        ("u8", True, "expected a number, got true"),
        ("u8", "x", "expected a number"),
        ("ip4", "fd00::1", "no IPv4 address"),
        ("ip4", "localhost", "no IPv4 address"),
        ("mac", "02:00", "2 bytes, there must be 6"),
        ("char[2]", "abc", "room for 2"),
        ("u16[2]", [1], "a list of 2, got a list of 1"),
        ("u8 a, u8 b", {"a": 1, "c": 2}, "no field 'c'"),
        ("u8 a, u8 b", [1, 2], "expected a table of a, b"),
        ("<QQ", [1], "not of the format"),
    ],
)
def test_what_does_not_fit(text: str, said: Any, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        parse_layout(text).encode(said)


@pytest.mark.parametrize(
    "text", ["", "u65", "u8 a, u8 a", "u8 a, u16", "char[99999999]", "float x", "u8 a b", "Z", "u8[x]", "ip5"]
)
def test_no_layouts(text: str) -> None:
    with pytest.raises(LayoutError):
        parse_layout(text)


def test_a_table_names_every_field_or_says_subset() -> None:
    layout, data = parse_layout("u8 a, u8 b"), b"\1\2"
    with pytest.raises(LayoutError, match="nothing is said of b"):
        layout.matches({"a": 1}, data)
    assert layout.matches({"a": 1}, data, partly=True)
    assert not layout.matches({"a": 2}, data, partly=True)


def test_padding_is_not_compared() -> None:
    assert parse_layout("u8 a, pad 3").matches({"a": 1}, b"\1xyz")


WORDS = "u8 u16 u32 u64 s16 s64 be16 be32 be64 ip4 ip6 mac".split()
FIELDS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6)


@given(FIELDS, st.data())
def test_any_bytes_come_back(kinds: list[str], data: st.DataObject) -> None:
    layout = parse_layout(", ".join(f"{kind} f{i}" for i, kind in enumerate(kinds)))
    raw = data.draw(st.binary(min_size=layout.size, max_size=layout.size))
    assert layout.encode(layout.decode(raw)) == raw
    assert layout.matches(layout.decode(raw), raw)


def test_layouts_of_an_objects_types() -> None:
    spec = read_object(object_bytes("flow_hash"), "flow_hash.o", program="count")
    decl = next(d.spec for d in spec.maps if d.spec.name == "flows")
    key = btf_layout(Btf.parse(spec.btf), decl.btf_key_type_id)
    assert isinstance(key, Struct)
    said = {"source": 1, "destination": 2, "source_port": 3, "destination_port": 4, "protocol": 6}
    assert key.encode(said) == struct.pack("<IIHHI", 1, 2, 3, 4, 6)
    assert key.decode(key.encode(said)) == said
