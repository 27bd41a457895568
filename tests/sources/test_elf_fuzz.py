"""Damaged and hostile objects: an answer or one SourceError that names the file, soon, and in bounded memory."""

from __future__ import annotations

import random
import runpy
import struct
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.elf_builder import EXIT, NOBITS, Builder
from support.objects import NAMES, OBJECTS, ODD_KERNEL, SETTINGS, object_bytes, read
from support.vectors import ROOT

from netbpf.btf import Btf
from netbpf.errors import SourceError
from netbpf.sources.elf import list_programs, read_object

FUZZER = runpy.run_path(str(ROOT / "scripts" / "fuzz_sources.py"))
CALL = bytes.fromhex("85100000ffffffff")  # of what a relocation names


@cache
def types_file(folder: Path) -> str:
    """A small file of kernel types, for CO-RE records that survive."""
    path = folder / "types.btf"
    path.write_bytes(read("globals", "sum_up").btf)
    return str(path)


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> str:
    return types_file(tmp_path_factory.mktemp("btf"))


def answers(data: bytes, types: str) -> None:
    """Read all there is; only SourceError may come."""
    try:
        for entry in list_programs(data, "x.o"):
            read_object(data, "x.o", program=entry.name, kconfig=SETTINGS, kernel_btf=types)
    except SourceError as e:
        if e.path != "x.o":
            raise


@pytest.mark.parametrize("seed", range(400))
def test_damaged_objects(seed: int, types: str) -> None:
    rng = random.Random(seed)
    answers(FUZZER["mutated"](object_bytes(rng.choice(NAMES)), rng), types)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    patches=st.lists(st.tuples(st.integers(0, 16000), st.binary(min_size=1, max_size=8)), max_size=6),
    end=st.integers(0, 16000),
)
def test_any_bytes_in_it(types: str, name: str, patches: list[tuple[int, bytes]], end: int) -> None:
    data = bytearray(object_bytes(name))
    for at, piece in patches:
        data[at % len(data) : at % len(data) + len(piece)] = piece
    answers(bytes(data[:end]) if end < 4000 else bytes(data), types)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_behind_a_header(types: str, tail: bytes) -> None:
    answers(object_bytes("bytes_by_protocol")[:64] + tail, types)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=8))
def test_btf_read_again_is_the_same(at: int, piece: bytes) -> None:
    data = bytearray(read("globals", "sum_up").btf)
    data[at % len(data) : at % len(data) + len(piece)] = piece
    try:
        btf = Btf.parse(bytes(data))
    except OSError:
        return
    again = Btf.parse(btf.encode())
    assert (again.types, again.strings) == (btf.types, btf.strings)


def refused(builder: Builder, words: str, program: str | None = None) -> None:
    started = time.monotonic()
    with pytest.raises(SourceError, match=words):
        read_object(builder.build(), "x.o", program=program)
    assert time.monotonic() - started < 20


# --- made on purpose --------------------------------------------------------------------------------------------------
def test_a_plain_one_is_read() -> None:
    b = Builder()
    b.symbol("f", b.add("socket", EXIT), 0, len(EXIT))
    assert read_object(b.build(), "x.o").name == "f"


def test_a_long_chain_of_calls() -> None:
    b, count = Builder(), 20000
    text = b.add(".text", (CALL + EXIT[8:]) * count)
    main = b.add("socket", CALL + EXIT[8:])
    symbols = [b.symbol(f"f{i}", text, 16 * i, 16) for i in range(count)]
    b.symbol("main", main, 0, 16)
    b.relocate(main, 0, 10, symbols[0])
    for i in range(count):
        b.relocate(text, 16 * i, 10, symbols[(i + 1) % count])
    assert len(read_object(b.build(), "x.o").insns) == 2 * (count + 1)


def test_functions_that_overlap() -> None:
    b, count = Builder(), 200
    size = 10000
    text = b.add(".text", (CALL + EXIT[8:]) * (size // 2))
    main = b.add("socket", CALL * count + EXIT[8:])
    for i in range(count):
        b.relocate(main, 8 * i, 10, b.symbol(f"f{i}", text, 8 * i, 8 * (size - count)))
    b.symbol("main", main, 0, 8 * (count + 1))
    refused(b, r"instructions with all that is called|no function begins|a relocation")


def test_data_without_bytes() -> None:
    b = Builder()
    b.add(".bss", b"", kind=NOBITS, flags=3, size=1 << 40)
    b.symbol("f", b.add("socket", EXIT), 0, len(EXIT))
    refused(b, r"section '.bss', offset 0x0: 1099511627776 bytes of data")


def test_calls_and_references_to_nothing() -> None:
    for insns, kind, words in (
        (CALL + EXIT, 10, "neither in this object nor in the kernel's BTF"),
        (bytes.fromhex("18010000000000000000000000000000") + EXIT, 1, "is no setting of .kconfig"),
        (EXIT, 1, "a relocation of type 1 on an instruction of code 0xb7"),
        (CALL + EXIT, 77, "a relocation of type 77"),
    ):
        b = Builder()
        section = b.add("socket", insns)
        b.symbol("f", section, 0, len(insns))
        b.relocate(section, 0, kind, b.symbol("nothing", 0, 0, 0, kind=0))
        refused(b, rf"x.o: section 'socket', offset 0x0: .*{words}")


def test_code_that_is_cut() -> None:
    b = Builder()
    b.symbol("f", b.add("socket", EXIT + b"\0\0\0"), 0, 16)
    refused(b, "section 'socket', offset 0x0: 19 bytes: no whole number of instructions")
    b = Builder()
    b.symbol("f", b.add("socket", EXIT), 8, 16)
    refused(b, "section 'socket', offset 0x8: function 'f' of 16 bytes, in a section of 16")


def test_types_that_go_in_circles() -> None:
    names = b"\0.maps\0m\0type\0"
    typedef = struct.pack("<III", 7, 8 << 24, 1)  # type 1: itself
    var = struct.pack("<IIII", 7, 14 << 24, 1, 1)
    datasec = struct.pack("<III", 1, 15 << 24 | 1, 8) + struct.pack("<III", 2, 0, 8)
    types = typedef + var + datasec
    btf = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names)) + types + names
    b = Builder()
    b.add(".BTF", btf, flags=0)
    b.add(".maps", bytes(8), flags=3)
    b.symbol("f", b.add("socket", EXIT), 0, 16)
    refused(b, "section '.maps', offset 0x0: map 'm': its type is no struct")


def test_one_string_that_every_type_is_called() -> None:
    """A million types whose names are the same megabytes: what is asked of them stays small."""
    count = 300_000
    names = b"\0" + b"n" * (4 << 20) + b"\0"
    types = struct.pack("<III", 1, 15 << 24, 0) * count
    btf = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names)) + types + names
    b = Builder()
    b.add(".BTF", btf, flags=0)
    b.add(".data", bytes(8), flags=3)
    b.symbol("f", b.add("socket", EXIT), 0, 16)
    started = time.monotonic()
    assert read_object(b.build(), "x.o").name == "f"
    assert time.monotonic() - started < 30


def test_names_without_end() -> None:
    b = Builder()
    b.symbol("f" * 5000, b.add("socket", EXIT), 0, 16)
    refused(b, "the name of symbol 1 has no end")


def test_the_objects_are_all_there() -> None:
    assert {p.stem for p in OBJECTS.glob("*.o")} == {*NAMES, ODD_KERNEL}
