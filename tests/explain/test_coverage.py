"""Coverage: counts are those of a hook that sees every instruction, they add up whatever the order, and files stay whole."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.objects import read
from support.vectors import ROOT

from netbpf.cli.main import main
from netbpf.engine.interp.counts import RunCounts
from netbpf.engine.interp.engine import InterpLoaded
from netbpf.engine.interp.watch import StepRecorder
from netbpf.explain.coverage import Coverage, CoverageError, ProgramCoverage, Share
from netbpf.explain.coverage_text import format_table
from netbpf.explain.lcov import format_lcov
from netbpf.explain.listing import Function, SourceLine
from netbpf.explain.states import parse_states, verifier_states
from netbpf.packet.open import open_capture
from netbpf.packet.receive import receive
from netbpf.program import ProgramSpec
from netbpf.replay.session import Session
from netbpf.sources.asm import parse
from netbpf.sources.load import read_program

SESSION, COUNTING = ROOT / "pcaps" / "session.pcap", ROOT / "scenarios" / "counting.s"
SUBPROGRAMS = """
    r6 = r1
    call load
    if r0 == 6 goto tcp
    r1 = r6
    call load
    r0 = *(u8 *)skb[60]
    exit
tcp:
    r0 = 2
    exit
load:
    r0 = *(u32 *)(r1 + 0)
    r0 -= 48
    exit
