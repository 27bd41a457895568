"""parse(format(p)) == p: for every encodable program and declaration, and for the vectors' programs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.programs import programs
from support.vectors import read_jsonl, vectors_dir

from netbpf.isa.classic import SockFilter
from netbpf.isa.instruction import Instruction, Program, decode
from netbpf.maps.spec import MapSpec
from netbpf.program import MapDecl, ProgramSpec
from netbpf.sources.asm import format_program, parse

U32 = st.integers(0, (1 << 32) - 1)
SMALL = st.integers(0, 20)
AWKWARD_NAMES = ["", "counts", "r1", ".rodata", "a b", 'quo"te', "map", "BPF_ANY", "w3", "é", "x" * 15]
NAMES = st.one_of(st.sampled_from(AWKWARD_NAMES), st.text(max_size=8))


def _map_specs(inner: st.SearchStrategy[MapSpec | None]) -> st.SearchStrategy[MapSpec]:
    return st.builds(
        MapSpec,
        st.one_of(st.integers(0, 40), U32),
        SMALL,
        SMALL,
        U32,
        st.one_of(st.just(0), U32),
        NAMES,
        st.one_of(st.just(0), st.integers(0, (1 << 64) - 1)),
        st.one_of(st.just(0), U32),
        inner,
        st.one_of(st.just(0), U32),
        st.one_of(st.just(0), U32),
    )


map_specs = _map_specs(st.one_of(st.none(), _map_specs(st.none())))


@st.composite
def map_decls(draw: st.DrawFn) -> MapDecl:
    spec = draw(map_specs)
    key, value = (st.binary(min_size=n, max_size=n) for n in (spec.key_size, spec.value_size))
    slots = tuple(draw(st.lists(st.tuples(key, NAMES), max_size=2)))
    contents = tuple(draw(st.lists(st.tuples(key, value), max_size=3)))
    return MapDecl(spec, contents, draw(st.booleans()), slots, draw(st.one_of(st.just(""), NAMES)))


specs = st.builds(
    ProgramSpec,
    programs,
    st.one_of(st.integers(0, 40), U32),
    NAMES,
    NAMES,
    st.lists(map_decls(), max_size=3).map(tuple),
    st.one_of(st.integers(0, 300), U32),
    st.one_of(st.just(0), U32),
    st.binary(max_size=100),
    st.lists(st.tuples(U32, U32), max_size=2).map(tuple),
    st.lists(st.tuples(U32, U32, U32, U32), max_size=2).map(tuple),
    st.lists(st.tuples(U32, NAMES), max_size=2).map(tuple),
    st.just(()),
    st.lists(st.builds(SockFilter, st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255), U32), max_size=2).map(tuple),
)


@settings(max_examples=400, deadline=None)
@given(programs, st.booleans(), st.booleans(), st.booleans())
def test_every_program(insns: Program, labels: bool, numbers: bool, opcodes: bool) -> None:
    spec = ProgramSpec(insns)
    assert parse(format_program(spec, labels=labels, numbers=numbers, opcodes=opcodes)) == spec


@settings(max_examples=150, deadline=None)
@given(specs)
def test_every_declaration(spec: ProgramSpec) -> None:
    assert parse(format_program(spec)) == spec


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs, st.lists(st.tuples(programs, NAMES, NAMES), max_size=2), st.lists(specs, max_size=1))
def test_several_programs(spec: ProgramSpec, sharing: list[tuple[Program, str, str]], own: list[ProgramSpec]) -> None:
    others = [spec._replace(insns=insns, name=name, license=license) for insns, name, license in sharing]
    whole = spec._replace(others=(*others, *own))
    assert parse(format_program(whole)) == whole


@pytest.mark.parametrize("code", range(256), ids=lambda c: f"{c:02x}")
def test_every_opcode(code: int) -> None:
    """Alone, and with each field set to what might be lost."""
    rows = [(1, 0, 0, 0), (1, 2, 0, 0), (1, 2, 1, 3), (1, 0, -1, 0), (11, 0, 8, 16), (0, 0, 0, -1), (1, 1, 0, 0), (1, 2, 0, 0xE1)]
    for dst, src, off, imm in rows:
        for after in ((), (Instruction(0, 0, 0, 0, 7),), (Instruction(0, 1, 0, 0, 7),)):
            spec = ProgramSpec((Instruction(code, dst, src, off, imm), *after))
            assert parse(format_program(spec)) == spec


@pytest.mark.vectors
@pytest.mark.parametrize("name", ["selftests", "alu"])
def test_the_vectors_programs_need_hardly_a_raw_slot(name: str) -> None:
    raw = total = 0
    for record in read_jsonl(vectors_dir() / "verifier" / f"{name}.jsonl.gz"):
        spec = ProgramSpec(decode(bytes.fromhex(record.get("insns") or "")))
        if len(spec.insns) > 1500:  # a few of many thousand slots say nothing new
            continue
        text = format_program(spec)
        assert parse(text) == spec, record["id"]
        raw += text.count(".insn")
        total += len(spec.insns)
    assert raw < total / 500
