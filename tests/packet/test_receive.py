"""The sk_buff of a packet, case by case; test_receive_kernel.py asks the kernel about the Ethernet and TUN ones."""

from __future__ import annotations

import pytest
from support.dissect import count, untagged
from support.vectors import ROOT

from netbpf.abi.context import SK_BUFF_FIELDS
from netbpf.errors import UsageError
from netbpf.packet.context import FIELD_VALUES, WORD_VALUES, context_value
from netbpf.packet.device import Device
from netbpf.packet.load import load, skb_load_bytes, skb_load_bytes_relative
from netbpf.packet.open import open_capture
from netbpf.packet.receive import receive
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff

US, PEER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
IP, IP6, ARP, VLAN, VLAN_AD = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
HOST, BROADCAST, MULTICAST, OTHERHOST, OUTGOING = range(5)
NET, LL = -0x100000, -0x200000
BODY = bytes(range(0x40, 0x60))


def frame(kind: int, body: bytes = BODY, *, dst: bytes = US, tags: bytes = b"") -> bytes:
    return dst + PEER + tags + kind.to_bytes(2, "big") + body


def skb_of(data: bytes, linktype: int = 1, *, view: str = "packet_raw", wirelen: int = 0, **record: int) -> SkBuff:
    skb = receive(Record(1, 5, wirelen or len(data), data, linktype, **record), Device(mac=US), view)
    assert skb is not None
    return skb


@pytest.mark.parametrize(
    ("destination", "pkt_type"),
    [(US, HOST), (b"\xff" * 6, BROADCAST), (b"\x01\0\x5e\0\0\1", MULTICAST), (b"\x33\x33\0\0\0\1", MULTICAST), (PEER, OTHERHOST)],
)
def test_pkt_type_by_destination(destination: bytes, pkt_type: int) -> None:
    assert skb_of(frame(IP, dst=destination)).pkt_type == pkt_type
    assert skb_of(frame(IP, dst=destination), direction=2).pkt_type == OUTGOING
    assert skb_of(frame(IP, dst=destination), direction=1).pkt_type == pkt_type


def test_without_a_mac_of_ours_unicast_is_ours() -> None:
    skb = receive(Record(1, 0, 46, frame(IP, dst=PEER)))
    assert skb is not None
    assert skb.pkt_type == HOST


def test_a_plain_frame() -> None:
    skb = skb_of(frame(IP), interface=3)
    assert (skb.head, skb.len, skb.data_off) == (frame(IP), 46, 0)
    assert (skb.mac_header, skb.network_header, skb.transport_header) == (0, 14, 14)
    assert (skb.protocol, skb.vlan_present, skb.vlan_tci, skb.vlan_proto) == (IP, 0, 0, 0)
    assert (skb.ifindex, skb.ingress_ifindex, skb.queue_mapping, skb.hash, skb.tstamp) == (5, 5, 1, 0, 5)
    assert skb.dev_type == 1


def test_what_the_device_writes_beside_each_packet() -> None:
    device = Device(ifindex=7, queue_mapping=4, napi_id=300, hash=9, mark=8, priority=6)
    skb = receive(Record(1, 0, 46, frame(IP)), device)
    assert skb is not None
    assert (skb.ifindex, skb.queue_mapping, skb.napi_id, skb.hash, skb.mark, skb.priority) == (7, 4, 300, 9, 8, 6)


def test_the_socket_view_moves_the_outer_tag_and_the_file_view_does_not() -> None:
    tagged = frame(IP, tags=bytes.fromhex("8100a005"))
    skb = skb_of(tagged)
    assert (skb.head, skb.len, skb.protocol) == (frame(IP), 46, IP)
    assert (skb.vlan_present, skb.vlan_tci, skb.vlan_proto) == (1, 0xA005, VLAN)
    in_file = skb_of(tagged, view="file")
    assert (in_file.head, in_file.len, in_file.protocol) == (tagged, 50, VLAN)
    assert (in_file.vlan_present, in_file.vlan_tci, in_file.vlan_proto) == (0, 0, 0)


