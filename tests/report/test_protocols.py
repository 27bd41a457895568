"""What packets are called."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, LLC, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet

from netbpf.packet.batch import PacketBatch
from netbpf.packet.open import open_capture
from netbpf.packet.record import Record
from netbpf.report.protocols import CUT, ethernet_label, labels

PCAPS = Path(__file__).parents[2] / "pcaps"


@pytest.mark.parametrize(
    ("packet", "label"),
    [
        (Ether() / IP() / TCP(), "IPv4 TCP"),
        (Ether() / IP() / ICMP(), "IPv4 ICMP"),
        (Ether() / IP(proto=253), "IPv4 protocol 253"),
        (Ether() / IPv6() / UDP(), "IPv6 UDP"),
        (Ether() / IPv6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment() / TCP(), "IPv6 TCP"),
        (Ether() / Dot1Q(vlan=5) / IP() / UDP(), "IPv4 UDP"),
        (Ether() / Dot1AD(vlan=5) / Dot1Q(vlan=6) / IPv6() / TCP(), "IPv6 TCP"),
        (Ether() / ARP(), "ARP"),
        (Ether(type=0x88CC), "LLDP"),
        (Ether(type=0x9999), "EtherType 0x9999"),
        (Dot3() / LLC(), "LLC"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_frame_by_what_it_carries(packet: Packet, label: str) -> None:
    assert ethernet_label(bytes(packet)) == label


def test_no_cut_of_a_frame_is_an_error() -> None:
    whole = bytes(Ether() / Dot1Q() / IPv6() / IPv6ExtHdrHopByHop() / UDP())
    for size in range(len(whole)):
        assert ethernet_label(whole[:size])
    assert ethernet_label(whole[:13]) == CUT


@pytest.mark.parametrize("name", sorted(p.name for p in PCAPS.glob("*.pcap*") if "damaged" not in p.name))
def test_every_link_type_has_labels(name: str) -> None:
    with open_capture(PCAPS / name) as reader:
        for batch in reader.batches():
            assert len(labels(batch)) == len(batch)


def test_a_cooked_capture_tells_the_same_as_its_frames() -> None:
    found: Counter[str] = Counter()
    with open_capture(PCAPS / "cooked.pcap") as reader:
        for batch in reader.batches():
            found.update(labels(batch))
    assert set(found) & {"IPv4 TCP", "IPv4 UDP", "ARP"}


def test_a_frame_that_reaches_no_socket_is_called_so() -> None:
    batch = PacketBatch.from_records([Record(1, 0, 20, b"\xf0" * 20, linktype=101)])
    assert labels(batch) == ["reaches no socket"]
