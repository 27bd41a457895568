"""Stepping through a capture forwards and backwards: positions, breakpoints, what maps held there.

A packet runs once, recorded, and stepping moves through the recording; changes of maps are undone to show them as they were. The
recordings of the latest packets are kept, contiguous up to the last one that ran; what lies further back is run again from the
start. So memory stays bounded, and a second look sees the same. Knows no terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from netbpf.errors import CaptureError, NetbpfError, UsageError
from netbpf.explain.listing import Listing
from netbpf.explain.places import Places, map_name
from netbpf.explain.session import WatchedSession
from netbpf.explain.steps import Path, Step
from netbpf.maps.dump import entries
from netbpf.maps.storage import MapBase
from netbpf.packet.record import Record

KEPT_PACKETS: Final = 64
KEPT_STEPS: Final = 100_000  # of all recordings together, and at most of one
MAX_ENTRIES: Final = 4096  # of a map that are shown


class EndOfCapture(NetbpfError):
    """There is no packet where the debugger was to go."""

    exit_code = 66


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """Where to stop: before the instruction at slot ``pc``; where the source line ``line`` (of ``file``, if told) begins; behind
    a change of map ``map`` (of its entry ``key``, if told). ``program`` limits the first to a program of that name."""

    number: int
    kind: str
    pc: int = -1
    line: int = 0
    file: str = ""
    map: str = ""
    key: str = ""
    program: str = ""

    def __str__(self) -> str:
        if self.kind == "insn":
            return f"instruction {self.pc}" + (f" of {self.program}" if self.program else "")
        if self.kind == "line":
            return f"line {self.file + ':' if self.file else ''}{self.line}"
        return f"change of map {self.map}" + (f"[{self.key}]" if self.key else "")

    def stops(self, path: Path, at: int) -> bool:
        """Whether one stops before step ``at`` of ``path``."""
        if self.kind == "map":
            return at > 0 and any(self._is_of(c.map, c.key) for c in path.steps[at - 1].changes)
        if at == len(path.steps):
            return False
        step = path.steps[at]
        listing = path.listings[step.program]
        if self.kind == "insn":
            return step.pc == self.pc and self.program in ("", listing.name)
        return self._is_line(path, step) and not (at and self._is_line(path, path.steps[at - 1]))

    def _is_of(self, name: str, key: str | None) -> bool:
        return name == self.map and self.key in ("", key)

    def _is_line(self, path: Path, step: Step) -> bool:
        source = path.listings[step.program].source(step.pc)
        return source is not None and source.line == self.line and source.file.endswith(self.file)


class Debugger:
    """``new_session`` makes the program live from scratch, ``new_records`` reads the capture from its start (None: it can be read
    once only). Starts before the first instruction of the first packet."""

    def __init__(
        self,
        new_session: Callable[[], WatchedSession],
        new_records: Callable[[], Iterator[Record]],
        *,
        can_reread: bool = True,
    ) -> None:
        self._new_session, self._new_records, self._can_reread = new_session, new_records, can_reread
        self._paths: deque[Path] = deque()
        self.breakpoints: list[Breakpoint] = []
        self._made = 0
        self.session = new_session()
        self._records = new_records()
        self._at = 0
        self._index = -1  # of the current path in _paths
        self._run_to(1)

    # --- where it is ----------------------------------------------------------------------------------------------------
    @property
    def path(self) -> Path:
        """The current packet's recording."""
        return self._paths[self._index]

    @property
    def at(self) -> int:
        """How many steps of the path were made; all of them at its end."""
        return self._at

    @property
    def step_here(self) -> Step | None:
        """The step that is about to be made; None at the end of the run."""
        return self.path.steps[self._at] if self._at < len(self.path.steps) else None

    @property
    def listing(self) -> Listing:
        """The listing of the program that is running."""
        step = self.step_here or (self.path.steps[-1] if self.path.steps else None)
        return self.path.listings[step.program if step is not None else 0]

    @property
    def places(self) -> Places:
        """The words for addresses."""
        return Places(self.session.loaded.machine, self.session.typed)

    def maps(self) -> dict[str, MapBase]:
        """The program's maps by name."""
        return self.session.session.maps

    def contents(self, live: MapBase) -> dict[bytes, bytes]:
        """What a map with keys held at this moment, its first MAX_ENTRIES entries: all that happened since is undone."""
        name, now = map_name(live), dict[bytes, bytes]()
        for key, value in entries(live):
            if isinstance(value, bytes):
                now[key] = value[: live.spec.value_size]
            if len(now) == MAX_ENTRIES:
                break
        for step in self._steps_since():
            for change in reversed(step.changes):
                if change.map != name or change.raw_key is None:
                    continue
                if change.raw_before is None:
                    now.pop(change.raw_key, None)
                else:
                    now[change.raw_key] = change.raw_before
        return now

    def _steps_since(self) -> Iterator[Step]:
        """Every step that is not made yet at this moment but has run, the latest first."""
        for i in range(len(self._paths) - 1, self._index, -1):
            yield from reversed(self._paths[i].steps)
        yield from reversed(self.path.steps[self._at :])

    # --- moves within a packet --------------------------------------------------------------------------------------------
    def step(self, count: int = 1) -> None:
        """Make steps; those at the end of a run go on with the next packet. Raises EndOfCapture."""
        for _ in range(count):
            if self._at < len(self.path.steps):
                self._at += 1
            else:
                self.packet(self.path.number + 1)

    def back(self, count: int = 1) -> None:
        """Take steps back; before the first of a packet lies the end of the packet before. Raises EndOfCapture."""
        for _ in range(count):
            if self._at:
                self._at -= 1
            else:
                self.packet(self.path.number - 1)
                self._at = len(self.path.steps)

    def next(self) -> None:
        """A step, functions and callbacks that it calls included."""
        depth = self._depth()
        self.step()
        while self._depth() > depth:
            self.step()

    def finish(self) -> None:
        """To where the current function has returned."""
        depth = self._depth()
        while self.step_here is not None and self._depth() >= depth:
            self.step()

    def _depth(self) -> int:
        return self.step_here.depth if self.step_here is not None else -1

    # --- moves between packets ----------------------------------------------------------------------------------------------
    def packet(self, number: int) -> None:
        """To the beginning of a packet. Raises EndOfCapture, and stays where it is then."""
        if number < 1:
            raise EndOfCapture("this is the beginning of the capture")
        first = self._paths[0].number
        if first <= number <= self._paths[-1].number:
            self._index = number - first
        elif number > self._paths[-1].number:
            self._run_to(number)
        else:
            self._rerun(number)
        self._at = 0

    def _run_to(self, number: int) -> None:
        """Run on to a packet; only the last ones on the way there are recorded."""
        last = self._paths[-1].number if self._paths else 0
        if number - last > KEPT_PACKETS:
            self._skip(number - KEPT_PACKETS)
        while not self._paths or self._paths[-1].number < number:
            self._keep(self._next_record())
        self._index = len(self._paths) - 1

    def _skip(self, number: int) -> None:
        """Run unwatched up to packet ``number``; what was recorded before is forgotten once something new is recorded."""
        record = None
        done = self._paths[-1].number if self._paths else 0
        while done < number:
            record = self._next_record()
            done = record.number
            if done < number:
                self.session.run(record)
        if record is not None:
            self._paths.clear()
            self._keep(record)

    def _next_record(self) -> Record:
        try:
            record = next(self._records, None)
        except CaptureError as e:
            raise EndOfCapture(f"the capture can be read no further: {e}") from None
        if record is None:
            raise EndOfCapture("this is the end of the capture")
        return record

    def _keep(self, record: Record) -> None:
        self._paths.append(self.session.record(record, max_steps=KEPT_STEPS))
        while len(self._paths) > 1 and (
            len(self._paths) > KEPT_PACKETS or sum(len(p.steps) for p in self._paths) > KEPT_STEPS
        ):
            self._paths.popleft()
            self._index -= 1

    def _rerun(self, number: int) -> None:
        """From the beginning to a packet that is no longer kept."""
        if not self._can_reread:
            raise EndOfCapture(f"packet {number} is no longer kept, and this capture can be read once only")
        self.session.__exit__(None, None, None)
        self.session, self._records = self._new_session(), self._new_records()
        self._paths.clear()
        self._run_to(number)

    def close(self) -> None:
        """Let the program go."""
        self.session.__exit__(None, None, None)

    # --- breakpoints --------------------------------------------------------------------------------------------------------
    def add_breakpoint(self, text: str) -> Breakpoint:
        """``7``, ``PROGRAM:7``: an instruction; ``line 12``, ``flows.c:12``: a source line; ``map NAME [KEY]``: a map's change.

        Raises UsageError.
        """
        self._made += 1
        made = parse_breakpoint(text, self._made)
        if made.kind == "map" and made.map not in self.maps():
            raise UsageError(f"no map is called {made.map!r}: {', '.join(self.maps()) or 'the program has none'}")
        self.breakpoints.append(made)
        return made

    def delete_breakpoint(self, number: int) -> None:
        """Raises UsageError."""
        if not any(b.number == number for b in self.breakpoints):
            raise UsageError(f"there is no breakpoint {number}")
        self.breakpoints = [b for b in self.breakpoints if b.number != number]

    def toggle_here(self) -> None:
        """A breakpoint at the current instruction, or none there."""
        step = self.step_here
        if step is None:
            return
        here = [b for b in self.breakpoints if b.kind == "insn" and b.pc == step.pc and b.program in ("", self.listing.name)]
        if here:
            self.breakpoints = [b for b in self.breakpoints if b not in here]
        else:
            self._made += 1
            self.breakpoints.append(Breakpoint(self._made, "insn", pc=step.pc, program=self.listing.name))

    def hit(self) -> Breakpoint | None:
        """The breakpoint one stands at."""
        return next((b for b in self.breakpoints if b.stops(self.path, self._at)), None)

    def go_on(self) -> Breakpoint | None:
        """To the next breakpoint, through as many packets as it takes; without any, to the end of this packet. None where there
        was none up to the end of the capture, or of the packet."""
        return self._go(self.step, len(self.path.steps))

    def go_back(self) -> Breakpoint | None:
        """As ``go_on``, backwards."""
        return self._go(self.back, 0)

    def _go(self, move: Callable[[], None], end: int) -> Breakpoint | None:
        if not self.breakpoints:
            self._at = end
            return None
        try:
            while True:
                move()
                found = self.hit()
                if found is not None:
                    return found
        except EndOfCapture:
            return None


def parse_breakpoint(text: str, number: int) -> Breakpoint:
    """See ``Debugger.add_breakpoint``."""
    words = text.split()
    try:
        if len(words) in (2, 3) and words[0] == "map":
            return Breakpoint(number, "map", map=words[1], key=words[2] if len(words) == 3 else "")
        if len(words) == 2 and words[0] == "line":
            file, _, line = words[1].rpartition(":")
            return Breakpoint(number, "line", line=int(line), file=file)
        if len(words) == 1:
            name, colon, last = words[0].rpartition(":")
            if colon and "." in name:
                return Breakpoint(number, "line", line=int(last), file=name)
            return Breakpoint(number, "insn", pc=int(last), program=name)
    except ValueError:
        pass
    raise UsageError(f"break {text}: an instruction (7, PROGRAM:7), a line (line 12, flows.c:12), or map NAME [KEY]")
