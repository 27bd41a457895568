"""The pages in a real browser: no complaint, nothing asked of the network, plots drawn, legible on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser, find_chromium
from support.objects import OBJECTS

from netbpf.cli.main import main

ROOT = Path(__file__).parents[2]
CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
WIDTHS = (1280, 390)

SMALLEST_TEXT = """Math.min(...Array.from(document.querySelectorAll("svg text, p, td, th, dt, dd, li, summary, h1, h2"), (e) => {
  const box = e.getBoundingClientRect();
  if (!box.width) return 99;
  const scale = e.ownerSVGElement ? e.ownerSVGElement.getBoundingClientRect().width / e.ownerSVGElement.viewBox.baseVal.width : 1;
  return parseFloat(getComputedStyle(e).fontSize) * scale;
}))"""

DRAWN = """Array.from(document.querySelectorAll("svg[role=img]")).filter((s) => s.getBoundingClientRect().width > 100 &&
  Array.from(s.querySelectorAll("path, rect")).some((p) => p.getBBox().width > 0)).length"""

OUTSIDE = """Array.from(document.querySelectorAll("svg[role=img] text")).filter((t) => {
  const box = t.getBoundingClientRect(), frame = t.ownerSVGElement.getBoundingClientRect();
  return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1);
}).map((t) => t.textContent)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM) as opened:
        yield opened


@pytest.fixture(scope="module", params=["counting", "flow_hash", "accepting"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    out = folder / "report.html"
    programs = {"counting": ROOT / "scenarios" / "counting.s", "flow_hash": OBJECTS / "flow_hash.o"}
    program = programs.get(request.param) or folder / "accepting.s"
    if not program.exists():  # keeps UDP whole, TCP in part, drops the rest
        program.write_text(
            "r6 = r1\nr0 = *(u8 *)skb[23]\nif r0 == 17 goto whole\nif r0 == 6 goto part\nr0 = 0\nexit\n"
            "whole:\nr0 = 65535\nexit\npart:\nr0 = 64\nexit\n"
        )
    words = ["replay", str(ROOT / "pcaps" / "session.pcap"), "--prog", str(program), "--report", str(out), "-q", "--dump", "none"]
    assert main(words) == 0
    return out


@pytest.fixture(scope="module")
def coverage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts, out = (tmp_path_factory.mktemp("page") / name for name in ("cov.json", "cov.html"))
    words = ["replay", str(ROOT / "pcaps" / "session.pcap"), "--prog", str(OBJECTS / "flow_hash.o"), "-q", "--dump", "none"]
    assert main([*words, "--coverage", str(counts)]) == 0
    assert main(["cover", "html", str(counts), "-o", str(out)]) == 0
    return out


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_coverage_page_is_legible_and_quiet(browser: Browser, coverage: Path, width: int, dark: bool) -> None:
    browser.open(coverage, width=width, dark=dark)
    assert browser.complaints == []
    assert browser.requests == [coverage.resolve().as_uri()]
    assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    assert browser.run(SMALLEST_TEXT) >= 10.5


def test_states_open_and_what_ran_can_be_hidden(browser: Browser, coverage: Path) -> None:
    browser.open(coverage)
    opened = 'document.querySelectorAll("details.states[open]").length'
    seen = 'Array.from(document.querySelectorAll("tr.hit")).filter((r) => r.getBoundingClientRect().height).length'
    assert browser.run(opened) == 0
    browser.run("""document.querySelector('[data-toggle="states"]').click()""")
    assert browser.run(opened) == browser.run('document.querySelectorAll("details.states").length') > 100
    assert browser.run(seen) > 100
    browser.run("""document.querySelector('[data-toggle="only-missed"]').click()""")
    assert browser.run(seen) == 0
    assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "long states do not stick out"
    assert browser.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_is_legible_and_quiet(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.complaints == []
    assert browser.requests == [page.resolve().as_uri()]
    assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    assert browser.run(DRAWN) == browser.run('document.querySelectorAll("figure").length'), "every plot is drawn once"
    assert browser.run(OUTSIDE) == []
    assert browser.run(SMALLEST_TEXT) >= 10.5


def test_pointing_at_a_plot_tells_its_numbers(browser: Browser, page: Path) -> None:
    browser.open(page)
    box = browser.run(
        'JSON.parse(JSON.stringify(document.querySelector("figure.plot svg.wide").getBoundingClientRect()))',
    )
    browser.move_mouse(box["left"] + box["width"] / 2, box["top"] + 50)
    told = browser.run('document.querySelector("figure.plot .readout").textContent')
    assert told.startswith("from 4.")
    assert "dropped" in told
    browser.move_mouse(1, 1)
    assert browser.run('document.querySelector("figure.plot .readout").textContent').startswith("Point at")


def test_the_keyboard_reaches_the_numbers(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run('document.querySelector("figure.plot svg.wide").focus()')
    browser.press("ArrowRight")
    assert browser.run('document.querySelector("figure.plot .readout").textContent').startswith("from 0 s")
    browser.press("End")
    assert browser.run('document.querySelector("figure.plot .readout").textContent').startswith("from 9.4 s")
    assert browser.complaints == []


def test_colours_have_contrast(browser: Browser, page: Path) -> None:
    """Text at 4.5 to 1, lines and areas at 3 to 1, in both schemes (WCAG 2.1)."""
    for dark in (False, True):
        browser.open(page, dark=dark)
        for name in ("ink", "soft", "link"):
            assert browser.run(_contrast(name)) >= 4.5, (name, dark)
        for name in ("accepted", "dropped", "s0", "s1", "s2", "s3", "s4", "s5", "hot", "good", "half", "bad"):
            assert browser.run(_contrast(name)) >= 3, (name, dark)


def _contrast(name: str) -> str:
    return f"""(() => {{
      const light = (text) => {{
        const parts = [1, 3, 5].map((i) => parseInt(text.trim().slice(i, i + 2), 16) / 255);
        const [r, g, b] = parts.map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      }};
      const style = getComputedStyle(document.documentElement);
      const [a, b] = [light(style.getPropertyValue("--{name}")), light(style.getPropertyValue("--paper"))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }})()"""
