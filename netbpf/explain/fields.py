"""Packet bytes by the names of their protocol fields: which field lies at an offset, and its value in that field's own form.

A table of headers and a rule each for what follows; needs no packet library. Field names are scapy's where it has one. Never
raises on any bytes: a header that is cut keeps its names (a load that misses them can be told by name), and the walk ends where
the byte that would lead on is missing. Offsets count bytes of ``SkBuff.head``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from netbpf.abi.net import (
    DLT_RAW,
    DLT_RAW_OPENBSD,
    ETH_HLEN,
    ETH_P_802_3_MIN,
    ETH_P_8021AD,
    ETH_P_8021Q,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    LINKTYPE_IPV4,
    LINKTYPE_IPV6,
    LINKTYPE_RAW,
)
from netbpf.packet.load import data_end
from netbpf.packet.skbuff import SkBuff

MAX_LAYERS: Final = 32
RAW_IP: Final = frozenset({DLT_RAW, DLT_RAW_OPENBSD, LINKTYPE_RAW, LINKTYPE_IPV4, LINKTYPE_IPV6})


class Field(NamedTuple):
    """``size`` bytes at ``off``. ``kind`` is the form of its value: num, hex, mac, ip4, ip6, flags, bytes."""

    layer: str
    name: str
    off: int
    size: int
    kind: str

    @property
    def label(self) -> str:
        """``IPv4.proto``."""
        return f"{self.layer}.{self.name}"

    @property
    def end(self) -> int:
        return self.off + self.size


class Layer(NamedTuple):
    """A header, or the ``payload`` behind the last one: bytes [off, end)."""

    name: str
    off: int
    end: int


class Bits(NamedTuple):
    """A part of a field that has a name of its own: ``(value & mask) >> shift``."""

    name: str
    mask: int

    @property
    def shift(self) -> int:
        return (self.mask & -self.mask).bit_length() - 1


@dataclass(frozen=True, slots=True)
class Dissection:
    """``fields`` in the order of their offsets, those of ``payload`` last; ``end`` is where the packet's bytes end."""

    layers: tuple[Layer, ...]
    fields: tuple[Field, ...]
    data: bytes
    end: int

    def field_at(self, off: int) -> Field | None:
        """The field that has the byte at ``off``."""
        i = bisect_right(self.fields, off, key=lambda f: f.off) - 1
        return self.fields[i] if i >= 0 and off < self.fields[i].end else None

    def name(self, off: int, size: int) -> str:
        """What ``size`` bytes at ``off`` are called: ``IPv4.proto``; ``IPv4.src[2:4]`` for a part; ``TCP.sport..dport`` and
        ``Ethernet.type..IPv4.tos`` for several; ``TCP payload[0:4]``; ``byte 90`` where nothing has a name."""
        first, last = self.field_at(off), self.field_at(off + max(size, 1) - 1)
        if first is None or last is None:
            return f"byte {off}" if size == 1 else f"bytes {off}..{off + size - 1}"
        if first is last:
            return first.label if size == first.size else _part(first, off, size)
        tail = last.name if first.layer == last.layer else last.label
        return f"{first.label}..{tail}"

    def exact(self, off: int, size: int) -> Field | None:
        """The field that is these very bytes."""
        found = self.field_at(off)
        return found if found is not None and (found.off, found.size) == (off, size) else None

    def value(self, field: Field) -> str:
        """The field's value in its own form, "" where bytes of it are missing."""
        data = self.data[field.off : min(field.end, self.end)]
        return format_field(field.kind, data) if len(data) == field.size else ""

    def summary(self) -> str:
        """``IPv4 10.0.0.1 > 10.0.0.2 TCP 40000 > 443``: the layers, addresses and ports where they are known."""
        words = []
        for layer in self.layers:
            if layer.name in ("Ethernet", "payload"):
                continue
            words.append(layer.name + "".join(f" {self._pair(layer, a, b)}" for a, b in _ENDS if self._has(layer, a, b)))
        return " ".join(words) or (self.layers[0].name if self.layers else "no bytes")

    def _has(self, layer: Layer, a: str, b: str) -> bool:
        return all(self._text(layer, name) for name in (a, b))

    def _pair(self, layer: Layer, a: str, b: str) -> str:
        return f"{self._text(layer, a)} > {self._text(layer, b)}"

    def _text(self, layer: Layer, name: str) -> str:
        found = next((f for f in self.fields if f.layer == layer.name and f.name == name), None)
        return self.value(found) if found is not None else ""


_ENDS: Final = (("src", "dst"), ("sport", "dport"), ("psrc", "pdst"))


