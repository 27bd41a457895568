"""Devices of a simulated machine and how a frame gets from one to the packet sockets that listen.

Knows sk_buffs and the hooks that sockets register; knows no socket option, no descriptor.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from netbpf.abi.net import (
    ARPHRD_ETHER,
    ARPHRD_LOOPBACK,
    ETH_HLEN,
    ETH_P_8021Q,
    ETH_P_ALL,
    LINKTYPE_ETHERNET,
    PACKET_BROADCAST,
    PACKET_MULTICAST,
    PACKET_OTHERHOST,
    PACKET_OUTGOING,
    VLAN_HLEN,
)
from netbpf.errors import BpfError
from netbpf.packet.receive import Device as ReceivingDevice
from netbpf.packet.receive import frame_protocol, receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff

IFNAMSIZ: Final = 16
LOOPBACK_MTU: Final = 65536
VLAN_VID_MASK: Final = 0xFFF


SK_BUFF_BYTES: Final = 256  # sizeof(struct sk_buff), aligned
SHARED_INFO_BYTES: Final = 320  # struct skb_shared_info behind the data
HEAD_SIZES: Final = (576, 1024, 2048, 4096, 8192)  # what the allocator gives a head
PAGE_BYTES: Final = 4096
# headroom, and the bytes in the head of a packet that does not fit a page
WRITTEN_TO_TAP: Final = (64, PAGE_BYTES - SHARED_INFO_BYTES - 64)
SENT_BY_SOCKET: Final = (16, ETH_HLEN)


def skb_truesize(length: int, headroom: int, linear: int) -> int:
    """skb->truesize: the sk_buff, its head, and pages for what is not in the head. As SO_MEMINFO of 6.18 showed it."""
    if headroom + length < PAGE_BYTES:
        linear = length
    linear = min(linear, length)
    wanted = -(-(headroom + linear) // 64) * 64 + SHARED_INFO_BYTES
    head = next(size for size in HEAD_SIZES if size >= wanted)
    return SK_BUFF_BYTES + head + -(-(length - linear) // PAGE_BYTES) * PAGE_BYTES


class PacketHook(Protocol):
    """Who gets packets: a packet socket. ``ifindex`` 0 is every device, ``protocol`` 0 none."""

    ifindex: int
    protocol: int

    def packet_rcv(self, skb: SkBuff, device: NetDevice, truesize: int) -> None:
        """Take, or leave, a packet that the hook must not change; ``truesize`` is what it counts against a receive buffer."""


@dataclass(eq=False)
class NetDevice:
    """One device. ``deliver`` is a frame that comes in from the wire, ``transmit`` one that goes out by it; on a loopback
    device what goes out comes in, of a pair at its ``peer``. ``sent`` keeps what went out of any other device."""

    network: Network
    name: str
    ifindex: int
    mac: bytes = bytes(6)
    type: int = ARPHRD_ETHER
    mtu: int = 1500
    up: bool = True
    queue_mapping: int = 1
    peer: NetDevice | None = None
    sent: list[bytes] = field(default_factory=list)
    number: int = 0

    def deliver(self, frame: bytes | Record) -> bool:
        """A frame comes in: False where the kernel drops it before any socket could see it. Raises BpfError(ENETDOWN)."""
        record = self._record(frame, 0)
        skb = receive(record, self._receiving())
        if not self.up:
            raise BpfError(errno.ENETDOWN)
        if skb is None:
            return False
        skb.dev_type = self.type
        if self.type == ARPHRD_LOOPBACK and skb.pkt_type == PACKET_BROADCAST:
            skb.pkt_type = PACKET_MULTICAST  # lo's broadcast address is all zeros
        self.network.receive(skb, self, self._truesize(record.wirelen))
        return True

    def deliver_all(self, packets: Iterable[bytes | Record]) -> int:
        """How many of them any socket could see."""
        return sum(self.deliver(packet) for packet in packets)

    def transmit(self, packet: bytes | Record, origin: PacketHook | None = None) -> None:
        """A frame goes out: listeners see it as outgoing (``origin`` does not), and on lo it comes back in.

        Raises BpfError(ENETDOWN, EINVAL, EMSGSIZE)."""
        if not self.up:
            raise BpfError(errno.ENETDOWN)
        record = self._record(packet, 2)
        self._check_length(record.data)
        self.network.show_outgoing(self._outgoing(record), self, self._truesize(record.wirelen), origin)
        if self.type == ARPHRD_LOOPBACK:
            self.deliver(record._replace(direction=1))
        elif self.peer is not None:
            self.peer.deliver(record._replace(direction=1))
        else:
            self.sent.append(record.data)

    def _truesize(self, length: int) -> int:
        """What a frame that came from a TAP, or was sent by a packet socket into lo or a pair, counts."""
        sent = self.type == ARPHRD_LOOPBACK or self.peer is not None
        return skb_truesize(length, *(SENT_BY_SOCKET if sent else WRITTEN_TO_TAP))

    def _check_length(self, frame: bytes) -> None:
        """What a packet socket may send: a whole Ethernet header, no more than the MTU behind it (and behind one tag)."""
        if len(frame) < ETH_HLEN:
            raise BpfError(errno.EINVAL)
        tag = VLAN_HLEN if self.type == ARPHRD_ETHER and frame_protocol(frame) == ETH_P_8021Q else 0
        if len(frame) > self.mtu + ETH_HLEN + tag:
            raise BpfError(errno.EMSGSIZE)

    def _record(self, packet: bytes | Record, direction: int) -> Record:
        self.number += 1
        if isinstance(packet, Record):
            return packet
        return Record(self.number, 0, len(packet), packet, LINKTYPE_ETHERNET, 0, direction)

    def _receiving(self) -> ReceivingDevice:
        loops = self.type == ARPHRD_LOOPBACK
        return ReceivingDevice(mac=self.mac, ifindex=self.ifindex, queue_mapping=0 if loops else self.queue_mapping)

    def _outgoing(self, record: Record) -> SkBuff:
        """As dev_queue_xmit_nit shows it: no untagging, the protocol as the type field has it."""
        return SkBuff(
            head=record.data,
            len=record.wirelen,
            protocol=int.from_bytes(record.data[12:14], "big"),
            pkt_type=PACKET_OUTGOING,
            ifindex=self.ifindex,
            dev_type=self.type,
            wire_len=record.wirelen,
        )


class Port:
    """A device with its far end in a laboratory's hands: a frame delivered is sent out of ``sender`` (lo itself, or the other
    end of a pair), with what a sender may not send refused."""

    def __init__(self, device: NetDevice, sender: NetDevice) -> None:
        self._sender = sender
        self.name, self.mac, self.ifindex = device.name, device.mac, device.ifindex

    def deliver(self, frame: bytes) -> bool:
        try:
            self._sender.transmit(frame)
        except BpfError:
            return False
        return True


class Network:
    """One network namespace: its devices by name and number, and the hooks on them, newest first."""

    def __init__(self) -> None:
        self.devices: dict[str, NetDevice] = {}
        self._hooks: list[PacketHook] = []
        self.add_device("lo", type=ARPHRD_LOOPBACK, mtu=LOOPBACK_MTU)

    def add_device(self, name: str, *, mac: bytes | None = None, type: int = ARPHRD_ETHER, mtu: int = 1500) -> NetDevice:
        """A new device, up. ``mac`` None: an address of its own, from its number. Raises BpfError(EEXIST, EINVAL)."""
        if name in self.devices:
            raise BpfError(errno.EEXIST)
        if not 0 < len(name) < IFNAMSIZ or "/" in name or any(c.isspace() for c in name) or name in (".", ".."):
            raise BpfError(errno.EINVAL)
        ifindex = max((d.ifindex for d in self.devices.values()), default=0) + 1
        if mac is None:
            mac = bytes(6) if type == ARPHRD_LOOPBACK else b"\x02\x00" + ifindex.to_bytes(4, "big")
        device = self.devices[name] = NetDevice(self, name, ifindex, mac, type, mtu)
        return device

    def add_pair(self, name: str, far: str, *, mac: bytes | None = None, mtu: int = 1500) -> tuple[NetDevice, NetDevice]:
        """A veth pair: what goes out of one comes in at the other."""
        near, end = self.add_device(name, mac=mac, mtu=mtu), self.add_device(far, mtu=mtu)
        near.peer, end.peer = end, near
        near.queue_mapping = end.queue_mapping = 0
        return near, end

    def device(self, name: str) -> NetDevice:
        """Raises BpfError(ENODEV)."""
        if name not in self.devices:
            raise BpfError(errno.ENODEV)
        return self.devices[name]

    def by_index(self, ifindex: int) -> NetDevice | None:
        return next((d for d in self.devices.values() if d.ifindex == ifindex), None)

    # --- hooks ----------------------------------------------------------------------------------------------------------
    def add_hook(self, hook: PacketHook) -> None:
        self._hooks.insert(0, hook)

    def remove_hook(self, hook: PacketHook) -> None:
        self._hooks.remove(hook)

    def receive(self, skb: SkBuff, device: NetDevice, truesize: int) -> None:
        """__netif_receive_skb_core: those who want every packet, then those who want its protocol. The latter see a packet of
        a VLAN nobody here is on as somebody else's, its tag gone."""
        for hook in self._taking(ETH_P_ALL, device):
            hook.packet_rcv(skb, device, truesize)
        later = self._taking(skb.protocol, device) if skb.protocol != ETH_P_ALL else []
        if later and skb.vlan_present:
            other = PACKET_OTHERHOST if skb.vlan_tci & VLAN_VID_MASK else skb.pkt_type
            skb = replace(skb, vlan_present=0, vlan_tci=0, vlan_proto=0, pkt_type=other)
        for hook in later:
            hook.packet_rcv(skb, device, truesize)

    def show_outgoing(self, skb: SkBuff, device: NetDevice, truesize: int, origin: PacketHook | None) -> None:
        """dev_queue_xmit_nit: only those who want every packet see what goes out, and not who sent it."""
        for hook in self._taking(ETH_P_ALL, device):
            if hook is not origin:
                hook.packet_rcv(skb, device, truesize)

    def _taking(self, protocol: int, device: NetDevice) -> list[PacketHook]:
        return [h for h in self._hooks if h.protocol == protocol and h.ifindex in (0, device.ifindex)]


