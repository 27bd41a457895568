"""AF_PACKET: what struct packet_sock keeps and does."""

from __future__ import annotations

import errno
from dataclasses import replace
from struct import Struct
from typing import Any, Final, NamedTuple

from netbpf.abi import sockopt as so
from netbpf.abi.net import ETH_HLEN, PACKET_LOOPBACK, PACKET_OUTGOING, VLAN_HLEN, VLAN_PROTOCOLS
from netbpf.errors import BpfError
from netbpf.host.sim.device import Arrival, NetDevice, Sent
from netbpf.host.sim.machine import Machine
from netbpf.host.sim.network import Network
from netbpf.host.sim.sock import Control, Queued, Sock, Wait
from netbpf.packet.skbuff import SkBuff
from netbpf.packet.socket_skb import AUXDATA

STATISTICS = Struct("<II")  # struct tpacket_stats
STATISTICS_V3 = Struct("<III")  # struct tpacket_stats_v3
MREQ = Struct("<iHH8s")  # struct packet_mreq
HEADER_BYTES: Final = {0: 32, 1: 32, 2: 48}  # TPACKET_V1, V2, V3: sizeof their packet header


class Aux(NamedTuple):
    """What PACKET_AUXDATA and the address tell of a packet. ``origlen`` is what it was before the verdict cut it."""

    origlen: int
    protocol: int
    network_offset: int
    vlan: tuple[int, int] | None  # tci, tpid
    status: int


