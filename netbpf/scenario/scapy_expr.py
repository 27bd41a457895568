"""Packets written as scapy expressions, ``Ether()/IP()/TCP(dport=443)/b"x"``: read with ``ast``, never run as code.

What may stand there: calls of scapy's own layer classes with keyword arguments that are their fields, literals, lists, ``/``
between layers, ``*`` of a literal by a number. Everything else is refused with its place. Nothing is asked of the network: hosts
are addresses, never names, and addresses that scapy would look up (Ethernet, IP, ARP) are those of the laboratory.
"""

from __future__ import annotations

import ast
import importlib
import ipaddress
import re
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

from netbpf.abi.net import (
    LINKTYPE_ETHERNET,
    LINKTYPE_LINUX_SLL,
    LINKTYPE_LINUX_SLL2,
    LINKTYPE_NULL,
    LINKTYPE_RAW,
    LINKTYPE_USER0,
)
from netbpf.errors import UsageError
from netbpf.sources.lexer import did_you_mean

_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\Z")
MAX_TEXT: Final = 20_000
MAX_BYTES: Final = 1 << 17
MAX_DEPTH: Final = 60
OUR_MAC: Final = "02:00:00:00:00:01"
PEER_MAC: Final = "02:00:00:00:00:02"
OUR_IP, PEER_IP = "10.0.0.1", "10.0.0.2"
OUR_IP6, PEER_IP6 = "fd00::1", "fd00::2"
MISSING: Final = "scapy expressions need scapy, which is not installed: pip install 'netbpf[scapy]', or write the packet as hex"

_MODULES: Final = (
    "packet layers.l2 layers.inet layers.inet6 layers.dns layers.dhcp layers.dhcp6 layers.vxlan layers.sctp layers.ppp"
    " layers.l2tp layers.ntp layers.rip layers.vrrp layers.hsrp layers.llmnr layers.tftp layers.rtp layers.igmp layers.ipsec"
    " contrib.mpls contrib.geneve contrib.gtp contrib.ospf contrib.lldp contrib.igmp contrib.igmpv3 contrib.pim"
).split()
"""Where classes are looked for, in this order, each module imported only when those before it have no class of the name."""

LINKTYPES: Final = {
    "Ether": LINKTYPE_ETHERNET,
    "Dot3": LINKTYPE_ETHERNET,
    "IP": LINKTYPE_RAW,
    "IPv6": LINKTYPE_RAW,
    "CookedLinux": LINKTYPE_LINUX_SLL,
    "CookedLinuxV2": LINKTYPE_LINUX_SLL2,
    "Loopback": LINKTYPE_NULL,
}
"""The link type of a packet by its first layer."""


class ExpressionError(ValueError):
    """What is wrong, at ``start`` to ``end`` characters of the expression."""

    def __init__(self, message: str, start: int = 0, end: int = 0) -> None:
        self.start, self.end = start, end
        super().__init__(message)


class BuiltPacket(NamedTuple):
    """The bytes, their link type, and scapy's one-line summary."""

    data: bytes
    linktype: int
    summary: str


@cache
def build(text: str, *, bare: bool = False) -> BuiltPacket:
    """The packet of an expression. ``bare``: bytes that need no link header, of link type USER0 then.

    Raises ExpressionError, or UsageError where scapy is not installed."""
    if len(text) > MAX_TEXT:
        raise ExpressionError(f"{len(text)} characters: at most {MAX_TEXT}")
    try:
        tree = ast.parse(f"({text}\n)", mode="eval")  # so that it may have several lines
    except SyntaxError as e:
        start = min(max((e.offset or 2) - 2, 0), len(text)) if (e.lineno or 1) == 1 else 0
        raise ExpressionError(f"no expression: {e.msg}", start, start + 1) from None
    except (ValueError, MemoryError, RecursionError) as e:
        raise ExpressionError(f"no expression: {e}") from None
    packet = _Reader(text).value(tree.body)
    if not _is_packet(packet):
        raise ExpressionError("this is no packet: begin with a layer, as Ether()/IP()")
    return _bytes_of(packet, bare)


