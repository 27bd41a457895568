"""The first replay of a tcpdump expression: what ``quick`` starts from, made without the command line.

Knows the way from an expression to machine code that is ready to walk a plain pcap; imports what that takes and no more.
"""

from __future__ import annotations

from typing import Any, Final

from netbpf.abi.net import LINKTYPE_ETHERNET
from netbpf.engine.choose import native_obstacle
from netbpf.env import SteppedEnv
from netbpf.errors import NetbpfError
from netbpf.packet.layout import MAX_CAPLEN, InterfaceLayout, RecordLayout
from netbpf.program import FILE_VIEW, VIEWS
from netbpf.replay.filtered import Expression

PLAIN: Final = RecordLayout("pcap", "little", 16, MAX_CAPLEN, (InterfaceLayout(LINKTYPE_ETHERNET, MAX_CAPLEN, 1000),))


def made(expression: str, *, scouted: bool, use_cache: bool, effort: int) -> tuple[Any, ...] | None:
    """What ``NativeLoaded.left_behind`` tells of an expression on Ethernet packets, walked with scouts or without, and optimised
    with this ``effort``; None where the ordinary way has to say what is wrong, or has more to do."""
    if native_obstacle():
        return None
    from netbpf.engine.llvm.engine import NativeEngine

    try:
        program = Expression(expression).prove(LINKTYPE_ETHERNET, use_cache=use_cache)
        engine = NativeEngine(use_cache=use_cache, effort=effort)
        loaded = engine.load(program, SteppedEnv(), view=VIEWS[FILE_VIEW])
        loaded.prepare(PLAIN, scouted=scouted)
        return loaded.left_behind()
    except NetbpfError:
        return None
