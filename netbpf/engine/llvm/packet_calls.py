"""The helpers on the sk_buff in native code, by the rules of ``packet.load``."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from netbpf.abi.net import BPF_HDR_START_MAC, BPF_HDR_START_NET
from netbpf.engine.interp.helpers.packets import INIT_NETNS_COOKIE, OVERFLOW_UID
from netbpf.engine.llvm.checks import WRITE
from netbpf.packet.load import INT_MAX, RELATIVE_OFFSET_MAX

if TYPE_CHECKING:
    from netbpf.engine.llvm.subprog import SubprogCode


def _give(s: SubprogCode, pc: int, at: str, allowed: str) -> None:
    """R4 (u32) bytes at ``at`` from skb->data into R3, or zeroes and -EFAULT where they are not ``allowed`` or not there."""
    f, known = s.f, s.known(pc, 4)
    s.owner.wants_flat = True
    size = f.math("and", s.get(4), 0xFFFF_FFFF)
    length = str(known.value) if known and known.kind == "num" else size
    to = s.pointer(pc, 3, 0, known.value if known and known.kind == "num" else size, WRITE)
    good, bad, done = f.fresh_label("copy"), f.fresh_label("zero"), f.fresh_label("loaded")
    inside = f.op(f"icmp sge i64 %cap, {f.math('add', at, size)}")
    f.cond(f.both(allowed, inside), good, bad)
    f.label(good)
    f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr {f.gep('%pkt', at)}, i64 {length}, i1 false)")
    f.br(done)
    f.label(bad)
    f.do(f"call void @llvm.memset.p0.i64(ptr {to}, i8 0, i64 {length}, i1 false)")
    f.br(done)
    f.label(done)
    s.set(0, f.op(f"phi i64 [ 0, %{good} ], [ {-errno.EFAULT}, %{bad} ]"))


def _load_bytes(s: SubprogCode, pc: int) -> bool:
    """R2 the offset from skb->data, a u32."""
    offset = s.f.math("and", s.get(2), 0xFFFF_FFFF)
    _give(s, pc, offset, s.f.test("ule", offset, INT_MAX))
    return True


def _load_bytes_relative(s: SubprogCode, pc: int) -> bool:
    """R2 the offset from the header that R5 names."""
    f, owner = s.f, s.owner
    offset, header = f.math("and", s.get(2), 0xFFFF_FFFF), f.math("and", s.get(5), 0xFFFF_FFFF)
    mac, network = owner.meta(f, "mac_header"), owner.meta(f, "network_header")
    from_mac, from_network = f.test("eq", header, BPF_HDR_START_MAC), f.test("eq", header, BPF_HDR_START_NET)
    has_mac = f.both(from_mac, f.op(f"icmp sge i64 {mac}, 0"))
    allowed = f.both(f.op(f"or i1 {has_mac}, {from_network}"), f.test("ule", offset, RELATIVE_OFFSET_MAX))
    start = f.math("add", f.select(from_mac, 64, mac, network), offset)
    _give(s, pc, f.math("sub", start, owner.meta(f, "data_off")), allowed)
    return True


def _of_socket(field: str, without: int) -> Callable[[SubprogCode, int], bool]:
    """A fact of the socket that owns the packet, or what there is without one."""

    def body(s: SubprogCode, pc: int) -> bool:
        f, owner = s.f, s.owner
        owned = f.test("ne", owner.meta(f, "sk"), 0)
        s.set(0, f.select(owned, 64, owner.meta(f, field), str(without)))
        return True

    return body


def _netns_cookie(s: SubprogCode, pc: int) -> bool:
    s.set(0, str(INIT_NETNS_COOKIE))
    return True


PACKET_CALLS: Final[dict[str, Callable[[SubprogCode, int], bool]]] = {
    "skb_load_bytes": _load_bytes,
    "skb_load_bytes_relative": _load_bytes_relative,
    "get_socket_cookie": _of_socket("sk_cookie", 0),
    "get_socket_uid": _of_socket("sk_uid", OVERFLOW_UID),
    "get_netns_cookie": _netns_cookie,
}