"""
PROGRAMS = {
    "counting": lambda: read_program(str(COUNTING)),
    "subprograms": lambda: parse(SUBPROGRAMS),
    "callback": lambda: read("callback"),
    "flow_tail_calls": lambda: read("flow_tail_calls"),
    "flow_hash": lambda: read("flow_hash"),
}


def interp(session: Session) -> InterpLoaded:
    assert isinstance(session.loaded, InterpLoaded)
    return session.loaded


def run_all(session: Session, capture: Path = SESSION, most: int = 120) -> None:
    with open_capture(str(capture)) as reader:
        for record in reader:
            skb = receive(record)
            if skb is not None:
                session.loaded.run_one(skb)
            if record.number == most:
                return


@pytest.mark.parametrize("name", PROGRAMS)
def test_counts_are_those_of_every_step(name: str) -> None:
    with Session(PROGRAMS[name](), engine="interp") as session:
        loaded, recorder = interp(session), StepRecorder(1 << 22)
        counts = RunCounts(loaded.machine)
        loaded.watch(recorder)
        run_all(session)
        steps, hits, taken = list(recorder.steps), {}, {}
        for step, after in zip(steps, [*steps[1:], None], strict=True):
            hits[step.pc] = hits.get(step.pc, 0) + 1
            if after is not None and after.pc != step.pc + 1:
                taken[step.pc] = taken.get(step.pc, 0) + 1
        seen = 0
        for counted in counts.counts():
            base = next(link.base for link in loaded.machine.links if link.program is counted.program)
            for slot, n in counted.hits.items():
                assert n == hits.get(base + slot, 0), slot
                seen += n
            for slot, n in counted.taken.items():
                assert n == taken.get(base + slot, 0), slot
        assert seen == len(steps)


def coverage_of(spec: ProgramSpec, path: str = "prog.o", capture: Path = SESSION, most: int = 120) -> Coverage:
    with Session(spec, engine="interp") as session:
        coverage = Coverage()
        coverage.watch(interp(session), spec, path=path)
        coverage.watch(interp(session), spec, path=path)  # once more changes nothing
        run_all(session, capture, most)
        coverage.settle()
        return coverage


def test_shares_of_the_counting_example() -> None:
    (program,) = coverage_of(read_program(str(COUNTING)), "counting.s").programs
    assert (program.runs, program.instructions, program.branches) == (120, Share(12, 12), Share(2, 2))
    assert program.source_lines == Share(0, 0)
    assert program.states[1] == ("R0=scalar() R6=ctx()",)
    assert format_rows([program])[1].split() == ["counting.s", "120", "12/12", "100%", "2/2", "100%", "-"]


def format_rows(programs: list[ProgramCoverage], **options: Any) -> list[str]:
    rows = list(format_table(programs, **options))
    assert all(len(row) <= 80 for row in rows)
    return rows


def test_source_lines_functions_and_tail_calls() -> None:
    programs = coverage_of(read("flow_tail_calls")).programs
    assert {p.name for p in programs} >= {"filter", "read_ip", "read_transport"}
    read_ip = next(p for p in programs if p.name == "read_ip")
    rows = {row.source.line: row.hits for row in read_ip.line_hits()}
    assert rows
    assert max(rows.values()) == read_ip.runs
    assert all(row.source.file.endswith("flow_tail_calls.c") for row in read_ip.line_hits())
    assert read_ip.states
    assert any("never taken" in row for row in format_rows(list(programs), missed=True))


def test_dead_code_is_no_miss() -> None:
    (program,) = coverage_of(parse("r6 = r1\n r0 = 0\n if r0 == 0 goto end\n r0 = *(u8 *)skb[5]\n r0 += 3\nend:\n exit")).programs
    assert program.dead == (3, 4)
    assert program.instructions == Share(4, 4)


def test_a_path_recorded_meanwhile_does_not_count() -> None:
    from netbpf.explain.path import Listings, record_path
    from netbpf.packet.skbuff import SkBuff

    spec = parse("r6 = r1\n r0 = *(u8 *)skb[23]\n if r0 == 6 goto tcp\n exit\ntcp:\n r0 &= 1\n if r0 == 1 goto +0\n exit")
    with Session(spec, engine="interp") as session:
        counts = RunCounts(interp(session).machine)
        record_path(interp(session), SkBuff(bytes(23) + b"\x06" + bytes(30), 54), Listings.of(spec))
        (found,) = counts.counts()
        assert set(found.hits.values()) == {0, 1}


# --- sums -----------------------------------------------------------------------------------------------------------------
SLOTS = st.dictionaries(st.integers(0, 5), st.integers(1, 9))


@st.composite
def one_program(draw: st.DrawFn) -> ProgramCoverage:
    digest = draw(st.sampled_from(["aa", "bb"]))
    lines = tuple((pc, SourceLine("f.c", pc + 1, "x")) for pc in range(draw(st.integers(0, 2))))
    return ProgramCoverage(
        digest,
        draw(st.sampled_from(["p", "q"])),
        draw(st.sampled_from(["a.o", "b.o"])),
        tuple((i, f"r{i} = 0") for i in range(6)),
        (Function("main", 0, 6),),
        lines,
        jumps=(2, 4),
        dead=draw(st.sampled_from([(), (5,)])),
        states=draw(st.dictionaries(st.integers(0, 5), st.tuples(st.sampled_from(["R0=1", "R0=2"])), max_size=2)),
        hits=draw(SLOTS),
        taken=draw(SLOTS),
    )


@given(st.lists(one_program(), max_size=5), st.randoms())
@settings(max_examples=50, deadline=None)
def test_merging_is_commutative_and_associative(programs: list[ProgramCoverage], order: Any) -> None:
    left = Coverage()
    left.merge(programs)
    shuffled = list(programs)
    order.shuffle(shuffled)
    at = order.randint(0, len(shuffled))
    parts = [Coverage(), Coverage()]
    parts[0].merge(shuffled[:at])
    parts[1].merge(shuffled[at:])
    right = Coverage()
    for part in parts:
        right.merge(part.programs)
    assert left.as_json() == right.as_json()
    assert Coverage.from_json(json.loads(json.dumps(left.as_json()))).as_json() == left.as_json()


def test_files_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "cov.json")
    for _ in range(2):
        words = ["replay", str(SESSION), "--prog", str(COUNTING), "--coverage", file, "-q", "--dump", "none"]
        assert main(words) == 0
    assert Coverage.load(file).programs[0].runs == 1064
    capsys.readouterr()
    assert main(["cover", "merge", file, file, "-o", str(tmp_path / "two.json")]) == 0
    assert main(["cover", "report", str(tmp_path / "two.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["programs"][0]["runs"] == 2128
    assert main(["cover", "report", file, "--fail-under", "100"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cov.json", "two.json"], "nothing else is left behind"


def test_two_processes_add_to_one_file(tmp_path: Path) -> None:
    file, capture = str(tmp_path / "cov.json"), str(ROOT / "pcaps" / "arp-icmp.pcap")
    words = ["replay", capture, "--prog", str(COUNTING), "--coverage", file, "-q", "--dump", "none"]
    running = [subprocess.Popen([sys.executable, "-m", "netbpf", *words], stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [p.wait(60) for p in running] == [0] * 2
    with open_capture(capture) as reader:
        packets = sum(1 for _ in reader)
    assert Coverage.load(file).programs[0].runs == 2 * packets


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[1]", "no coverage file"),
        ('{"format": "other"}', "no coverage file"),
        ('{"format": "netbpf-coverage", "version": 2}', "version 2"),
        ('{"format": "netbpf-coverage", "version": 1}', "damaged"),
        ('{"format": "netbpf-coverage", "version": 1, "programs": {"aa": {"name": "x"}}}', "damaged"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cov.json").write_text(text)
    with pytest.raises(CoverageError, match=message):
        Coverage.load(str(tmp_path / "cov.json"))
    assert main(["replay", str(SESSION), "--prog", str(COUNTING), "--coverage", str(tmp_path / "cov.json")]) == 65
    assert (tmp_path / "cov.json").read_text() == text
    assert message in capsys.readouterr().err


LEAVES = st.one_of(st.none(), st.integers(), st.text(max_size=3))
ANY_JSON = st.recursive(LEAVES, lambda c: st.one_of(st.lists(c), st.dictionaries(st.text(max_size=3), c)), max_leaves=8)


@given(ANY_JSON)
@settings(max_examples=100, deadline=None)
def test_any_json_is_read_or_refused(row: Any) -> None:
    with suppress(CoverageError):
        Coverage.from_json({"format": "netbpf-coverage", "version": 1, "programs": {"aa": row}})


def test_coverage_needs_the_interpreter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(SESSION), "--prog", str(COUNTING), "--coverage", "x.json", "--engine", "native"]) == 64
    assert "interpreter" in capsys.readouterr().err
    assert not Path("x.json").exists()


def test_a_folder_that_is_not_there_is_told_before_the_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(SESSION), "--prog", str(COUNTING), "--coverage", str(tmp_path / "no" / "cov.json")]) == 64
    told = capsys.readouterr()
    assert "there is no folder" in told.err
    assert not told.out


def test_an_expression_is_counted_for_its_own_link_type_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captures = [str(ROOT / "pcaps" / name) for name in ("session.pcap", "raw-ip.pcap")]
    words = ["--filter", "tcp", "--coverage", str(tmp_path / "cov.json"), "-q", "--dump", "none"]
    assert main(["replay", *captures, *words]) != 0
    assert "link type" in capsys.readouterr().err
    assert Coverage.load(str(tmp_path / "cov.json")).programs[0].runs == 532, "what was counted stays"


# --- lcov -------------------------------------------------------------------------------------------------------------------
def parse_lcov(text: str) -> dict[str, dict[str, list[list[str]]]]:
    """By source file and kind, the fields of each line; the sums that the file states are checked."""
    files: dict[str, dict[str, list[list[str]]]] = {}
    record: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(":")
        if kind == "SF":
            record = files[rest] = {}
        record.setdefault(kind, []).append(rest.split(","))
    for found in files.values():
        assert int(found["LF"][0][0]) == len(found["DA"])
        assert int(found["LH"][0][0]) == sum(int(n) > 0 for _, n in found["DA"])
        assert int(found["BRF"][0][0]) == len(found.get("BRDA", []))
        assert int(found["BRH"][0][0]) == sum(n not in ("0", "-") for *_, n in found.get("BRDA", []))
        assert int(found["FNF"][0][0]) == len(found.get("FN", [])) == len(found.get("FNDA", []))
    return files


def test_lcov_by_source_file() -> None:
    coverage = coverage_of(read("flow_hash"), str(ROOT / "tests" / "data" / "objects" / "flow_hash.o"))
    text, written = format_lcov(coverage.programs)
    files = parse_lcov(text)
    assert not written
    (path,) = files
    assert Path(path).is_file()
    length = len(Path(path).read_text().splitlines())
    assert all(1 <= int(line) <= length for line, _ in files[path]["DA"])
    assert ["120", "count"] in files[path]["FNDA"]


def test_lcov_of_a_program_without_lines_names_a_listing(tmp_path: Path) -> None:
    file = str(tmp_path / "cov.json")
    coverage_of(read_program(str(COUNTING)), "counting.s").add_to(file)
    assert main(["cover", "lcov", file, "-o", str(tmp_path / "cov.info")]) == 0
    ((path, found),) = parse_lcov((tmp_path / "cov.info").read_text()).items()
    assert len(found["DA"]) == 12
    lines = Path(path).read_text().splitlines()
    assert lines[1].split(": ") == ["   1", "r0 = *(u8 *)skb[23]"]


def test_cover_needs_a_place_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "cov.json")
    Coverage().save(file)
    assert main(["cover", "lcov", file]) == 64
    assert main(["cover", "report", str(tmp_path / "none.json")]) == 74
    assert main(["cover", "report", file]) == 0
    capsys.readouterr()


# --- the verifier's states ---------------------------------------------------------------------------------------------------
def test_states_of_a_log() -> None:
    log = """func#0 @0
0: R1=ctx() R10=fp0
0: (bf) r6 = r1                       ; R1=ctx() R6=ctx()
; int x = 1; @ a.c:3
1: (30) r0 = *(u8 *)skb[23]           ; R0=scalar() R6=ctx()
2: (55) if r0 != 0x0 goto pc+1        ; R0=0
from 2 to 4: R0=scalar() R6=ctx() R10=fp0
4: frame1: R0=1
"""
    assert parse_states(log) == {
        0: ("before: R1=ctx() R10=fp0", "R1=ctx() R6=ctx()"),
        1: ("R0=scalar() R6=ctx()",),
        2: ("R0=0",),
        4: ("before: R0=scalar() R6=ctx() R10=fp0", "before: frame1: R0=1"),
    }


def test_states_of_a_long_proof_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = read_program(str(COUNTING))
    assert verifier_states(spec)["counting"]
    monkeypatch.setattr("netbpf.explain.states.MAX_WALKED", 5)
    assert verifier_states(spec) == {}


def test_states_of_a_refused_program_are_none() -> None:
    assert verifier_states(parse("r0 = r5\n exit")) == {}
