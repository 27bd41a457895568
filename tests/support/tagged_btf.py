"""BTF of a program whose function takes one pointer (or value) of a given type with given `arg:` tags."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from verifier_btf import ARRAY, GLOBAL, SIGNED, STATIC, Btf

UNION, ENUM, FWD, TYPEDEF, CONST, FLOAT = 5, 6, 7, 8, 10, 16
VALUES = ("int", "enum", "float", "pair", "union")
POINTEES = (
    *("void", "int", "long", "char", "typedef", "const", "enum", "float", "pair", "large", "empty", "anonymous", "union"),
    *("array", "declared", "pointer", "__sk_buff", "bpf_dynptr"),
)


class TaggedBtf(NamedTuple):
    """The blob, and the ids of `int main(struct __sk_buff *)` and of `int f(TYPE, int)`."""

    blob: bytes
    main: int
    function: int


def _types(b: Btf) -> dict[str, int]:
    number, long, char = b.int("int", 4, SIGNED), b.int("long", 8, SIGNED), b.int("char", 1)
    return {
        "void": 0,
        "int": number,
        "long": long,
        "char": char,
        "const": (const := b.add("", CONST, 0, number)),
        "typedef": b.add("number", TYPEDEF, 0, const),
        "enum": b.add("choice", ENUM, 1, 4, struct.pack("<II", b.string("A"), 1)),
        "float": b.add("float", FLOAT, 0, 4),
        "pair": b.struct("pair_of_mine", 16, [("a", long, 0), ("b", number, 8)]),
        "large": b.struct("large_of_mine", 64, [("a", long, 0)]),
        "empty": b.struct("empty_of_mine", 0, []),
        "anonymous": b.struct("", 8, [("a", long, 0)]),
        "union": b.add("union_of_mine", UNION, 1, 8, struct.pack("<III", b.string("m"), long, 0)),
        "array": b.add("", ARRAY, 0, 0, struct.pack("<III", number, number, 5)),
        "declared": b.add("declared_of_mine", FWD, 0, 0),
        "pointer": b.ptr(number),
        "__sk_buff": b.struct("__sk_buff", 192, [("len", number, 0)]),
        "bpf_dynptr": b.struct("bpf_dynptr", 16, [("a", long, 0), ("b", long, 8)]),
    }


def tagged_btf(kind: str, tags: Sequence[str], is_global: bool = True) -> TaggedBtf:
    """``kind``: one of VALUES, or ``*`` and one of POINTEES."""
    b = Btf()
    types = _types(b)
    taken = b.ptr(types[kind[1:]]) if kind.startswith("*") else types[kind]
    main = b.func("main", b.proto(types["int"], [("ctx", b.ptr(types["__sk_buff"]))]), STATIC)
    function = b.func("f", b.proto(types["int"], [("p", taken), ("n", types["int"])]), GLOBAL if is_global else STATIC)
    for tag in tags:
        b.tag(f"arg:{tag}", function, 0)
    return TaggedBtf(b.encode(), main, function)
