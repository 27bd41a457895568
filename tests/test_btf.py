"""BTF blobs made by hand: parsing, questions about types, damage."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netbpf.btf import KIND_STRUCT, Btf, special_fields
from netbpf.errors import BpfError


class Blob:
    """Types in the order they are added; ids count from 1."""

    def __init__(self) -> None:
        self.types, self.strings, self.count = b"", b"\0", 0

    def name(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(self, kind: int, name: str = "", size_or_type: int = 0, vlen: int = 0, rows: bytes = b"", flag: bool = False) -> int:
        self.types += struct.pack("<III", self.name(name), kind << 24 | vlen | flag << 31, size_or_type) + rows
        self.count += 1
        return self.count

    def int(self, name: str, size: int) -> int:
        return self.add(1, name, size, rows=struct.pack("<I", 8 * size))

    def struct(self, name: str, size: int, *members: tuple[str, int, int], flag: bool = False) -> int:
        rows = b"".join(struct.pack("<III", self.name(n), t, bit) for n, t, bit in members)
        return self.add(4, name, size, len(members), rows, flag)

    def bytes(self) -> bytes:
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
        return head + self.types + self.strings


def sample() -> tuple[Blob, dict[str, int]]:
    blob = Blob()
    ids = {"int": blob.int("int", 4)}
    ids["lock"] = blob.struct("bpf_spin_lock", 4, ("val", ids["int"], 0))
    ids["typedef"] = blob.add(8, "count_t", ids["int"])
    ids["const"] = blob.add(10, "", ids["typedef"])
    ids["array"] = blob.add(3, "", 0, 0, struct.pack("<III", ids["const"], ids["int"], 6))
    ids["value"] = blob.struct("value", 40, ("n", ids["const"], 0), ("lock", ids["lock"], 32), ("a", ids["array"], 64))
    ids["ptr"] = blob.add(2, "", ids["value"])
    ids["proto"] = blob.add(13, "", ids["int"], 1, struct.pack("<II", blob.name("v"), ids["ptr"]))
    ids["func"] = blob.add(12, "use", ids["proto"], 1)
    ids["tag"] = blob.add(17, "arg:nonnull", ids["func"], rows=struct.pack("<i", 0))
    ids["bits"] = blob.struct("bits", 4, ("f", ids["int"], 3 << 24 | 5), flag=True)
    return blob, ids


def test_questions() -> None:
    blob, ids = sample()
    btf = Btf.parse(blob.bytes())
    assert btf.skip_modifiers(ids["const"]) == ids["int"]
    assert [btf.size(ids[name]) for name in ("int", "const", "array", "value", "ptr", "proto")] == [4, 4, 24, 40, 8, 0]
    assert [(m.name, m.bit_offset) for m in btf.members(ids["value"])] == [("n", 0), ("lock", 32), ("a", 64)]
    assert [(m.name, m.bit_offset, m.bitfield_size) for m in btf.members(ids["bits"])] == [("f", 5, 3)]
    assert [m.name for m in btf.members(ids["proto"])] == ["v"]
    assert btf.name(ids["func"]) == "use"
    assert btf.decl_tags(ids["func"], 0) == ["arg:nonnull"]
    assert btf.decl_tags(ids["func"], -1) == []
    assert btf.find("value", KIND_STRUCT) == ids["value"]
    assert btf.find("nothing", KIND_STRUCT) == 0
    assert btf.type(99) is None
    assert btf.string(10**6) == ""


def test_special_fields_of_a_map_value() -> None:
    blob, ids = sample()
    assert special_fields(Btf.parse(blob.bytes()), ids["value"]) == {"spin_lock": 4}


def test_special_fields_of_types_that_hold_one_another_many_times_over() -> None:
    blob = Blob()
    held = blob.struct("bpf_timer", 16)
    for depth in range(2000):
        held = blob.struct(f"level{depth}", 16, ("a", held, 0), ("b", held, 64))
        if depth == 20:
            near = held
    btf = Btf.parse(blob.bytes())
    assert special_fields(btf, near) == {"timer": 8 * 21}
    assert special_fields(btf, held) == {}, "deeper than the kernel looks"


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:20],
        lambda b: b"\0" + b[1:],
        lambda b: b[:2] + b"\2" + b[3:],
        lambda b: b[:-1],
        lambda b: b[:-1] + b"x",
        lambda b: b[:12] + struct.pack("<I", 7) + b[16:],
        lambda b: b[:24] + struct.pack("<III", 0, 31 << 24, 0) + b[36:],
    ],
)
def test_damage_is_refused(damage) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BpfError) as caught:
        Btf.parse(damage(sample()[0].bytes()))
    assert caught.value.errno == errno.EINVAL


@example(40, b"\0\0\0\0\2")  # a struct that holds itself
@given(st.integers(0, 400), st.binary(min_size=1, max_size=6))
def test_any_damage_is_refused_or_read(at: int, noise: bytes) -> None:
    good = sample()[0].bytes()
    blob = good[:at] + noise + good[at + len(noise) :]
    try:
        btf = Btf.parse(blob)
    except BpfError:
        return
    for type_id in range(len(btf.types)):
        btf.size(type_id)
        special_fields(btf, type_id)
