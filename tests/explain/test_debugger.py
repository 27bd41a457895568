"""The debugger: forwards and backwards meet, maps are shown as they were, breakpoints stop where they say, memory is bounded."""

from __future__ import annotations

import os
import pty
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.objects import read
from support.vectors import ROOT

from netbpf.cli.main import main
from netbpf.errors import UsageError
from netbpf.explain import debugger as module
from netbpf.explain.debug_commands import Commands, Quit
from netbpf.explain.debug_screen import Screen
from netbpf.explain.debug_views import PANES, pane_lines, title
from netbpf.explain.debugger import Debugger, EndOfCapture
from netbpf.explain.session import WatchedSession
from netbpf.packet.open import open_capture
from netbpf.packet.record import Record
from netbpf.program import ProgramSpec
from netbpf.sources.load import read_program

SESSION, COUNTING = ROOT / "pcaps" / "session.pcap", ROOT / "scenarios" / "counting.s"


def records() -> Iterator[Record]:
    with open_capture(str(SESSION)) as reader:
        yield from reader


@pytest.fixture
def debugger() -> Iterator[Debugger]:
    made = of(read_program(str(COUNTING)))
    yield made
    made.close()


def of(spec: ProgramSpec) -> Debugger:
    return Debugger(lambda: WatchedSession(spec), records)


def place(debugger: Debugger) -> tuple[int, int]:
    return debugger.path.number, debugger.at


def seen(debugger: Debugger) -> tuple[object, ...]:
    """All that a user can see."""
    return title(debugger), *(tuple(pane_lines(debugger, pane)) for pane in PANES), Commands(debugger).run("r")


def test_forwards_and_backwards_see_the_same(debugger: Debugger) -> None:
    forwards = [seen(debugger)]
    for _ in range(80):
        debugger.step()
        forwards.append(seen(debugger))
    backwards = [seen(debugger)]
    for _ in range(80):
        debugger.back()
        backwards.append(seen(debugger))
    assert forwards == backwards[::-1]
    assert place(debugger) == (1, 0)
    with pytest.raises(EndOfCapture, match="beginning"):
        debugger.back()
    assert place(debugger) == (1, 0)


def test_maps_are_shown_as_they_were(debugger: Debugger) -> None:
    key, live = (17).to_bytes(4, "little"), debugger.maps()["counts"]
    counts = []
    for number in range(1, 40):
        debugger.packet(number)
        counts.append(int.from_bytes(debugger.contents(live)[key], "little"))
    assert counts == sorted(counts)
    assert counts[-1] > 1
    for number in random.Random(1).sample(range(1, 40), 12):
        debugger.packet(number)
        assert int.from_bytes(debugger.contents(live)[key], "little") == counts[number - 1]


