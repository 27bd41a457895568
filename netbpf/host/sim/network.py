"""A network namespace: its devices by name and number, the sockets that listen to packets, and the way of a packet that comes
in from a device to them and on to the IP stack.

Knows sk_buffs and the hooks that packet sockets register; knows no socket option, no descriptor.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from netbpf.abi.net import ARPHRD_ETHER, ARPHRD_LOOPBACK, ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, PACKET_OTHERHOST, VLAN_PROTOCOLS
from netbpf.errors import BpfError
from netbpf.host.sim.device import Arrival, NetDevice
from netbpf.packet.receive import untag_again
from netbpf.packet.skbuff import SkBuff

if TYPE_CHECKING:
    from netbpf.host.sim.ip_stack import IpStack
    from netbpf.host.sim.timers import Timers

IFNAMSIZ: Final = 16
LOOPBACK_MTU: Final = 65536
VLAN_VID_MASK: Final = 0xFFF
LOOPBACK_ADDRESSES: Final = ("127.0.0.1/8", "::1/128")


class PacketHook(Protocol):
    """Who gets packets: a packet socket. ``ifindex`` 0 is every device, ``listens_to`` 0 no protocol."""

    ifindex: int
    listens_to: int

    def packet_rcv(self, skb: SkBuff, arrival: Arrival) -> None:
        """Take, or leave, a packet that the hook must not change."""


class Network:
    """One network namespace of a machine. ``changed`` is the machine's lock, ``timers`` its clock; ``number`` tells it from
    others in the addresses it gives to devices."""

    def __init__(self, timers: Timers, number: int = 0) -> None:
        self.timers, self.changed, self.number = timers, timers.changed, number
        self.devices: dict[str, NetDevice] = {}
        self._hooks: list[PacketHook] = []
        self._ip: IpStack | None = None
        self.add_device("lo", type=ARPHRD_LOOPBACK, mtu=LOOPBACK_MTU)

    @property
    def ip(self) -> IpStack:
        """Its IP stack, made when first asked for: a packet that comes in before goes no further than to packet sockets."""
        if self._ip is None:
            from netbpf.host.sim.ip_stack import IpStack

            self._ip = IpStack(self)
            for text in LOOPBACK_ADDRESSES:
                self._ip.add_address(text, self.devices["lo"])
        return self._ip

    # --- devices ----------------------------------------------------------------------------------------------------------
    def add_device(
        self, name: str, *, mac: bytes | None = None, type: int = ARPHRD_ETHER, mtu: int = 1500, filters_mac: bool = False
    ) -> NetDevice:  # fmt: skip
        """A new device, up. ``mac`` None: an address of its own, from its number. Raises BpfError(EEXIST, EINVAL)."""
        if name in self.devices:
            raise BpfError(errno.EEXIST)
        if not 0 < len(name) < IFNAMSIZ or "/" in name or any(c.isspace() for c in name) or name in (".", ".."):
            raise BpfError(errno.EINVAL)
        ifindex = max((d.ifindex for d in self.devices.values()), default=0) + 1
        if mac is None:
            mac = bytes(6) if type == ARPHRD_LOOPBACK else bytes((2, self.number & 0xFF)) + ifindex.to_bytes(4, "big")
        device = self.devices[name] = NetDevice(self, name, ifindex, mac, type, mtu, filters_mac=filters_mac)
        return device

    def add_address(self, address: str, device: str) -> None:
        """An IP address with its prefix ("10.0.0.1/24") on a device. Raises BpfError(EINVAL, EEXIST, ENODEV)."""
        self.ip.add_address(address, self.device(device))

    def add_route(self, net: str, device: str, via: str | None = None) -> None:
        """Packets to ``net`` leave by a device, to the neighbour ``via``. Raises BpfError(EINVAL, ENODEV)."""
        self.ip.add_route(net, self.device(device), via)

    def add_neighbour(self, address: str, mac: bytes) -> None:
        """The link address of a neighbour that is no device of this machine. Raises BpfError(EINVAL)."""
        self.ip.add_neighbour(address, mac)

    def add_pair(
        self, name: str, far: str, *, mac: bytes | None = None, mtu: int = 1500, far_network: Network | None = None
    ) -> tuple[NetDevice, NetDevice]:
        """A veth pair: what goes out of one comes in at the other, which may be in another namespace."""
        end = (far_network or self).add_device(far, mtu=mtu)  # the kernel, too, makes the far end first
        near = self.add_device(name, mac=mac, mtu=mtu)
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

    def receive(self, skb: SkBuff, arrival: Arrival) -> None:
        """__netif_receive_skb_core: those who want every packet, then those who want its protocol, then the IP stack. The
        latter two see a packet of a VLAN nobody here is on as somebody else's, its tag gone."""
        for hook in self._taking(ETH_P_ALL, arrival.device):
            hook.packet_rcv(skb, arrival)
        if skb.vlan_present:
            without = without_tags(skb)
            if without is None:
                return
            skb = without
        for hook in self._taking(skb.protocol, arrival.device) if skb.protocol != ETH_P_ALL else ():
            hook.packet_rcv(skb, arrival)
        if self._ip is not None and skb.protocol in (ETH_P_IP, ETH_P_IPV6):
            self._ip.receive(skb, arrival)

    def show_outgoing(self, skb: SkBuff, arrival: Arrival, origin: PacketHook | None) -> None:
        """dev_queue_xmit_nit: only those who want every packet see what goes out, and not who sent it."""
        for hook in self._taking(ETH_P_ALL, arrival.device):
            if hook is not origin:
                hook.packet_rcv(skb, arrival)

    def _taking(self, protocol: int, device: NetDevice) -> list[PacketHook]:
        return [h for h in self._hooks if h.listens_to == protocol and h.ifindex in (0, device.ifindex)]


def without_tags(skb: SkBuff) -> SkBuff | None:
    """The packet as protocols see it: of a VLAN (none has a device here) as another host's; a tag of VLAN 0 counts as no tag,
    and the one behind it as the first. None where that one is cut off."""
    while skb.vlan_present:
        other = bool(skb.vlan_tci & VLAN_VID_MASK)
        pkt_type = PACKET_OTHERHOST if other else skb.pkt_type
        skb = replace(skb, vlan_present=0, vlan_tci=0, vlan_proto=0, pkt_type=pkt_type)
        if not other and skb.protocol in VLAN_PROTOCOLS:
            inner = untag_again(skb)
            if inner is None:
                return None
            skb = inner
    return skb
