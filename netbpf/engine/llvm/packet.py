"""LD_ABS, LD_IND and skb_load_bytes in native code, by the rule of ``packet.load``.

``%pkt`` is skb->data, ``%cap`` how many bytes from there on are at hand; the first MAC_BYTES are at ``%mac`` (see
``lower.Surroundings``). Offsets below zero reach the network header (SKF_NET_OFF) or the MAC header (SKF_LL_OFF) through Meta.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netbpf.abi.net import SKF_LL_OFF, SKF_NET_OFF
from netbpf.ints import s32, u32
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import BPF_ABS, SIZE_BYTES, bpf_mode, bpf_size

MAC_BYTES: Final = 12

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode


def emit_packet_load(s: SubprogCode, i: Instruction) -> str:
    """The loaded value as R0; a load outside the packet leaves the subprogram with 0."""
    size = SIZE_BYTES[bpf_size(i.code)]
    f = s.f
    if bpf_mode(i.code) == BPF_ABS:
        offset = s32(i.imm)
        value = _constant(s, offset, size) if offset >= 0 else _anywhere(s, _negative(s, str(offset), size), size)
    else:
        low = f.trunc(f.op(f"add i64 {s.get(i.src)}, {u32(i.imm)}"), 32)
        value = _variable(s, f.sext(low, 32), size)
    return f.zext(f.bswap(value, 8 * size), 8 * size)


def _inside(s: SubprogCode, test: str) -> None:
    """Go on where ``test`` holds, else end with 0."""
    ok = s.f.fresh_label("in")
    s.f.cond(s.f.op(f"call i1 @llvm.expect.i1(i1 {test}, i1 true)"), ok, "abort")
    s.f.label(ok)


def _constant(s: SubprogCode, offset: int, size: int) -> str:
    """The bytes at an offset that the program states."""
    _inside(s, s.f.op(f"icmp sge i64 %cap, {offset + size}"))
    return bytes_at(s, offset, size)


def bytes_at(s: SubprogCode, offset: int, size: int) -> str:
    """The same of a packet that is known to hold them."""
    if offset >= MAC_BYTES:
        return s.f.load(8 * size, s.f.gep("%pkt", offset))
    if offset + size <= MAC_BYTES:
        return s.f.load(8 * size, s.f.gep("%mac", offset))
    return _anywhere(s, str(offset), size)


def _anywhere(s: SubprogCode, at: str, size: int) -> str:
    """The bytes at an offset from skb->data that is inside the packet, each from its own side of the tag."""
    f, bits = s.f, 8 * size
    value = ""
    for n in range(size):
        where = f.op(f"add i64 {at}, {n}")
        base = f.op(f"select i1 {f.op(f'icmp slt i64 {where}, {MAC_BYTES}')}, ptr %mac, ptr %pkt")
        byte = f.zext(f.load(8, f.gep(base, where)), 8, bits)
        if n:
            byte = f.op(f"shl i{bits} {byte}, {8 * n}")
        value = f.op(f"or i{bits} {value}, {byte}") if value else byte
    return value


def _negative(s: SubprogCode, offset: str, size: int) -> str:
    """The offset from skb->data that one below zero means, counted from a header."""
    f, owner = s.f, s.owner
    network = f.op(f"add i64 {owner.meta(f, 'network_header')}, {f.op(f'sub i64 {offset}, {SKF_NET_OFF}')}")
    link = f.op(f"add i64 {owner.meta(f, 'mac_header')}, {f.op(f'sub i64 {offset}, {SKF_LL_OFF}')}")
    is_network = f.op(f"icmp sge i64 {offset}, {SKF_NET_OFF}")
    _inside(s, f.op(f"icmp sge i64 {offset}, {SKF_LL_OFF}"))
    has_mac = f.op(f"icmp sge i64 {owner.meta(f, 'mac_header')}, 0")
    _inside(s, f.op(f"or i1 {is_network}, {has_mac}"))
    data_off = owner.meta(f, "data_off")
    at = f.op(f"sub i64 {f.select(is_network, 64, network, link)}, {data_off}")
    _inside(s, f.op(f"icmp sge i64 %cap, {f.op(f'add i64 {at}, {size}')}"))
    _inside(s, f.op(f"icmp sge i64 {f.op(f'add i64 {at}, {data_off}')}, 0"))
    return at


def _variable(s: SubprogCode, offset: str, size: int) -> str:
    """The bytes at an offset known at run time only; most lie behind the link header."""
    f, bits = s.f, 8 * size
    plain, early, below, start, done = (f.fresh_label(n) for n in ("plain", "early", "below", "start", "loaded"))
    f.cond(f.op(f"call i1 @llvm.expect.i1(i1 {f.op(f'icmp sge i64 {offset}, {MAC_BYTES}')}, i1 true)"), plain, early)
    f.label(early)
    f.cond(f.op(f"icmp sge i64 {offset}, 0"), start, below)
    f.label(below)
    negative = _negative(s, offset, size)
    from_below = f.fresh_label("negative")
    f.label(from_below)
    f.br("any" + done)
    f.label(start)
    _inside(s, f.op(f"icmp sge i64 %cap, {f.op(f'add i64 {offset}, {size}')}"))
    from_start = f.fresh_label("positive")
    f.label(from_start)
    f.br("any" + done)
    f.label("any" + done)
    slow = _anywhere(s, f.op(f"phi i64 [ {negative}, %{from_below} ], [ {offset}, %{from_start} ]"), size)
    f.br(done)
    f.label(plain)
    _inside(s, f.op(f"icmp sge i64 %cap, {f.op(f'add i64 {offset}, {size}')}"))
    fast = f.load(bits, f.gep("%pkt", offset))
    from_plain = f.fresh_label("fast")
    f.label(from_plain)
    f.br(done)
    f.label(done)
    return f.op(f"phi i{bits} [ {slow}, %any{done} ], [ {fast}, %{from_plain} ]")
