"""LD_ABS, LD_IND and skb_load_bytes in native code, by the rule of ``packet.load``.

``%pkt`` is skb->data, ``%cap`` how many bytes from there on are at hand. Offsets below zero reach the network header
(SKF_NET_OFF) or the MAC header (SKF_LL_OFF) through Meta.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netbpf.abi.net import SKF_LL_OFF, SKF_NET_OFF
from netbpf.ints import s32, u32
from netbpf.isa.instruction import Instruction
from netbpf.isa.opcodes import BPF_ABS, SIZE_BYTES, bpf_mode, bpf_size

if TYPE_CHECKING:
    from netbpf.engine.llvm.lower import SubprogLowerer


def emit_packet_load(s: SubprogLowerer, i: Instruction) -> str:
    """The loaded value as R0; a load outside the packet leaves the subprogram with 0."""
    size = SIZE_BYTES[bpf_size(i.code)]
    f = s.f
    if bpf_mode(i.code) == BPF_ABS:
        offset = s32(i.imm)
        at = _constant(s, offset, size) if offset >= 0 else _negative(s, str(offset), size)
    else:
        low = f.trunc(f.op(f"add i64 {s.get(i.src)}, {u32(i.imm)}"), 32)
        at = _variable(s, f.sext(low, 32), size)
    value = f.load(8 * size, at)
    return f.zext(f.bswap(value, 8 * size), 8 * size)


def _inside(s: SubprogLowerer, test: str) -> None:
    """Go on where ``test`` holds, else end with 0."""
    ok = s.f.fresh_label("in")
    s.f.cond(s.f.op(f"call i1 @llvm.expect.i1(i1 {test}, i1 true)"), ok, "abort")
    s.f.label(ok)


def _constant(s: SubprogLowerer, offset: int, size: int) -> str:
    _inside(s, s.f.op(f"icmp sge i64 %cap, {offset + size}"))
    return s.f.gep("%pkt", offset)


def _negative(s: SubprogLowerer, offset: str, size: int) -> str:
    """A pointer for an offset below zero, counted from a header."""
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
    return f.gep("%pkt", at)


def _variable(s: SubprogLowerer, offset: str, size: int) -> str:
    """A pointer for an offset known at run time only."""
    f = s.f
    plain, below, done = f.fresh_label("plain"), f.fresh_label("below"), f.fresh_label("at")
    f.cond(f.op(f"icmp sge i64 {offset}, 0"), plain, below)
    f.label(below)
    low = _negative(s, offset, size)
    from_below = f.fresh_label("low")
    f.label(from_below)
    f.br(done)
    f.label(plain)
    _inside(s, f.op(f"icmp sge i64 %cap, {f.op(f'add i64 {offset}, {size}')}"))
    high = f.gep("%pkt", offset)
    from_plain = f.fresh_label("high")
    f.label(from_plain)
    f.br(done)
    f.label(done)
    return f.op(f"phi ptr [ {low}, %{from_below} ], [ {high}, %{from_plain} ]")
