"""Network devices of a simulated machine: a frame comes in by ``deliver``, goes out by ``transmit``. What it goes on to is the
business of its ``network``. Knows no socket."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from netbpf.abi.net import (
    ARPHRD_ETHER,
    ARPHRD_LOOPBACK,
    ETH_HLEN,
    ETH_P_8021Q,
    LINKTYPE_ETHERNET,
    PACKET_BROADCAST,
    PACKET_MULTICAST,
    PACKET_OTHERHOST,
    PACKET_OUTGOING,
    VLAN_HLEN,
)
from netbpf.errors import BpfError
from netbpf.host.sim.truesize import SENT_BY_SOCKET, WRITTEN_TO_TAP, head_room, skb_truesize
from netbpf.packet.device import Device as ReceivingDevice
from netbpf.packet.inet import finish_checksum
from netbpf.packet.receive import frame_protocol, receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff

if TYPE_CHECKING:
    from netbpf.host.sim.network import Network, PacketHook

INBOUND, OUTBOUND = 1, 2


@dataclass(frozen=True, slots=True)
class Sent:
    """What a packet that a socket of the machine sent has beside its bytes. ``partial``: its checksum is left to the device.
    ``routed``: it was sent to an address of the machine itself, and is not asked again whether it may come in by lo.
    ``origin`` is the packet socket that sent it."""

    mark: int = 0
    priority: int = 0
    hash: int = 0
    gso_segs: int = 0
    partial: bool = False
    routed: bool = False
    truesize: int | None = None
    origin: PacketHook | None = None


BY_HAND: Final = Sent()


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of a packet beside its sk_buff: the device it is seen on, what it counts against a receive buffer, and
    (``partial``, ``routed``) how it was sent. ``checked``: nothing need verify its checksum."""

    device: NetDevice
    truesize: int
    partial: bool = False
    routed: bool = False

    @property
    def checked(self) -> bool:
        return self.partial

    def tail_room(self, length: int) -> int:
        """Bytes free behind a frame of ``length`` in its sk_buff's head."""
        headroom = (SENT_BY_SOCKET if self.device.is_inside else WRITTEN_TO_TAP)[0]
        return max(head_room(self.truesize) - headroom - length, 0)


