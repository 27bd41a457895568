"""What a program reads in the fields of its ``struct __sk_buff``: the number behind each name.

Knows the sk_buff; where a field lies and who may read it stands in ``abi.context``. The simulated machine is little-endian,
so a field that the kernel keeps in network order (``protocol``, ``vlan_proto``, addresses, ``remote_port``) reads swapped
here; ``SkBuff`` keeps all numbers in host order. Pointers (``data``, ``data_end``, ``data_meta``, ``flow_keys``, ``sk``) are
no numbers and have no row: the engine makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from netbpf.packet.skbuff import SkBuff


def htons(v: int) -> int:
    """A 16-bit number as a little-endian machine reads it out of network order."""
    return (v & 0xFF) << 8 | v >> 8 & 0xFF


def htonl(v: int) -> int:
    """A 32-bit number as a little-endian machine reads it out of network order."""
    return int.from_bytes((v & 0xFFFF_FFFF).to_bytes(4), "little")


FIELD_VALUES: Final[dict[str, Callable[[SkBuff], int]]] = {
    "len": lambda skb: skb.len,
    "pkt_type": lambda skb: skb.pkt_type,
    "mark": lambda skb: skb.mark,
    "queue_mapping": lambda skb: skb.queue_mapping,
    "protocol": lambda skb: htons(skb.protocol),
    "vlan_present": lambda skb: skb.vlan_present,
    "vlan_tci": lambda skb: skb.vlan_tci,
    "vlan_proto": lambda skb: htons(skb.vlan_proto),
    "priority": lambda skb: skb.priority,
    "ingress_ifindex": lambda skb: skb.ingress_ifindex,
    "ifindex": lambda skb: skb.ifindex,
    "tc_index": lambda skb: skb.tc_index,
    "hash": lambda skb: skb.hash,
    "tc_classid": lambda skb: skb.tc_classid,
    "napi_id": lambda skb: skb.napi_id,
    "family": lambda skb: skb.family,
    "remote_ip4": lambda skb: htonl(skb.remote_ip4),
    "local_ip4": lambda skb: htonl(skb.local_ip4),
    "remote_port": lambda skb: htons(skb.remote_port),
    "local_port": lambda skb: skb.local_port,
    "tstamp": lambda skb: skb.tstamp,
    "wire_len": lambda skb: skb.wire_len,
    "gso_segs": lambda skb: skb.gso_segs,
    "gso_size": lambda skb: skb.gso_size,
    "tstamp_type": lambda skb: skb.tstamp_type,
    "hwtstamp": lambda skb: skb.hwtstamp,
}
WORD_VALUES: Final[dict[str, Callable[[SkBuff, int], int]]] = {
    "cb": lambda skb, word: int.from_bytes(skb.cb[4 * word : 4 * word + 4], "little"),
    "remote_ip6": lambda skb, word: htonl(skb.remote_ip6[word]),
    "local_ip6": lambda skb, word: htonl(skb.local_ip6[word]),
}


def context_value(skb: SkBuff, name: str, word: int = 0) -> int:
    """The whole field ``name`` as the program reads it, or word ``word`` of ``cb``, ``remote_ip6`` and ``local_ip6``.

    KeyError for a pointer or an unknown name.
    """
    return WORD_VALUES[name](skb, word) if name in WORD_VALUES else FIELD_VALUES[name](skb)
