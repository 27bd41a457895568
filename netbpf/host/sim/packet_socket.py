"""AF_PACKET: what struct packet_sock keeps and does. Bytes and numbers only; the Python face is ``socket``."""

from __future__ import annotations

import errno
import threading
from collections import deque
from dataclasses import replace
from struct import Struct
from typing import Final, NamedTuple

from netbpf.abi import sockopt as so
from netbpf.abi.net import ETH_HLEN, PACKET_OUTGOING, VLAN_HLEN, VLAN_PROTOCOLS
from netbpf.errors import BpfError
from netbpf.host.sim.filter import SocketFilter
from netbpf.host.sim.machine import Machine
from netbpf.host.sim.network import SK_BUFF_BYTES, NetDevice, Network
from netbpf.host.sim.objects import KObject
from netbpf.packet.skbuff import SkBuff

MIN_RCVBUF: Final = 2048 + SK_BUFF_BYTES
AUXDATA = Struct("<IIIHHHH")  # struct tpacket_auxdata
STATISTICS = Struct("<II")  # struct tpacket_stats


class Queued(NamedTuple):
    """A packet in the receive queue. ``data`` is what recv gives, ``origlen`` what it was before the verdict cut it."""

    data: bytes
    origlen: int
    device: NetDevice
    protocol: int
    pkt_type: int
    network_offset: int
    vlan: tuple[int, int] | None  # tci, tpid
    truesize: int
    source: bytes


class PacketSocket(KObject):
    """Refcounted by its files. ``ifindex`` and ``protocol`` (host order) are what it listens to."""

    file_kind = "socket"

    def __init__(self, machine: Machine, network: Network, sock_type: int, protocol: int) -> None:
        super().__init__()
        self.network, self.type = network, sock_type
        self.ifindex, self.protocol = 0, protocol
        self.filter = SocketFilter(machine)
        self.rcvbuf, self.rmem = machine.sysctl.rmem_default, 0
        self.packets = self.drops = self.rxq_drops = 0
        self.auxdata = self.ignore_outgoing = self.rxq_ovfl = False
        self.mark = 0
        self.error = 0
        self.queue: deque[Queued] = deque()
        self.readable = threading.Condition()
        if protocol:
            network.add_hook(self)

    def release(self) -> None:
        self._unhook()
        self.filter.release()
        with self.readable:
            self.queue.clear()
            self.readable.notify_all()

    # --- what it listens to ---------------------------------------------------------------------------------------------
    def bind(self, ifindex: int, protocol: int) -> None:
        """packet_bind: ``ifindex`` 0 is every device; protocol 0 keeps the one it has. Raises BpfError(ENODEV)."""
        if ifindex and self.network.by_index(ifindex) is None:
            raise BpfError(errno.ENODEV)
        self._unhook()
        self.ifindex = ifindex
        self.protocol = protocol or self.protocol
        if self.protocol:
            self.network.add_hook(self)

    def _unhook(self) -> None:
        if self.protocol:
            self.network.remove_hook(self)

    # --- receive --------------------------------------------------------------------------------------------------------
    def packet_rcv(self, skb: SkBuff, device: NetDevice, truesize: int) -> None:
        """The filter's verdict, the buffer's room, the queue."""
        if self.ignore_outgoing and skb.pkt_type == PACKET_OUTGOING:
            return
        skb = self._seen_by(skb)
        verdict = self.filter.run(skb)
        if not verdict:
            return
        with self.readable:
            if self.rmem >= self.rcvbuf:
                self.drops += 1
                self.rxq_drops += 1
                return
            self._enqueue(skb, device, truesize, min(skb.len, verdict))

    def _seen_by(self, skb: SkBuff) -> SkBuff:
        """A view of its own: its cb, and for SOCK_DGRAM no link header."""
        data_off = skb.network_header if self.type == so.SOCK_DGRAM else skb.mac_header
        return replace(skb, data_off=data_off, len=skb.len - (data_off - skb.data_off), cb=bytearray(20))

    def _enqueue(self, skb: SkBuff, device: NetDevice, truesize: int, snaplen: int) -> None:
        at = skb.data_off
        data = skb.head[at : at + snaplen]
        protocol, vlan = skb.protocol, (skb.vlan_tci, skb.vlan_proto) if skb.vlan_present else None
        if self.type == so.SOCK_DGRAM and protocol in VLAN_PROTOCOLS:
            protocol, tag = inside_tags(data, protocol)
            vlan = vlan or tag
        packet = Queued(
            data=data,
            origlen=skb.len,
            device=device,
            protocol=protocol,
            pkt_type=skb.pkt_type,
            network_offset=skb.network_header - at,
            vlan=vlan,
            truesize=truesize,
            source=skb.head[6:12] if skb.network_header >= ETH_HLEN else b"",
        )
        self.packets += 1
        self.rmem += packet.truesize
        self.queue.append(packet)
        self.readable.notify()

    def take(self, peek: bool, wait: bool, timeout_s: float | None) -> Queued:
        """The next packet; ``peek`` leaves it. Raises BpfError(EAGAIN) where
        there is none and it may not wait, TimeoutError."""
        with self.readable:
            if not self.queue and not wait:
                raise BpfError(errno.EAGAIN)
            if not self.readable.wait_for(lambda: self.queue or not self.refs, timeout_s):
                raise TimeoutError("timed out")
            if not self.queue:
                raise BpfError(errno.EBADF, "the socket was closed")
            if peek:
                return self._peek()
            packet = self.queue.popleft()
            self.rmem -= packet.truesize
            return packet

    def _peek(self) -> Queued:
        """The next packet, left in the queue. Telling its address spoils its original length: the kernel keeps that where the
        address's family and protocol go, so PACKET_AUXDATA of a later read has tp_len wrong, as here."""
        packet = self.queue[0]
        swapped = (packet.protocol & 0xFF) << 8 | packet.protocol >> 8
        self.queue[0] = packet._replace(origlen=so.AF_PACKET | swapped << 16)
        return packet

    def statistics(self) -> bytes:
        """PACKET_STATISTICS: packets seen (those dropped counted in) and dropped since last asked."""
        told = STATISTICS.pack(self.packets + self.drops, self.drops)
        self.packets = self.drops = 0
        return told


def inside_tags(data: bytes, protocol: int) -> tuple[int, tuple[int, int]]:
    """What a SOCK_DGRAM reader is told of a packet whose data begins inside a VLAN tag: the protocol behind all tags (0 where
    the packet ends before), and the first tag."""
    tag = (int.from_bytes(data[:2], "big") if len(data) >= VLAN_HLEN else 0, protocol)
    at = 0
    while protocol in VLAN_PROTOCOLS:
        if len(data) < at + VLAN_HLEN:
            return 0, tag
        protocol = int.from_bytes(data[at + 2 : at + VLAN_HLEN], "big")
        at += VLAN_HLEN
    return protocol, tag


def auxdata(packet: Queued) -> bytes:
    """PACKET_AUXDATA of a packet: lengths before and after the verdict, header offsets, the VLAN tag."""
    status, tci, tpid = so.TP_STATUS_USER, 0, 0
    if packet.vlan is not None:
        tci, tpid = packet.vlan
        status |= so.TP_STATUS_VLAN_VALID | so.TP_STATUS_VLAN_TPID_VALID
    return AUXDATA.pack(status, packet.origlen, len(packet.data), 0, packet.network_offset & 0xFFFF, tci, tpid)
