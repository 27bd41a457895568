"""A capture and a program for those who ask about single packets: every packet before the one asked about has run, so that maps
hold what they held.

Knows sessions of replay, captures, paths. Packets that nobody asks about run unwatched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from netbpf.errors import EngineFault
from netbpf.explain.path import Listings, record_packet
from netbpf.explain.recorder import MAX_STEPS
from netbpf.explain.steps import Path
from netbpf.packet.receive import DEFAULT_DEVICE, receive
from netbpf.packet.record import Record
from netbpf.program import ProgramSpec
from netbpf.replay.session import Session
from netbpf.replay.typed import map_formatters

if TYPE_CHECKING:
    from netbpf.engine.interp.engine import InterpLoaded


class WatchedSession:
    """``spec`` loaded on a host of its own, in the interpreter. ``name`` is what the program is called where it has no name.
    ``view`` is how packets come in (``packet.receive``), the spec's where it is empty. Raises ProgramRejected, BpfError."""

    def __init__(self, spec: ProgramSpec, *, name: str = "", view: str = "", seed: int = 1) -> None:
        self.spec = spec
        self.session = Session(spec, engine="interp", seed=seed)
        loaded: Any = self.session.loaded
        self.loaded: InterpLoaded = loaded
        self.loaded.view = view or self.loaded.view
        self.listings = Listings.of(spec, name)
        self.typed = map_formatters(spec)

    def run(self, record: Record) -> int:
        """Run a packet unwatched; its verdict, 0 for a frame that reaches no socket. A fault counts as 0 too: who asks about
        that packet is told."""
        set_time = getattr(self.loaded.env, "set_time", None)
        if set_time is not None:
            set_time(record.ts_ns)
        skb = receive(record, self.loaded.device or DEFAULT_DEVICE, self.loaded.view)
        try:
            return self.loaded.run_one(skb) & 0xFFFF_FFFF if skb is not None else 0
        except EngineFault:
            return 0

    def record(self, record: Record, *, max_steps: int = MAX_STEPS) -> Path:
        """Run a packet and tell what the program did."""
        return record_packet(self.loaded, record, self.listings, typed=self.typed, max_steps=max_steps)

    def paths(
        self,
        records: Iterator[Record],
        wanted: Collection[int],
        *,
        max_steps: int = MAX_STEPS,
        on_packet: Callable[[int], None] | None = None,
    ) -> Iterator[Path]:
        """The paths of the packets numbered in ``wanted``, in order; reading ends behind the last of them."""
        left = set(wanted)
        for record in records:
            if not left:
                return
            if record.number in left:
                left.discard(record.number)
                yield self.record(record, max_steps=max_steps)
            else:
                self.run(record)
            if on_packet is not None:
                on_packet(record.number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.session.__exit__(kind, value, trace)
