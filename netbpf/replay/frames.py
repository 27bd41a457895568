"""Frames for a device and for a reader: a captured record as what a TAP can be given, a frame as hex and as words."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from netbpf.abi.net import LINKTYPE_ETHERNET, VLAN_HLEN, linktype_name
from netbpf.errors import UsageError
from netbpf.packet.receive import ETHERNET_LIKE, receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff

HEX_LINE_BYTES = 16
MAX_HEX_BYTES = 256


class Sendable(NamedTuple):
    """A record as a frame; ``padded``: zeros stand for bytes that the capture did not keep."""

    frame: bytes
    padded: bool


def as_frame(record: Record) -> Sendable | None:
    """The Ethernet frame that makes a device receive a record; None for one that no socket would ever see.

    Bytes that were on the wire and not captured are zeros, so that the length is the packet's. A cooked or loopback capture
    gets the header that ``packet.receive`` makes up. UsageError: a link type without an Ethernet header.
    """
    if record.linktype == LINKTYPE_ETHERNET:
        return _padded(record.data, record.wirelen)
    skb = receive(record)
    if skb is None:
        return None
    if skb.dev_type not in ETHERNET_LIKE or skb.network_header <= 0:
        name = f"{record.linktype} ({linktype_name(record.linktype)})"
        raise UsageError(f"packets of link type {name} have no Ethernet header: no TAP can receive them; use --backend sim")
    return _padded(with_tag(skb), skb.len + VLAN_HLEN * skb.vlan_present)


def _padded(data: bytes, wirelen: int) -> Sendable:
    return Sendable(data.ljust(wirelen, b"\0"), len(data) < wirelen)


def with_tag(skb: SkBuff, length: int | None = None) -> bytes:
    """The frame (the first ``length`` bytes of the sk_buff of it) with a tag that the kernel moved out back in line."""
    data = skb.head if length is None else skb.head[:length]
    return put_tag(data, skb.vlan_proto, skb.vlan_tci) if skb.vlan_present else data


def put_tag(data: bytes, tpid: int, tci: int) -> bytes:
    """A frame with a VLAN tag behind its addresses; one that ends before stays as it is."""
    return data if len(data) < 12 else data[:12] + tpid.to_bytes(2) + tci.to_bytes(2) + data[12:]


def hex_dump(data: bytes, most: int = MAX_HEX_BYTES) -> str:
    """16 bytes a line with their offset, the printable ones beside; what lies behind ``most`` bytes is counted."""
    lines = []
    for at in range(0, min(len(data), most), HEX_LINE_BYTES):
        line = data[at : at + HEX_LINE_BYTES]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in line)
        lines.append(f"  {at:04x}  {line.hex(' '):47}  {text}")
    if len(data) > most:
        lines.append(f"  ... {len(data) - most} bytes more")
    return "\n".join(lines)


def decoded(frame: bytes) -> str:
    """One line in scapy's words; empty where scapy is not installed or makes nothing of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from scapy.layers.l2 import Ether
    except ImportError:
        return ""
    try:
        return str(Ether(frame).summary())
    except Exception:  # a dissector's own trouble with odd bytes is no news about the frame
        return ""


def describe_frame(frame: bytes) -> str:
    """The frame in hex, and in words where there are any."""
    words = decoded(frame)
    return hex_dump(frame) + (f"\n  {words}" if words else "")
