"""The debugger's screen as lines of text for a width and height, and what its keys do. Knows no terminal: ``cli.debug_terminal``
paints it.

    packet 37/..  step 7/12  counting              title, reversed
    program                    | registers
    ------------------------------------
    one of the panes: packet, stack, maps, notes
    message
    keys
"""

from __future__ import annotations

from typing import Final, NamedTuple

from netbpf.explain import debug_views as views
from netbpf.explain.debug_commands import HELP, Commands, Quit
from netbpf.explain.debugger import Debugger

MIN_WIDTH, MIN_HEIGHT = 60, 16
REGISTER_WIDTH: Final = 26
REGISTER_ROWS: Final = 11
KEYS: Final = "s/b step  n next  c/r run  +/- packet  B break  TAB pane  : cmd  ? help  q quit"


class Line(NamedTuple):
    """A row of the screen: its text, and how it is to stand out ("", "title", "here", "break", "dim")."""

    text: str
    look: str = ""


class Screen:
    """``key`` takes what was typed, ``lines`` says what to show. ``prompt`` is the command that is being typed, None for none."""

    def __init__(self, debugger: Debugger) -> None:
        self.debugger, self.commands = debugger, Commands(debugger)
        self.pane, self.scroll = "packet", 0
        self.message = ""
        self.prompt: str | None = None
        self.shown: list[str] = []  # output of a command that takes the pane's place until the next key

    # --- keys -------------------------------------------------------------------------------------------------------------
    def key(self, name: str) -> None:
        """A key by name: a character, or left, right, up, down, pageup, pagedown, tab, enter, escape, backspace. Raises Quit."""
        if self.prompt is not None:
            self._typed(name)
            return
        self.message, self.shown = "", []
        if name in _MOVES:
            self._do(_MOVES[name])
        elif name in ("tab", "\t"):
            self.pane = views.PANES[(views.PANES.index(self.pane) + 1) % len(views.PANES)]
            self.scroll = 0
        elif name in ("down", "pagedown", "up", "pageup"):
            self.scroll = max(0, self.scroll + {"down": 1, "pagedown": 8, "up": -1, "pageup": -8}[name])
        elif name == "B":
            self.debugger.toggle_here()
        elif name in (":", "/"):
            self.prompt = ""
        elif name in ("?", "h"):
            self.shown = HELP.splitlines()
        elif name in ("q", "Q"):
            raise Quit

    def _typed(self, name: str) -> None:
        assert self.prompt is not None
        if name in ("enter", "\n", "\r"):
            line, self.prompt = self.prompt, None
            self._do(line)
        elif name in ("escape", "\x1b"):
            self.prompt = None
        elif name in ("backspace", "\x7f", "\b"):
            self.prompt = self.prompt[:-1]
        elif len(name) == 1 and name.isprintable():
            self.prompt += name

    def _do(self, line: str) -> None:
        """A command: of a look all lines take the pane's place; of the rest the first is the message, unless it only says where
        one is now, which the screen shows anyhow."""
        word = line.split()[0] if line.split() else ""
        told = self.commands.run(line)
        if word in _LOOKS:
            self.shown = told
        elif told and told[0] != views.title(self.debugger) and not told[0].startswith(" "):
            self.message = told[0]

    # --- what is shown ----------------------------------------------------------------------------------------------------
    def lines(self, width: int, height: int) -> list[Line]:
        """``height`` lines, none longer than ``width``."""
        if width < MIN_WIDTH or height < MIN_HEIGHT:
            rows = [Line(f"{width}x{height}: the debugger's screen needs {MIN_WIDTH}x{MIN_HEIGHT}")]
            return [Line(r.text[:width], r.look) for r in rows][:height] + [Line("")] * (height - 1)
        upper = max(REGISTER_ROWS, (height - 4) // 2)
        rows = [Line(views.title(self.debugger), "title"), *self._upper(width, upper)]
        rows.append(Line(self._tabs(width), "dim"))
        lower = height - len(rows) - 2
        rows += self._lower(lower)
        rows.append(Line(self.message if self.prompt is None else f":{self.prompt}_"))
        rows.append(Line(KEYS, "dim"))
        return [Line(_fit(row.text, width), row.look) for row in rows]

    def _upper(self, width: int, height: int) -> list[Line]:
        """The program and the registers side by side."""
        left_width = width - REGISTER_WIDTH - 3
        program = views.program_lines(self.debugger, height)
        registers = views.register_lines(self.debugger)
        if self.debugger.step_here is None:
            program = [*program[: height - 1], self.debugger.path.outcome]
        rows = []
        for i in range(height):
            left = program[i] if i < len(program) else ""
            right = registers[i] if i < len(registers) else ""
            look = "here" if left[1:2] == views.HERE else "break" if left[:1] == views.BREAK else ""
            rows.append(Line(f"{_fit(left, left_width):<{left_width}} | {right}", look))
        return rows

    def _tabs(self, width: int) -> str:
        names = "  ".join(f"[{p}]" if p == self.pane else p for p in views.PANES)
        return f"-- {'answer' if self.shown else names} ".ljust(width, "-")

    def _lower(self, height: int) -> list[Line]:
        rows = self.shown or views.pane_lines(self.debugger, self.pane)
        if self.pane == "packet" and not self.scroll and not self.shown:  # what was loaded last is in sight
            self.scroll = next((i for i, row in enumerate(rows) if "|" in row and i >= height), 0)
        self.scroll = max(0, min(self.scroll, len(rows) - height))
        found = rows[self.scroll : self.scroll + height]
        return [Line(row) for row in found] + [Line("")] * (height - len(found))


_MOVES: Final = {
    "s": "s", " ": "s", "right": "s", "b": "b", "left": "b", "n": "n", "f": "f", "c": "c", "r": "rc",
    "+": "p +", "-": "p -", "0": "p",
}  # fmt: skip
_LOOKS: Final = frozenset({"r", "stack", "pkt", "maps", "l", "note", "h", "help", "?", "info", "regs", "list"})


def _fit(text: str, width: int) -> str:
    text = text.expandtabs(4)
    return text if len(text) <= width else text[: width - 1] + ">"
