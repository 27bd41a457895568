"""Fields of ``__sk_buff`` by name, as a scenario sets them: numbers in host order, addresses as text, words for packet types.

Knows the sk_buff; which of them a program may read is the verifier's to say.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from netbpf.abi.context import KEPT_BYTES, SK_BUFF_FIELDS
from netbpf.abi.net import PACKET_BROADCAST, PACKET_HOST, PACKET_MULTICAST, PACKET_OTHERHOST, PACKET_OUTGOING
from netbpf.packet.skbuff import SkBuff
from netbpf.scenario.table import integer_of
from netbpf.scenario.toml_map import Node
from netbpf.sources.lexer import did_you_mean

POINTERS: Final = frozenset({"data", "data_end", "data_meta", "flow_keys", "sk"})
SETTABLE: Final = {f.name: f for f in SK_BUFF_FIELDS if f.name not in POINTERS}
_WORDS: Final = {
    "pkt_type": {
        "host": PACKET_HOST,
        "broadcast": PACKET_BROADCAST,
        "multicast": PACKET_MULTICAST,
        "otherhost": PACKET_OTHERHOST,
        "outgoing": PACKET_OUTGOING,
    }
}


def read_field(name: str, node: Node) -> Any:
    """The value for ``SkBuff``'s attribute of that name. Raises SourceError."""
    if name in POINTERS:
        node.fail_key(f"{name} is a pointer: the engine makes it, a scenario cannot")
    if name not in SETTABLE:
        node.fail_key(f"__sk_buff has no field {name!r}{did_you_mean(name, SETTABLE)}")
    words = SETTABLE[name].words
    if name.endswith("_ip6"):
        return _ip6(node)
    if words > 1:
        return _words(name, node, words)
    if isinstance(node.value, str):
        return _word(name, node)
    size = KEPT_BYTES.get(name, SETTABLE[name].size)
    return integer_of(node, name, 0, (1 << 8 * size) - 1)


def _words(name: str, node: Node, count: int) -> bytearray:
    """cb: up to five numbers."""
    if not node.is_array or len(node.array) > count:
        node.fail(f"{name} is a list of up to {count} numbers")
    values = [integer_of(n, name, 0, 0xFFFF_FFFF) for n in node.array]
    return bytearray(b"".join(v.to_bytes(4, "little") for v in values).ljust(4 * count, b"\0"))


def _ip6(node: Node) -> tuple[int, ...]:
    try:
        packed = ipaddress.IPv6Address(node.value).packed
    except ValueError:
        node.fail("an IPv6 address, as \"fd00::1\"")
    return tuple(int.from_bytes(packed[i : i + 4]) for i in range(0, 16, 4))


def _word(name: str, node: Node) -> int:
    if name.endswith("_ip4"):
        try:
            return int(ipaddress.IPv4Address(node.value))
        except ValueError:
            node.fail("an IPv4 address, as \"10.0.0.1\"")
    known = _WORDS.get(name, {})
    if node.value not in known:
        words = f" or one of {', '.join(known)}{did_you_mean(node.value, known)}" if known else ""
        node.fail(f"{name} is a number{words}")
    return known[node.value]


def apply_fields(skb: SkBuff, fields: dict[str, Any]) -> None:
    """Set them on a packet."""
    for name, value in fields.items():
        setattr(skb, name, bytearray(value) if name == "cb" else value)