def _bytes_of(packet: Any, bare: bool) -> BuiltPacket:
    layer = packet
    while _is_packet(layer) and type(layer).__name__ != "NoPayload":
        _settle(layer)
        layer = layer.payload
    first = type(packet).__name__
    if first not in LINKTYPES and not bare:
        raise ExpressionError(f"a packet begins with its link header, as Ether(), or is bare IP: not with {first}")
    try:
        data = bytes(packet)
        summary = str(packet.summary())
    except Exception as e:  # scapy's builders raise whatever their fields do
        raise ExpressionError(f"scapy cannot build this packet: {type(e).__name__}: {e}") from None
    if len(data) > MAX_BYTES:
        raise ExpressionError(f"{len(data)} bytes: at most {MAX_BYTES}")
    return BuiltPacket(data, LINKTYPE_USER0 if bare else LINKTYPES[first], summary)


def _is_packet(value: Any) -> bool:
    from scapy.packet import Packet

    return isinstance(value, Packet)


def _settle(layer: Any) -> None:
    """Give the fields that scapy would fill from this machine's routes and interfaces the laboratory's addresses."""
    for described in layer.fields_desc:
        name = described.name
        if name in layer.fields:
            continue
        kinds = {type(f).__name__ for f in _alternatives(described)}
        address = next((ours for kind, ours in _LOOKED_UP.items() if kind in kinds), None)
        if address is not None:
            layer.fields[name] = address


_LOOKED_UP: Final = {
    "SourceMACField": PEER_MAC,
    "ARPSourceMACField": PEER_MAC,
    "DestMACField": OUR_MAC,
    "SourceIPField": PEER_IP,
    "DestIPField": OUR_IP,
    "SourceIP6Field": PEER_IP6,
    "DestIP6Field": OUR_IP6,
}
"""Kinds of fields whose default scapy looks up, and what stands there instead."""


def _alternatives(described: Any) -> list[Any]:
    """The fields that a field may be: those of a MultipleTypeField, the elements of a list, or itself."""
    if hasattr(described, "flds") and hasattr(described, "dflt"):
        return [described.dflt, *(row[0] for row in described.flds)]
    return [f for f in (described, getattr(described, "fld", None), getattr(described, "field", None)) if f is not None]


@cache
def _layer_class(name: str) -> Any:
    """The layer of that name, None where scapy has none. Raises UsageError without scapy."""
    try:
        from scapy.packet import Packet
    except ModuleNotFoundError:
        raise UsageError(MISSING) from None
    for module in _MODULES:
        found = getattr(_module(module), name, None)
        if isinstance(found, type) and issubclass(found, Packet) and found is not Packet and found.__name__ == name:
            return found
    return None


