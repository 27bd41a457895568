"""Where a program's packet loads may reach: LD_ABS and LD_IND, bpf_skb_load_bytes and bpf_skb_load_bytes_relative.

The one rule, for every engine; knows the sk_buff and nothing of programs. "Outside the packet" is also every byte that was
on the wire and that the capture did not keep.
"""

from __future__ import annotations

from netbpf.abi.net import BPF_HDR_START_MAC, BPF_HDR_START_NET, SKF_LL_OFF, SKF_NET_OFF
from netbpf.packet.skbuff import SkBuff

INT_MAX = 0x7FFF_FFFF
RELATIVE_OFFSET_MAX = 0xFFFF


def data_end(skb: SkBuff) -> int:
    """Where the packet ends, in bytes of ``skb.head``."""
    return min(len(skb.head), skb.data_off + skb.len)


def load_start(skb: SkBuff, offset: int) -> int:
    """Where in ``skb.head`` a packet load at ``offset`` starts, -1 for an offset that means no place.

    The offset is an int: only its low 32 bits count, as a signed number. From 0 up it counts from skb->data; from
    SKF_NET_OFF (-0x100000) up, from the network header; from SKF_LL_OFF (-0x200000) up, from the MAC header; below, it
    means nothing. So LD_IND's register plus immediate wraps at 32 bits.
    """
    offset = ((offset & 0xFFFF_FFFF) ^ 0x8000_0000) - 0x8000_0000
    if offset >= 0:
        return skb.data_off + offset
    if offset >= SKF_NET_OFF:
        return skb.network_header + offset - SKF_NET_OFF
    if offset >= SKF_LL_OFF and skb.mac_header >= 0:
        return skb.mac_header + offset - SKF_LL_OFF
    return -1


def load(skb: SkBuff, offset: int, size: int) -> int | None:
    """What LD_ABS and LD_IND put in R0: ``size`` (1, 2, 4) bytes in network order; None ends the program with 0."""
    start = skb.data_off + offset if 0 <= offset <= INT_MAX else load_start(skb, offset)
    end = start + size
    if start < 0 or end > len(skb.head) or end > skb.data_off + skb.len:
        return None
    return int.from_bytes(skb.head[start:end])


def skb_load_bytes(skb: SkBuff, offset: int, size: int) -> bytes | None:
    """bpf_skb_load_bytes: ``size`` bytes at u32 ``offset`` from skb->data; None is -EFAULT, and the kernel then zeroes the
    program's buffer."""
    start = skb.data_off + offset
    if offset > INT_MAX or start + size > data_end(skb):
        return None
    return bytes(skb.head[start : start + size])


def skb_load_bytes_relative(skb: SkBuff, offset: int, size: int, start_header: int) -> bytes | None:
    """bpf_skb_load_bytes_relative: ``size`` bytes at u32 ``offset`` from the MAC (0) or network (1) header; None is -EFAULT,
    and the kernel then zeroes the program's buffer.

    The kernel serves only the linear part of the sk_buff here; ours are linear, as those of all but jumbo frames are.
    """
    if start_header == BPF_HDR_START_MAC and skb.mac_header >= 0:
        start = skb.mac_header + offset
    elif start_header == BPF_HDR_START_NET:
        start = skb.network_header + offset
    else:
        return None
    if offset > RELATIVE_OFFSET_MAX or start + size > data_end(skb):
        return None
    return bytes(skb.head[start : start + size])
