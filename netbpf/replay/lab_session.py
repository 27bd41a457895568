"""A program made ready to replay on a host's lab: frames go into a device there, the socket's packets are the verdicts.

``LabSession`` stands where ``session.Session`` does: ``loaded`` takes batches, ``maps`` are the program's. With two hosts every
batch goes through both, and the first difference is kept. Knows hosts by their protocol only.
"""

from __future__ import annotations

from array import array
from contextlib import ExitStack
from typing import Any, Final, Self

from netbpf.engine.results import Verdicts
from netbpf.errors import BpfError, ProgramRejected, UsageError
from netbpf.host.base import Host
from netbpf.host.fd_map import FdMap
from netbpf.packet.batch import PacketBatch
from netbpf.program import ProgramSpec, VerifiedProgram
from netbpf.replay.compare import (
    DEFAULT_LAB,
    Difference,
    HostRun,
    LabOptions,
    LabRun,
    Packet,
    compare,
    original_length,
    packet_difference,
)
from netbpf.replay.frames import as_frame

BACKENDS: Final = ("sim", "kernel", "both")


class LabSession:
    """``backend``: "sim", "kernel" or "both". The maps shown are the first host's, the simulator's for "both".

    Refused alike by every host: raises ProgramRejected or BpfError when entered. ``difference`` is known once it is left.
    """

    view = "packet_raw"

    def __init__(
        self, spec: ProgramSpec, backend: str, *, engine: str | None = None, options: LabOptions = DEFAULT_LAB
    ) -> None:
        if backend not in BACKENDS:
            raise UsageError(f"a backend is one of {', '.join(BACKENDS)}, not {backend!r}")
        hosts: list[Host | str] = ["sim", "kernel"] if backend == "both" else [backend]
        log_level = 1 if backend == "both" else 0
        self.spec, self.backend, self._hosts = spec, backend, hosts
        self._engine, self._options, self._log_level = engine, options, log_level
        self.labs: list[LabRun] = []
        self.difference: Difference | None = None
        self.engine_name = backend if backend != "both" else "sim and kernel"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for host in self._hosts:
                lab = LabRun(host, self.spec, options=self._options, log_level=self._log_level, engine=self._engine)
                self.labs.append(stack.enter_context(lab))
            self._judge_loads()
            self._stack = stack.pop_all()
        self.loaded = LabLoaded(self)
        self.maps: dict[str, FdMap] = {} if self.labs[0].errno else self.labs[0].maps
        return self

    def _judge_loads(self) -> None:
        """Refused on every host: the error; on one of two: the difference."""
        first = self.labs[0]
        results = [HostRun(lab.backend, lab.errno, lab.step, lab.log) for lab in self.labs]
        if len(results) == 2:
            self.difference = compare(*results)
        if first.errno and self.difference is None:
            if first.step == "load" and first.log:
                raise ProgramRejected(first.errno, first.log)
            raise BpfError(first.errno)

    @property
    def is_loaded(self) -> bool:
        """Whether the program runs on every host."""
        return not any(lab.errno for lab in self.labs)

    def finish(self) -> Difference | None:
        """Compare what the maps hold at the end; the first difference of all, None for one host alone."""
        if len(self.labs) == 2 and self.difference is None and self.is_loaded:
            self.difference = compare(*(lab.result() for lab in self.labs))
        return self.difference

    def notes(self) -> list[str]:
        """What a reader of the counts must know of the frames."""
        told = []
        if self.loaded.padded:
            told.append(f"{self.loaded.padded} packets were cut by the capture: zeros stand for the bytes it did not keep")
        if self.loaded.unseen:
            told.append(f"{self.loaded.unseen} packets reach no socket: the device or the kernel drops such frames")
        return told

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


class LabLoaded:
    """``engine.base.Loaded`` for batches: every frame through the labs. ``padded`` counts records that were cut by their
    capture, whose missing bytes went in as zeros; ``unseen`` those that no socket sees."""

    program: VerifiedProgram

    def __init__(self, session: LabSession) -> None:
        self._session = session
        self.padded = self.unseen = 0

    def run_one(self, skb: Any) -> int:
        raise UsageError("a lab takes frames, not an sk_buff")

    def run(self, batch: PacketBatch) -> Verdicts:
        """Raises UsageError for packets without an Ethernet header."""
        n = len(batch)
        out = Verdicts(array("I", bytes(4 * n)), array("I", bytes(4 * n)), bytearray(n))
        frames, rows = [], []
        for i in range(n):
            made = as_frame(batch.record(i))
            if made is not None:
                self.padded += made.padded
                frames.append(made.frame)
                rows.append(i)
        for i, packet in zip(rows, self._send(batch, frames, rows), strict=True):
            if packet.received:
                got = packet.received[0]
                out.verdict[i] = out.kept[i] = len(got.data)
                out.trimmed[i] = len(got.data) < original_length(got)
        return out

    def _send(self, batch: PacketBatch, frames: list[bytes], rows: list[int]) -> list[Packet]:
        session = self._session
        answers = [lab.send(frames) for lab in session.labs]
        self.unseen += len(batch) - len(rows) + sum(1 for p in answers[0] if not p.seen)
        if len(answers) == 2 and session.difference is None:
            pairs = zip(session.labs, answers, strict=True)
            mine, theirs = (HostRun(lab.backend, frames=tuple(frames), packets=tuple(got)) for lab, got in pairs)
            session.difference = packet_difference(mine, theirs, [batch.first_number + i for i in rows])
        return answers[0]
