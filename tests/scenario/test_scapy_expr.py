"""Packet expressions: what scapy builds comes out, and nothing else can be got in."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from netbpf.scenario.scapy_expr import ExpressionError, build

OURS = {"dst": "02:00:00:00:00:01", "src": "02:00:00:00:00:02"}


def test_a_packet_is_what_scapy_builds() -> None:
    tcp = TCP(dport=443, flags="SA", options=[("MSS", 1460)])
    wanted = Ether(**OURS) / IP(src="10.0.0.2", dst="10.0.0.1", ttl=3) / tcp / b"hi"
    built = build('Ether()/IP(ttl=3)/TCP(dport=443, flags="SA", options=[("MSS", 1460)])/"hi"')
    assert built.data == bytes(wanted)
    assert built.linktype == 1


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("Ether()/ARP()", 42),
        ("Ether()/Dot1Q(vlan=5)/Dot1Q(vlan=6)/IPv6()/UDP()", 70),
        ('Ether()/IP()/UDP()/Raw(b"x" * 10)', 52),
        ('Ether()/IP()/UDP()/("x" * 10)', 52),
        ('Ether()/IP()/UDP()/DNS(qd=[DNSQR(qname="x.org")])', 65),
        ("Ether()/IPv6()/IPv6ExtHdrHopByHop(options=[PadN(optdata=b'aa')])/TCP()", 82),
        ("Ether()/(IP()/GRE()/IP())", 58),
        ("IP()/ICMP()", 28),
        ("Ether()/IP(options=[IPOption_RR()])", 38),
        ("  Ether()\n  / IP()", 34),
    ],
)
def test_packets_of_many_kinds(text: str, length: int) -> None:
    assert len(build(text).data) == length


ESCAPES = [
    '__import__("os").system("id")',
    'open("/etc/passwd")',
    "Ether().show()",
    "Ether().__class__",
    "Ether()[0]",
    "Ether",
    "(lambda: Ether())()",
    "[x for x in ()]",
    'f"{1}"',
    "eval('1')",
    "Ether() if 1 else IP()",
    "Ether()/IP()/exec('1')",
    "Packet()",
    "NoPayload()",
    "fuzz(IP())",
    "RandIP()",
    "Ether(_pkt=b'x')",
    "Ether(post_transform=1)",
    "Ether(**{'dst': 1})",
    "Ether(*[])",
    "Ether(b'raw bytes to dissect')",
    "Ether(dst=Ether.dst)",
    "Ether()/IP(dst=open('x'))",
    "Ether() and IP()",
    "(x := Ether())",
    "Ether()/IP()@1",
    "scapy.all.sr1()",
    "sr1(IP())",
    "Ether()**2",
    "conf()",
    "Ether()/(IP()*3)",
    "1",
    "'text'",
    "",
    "Ether(",
    "\x00",
    "(" * 3000,
]


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_but_layers_and_literals(text: str) -> None:
    with pytest.raises(ExpressionError):
        build(text)


@pytest.mark.parametrize(
    "text",
    [
        'Ether()/IP(dst="www.example.com")',
        'Ether()/IP(dst=b"localhost")',
        'Ether()/IP(src="10.0.0.0/24")',
        'Ether()/IPv6(dst="localhost")',
        'Ether()/ARP(psrc="localhost")',
        'Ether()/IP(options=[IPOption_LSRR(routers=["localhost"])])',
        'Ether()/IP()/UDP()/BOOTP(siaddr="localhost")',
        'Ether(dst="localhost")',
    ],
)
def test_no_name_is_looked_up(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a name was looked up")

    for name in ("getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    with pytest.raises(ExpressionError, match="is no "):
        build(text)


def test_this_machines_routes_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import scapy.config

    class Refusing:
        def __getattr__(self, name: str) -> None:
            raise AssertionError("a route was looked up")

    monkeypatch.setattr(scapy.config.conf, "route", Refusing())
    monkeypatch.setattr(scapy.config.conf, "route6", Refusing())
    for text in ("Ether()/IP(id=77)/TCP()", "Ether()/IPv6(hlim=7)/UDP()", "Ether()/ARP(op=2)", "Ether()/IP(src=None, id=78)"):
        assert build(text).data[:6] == bytes.fromhex("020000000001")


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("Ethr()/IP()", "no layer 'Ethr'; did you mean 'Ether'", "Ethr"),
        ("Ether()/TCP(dprt=1)", "no field 'dprt'; did you mean 'dport'", "dprt=1"),
        ("Ether()/IP(ttl=[1, 2])", "takes one value", "[1, 2]"),
        ("Ether()/Raw(b'x' * 1000000)", "at most", "b'x' * 1000000"),
    ],
)
def test_errors_have_their_place(text: str, message: str, at: str) -> None:
    with pytest.raises(ExpressionError, match=message) as caught:
        build(text)
    assert text[caught.value.start : caught.value.end] == at


@settings(max_examples=120, deadline=None)
@given(st.text(alphabet="EtherIPTCUDdprsx()/*=[],.'\"0123456789 -_{}:", max_size=40))
def test_any_text_is_a_packet_or_refused(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        assert build(text).data