class PacketSocket(Sock):
    """``ifindex`` and ``listens_to`` (a protocol in host order) are what it hears."""

    family = so.AF_PACKET

    def __init__(self, machine: Machine, network: Network, sock_type: int, protocol: int, uid: int = 0) -> None:
        super().__init__(machine, network, sock_type, 0, uid)
        self.listens_to = protocol
        self.packets = self.rxq_drops = 0
        self.auxdata = self.ignore_outgoing = self.origdev = False
        self.version = 0
        self.memberships: list[tuple[int, int, bytes]] = []
        if protocol:
            network.add_hook(self)

    def release(self) -> None:
        self._unhook()
        for ifindex, kind, _ in self.memberships:
            self._promise(ifindex, kind, -1)
        super().release()

    # --- what it listens to ---------------------------------------------------------------------------------------------
    def bind(self, address: Any) -> None:
        """packet_bind on ``(device name, protocol)``: protocol 0 keeps the one it has. Raises BpfError(ENODEV)."""
        name, protocol = _checked(address)[:2]
        ifindex = self.network.device(name).ifindex
        self._unhook()
        self.ifindex = ifindex
        self.listens_to = protocol or self.listens_to
        if self.listens_to:
            self.network.add_hook(self)

    def _unhook(self) -> None:
        if self.listens_to:
            self.network.remove_hook(self)

    def getsockname(self) -> Any:
        device = self.network.by_index(self.ifindex)
        return (device.name, self.listens_to, 0, device.type, device.mac) if device else ("", self.listens_to, 0, 0, b"")

    def join(self, ifindex: int, kind: int, size: int, address: bytes) -> None:
        """PACKET_ADD_MEMBERSHIP. Raises BpfError(ENODEV, EINVAL)."""
        if self.network.by_index(ifindex) is None:
            raise BpfError(errno.ENODEV)
        if size > 6 or (kind in (so.PACKET_MR_MULTICAST, so.PACKET_MR_UNICAST) and size != 6):
            raise BpfError(errno.EINVAL)
        self.memberships.append((ifindex, kind, address[:size]))
        self._promise(ifindex, kind, 1)

    def leave(self, ifindex: int, kind: int, size: int, address: bytes) -> None:
        """PACKET_DROP_MEMBERSHIP: nothing happens where there is none such."""
        wanted = (ifindex, kind, address[:size])
        if wanted in self.memberships:
            self.memberships.remove(wanted)
            self._promise(ifindex, kind, -1)

    def _promise(self, ifindex: int, kind: int, by: int) -> None:
        device = self.network.by_index(ifindex)
        if device is not None and kind == so.PACKET_MR_PROMISC:
            device.promiscuity += by

    # --- receive --------------------------------------------------------------------------------------------------------
    def packet_rcv(self, skb: SkBuff, arrival: Arrival) -> None:
        """The filter's verdict, the buffer's room, the queue."""
        if skb.pkt_type == PACKET_LOOPBACK or (self.ignore_outgoing and skb.pkt_type == PACKET_OUTGOING):
            return
        skb = self._seen_by(skb)
        verdict = self.filter.run(skb)
        if not verdict:
            return
        if not self.has_room():
            self.rxq_drops += 1
            return
        self._enqueue(skb, arrival, min(skb.len, verdict))

    def _seen_by(self, skb: SkBuff) -> SkBuff:
        """A view of its own: its cb, and for SOCK_DGRAM no link header."""
        data_off = skb.network_header if self.type == so.SOCK_DGRAM else skb.mac_header
        return replace(skb, data_off=data_off, len=skb.len - (data_off - skb.data_off), cb=bytearray(20))

    def _enqueue(self, skb: SkBuff, arrival: Arrival, snaplen: int) -> None:
        at, device = skb.data_off, arrival.device
        data = skb.head[at : at + snaplen]
        protocol, vlan = skb.protocol, (skb.vlan_tci, skb.vlan_proto) if skb.vlan_present else None
        if self.type == so.SOCK_DGRAM and protocol in VLAN_PROTOCOLS:
            protocol, tag = inside_tags(data, protocol)
            vlan = vlan or tag
        source = skb.head[6:12] if skb.network_header >= ETH_HLEN else b""
        status = so.TP_STATUS_USER | (so.TP_STATUS_CSUMNOTREADY if arrival.partial else 0)
        self.packets += 1
        self.enqueue(
            Queued(
                data=data,
                address=(device.name, protocol, skb.pkt_type, device.type, source),
                truesize=arrival.truesize,
                dropcount=self.dropcount(),
                meta=Aux(skb.len, protocol, skb.network_header - at, vlan, status),
            )
        )

    def peek(self) -> Queued:
        """The next packet, left in the queue. Telling its address spoils its original length: the kernel keeps that where the
        address's family and protocol go, so PACKET_AUXDATA of a later read has tp_len wrong, as here."""
        packet = self.queue[0]
        protocol = packet.meta.protocol
        swapped = (protocol & 0xFF) << 8 | protocol >> 8
        self.queue[0] = packet._replace(meta=packet.meta._replace(origlen=so.AF_PACKET | swapped << 16))
        return packet

    def control_of(self, item: Queued) -> tuple[Control, ...]:
        own = super().control_of(item)
        return (*own, (so.SOL_PACKET, so.PACKET_AUXDATA, auxdata(item))) if self.auxdata else own

    def check_flags(self, flags: int) -> None:
        super().check_flags(flags)
        if flags & ~(so.MSG_PEEK | so.MSG_DONTWAIT | so.MSG_TRUNC | so.MSG_CMSG_CLOEXEC):
            raise BpfError(errno.EINVAL)

    def statistics(self) -> bytes:
        """PACKET_STATISTICS: packets seen (those dropped counted in) and dropped since last asked; for TPACKET_V3 also how
        often a ring stood still, which is never."""
        seen, dropped = self.packets + self.rxq_drops, self.rxq_drops
        self.packets = self.rxq_drops = 0
        return STATISTICS_V3.pack(seen, dropped, 0) if self.version == so.TPACKET_V3 else STATISTICS.pack(seen, dropped)

    # --- send -----------------------------------------------------------------------------------------------------------
    def send(self, data: bytes, address: Any, wait: Wait, flags: int) -> int:
        """A frame out of the device that ``address`` names, or that it is bound to. Raises BpfError(ENXIO, ENODEV, EINVAL)."""
        named = None if address is None else _checked(address)[0]
        device = self.network.by_index(self.ifindex) if named is None else self.network.device(named)
        if device is None:
            raise BpfError(errno.ENXIO)
        frame = data if self.type == so.SOCK_RAW else self._link_header(device, address) + data
        device.transmit(frame, Sent(self.mark, self.priority, origin=self))
        return len(data)

    def _link_header(self, device: NetDevice, address: Any) -> bytes:
        """What SOCK_DGRAM puts in front: to the address's hardware address, of its protocol (else the socket's). Bytes that the
        address lacks are zeros; a kernel takes what lies behind it."""
        to = bytes(address[4]) if address is not None and len(address) > 4 else b""
        protocol = address[1] if address is not None else self.listens_to
        return to[:6].ljust(6, b"\0") + device.mac + protocol.to_bytes(2)


def _checked(address: Any) -> tuple[Any, ...]:
    """A packet address as Python has it, device name and protocol first. Raises TypeError, OverflowError."""
    if not isinstance(address, tuple):
        raise TypeError(f"AF_PACKET address must be tuple, not {type(address).__name__}")
    if not 2 <= len(address) <= 5 or not isinstance(address[0], str) or not isinstance(address[1], int):
        raise TypeError("AF_PACKET address must be a tuple of two to five elements")
    if not 0 <= address[1] <= 0xFFFF:
        raise OverflowError("protocol must be 0-65535.")
    return address


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
    aux: Aux = packet.meta
    status, tci, tpid = aux.status, 0, 0
    if aux.vlan is not None:
        tci, tpid = aux.vlan
        status |= so.TP_STATUS_VLAN_VALID | so.TP_STATUS_VLAN_TPID_VALID
    return AUXDATA.pack(status, aux.origlen, len(packet.data), 0, aux.network_offset & 0xFFFF, tci, tpid)
