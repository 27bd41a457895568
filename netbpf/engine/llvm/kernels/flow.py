"""The flow of a packet as a number that both directions share: what ``replay --shard flow`` takes a capture apart by.

An IP packet's flow is its two addresses, its protocol and, for TCP, UDP, DCCP, SCTP and UDP-Lite, its two ports; of a fragment
the addresses alone. Any other Ethernet frame's is its two MAC addresses and its EtherType, a cooked one's the
type. VLAN tags are skipped, whatever of a header was not captured is left out.
"""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from netbpf.engine.llvm.kernels.language import u8, u16, u32, u64

NO_TYPE = 255


def mix(x: int) -> int:
    """A bijection of 64 bits (the finalizer of splitmix64, Steele and others 2014)."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


def be16(at: int) -> int:
    return (u8[at] << 8) | u8[at + 1]


def flow(packet: int, size: int, link: int, typed: int) -> int:
    """Of ``size`` bytes at ``packet`` after a link header of ``link`` bytes, with an EtherType at ``typed`` (NO_TYPE: none)."""
    if size < link:
        return 0
    end = packet + size
    at = packet + link
    if typed != NO_TYPE:
        kind = be16(packet + typed)
        while (kind == 0x8100 or kind == 0x88A8) and at + 4 <= end:
            kind = be16(at + 2)
            at += 4
        if kind != 0x0800 and kind != 0x86DD:
            if typed != 12:
                return mix(kind)
            one = u32[packet] | (u16[packet + 4] << 32)
            other = u32[packet + 6] | (u16[packet + 10] << 32)
            return mix(mix(one) + mix(other) + kind)
    if at + 20 > end:
        return 0
    version = u8[at] >> 4
    if version == 4:
        return flow4(at, end)
    if version == 6 and at + 40 <= end:
        return flow6(at, end)
    return 0


def flow4(at: int, end: int) -> int:
    one = u32[at + 12]
    other = u32[at + 16]
    if be16(at + 6) & 0x3FFF:
        return mix(mix(one) + mix(other))
    return ends(one, other, u8[at + 9], at + ((u8[at] & 15) << 2), end)


def flow6(at: int, end: int) -> int:
    one = mix(u64[at + 8]) + u64[at + 16]
    other = mix(u64[at + 24]) + u64[at + 32]
    protocol = u8[at + 6]
    at += 40
    while (protocol == 0 or protocol == 43 or protocol == 60) and at + 8 <= end:
        protocol = u8[at]
        at += (u8[at + 1] + 1) << 3
    if protocol == 44:
        return mix(mix(one) + mix(other))
    return ends(one, other, protocol, at, end)


def ends(one: int, other: int, protocol: int, transport: int, end: int) -> int:
    ported = protocol == 6 or protocol == 17 or protocol == 33 or protocol == 132 or protocol == 136
    if ported and transport + 4 <= end:
        one = mix(one) + u16[transport]
        other = mix(other) + u16[transport + 2]
    return mix(mix(one) + mix(other) + protocol)
