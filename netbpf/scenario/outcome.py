"""What came of a run: plain facts, the same from every backend. Knows bytes and names; no expectation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from netbpf.errors import ProgramRejected
from netbpf.packet.record import Record
from netbpf.program import ProgramSpec
from netbpf.scenario.codec import MapCodec

Contents = Mapping[str, tuple[tuple[bytes, bytes], ...]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``seen``: a socket could see the packet at all; ``length`` was its skb->len, ``kept`` what the verdict left of it."""

    seen: bool
    length: int
    kept: int

    @property
    def word(self) -> str | int:
        """As a scenario says it: "unseen", "drop", "accept", or the bytes that are left of a trimmed packet."""
        if not self.seen:
            return "unseen"
        if not self.kept:
            return "drop"
        return "accept" if self.kept >= self.length else self.kept

    def __str__(self) -> str:
        if isinstance(self.word, int):
            return f"{self.kept} of {self.length} bytes kept"
        return f"accept ({self.kept} bytes)" if self.word == "accept" else str(self.word)


@dataclass(frozen=True, slots=True)
class Events:
    """Records that rings gave, by map, a loss as ``lost N``, and lines of trace output."""

    ring: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    perf: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    trace: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One step: its packets and their verdicts; ``maps`` after it, where they were asked for; its own events."""

    packets: tuple[tuple[Record, Verdict], ...]
    maps: Contents
    events: Events


@dataclass(frozen=True, slots=True)
class Rejection:
    """The load failed: ``errno`` and the verifier's log (empty where there is none)."""

    errno: int
    log: str

    @property
    def reason(self) -> str:
        """The log's last line that says why."""
        return ProgramRejected(self.errno, self.log).reason


@dataclass(frozen=True, slots=True)
class Outcome:
    """A whole run on ``backend`` ("sim" or "kernel") and, of the simulator, ``engine``. ``processed`` is the number of
    instructions that the verifier processed, -1 where nobody tells."""

    backend: str
    engine: str
    spec: ProgramSpec | None
    rejection: Rejection | None = None
    processed: int = -1
    steps: tuple[StepOutcome, ...] = ()
    maps: Contents = field(default_factory=dict)
    events: Events = field(default_factory=Events)
    codecs: Mapping[str, MapCodec] = field(default_factory=dict)
