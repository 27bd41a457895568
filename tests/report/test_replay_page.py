"""``netbpf replay --report``: what the page says is what the run found, and nothing in it can speak for itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.objects import OBJECTS, SETTINGS
from support.page_reader import Reader

from netbpf.cli.main import main
from netbpf.packet.open import create_capture
from netbpf.packet.record import Record

ROOT = Path(__file__).parents[2]
SESSION = str(ROOT / "pcaps" / "session.pcap")
COUNTING = str(ROOT / "scenarios" / "counting.s")
KINDS = ("flow_hash.o", "flow_tail_calls.o", "globals.o:sum_up", "ring.o", "map_in_map.o", "legacy_maps.o", "callback.o")
HOSTILE = "</script><script>alert(1)</script>"


def report(tmp_path: Path, *words: str) -> str:
    out = tmp_path / "report.html"
    assert main(["replay", *words, "--report", str(out), "--dump", "none", "-q"]) in (0, 66)
    return out.read_text("utf-8")


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(tmp_path_factory.mktemp("report"), SESSION, "--prog", COUNTING)


def test_the_counts_are_the_runs(counting: str) -> None:
    text = Reader(counting).text
    assert {"532", "0"} <= set(text["dd"])
    assert "TCP (6), at the end 305" in text["li"]
    assert "UDP (17), at the end 198" in text["li"]
    assert "305, all dropped" in text["text"]


def test_the_tables_add_up(counting: str) -> None:
    """Each plot's table holds every packet."""
    found = re.search(r"Packets in each.*?<tbody>(.*?)</tbody>", counting)
    assert found is not None
    rows = [re.findall(r'<td class="n">([^<]*)</td>', row) for row in found[1].split("</tr>") if row]
    assert sum(int(cell) for row in rows for cell in row[:3]) == 532


def test_each_plot_has_words_and_a_table(counting: str) -> None:
    reader = Reader(counting)
    plots = [a for tag, a in reader.elements if tag == "svg" and a.get("role") == "img"]
    assert len(plots) == 2 * reader.count("figure") >= 8
    assert all(a.get("aria-label") for a in plots)
    assert reader.count("details") == reader.count("figure")
    assert reader.count("table") >= reader.count("figure") + 2
    assert reader.count("caption") == reader.count("table") - 1, "all but the listing, which its heading names"


def test_the_page_is_alone(counting: str) -> None:
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", counting), "nothing is loaded from anywhere"
    assert "http://" not in counting
    assert "https://" not in counting
    assert counting.count("<script>") == counting.count("<style>") == 1
    assert "default-src 'none'" in counting


def test_instructions_are_counted_exactly(counting: str) -> None:
    """The lookup finds TCP and UDP only: 503 of 532 packets."""
    assert "Counted on every packet" in counting
    assert re.search(r'<th scope="row">10</th><td class="n">503</td>', counting)
    assert re.search(r'<th scope="row">0</th><td class="n">532</td>', counting)


def test_a_second_run_from_the_cache_tells_the_same(tmp_path: Path) -> None:
    """The program is known from an earlier run, its text is not: the listing is there all the same."""
    first, second = (re.sub(r"[\d.,]+ (s|packets/s)\b", "", report(tmp_path, SESSION, "--prog", COUNTING)) for _ in range(2))
    assert first == second


def hostile_program(tmp_path: Path) -> Path:
    """A program whose file, section and source lines hold markup; classic text and assembly cannot, a path can."""
    folder = tmp_path / '"><img src=x onerror=alert(1)>'
    folder.mkdir()
    program = folder / "p<script>&.s"
    program.write_text(Path(COUNTING).read_text())
    return program


def test_names_cannot_speak(tmp_path: Path) -> None:
    program = hostile_program(tmp_path)
    page = report(tmp_path, SESSION, "--prog", str(program))
    reader = Reader(page)
    assert reader.count("script") == 1
    assert reader.count("img") == 0
    assert any("p<script>&.s" in text for text in reader.text["h1"])
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)


def test_bytes_of_maps_cannot_speak(tmp_path: Path) -> None:
    """A typed map of text, filled from packets that hold markup, turned text, and bytes that are no text."""
    from netbpf.report.html import element, escape, visible

    assert escape(HOSTILE) == "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;"
    assert visible("a\u202eb\x1b[31m\udc80\x00") == "a\\u202eb\\x1b[31m\\udc80\\x00"
    assert element("p", HOSTILE, title='"><b>') == (
        '<p title="&quot;&gt;&lt;b&gt;">&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;</p>'
    )