@dataclass(eq=False)
class NetDevice:
    """One device. On a loopback device what goes out comes in, of a pair it comes in at its ``peer``; any other gives it to
    ``on_sent`` or keeps it in ``sent``. ``filters_mac``: a frame for another host's address is not taken, as a network card
    does, unless somebody made the device promiscuous."""

    network: Network
    name: str
    ifindex: int
    mac: bytes = bytes(6)
    type: int = ARPHRD_ETHER
    mtu: int = 1500
    up: bool = True
    queue_mapping: int = 1
    peer: NetDevice | None = None
    filters_mac: bool = False
    promiscuity: int = 0
    sent: list[bytes] = field(default_factory=list)
    on_sent: Callable[[bytes], None] | None = None
    number: int = 0

    @property
    def is_inside(self) -> bool:
        """Whether what comes in was sent by the machine itself: lo, and pairs."""
        return self.type == ARPHRD_LOOPBACK or self.peer is not None

    # --- coming in --------------------------------------------------------------------------------------------------------
    def deliver(self, frame: bytes | Record | Any, sent: Sent = BY_HAND) -> bool:
        """A frame (bytes, a capture's record, a scapy packet) comes in: False where it is dropped before any socket could see
        it. Raises BpfError(ENETDOWN)."""
        with self.network.changed:
            record = self._record(frame, 0)
            skb = receive(record, self._receiving())
            if not self.up:
                raise BpfError(errno.ENETDOWN)
            if skb is None or self._is_for_others(skb):
                return False
            skb.dev_type = self.type
            skb.mark, skb.priority, skb.hash, skb.gso_segs = sent.mark, sent.priority, sent.hash, sent.gso_segs
            if self.type == ARPHRD_LOOPBACK and skb.pkt_type == PACKET_BROADCAST:
                skb.pkt_type = PACKET_MULTICAST  # lo's broadcast address is all zeros
            self.network.receive(skb, self._arrival(record, sent))
            return True

    def deliver_all(self, packets: Iterable[bytes | Record]) -> int:
        """How many of them any socket could see."""
        return sum(self.deliver(packet) for packet in packets)

    def _is_for_others(self, skb: SkBuff) -> bool:
        return self.filters_mac and not self.promiscuity and skb.pkt_type == PACKET_OTHERHOST

    # --- going out --------------------------------------------------------------------------------------------------------
    def transmit(self, packet: bytes | Record | Any, sent: Sent = BY_HAND) -> None:
        """A frame goes out: listeners see it as outgoing (its sender does not).

        Raises BpfError(ENETDOWN, EINVAL, EMSGSIZE)."""
        with self.network.changed:
            if not self.up:
                raise BpfError(errno.ENETDOWN)
            record = self._record(packet, OUTBOUND)
            self._check_length(record.data)
            self.network.show_outgoing(self._outgoing(record, sent), self._arrival(record, sent), sent.origin)
            if self.type == ARPHRD_LOOPBACK:
                self.deliver(record._replace(direction=INBOUND), sent)
            elif self.peer is not None:
                self._cross(self.peer, record._replace(direction=INBOUND), sent)
            else:
                self._leave(record.data, sent)

    def _cross(self, peer: NetDevice, record: Record, sent: Sent) -> None:
        """To the other end of a pair; nothing but the bytes survives in another namespace."""
        mark = sent.mark if peer.network is self.network else 0
        if peer.up:
            peer.deliver(record, replace(sent, mark=mark, priority=0, routed=False, origin=None))

    def _leave(self, frame: bytes, sent: Sent) -> None:
        """Out of the machine, a checksum left to the device made good."""
        if sent.partial:
            frame = frame[:ETH_HLEN] + finish_checksum(frame[ETH_HLEN:])
        if self.on_sent is not None:
            self.on_sent(frame)
        else:
            self.sent.append(frame)

    def _arrival(self, record: Record, sent: Sent) -> Arrival:
        """A frame that came from a TAP, or was sent by a packet socket into lo or a pair, counts by where it lies."""
        size = sent.truesize or skb_truesize(record.wirelen, *(SENT_BY_SOCKET if self.is_inside else WRITTEN_TO_TAP))
        return Arrival(self, size, sent.partial, sent.routed)

    def _check_length(self, frame: bytes) -> None:
        """What a packet socket may send: a whole Ethernet header, no more than the MTU behind it (and behind one tag)."""
        if len(frame) < ETH_HLEN:
            raise BpfError(errno.EINVAL)
        tag = VLAN_HLEN if self.type == ARPHRD_ETHER and frame_protocol(frame) == ETH_P_8021Q else 0
        if len(frame) > self.mtu + ETH_HLEN + tag:
            raise BpfError(errno.EMSGSIZE)

    def _record(self, packet: bytes | Record | Any, direction: int) -> Record:
        self.number += 1
        if isinstance(packet, Record):
            return packet
        data = bytes(packet)  # a scapy packet builds itself here
        return Record(self.number, 0, len(data), data, LINKTYPE_ETHERNET, 0, direction)

    def _receiving(self) -> ReceivingDevice:
        loops = self.type == ARPHRD_LOOPBACK
        return ReceivingDevice(mac=self.mac, ifindex=self.ifindex, queue_mapping=0 if loops else self.queue_mapping)

    def _outgoing(self, record: Record, sent: Sent) -> SkBuff:
        """As dev_queue_xmit_nit shows it: no untagging, the protocol as the type field has it."""
        return SkBuff(
            head=record.data,
            len=record.wirelen,
            protocol=int.from_bytes(record.data[12:14], "big"),
            pkt_type=PACKET_OUTGOING,
            mark=sent.mark,
            priority=sent.priority,
            hash=sent.hash,
            ifindex=self.ifindex,
            dev_type=self.type,
            wire_len=record.wirelen,
            gso_segs=sent.gso_segs,
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
