"""Numbers of the network side: linux/if_ether.h, if_packet.h, if_arp.h, filter.h, and the link types of captures.

Tables only. Protocol numbers are in host order, as they are written in the headers (ETH_P_IP is 0x0800).
"""

from __future__ import annotations

from typing import Final

# linux/if_ether.h
ETH_ALEN: Final = 6
ETH_HLEN: Final = 14
VLAN_HLEN: Final = 4
ETH_P_802_3_MIN: Final = 0x0600  # a type field below this is a length

ETH_P_802_3: Final = 0x0001
ETH_P_ALL: Final = 0x0003
ETH_P_802_2: Final = 0x0004
ETH_P_IP: Final = 0x0800
ETH_P_ARP: Final = 0x0806
ETH_P_8021Q: Final = 0x8100
ETH_P_IPV6: Final = 0x86DD
ETH_P_8021AD: Final = 0x88A8
VLAN_PROTOCOLS: Final = frozenset({ETH_P_8021Q, ETH_P_8021AD})  # what the kernel takes out of a received frame

# linux/if_packet.h: sk_buff->pkt_type
PACKET_HOST: Final = 0
PACKET_BROADCAST: Final = 1
PACKET_MULTICAST: Final = 2
PACKET_OTHERHOST: Final = 3
PACKET_OUTGOING: Final = 4
PACKET_LOOPBACK: Final = 5
PACKET_TYPE_NAMES: Final = ("HOST", "BROADCAST", "MULTICAST", "OTHERHOST", "OUTGOING", "LOOPBACK")

# linux/if_arp.h: net_device->type
ARPHRD_ETHER: Final = 1
ARPHRD_PPP: Final = 512
ARPHRD_LOOPBACK: Final = 772
ARPHRD_NONE: Final = 0xFFFE

# linux/filter.h: where a negative LD_ABS or LD_IND offset counts from, and the ancillary loads of classic BPF
SKF_AD_OFF: Final = -0x1000
SKF_NET_OFF: Final = -0x100000
SKF_LL_OFF: Final = -0x200000
SKF_AD_PROTOCOL: Final = 0
SKF_AD_PKTTYPE: Final = 4
SKF_AD_IFINDEX: Final = 8
SKF_AD_NLATTR: Final = 12
SKF_AD_NLATTR_NEST: Final = 16
SKF_AD_MARK: Final = 20
SKF_AD_QUEUE: Final = 24
SKF_AD_HATYPE: Final = 28
SKF_AD_RXHASH: Final = 32
SKF_AD_CPU: Final = 36
SKF_AD_ALU_XOR_X: Final = 40
SKF_AD_VLAN_TAG: Final = 44
SKF_AD_VLAN_TAG_PRESENT: Final = 48
SKF_AD_PAY_OFFSET: Final = 52
SKF_AD_RANDOM: Final = 56
SKF_AD_VLAN_TPID: Final = 60
SKF_AD_MAX: Final = 64

# linux/bpf.h: bpf_skb_load_bytes_relative's start_header
BPF_HDR_START_MAC: Final = 0
BPF_HDR_START_NET: Final = 1

# Protocols of an IP header
IPPROTO_HOPOPTS: Final = 0
IPPROTO_ICMP: Final = 1
IPPROTO_TCP: Final = 6
IPPROTO_UDP: Final = 17
IPPROTO_ICMPV6: Final = 58

# Link types of capture files (LINKTYPE_*); 12 and 14 are DLT_RAW as some systems wrote it into files
LINKTYPE_NULL: Final = 0
LINKTYPE_ETHERNET: Final = 1
DLT_RAW: Final = 12
DLT_RAW_OPENBSD: Final = 14
LINKTYPE_RAW: Final = 101
LINKTYPE_LOOP: Final = 108
LINKTYPE_LINUX_SLL: Final = 113
LINKTYPE_IPV4: Final = 228
LINKTYPE_IPV6: Final = 229
LINKTYPE_LINUX_SLL2: Final = 276
LINKTYPE_USER0: Final = 147  # bytes that only their owner knows

SLL_BYTES: Final = 16
SLL2_BYTES: Final = 20
NULL_BYTES: Final = 4
LINK_HEADER_BYTES: Final = {
    LINKTYPE_ETHERNET: ETH_HLEN,
    LINKTYPE_LINUX_SLL: SLL_BYTES,
    LINKTYPE_LINUX_SLL2: SLL2_BYTES,
    LINKTYPE_NULL: NULL_BYTES,
    LINKTYPE_LOOP: NULL_BYTES,
}
ETHERTYPE_AT: Final = {LINKTYPE_ETHERNET: 12, LINKTYPE_LINUX_SLL: 14, LINKTYPE_LINUX_SLL2: 0}
"""How long a link type's header is, where that is known, and where in it the EtherType is."""

LINKTYPE_NAMES: Final[dict[int, str]] = {
    0: "NULL",
    1: "EN10MB",
    3: "AX25",
    6: "IEEE802",
    7: "ARCNET",
    8: "SLIP",
    9: "PPP",
    10: "FDDI",
    12: "RAW",
    14: "RAW",
    50: "PPP_SERIAL",
    51: "PPP_ETHER",
    100: "ATM_RFC1483",
    101: "RAW",
    104: "C_HDLC",
    105: "IEEE802_11",
    107: "FRELAY",
    108: "LOOP",
    113: "LINUX_SLL",
    114: "LTALK",
    117: "PFLOG",
    119: "PRISM_HEADER",
    122: "IP_OVER_FC",
    127: "IEEE802_11_RADIO",
    143: "DOCSIS",
    144: "LINUX_IRDA",
    147: "USER0",
    162: "USER15",
    163: "IEEE802_11_RADIO_AVS",
    165: "BACNET_MS_TP",
    187: "BLUETOOTH_HCI_H4",
    189: "USB_LINUX",
    192: "PPI",
    195: "IEEE802_15_4_WITHFCS",
    201: "BLUETOOTH_HCI_H4_WITH_PHDR",
    220: "USB_LINUX_MMAPPED",
    226: "IPNET",
    227: "CAN_SOCKETCAN",
    228: "IPV4",
    229: "IPV6",
    230: "IEEE802_15_4_NOFCS",
    231: "DBUS",
    239: "NFLOG",
    240: "NETANALYZER",
    247: "INFINIBAND",
    248: "SCTP",
    249: "USBPCAP",
    251: "BLUETOOTH_LE_LL",
    253: "NETLINK",
    271: "VSOCK",
    276: "LINUX_SLL2",
    279: "EBHSCR",
}


def linktype_name(linktype: int) -> str:
    """``EN10MB`` for 1; the number itself where no name is known."""
    return LINKTYPE_NAMES.get(linktype, str(linktype))
