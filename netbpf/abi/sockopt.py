"""Socket options and flags of asm-generic/socket.h, linux/if_packet.h and linux/socket.h. Numbers only."""

from __future__ import annotations

from typing import Final

AF_PACKET: Final = 17
SOCK_DGRAM: Final = 2
SOCK_RAW: Final = 3
SOCK_PACKET: Final = 10
SOCK_NONBLOCK: Final = 0o4000
SOCK_CLOEXEC: Final = 0o2000000
SOCK_TYPE_MASK: Final = 0xF

SOL_SOCKET: Final = 1
SO_TYPE: Final = 3
SO_ERROR: Final = 4
SO_SNDBUF: Final = 7
SO_RCVBUF: Final = 8
SO_RCVTIMEO: Final = 20
SO_ATTACH_FILTER: Final = 26
SO_GET_FILTER: Final = SO_ATTACH_FILTER
SO_DETACH_FILTER: Final = 27
SO_DETACH_BPF: Final = SO_DETACH_FILTER
SO_RCVBUFFORCE: Final = 33
SO_MARK: Final = 36
SO_PROTOCOL: Final = 38
SO_DOMAIN: Final = 39
SO_RXQ_OVFL: Final = 40
SO_LOCK_FILTER: Final = 44
SO_ATTACH_BPF: Final = 50
SO_ATTACH_REUSEPORT_CBPF: Final = 51
SO_ATTACH_REUSEPORT_EBPF: Final = 52
SO_COOKIE: Final = 57
SO_DETACH_REUSEPORT_BPF: Final = 68

SOL_PACKET: Final = 263
PACKET_STATISTICS: Final = 6
PACKET_AUXDATA: Final = 8
PACKET_IGNORE_OUTGOING: Final = 23

MSG_PEEK: Final = 0x02
MSG_CTRUNC: Final = 0x08
MSG_TRUNC: Final = 0x20
MSG_DONTWAIT: Final = 0x40
MSG_ERRQUEUE: Final = 0x2000
MSG_CMSG_CLOEXEC: Final = 0x4000_0000

TP_STATUS_USER: Final = 1 << 0
TP_STATUS_LOSING: Final = 1 << 2
TP_STATUS_CSUMNOTREADY: Final = 1 << 3
TP_STATUS_VLAN_VALID: Final = 1 << 4
TP_STATUS_VLAN_TPID_VALID: Final = 1 << 6
TP_STATUS_CSUM_VALID: Final = 1 << 7
