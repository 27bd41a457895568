"""netbpf.Filter on packets in memory, in every form that Python programs have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.libpcap import needs_libpcap, verdicts
from support.vectors import ROOT

import netbpf
from netbpf.errors import CaptureError, SourceError, UsageError
from netbpf.packet.open import open_capture
from netbpf.packet.record import Record
from netbpf.packet.skbuff import SkBuff

PCAPS = ROOT / "pcaps"
SESSION = PCAPS / "session.pcap"
TAGGED = bytes(12) + bytes.fromhex("8100000508004500") + bytes(60)

pytestmark = needs_libpcap


@pytest.mark.parametrize("name", ["session.pcap", "vlan.pcap", "cooked.pcap", "raw-ip.pcap", "null.pcap", "nanosecond.pcap"])
@pytest.mark.parametrize("text", ["tcp port 443", "ip", "udp or arp", "greater 80"])
def test_matches_is_what_libpcap_keeps(name: str, text: str) -> None:
    told = verdicts(PCAPS / name, [text])
    assert told is not None
    wanted = [v != 0 for v in told[text]]  # type: ignore[union-attr]
    asked = netbpf.Filter(text)
    matches = asked.matches(PCAPS / name)
    assert (matches.format, matches.tolist()) == ("?", wanted)
    with open_capture(str(PCAPS / name)) as reader:
        records = list(reader)
    assert [asked.match(record) for record in records] == wanted
    assert asked.matches(records).tolist() == asked.matches(str(PCAPS / name)).tolist() == wanted
    with open(PCAPS / name, "rb") as f:
        assert asked.matches(f).tolist() == wanted
    with open_capture(str(PCAPS / name)) as reader:
        assert sum(asked.matches(reader)) == sum(wanted)
        of_its_own = netbpf.Filter(text, linktype=reader.linktype)
    assert of_its_own.matches([r.data for r in records if r.caplen == r.wirelen]).tolist() == [
        w for r, w in zip(records, wanted, strict=True) if r.caplen == r.wirelen
    ]


def test_nothing_matches_nothing() -> None:
    assert netbpf.Filter("ip").matches([]).tolist() == []


def test_bytes_of_any_kind() -> None:
    vlan = netbpf.Filter("vlan 5")
    assert vlan.match(TAGGED)
    assert vlan.match(bytearray(TAGGED))
    assert vlan.match(memoryview(TAGGED))
    assert not vlan.match(b"")
    assert vlan.verdict(TAGGED) == 262144


def test_both_views() -> None:
    assert not netbpf.Filter("vlan 5", view="socket").match(TAGGED)
    assert netbpf.Filter("ip", view="socket").match(TAGGED)
    assert not netbpf.Filter("ip").match(TAGGED)
    assert not netbpf.Filter("less 100", view="socket").match(bytes(13))  # no socket gets it
    assert netbpf.Filter("less 100").match(bytes(13))


def test_packets_of_scapy() -> None:
    inet = pytest.importorskip("scapy.layers.inet")
    ether, inet6 = pytest.importorskip("scapy.layers.l2"), pytest.importorskip("scapy.layers.inet6")
    https = netbpf.Filter("tcp port 443")
    to = {port: inet.TCP(dport=port) for port in (80, 443)}
    for first in (ether.Ether() / inet.IP(), inet.IP(), inet6.IPv6(), ether.CookedLinux() / inet.IP()):
        assert https.match(first / to[443])
        assert not https.match(first / to[80])
    assert https.matches([ether.Ether() / inet.IP() / to[80], inet.IP() / to[443]]).tolist() == [False, True]
    with pytest.raises(UsageError, match="scapy's TCP is the first layer of no capture"):
        https.match(to[443])


def test_programs_of_every_form_and_their_maps(tmp_path: Path) -> None:
    counting = netbpf.Filter(ROOT / "scenarios" / "counting.s")
    assert sum(counting.matches(SESSION)) == 0
    assert counting.maps["counts"].lookup_user((17).to_bytes(4, "little")) == (198).to_bytes(8, "little")
    with open_capture(str(SESSION)) as reader:
        udp = next(record for record in reader if netbpf.Filter("udp").match(record))
    counting.match(udp)  # one packet on the interpreter, in the same map
    assert counting.maps["counts"].lookup_user((17).to_bytes(4, "little")) == (199).to_bytes(8, "little")
    assert netbpf.Filter("r0 = 1\nexit").match(bytes(14))
    assert not netbpf.Filter("r0 = 1\nexit").match(bytes(13))
    assert netbpf.Filter("1,6 0 0 1").match(bytes(14))
    assert netbpf.Filter(netbpf.load("ret #0")).match(bytes(14)) is False


def test_what_is_no_packet_and_no_program() -> None:
    asked = netbpf.Filter("ip")
    for packet in (5, None, "ip", SkBuff(b"", 0)):
        with pytest.raises(UsageError, match="bytes"):
            asked.match(packet)
    with pytest.raises(SourceError, match="syntax error"):
        netbpf.Filter("tcp prot 443")
    with pytest.raises(UsageError, match="a view is one of"):
        netbpf.Filter("ip", view="packet")
    with pytest.raises(CaptureError):
        asked.matches(PCAPS / "damaged.pcap")


def test_cut_packets_keep_their_length() -> None:
    assert netbpf.Filter("greater 1000").match(Record(1, 0, 1500, bytes(60)))


def test_it_needs_neither_llvmlite_nor_scapy() -> None:
    program = (
        "import sys; sys.modules['llvmlite'] = None; sys.modules['scapy'] = None\n"
        "import netbpf\n"
        f"print(sum(netbpf.Filter('tcp port 443').matches({str(SESSION)!r})), 'scapy.packet' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("322 False\n", "")