def _part(field: Field, off: int, size: int) -> str:
    at = off - field.off
    if field.name:
        return f"{field.label}[{at}:{at + size}]" if size > 1 else f"{field.label}[{at}]"
    return f"{field.layer}[{at}:{at + size}]"


# --- forms of values --------------------------------------------------------------------------------------------------
TCP_FLAGS: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


def format_field(kind: str, data: bytes) -> str:
    """The value of a field's bytes, which are in network order."""
    match kind:
        case "mac":
            return data.hex(":")
        case "ip4" if len(data) == 4:
            return str(IPv4Address(data))
        case "ip6" if len(data) == 16:
            return str(IPv6Address(data))
        case "bytes":
            return data.hex() if len(data) <= 16 else f"{data[:16].hex()}.. ({len(data)} bytes)"
    return format_number(kind, int.from_bytes(data), len(data))


def format_number(kind: str, value: int, size: int = 0) -> str:
    """A number in the form of a field of ``kind`` of ``size`` bytes: for what a field's value is compared with."""
    match kind:
        case "hex":
            return f"{value:#0{2 + 2 * (size or 1)}x}"
        case "flags":
            names = "+".join(name for i, name in enumerate(TCP_FLAGS) if value >> i & 1)
            return f"{value:#04x} {names}".rstrip()
        case "ip4" if 0 <= value < 1 << 32:
            return str(IPv4Address(value))
        case "ip6" if 0 <= value < 1 << 128:
            return str(IPv6Address(value))
        case "mac" if 0 <= value < 1 << 48:
            return value.to_bytes(6).hex(":")
    return str(value)


# --- the table of headers ---------------------------------------------------------------------------------------------
Row = tuple[str, int, str]  # name, size, kind


def _rows(text: str) -> tuple[Row, ...]:
    """``"sport:2 type:2:hex"``; the kind is num where it is not said."""
    words = (word.split(":") for word in text.split())
    return tuple((w[0], int(w[1]), w[2] if len(w) > 2 else "num") for w in words)


HEADERS: Final[dict[str, tuple[Row, ...]]] = {
    "Ethernet": _rows("dst:6:mac src:6:mac type:2:hex"),
    "802.3": _rows("dst:6:mac src:6:mac len:2"),
    "LLC": _rows("dsap:1:hex ssap:1:hex ctrl:1:hex"),
    "VLAN": _rows("tci:2:hex type:2:hex"),
    "SLL": _rows("pkttype:2 hatype:2 halen:2 src:8:bytes proto:2:hex"),
    "SLL2": _rows("proto:2:hex reserved:2 ifindex:4 hatype:2 pkttype:1 halen:1 src:8:bytes"),
    "Loopback": _rows("type:4:hex"),
    "ARP": _rows("hwtype:2 ptype:2:hex hwlen:1 plen:1 op:2 hwsrc:6:mac psrc:4:ip4 hwdst:6:mac pdst:4:ip4"),
    "IPv4": _rows("ver_ihl:1:hex tos:1:hex len:2 id:2 flags_frag:2:hex ttl:1 proto:1 chksum:2:hex src:4:ip4 dst:4:ip4"),
    "IPv6": _rows("ver_tc_fl:4:hex plen:2 nh:1 hlim:1 src:16:ip6 dst:16:ip6"),
    "HopByHop": _rows("nh:1 len:1"),
    "Routing": _rows("nh:1 len:1 type:1 segleft:1"),
    "DestOpt": _rows("nh:1 len:1"),
    "Fragment": _rows("nh:1 res:1 off_m:2:hex id:4"),
    "AH": _rows("nh:1 len:1 reserved:2 spi:4:hex seq:4"),
    "ESP": _rows("spi:4:hex seq:4"),
    "TCP": _rows("sport:2 dport:2 seq:4 ack:4 dataofs:1:hex flags:1:flags window:2 chksum:2:hex urgptr:2"),
    "UDP": _rows("sport:2 dport:2 len:2 chksum:2:hex"),
    "SCTP": _rows("sport:2 dport:2 tag:4:hex chksum:4:hex"),
    "ICMP": _rows("type:1 code:1 chksum:2:hex id:2 seq:2"),
    "ICMPv6": _rows("type:1 code:1 cksum:2:hex body:4:bytes"),
    "IGMP": _rows("type:1:hex mrcode:1 chksum:2:hex gaddr:4:ip4"),
    "GRE": _rows("flags:2:hex proto:2:hex"),
}
"""The fixed part of every header, in order."""

