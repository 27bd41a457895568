"""Helpers on the sk_buff. Where bytes may be taken from is ``packet.load``'s rule."""

from __future__ import annotations

import errno
from typing import Any, Final

from netbpf.engine.interp.helpers.body import Body
from netbpf.engine.interp.machine import Machine
from netbpf.ints import u32
from netbpf.packet import load
from netbpf.packet.load import data_end

INIT_NETNS_COOKIE: Final = 1
OVERFLOW_UID: Final = 65534


def skb_load_bytes(m: Machine, skb: int, offset: int, to: int, size: int, r5: int) -> int:
    """0, or -EFAULT and zeroes."""
    return _give(m, to, u32(size), load.skb_load_bytes(m.skb, u32(offset), u32(size)))


def skb_load_bytes_relative(m: Machine, skb: int, offset: int, to: int, size: int, start_header: int) -> int:
    """0, or -EFAULT and zeroes."""
    return _give(m, to, u32(size), load.skb_load_bytes_relative(m.skb, u32(offset), u32(size), u32(start_header)))


def _give(m: Machine, to: int, size: int, data: bytes | None) -> int:
    m.memory.write(to, bytes(size) if data is None else data)
    return -errno.EFAULT if data is None else 0


def get_socket_cookie(m: Machine, skb: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """Of the socket that owns the packet; 0 without one."""
    return m.skb.sk_cookie if m.skb.has_sk else 0


def get_socket_uid(m: Machine, skb: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """Of the socket that owns the packet; overflowuid without one."""
    return m.skb.sk_uid if m.skb.has_sk else OVERFLOW_UID


def get_netns_cookie(m: Machine, skb: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """The simulated machine has the initial network namespace alone."""
    return INIT_NETNS_COOKIE


def perf_event_output(m: Machine, skb: int, map_: int, flags: int, data: int, size: int) -> int:
    """A sample of ``size`` bytes, and of as many bytes of the packet as the flags say."""
    live: Any = m.handle_at(map_).map
    packet = m.skb.head[m.skb.data_off : data_end(m.skb)]
    result: int = live.output(m.memory.read(data, size), flags, packet, m.cpu)
    return result


BODIES: Final[dict[str, Body]] = {
    "skb_load_bytes": skb_load_bytes,
    "skb_load_bytes_relative": skb_load_bytes_relative,
    "get_socket_cookie": get_socket_cookie,
    "get_socket_uid": get_socket_uid,
    "get_netns_cookie": get_netns_cookie,
    "perf_event_output": perf_event_output,
}