@cache
def _module(name: str) -> Any:
    """One of scapy's modules, None where this scapy has none; what it warns of at import is not the scenario's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(f"scapy.{name}")
        except ImportError:
            return None


def _layer_names() -> list[str]:
    """Names for suggestions: of the modules that are loaded by now."""
    import sys

    from scapy.packet import Packet

    loaded = (sys.modules.get(f"scapy.{module}") for module in _MODULES)
    classes = ((n, c) for m in loaded if m for n, c in vars(m).items() if isinstance(c, type))
    return [name for name, kind in classes if issubclass(kind, Packet) and kind is not Packet]


@dataclass
class _Reader:
    """Reads a syntax tree into packets and literals."""

    text: str

    def fail(self, node: ast.AST, message: str) -> ExpressionError:
        start = self._offset(getattr(node, "lineno", 1), getattr(node, "col_offset", 0))
        end = self._offset(getattr(node, "end_lineno", 1) or 1, getattr(node, "end_col_offset", 1) or 1)
        return ExpressionError(message, start, max(end, start + 1))

    def _offset(self, line: int, column: int) -> int:
        """Characters from the start of the text; ``ast`` counts columns in bytes, and a bracket stands in front."""
        lines = self.text.split("\n")
        if line > len(lines):
            return len(self.text)
        before = sum(len(row) + 1 for row in lines[: line - 1])
        column -= line == 1  # the bracket that was put in front
        return before + len(lines[line - 1].encode()[: max(column, 0)].decode(errors="ignore"))

    def value(self, node: ast.expr, depth: int = 0) -> Any:
        """A packet or a literal."""
        if depth > MAX_DEPTH:
            raise self.fail(node, "nested too deep")
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | bytes() | None as constant):
                return constant
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.List(elts=elements):
                return [self.value(e, depth + 1) for e in elements]
            case ast.Tuple(elts=elements):
                return tuple(self.value(e, depth + 1) for e in elements)
            case ast.BinOp(op=ast.Div(), left=left, right=right):
                return self._stack(node, self.value(left, depth + 1), self.value(right, depth + 1))
            case ast.BinOp(op=ast.Mult(), left=left, right=right):
                return self._repeated(node, self.value(left, depth + 1), self.value(right, depth + 1))
            case ast.Call(func=ast.Name(id=name)):
                return self._layer(node, name, depth)
        raise self.fail(node, "only scapy's layers, literals, / and * may stand in a packet expression")

    def _stack(self, node: ast.expr, left: Any, right: Any) -> Any:
        if not _is_packet(left) or not (_is_packet(right) or isinstance(right, str | bytes)):
            raise self.fail(node, "/ puts a layer or a payload on a layer")
        return left / (right.encode() if isinstance(right, str) else right)

    def _repeated(self, node: ast.expr, left: Any, right: Any) -> Any:
        if isinstance(left, int):
            left, right = right, left
        if not isinstance(left, str | bytes) or not isinstance(right, int) or isinstance(right, bool):
            raise self.fail(node, "* repeats a text or bytes: b\"x\" * 100")
        if not 0 <= len(left) * right <= MAX_BYTES:
            raise self.fail(node, f"at most {MAX_BYTES} bytes")
        return left * right

    # --- layers -------------------------------------------------------------------------------------------------------
    def _layer(self, node: ast.Call, name: str, depth: int) -> Any:
        kind = _layer_class(name)
        if kind is None:
            raise self.fail(node.func, f"scapy has no layer {name!r}{did_you_mean(name, _layer_names())}")
        fields = {f.name: f for f in kind.fields_desc}
        given: dict[str, Any] = {}
        if node.args and name == "Raw" and len(node.args) == 1:
            load = self.value(node.args[0], depth + 1)
            given["load"] = load.encode() if isinstance(load, str) else load
        elif node.args:
            raise self.fail(node.args[0], f"{name} takes fields by name only: {name}({next(iter(fields), 'field')}=...)")
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg not in fields:
                word = keyword.arg or "**"
                raise self.fail(keyword, f"{name} has no field {word!r}{did_you_mean(word, fields)}")
            value = self.value(keyword.value, depth + 1)
            self._check(keyword.value, fields[keyword.arg], value)
            if value is not None:  # which is what scapy writes for "find out"
                given[keyword.arg] = value
        try:
            return kind(**given)
        except Exception as e:  # scapy's fields raise whatever they do
            raise self.fail(node, f"scapy refuses this: {type(e).__name__}: {e}") from None

    def _check(self, node: ast.expr, field: Any, value: Any) -> None:
        """No names of hosts, which would be looked up, and no sets of values, which would be several packets."""
        kinds = [k.__name__ for f in _alternatives(field) for k in type(f).__mro__]
        holds_address = any(kind in ("IPField", "IP6Field") for kind in kinds)
        many = getattr(field, "islist", 0) or getattr(field, "holds_packets", 0)
        if isinstance(value, list | tuple) and not many:
            raise self.fail(node, f"{field.name} takes one value: a list or range would be several packets")
        for one in value if isinstance(value, list | tuple) else [value]:
            if holds_address and isinstance(one, str | bytes):
                self._check_address(node, one)
            if "MACField" in kinds and isinstance(one, str) and not _MAC.match(one):
                raise self.fail(node, f"{one!r} is no MAC address")

    def _check_address(self, node: ast.expr, text: str | bytes) -> None:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            why = "hosts are not looked up, and a network would be many packets"
            raise self.fail(node, f"{text!r} is no address: {why}") from None
