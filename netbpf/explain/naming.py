"""Loaded numbers in protocol terms: the name of what a number came from, its value and what it is compared with in that field's
form. Pure functions of a dissection and an origin."""

from __future__ import annotations

from typing import Final, NamedTuple

from netbpf.abi.context import SK_BUFF_FIELDS
from netbpf.abi.net import PACKET_TYPE_NAMES, SKF_LL_OFF, SKF_NET_OFF
from netbpf.explain.fields import BITS, Bits, Dissection, bits_of, format_number
from netbpf.explain.origin import SWAP, Origin, Transform
from netbpf.ints import bswap, s32

NETWORK_ORDER: Final = frozenset({"protocol", "vlan_proto", "remote_port"})  # 16 bits, told in host order


class Named(NamedTuple):
    """``label`` in words; ``kind`` and ``size`` in bytes say the form of its values (``fields.format_field``).

    ``swap``: bytes of a number in the register that are turned round before it is told, 0 for none.
    """

    label: str
    kind: str
    size: int = 0
    swap: int = 0

    def show(self, value: int) -> str:
        """A number of the register, as the reader of the label expects it."""
        if self.kind == "pkt_type":
            return PACKET_TYPE_NAMES[value] if value < len(PACKET_TYPE_NAMES) else str(value)
        turned = bswap(value, self.swap) if self.swap and value >> 8 * self.swap == 0 else value
        return format_number(self.kind, turned, self.size)


def context_field(off: int) -> str:
    """``skb->len`` for offset 0 of the context; words of arrays are numbered."""
    for field in SK_BUFF_FIELDS:
        if field.off <= off < field.off + field.size:
            name = f"skb->{field.name}"
            at = off - field.off
            if field.words > 1:
                return f"{name}[{at // 4}]" + (f"+{at % 4}" if at % 4 else "")
            return f"{name}+{at}" if at else name
    return f"ctx+{off}"


def name_of(dissection: Dissection, origin: Origin) -> Named:
    """What a number is called after all that was done to it."""
    source = origin.source
    if source.kind == "ctx":
        named, ops = _context(source.name, origin.ops)
    else:
        field = dissection.exact(source.off, source.size)
        kind = field.kind if field is not None else "num"
        named, ops = Named(dissection.name(source.off, source.size), kind, source.size), origin.ops
    if ops and ops[-1].sign == SWAP:
        named, ops = named._replace(swap=ops[-1].operand), ops[:-1]
    label, kind, rest = _cut(named.label, named.kind, ops)
    for transform in rest:
        label, kind = _applied(label, kind, transform)
    return named._replace(label=label, kind=kind)


def _context(name: str, ops: tuple[Transform, ...]) -> tuple[Named, tuple[Transform, ...]]:
    field = name.removeprefix("skb->")
    if field in NETWORK_ORDER:
        if ops and ops[0].sign == SWAP and ops[0].operand == 2:
            return Named(name, "hex", 2), ops[1:]
        return Named(name, "num" if field == "remote_port" else "hex", 2, swap=2), ops
    return Named(name, "pkt_type" if field == "pkt_type" and not ops else "num"), ops


def _cut(label: str, kind: str, ops: tuple[Transform, ...]) -> tuple[str, str, tuple[Transform, ...]]:
    """A mask, and a shift behind it, that cut out a part with a name of its own; or a shift that leaves the topmost part."""
    if not ops:
        return label, kind, ops
    layer = label.partition(".")[0]
    if ops[0].sign == "&":
        part = bits_of(label, ops[0].operand)
        if part is not None and not part.shift:
            return f"{layer}.{part.name}", "num", ops[1:]
        if part is not None and len(ops) > 1 and (ops[1].sign, ops[1].operand) == (">>", part.shift):
            return f"{layer}.{part.name}", "num", ops[2:]
    top = _topmost(label, ops[0])
    return (f"{layer}.{top.name}", "num", ops[1:]) if top is not None else (label, kind, ops)


def _topmost(label: str, transform: Transform) -> Bits | None:
    layer, _, name = label.partition(".")
    rows = BITS.get(f"{layer.partition('#')[0]}.{name}", ())
    if transform.sign != ">>" or not rows or rows[0].shift != transform.operand:
        return None
    return rows[0]


def _applied(label: str, kind: str, transform: Transform) -> tuple[str, str]:
    """One more transformation in the words."""
    if transform.sign == SWAP:
        return f"swap{8 * transform.operand}({label})", "num"
    if transform.sign == "cut":
        return label, kind
    if transform.sign in ("&", "|", "^"):
        kept = kind if kind in ("hex", "ip4") else "hex" if kind == "flags" else "num"
        operand = format_number(kept, transform.operand) if kept == "ip4" else hex(transform.operand)
        return f"{label} {transform.sign} {operand}", kept
    return f"{label} {transform.sign} {transform.operand}", "num"


def offset_text(offset: int) -> str:
    """How a packet load counts: ``23`` from skb->data, ``net+9`` and ``mac+12`` from a header."""
    offset = s32(offset)
    if offset >= 0:
        return str(offset)
    if offset >= SKF_NET_OFF:
        return f"net{offset - SKF_NET_OFF:+d}"
    return f"mac{offset - SKF_LL_OFF:+d}" if offset >= SKF_LL_OFF else str(offset)
