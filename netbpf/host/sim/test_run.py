"""BPF_PROG_TEST_RUN on an sk_buff, with the kernel's own habits: the Ethernet header is pulled before a socket filter runs
(so LD_ABS counts from the network header and ``skb->len`` is 14 less), it comes back as zeros, and only a few fields of
``struct __sk_buff`` may be given."""

from __future__ import annotations

import errno
import time
from struct import Struct
from typing import Final

from netbpf.abi.commands import (
    OFF_TEST_CTX_SIZE_OUT,
    OFF_TEST_DATA_SIZE_OUT,
    OFF_TEST_DURATION,
    OFF_TEST_RETVAL,
    PAGE_BYTES,
    TestRunAttr,
)
from netbpf.abi.net import ARPHRD_LOOPBACK, ETH_HLEN, ETH_P_IP, ETH_P_IPV6, PACKET_HOST, PACKET_MULTICAST, PACKET_OTHERHOST
from netbpf.abi.prog_types import ProgType
from netbpf.errors import ENOTSUPP, BpfError
from netbpf.host.sim.machine import Call
from netbpf.host.sim.objects import ProgObject
from netbpf.packet.receive import frame_protocol
from netbpf.packet.skbuff import SkBuff

SKB_ROOM: Final = 64 + 320  # headroom and struct skb_shared_info: what a page cannot hold of the packet
CTX_BYTES: Final = 192  # sizeof(struct __sk_buff)
CHECKSUM_COMPLETE: Final = 4
WIRE_LEN_MAX: Final = 65536
GSO_SEGS_MAX: Final = 65535
AF_INET, AF_INET6 = 2, 10
_IP6: Final = Struct(">4I")
MIN_BY_PROTOCOL: Final = {ETH_P_IP: 20, ETH_P_IPV6: 40}

# Fields of struct __sk_buff that come from the caller: name -> (offset, struct). All other bytes must be zero.
_U32, _U64 = Struct("<I"), Struct("<Q")
_FIELDS: Final[dict[str, tuple[int, Struct]]] = {
    "mark": (8, _U32),
    "priority": (32, _U32),
    "ingress_ifindex": (36, _U32),
    "ifindex": (40, _U32),
    "tstamp": (152, _U64),
    "wire_len": (160, _U32),
    "gso_segs": (164, _U32),
    "gso_size": (176, _U32),
    "hwtstamp": (184, _U64),
}
_CB: Final = slice(48, 68)

_L2: Final = frozenset({ProgType.SCHED_CLS, ProgType.SCHED_ACT})
_RUNNERS: Final = _L2 | {ProgType.SOCKET_FILTER, ProgType.CGROUP_SKB, ProgType.LWT_IN, ProgType.LWT_OUT, ProgType.LWT_XMIT}


def prog_test_run(call: Call, attr: TestRunAttr) -> int:
    if bool(attr.ctx_size_in) != bool(attr.ctx_in) or bool(attr.ctx_size_out) != bool(attr.ctx_out):
        raise BpfError(errno.EINVAL)
    prog = call.prog(attr.prog_fd)
    if prog.program.prog_type not in _RUNNERS:
        raise BpfError(ENOTSUPP)
    if attr.flags & ~CHECKSUM_COMPLETE or attr.cpu or attr.batch_size:
        raise BpfError(errno.EINVAL)
    frame = _copy_frame(call, attr)
    ctx = _copy_ctx(call, attr)
    is_l2 = prog.program.prog_type in _L2
    skb = _build(frame, ctx, is_l2)
    retval, duration = _run(call, prog, skb, max(attr.repeat, 1))
    out = frame if is_l2 else bytes(ETH_HLEN) + frame[ETH_HLEN:]
    _finish(call, attr, out, retval, duration)
    _finish_ctx(call, attr, ctx, skb)
    return 0


def _copy_frame(call: Call, attr: TestRunAttr) -> bytes:
    size = attr.data_size_in
    if not ETH_HLEN <= size <= PAGE_BYTES - SKB_ROOM:
        raise BpfError(errno.EINVAL)
    return call.memory.read(attr.data_in, size)


def _copy_ctx(call: Call, attr: TestRunAttr) -> bytes | None:
    """The caller's __sk_buff in full length, or None where none is given or wanted."""
    if not attr.ctx_in and not attr.ctx_out:
        return None
    size = attr.ctx_size_in
    if size > PAGE_BYTES or (size > CTX_BYTES and any(call.memory.read(attr.ctx_in + CTX_BYTES, size - CTX_BYTES))):
        raise BpfError(errno.E2BIG)
    return call.memory.read(attr.ctx_in, min(size, CTX_BYTES)).ljust(CTX_BYTES, b"\0")


