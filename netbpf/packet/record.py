"""One captured packet, as a file or device gave it: bytes and what the capture says of them. Knows no sk_buff."""

from __future__ import annotations

from typing import Final, NamedTuple

OUTBOUND: Final = 2  # Record.direction


class Record(NamedTuple):
    """``number`` starts at 1. ``data`` holds ``caplen`` bytes of the ``wirelen`` that were on the wire, in link type
    ``linktype`` (LINKTYPE_* value). ``ts_ns`` is since the epoch. ``direction``: 0 unknown, 1 inbound, 2 outbound
    (pcapng epb_flags). ``interface`` is the index in the capture."""

    number: int
    ts_ns: int
    wirelen: int
    data: bytes
    linktype: int = 1
    interface: int = 0
    direction: int = 0

    @property
    def caplen(self) -> int:
        return len(self.data)
