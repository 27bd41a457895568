"""One small BTF blob for generated programs: the functions, arguments and map values they may have, and source lines.

Built here, byte by byte (linux/btf.h), so that the kernel's reader and ours are asked about the same bytes.
"""

from __future__ import annotations

import struct

INT, PTR, ARRAY, STRUCT, FUNC, FUNC_PROTO, DECL_TAG = 1, 2, 3, 4, 12, 13, 17
STATIC, GLOBAL = 0, 1
SIGNED = 1


class Btf:
    """Types and strings being collected. Every method returns the new type's id."""

    def __init__(self) -> None:
        self.types: list[bytes] = []
        self.strings = bytearray(b"\0")
        self.offsets: dict[str, int] = {"": 0}

    def string(self, text: str) -> int:
        if text not in self.offsets:
            self.offsets[text] = len(self.strings)
            self.strings += text.encode() + b"\0"
        return self.offsets[text]

    def add(self, name: str, kind: int, vlen: int, size_or_type: int, rest: bytes = b"") -> int:
        self.types.append(struct.pack("<III", self.string(name), kind << 24 | vlen, size_or_type) + rest)
        return len(self.types)

    def int(self, name: str, size: int, encoding: int = 0) -> int:
        return self.add(name, INT, 0, size, struct.pack("<I", encoding << 24 | size * 8))

    def ptr(self, to: int) -> int:
        return self.add("", PTR, 0, to)

    def struct(self, name: str, size: int, members: list[tuple[str, int, int]]) -> int:
        rows = b"".join(struct.pack("<III", self.string(n), kind, at * 8) for n, kind, at in members)
        return self.add(name, STRUCT, len(members), size, rows)

    def proto(self, result: int, parameters: list[tuple[str, int]]) -> int:
        rows = b"".join(struct.pack("<II", self.string(n), kind) for n, kind in parameters)
        return self.add("", FUNC_PROTO, len(parameters), result, rows)

    def func(self, name: str, proto: int, linkage: int) -> int:
        return self.add(name, FUNC, linkage, proto)

    def tag(self, name: str, target: int, component: int) -> int:
        return self.add(name, DECL_TAG, 0, target, struct.pack("<i", component))

    def encode(self) -> bytes:
        types = b"".join(self.types)
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.strings))
        return header + types + bytes(self.strings)


class Library:
    """The blob and the ids in it: ``main`` functions, ``subs`` by parameters, ``values`` of maps, string offsets of lines."""

    def __init__(self) -> None:
        b = Btf()
        int32, int64, u8 = b.int("int", 4, SIGNED), b.int("long", 8, SIGNED), b.int("char", 1)
        skb = b.struct("__sk_buff", 192, [("len", int32, 0)])
        pair = b.struct("pair", 16, [("a", int64, 0), ("b", int32, 8)])
        skb_ptr, pair_ptr, int_ptr, char_ptr, void_ptr = b.ptr(skb), b.ptr(pair), b.ptr(int32), b.ptr(u8), b.ptr(0)
        lock = b.struct("bpf_spin_lock", 4, [("val", int32, 0)])
        timer = b.struct("bpf_timer", 16, [("a", int64, 0), ("b", int64, 8)])
        self.key = int32
        self.values = {
            "spin_lock": b.struct("locked", 8, [("count", int32, 0), ("l", lock, 4)]),
            "timer": b.struct("timed", 24, [("t", timer, 0), ("count", int64, 16)]),
        }
        protos = {
            "ctx": b.proto(int32, [("ctx", skb_ptr)]),
            "": b.proto(int32, []),
            "int": b.proto(int32, [("a", int32)]),
            "int int": b.proto(int64, [("a", int64), ("b", int32)]),
            "ctx int": b.proto(int32, [("ctx", skb_ptr), ("a", int32)]),
            "pair": b.proto(int32, [("p", pair_ptr)]),
            "intp int": b.proto(int32, [("p", int_ptr), ("n", int32)]),
            "charp": b.proto(int32, [("p", char_ptr)]),
            "long voidp": b.proto(int64, [("index", int32), ("data", void_ptr)]),
            "void ret": b.proto(0, [("a", int32)]),
        }
        self.main = [b.func("prog_main", protos["ctx"], STATIC), b.func("prog", protos["ctx"], GLOBAL)]
        self.statics = [b.func(f"s_{i}", proto, STATIC) for i, proto in enumerate(protos.values())]
        self.globals = [b.func(f"g_{i}", proto, GLOBAL) for i, proto in enumerate(protos.values())]
        nonnull = b.func("g_nonnull", protos["pair"], GLOBAL)
        b.tag("arg:nonnull", nonnull, 0)
        self.globals.append(nonnull)
        self.file = b.string("./src/filter.c")
        self.lines = [b.string(f"\tint v{i} = f({i});") for i in range(6)]
        self.bytes = b.encode()


LIBRARY = Library()
