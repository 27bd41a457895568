"""Reading scenarios: what is wrong is told with its line, a caret and the nearest known word."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf.errors import SourceError
from netbpf.scenario.model import Case
from netbpf.scenario.read import read_text

HEAD = "netbpf = 1\n[program]\nexpr = 'tcp'\n"
PACKET = "[[packet]]\nhex = '00'\n"


def cases(text: str) -> list[Case]:
    return read_text(text, "f.scenario.toml")


WRONG = [
    ("title = 'x'\n", "begins with the version", "title"),
    ("netbpf = 2\n", "reads schema 1, not 2", "2"),
    ("netbpf = true\n", "reads schema 1", "true"),
    ("netbpf = 1\n", "has a [program]", "n"),
    ("netbpf = 1\n[program]\n", "here is none", "[program]"),
    ("netbpf = 1\n[program]\nexpr = 'tcp'\nasm = 'exit'\n", "here are several", "[program]"),
    ("netbpf = 1\n[program]\nfiel = 'x'\n", "no key 'fiel'; did you mean 'file'?", "fiel"),
    ("netbpf = 1\n[program]\nexpr = 5\n", "expr is text", "5"),
    ("netbpf = 1\n[program]\nasm = 'exit'\nsymbol = 'x'\n", "are of clang objects", "[program]"),
    (HEAD + "[socket]\nkind = 'packet_row'\n", "not 'packet_row'; did you mean 'packet_raw'?", "'packet_row'"),
    (HEAD + "[socket]\nview = 'file'\nkind = 'packet_dgram'\n", "no kind and no protocol", "[socket]"),
    (HEAD + "[socket]\nprotocol = 'ipv7'\n", "did you mean 'ipv6'", "'ipv7'"),
    (HEAD + "[socket]\nkind = 'udp'\n", "has a port", "[socket]"),
    (HEAD + "[socket]\nport = 5\n", "has a port", "[socket]"),
    (HEAD + "[socket]\nkind = 'raw'\nip_protocol = 1\nprotocol = 'ip'\n", "a raw socket has an ip_protocol", "protocol"),
    (HEAD + "[socket]\naddress = 'fd00::1'\n", "of UDP, TCP and raw sockets", "address"),
    (HEAD + "[socket]\nkind = 'udp'\nport = 5\naddress = 'host'\n", "is an IP address", "'host'"),
    (HEAD + "[socket]\nkind = 'udp'\nport = 5\n" + PACKET + "skb = { mark = 1 }\n", "at packet sockets only", "skb"),
    (HEAD + "[machine]\ncpus = 0\n", "cpus is 1 to 64, not 0", "0"),
    (HEAD + "[packets]\n", "no key 'packets'; did you mean 'packet'?", "packets"),
    (HEAD + "[packet]\nhex = '00'\n", "write [[packet]]", "[packet]"),
    (HEAD + "[[packet]]\nhex = 'xy'\n", "no hex digits", "'xy'"),
    (HEAD + "[[packet]]\nhex = ''\n", "at least one byte", "''"),
    (HEAD + "[[packet]]\nhex = '00'\nscapy = 'Ether()'\n", "given by one of", "scapy"),
    (HEAD + "[[packet]]\nhex = '00'\nrange = '1'\n", "of a capture", "range"),
    (HEAD + "[[packet]]\ncapture = 'x'\nrange = '0-3'\n", "no range of packet numbers", "'0-3'"),
    (HEAD + "[[packet]]\ncapture = 'x'\nrange = '5-3'\n", "no range", "'5-3'"),
    (HEAD + "[[packet]]\ncapture = 'x'\nwirelen = 3\n", "says itself how long", "wirelen"),
    (HEAD + PACKET + "expect = 'acept'\n", "did you mean 'accept'", "'acept'"),
    (HEAD + PACKET + "expect = -1\n", "number of bytes kept", "-1"),
    (HEAD + PACKET + "expect = true\n", "a verdict is", "true"),
    (HEAD + PACKET + "expect = { drop = 1, acept = 2 }\n", "no key", "drop"),
    (HEAD + PACKET + "after = 'soon'\n", "after is a time", "'soon'"),
    (HEAD + PACKET + "after = '1s'\nat = '2s'\n", "one of them", "[[packet]]"),
    (HEAD + "[[packet]]\nhex='00'\nat = '2s'\n[[packet]]\nhex='00'\nat = '1s'\n", "does not go back", "'1s'"),
    (HEAD + PACKET + "cpu = 1\n", "has 1 CPUs", "1"),
    (HEAD + PACKET + "repeat = 0\n", "repeat is 1 to", "0"),
    (HEAD + PACKET + "skb = { marc = 1 }\n", "no field 'marc'; did you mean 'mark'?", "marc"),
    (HEAD + PACKET + "skb = { data = 1 }\n", "is a pointer", "data"),
    (HEAD + PACKET + "skb = { mark = 4294967296 }\n", "mark is 0 to 4294967295", "4294967296"),
    (HEAD + PACKET + "skb = { pkt_type = 'hots' }\n", "did you mean 'host'", "'hots'"),
    (HEAD + PACKET + "skb = { cb = [1, 2, 3, 4, 5, 6] }\n", "up to 5", "[1, 2, 3, 4, 5, 6]"),
    (HEAD + PACKET + "skb = { remote_ip4 = 'x' }\n", "an IPv4 address", "'x'"),
    (HEAD + PACKET + "skb = { local_ip6 = '10.0.0.1' }\n", "an IPv6 address", "'10.0.0.1'"),
    (HEAD + "[socket]\nkind = 'tcp'\n", "a UDP or TCP socket has a port", "[socket]"),
    (HEAD + "[socket]\npeer = '10.0.0.9'\n", "peer and peer_port are of TCP sockets", "[socket]"),
    (HEAD + "[socket]\nkind = 'tcp'\nport = 1\npeer = 'fd00::9'\n", "or both IPv6", "'fd00::9'"),
    (HEAD + "[socket]\nkind = 'unix'\naddress = '10.0.0.1'\n", "of UDP, TCP and raw sockets", "address"),
    (HEAD + "[socket]\nkind = 'unix'\n[[packet]]\ncapture = 'x'\n", "no capture holds", "capture"),
    (HEAD + "[[packet]]\nexpect = 'drop'\n", "no packet to judge", "expect"),
    (HEAD + "[[packet]]\nrepeat = 2\n", "repeat is of a packet", "repeat"),
    (HEAD + "[maps.m]\nkey = 'u33'\n", "no layout; did you mean 'u32'?", "'u33'"),
    (HEAD + "[maps.m]\nentries = 5\n", "entries are a table", "5"),
    (HEAD + "[maps.m]\nentries = [{ key = 1 }]\n", "a key and a value", "{ key = 1 }"),
    (HEAD + "[expect.maps.m]\n", "say entries, or count", "[expect.maps.m]"),
    (HEAD + "[expect.maps.m]\ncount = 1\nmatch = 'some'\n", "match is one of exact, subset", "'some'"),
    (HEAD + "[expect.ring.m]\nrecords = 5\n", "records are a list", "5"),
    (HEAD + "[expect]\ntrace = [5]\n", "a line of trace output is text", "5"),
    (HEAD + "[expect.reject]\n", "say errno, or reason", "[expect.reject]"),
    (HEAD + "[expect.reject]\nerrno = 'EINVALID'\n", "did you mean 'EINVAL'", "'EINVALID'"),
    (HEAD + PACKET + "[expect.reject]\nerrno = 'EINVAL'\n", "sees no packet", "reject"),
    (HEAD + "[expect]\nprocessed = { max = 1, min = 3 }\n", "with min or without", "{ max = 1, min = 3 }"),
    (HEAD + "[expect]\nverdict = 'drop'\n", "no key 'verdict'", "verdict"),
    ("cases = []\n" + HEAD, "cases is a list of tables", "[]"),
    ("cases = [{ id = 'a b' }]\n" + HEAD, "without blanks", "'a b'"),
    ("cases = [{ id = 'a' }, { id = 'a' }]\n" + HEAD, "a second case of id 'a'", "{ id = 'a' }"),
    ("cases = [{ id = 'a', port = 1 }]\n" + HEAD, "nothing in this file uses ${port}", "port"),
    ("cases = [{ id = 'a' }]\nnetbpf = 1\n[program]\nexpr = 'port ${prt}'\n", "no case has a parameter 'prt'", "'port ${prt}'"),
    ("netbpf = 1\n[program]\nexpr = '${x}'\n", "this file has no cases", "'${x}'"),
]


@pytest.mark.parametrize(("text", "message", "at"), WRONG, ids=range(len(WRONG)))
def test_errors_have_their_place(text: str, message: str, at: str) -> None:
    with pytest.raises(SourceError) as caught:
        cases(text)
    e = caught.value
    assert message in e.message
    shown = text.split("\n")[e.line - 1]
    assert e.source_line == shown
    assert shown[e.column - 1 : e.column - 1 + e.width] == at
    assert str(e).startswith(f"f.scenario.toml:{e.line}:{e.column}: ")


def test_a_row_of_the_table_is_where_its_values_are() -> None:
    rows = "cases = [\n  { id = 'a', wanted = 'drop' },\n  { id = 'b', wanted = 'dorp' },\n]\n"
    text = rows + HEAD + PACKET + "expect = '${wanted}'\n"
    with pytest.raises(SourceError, match="did you mean 'drop'") as caught:
        cases(text)
    assert caught.value.line == 3


def test_parameters() -> None:
    text = (
        "cases = [{ port = 53, net = [1, 2] }, { id = 'b', port = 5353, net = [] }]\nnetbpf = 1\n[program]\n"
        "expr = 'udp port ${port}'\n[[packet]]\nhex = '00'\nname = 'to ${port} for $${5}'\nexpect = '${net}'\n"
    )
    a, b = cases(text.replace("net = [1, 2]", "net = 7").replace("net = []", "net = 'drop'"))
    assert (a.id, b.id) == ("port=53,net=7", "b")
    assert a.program.text == "udp port 53"
    assert b.steps[0].name == "to 5353 for ${5}"
    assert a.steps[0].expect.verdict is not None
    assert a.steps[0].expect.verdict.said == 7


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="netbpf=1[]{}.packetexhp'\"\n #rogamsd05,${}", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, HEAD + text):
        with contextlib.suppress(SourceError):
            cases(candidate)
