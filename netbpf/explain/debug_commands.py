"""The debugger's commands, a line of text each, for scripts and for the screen's prompt: a line in, lines out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from netbpf.errors import UsageError
from netbpf.explain import debug_views as views
from netbpf.explain.debugger import Breakpoint, Debugger, EndOfCapture
from netbpf.explain.text import notes

HELP: Final = """\
s [N]        step, N times            b [N]     step back
n            step over calls          f         to the end of this function
c            on to a breakpoint       rc        back to one (without any: the packet's end, start)
p N          to packet N, which starts over; p + and p - are the next and the last one
break 7      stop at an instruction; break PROG:7; break line 12; break flows.c:12; break map NAME [KEY]
delete N     take a breakpoint away   info      breakpoints
w            where: the packet and the instruction that comes next
r            registers                stack     the frame's bytes
pkt          the packet, with fields  maps [M]  maps as they are at this moment
l            the program around       note      what the last step did
q            quit"""


class Quit(Exception):
    """The user has seen enough."""


class Commands:
    """``run`` does what a line says and gives what to print. An empty line repeats the last one."""

    def __init__(self, debugger: Debugger) -> None:
        self.debugger = debugger
        self._last = ""

    def run(self, line: str) -> list[str]:
        """Raises Quit; what cannot be done is told."""
        words = line.split("#")[0].split() or self._last.split()
        if not words:
            return []
        self._last = " ".join(words)
        name = ALIASES.get(words[0], words[0])
        command = _COMMANDS.get(name)
        if command is None:
            return [f"{words[0]}: no such command; h lists them"]
        try:
            return command(self, words[1:])
        except (EndOfCapture, UsageError) as e:
            return [str(e)]

    # --- moves ----------------------------------------------------------------------------------------------------------
    def step(self, words: list[str]) -> list[str]:
        self.debugger.step(_count(words))
        return self.done()

    def back(self, words: list[str]) -> list[str]:
        self.debugger.back(_count(words))
        return self.where([])

    def next(self, words: list[str]) -> list[str]:
        self.debugger.next()
        return self.done()

    def finish(self, words: list[str]) -> list[str]:
        self.debugger.finish()
        return self.done()

    def go_on(self, words: list[str]) -> list[str]:
        return self._stopped(self.debugger.go_on())

    def go_back(self, words: list[str]) -> list[str]:
        return self._stopped(self.debugger.go_back())

    def _stopped(self, found: Breakpoint | None) -> list[str]:
        if found is not None:
            return [f"breakpoint {found.number}: {found}", *self.where([])]
        return [*(["no breakpoint was met"] if self.debugger.breakpoints else []), *self.where([])]

    def packet(self, words: list[str]) -> list[str]:
        here = self.debugger.path.number
        word = words[0] if words else str(here)
        try:
            number = here + 1 if word == "+" else here - 1 if word == "-" else int(word)
        except ValueError:
            raise UsageError(f"p {word}: a packet number, + or -") from None
        self.debugger.packet(number)
        return self.where([])

    # --- breakpoints ------------------------------------------------------------------------------------------------------
    def stop_at(self, words: list[str]) -> list[str]:
        made = self.debugger.add_breakpoint(" ".join(words))
        return [f"breakpoint {made.number}: {made}"]

    def delete(self, words: list[str]) -> list[str]:
        if len(words) != 1 or not words[0].isdigit():
            raise UsageError("delete N: the number that info lists")
        self.debugger.delete_breakpoint(int(words[0]))
        return []

    def info(self, words: list[str]) -> list[str]:
        return [f"{b.number}: {b}" for b in self.debugger.breakpoints] or ["no breakpoints"]

    # --- looks ------------------------------------------------------------------------------------------------------------
    def where(self, words: list[str]) -> list[str]:
        return [views.title(self.debugger), *views.here(self.debugger)]

    def done(self) -> list[str]:
        """What the last step did, and what comes next."""
        debugger = self.debugger
        last = debugger.path.steps[debugger.at - 1] if debugger.at else None
        told = [f"      {note}" for note in notes(last)] if last is not None else []
        return [*told, *self.where([])]

    def registers(self, words: list[str]) -> list[str]:
        return views.register_lines(self.debugger)

    def stack(self, words: list[str]) -> list[str]:
        return views.stack_lines(self.debugger)

    def show_packet(self, words: list[str]) -> list[str]:
        return views.packet_lines(self.debugger)

    def maps(self, words: list[str]) -> list[str]:
        return views.map_lines(self.debugger, words[0] if words else "")

    def program(self, words: list[str]) -> list[str]:
        return views.program_lines(self.debugger, 15)

    def note(self, words: list[str]) -> list[str]:
        return views.note_lines(self.debugger)

    def help(self, words: list[str]) -> list[str]:
        return HELP.splitlines()

    def quit(self, words: list[str]) -> list[str]:
        raise Quit


def _count(words: list[str]) -> int:
    if not words:
        return 1
    if not words[0].isdigit() or not 0 < int(words[0]) <= 1_000_000:
        raise UsageError(f"{words[0]}: how many steps?")
    return int(words[0])


Command = Callable[[Commands, list[str]], list[str]]
_COMMANDS: Final[dict[str, Command]] = {
    "s": Commands.step, "b": Commands.back, "n": Commands.next, "f": Commands.finish, "c": Commands.go_on, "rc": Commands.go_back,
    "p": Commands.packet, "break": Commands.stop_at, "delete": Commands.delete, "info": Commands.info, "w": Commands.where,
    "r": Commands.registers, "stack": Commands.stack, "pkt": Commands.show_packet, "maps": Commands.maps, "l": Commands.program,
    "note": Commands.note, "h": Commands.help, "q": Commands.quit,
}  # fmt: skip
ALIASES: Final = {
    "step": "s", "back": "b", "next": "n", "finish": "f", "continue": "c", "packet": "p", "where": "w", "regs": "r", "list": "l",
    "help": "h", "?": "h", "quit": "q", "exit": "q",
}  # fmt: skip
