"""BPF_BTF_LOAD: which blobs the kernel takes, byte by byte around a good one. Reasons are not compared, only errnos."""

from __future__ import annotations

import struct

import pytest
from support.both_hosts import both
from support.kernel import needs_kernel
from support.recorder import BAD, Recorder

from netbpf.abi.commands import Cmd

pytestmark = needs_kernel
STRINGS = b"\0int\0pair\0a\0b\0arr\0e\0ONE\0f\0"


def _s(name: bytes) -> int:
    return STRINGS.index(b"\0" + name + b"\0") + 1 if name else 0


def _type(name: bytes, kind: int, size: int, extra: bytes = b"", vlen: int = 0, flag: int = 0) -> bytes:
    return struct.pack("<III", _s(name), kind << 24 | vlen | flag << 31, size) + extra


INT = _type(b"int", 1, 4, struct.pack("<I", 1 << 24 | 32))
TYPES = {
    "int": INT,
    "struct": INT + _type(b"pair", 4, 8, struct.pack("<IIIIII", _s(b"a"), 1, 0, _s(b"b"), 1, 32), 2),
    "array": INT + _type(b"", 3, 0, struct.pack("<III", 1, 1, 4)),
    "enum": INT + _type(b"e", 6, 4, struct.pack("<Ii", _s(b"ONE"), 1), 1),
    "typedef": INT + _type(b"a", 8, 1),
    "pointer": INT + _type(b"", 2, 1),
    "function": INT + _type(b"", 13, 1, struct.pack("<II", _s(b"a"), 1), 1) + _type(b"f", 12, 2),
    "nothing": b"",
    "void pointer": _type(b"", 2, 0),
    "bad kind": INT + _type(b"a", 20, 1),
    "unknown type": INT + _type(b"a", 8, 9),
    "itself": INT + _type(b"a", 8, 2),
    "name beyond": struct.pack("<IIII", 999, 1 << 24, 4, 32),
    "int of 3 bytes": _type(b"int", 1, 3, struct.pack("<I", 24)),
    "int without name": _type(b"", 1, 4, struct.pack("<I", 32)),
    "cut": INT[:-1],
    "cut in a struct": INT + _type(b"pair", 4, 8, b"", 2),
}


def blob(types: bytes, strings: bytes = STRINGS, **header: int) -> bytes:
    h = {"magic": 0xEB9F, "version": 1, "flags": 0, "hdr_len": 24, "type_off": 0, "type_len": len(types)}
    h |= {"str_off": len(types), "str_len": len(strings)} | header
    return struct.pack("<HBBIIIII", *h.values()) + types + strings


def load(r: Recorder, label: str, data: bytes, **fields: int) -> None:
    fd = r.do(label, Cmd.BPF_BTF_LOAD, **{"btf": r.ptr(data), "btf_size": len(data), **fields})
    if fd < 0:
        r.note("size", None)
    else:
        info = r.process.btf_info(fd)
        r.note("size", (info.btf_size, info.kernel_btf, info.id > 0))
        r.process.close(fd)


@pytest.mark.parametrize("name", TYPES)
def test_types(name: str) -> None:
    both(lambda r: load(r, name, blob(TYPES[name])))


def test_headers() -> None:
    good = TYPES["struct"]

    def case(r: Recorder) -> None:
        for field in ("magic", "version", "flags", "hdr_len", "type_off", "type_len", "str_off", "str_len"):
            for value in (0, 1, 2, 3, 4, 8, 20, 23, 25, 28, 32, 100, 255):
                load(r, f"{field} {value}", blob(good, **{field: value}))
        for size in range(28):
            load(r, f"cut to {size}", blob(good)[:size])
        for strings in (b"", b"\0", b"a\0", b"\0a", STRINGS[:-1]):
            load(r, f"strings {strings!r}", blob(b"", strings))

    both(case)


def test_arguments() -> None:
    good = blob(TYPES["int"])

    def case(r: Recorder) -> None:
        for place in (0, BAD):
            load(r, f"at {place}", good, btf=place)
        for size in (0, 1 << 24, (1 << 24) + 1):
            load(r, f"size {size} at NULL", good, btf=0, btf_size=size)
        for level in (0, 1, 2, 4, 8, 16):
            for log_size in (0, 1, 128, 4096):
                for where in (0, r.ptr(4096)):
                    fields = {"btf_log_level": level, "btf_log_size": log_size, "btf_log_buf": where}
                    load(r, f"level {level} size {log_size} {'buffer' if where else 'none'}", blob(b""), **fields)
        for flags in (1, 1 << 16):
            load(r, f"flags {flags}", good, btf_flags=flags)

    both(case)