def test_of_two_tags_only_the_outer_moves() -> None:
    skb = skb_of(frame(IP, tags=bytes.fromhex("88a8000a81000014")))
    assert (skb.head, skb.protocol) == (frame(IP, tags=bytes.fromhex("81000014")), VLAN)
    assert (skb.vlan_tci, skb.vlan_proto) == (10, VLAN_AD)


def test_dgram_starts_at_the_network_header() -> None:
    skb = skb_of(frame(IP, tags=bytes.fromhex("81000005")), view="packet_dgram")
    assert (skb.data_off, skb.len, skb.head[skb.data_off :]) == (14, 32, BODY)
    assert load(skb, 0, 1) == 0x40
    assert load(skb, LL, 4) == 0x02000000
    assert load(skb, NET, 1) == 0x40


@pytest.mark.parametrize("size", range(14))
def test_no_socket_gets_a_runt(size: int) -> None:
    assert receive(Record(1, 0, size, frame(IP)[:size])) is None


@pytest.mark.parametrize("size", range(14, 20))
def test_no_socket_gets_a_frame_without_the_whole_tag(size: int) -> None:
    assert receive(Record(1, 0, size, frame(IP, tags=bytes.fromhex("81000005"))[:size])) is None


@pytest.mark.parametrize("caplen", range(50))
def test_a_cut_capture_knows_what_it_holds_and_no_more(caplen: int) -> None:
    whole = frame(IP, tags=bytes.fromhex("81000005"))
    skb = skb_of(whole[:caplen], wirelen=len(whole))
    tagged = caplen >= 14
    assert skb.len == (46 if tagged else 50)
    assert skb.head == (whole[:12] + whole[16:caplen] if tagged else whole[:caplen])
    assert skb.protocol == (IP if caplen >= 18 else 0)
    assert skb.vlan_tci == (5 if caplen >= 16 else 0)
    assert skb.vlan_present == tagged
    for offset in range(50):
        value = load(skb, offset, 1)
        assert value == (skb.head[offset] if offset < len(skb.head) else None)


def test_bytes_beyond_the_wire_length_are_believed() -> None:
    assert skb_of(frame(IP), wirelen=20).len == 46


@pytest.mark.parametrize(
    ("kind", "body", "protocol"),
    [
        (0x0600, BODY, 0x0600),
        (0x05FF, BODY, 4),
        (0x05FF, b"\xff\xff" + BODY, 1),
        (0, b"", 4),
        (3, b"\xff", 4),
        (0xFFFF, BODY, 0xFFFF),
    ],
)
def test_protocol_of_types_and_lengths(kind: int, body: bytes, protocol: int) -> None:
    assert skb_of(frame(kind, body)).protocol == protocol


@pytest.mark.parametrize("linktype", [12, 14, 101, 228, 229])
@pytest.mark.parametrize("view", ["packet_raw", "packet_dgram"])
def test_raw_ip_comes_as_from_a_tun_device(linktype: int, view: str) -> None:
    for first, protocol in ((0x45, IP), (0x60, IP6)):
        skb = skb_of(bytes([first]) + BODY, linktype, view=view)
        assert (skb.data_off, skb.network_header, skb.mac_header, skb.len) == (0, 0, 0, 33)
        assert (skb.protocol, skb.dev_type, skb.pkt_type) == (protocol, 0xFFFE, HOST)
    assert receive(Record(1, 0, 33, b"\x50" + BODY, linktype), view=view) is None
    assert receive(Record(1, 0, 0, b"", linktype), view=view) is None
    assert skb_of(b"", linktype, view=view, wirelen=60).protocol == 0


def sll(pkt_type: int, protocol: int, body: bytes, arphrd: int = 1) -> bytes:
    return b"".join(n.to_bytes(2, "big") for n in (pkt_type, arphrd, 6)) + PEER + b"\0\0" + protocol.to_bytes(2, "big") + body


def sll2(pkt_type: int, protocol: int, body: bytes, arphrd: int = 1) -> bytes:
    head = protocol.to_bytes(2, "big") + b"\0\0" + (77).to_bytes(4, "big") + arphrd.to_bytes(2, "big") + bytes([pkt_type, 6])
    return head + PEER + b"\0\0" + body


