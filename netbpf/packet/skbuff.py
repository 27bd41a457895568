"""The sk_buff a socket filter sees: packet bytes and the metadata the kernel keeps beside them.

``head`` is the whole frame that is kept, from the MAC header on, outer VLAN tag already moved out; ``data_off`` is where
``skb->data`` points in it (0 at the MAC header for AF_PACKET/SOCK_RAW, the network header for SOCK_DGRAM and TUN, the
transport header for UDP and TCP sockets). LD_ABS offsets count from ``data_off``; SKF_NET_OFF from ``network_header``;
SKF_LL_OFF from ``mac_header``.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class SkBuff:
    """Offsets count bytes of ``head``. ``len`` is skb->len: bytes from ``data_off`` on the wire; ``head`` may hold fewer
    of them when the capture was cut. Multi-byte protocol numbers are in host order here (0x0800 for IPv4); the
    context field of the same name is in network order, as the kernel's."""

    head: bytes
    len: int
    data_off: int = 0
    mac_header: int = 0
    network_header: int = 14
    transport_header: int = -1
    protocol: int = 0
    pkt_type: int = 0
    mark: int = 0
    priority: int = 0
    queue_mapping: int = 0
    vlan_present: int = 0
    vlan_tci: int = 0
    vlan_proto: int = 0
    ifindex: int = 0
    ingress_ifindex: int = 0
    dev_type: int = 1  # ARPHRD_*, what SKF_AD_HATYPE reads
    hash: int = 0
    tc_index: int = 0
    tc_classid: int = 0
    napi_id: int = 0
    tstamp: int = 0
    tstamp_type: int = 0
    hwtstamp: int = 0
    wire_len: int = 0
    gso_segs: int = 0
    gso_size: int = 0
    family: int = 0
    remote_ip4: int = 0
    local_ip4: int = 0
    remote_ip6: tuple[int, int, int, int] = (0, 0, 0, 0)
    local_ip6: tuple[int, int, int, int] = (0, 0, 0, 0)
    remote_port: int = 0
    local_port: int = 0
    has_sk: bool = False  # a socket owns the packet; what is being received from a wire has none
    sk_cookie: int = 0
    sk_uid: int = 0
    sk_state: int = 7  # TCP_CLOSE
    sk_bound_dev_if: int = 0
    cb: bytearray = field(default_factory=lambda: bytearray(20))
