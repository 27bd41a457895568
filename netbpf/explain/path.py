"""One packet through a program in the interpreter, recorded: the ``Path`` that ``netbpf why``, failures of tests and the debugger
show. Knows engines and packets; where packets come from is ``explain.session``'s."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from netbpf.errors import EngineFault
from netbpf.explain.fields import Dissection, dissect
from netbpf.explain.listing import Listing, listing_of
from netbpf.explain.places import Places
from netbpf.explain.recorder import MAX_STEPS, Recorder
from netbpf.explain.steps import Path
from netbpf.packet.device import DEFAULT_DEVICE
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff
from netbpf.program import ProgramSpec, VerifiedProgram

if TYPE_CHECKING:
    from netbpf.engine.interp.engine import InterpLoaded
    from netbpf.maps.dump import Formatter

NO_PACKET = Dissection((), (), b"", 0)


class Listings:
    """Listings of the programs a run may come to: those of ``specs`` by the name they were loaded under, others bare."""

    def __init__(self, specs: Mapping[str, ProgramSpec], name: str = "") -> None:
        self._specs, self._name = specs, name
        self._known: dict[int, Listing] = {}

    @classmethod
    def of(cls, spec: ProgramSpec | None, name: str = "") -> Listings:
        """Those of a spec and of the programs that its maps hold."""
        if spec is None:
            return cls({}, name)
        return cls({other.name[:15]: other for other in (*spec.others, spec)}, name)

    def __call__(self, program: VerifiedProgram) -> Listing:
        known = self._known.get(id(program))
        if known is None:
            spec = self._specs.get(program.name) or ProgramSpec(program.insns, name=program.name)
            known = self._known[id(program)] = listing_of(spec, self._name, program)
        return known


def record_path(
    loaded: InterpLoaded,
    skb: SkBuff | None,
    listing_for: Callable[[VerifiedProgram], Listing],
    *,
    number: int = 1,
    ts_ns: int = 0,
    linktype: int = 1,
    typed: Mapping[str, tuple[Formatter, Formatter]] | None = None,
    max_steps: int = MAX_STEPS,
) -> Path:
    """Run the program once on ``skb`` and record what it did; a fault ends the path and is told in it.

    ``listing_for`` gives the listings of programs (``Listings``); ``typed`` are formatters by map (``replay.typed``). A hook that
    watches ``loaded`` is replaced.
    """
    if skb is None:
        return Path(number, ts_ns, NO_PACKET, None, (listing_for(loaded.program),), (), 0, 0)
    dissection = dissect(skb, linktype)
    recorder = Recorder(loaded, Places(loaded.machine, typed), dissection, listing_for, max_steps=max_steps)
    fault, r0, printed = "", -1, len(loaded.trace)
    loaded.watch(recorder)
    try:
        r0 = loaded.run_one(skb)
    except EngineFault as e:
        fault = str(e)
    finally:
        loaded.watch(None)
    steps = recorder.finish(loaded.machine.regs)
    listings = tuple(recorder.listings) or (listing_for(loaded.program),)
    trace = tuple(line.text for line in list(loaded.trace)[printed:])
    return Path(number, ts_ns, dissection, skb, listings, steps, recorder.total, r0, fault, trace)


def record_packet(
    loaded: InterpLoaded,
    record: Record,
    listing_for: Callable[[VerifiedProgram], Listing],
    *,
    typed: Mapping[str, tuple[Formatter, Formatter]] | None = None,
    max_steps: int = MAX_STEPS,
) -> Path:
    """As ``record_path``, of a captured packet as ``loaded.view`` sees it; a clock that can be set follows its timestamp."""
    set_time = getattr(loaded.env, "set_time", None)
    if set_time is not None:
        set_time(record.ts_ns)
    skb = receive(record, loaded.device or DEFAULT_DEVICE, loaded.view)
    return record_path(
        loaded, skb, listing_for,
        number=record.number, ts_ns=record.ts_ns, linktype=record.linktype, typed=typed, max_steps=max_steps,
    )  # fmt: skip
