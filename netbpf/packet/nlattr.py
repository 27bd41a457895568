"""Netlink attributes in a packet, as classic filters on netlink sockets look for them (SKF_AD_NLATTR, SKF_AD_NLATTR_NEST).

    0          2          4                    struct nlattr: length with this header, type (two flag bits on top); the
    +----------+----------+---------------     next one starts at the length rounded up to 4. Native byte order.
    | nla_len  | nla_type | payload ...

Pure functions of an sk_buff. Offsets count from skb->data; 0 means that there is none.
"""

from __future__ import annotations

from netbpf.packet.load import data_end
from netbpf.packet.skbuff import SkBuff

NLA_HDRLEN = 4
NLA_TYPE_MASK = 0x3FFF


def skb_get_nlattr(skb: SkBuff, a: int, x: int) -> int:
    """Where the first attribute of type ``x`` is, looking from ``a`` on (both u32)."""
    data = skb.head[skb.data_off : data_end(skb)]
    if len(data) < NLA_HDRLEN or a > len(data) - NLA_HDRLEN:
        return 0
    return _find(data, a, len(data), x)


def skb_get_nlattr_nest(skb: SkBuff, a: int, x: int) -> int:
    """Where the first attribute of type ``x`` is inside the attribute at ``a``."""
    data = skb.head[skb.data_off : data_end(skb)]
    if len(data) < NLA_HDRLEN or a > len(data) - NLA_HDRLEN:
        return 0
    length = _u16(data, a)
    if length > len(data) - a or length < NLA_HDRLEN:
        return 0
    return _find(data, a + NLA_HDRLEN, a + length, x)


def _find(data: bytes, at: int, end: int, wanted: int) -> int:
    while end - at >= NLA_HDRLEN:
        length = _u16(data, at)
        if not NLA_HDRLEN <= length <= end - at:
            return 0
        if _u16(data, at + 2) & NLA_TYPE_MASK == wanted:
            return at
        at += (length + 3) & ~3
    return 0


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")
