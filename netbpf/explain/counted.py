"""A session of replay whose coverage is added to a file when it ends, also when it is interrupted. In the interpreter only."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Any

from netbpf.engine.base import Loaded
from netbpf.engine.results import Verdicts
from netbpf.errors import SourceError, UsageError
from netbpf.explain.coverage import Coverage
from netbpf.program import ProgramSpec
from netbpf.replay.session import Session

if TYPE_CHECKING:
    from netbpf.packet.batch import PacketBatch
    from netbpf.packet.skbuff import SkBuff


class CountedSession(Session):
    """``file`` is what the counts are added to, ``path`` what the program was read from. ``linktype``: the one that an expression
    was compiled for; None for programs that do not depend on it.

    Raises what Session raises; CoverageError, OSError where ``file`` is there and cannot be added to.
    """

    def __init__(self, spec: ProgramSpec, file: str, *, path: str = "", linktype: int | None = None, seed: int = 1) -> None:
        folder = os.path.dirname(os.path.abspath(file))
        if not os.path.isdir(folder):  # better told now than when all is done
            raise UsageError(f"--coverage {file}: there is no folder {folder}")
        if os.path.exists(file):
            Coverage.load(file)
        super().__init__(spec, engine="interp", seed=seed)
        self.coverage, self._file = Coverage(), file
        interp: Any = self.loaded
        self.coverage.watch(interp, spec, path=path)
        if linktype is not None:
            self.loaded = _OfLinktype(self.loaded, linktype)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.coverage.add_to(self._file)
        super().__exit__(kind, value, trace)


class _OfLinktype:
    """A loaded expression that refuses packets of another link type than its own."""

    def __init__(self, loaded: Loaded, linktype: int) -> None:
        self._loaded, self._linktype = loaded, linktype
        self.program = loaded.program

    def run(self, batch: PacketBatch) -> Verdicts:
        """See Loaded. Raises SourceError."""
        if batch.linktype != self._linktype:
            told = f"packets of link type {batch.linktype}: for coverage the expression was compiled for {self._linktype} alone"
            raise SourceError(told, path="<expression>")
        return self._loaded.run(batch)

    def run_one(self, skb: SkBuff) -> int:
        """See Loaded."""
        return self._loaded.run_one(skb)