def test_what_is_no_longer_kept_runs_again(debugger: Debugger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_PACKETS", 8)
    debugger.packet(3)
    debugger.step(10)
    before = seen(debugger)
    debugger.packet(200)
    assert len(debugger._paths) <= 8
    debugger.packet(3)
    debugger.step(10)
    assert seen(debugger) == before
    assert len(debugger._paths) <= 8


def test_steps_kept_are_bounded(debugger: Debugger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_STEPS", 50)
    debugger.packet(30)
    assert sum(len(p.steps) for p in debugger._paths) <= 50
    debugger.packet(1)
    assert place(debugger) == (1, 0)


def test_the_end_of_the_capture_is_no_place_to_go(debugger: Debugger) -> None:
    debugger.packet(532)
    with pytest.raises(EndOfCapture, match="end of the capture"):
        debugger.packet(533)
    assert place(debugger) == (532, 0)
    with pytest.raises(EndOfCapture, match="beginning"):
        debugger.packet(0)


# --- breakpoints ----------------------------------------------------------------------------------------------------------
def test_a_breakpoint_on_an_instruction(debugger: Debugger) -> None:
    debugger.add_breakpoint("9")
    assert debugger.go_on() is not None
    first = place(debugger)
    assert debugger.step_here is not None
    assert debugger.step_here.pc == 9
    assert debugger.go_on() is not None
    assert place(debugger) > first
    assert debugger.go_back() is not None
    assert place(debugger) == first
    assert debugger.go_back() is None
    assert place(debugger) == (1, 0)


def test_a_breakpoint_on_a_change_of_a_map(debugger: Debugger) -> None:
    debugger.add_breakpoint("map counts 6")
    assert debugger.go_on() is not None
    (change,) = debugger.path.steps[debugger.at - 1].changes
    assert change.text == "counts[6]: 0 -> 1"
    live = debugger.maps()["counts"]
    assert debugger.contents(live)[(6).to_bytes(4, "little")] == (1).to_bytes(8, "little")
    debugger.back()
    assert debugger.contents(live)[(6).to_bytes(4, "little")] == bytes(8)


def test_a_breakpoint_on_a_source_line_and_stepping_over_calls() -> None:
    debugger = of(read("callback"))
    debugger.add_breakpoint("callback.c:25")
    assert debugger.go_on() is not None
    here = debugger.step_here
    assert here is not None
    while debugger.step_here is not None and debugger.step_here.call is None:
        debugger.next()
    call = debugger.at
    debugger.next()
    assert debugger.at == call + 1 + 24, "the callback's steps are stepped over"
    debugger.back(2)
    assert debugger.step_here is not None
    assert debugger.step_here.depth == 1
    debugger.finish()
    assert debugger.step_here.depth == 0
    debugger.close()


@pytest.mark.parametrize("text", ["", "x", "line", "line x", "map", "map nothing", "1 2 3", "a.c:x"])
def test_what_is_no_breakpoint(debugger: Debugger, text: str) -> None:
    with pytest.raises(UsageError):
        debugger.add_breakpoint(text)
    assert debugger.breakpoints == []


# --- commands ---------------------------------------------------------------------------------------------------------------
def script(lines: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    assert main(["debug", *words]) == 0
    return capsys.readouterr().out


def test_a_script(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = script(
        "break map counts\nc\nmaps\nrc\np 37\ns 2\npkt\nr\nstack\nl\nnote\ninfo\ndelete 1\ninfo\n"
        "b\nnonsense\np x\np 9999\nh\nq\n",
        [str(SESSION), "--prog", str(COUNTING)],
        capsys,
        monkeypatch,
    )
    assert "breakpoint 1: change of map counts\npacket 3  step 10/12  counting" in out
    assert "IPv4.proto=6" in out
    assert "nonsense: no such command" in out
    assert "p x: a packet number" in out
    assert "this is the end of the capture" in out
    assert out.rstrip().endswith("> q")


def test_a_packet_in_hex(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    packet = "02 00 00 00 00 01 02:00:00:00:00:02 0800 4500002800010000401100000a0000010a000002 0001000200080000"
    out = script("c\n", ["--hex", packet, "--prog", str(COUNTING)], capsys, monkeypatch)
    assert "end after 12 steps" in out


@pytest.mark.parametrize("words", [[], ["x.pcap", "--hex", "00"], ["--hex", "0"], ["-"]])
def test_what_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug", *words, "--prog", str(COUNTING)]) == 64
    assert capsys.readouterr().err


def test_a_terminal_that_cannot_be_painted_on_gets_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    from netbpf.cli import debug

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    for term, has in (("dumb", False), ("xterm", True)):
        monkeypatch.setenv("TERM", term)
        assert debug._has_screen() is has


def test_no_command_raises(debugger: Debugger) -> None:
    rng, commands = random.Random("commands"), Commands(debugger)
    words = "s b n f c rc p + - break 7 line map counts delete 1 info w r stack pkt maps l note h 0 99 x # :".split()
    for _ in range(150):
        line = " ".join(rng.choices(words, k=rng.randint(0, 3)))
        try:
            commands.run(line)
        except Quit:
            pytest.fail("nobody asked to quit")


# --- the screen -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(80, 24), (60, 16), (132, 50), (20, 5), (1, 1)])
def test_the_screen_fits(debugger: Debugger, size: tuple[int, int]) -> None:
    screen, rng = Screen(debugger), random.Random("keys")
    keys = [*"sbnfcr+-B:m?", "tab", "down", "up", "pagedown", "enter", "escape", "backspace", ""]
    for _ in range(120):
        screen.key(rng.choice(keys))
        rows = screen.lines(*size)
        assert len(rows) == size[1]
        assert all(len(row.text) <= size[0] for row in rows)


def test_the_screen_at_80x24(debugger: Debugger) -> None:
    screen = Screen(debugger)
    for key in ("s", "s", ":", *"break 9", "enter", "c"):
        screen.key(key)
    text = [row.text.rstrip() for row in screen.lines(80, 24)]
    assert text[0] == "packet 3  step 8/12  counting"
    assert any(row.startswith("*>   9: r1 = 1") for row in text)
    assert any("| *r0" in row or "|  r0" in row for row in text)
    assert any("IPv4.proto=17" in row for row in text)
    assert text[-2] == "breakpoint 1: instruction 9"
    assert text[-1].endswith("q quit")
    screen.key("tab")
    screen.key("tab")
    assert any(row.text.startswith("  17: 0") for row in screen.lines(80, 24))


def test_a_terminal_shows_the_screen_and_is_left_as_it_was() -> None:
    import fcntl
    import termios

    pid_side, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(ours)
    process = subprocess.Popen(
        [sys.executable, "-m", "netbpf", "debug", str(SESSION), "--prog", str(COUNTING)],
        stdin=ours, stdout=ours, stderr=ours, env={**os.environ, "TERM": "xterm"}, cwd=Path(ROOT),
    )  # fmt: skip
    try:
        shown = until(pid_side, b"q quit")
        assert b"packet 1  step 0/10" in shown
        os.write(pid_side, b"ss")
        assert b"(u32 *)(r10 -4) = r0" in until(pid_side, b"= r0")
        os.write(pid_side, b"\x1bOD")  # the left arrow, as xterm sends it to programs
        assert b"skb[23]" in until(pid_side, b"skb[23]")
        os.write(pid_side, b"q")
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            until(pid_side, b"never", 0.2)
        assert process.returncode == 0
        assert termios.tcgetattr(ours)[3] == before[3], "echo and line mode are back"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(pid_side)
        os.close(ours)


def until(fd: int, wanted: bytes, seconds: float = 60) -> bytes:
    """What the terminal shows until ``wanted`` comes, or the time is over."""
    found, deadline = b"", time.monotonic() + seconds
    while wanted not in found and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.1)[0]:
            found += os.read(fd, 65536)
    return found
