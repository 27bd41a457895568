"""The device that packets come in on. Light: native loops know no more of receiving."""

from __future__ import annotations

from typing import Final, NamedTuple


class Device(NamedTuple):
    """The device packets come in on, and what it writes beside each.

    ``mac`` None: every unicast frame counts as addressed to us (PACKET_HOST), for captures whose host is not known.
    ``queue_mapping`` is the receive queue plus one, as the kernel records it (outgoing packets have transmit queue 0);
    ``ifindex`` that of the capture's first interface, further ones count up. The other fields start every packet's sk_buff.
    """

    mac: bytes | None = None
    ifindex: int = 2
    queue_mapping: int = 1
    napi_id: int = 0
    hash: int = 0
    mark: int = 0
    priority: int = 0


DEFAULT_DEVICE: Final = Device()