BITS: Final[dict[str, tuple[Bits, ...]]] = {
    "IPv4.ver_ihl": (Bits("version", 0xF0), Bits("ihl", 0x0F)),
    "IPv4.tos": (Bits("dscp", 0xFC), Bits("ecn", 0x03)),
    "IPv4.flags_frag": (Bits("flags", 0xE000), Bits("DF", 0x4000), Bits("MF", 0x2000), Bits("frag", 0x1FFF)),
    "IPv6.ver_tc_fl": (Bits("version", 0xF000_0000), Bits("tc", 0x0FF0_0000), Bits("fl", 0x000F_FFFF)),
    "VLAN.tci": (Bits("prio", 0xE000), Bits("dei", 0x1000), Bits("vlan", 0x0FFF)),
    "Fragment.off_m": (Bits("offset", 0xFFF8), Bits("m", 0x0001)),
    "TCP.dataofs": (Bits("dataofs", 0xF0),),
    "TCP.flags": tuple(Bits(name, 1 << i) for i, name in enumerate(TCP_FLAGS)),
}
"""Parts of fields by the field's label without a number."""


def bits_of(label: str, mask: int) -> Bits | None:
    """The named part of a field that ``mask`` cuts out."""
    layer, _, name = label.partition(".")
    return next((b for b in BITS.get(f"{layer.partition('#')[0]}.{name}", ()) if b.mask == mask), None)


# --- the walk -----------------------------------------------------------------------------------------------------------
Next = tuple[str, int] | None
"""The header that follows, and where; None at the end of what is known."""


class _Walk:
    """A packet on its way through the table."""

    def __init__(self, data: bytes, end: int) -> None:
        self.data, self.end = data, end
        self.layers: list[Layer] = []
        self.fields: list[Field] = []

    def run(self, first: Next) -> Dissection:
        step, at = first, 0
        while step is not None and len(self.layers) < MAX_LAYERS:
            name, off = step
            at, step = self._header(name, off)
        if at < self.end:
            self._payload(at)
        return Dissection(tuple(self.layers), tuple(self.fields), self.data, self.end)

    def _header(self, name: str, off: int) -> tuple[int, Next]:
        """(where the header ends, what follows it)."""
        seen = sum(layer.name.partition("#")[0] == name for layer in self.layers)
        label, at = f"{name}#{seen + 1}" if seen else name, off
        for field, size, kind in HEADERS[name]:
            self.fields.append(Field(label, field, at, size, kind))
            at += size
        end, following = RULES[name](self, off, at)
        if end > at:
            self.fields.append(Field(label, "options", at, end - at, "bytes"))
        self.layers.append(Layer(label, off, max(end, at)))
        return max(end, at), following

    def _payload(self, at: int) -> None:
        last = self.layers[-1].name if self.layers else ""
        name = f"{last} payload" if last else "packet"
        self.fields.append(Field(name, "", at, self.end - at, "bytes"))
        self.layers.append(Layer("payload", at, self.end))

    # --- bytes that may be missing ----------------------------------------------------------------------------------------
    def number(self, off: int, size: int) -> int:
        """-1 where bytes are missing."""
        data = self.data[off : min(off + size, self.end)]
        return int.from_bytes(data) if len(data) == size else -1


def _by_type(walk: _Walk, kind: int, off: int) -> Next:
    if 0 <= kind < ETH_P_802_3_MIN:
        return "LLC", off
    name = BY_ETHERTYPE.get(kind)
    return (name, off) if name else None


def _by_proto(proto: int, off: int) -> Next:
    name = BY_IP_PROTO.get(proto)
    return (name, off) if name else None


def _typed(at: int) -> Rule:
    """A header with the EtherType of the next one ``at`` bytes into it."""
    return lambda walk, off, end: (end, _by_type(walk, walk.number(off + at, 2), end))


def _last(walk: _Walk, off: int, end: int) -> tuple[int, Next]:
    return end, None


def _loopback(walk: _Walk, off: int, end: int) -> tuple[int, Next]:
    return end, _raw_ip(walk.data, end)


def _ipv4(walk: _Walk, off: int, end: int) -> tuple[int, Next]:
    end = max(end, off + 4 * (max(walk.number(off, 1), 0) & 0xF))
    if max(walk.number(off + 6, 2), 0) & 0x1FFF:  # a fragment but the first has no header inside
        return end, None
    return end, _by_proto(walk.number(off + 9, 1), end)


def _ipv6(walk: _Walk, off: int, end: int) -> tuple[int, Next]:
    proto = walk.number(off + 6, 1)
    return end, _by_proto(proto, end) or _extension(proto, end)


def _extension(proto: int, off: int) -> Next:
    name = EXTENSIONS.get(proto)
    return (name, off) if name else None


