"""The engine seam: hot, takes batches. ``load`` makes a program live, ``run`` moves packets through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from netbpf.errors import NetbpfError

if TYPE_CHECKING:  # a seam is imported by everyone: it must not bring everything along
    from netbpf.engine.results import Totals, Verdicts
    from netbpf.env import Env
    from netbpf.packet.batch import PacketBatch
    from netbpf.packet.capture import Walkable
    from netbpf.packet.layout import RecordLayout
    from netbpf.packet.sink import CaptureWriter
    from netbpf.packet.skbuff import SkBuff
    from netbpf.program import VerifiedProgram


class UnsupportedProgram(NetbpfError):
    """An engine refuses at load time a program that it has no body for: an opcode, a helper, a kind of operand, by name."""

    exit_code = 65


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
