"""A capture and a program for those who ask about single packets: every packet before the one asked about has run, so that maps
hold what they held.

Knows sessions of replay, captures, paths. Packets that nobody asks about run unwatched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from netbpf.engine.base import Loaded, UnsupportedProgram
from netbpf.engine.choose import get_engine, native_obstacle
from netbpf.errors import EngineFault
from netbpf.explain.path import Listings, record_packet
from netbpf.explain.recorder import MAX_STEPS
from netbpf.explain.steps import Path
from netbpf.packet.capture import CaptureReader
from netbpf.packet.device import DEFAULT_DEVICE
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.program import ProgramSpec
from netbpf.replay.session import Session
from netbpf.replay.typed import map_formatters

if TYPE_CHECKING:
    from netbpf.engine.interp.engine import InterpLoaded

MANY_PACKETS: Final = 20_000  # to skip; from here on compiling is sooner done than interpreting
BATCH_PACKETS: Final = 4096


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
        self._native: Loaded | None = None

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
        records: CaptureReader | Iterator[Record],
        wanted: Collection[int],
        *,
        max_steps: int = MAX_STEPS,
        on_packet: Callable[[int], None] | None = None,
    ) -> Iterator[Path]:
        """The paths of the packets numbered in ``wanted``, in order; reading ends behind the last of them.

        Of a CaptureReader the packets between run in batches, natively where they are many. Raises CaptureError behind the last
        packet before a damage.
        """
        if isinstance(records, CaptureReader):
            for number in sorted(set(wanted)):
                self.skip(records, number, on_packet)
                record = next(iter(records), None)
                if record is None:
                    return
                yield self.record(record, max_steps=max_steps)
            return
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

    def skip(self, reader: CaptureReader, number: int, on_packet: Callable[[int], None] | None = None) -> None:
        """Run the packets of a capture up to the one before ``number``, unwatched. Raises CaptureError."""
        while (gap := number - 1 - reader.packets) > 0:
            loaded = self._for(gap)
            batch = next(reader.batches(min(gap, BATCH_PACKETS)), None)
            if batch is None:
                return
            loaded.run(batch)
            if on_packet is not None:
                on_packet(reader.packets)

    def _for(self, packets: int) -> Loaded:
        """What runs so many packets soonest: the native engine has to compile first. Both work on the same maps, clock and random
        numbers."""
        if self._native is None and packets >= MANY_PACKETS and not native_obstacle():
            engine = get_engine("native")
            try:
                self._native = engine.load(self.session.program, self.session.env, view=self.loaded.view)
            except UnsupportedProgram:
                self._native = self.loaded
        return self._native or self.loaded

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.session.__exit__(kind, value, trace)
