"""The engine seam: hot, takes batches. ``load`` makes a program live, ``run`` moves packets through it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from netbpf.errors import NetbpfError

if TYPE_CHECKING:  # a seam is imported by everyone: it must not bring everything along
    from netbpf.env import Env
    from netbpf.packet.batch import PacketBatch
    from netbpf.packet.capture import RecordLayout, Walkable
    from netbpf.packet.sink import CaptureWriter
    from netbpf.packet.skbuff import SkBuff
    from netbpf.program import VerifiedProgram


class UnsupportedProgram(NetbpfError):
    """An engine refuses at load time a program that it has no body for: an opcode, a helper, a kind of operand, by name."""

    exit_code = 65


@dataclass(slots=True)
class Verdicts:
    """``verdict[i]``: r0 as u32 of packet *i* (0 drops, n keeps n bytes); ``kept[i]``: bytes that reach the socket,
    min(verdict, skb->len); ``trimmed[i]``: 1 where an accepted packet lost bytes to its verdict."""

    verdict: array[int] = field(default_factory=lambda: array("I"))
    kept: array[int] = field(default_factory=lambda: array("I"))
    trimmed: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Totals:
    """What became of a stream. ``bytes`` are those on the wire; ``trimmed`` are accepted packets that lost bytes to the
    verdict; ``last_ns`` is the latest timestamp."""

    packets: int = 0
    bytes: int = 0
    accepted: int = 0
    dropped: int = 0
    trimmed: int = 0
    last_ns: int = 0

    def add(self, batch: PacketBatch, verdicts: Verdicts) -> None:
        """Count a batch and what became of it."""
        n, dropped = len(batch), verdicts.verdict.count(0)
        self.packets += n
        self.bytes += sum(batch.wirelen)
        self.dropped += dropped
        self.accepted += n - dropped
        self.trimmed += sum(verdicts.trimmed)
        self.last_ns = max(self.last_ns, max(batch.ts_ns, default=0))


class Loaded(Protocol):
    """A program made live by an engine."""

    program: VerifiedProgram

    def run(self, batch: PacketBatch) -> Verdicts:
        """Run every packet of the batch in order. Raises EngineFault."""

    def run_one(self, skb: SkBuff) -> int:
        """Run once; the full 64-bit r0. Raises EngineFault."""


@runtime_checkable
class WindowWalker(Protocol):
    """A loaded program that walks raw windows of a capture by itself, without Python per packet."""

    def can_walk(self, layout: RecordLayout) -> bool:
        """Whether ``walk`` takes windows of this layout."""

    def walk(
        self, window: Walkable, totals: Totals, *, stop_ns: int, max_packets: int, output: CaptureWriter | None = None
    ) -> int | None:
        """Run records from the window's start on, until its end, ``max_packets``, a record it may not walk, or one of time
        ``stop_ns`` or later, whose time is returned then (None otherwise). Adds to ``totals`` and advances the window.
        Accepted packets go to ``output``, which takes raw records of the window's link types. Raises EngineFault."""


class Engine(Protocol):
    """``name`` is what --engine calls it."""

    name: str

    def load(self, program: VerifiedProgram, env: Env, *, view: str = "packet_raw") -> Loaded:
        """Prepare ``program`` to run with the clocks and random numbers of ``env``; ``view`` is who looks at the packets of a
        batch, see ``packet.receive``."""
