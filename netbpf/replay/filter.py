"""A filter for packets in memory: ``Filter("tcp port 443").match(packet)``.

Knows packets in the forms Python programs have them (bytes, scapy's, records of a capture); every one becomes a Record, and
what a program sees of it is ``packet.receive``'s. Single packets run on the interpreter, which starts at once; many of them on
the native engine where it is at hand. Both share the program's maps.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from netbpf.engine.base import Loaded
from netbpf.engine.choose import get_engine, native_obstacle
from netbpf.errors import UsageError
from netbpf.packet.batch import PacketBatch
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff
from netbpf.program import FILE_VIEW, VIEWS, ProgramSpec

if TYPE_CHECKING:
    from netbpf.maps.storage import MapBase
    from netbpf.packet.capture import CaptureReader

BATCH_PACKETS: Final = 4096


class Filter:
    """A program that is asked about packets. ``program`` is anything ``netbpf.load`` takes; most often a tcpdump expression.

    ``linktype`` (a LINKTYPE_* number) is that of packets which do not tell their own: bytes. ``view`` is who looks at them:
    "file", as tcpdump reads a capture (an expression's default), or "socket", as a packet socket has them. ``options`` are
    ``netbpf.load``'s: optimize, program, kconfig, btf. ``maps`` are the program's, by name. Not for several threads at once.

    Raises what ``netbpf.load`` raises, ProgramRejected and BpfError.
    """

    def __init__(
        self,
        program: str | os.PathLike[str] | bytes | ProgramSpec,
        *,
        linktype: int = 1,
        view: str = "",
        **options: Any,
    ) -> None:
        self.linktype = linktype
        self.maps: dict[str, MapBase] = {}
        self._one: Loaded
        self._many: Loaded | None = None
        self._make_many: Callable[[], Loaded]
        if isinstance(program, str) and not _is_program(program):
            self._of_expression(program, view or FILE_VIEW, **options)
        else:
            self._of_program(program, view, **options)

    def _of_expression(self, text: str, view: str, *, optimize: bool = True) -> None:
        from netbpf.env import SteppedEnv
        from netbpf.replay.filtered import Expression, FilteredStream

        if view not in VIEWS:
            raise UsageError(f"a view is one of {', '.join(VIEWS)}, not {view!r}")
        self.view, self.env, expression = view, SteppedEnv(1), Expression(text, view, optimize)
        self._one = FilteredStream(expression, get_engine("interp"), self.env, self.linktype)
        self._make_many = lambda: FilteredStream(expression, get_engine("native"), self.env, self.linktype)

    def _of_program(self, program: Any, view: str, **options: Any) -> None:
        from netbpf.replay.session import Session
        from netbpf.sources.load import load

        spec = load(program, view=view, **options)
        session = self._session = Session(spec, engine="interp")
        self.view, self.env, self.maps, self._one = spec.view, session.env, session.maps, session.loaded
        self._make_many = lambda: get_engine("native").load(session.program, session.env, view=VIEWS[spec.view])

    # --- one packet -------------------------------------------------------------------------------------------------------

    def match(self, packet: Any) -> bool:
        """Whether the program keeps the packet: bytes, a scapy packet, or a Record of a capture.

        A frame that would reach no socket is not kept. Raises UsageError for what is no packet, EngineFault.
        """
        return self.verdict(packet) != 0

    def verdict(self, packet: Any) -> int:
        """The program's u32 answer about a packet: 0 drops it, n keeps n bytes."""
        record = as_record(packet, self.linktype)
        skb = receive(record, view=VIEWS[self.view])
        if skb is None:
            return 0
        self.env.set_time(record.ts_ns)
        return self._loaded_for(record.linktype).run_one(skb) & 0xFFFF_FFFF

    def _loaded_for(self, linktype: int) -> Loaded:
        from netbpf.replay.filtered import FilteredStream

        return self._one.of_linktype(linktype) if isinstance(self._one, FilteredStream) else self._one

    # --- many -------------------------------------------------------------------------------------------------------------

    def matches(self, capture: str | os.PathLike[str] | BinaryIO | CaptureReader | Iterable[Any]) -> memoryview[bool]:
        """A boolean for each packet of a capture (a path, a binary file, an open reader), or of any number of packets.

        What comes back is a memoryview of format "?": it is indexed, counted and iterated as a list of booleans, and
        ``numpy.asarray`` makes it an array of them without a copy. Raises CaptureError where the capture is damaged.
        """
        out = bytearray()
        for batch in self._batches(capture):
            verdicts = self._stream().run(batch).verdict
            out += bytes(1 if v else 0 for v in verdicts)
        return memoryview(out).cast("?")

    def _stream(self) -> Loaded:
        if self._many is None:
            self._many = self._one if native_obstacle() else self._make_many()
        return self._many

    def _batches(self, capture: Any) -> Iterator[PacketBatch]:
        from netbpf.packet.capture import CaptureReader

        if isinstance(capture, CaptureReader):
            yield from capture.batches()
        elif isinstance(capture, str | os.PathLike) or hasattr(capture, "read"):
            from netbpf.packet.open import open_capture

            with open_capture(capture) as reader:
                yield from reader.batches()
        else:
            records = (as_record(packet, self.linktype, n) for n, packet in enumerate(capture, 1))
            for _, same in itertools.groupby(records, key=lambda record: record.linktype):
                while chunk := list(itertools.islice(same, BATCH_PACKETS)):
                    yield PacketBatch.from_records(chunk)


def _is_program(text: str) -> bool:
    from netbpf.sources.load import is_path, looks_like_program

    return is_path(text) or looks_like_program(text)


def as_record(packet: Any, linktype: int = 1, number: int = 1) -> Record:
    """A packet in memory as a record; ``linktype`` is that of packets which do not tell their own. Raises UsageError."""
    if isinstance(packet, Record):
        return packet
    if isinstance(packet, bytes | bytearray | memoryview):
        return Record(number, 0, len(packet), bytes(packet), linktype)
    if _is_scapy(packet):
        return _of_scapy(packet, number)
    if isinstance(packet, SkBuff):
        raise UsageError("an SkBuff is a packet that somebody looks at already: give its frame as bytes")
    raise UsageError(f"no packet: {type(packet).__name__}; give bytes, a scapy packet or a Record")


def _is_scapy(packet: Any) -> bool:
    scapy = sys.modules.get("scapy.packet")
    return scapy is not None and isinstance(packet, scapy.Packet)


def _of_scapy(packet: Any, number: int) -> Record:
    """Its bytes as scapy builds them; the link type is that of its first layer."""
    from scapy.config import conf

    linktype = conf.l2types.layer2num.get(type(packet))
    if linktype is None:
        raise UsageError(f"scapy's {type(packet).__name__} is the first layer of no capture: put Ether() in front, or IP()")
    data, ts_ns = bytes(packet), int(packet.time * 1_000_000_000)
    return Record(number, ts_ns, max(packet.wirelen or 0, len(data)), data, linktype)
