"""The dissector: never raises, names every byte once, and says what scapy says of the shipped captures."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, TCP, UDP
from support.dissect import IP, IPv6, first_layer
from support.vectors import ROOT

from netbpf.explain.fields import Dissection, dissect
from netbpf.packet.open import open_capture
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff

CAPTURES = sorted(p for p in (ROOT / "pcaps").iterdir() if ".pcap" in p.name and not p.name.startswith("damaged"))
HEADERS = {IP: "IPv4", IPv6: "IPv6", TCP: "TCP", UDP: "UDP", ICMP: "ICMP"}
SAME_NAMES = {
    IP: "tos len id ttl proto chksum src dst",
    IPv6: "plen nh hlim src dst",
    TCP: "sport dport seq ack window chksum urgptr",
    UDP: "sport dport len chksum",
    ICMP: "type code",
}
NUMBERS = st.integers(0, 255).map(lambda n: n.to_bytes())
LIKELY = st.lists(
    st.one_of(
        st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x81\x00", b"\x88\xa8", b"\x08\x06", b"\x45", b"\x60", b"\x06", b"\x11"]),
        NUMBERS,
        st.binary(max_size=12),
    ),
    max_size=40,
).map(b"".join)


def packets(capture: Path, view: str) -> list[tuple[Record, SkBuff]]:
    with open_capture(str(capture)) as reader:
        found = [(record, receive(record, view=view)) for record in reader]
    return [(record, skb) for record, skb in found if skb is not None]


def check(d: Dissection, size: int) -> None:
    """What must hold of any packet."""
    at = 0
    for field in d.fields:
        assert field.off >= at, "fields overlap"
        assert field.size > 0
        at = field.end
        d.value(field)
    for off in range(-2, size + 3):
        for length in (1, 2, 4, 8):
            assert d.name(off, length)
    assert d.summary()


@given(
    head=st.one_of(st.binary(max_size=120), LIKELY),
    network=st.sampled_from([0, 4, 14, 16, 20]),
    linktype=st.integers(0, 300),
    protocol=st.sampled_from([0, 0x0800, 0x86DD, 0x8100, 0x0806, 4]),
    data_off=st.sampled_from([0, 14]),
    extra=st.integers(-20, 20),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_have_names(head: bytes, network: int, linktype: int, protocol: int, data_off: int, extra: int) -> None:
    skb = SkBuff(head, max(len(head) - data_off + extra, 0), data_off, 0, network, protocol=protocol)
    check(dissect(skb, linktype), len(head))


@pytest.mark.parametrize("view", ["packet_raw", "packet_dgram", "file"])
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda p: p.name)
def test_shipped_captures_have_names(capture: Path, view: str) -> None:
    try:
        found = packets(capture, view)
    except Exception as e:
        pytest.skip(str(e))
    for record, skb in found[:40]:
        check(dissect(skb, record.linktype), min(len(skb.head), 200))


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda p: p.name)
def test_values_are_those_of_scapy(capture: Path) -> None:
    if capture.name.startswith(("modified", "runts")):
        pytest.skip("scapy does not read these")
    compared = 0
    for record, skb in packets(capture, "file")[:60]:
        d = dissect(skb, record.linktype)
        told = {f.label: d.value(f) for f in reversed(d.fields)}  # of two layers of a name, the outer one
        theirs = first_layer(record.data, record.linktype)
        for kind, layer in HEADERS.items():
            if not theirs.haslayer(kind) or theirs.getlayer(kind, 2) or f"{layer}.{SAME_NAMES[kind].split()[0]}" not in told:
                continue
            for name in SAME_NAMES[kind].split():
                mine, want = told[f"{layer}.{name}"], getattr(theirs[kind], name)
                if mine:
                    assert want == (mine if isinstance(want, str) else int(mine, 0)), name
                    compared += 1
    if any(skb.protocol in (0x0800, 0x86DD) for _, skb in packets(capture, "packet_raw")[:60]):
        assert compared


def test_names_of_parts_and_spans() -> None:
    header = b"\x45\x00\x00\x28" + bytes(5) + b"\x06" + bytes(10)
    frame = bytes(12) + b"\x08\x00" + header + bytes(12) + b"\x50\x12" + bytes(6) + b"hello"
    d = dissect(SkBuff(frame, len(frame)))
    assert [d.name(*at) for at in ((23, 1), (12, 2), (26, 4), (28, 2), (34, 4), (12, 4), (54, 2), (300, 1))] == [
        "IPv4.proto", "Ethernet.type", "IPv4.src", "IPv4.src[2:4]", "TCP.sport..dport", "Ethernet.type..IPv4.tos",
        "TCP payload[0:2]", "byte 300",
    ]  # fmt: skip
    flags = next(f for f in d.fields if f.label == "TCP.flags")
    assert d.value(flags) == "0x12 SYN+ACK"


def test_a_tag_beside_the_packet_is_not_in_it_and_one_in_line_is() -> None:
    capture = ROOT / "pcaps" / "vlan.pcap"
    beside = [dissect(skb) for _, skb in packets(capture, "packet_raw")]
    in_line = [dissect(skb, r.linktype) for r, skb in packets(capture, "file")]
    assert any("VLAN" in [layer.name for layer in d.layers] for d in in_line)
    assert not any("VLAN" in [layer.name for layer in d.layers] for d in beside)
