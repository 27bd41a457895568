"""``netbpf cover html``: the page says what the counts say, of hostile names too."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.objects import OBJECTS
from support.page_reader import Reader

from netbpf.cli.main import main
from netbpf.explain.coverage import Coverage, ProgramCoverage
from netbpf.explain.listing import Function, SourceLine
from netbpf.report.coverage_page import render

ROOT = Path(__file__).parents[2]
SESSION = str(ROOT / "pcaps" / "session.pcap")
HOSTILE = "</script><script>alert(1)</script>'\"<b onload=x>"


def page_of(folder: Path, program: str) -> tuple[str, Coverage]:
    counts, out = folder / "cov.json", folder / "cov.html"
    assert main(["replay", SESSION, "--prog", program, "--coverage", str(counts), "-q", "--dump", "none"]) == 0
    assert main(["cover", "html", str(counts), "-o", str(out)]) == 0
    return out.read_text("utf-8"), Coverage.load(str(counts))


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ProgramCoverage]:
    page, coverage = page_of(tmp_path_factory.mktemp("cover"), str(OBJECTS / "flow_hash.o"))
    return page, coverage.programs[0]


def test_every_instruction_has_its_count(flows: tuple[str, ProgramCoverage]) -> None:
    page, program = flows
    rows = dict(re.findall(r'<tr class="\w+" id="p0-(\d+)">.*?<td class="n">([\d,]+)</td>', page))
    told = {int(pc): int(n.replace(",", "")) for pc, n in rows.items()}
    assert told == {pc: program.hits.get(pc, 0) for pc, _ in program.insns}


def test_every_source_line_has_its_count(flows: tuple[str, ProgramCoverage]) -> None:
    page, program = flows
    told = re.findall(r'<th scope="row"><a href="#p0-\d+">(\d+)</a></th>.*?<td class="n">([\d,]+)</td>', page)
    assert [(int(line), int(n.replace(",", ""))) for line, n in told] == [(r.source.line, r.hits) for r in program.line_hits()]


def test_jumps_are_told_both_ways(flows: tuple[str, ProgramCoverage]) -> None:
    page, program = flows
    text = Reader(page).text["td"]
    for pc in program.jumps:
        if program.hits.get(pc):
            taken, passed = program.ways(pc)
            assert f"taken {taken:,}, fell through {passed:,}" in text


def test_the_verifiers_states_are_there(flows: tuple[str, ProgramCoverage]) -> None:
    page, program = flows
    assert program.states
    shown = Reader(page).text["div"]
    assert all(state in shown for states in program.states.values() for state in states)


def test_links_lead_to_instructions(flows: tuple[str, ProgramCoverage]) -> None:
    reader = Reader(flows[0])
    ids = {a["id"] for _, a in reader.elements if "id" in a}
    assert {a["href"] for tag, a in reader.elements if tag == "a"} <= {f"#{name}" for name in ids}


def test_several_programs_have_an_overview(tmp_path: Path) -> None:
    page, coverage = page_of(tmp_path, str(OBJECTS / "flow_tail_calls.o"))
    reader = Reader(page)
    assert len(coverage.programs) > 2
    assert reader.text["h1"] == [f"{len(coverage.programs)} programs of flow_tail_calls.o"]
    assert sum(a.get("class") == "program" for _, a in reader.elements) == len(coverage.programs)


def small() -> ProgramCoverage:
    """Four instructions: one ran, one jumped one way, one never ran, one cannot."""
    return ProgramCoverage(
        "d1", "name", "file.o", ((0, "r0 = 1"), (1, "if r0 == 1 goto 3"), (2, "r0 = 2"), (3, "exit")), (Function("f", 0, 4),),
        ((0, SourceLine("a.c", 3, "x = 1;")), (2, SourceLine("a.c", 9, "x = 2;"))), (1,), (2,), {0: ("R1=ctx()",)},
        {0: 5, 1: 5, 3: 5}, {1: 5},
    )  # fmt: skip


def test_each_state_has_a_sign_and_words() -> None:
    reader = Reader(render([small()]))
    signs = [(a["class"], a["aria-label"]) for tag, a in reader.elements if tag == "td" and "sign" in str(a.get("class"))]
    assert signs[-4:] == [
        ("sign hit", "ran"),
        ("sign half", "ran, but a jump went one way only"),
        ("sign dead", "no run can reach it, as the verifier proved"),
        ("sign hit", "ran"),
    ]


def test_names_cannot_speak() -> None:
    calm = small()
    loud = replace(
        calm,
        name=HOSTILE,
        path=HOSTILE,
        insns=tuple((pc, text + HOSTILE) for pc, text in calm.insns),
        functions=(Function(HOSTILE, 0, 4),),
        lines=tuple((pc, SourceLine(HOSTILE, s.line, HOSTILE)) for pc, s in calm.lines),
        states={0: (HOSTILE,)},
    )
    before, after = Reader(render([calm])), Reader(render([loud]))
    assert [tag for tag, _ in before.elements] == [tag for tag, _ in after.elements]
    assert [sorted(a) for _, a in before.elements] == [sorted(a) for _, a in after.elements]


def test_nothing_counted_is_a_page(tmp_path: Path) -> None:
    assert "No program was counted." in Reader(render([])).text["p"]