IP_GROUP = bytes.fromhex("450000200000000040110000 01020304 e1818203".replace(" ", "")) + bytes(12)
IP6_GROUP = bytes.fromhex("6000000000001140") + bytes(16) + bytes.fromhex("ff020000000000000000000012345678")


@pytest.mark.parametrize(("make", "linktype", "ifindex"), [(sll, 113, 2), (sll2, 276, 77)])
def test_cooked_captures_get_an_ethernet_header_again(make: object, linktype: int, ifindex: int) -> None:
    for pkt_type, protocol, body, destination in (
        (HOST, IP, BODY, US),
        (BROADCAST, ARP, BODY, b"\xff" * 6),
        (MULTICAST, IP, IP_GROUP, bytes.fromhex("01005e018203")),
        (MULTICAST, IP6, IP6_GROUP, bytes.fromhex("333312345678")),
        (MULTICAST, 0x88CC, BODY, bytes.fromhex("010000000000")),
        (OTHERHOST, IP, BODY, bytes(6)),
        (OUTGOING, IP, BODY, bytes(6)),
    ):
        skb = skb_of(make(pkt_type, protocol, body), linktype)  # type: ignore[operator]
        assert skb.head == destination + PEER + protocol.to_bytes(2, "big") + body
        assert (skb.len, skb.network_header, skb.protocol, skb.pkt_type) == (14 + len(body), 14, protocol, pkt_type)
        assert skb.ifindex == ifindex
        assert skb.ingress_ifindex == (0 if pkt_type == OUTGOING else ifindex)
        dgram = skb_of(make(pkt_type, protocol, body), linktype, view="packet_dgram")  # type: ignore[operator]
        assert (dgram.head[dgram.data_off :], dgram.len) == (body, len(body))


def test_cooked_tags_lengths_and_other_devices() -> None:
    tagged = skb_of(sll(HOST, VLAN, b"\0\5\x08\0" + BODY), 113)
    assert (tagged.protocol, tagged.vlan_present, tagged.vlan_tci, tagged.head[12:14]) == (IP, 1, 5, b"\x08\0")
    llc = skb_of(sll(MULTICAST, 4, BODY), 113)
    assert (llc.protocol, llc.head[12:14]) == (4, len(BODY).to_bytes(2, "big"))
    lo = skb_of(sll(HOST, IP, BODY, 772), 113)
    assert (lo.dev_type, lo.head[:6]) == (772, bytes(6))
    ppp = skb_of(sll(HOST, IP, BODY, 512), 113)
    assert (ppp.head, ppp.network_header, ppp.dev_type, ppp.protocol) == (BODY, 0, 512, IP)
    assert receive(Record(1, 0, 10, bytes(10), 113)) is None
    cut = skb_of(sll(HOST, IP, BODY)[:10], 113, wirelen=48)
    assert (cut.head, cut.len, cut.protocol) == (b"", 32, 0)


@pytest.mark.parametrize(
    ("linktype", "family", "protocol"),
    [
        (0, "02000000", IP),
        (0, "00000002", IP),
        (0, "1e000000", IP6),
        (0, "0000001c", IP6),
        (108, "00000002", IP),
        (108, "00000018", IP6),
    ],
)
def test_bsd_loopback_comes_as_from_lo(linktype: int, family: str, protocol: int) -> None:
    skb = skb_of(bytes.fromhex(family) + BODY, linktype)
    assert skb.head == bytes(12) + protocol.to_bytes(2, "big") + BODY
    assert (skb.protocol, skb.dev_type, skb.len, skb.network_header) == (protocol, 772, 46, 14)


def test_bsd_loopback_of_another_family() -> None:
    assert receive(Record(1, 0, 36, bytes.fromhex("07000000") + BODY, 0)) is None
    assert receive(Record(1, 0, 36, bytes.fromhex("02000000") + BODY, 108)) is None
    assert receive(Record(1, 0, 3, bytes(3), 0)) is None


