"""The engine seam: hot, takes batches. ``load`` makes a program live, ``run`` moves packets through it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Protocol

from netbpf.env import Env
from netbpf.packet.batch import PacketBatch
from netbpf.packet.skbuff import SkBuff
from netbpf.program import VerifiedProgram


@dataclass(slots=True)
class Verdicts:
    """``verdict[i]``: r0 as u32 of packet *i* (0 drops, n keeps n bytes); ``kept[i]``: bytes that reach the socket,
    min(verdict, skb->len); ``trimmed[i]``: 1 where an accepted packet lost bytes to its verdict."""

    verdict: array[int] = field(default_factory=lambda: array("I"))
    kept: array[int] = field(default_factory=lambda: array("I"))
    trimmed: bytearray = field(default_factory=bytearray)


class Loaded(Protocol):
    """A program made live by an engine."""

    program: VerifiedProgram

    def run(self, batch: PacketBatch) -> Verdicts:
        """Run every packet of the batch in order. Raises EngineFault."""

    def run_one(self, skb: SkBuff) -> int:
        """Run once; the full 64-bit r0. Raises EngineFault."""


class Engine(Protocol):
    """``name`` is what --engine calls it."""

    name: str

    def load(self, program: VerifiedProgram, env: Env) -> Loaded:
        """Prepare ``program`` to run with the clocks and random numbers of ``env``."""
