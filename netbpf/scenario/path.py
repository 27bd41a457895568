"""The path of one packet of a case: the case is run again on the simulator's interpreter up to that packet, and the packet is
recorded."""

from __future__ import annotations

from typing import Any

from netbpf.explain.path import Listings, record_path
from netbpf.explain.steps import Path
from netbpf.explain.text import format_path
from netbpf.packet.skbuff import SkBuff
from netbpf.scenario.model import Case
from netbpf.scenario.program import program_of
from netbpf.scenario.run import At, run_case


class _Recorded(Exception):
    """The packet was reached: no need to run on."""

    def __init__(self, path: Path) -> None:
        self.path = path


def path_lines(case: Case, at: At, *, width: int) -> list[str]:
    """The path as ``netbpf why`` tells it; empty where the packet is not reached."""

    def watch(now: At, loaded: Any, skb: SkBuff) -> None:
        if now == at:
            raise _Recorded(record_path(loaded, skb, Listings.of(program_of(case)), number=at.packet + 1))

    try:
        run_case(case, watch=watch)
    except _Recorded as recorded:
        return list(format_path(recorded.path, width=width))
    return []
