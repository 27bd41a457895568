"""What a run did with one packet, as data: steps with their loads, tests, branches, calls, changes of maps, and the verdict.

Frozen values only; ``recorder`` makes them, ``text`` prints them, ``as_json`` is what ``netbpf why --json`` documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from netbpf.explain.fields import Dissection
from netbpf.explain.listing import Listing
from netbpf.explain.origin import Origin
from netbpf.packet.skbuff import SkBuff


class Test(NamedTuple):
    """A loaded value compared: ``of`` is it (the field, or what became of it), ``shown`` its value there, ``sign`` and ``wanted``
    the comparison of the instruction, ``holds`` whether it was true."""

    of: str
    shown: str
    sign: str
    wanted: str
    holds: bool


class Constraint(NamedTuple):
    """The same for who solves: in step ``step`` the jump at ``pc`` (of the machine) compared ``origin``, in ``register``, with
    ``other``."""

    origin: Origin
    step: int
    pc: int
    register: int
    other: int
    taken: bool


@dataclass(frozen=True, slots=True)
class Load:
    """``what`` is loaded: a field of the packet (``at`` is how the program reaches it: ``23``, ``net+9``), of the context
    (``skb->len``), or a place in memory. ``off`` counts bytes of the sk_buff's head, -1 but for packets. ``value`` None:
    outside the packet."""

    kind: str
    what: str
    at: str
    off: int
    size: int
    value: int | None
    shown: str
    tests: tuple[Test, ...] = ()

    def as_json(self) -> dict[str, Any]:
        told = {"kind": self.kind, "what": self.what, "size": self.size, "value": self.value, "shown": self.shown}
        if self.kind == "packet":
            told |= {"at": self.at, "offset": self.off}
        return told | {"tests": [t._asdict() for t in self.tests]}


@dataclass(frozen=True, slots=True)
class Branch:
    """``left`` and ``right`` are the operands' values; ``of`` names the field that ``left`` came from, "" for none."""

    taken: bool
    target: int
    left: str
    right: str
    sign: str
    of: str = ""

    def as_json(self) -> dict[str, Any]:
        names = ("taken", "target", "left", "right", "sign", "of")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Call:
    """``kind`` "helper", "function" or "tail_call"; ``args`` are (name, value) pairs; ``result`` is "" where there is none."""

    kind: str
    name: str
    args: tuple[tuple[str, str], ...] = ()
    result: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "args": dict(self.args), "result": self.result}


@dataclass(frozen=True, slots=True)
class Change:
    """A map that a step changed. ``before``, ``after``: the entry's value in words, None where there was or is none;
    ``difference``: how they differ. The ``raw_`` bytes are what a debugger undoes. A kind without keys has ``key`` None, and
    ``after`` says what was written."""

    map: str
    key: str | None
    before: str | None
    after: str | None
    raw_key: bytes | None = None
    raw_before: bytes | None = None
    raw_after: bytes | None = None
    difference: str = ""

    @property
    def text(self) -> str:
        """``counts[17]: 197 -> 198``."""
        if self.key is None:
            return f"{self.map}: {self.after}"
        there = f"{self.map}[{self.key}]"
        if self.before is None:
            return f"{there} = {self.after} (new)"
        return f"{there} deleted, was {self.before}" if self.after is None else f"{there}{self.difference}"

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"map": self.map, "key": self.key, "before": self.before, "after": self.after}
        raw = {"key_hex": self.raw_key, "before_hex": self.raw_before, "after_hex": self.raw_after}
        return told | {name: data.hex() if data is not None else None for name, data in raw.items()}


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: ``program`` is an index into ``Path.listings``, ``regs`` R0 to R10 before it, ``changed`` what it left in
    registers in words. ``depth`` counts frames from 0; ``stack`` is that frame's before it."""

    index: int
    program: int
    pc: int
    depth: int
    regs: tuple[int, ...]
    changed: tuple[tuple[int, str], ...] = ()
    load: Load | None = None
    store: str = ""
    branch: Branch | None = None
    call: Call | None = None
    changes: tuple[Change, ...] = ()
    stack: bytes = b""

    def as_json(self, listing: Listing) -> dict[str, Any]:
        source = listing.source(self.pc)
        told: dict[str, Any] = {
            "step": self.index,
            "program": listing.name,
            "pc": self.pc,
            "depth": self.depth,
            "instruction": listing.text(self.pc),
            "source": source.as_json() if source is not None else None,
            "registers": {f"r{reg}": text for reg, text in self.changed},
        }
        if self.load is not None:
            told["load"] = self.load.as_json()
        if self.store:
            told["store"] = self.store
        if self.branch is not None:
            told["branch"] = self.branch.as_json()
        if self.call is not None:
            told["call"] = self.call.as_json()
        if self.changes:
            told["changes"] = [change.as_json() for change in self.changes]
        return told


@dataclass(frozen=True, slots=True)
class Path:
    """One run. ``r0`` is the whole register, ``verdict`` its low half; both -1 after a ``fault``. ``skb`` None: the
    frame reached no socket, and nothing ran. ``total`` steps were made; ``steps`` lacks those in the middle where there were too
    many. ``trace`` is what the program printed."""

    number: int
    ts_ns: int
    dissection: Dissection
    skb: SkBuff | None
    listings: tuple[Listing, ...]
    steps: tuple[Step, ...]
    total: int
    r0: int
    fault: str = ""
    trace: tuple[str, ...] = ()

    @property
    def verdict(self) -> int:
        return self.r0 & 0xFFFF_FFFF if self.r0 >= 0 else -1

    @property
    def kept(self) -> int:
        """Bytes that reach the socket."""
        return min(self.verdict, self.skb.len) if self.skb is not None and self.verdict > 0 else 0

    @property
    def outcome(self) -> str:
        """The verdict in words."""
        if self.fault:
            return f"fault: {self.fault}"
        if self.skb is None:
            return "no socket sees this frame: the kernel drops it before"
        if not self.verdict:
            return "verdict 0: dropped"
        if self.verdict >= self.skb.len:
            return f"verdict {self.verdict}: accepted, all {self.skb.len} bytes"
        return f"verdict {self.verdict}: accepted, trimmed to {self.verdict} of {self.skb.len} bytes"

    def as_json(self) -> dict[str, Any]:
        """See docs/answers.md."""
        return {
            "packet": self.number,
            "ts_ns": self.ts_ns,
            "summary": self.dissection.summary(),
            "caplen": len(self.skb.head) if self.skb is not None else 0,
            "len": self.skb.len if self.skb is not None else 0,
            "verdict": self.verdict,
            "kept": self.kept,
            "outcome": self.outcome,
            "fault": self.fault,
            "total_steps": self.total,
            "steps": [step.as_json(self.listings[step.program]) for step in self.steps],
            "trace": list(self.trace),
        }
