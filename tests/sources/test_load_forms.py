"""A program is told by its content first and its suffix second."""

from __future__ import annotations

from pathlib import Path

import pytest

from netbpf.errors import ProgramRejected, SourceError
from netbpf.isa.classic import BPF_STMT, encode_classic
from netbpf.isa.instruction import encode
from netbpf.sources.asm import format_program, parse
from netbpf.sources.load import parse_program, read_program

COUNTING = (Path(__file__).parents[2] / "scenarios" / "counting.s").read_text()
RET = BPF_STMT(0x06, 0xFFFFFFFF)
CLASSIC = {
    "ddd": "1\n6 0 0 4294967295\n",
    "commas": "1,6 0 0 4294967295",
    "dd": "{ 0x6, 0, 0, 0xffffffff },\n",
    "d": "(000) ret      #-1\n",
    "bpf_asm": "; keep all\n/* two\nlines */ start: ret #-1\n",
}


@pytest.mark.parametrize("form", CLASSIC)
@pytest.mark.parametrize("suffix", ["", ".txt", ".filter", ".cbpf"])
def test_classic_text(form: str, suffix: str) -> None:
    spec = parse_program(CLASSIC[form].encode(), f"keep{suffix}")
    assert spec.classic == (RET,)
    assert spec.name == "keep"
    assert spec.insns[-2:] == parse("w0 = -1\nexit").insns


def test_classic_bytes() -> None:
    assert parse_program(encode_classic((RET,)), "x.sock_filter").classic == (RET,)


ASSEMBLY = [COUNTING, "r0 = 0\nexit", "ld: r0 = 0\nexit", ".const ld = 5\nr0 = ld\nexit", "add = 5\nexit", "exit", "call 1"]


@pytest.mark.parametrize("text", ASSEMBLY)
def test_assembly_is_not_mistaken(text: str) -> None:
    assert parse_program(text.encode(), "x").classic == ()


def test_a_suffix_decides_where_words_do_not() -> None:
    with pytest.raises(SourceError, match="'ret' begins no instruction"):
        parse_program(b"ret #0", "x.s")
    with pytest.raises(SourceError, match="'r0' is no mnemonic"):
        parse_program(b"r0 = 0", "x.cbpf")


def test_a_filter_the_kernel_refuses_is_refused_here() -> None:
    with pytest.raises(ProgramRejected, match=r"EINVAL.*the last instruction is no 'ret'"):
        parse_program(b"ld [0]", "x")


def test_raw_instructions(tmp_path: Path) -> None:
    raw = tmp_path / "keep.bin"
    raw.write_bytes(encode(parse("r0 = -1\nexit").insns))
    assert read_program(str(raw)).name == "keep"


def test_a_translated_filter_round_trips_as_assembly() -> None:
    spec = parse_program(CLASSIC["d"].encode(), "keep")
    assert parse(format_program(spec)) == spec