def test_names_of_the_model_cannot_speak() -> None:
    """Every text of a report replaced by markup: the page has no element that it would not have had."""
    from dataclasses import fields, is_dataclass, replace
    from typing import Any

    from netbpf.report.model import (
        Bins,
        Curve,
        InsnReport,
        InsnRow,
        MapCurves,
        MapRow,
        MapTable,
        ProgramListing,
        ReplayReport,
    )
    from netbpf.report.replay_page import render

    def hostile(value: Any) -> Any:
        if isinstance(value, str):
            return value + HOSTILE + "'\"<b onload=x>"
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{f.name: hostile(getattr(value, f.name)) for f in fields(value)})
        if isinstance(value, list):
            return [hostile(v) for v in value]
        if isinstance(value, tuple):
            return tuple(hostile(v) for v in value)
        return value

    calm = ReplayReport(
        "t", 2, 120, 1, 0, 1, 1.0, 0, "interp", 0.1, 1.0, [("a", "b")], Bins(10**9, ([1, 0], [0, 0], [0, 1]), [60, 60], [60, 0]),
        [MapCurves("m", [1.0, 2.0], [Curve("k", [None, 2])], 3)], [("IPv4 TCP", (1, 0, 1))],
        [MapTable("m", "hash", 4, 1, [MapRow("k", "v", "00", "01", 1)], "value", "note")],
        InsnReport(2, 4, True, [ProgramListing("p", [InsnRow(0, "r0 = 0", ("; int x;",), 2)])]), ["cut"],
    )  # fmt: skip
    before, after = Reader(render(calm)), Reader(render(hostile(calm)))
    assert [tag for tag, _ in before.elements] == [tag for tag, _ in after.elements]
    assert [sorted(a) for _, a in before.elements] == [sorted(a) for _, a in after.elements]


def test_a_capture_without_packets_has_a_page(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pcap"
    with create_capture(str(empty)):
        pass
    page = report(tmp_path, str(empty), "--prog", COUNTING)
    assert "No packet was replayed." in Reader(page).text["p"]


def test_a_capture_of_one_packet_has_plots(tmp_path: Path) -> None:
    one = tmp_path / "one.pcap"
    with create_capture(str(one)) as writer:
        writer.write(Record(1, 5, 60, bytes(60)))
    assert Reader(report(tmp_path, str(one), "--prog", COUNTING)).count("figure") >= 4


def test_damage_is_told_on_top(tmp_path: Path) -> None:
    page = report(tmp_path, str(ROOT / "pcaps" / "damaged.pcap"), "--prog", COUNTING)
    assert any("damaged.pcap: offset" in text for text in Reader(page).text["p"])


@pytest.mark.parametrize("name", KINDS)
def test_objects_of_every_kind_have_pages(name: str, tmp_path: Path) -> None:
    settings = [word for key, value in SETTINGS.items() for word in ("--kconfig", f"{key}={value}")]
    page = report(tmp_path, SESSION, "--prog", str(OBJECTS / name), *settings)
    assert Reader(page).count("figure") >= 4


def test_values_are_told_by_their_types(tmp_path: Path) -> None:
    page = report(tmp_path, SESSION, "--prog", str(OBJECTS / "flow_hash.o"))
    text = Reader(page).text
    assert any(cell.startswith("{packets: ") for cell in text["td"])
    assert any("largest value.packets first" in caption for caption in text["caption"])


def test_programs_reached_by_tail_calls_are_listed(tmp_path: Path) -> None:
    headings = Reader(report(tmp_path, SESSION, "--prog", str(OBJECTS / "flow_tail_calls.o"))).text["h3"]
    assert len(headings) > 6


def test_a_path_that_cannot_be_written_is_told_before_the_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = main(["replay", SESSION, "--prog", COUNTING, "--report", str(tmp_path / "none" / "x.html")])
    told = capsys.readouterr()
    assert code == 74
    assert "none/x.html" in told.err
    assert told.out == ""


def test_counting_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netbpf.report.instructions.MAX_PACKETS", 100)
    page = report(tmp_path, SESSION, "--prog", COUNTING)
    assert "Counted on the first 100 packets" in page
    monkeypatch.setattr("netbpf.report.instructions.MAX_PACKETS", 20_000)
    monkeypatch.setattr("netbpf.report.instructions.MAX_INSNS", 100)
    page = report(tmp_path, SESSION, "--prog", COUNTING)
    assert "Counted on the first 37 packets" in page, "those of the first second, where counting stops after a piece of a batch"