def _build(frame: bytes, ctx: bytes | None, is_l2: bool) -> SkBuff:
    """eth_type_trans on the loopback device, then what the caller's context says."""
    given = {} if ctx is None else {name: s.unpack_from(ctx, at)[0] for name, (at, s) in _FIELDS.items()}
    if given.get("ifindex", 0) > 1:
        raise BpfError(errno.ENODEV)
    protocol = frame_protocol(frame)
    if len(frame) < ETH_HLEN + MIN_BY_PROTOCOL.get(protocol, 0):
        raise BpfError(errno.EINVAL)
    skb = SkBuff(
        head=frame,
        len=len(frame) - (0 if is_l2 else ETH_HLEN),
        data_off=0 if is_l2 else ETH_HLEN,
        network_header=ETH_HLEN,
        transport_header=ETH_HLEN,
        protocol=protocol,
        pkt_type=_pkt_type(frame),
        ifindex=1,
        dev_type=ARPHRD_LOOPBACK,
        has_sk=True,
    )
    _own(skb, frame)
    if ctx is not None:
        _take_ctx(skb, ctx, given)
    skb.wire_len = given.get("wire_len", 0) or skb.len
    return skb


def _pkt_type(frame: bytes) -> int:
    """On lo, whose address and broadcast address are both zeros: host, or some group, or another host."""
    to = frame[:6]
    if to == bytes(6):
        return PACKET_HOST
    return PACKET_MULTICAST if to[0] & 1 else PACKET_OTHERHOST


def _own(skb: SkBuff, frame: bytes) -> None:
    """The runner's socket: of the packet's family, its addresses those of the IP header."""
    if skb.protocol == ETH_P_IP:
        skb.family, skb.local_ip4, skb.remote_ip4 = AF_INET, int.from_bytes(frame[26:30]), int.from_bytes(frame[30:34])
    elif skb.protocol == ETH_P_IPV6:
        skb.family, skb.local_ip6, skb.remote_ip6 = AF_INET6, _IP6.unpack(frame[22:38]), _IP6.unpack(frame[38:54])


def _take_ctx(skb: SkBuff, ctx: bytes, given: dict[str, int]) -> None:
    """convert___skb_to_skb. Raises BpfError(EINVAL) for a field that may not be given."""
    rest = bytearray(ctx)
    for at, s in _FIELDS.values():
        rest[at : at + s.size] = bytes(s.size)
    rest[_CB] = bytes(20)
    if any(rest):
        raise BpfError(errno.EINVAL)
    wire_len = given["wire_len"]
    if wire_len and not skb.len <= wire_len <= WIRE_LEN_MAX:
        raise BpfError(errno.EINVAL)
    if given["gso_segs"] > GSO_SEGS_MAX:
        raise BpfError(errno.EINVAL)
    skb.mark, skb.priority, skb.ingress_ifindex = given["mark"], given["priority"], given["ingress_ifindex"]
    skb.tstamp, skb.gso_segs, skb.hwtstamp = given["tstamp"], given["gso_segs"], given["hwtstamp"]
    skb.gso_size = given["gso_size"] & 0xFFFF
    skb.cb[:] = ctx[_CB]


def _run(call: Call, prog: ProgObject, skb: SkBuff, repeat: int) -> tuple[int, int]:
    """(retval, mean nanoseconds)."""
    loaded = prog.loaded(call.machine.engine, call.machine.env)
    started, r0 = time.perf_counter_ns(), 0
    for _ in range(repeat):
        r0 = loaded.run_one(skb)
    return r0 & 0xFFFF_FFFF, (time.perf_counter_ns() - started) // repeat


def _finish(call: Call, attr: TestRunAttr, out: bytes, retval: int, duration: int) -> None:
    """bpf_test_finish: the packet, clamped to the caller's hint (ENOSPC), and the numbers."""
    cut = bool(attr.data_size_out) and len(out) > attr.data_size_out
    if attr.data_out:
        _write_out(call, attr.data_out, out[: attr.data_size_out] if cut else out, cut)
    call.put_u32(OFF_TEST_DATA_SIZE_OUT, len(out))
    call.put_u32(OFF_TEST_RETVAL, retval)
    call.put_u32(OFF_TEST_DURATION, min(duration, 0xFFFF_FFFF))
    if cut:
        raise BpfError(errno.ENOSPC)


def _write_out(call: Call, address: int, data: bytes, cut: bool) -> None:
    """A bad address is EFAULT, but for data that is cut short the kernel's errno stays ENOSPC."""
    try:
        call.memory.write(address, data)
    except BpfError:
        raise BpfError(errno.ENOSPC if cut else errno.EFAULT) from None


def _finish_ctx(call: Call, attr: TestRunAttr, ctx: bytes | None, skb: SkBuff) -> None:
    if ctx is None or not attr.ctx_out:
        return
    out = bytearray(ctx)
    for name, (at, s) in _FIELDS.items():
        if name != "gso_size":
            s.pack_into(out, at, getattr(skb, name))
    out[_CB] = skb.cb
    length = min(CTX_BYTES, attr.ctx_size_out)
    _write_out(call, attr.ctx_out, bytes(out[:length]), length < CTX_BYTES)
    call.put_u32(OFF_TEST_CTX_SIZE_OUT, CTX_BYTES)
    if length < CTX_BYTES:
        raise BpfError(errno.ENOSPC)
