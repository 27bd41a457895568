"""A tcpdump expression over a stream of packets: compiled for each link type that occurs in it, proved once.

What a filter means depends on the link header in front of it, so there is a program for each link type; a capture has mostly
one. Programs proved before are taken from the cache (``replay.remembered``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from netbpf.abi.net import linktype_name
from netbpf.engine.base import Engine, Loaded, WindowWalker
from netbpf.errors import SourceError
from netbpf.isa.classic import BPF_RET, SockFilter
from netbpf.program import FILE_VIEW, VIEWS, VerifiedProgram
from netbpf.replay.remembered import key_of_filter, recall, remember
from netbpf.sources.expr import compile_expression, socket_linktype

if TYPE_CHECKING:
    from netbpf.engine.results import Totals, Verdicts
    from netbpf.env import Env
    from netbpf.packet.batch import PacketBatch
    from netbpf.packet.capture import Window
    from netbpf.packet.layout import RecordLayout
    from netbpf.packet.sink import CaptureWriter
    from netbpf.packet.skbuff import SkBuff

REJECTS_ALL: Final = "expression rejects all packets"  # libpcap's words


class Expression(NamedTuple):
    """A tcpdump expression and how it is to be read; ``view`` is one of ``program.VIEWS``."""

    text: str
    view: str = FILE_VIEW
    optimize: bool = True

    def prove(self, linktype: int, *, further: bool = False, use_cache: bool = True) -> VerifiedProgram:
        """The proved program for packets of captures of ``linktype``. Where this is a ``further`` one of a stream, an expression
        that none of its packets can match is no error.

        Raises SourceError with libpcap's words, ProgramRejected, UsageError without libpcap.
        """
        in_file = self.view == FILE_VIEW
        seen = linktype if in_file else socket_linktype(linktype)
        try:
            insns = compile_expression(self.text, seen, savefile=in_file, optimize=self.optimize)
        except SourceError as e:
            if not further:
                raise
            if REJECTS_ALL not in e.message:
                where = f"packets of link type {linktype} ({linktype_name(linktype)})"
                raise SourceError(f"{where}: {e.message}", path="<expression>") from None
            insns = (SockFilter(BPF_RET, 0, 0, 0),)
        key = key_of_filter(insns, self.view) if use_cache else ""
        known = recall(key)
        if known is not None:
            return known.program
        from netbpf.sources.cbpf import to_spec
        from netbpf.verifier.classic import prove_classic

        spec = to_spec(insns, "filter", savefile=in_file)
        program = prove_classic(spec)
        remember(key, spec, program, {})
        return program


class FilteredStream:
    """An expression made live: a ``Loaded`` for packets of any link type, ``program`` being that of ``linktype``.

    Raises what ``Expression.prove`` raises, also while it runs, at the first packet of another link type.
    """

    def __init__(self, expression: Expression, engine: Engine, env: Env, linktype: int, *, use_cache: bool = True) -> None:
        self.expression, self._engine, self._env, self._use_cache = expression, engine, env, use_cache
        self._by_linktype: dict[int, Loaded] = {}
        self._first = self.of_linktype(linktype)
        self.program = self._first.program

    def of_linktype(self, linktype: int) -> Loaded:
        """What runs packets of one link type."""
        loaded = self._by_linktype.get(linktype)
        if loaded is None:
            further = bool(self._by_linktype)
            program = self.expression.prove(linktype, further=further, use_cache=self._use_cache)
            loaded = self._engine.load(program, self._env, view=VIEWS[self.expression.view])
            self._by_linktype[linktype] = loaded
        return loaded

    def run(self, batch: PacketBatch) -> Verdicts:
        """See Loaded."""
        return self.of_linktype(batch.linktype).run(batch)

    def run_one(self, skb: SkBuff) -> int:
        """See Loaded; the packet is of the first link type."""
        return self._first.run_one(skb)

    def can_walk(self, layout: RecordLayout) -> bool:
        """See WindowWalker: windows of one link type."""
        linktypes = {i.linktype for i in layout.interfaces}
        if len(linktypes) != 1:
            return False
        walker = self.of_linktype(*linktypes)
        return isinstance(walker, WindowWalker) and walker.can_walk(layout)

    def walk(
        self, window: Window, totals: Totals, *, stop_ns: int, max_packets: int, output: CaptureWriter | None = None
    ) -> int | None:
        """See WindowWalker."""
        walker = self.of_linktype(window.layout.interfaces[0].linktype)
        assert isinstance(walker, WindowWalker)
        return walker.walk(window, totals, stop_ns=stop_ns, max_packets=max_packets, output=output)
