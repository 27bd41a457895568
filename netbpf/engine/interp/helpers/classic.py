"""The functions behind four ancillary loads of classic BPF, which only a translated filter calls (``abi.classic``)."""

from __future__ import annotations

from typing import Final

from netbpf.abi.classic import FUNC_SKB_GET_HATYPE, FUNC_SKB_GET_NLATTR, FUNC_SKB_GET_NLATTR_NEST, FUNC_SKB_GET_PAY_OFFSET
from netbpf.engine.interp.helpers.body import Body
from netbpf.engine.interp.machine import Machine
from netbpf.ints import u32
from netbpf.packet import nlattr, payload


def skb_get_pay_offset(m: Machine, skb: int, a: int, x: int, r4: int, r5: int) -> int:
    return payload.skb_get_poff(m.skb)


def skb_get_nlattr(m: Machine, skb: int, a: int, x: int, r4: int, r5: int) -> int:
    return nlattr.skb_get_nlattr(m.skb, u32(a), u32(x))


def skb_get_nlattr_nest(m: Machine, skb: int, a: int, x: int, r4: int, r5: int) -> int:
    return nlattr.skb_get_nlattr_nest(m.skb, u32(a), u32(x))


def skb_get_hatype(m: Machine, skb: int, a: int, x: int, r4: int, r5: int) -> int:
    return m.skb.dev_type


NUMBERED_BODIES: Final[dict[int, Body]] = {
    FUNC_SKB_GET_PAY_OFFSET: skb_get_pay_offset,
    FUNC_SKB_GET_NLATTR: skb_get_nlattr,
    FUNC_SKB_GET_NLATTR_NEST: skb_get_nlattr_nest,
    FUNC_SKB_GET_HATYPE: skb_get_hatype,
}
