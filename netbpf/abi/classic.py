"""Ancillary data of classic BPF (SKF_AD_*): numbers and the names tools give them; and the kernel-internal functions that
a translated classic filter calls.

Tables only. The kernel turns four of the ancillary loads into calls of functions no eBPF program can name. Here they have
numbers above every helper's, and prototypes (``abi.classic_helpers``), so that a translated filter passes the verifier and
runs in the engines as any program does; a program loaded by bpf(2) gets none of them.
"""

from __future__ import annotations

from typing import Final

from netbpf.abi.net import (
    SKF_AD_ALU_XOR_X,
    SKF_AD_CPU,
    SKF_AD_HATYPE,
    SKF_AD_IFINDEX,
    SKF_AD_MARK,
    SKF_AD_NLATTR,
    SKF_AD_NLATTR_NEST,
    SKF_AD_PAY_OFFSET,
    SKF_AD_PKTTYPE,
    SKF_AD_PROTOCOL,
    SKF_AD_QUEUE,
    SKF_AD_RANDOM,
    SKF_AD_RXHASH,
    SKF_AD_VLAN_TAG,
    SKF_AD_VLAN_TAG_PRESENT,
    SKF_AD_VLAN_TPID,
)

# ancillary offset: (libpcap's word in -d, bpf_asm's word; None where bpf_asm has none)
ANCILLARY_NAMES: Final[dict[int, tuple[str, str | None]]] = {
    SKF_AD_PROTOCOL: ("proto", "proto"),
    SKF_AD_PKTTYPE: ("type", "type"),
    SKF_AD_IFINDEX: ("ifidx", "ifidx"),
    SKF_AD_NLATTR: ("nla", "nla"),
    SKF_AD_NLATTR_NEST: ("nlan", "nlan"),
    SKF_AD_MARK: ("mark", "mark"),
    SKF_AD_QUEUE: ("queue", "queue"),
    SKF_AD_HATYPE: ("hatype", "hatype"),
    SKF_AD_RXHASH: ("rxhash", "rxhash"),
    SKF_AD_CPU: ("cpu", "cpu"),
    SKF_AD_ALU_XOR_X: ("xor_x", None),
    SKF_AD_VLAN_TAG: ("vlan_tci", "vlan_tci"),
    SKF_AD_VLAN_TAG_PRESENT: ("vlanp", "vlan_avail"),
    SKF_AD_PAY_OFFSET: ("poff", "poff"),
    SKF_AD_RANDOM: ("random", "rand"),
    SKF_AD_VLAN_TPID: ("vlan_tpid", "vlan_tpid"),
}

CLASSIC_FUNC_BASE: Final = 1 << 16
FUNC_SKB_GET_PAY_OFFSET: Final = CLASSIC_FUNC_BASE  # (skb, A, X) -> offset of the payload behind the headers
FUNC_SKB_GET_NLATTR: Final = CLASSIC_FUNC_BASE + 1  # (skb, A, X) -> offset of attribute X at or behind A, or 0
FUNC_SKB_GET_NLATTR_NEST: Final = CLASSIC_FUNC_BASE + 2  # (skb, A, X) -> offset of attribute X within the one at A, or 0
FUNC_SKB_GET_HATYPE: Final = CLASSIC_FUNC_BASE + 3  # (skb, A, X) -> ARPHRD_* of the device


CLASSIC_FUNC_NAMES: Final[dict[int, str]] = {
    FUNC_SKB_GET_PAY_OFFSET: "skb_get_pay_offset",
    FUNC_SKB_GET_NLATTR: "skb_get_nlattr",
    FUNC_SKB_GET_NLATTR_NEST: "skb_get_nlattr_nest",
    FUNC_SKB_GET_HATYPE: "skb_get_hatype",
}
