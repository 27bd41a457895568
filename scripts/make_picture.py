#!/usr/bin/env python3
"""Draws docs/picture.svg, the picture of the README: two commands with what they print, and a plot of a report.

    scripts/make_picture.py            write the file
    scripts/make_picture.py --check    exit 1 if it is not what would be written

Everything in it is printed or drawn by netbpf on a shipped capture.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from netbpf.cli.main import main as netbpf  # noqa: E402
from netbpf.packet.open import open_capture  # noqa: E402
from netbpf.replay.core import Replay  # noqa: E402
from netbpf.replay.session import Session  # noqa: E402
from netbpf.report import plot  # noqa: E402
from netbpf.report.collect import Collector, RunFacts  # noqa: E402
from netbpf.report.html import Markup, element, join  # noqa: E402
from netbpf.report.instructions import InsnCounter  # noqa: E402
from netbpf.report.model import ReplayReport  # noqa: E402
from netbpf.sources.load import read_program  # noqa: E402

TARGET = ROOT / "docs" / "picture.svg"
CAPTURE, PROGRAM = "pcaps/session.pcap", "scenarios/counting.s"
COMMANDS: Final = (
    ["replay", CAPTURE, "--prog", PROGRAM, "--interval", "2", "--dump", "none"],
    ["why", CAPTURE, "-n", "37", "--prog", PROGRAM],
)
WIDTH, LINE, LEFT = 900, 18, 28
STYLE: Final = """
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; }
.frame { fill: #15191f; } .out { fill: #c9d1db; } .cmd { fill: #ffffff; font-weight: 600; } .said { fill: #6fb7f0; }
.sheet { fill: #ffffff; stroke: #d5dae1; } .sheet-title { fill: #15181d; font: 600 14px system-ui, sans-serif; }
svg svg text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #545d6b; }
.end { text-anchor: end; } .mid { text-anchor: middle; } .grid { stroke: #d5dae1; } .base { stroke: #545d6b; }
.line { fill: none; stroke-width: 2; } .mark { stroke: #ffffff; }
.line.s0 { stroke: #0072b2; } .mark.s0 { fill: #0072b2; }
.line.s1 { stroke: #c8500a; stroke-dasharray: 7 4; } .mark.s1 { fill: #c8500a; }
.key { font: 13px system-ui, sans-serif; fill: #15181d; }
"""


def printed(words: list[str]) -> list[str]:
    """What a command prints; the line that tells the time it took is left out."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = netbpf(words)
    if code:
        raise SystemExit(f"netbpf {' '.join(words)}: exit code {code}")
    return [line for line in out.getvalue().rstrip().splitlines() if not line.startswith("engine ")]


def terminal() -> Iterator[tuple[str, str]]:
    """(kind, text) of each line on the screen."""
    for i, words in enumerate(COMMANDS):
        if i:
            yield "out", ""
        yield "cmd", "$ netbpf " + " ".join(words).replace(" --dump none", "")
        for line in printed(words):
            yield "out", line


def screen(lines: list[tuple[str, str]]) -> Markup:
    """The lines as text; what stands behind a semicolon is told apart."""
    rows = []
    for i, (kind, text) in enumerate(lines):
        code, mark, said = text.partition(" ; ") if kind == "out" else (text, "", "")
        parts = [element("tspan", code + mark), element("tspan", said, class_="said")] if said else [text]
        rows.append(element("text", *parts, x=LEFT, y=34 + i * LINE, class_=kind))
    return join(rows)


def report() -> ReplayReport:
    """The report of the same replay."""
    spec = read_program(PROGRAM)
    with Session(spec, engine="interp") as session, Session(spec, engine="interp") as counting:
        collector = Collector(spec, session, InsnCounter(spec, counting))
        replay = Replay(session.loaded, session.maps, interval_ns=500_000_000, sink=collector.add)
        with open_capture(CAPTURE) as reader:
            for interval in replay.run(reader):
                collector.tell(interval)
        collector.tell(replay.finish())
        return collector.report(replay, RunFacts([CAPTURE], PROGRAM, "interp", 0.0))


def curves(found: ReplayReport, top: int) -> Markup:
    """The map's counters over trace time, with their key."""
    drawn = found.map_curves[0]
    times = [min(t, found.trace_s) for t in drawn.times_s]
    lines = plot.together(*(plot.marked_line(times, c.values, i) for i, c in enumerate(drawn.curves)))
    most = max(v for c in drawn.curves for v in c.values if v is not None)
    both = plot.time_plot("counts", found.trace_s, most, lines, whole=True)
    wide = both[: both.index("</svg>") + len("</svg>")]
    height = plot.WIDE.height
    nested = element("svg", Markup(wide), x=20, y=top + 42, width=plot.WIDE.width, height=height)
    keys = [
        join(
            element("path", d=f"M{x},{top + 26}h30", class_=f"line s{i}"),
            element("path", d=plot.mark(i, x + 15, top + 26), class_=f"mark s{i}"),
            element("text", curve.label, x=x + 38, y=top + 31, class_="key"),
        )
        for i, (curve, x) in enumerate(zip(drawn.curves, (560, 700), strict=False))
    ]
    sheet = element("rect", x=1, y=top, width=WIDTH - 2, height=height + 56, rx=10, class_="sheet")
    words = "From netbpf replay --report: the map's counters over trace time"
    title = element("text", words, x=LEFT, y=top + 31, class_="sheet-title")
    return join(sheet, title, keys, nested)


def picture() -> str:
    """The whole SVG document."""
    lines = list(terminal())
    bottom = 34 + len(lines) * LINE
    height = bottom + 16 + plot.WIDE.height + 58
    frame = element("rect", width=WIDTH, height=bottom, rx=10, class_="frame")
    said = "A terminal with netbpf replay and netbpf why, and a plot of counted packets"
    parts = (Markup(f"<style>{STYLE}</style>"), element("title", said), frame, screen(lines), curves(report(), bottom + 16))
    size = {"viewBox": f"0 0 {WIDTH} {height}", "width": WIDTH, "height": height}
    return element("svg", parts, xmlns="http://www.w3.org/2000/svg", **size) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw docs/picture.svg.")
    parser.add_argument("--check", action="store_true", help="only say whether the file is fresh")
    os.chdir(ROOT)
    text = picture()
    if parser.parse_args().check:
        fresh = TARGET.exists() and TARGET.read_text("utf-8") == text
        print(f"{TARGET.relative_to(ROOT)} is {'fresh' if fresh else 'stale: run scripts/make_picture.py'}")
        return 0 if fresh else 1
    TARGET.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
