"""Any bytes under any name, any text: every reader of programs answers with a program or one of the errors it promises."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netbpf.errors import ProgramRejected, SourceError
from netbpf.isa.classic import BPF_STMT, SockFilter, encode_classic
from netbpf.program import ProgramSpec
from netbpf.sources import cbpf
from netbpf.sources.load import ObjectOptions, is_path, looks_like_program, parse_program

FILTER = cbpf.parse(
    "ldh [12]\njne #0x800, drop\nldx 4*([14]&0xf)\nldh [x + 16]\nld vlan_tci\njeq #443, keep, drop\nkeep: ret #-1\ndrop: ret #0"
)
NAMES = ("x", "x.s", "x.cbpf", "x.ddd", "x.bin", "x.sock_filter", "x.o", "x.txt")
FORMS = [form(FILTER).encode() for form in (cbpf.format_d, cbpf.format_dd, cbpf.format_ddd)] + [encode_classic(FILTER)]
quiet = settings(deadline=None, suppress_health_check=list(HealthCheck))


def answer(data: bytes, name: str, view: str) -> ProgramSpec | None:
    """The program; None for a refusal that names the file."""
    try:
        return parse_program(data, name, ObjectOptions(view=view))
    except SourceError as e:
        if e.path != name:
            raise
    except ProgramRejected:
        pass
    return None


@settings(quiet, max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(NAMES), st.sampled_from(["socket", "file"]))
def test_any_bytes_under_any_name(data: bytes, name: str, view: str) -> None:
    answer(data, name, view)


@settings(quiet, max_examples=300)
@given(st.sampled_from(FORMS), st.data(), st.sampled_from(NAMES), st.sampled_from(["socket", "file"]))
def test_a_filter_with_pieces_put_in(form: bytes, data: st.DataObject, name: str, view: str) -> None:
    at, gone = data.draw(st.integers(0, len(form))), data.draw(st.integers(0, 8))
    answer(form[:at] + data.draw(st.binary(max_size=12)) + form[at + gone :], name, view)


insns = st.builds(SockFilter, st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFFFFFF))


@settings(quiet, max_examples=300)
@given(st.lists(insns, max_size=6), st.sampled_from(["socket", "file"]))
def test_any_instructions_and_their_listing(body: list[SockFilter], view: str) -> None:
    program = (*body, BPF_STMT(0x06, 1))
    spec = answer(encode_classic(program), "x.sock_filter", view)
    for form in (cbpf.format_dd, cbpf.format_ddd):
        assert cbpf.parse(form(program)) == program
    if spec is not None:
        assert spec.classic == program


@settings(quiet, max_examples=300)
@given(st.text(max_size=80))
def test_what_load_takes_text_for(text: str) -> None:
    """Only text that is no path and no program goes to libpcap, whose compiler may ask a name server."""
    is_path(text)
    if looks_like_program(text):
        with contextlib.suppress(SourceError, ProgramRejected):
            parse_program(text.encode("utf-8", "surrogatepass"), "x", ObjectOptions())


@pytest.mark.parametrize("text", ["", " ", "\n", "/*", "//", "; x", "#", "." * 100, "/" * 5000, "a/" * 3000 + "x.s", "\0.s"])
def test_texts_at_the_edge(text: str) -> None:
    assert isinstance(looks_like_program(text), bool)
    assert isinstance(is_path(text), bool)
