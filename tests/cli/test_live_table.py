"""The live table, the plain lines and the JSON lines: usable at 80 columns, redrawn in place, true to the counts."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kernel import KERNEL_REASON
from support.vectors import ROOT

from netbpf.cli.live_table import JsonLines, LiveTable, Moment, PlainLines, choose_display
from netbpf.host.filter_stats import FilterStats
from netbpf.maps.create import create
from netbpf.maps.spec import MapSpec
from netbpf.maps.storage import MapBase

LARGE = st.integers(0, 10**15)


def protocols(**counts: int) -> dict[str, MapBase]:
    live = create(MapSpec(1, 4, 8, 256, name="counts"))
    for key, value in counts.items():
        live.update_user(int(key[1:]).to_bytes(4, "little"), value.to_bytes(8, "little"))
    return {"counts": live}


def screen(text: str) -> list[str]:
    """What a terminal shows: carriage returns, erased lines, cursor up."""
    lines: list[str] = [""]
    row = 0
    for part in text.replace("\r", "").split("\x1b["):
        if part and part[-1:] == "J" and len(part) == 1:
            del lines[row + 1 :]
            continue
        if part[:1] == "K":
            lines[row], part = "", part[1:]
        elif (digits := part.partition("A")[0]).isdigit():
            row, part = row - int(digits), part.partition("A")[2]
        elif part[:1] == "J":
            del lines[row + 1 :]
            part = part[1:]
        for i, piece in enumerate(part.split("\n")):
            if i:
                row += 1
                if row == len(lines):
                    lines.append("")
            lines[row] += piece
    return [line for line in lines if line]


def test_the_table_is_drawn_over_itself() -> None:
    out = io.StringIO()
    table = LiveTable(out, "tap0: counting.s")
    table.show(Moment(1.0, FilterStats(1000, 0, 1000, 0, 3), protocols(k6=600, k17=400)))
    table.show(Moment(2.0, FilterStats(3000, 0, 3000, 0, 3), protocols(k6=1600, k17=1400)))
    lines = screen(out.getvalue())
    assert lines[0] == "tap0: counting.s  2 s"
    assert lines[2].split() == ["packets", "3,000", "2,000"]
    assert lines[6].split() == ["kernel", "drops", "3", "0"]
    assert lines[7] == "map counts"
    assert [line.split() for line in lines[8:]] == [["TCP", "1,600", "1,000"], ["UDP", "1,400", "1,000"]]


@given(st.lists(st.tuples(LARGE, LARGE, LARGE), min_size=1, max_size=5), st.text(min_size=1, max_size=200))
def test_no_line_is_longer_than_the_terminal(rows: list[tuple[int, int, int]], title: str) -> None:
    out = io.StringIO()
    table = LiveTable(out, "".join(c for c in title if c.isprintable()))
    maps = protocols(**{f"k{n}": 10**12 for n in range(100, 180)})
    for i, (a, b, c) in enumerate(rows):
        table.show(Moment(i + 1.0, FilterStats(a, b, c, a, b), maps, lost=c))
    shown = screen(out.getvalue())
    assert all(len(line) <= 80 for line in shown)
    assert len(shown) <= 24
    assert "more" in shown[-1]


def test_numbers_that_nobody_can_tell_are_left_out() -> None:
    out = io.StringIO()
    lines = PlainLines(out)
    lines.show(Moment(1.0, FilterStats(None, 7, None, None, 0)))
    lines.show(Moment(2.0, FilterStats(10, 7, 3, 2, 1), protocols(k6=7), lost=4))
    first, second = out.getvalue().splitlines()
    assert first == "1.000 s  7 accepted"
    counts = "10 packets (10/s)  7 accepted  3 dropped  2 trimmed  1 kernel drops  4 not forwarded"
    assert second == f"2.000 s  {counts}  TCP 7 packets"


def test_json_lines() -> None:
    out = io.StringIO()
    shown = JsonLines(out)
    shown.show(Moment(0.5, FilterStats(1, 0, 1, 0, None), protocols(k6=7)))
    shown.show(Moment(1.0, FilterStats(1, 0, 1, 0, 2), protocols(**{f"k{n}": 1 for n in range(250)})))
    first, second = map(json.loads, out.getvalue().splitlines())
    assert (first["seconds"], first["kernel_drops"], second["interval"]) == (0.5, None, 0.5)
    assert first["maps"]["counts"] == [{"key": "06000000", "value": "0700000000000000"}]


def test_which_display() -> None:
    out = io.StringIO()
    assert isinstance(choose_display(out, "t", as_json=True, quiet=False), JsonLines)
    assert isinstance(choose_display(out, "t", as_json=False, quiet=False), PlainLines)
    choose_display(out, "t", as_json=False, quiet=True).show(Moment(1.0, FilterStats()))
    assert out.getvalue() == ""


@pytest.mark.kernel
@pytest.mark.skipif(bool(KERNEL_REASON), reason=KERNEL_REASON or "the kernel answers")
def test_on_a_terminal() -> None:
    master, slave = pty.openpty()
    words = ["attach", "lo", "--prog", "scenarios/counting.s", "--duration", "1.2", "--interval", "0.2"]
    running = subprocess.Popen([sys.executable, "-m", "netbpf", *words], stdout=slave, stderr=subprocess.DEVNULL, cwd=ROOT)
    os.close(slave)
    told, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        told += piece
    os.close(master)
    assert running.wait(10) == 0
    text = told.decode().replace("\r\n", "\n")
    assert text.count("\x1b[10A") >= 1  # title, heading, five counts, a map of two
    lines = screen(text)
    assert lines[0].startswith("lo: scenarios/counting.s")
    assert lines[2].split()[0] == "packets"
    assert any("packets (" in line for line in lines[7:])
