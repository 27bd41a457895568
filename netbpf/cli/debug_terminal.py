"""The debugger's screen on a terminal, painted by curses. What is shown and what keys do is ``explain.debug_screen``'s."""

from __future__ import annotations

import curses
import locale
from typing import Any, Final

from netbpf.errors import UsageError
from netbpf.explain.debug_commands import Quit
from netbpf.explain.debug_screen import Screen
from netbpf.explain.debugger import Debugger

ESCAPE_MS: Final = 25  # how long a lone ESC waits to be the start of a key
_KEYS: Final = {
    curses.KEY_LEFT: "left",
    curses.KEY_RIGHT: "right",
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_PPAGE: "pageup",
    curses.KEY_NPAGE: "pagedown",
    curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace",
    ord("\t"): "tab",
    ord("\n"): "enter",
    ord("\r"): "enter",
    27: "escape",
    127: "backspace",
    8: "backspace",
}
_LOOKS: Final = {"title": curses.A_REVERSE, "here": curses.A_BOLD | curses.A_REVERSE, "break": curses.A_BOLD, "dim": curses.A_DIM}


def show(debugger: Debugger) -> None:
    """Until the user quits. The terminal is left as it was, whatever happens. Raises UsageError for one nobody can paint on."""
    locale.setlocale(locale.LC_ALL, "")
    try:
        curses.setupterm()
    except curses.error as e:
        raise UsageError(f"{e}: use --plain") from None
    curses.set_escdelay(ESCAPE_MS)
    curses.wrapper(_loop, Screen(debugger))


def _loop(window: Any, screen: Screen) -> None:
    curses.curs_set(0)
    while True:
        _paint(window, screen)
        try:
            code = window.getch()
            if code in (curses.KEY_RESIZE, curses.ERR):
                continue
            screen.key(_KEYS.get(code, chr(code) if 0 <= code < 256 else ""))
        except Quit:
            return
        except KeyboardInterrupt:
            screen.message = "interrupted: q quits"


def _paint(window: Any, screen: Screen) -> None:
    height, width = window.getmaxyx()
    window.erase()
    for row, line in enumerate(screen.lines(width, height)[:height]):
        # the last cell of the last line cannot be written without scrolling
        text = line.text.ljust(width)[: width - (row == height - 1)]
        window.addstr(row, 0, text, _LOOKS.get(line.look, curses.A_NORMAL))
    window.refresh()
