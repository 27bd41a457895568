"""Coverage of unmodified programs as data: instructions, branches both ways, source lines, functions, the verifier's states.

    coverage = Coverage()
    coverage.watch(loaded, spec, path="flows.o")     # before the runs; counts what ``loaded`` does from then on
    coverage.add_to("cov.json")                      # after them; adds up with what the file holds

Counts add up over runs and files: merging is commutative and associative, programs being told by a digest of their instructions.
Files are written whole or not at all. What is shown of it is ``coverage_text``'s, ``lcov``'s and the HTML page's.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from netbpf.errors import NetbpfError
from netbpf.explain.listing import Function, Listing, SourceLine
from netbpf.explain.path import Listings

if TYPE_CHECKING:
    from netbpf.engine.interp.counts import RunCounts
    from netbpf.engine.interp.engine import InterpLoaded
    from netbpf.program import InsnFacts, ProgramSpec

FORMAT: Final = "netbpf-coverage"
VERSION: Final = 1


class CoverageError(NetbpfError):
    """A coverage file that cannot be used, and why."""

    exit_code = 65


class Share(NamedTuple):
    """``hit`` of ``total``."""

    hit: int
    total: int

    @property
    def percent(self) -> float:
        """100.0 where there is nothing to hit."""
        return 100 * self.hit / self.total if self.total else 100.0

    def __str__(self) -> str:
        return f"{self.hit}/{self.total}"


class LineHits(NamedTuple):
    """A source line, how often it ran, the slots that came from it, and of its branches (slot, taken, not taken)."""

    source: SourceLine
    hits: int
    pcs: tuple[int, ...]
    branches: tuple[tuple[int, int, int], ...]


@dataclass(slots=True)
class ProgramCoverage:
    """One program. ``insns`` are (slot, text) rows, ``lines`` (slot, source line) ones where a line begins, ``jumps`` the slots
    of conditional jumps. ``hits`` and ``taken`` count by slot. ``states`` are what the verifier knew there (``explain.states``).
    ``dead`` are slots that the verifier proved no run reaches."""

    digest: str
    name: str
    path: str
    insns: tuple[tuple[int, str], ...]
    functions: tuple[Function, ...]
    lines: tuple[tuple[int, SourceLine], ...] = ()
    jumps: tuple[int, ...] = ()
    dead: tuple[int, ...] = ()
    states: dict[int, tuple[str, ...]] = field(default_factory=dict)
    hits: dict[int, int] = field(default_factory=dict)
    taken: dict[int, int] = field(default_factory=dict)

    # --- what was covered ---------------------------------------------------------------------------------------------
    @property
    def runs(self) -> int:
        """How often the program was entered (where no jump leads back to its first instruction)."""
        return self.hits.get(0, 0)

    def ways(self, pc: int) -> tuple[int, int]:
        """(taken, not taken) of a conditional jump."""
        taken = self.taken.get(pc, 0)
        return taken, self.hits.get(pc, 0) - taken

    @property
    def live(self) -> tuple[int, ...]:
        """Slots of instructions that a run can reach."""
        dead = set(self.dead)
        return tuple(pc for pc, _ in self.insns if pc not in dead)

    @property
    def instructions(self) -> Share:
        live = self.live
        return Share(sum(self.hits.get(pc, 0) > 0 for pc in live), len(live))

    @property
    def branches(self) -> Share:
        """Each conditional jump counts two ways."""
        dead = set(self.dead)
        ways = [way > 0 for pc in self.jumps if pc not in dead for way in self.ways(pc)]
        return Share(sum(ways), len(ways))

    @property
    def source_lines(self) -> Share:
        rows = self.line_hits()
        return Share(sum(row.hits > 0 for row in rows), len(rows))

    @property
    def function_share(self) -> Share:
        return Share(sum(self.hits.get(f.start, 0) > 0 for f in self.functions), len(self.functions))

    def function_hits(self) -> tuple[tuple[Function, int], ...]:
        return tuple((f, self.hits.get(f.start, 0)) for f in self.functions)

    def line_hits(self) -> list[LineHits]:
        """Source lines with a number, by file and line. A line ran as often as the instruction of it that ran most."""
        pcs: dict[tuple[str, int], list[int]] = {}
        texts: dict[tuple[str, int], SourceLine] = {}
        for pc, source in self._lines_of_insns():
            if source.line:
                pcs.setdefault((source.file, source.line), []).append(pc)
                texts.setdefault((source.file, source.line), source)
        dead, jumps = set(self.dead), set(self.jumps)
        found = []
        for key in sorted(pcs):
            mine = [pc for pc in pcs[key] if pc not in dead]
            if mine:
                branches = tuple((pc, *self.ways(pc)) for pc in mine if pc in jumps)
                found.append(LineHits(texts[key], max(self.hits.get(pc, 0) for pc in mine), tuple(mine), branches))
        return found

    def _lines_of_insns(self) -> Iterator[tuple[int, SourceLine]]:
        rows, at, now = self.lines, 0, None
        for pc, _ in self.insns:
            while at < len(rows) and rows[at][0] <= pc:
                now, at = rows[at][1], at + 1
            if now is not None:
                yield pc, now

    # --- sums -----------------------------------------------------------------------------------------------------------
    def add(self, other: ProgramCoverage) -> None:
        """Add the counts of the same program; of what differs in words, the lesser is kept, whatever the order of adding."""
        for mine, theirs in ((self.hits, other.hits), (self.taken, other.taken)):
            for pc, count in theirs.items():
                mine[pc] = mine.get(pc, 0) + count
        mine_told, their_told = self._words(), other._words()
        if their_told < mine_told:
            for name in ("name", "path", "insns", "functions", "lines"):
                setattr(self, name, getattr(other, name))
        self.dead = tuple(sorted(set(self.dead) & set(other.dead)))
        self.states = min(self.states, other.states, key=lambda s: (not s, json.dumps(sorted(s.items()))))

    def _words(self) -> tuple[Any, ...]:
        return not self.lines, self.path, self.name, self.insns, self.functions, self.lines

    # --- JSON -----------------------------------------------------------------------------------------------------------
    def as_json(self) -> dict[str, Any]:
        """See docs/answers.md."""
        return {
            "name": self.name,
            "path": self.path,
            "instructions": [list(row) for row in self.insns],
            "functions": [list(f) for f in self.functions],
            "lines": [[pc, s.file, s.line, s.column, s.text] for pc, s in self.lines],
            "jumps": list(self.jumps),
            "dead": list(self.dead),
            "states": {str(pc): list(texts) for pc, texts in sorted(self.states.items())},
            "hits": {str(pc): n for pc, n in sorted(self.hits.items()) if n},
            "taken": {str(pc): n for pc, n in sorted(self.taken.items()) if n},
        }

    @classmethod
    def from_json(cls, digest: str, told: Mapping[str, Any]) -> ProgramCoverage:
        """Raises KeyError, TypeError or ValueError for what ``as_json`` did not make."""
        return cls(
            digest,
            str(told["name"]),
            str(told["path"]),
            tuple((int(pc), str(text)) for pc, text in told["instructions"]),
            tuple(Function(str(name), int(start), int(end)) for name, start, end in told["functions"]),
            tuple((int(pc), SourceLine(str(f), int(line), str(text), int(col))) for pc, f, line, col, text in told["lines"]),
            tuple(int(pc) for pc in told["jumps"]),
            tuple(int(pc) for pc in told["dead"]),
            {int(pc): tuple(map(str, texts)) for pc, texts in told["states"].items()},
            _counts(told["hits"]),
            _counts(told["taken"]),
        )


def _counts(told: Mapping[str, int]) -> dict[int, int]:
    counts = {int(pc): int(n) for pc, n in told.items()}
    if any(n < 0 for n in counts.values()):
        raise ValueError("a count below zero")
    return counts


class Coverage:
    """Programs by digest; what is watched is counted in when it is asked for."""

    def __init__(self, programs: Iterable[ProgramCoverage] = ()) -> None:
        self._programs = {p.digest: p for p in programs}
        self._watched: list[_Watched] = []

    # --- watching -------------------------------------------------------------------------------------------------------
    def watch(self, loaded: InterpLoaded, spec: ProgramSpec | None = None, *, path: str = "", states: bool = True) -> None:
        """Count what ``loaded`` does from now on, in this program and those that its tail calls reach.

        ``spec`` is where it came from, for names and source lines; ``path`` the file that was. ``states``: ask the verifier for
        its states too, which proves the program once more. Watching the same ``loaded`` again changes nothing.
        """
        if any(w.loaded is loaded for w in self._watched):
            return
        from netbpf.engine.interp.counts import RunCounts

        self._watched.append(_Watched(loaded, RunCounts(loaded.machine), spec, path, states))

    def settle(self) -> None:
        """Count in what was watched so far and let go of it: its programs run on uncounted here."""
        for watched in self._watched:
            self.merge(watched.programs())
        self._watched.clear()

    @property
    def programs(self) -> tuple[ProgramCoverage, ...]:
        """Every program with all that was counted, by name."""
        return tuple(sorted(self.collect()._programs.values(), key=lambda p: (p.path, p.name, p.digest)))

    def collect(self) -> Coverage:
        """All of it as data that watches nothing."""
        total = Coverage()
        total.merge(self._programs.values())
        for watched in self._watched:
            total.merge(watched.programs())
        return total

    def merge(self, programs: Iterable[ProgramCoverage]) -> None:
        """Add the counts of other programs; theirs are not changed."""
        for program in programs:
            mine = self._programs.get(program.digest)
            if mine is None:
                mine = self._programs[program.digest] = ProgramCoverage.from_json(program.digest, program.as_json())
            else:
                mine.add(program)

    # --- files ----------------------------------------------------------------------------------------------------------
    def as_json(self) -> dict[str, Any]:
        found = self.collect()._programs
        return {"format": FORMAT, "version": VERSION, "programs": {d: found[d].as_json() for d in sorted(found)}}

    @classmethod
    def from_json(cls, told: Any, path: str = "<coverage>") -> Coverage:
        """Raises CoverageError."""
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise CoverageError(f"{path}: no coverage file of netbpf (its \"format\" is not {FORMAT!r})")
        if told.get("version") != VERSION:
            raise CoverageError(f"{path}: version {told.get('version')!r} of the format; this netbpf reads version {VERSION}")
        try:
            return cls(ProgramCoverage.from_json(digest, row) for digest, row in told["programs"].items())
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise CoverageError(f"{path}: damaged: {type(e).__name__} {e}") from None

    @classmethod
    def load(cls, path: str) -> Coverage:
        """Raises CoverageError, OSError."""
        with open(path, encoding="utf-8") as f:
            try:
                told = json.load(f)
            except (ValueError, RecursionError) as e:
                raise CoverageError(f"{path}: no JSON: {e}") from None
        return cls.from_json(told, path)

    def save(self, path: str) -> None:
        """Write all of it, in place of what is there: whole, or not at all. Raises OSError."""
        folder = os.path.dirname(os.path.abspath(path))
        handle, scratch = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as f:
                json.dump(self.as_json(), f, separators=(",", ":"))
                f.write("\n")
            os.chmod(scratch, 0o644)
            os.replace(scratch, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(scratch)
            raise

    def add_to(self, path: str) -> Coverage:
        """Add to what the file holds, which others may do at the same time; what it holds then. Raises CoverageError, OSError."""
        with _locked(path):
            total = Coverage.load(path) if os.path.exists(path) else Coverage()
            total.merge(self.collect()._programs.values())
            total.save(path)
        return total


def _facts_of_classic(spec: ProgramSpec) -> tuple[InsnFacts, ...]:
    """What the verifier finds in a translated filter: engines run it on less."""
    from netbpf.verifier.classic import verify_classic

    program = verify_classic(spec).program
    return () if program is None else program.facts


class _Watched:
    """A loaded program that is watched."""

    def __init__(self, loaded: InterpLoaded, counts: RunCounts, spec: ProgramSpec | None, path: str, states: bool) -> None:
        self.loaded, self._counts, self._path = loaded, counts, path
        self._listings = Listings.of(spec, path)
        self._spec = spec if states else None
        self._classic = spec if spec is not None and spec.classic else None

    def programs(self) -> Iterator[ProgramCoverage]:
        """All that was counted so far."""
        for counted in self._counts.counts():
            program = counted.program
            described = describe(self._listings(program), self._path)
            facts = program.facts if self._classic is None else _facts_of_classic(self._classic)
            described.dead = tuple(pc for pc, _ in described.insns if facts and not facts[pc].seen)
            described.states = self._states.get(program.name, {})
            described.hits, described.taken = counted.hits, counted.taken
            yield described

    @cached_property
    def _states(self) -> dict[str, dict[int, tuple[str, ...]]]:
        """By the name a program is loaded under."""
        if self._spec is None:
            return {}
        from netbpf.explain.states import verifier_states

        return {name[:15]: found for name, found in verifier_states(self._spec).items()}


def describe(listing: Listing, path: str = "") -> ProgramCoverage:
    """A program nothing of which has run."""
    insns = tuple((pc, listing.text(pc)) for pc in listing.starts)
    jumps = tuple(pc for pc in listing.starts if listing.is_conditional(pc))
    return ProgramCoverage(listing.digest, listing.name, path, insns, listing.functions, listing.lines, jumps)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Alone with ``path`` among those who add to it, where the system has such locks (all but Windows)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    lock = os.path.join(tempfile.gettempdir(), f"netbpf-{os.getuid()}-{_name_hash(os.path.abspath(path))}.lock")
    with open(lock, "a", encoding="utf-8") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _name_hash(path: str) -> str:
    import hashlib

    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