def _options(walk: _Walk, off: int, end: int) -> tuple[int, Next]:
    """Hop-by-hop, routing, destination options: their length counts eight bytes, the first eight not."""
    proto, end = walk.number(off, 1), off + 8 * (max(walk.number(off + 1, 1), 0) + 1)
    return end, _by_proto(proto, end) or _extension(proto, end)


def _fragment(walk: _Walk, off: int, end: int) -> tuple[int, Next]:
    if max(walk.number(off + 2, 2), 0) & 0xFFF8:
        return end, None
    proto = walk.number(off, 1)
    return end, _by_proto(proto, end) or _extension(proto, end)


def _ah(walk: _Walk, off: int, end: int) -> tuple[int, Next]:
    proto, end = walk.number(off, 1), max(end, off + 4 * (max(walk.number(off + 1, 1), 0) + 2))
    return end, _by_proto(proto, end) or _extension(proto, end)


def _tcp(walk: _Walk, off: int, end: int) -> tuple[int, Next]:
    return max(end, off + 4 * (max(walk.number(off + 12, 1), 0) >> 4)), None


def _gre(walk: _Walk, off: int, end: int) -> tuple[int, Next]:
    flags = max(walk.number(off, 2), 0)
    end += 4 * sum(1 for bit in (0x8000, 0x2000, 0x1000) if flags & bit)
    return end, None if flags & 0x4007 else _by_type(walk, walk.number(off + 2, 2), end)


Rule = Callable[[_Walk, int, int], tuple[int, Next]]
RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(HEADERS, _last),
    "Ethernet": _typed(12),
    "802.3": lambda walk, off, end: (end, ("LLC", end)),
    "VLAN": _typed(2),
    "SLL": _typed(14),
    "SLL2": _typed(0),
    "Loopback": _loopback,
    "IPv4": _ipv4,
    "IPv6": _ipv6,
    "HopByHop": _options,
    "Routing": _options,
    "DestOpt": _options,
    "Fragment": _fragment,
    "AH": _ah,
    "TCP": _tcp,
    "GRE": _gre,
}
"""By header: (walk, start, end of the fixed part) -> (where it ends, what follows)."""

BY_ETHERTYPE: Final = {
    ETH_P_IP: "IPv4",
    ETH_P_IPV6: "IPv6",
    ETH_P_ARP: "ARP",
    ETH_P_8021Q: "VLAN",
    ETH_P_8021AD: "VLAN",
    0x9100: "VLAN",
    0x6558: "Ethernet",
}
BY_IP_PROTO: Final = {
    1: "ICMP",
    2: "IGMP",
    4: "IPv4",
    6: "TCP",
    17: "UDP",
    41: "IPv6",
    47: "GRE",
    50: "ESP",
    51: "AH",
    58: "ICMPv6",
    132: "SCTP",
    136: "UDP",
}
EXTENSIONS: Final = {0: "HopByHop", 43: "Routing", 44: "Fragment", 60: "DestOpt"}
LINK_HEADERS: Final = {4: "Loopback", 16: "SLL", 20: "SLL2"}
"""Link headers of the view of a savefile, by their bytes before the network header."""


def _raw_ip(data: bytes, off: int) -> Next:
    version = data[off] >> 4 if off < len(data) else 0
    return {4: ("IPv4", off), 6: ("IPv6", off)}.get(version)


def _first(skb: SkBuff, linktype: int) -> Next:
    """The outermost header of what ``packet.receive`` made."""
    start = max(skb.mac_header, 0)
    before = skb.network_header - start
    if before == ETH_HLEN:
        kind = int.from_bytes(skb.head[start + 12 : start + 14])
        short = len(skb.head) >= start + ETH_HLEN and kind < ETH_P_802_3_MIN
        return ("802.3" if short else "Ethernet"), start
    if before in LINK_HEADERS:
        return LINK_HEADERS[before], start
    if before == 0 and skb.protocol:
        return _by_type(_Walk(skb.head, data_end(skb)), skb.protocol, start)
    return _raw_ip(skb.head, start) if linktype in RAW_IP else None


def dissect(skb: SkBuff, linktype: int = 1) -> Dissection:
    """The fields of a packet as a socket sees it; ``linktype`` tells what a headerless packet of the view ``file`` is."""
    return _Walk(skb.head, data_end(skb)).run(_first(skb, linktype))


def fields_between(dissection: Dissection, start: int, end: int) -> Iterator[Field]:
    """The fields that have a byte in [start, end)."""
    return (f for f in dissection.fields if f.off < end and f.end > start)
