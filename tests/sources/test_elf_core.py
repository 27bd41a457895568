"""CO-RE: an object asks of fields, types and enumerators, and gets the answers of the types it is given."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.objects import OBJECTS, object_bytes, read

from netbpf.errors import SourceError
from netbpf.program import ProgramSpec
from netbpf.sources.elf import read_object
from netbpf.sources.elf.core import POISON_CALL, CoreError, Spot, container, essential

LDX = 1


def stored(spec: ProgramSpec) -> dict[int, int]:
    """Constants the program stores: what a register was given last, by the offset of the global it went to."""
    constants: dict[int, int] = {}
    bases: dict[int, int] = {}
    found = {}
    for pc, i in enumerate(spec.insns):
        if i.code in (0xB4, 0xB7) or (i.code == 0x18 and i.src == 0):
            constants[i.dst] = i.imm
        elif i.code == 0x18:
            bases[i.dst] = spec.insns[pc + 1].imm
        elif i.code == 0x63 and i.src in constants and i.dst in bases:
            found[(bases[i.dst] + i.off) // 4] = constants[i.src]
        elif i.code & 7 == LDX:
            constants.pop(i.dst, None)
    return found


def test_a_kernel_as_the_headers_say() -> None:
    spec = read("core")
    answers = stored(spec)
    assert {at: answers[at] for at in range(2, 10)} == {2: 0, 3: 1, 4: 0, 5: 4, 6: 0, 7: 192, 8: 27, 9: 0}
    assert {i.off for i in spec.insns if i.code == 0x61 and i.src == 1} >= {0, 16}


def test_a_kernel_with_fields_elsewhere() -> None:
    """len is 2 bytes at 20, within a struct and a union that have no names; loads get the new offset and width."""
    spec = read("core", kernel="odd")
    answers = stored(spec)
    assert {at: answers[at] for at in range(2, 10)} == {2: 0, 3: 1, 4: 20, 5: 2, 6: 0, 7: 24, 8: 99, 9: 0}
    loads = {(i.code, i.off) for i in spec.insns if i.code & 0xE7 == 0x61 and i.src in (1, 6)}
    assert (0x69, 20) in loads
    assert (0x61, 16) in loads


def test_what_is_not_there_is_poisoned() -> None:
    assert any(i.code == 0x85 and i.imm == POISON_CALL for i in read("core").insns)


def test_bit_fields_and_elements() -> None:
    """In types/odd.c ``small`` is bits 32 to 34 of the struct, ``wide`` bits 64 to 96, and the array begins at byte 13."""
    answers = stored(read("core_bits", kernel="odd"))
    offset, size, signed, lshift, rshift = range(5)
    assert {k: answers[k] for k in range(5)} == {offset: 4, size: 4, signed: 1, lshift: 61, rshift: 61}
    assert {k: answers[5 + k] for k in range(5)} == {offset: 8, size: 8, signed: 0, lshift: 31, rshift: 31}
    assert (answers[10], answers[11]) == (13 + 3, 7)


def test_a_file_of_types_that_is_none(tmp_path: Path) -> None:
    missing, broken = tmp_path / "none.btf", tmp_path / "broken.btf"
    broken.write_bytes(b"\x9f\xeb\1\0")
    plain = OBJECTS / "legacy_maps.o"
    for path, words in (
        (missing, "CO-RE needs a kernel's types: No such file"),
        (broken, "header needs"),
        (plain, "without .BTF"),
    ):
        with pytest.raises(SourceError, match=words):
            read_object(object_bytes("core"), "core.o", kernel_btf=str(path))


def test_flavors() -> None:
    assert essential("sk_buff___old") == "sk_buff"
    assert essential("sk_buff") == "sk_buff"
    assert essential("___x") == "___x"


def test_containers_of_bit_fields() -> None:
    assert container(Spot(33, 1, 3), 4) == (4, 4)
    assert container(Spot(30, 1, 3), 4) == (0, 8)
    assert container(Spot(16, 1, 0), 2) == (2, 2)
    with pytest.raises(CoreError, match="two 8-byte numbers"):
        container(Spot(60, 1, 10), 8)
