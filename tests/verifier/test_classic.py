"""The facts of a translated classic filter are plain from its translation: they are those that the verifier finds."""

from __future__ import annotations

import pytest
from support.expressions import EXPRESSIONS
from support.libpcap import needs_libpcap
from support.vectors import read_jsonl, vectors_dir

from netbpf.errors import ProgramRejected, SourceError
from netbpf.isa.classic import ClassicProgram, decode_classic
from netbpf.sources.cbpf import to_spec
from netbpf.sources.expr import compile_expression
from netbpf.verifier.classic import prove_classic, verify_classic


def assert_same_facts(insns: ClassicProgram, *, savefile: bool) -> None:
    """But for what the verifier alone sees: a bound that no packet passes."""
    spec = to_spec(insns, "f", savefile=savefile)
    ours, proved = prove_classic(spec), verify_classic(spec).program
    assert proved is not None
    assert ours._replace(facts=()) == proved._replace(facts=())
    for mine, found in zip(ours.facts, proved.facts, strict=True):
        assert mine == found or (mine.seen and not found.seen)


@needs_libpcap
@pytest.mark.parametrize("savefile", [False, True])
def test_expressions(savefile: bool) -> None:
    for text in EXPRESSIONS[::3]:
        for optimize in (True, False):
            try:
                insns = compile_expression(text, savefile=savefile, optimize=optimize)
                assert_same_facts(insns, savefile=savefile)
            except (ProgramRejected, SourceError):  # what the other view alone takes: a jump backwards, a direction
                continue


@pytest.mark.vectors
@pytest.mark.parametrize("savefile", [False, True])
def test_vectors(savefile: bool) -> None:
    accepted = 0
    for record in read_jsonl(vectors_dir() / "test_bpf" / "test_bpf.jsonl.gz"):
        if record["kind"] != "cbpf":
            continue
        insns = decode_classic(bytes.fromhex(record["insns"]))
        try:
            to_spec(insns, savefile=savefile)
        except ProgramRejected:
            continue
        assert_same_facts(insns, savefile=savefile)
        accepted += 1
    assert accepted > 50