def test_link_types_without_a_rule() -> None:
    skb = skb_of(BODY, 127)
    assert (skb.head, skb.protocol, skb.network_header, skb.data_off) == (BODY, 0, 0, 0)
    assert skb_of(BODY, 127, view="file").head == BODY
    with pytest.raises(UsageError, match=r"127 \(IEEE802_11_RADIO\).*view 'packet_raw'"):
        skb_of(BODY, 127, view="packet_dgram")
    with pytest.raises(UsageError, match="packet_raw, packet_dgram, file, not 'udp'"):
        skb_of(BODY, view="udp")


@pytest.mark.parametrize(("linktype", "network"), [(1, 14), (0, 4), (108, 4), (113, 16), (276, 20), (101, 0), (127, 0)])
def test_network_header_in_a_file(linktype: int, network: int) -> None:
    assert skb_of(BODY, linktype, view="file").network_header == network


@pytest.mark.parametrize("offset", [2**32 + 3, 3 - 2**32, 3])
def test_only_the_low_32_bits_of_an_offset_count(offset: int) -> None:
    assert load(skb_of(frame(IP)), offset, 1) == 0


def test_loads_are_in_network_order() -> None:
    skb = skb_of(frame(IP))
    assert (load(skb, 12, 2), load(skb, 14, 4), load(skb, 45, 1)) == (IP, 0x40414243, 0x5F)
    assert (load(skb, 43, 4), load(skb, 46, 1), load(skb, 0x7FFFFFFF, 4), load(skb, -1, 1)) == (None,) * 4


def test_skb_load_bytes() -> None:
    skb = skb_of(frame(IP), view="packet_dgram")
    assert (skb_load_bytes(skb, 30, 2), skb_load_bytes(skb, 31, 2)) == (b"\x5e\x5f", None)
    assert skb_load_bytes(skb, 0xFFFFFFF2, 2) is None, "offsets are unsigned: none reach below skb->data"
    assert skb_load_bytes_relative(skb, 0, 6, 0) == US
    assert skb_load_bytes_relative(skb, 30, 2, 1) == b"\x5e\x5f"
    assert skb_load_bytes_relative(skb, 0, 1, 2) is None
    long = skb_of(frame(IP, bytes(70000)))
    assert skb_load_bytes(long, 0x10000, 1) == b"\0"
    assert skb_load_bytes_relative(long, 0xFFFF, 1, 0) == b"\0"
    assert skb_load_bytes_relative(long, 0x10000, 1, 0) is None


def test_every_number_of_the_context_has_a_value() -> None:
    pointers = {"data", "data_end", "data_meta", "flow_keys", "sk"}
    assert {f.name for f in SK_BUFF_FIELDS} - pointers == set(FIELD_VALUES) | set(WORD_VALUES)
    skb = SkBuff(
        head=b"",
        len=0,
        protocol=IP,
        vlan_proto=VLAN_AD,
        remote_ip4=0x01020304,
        remote_port=443,
        local_port=443,
        local_ip6=(0x01020304, 0, 0, 5),
        cb=bytearray(range(20)),
    )
    values = [context_value(skb, n) for n in ("protocol", "vlan_proto", "remote_ip4", "remote_port", "local_port")]
    assert values == [0x0008, 0xA888, 0x04030201, 0xBB01, 443]
    assert (context_value(skb, "local_ip6", 0), context_value(skb, "local_ip6", 3)) == (0x04030201, 0x05000000)
    assert context_value(skb, "cb", 4) == 0x13121110
    with pytest.raises(KeyError):
        context_value(skb, "data")


@pytest.mark.parametrize(
    "name", ["session", "vlan", "qinq", "ipv6-extensions", "fragments", "arp-icmp", "runts", "jumbo", "llc", "cut"]
)
def test_byte_23_of_every_packet_as_scapy_counts_it(name: str) -> None:
    path = ROOT / "pcaps" / f"{name}.pcap"
    expected, undelivered, values = count(path), 0, []
    with open_capture(path) as reader:
        for record in reader:
            skb = receive(record)
            undelivered += skb is None
            if skb is not None:
                assert skb.head == untagged(record.data)
                values.append(load(skb, 23, 1))
    assert undelivered == expected.undelivered
    assert {v: values.count(v) for v in set(values) - {None}} == expected.byte23
