"""Cases run and checked: each kind of expectation holds where it should, and fails where it should not, at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from netbpf.errors import SourceError
from netbpf.scenario.read import read_text
from netbpf.scenario.show import format_result
from netbpf.scenario.suite import BROKEN, FAILED, PASSED, SKIPPED, Result, items_of, run_item

COUNT = '''netbpf = 1
[program]
asm = """
.map seen hash key=4 value=8 entries=8
    r6 = r1
    r0 = *(u8 *)skb[23]
    *(u32 *)(r10 - 4) = r0
    *(u64 *)(r10 - 16) = 1
    r2 = r10
    r2 += -4
    r1 = map[seen]
    call bpf_map_lookup_elem
    if r0 == 0 goto new
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    r0 = 20
    exit
new:
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -16
    r1 = map[seen]
    r4 = 0
    call bpf_map_update_elem
    r0 = 0
    exit
"""
'''
UDP = "020000000001 020000000002 0800 45 00 001c 0001 0000 40 11 0000 0a000002 0a000001 0035 0035 0008 0000"


def result(text: str, tmp_path: Path | None = None, engine: str = "interp") -> Result:
    path = str(tmp_path / "f.scenario.toml") if tmp_path else "f.scenario.toml"
    (item,) = items_of(read_text(text, path), "sim", engine)
    return run_item(item)


def line_of(text: str, piece: str) -> int:
    return text[: text.index(piece)].count("\n") + 1


PACKETS = f"[[packet]]\nhex = '{UDP}'\nrepeat = 3\n"
TRUE = [
    "expect = ['drop', 20, 20]",
    "expect = { drop = 1, trim = 2 }",
    "[expect.maps.seen]\nentries = { 17 = 3 }",
    "[expect.maps.seen]\nentries = { 'be32 0x11000000' = '...' }".replace("'...'", "3"),
    "[expect.maps.seen]\ncount = 1",
    "[expect.maps.seen]\nmatch = 'subset'\nentries = {}",
    "[expect]\nprocessed = { min = 20, max = 30 }",
    "[maps.seen]\nvalue = 'u32 low, u32 high'\n[expect.maps.seen]\nentries = { 17 = { low = 3, high = 0 } }",
    "[maps.seen]\nkey = 'u8 proto, pad 3'\nvalue = '<Q'\n[[expect.maps.seen.entries]]\nkey = { proto = 17 }\nvalue = 3",
]
FALSE = [
    ("expect = 'drop'", "'drop'", "expected: drop", "20 of 42 bytes kept (and 1 more)"),
    ("expect = ['drop', 'accept', 20]", "'accept'", "expected: accept", "20 of 42 bytes kept"),
    ("expect = ['drop', 20]", "['drop', 20]", "2 verdicts", "3 packets"),
    ("expect = { drop = 3 }", "{ drop = 3 }", "{ drop = 3 }", "{ drop = 1, trim = 2 }"),
    ("expect = 'unseen'", "'unseen'", "unseen", "drop"),
    ("[expect.maps.seen]\nentries = { 17 = 4 }", "4 }", "17: 4", "17: 3"),
    ("[expect.maps.seen]\nentries = { 6 = 1 }", "1 }", "6: 1", "6: not there"),
    ("[expect.maps.seen]\nentries = {}", "{}", "17: not there", "17: 3"),
    ("[expect.maps.seen]\ncount = 2", "2", "2", "1"),
    ("[expect]\nprocessed = 5", "5", "5", "2"),
]


@pytest.mark.parametrize("engine", ["interp", "native"])
@pytest.mark.parametrize("said", TRUE)
def test_what_is_true(said: str, engine: str) -> None:
    found = result(COUNT + PACKETS + said + "\n", engine=engine)
    assert found.status == PASSED, format_result(found)


@pytest.mark.parametrize(("said", "at", "expected", "got"), FALSE, ids=range(len(FALSE)))
def test_what_is_false_is_told_at_its_line(said: str, at: str, expected: str, got: str) -> None:
    text = COUNT + PACKETS + said + "\n"
    found = result(text)
    assert found.status == FAILED
    told = format_result(found)
    start = len(COUNT + PACKETS)
    line = text[: text.index(at, start)].count("\n") + 1
    assert told.startswith(f"f.scenario.toml:{line}: "), told
    assert expected in told
    assert got in told


def test_a_wrong_verdict_shows_packet_and_path() -> None:
    told = format_result(result(COUNT + PACKETS + "expect = ['drop', 'accept', 20]\n"))
    assert "IPv4 10.0.0.2 > 10.0.0.1 UDP 53 > 53" in told
    assert "02 00 00 00 00 01" in told
    assert "seen[17]: 1 -> 2" in told, told  # the second packet's path, with the map as it was then
    assert all(len(line) <= 80 for line in told.splitlines())


MISTAKES = [
    ("[maps.sene]\nkey = 'u32'\n", "no map 'sene'; did you mean 'seen'?", "sene"),
    ("[maps.seen]\nkey = 'u64'\n", "this is 8 bytes, the map's keys have 4", "'u64'"),
    ("[maps.seen]\nentries = { x = 1 }\n", "is no KEY".replace("is no KEY", "seen:"), "x"),
    ("[expect.maps.seen]\nentries = { 17 = 'x' }\n", "seen:", "'x'"),
    ("[expect.maps.seen]\nentries = { 17 = 3, 0x11 = 3 }\n", "said twice", "0x11"),
    ("[expect.maps.seen]\nentries = { 17 = { a = 1 } }\n", "say key and value", "{ a = 1 }"),
    ("[expect.ring.seen]\ncount = 1\n", "no map that expect.ring reads", "seen"),
]


@pytest.mark.parametrize(("said", "message", "at"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_about_maps_are_told_at_their_line(said: str, message: str, at: str) -> None:
    text = COUNT + PACKETS + said
    found = result(text)
    assert found.status == BROKEN
    assert message in found.reason
    line = text[: text.rindex(at)].count("\n") + 1
    assert f"f.scenario.toml:{line}:" in found.reason, found.reason


def test_an_error_in_a_program_points_into_the_scenario() -> None:
    text = 'netbpf = 1\n[program]\nasm = """\n    r0 = 0\n    exti\n"""\n'
    found = result(text)
    assert "f.scenario.toml:5:5:" in found.reason
    text = "netbpf = 1\n[program]\nexpr = 'tcp prot 4'\n"
    assert "f.scenario.toml:3:8: " in result(text).reason


def test_a_refusal_nobody_expected() -> None:
    text = 'netbpf = 1\n[program]\nasm = "exit"\n'
    found = result(text)
    assert found.status == FAILED
    assert "EACCES: R0 !read_ok" in format_result(found)


def test_a_refusal_that_does_not_come() -> None:
    found = result("netbpf = 1\n[program]\nexpr = 'tcp'\n[expect.reject]\nerrno = 'EACCES'\n")
    assert found.status == FAILED
    assert "f.scenario.toml:4: the rejection" in format_result(found)
    assert "the program loads" in format_result(found)


def test_the_clock_is_stepped(tmp_path: Path) -> None:
    text = f'''netbpf = 1
[program]
asm = """
.map when array key=4 value=8 entries=1
    *(u32 *)(r10 - 4) = 0
    call bpf_ktime_get_ns
    *(u64 *)(r10 - 16) = r0
    r1 = map[when]
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -16
    r4 = 0
    call bpf_map_update_elem
    r0 = 0
    exit
"""
[machine]
time = "1h"
[[packet]]
hex = '{UDP}'
expect.maps.when.entries = {{ 0 = 3600000000000 }}
[[packet]]
after = "1.5s"
[[packet]]
hex = '{UDP}'
after = "20ms"
expect.maps.when.entries = {{ 0 = 3601520000000 }}
[[packet]]
hex = '{UDP}'
at = "2s"
expect.maps.when.entries = {{ 0 = 3602000000000 }}
[[packet]]
capture = "{Path(__file__).parents[2] / "pcaps" / "many-sources.pcap"}"
range = "1-11"
timed = true
expect.maps.when.entries = {{ 0 = 3602010000000 }}
'''
    for engine in ("interp", "native"):
        found = result(text, engine=engine)
        assert found.status == PASSED, format_result(found)


def test_a_cut_packet_and_a_packet_without_link_header() -> None:
    text = f'''netbpf = 1
[program]
asm = """
    r6 = r1
    r7 = *(u32 *)(r6 + 0)
    r0 = *(u8 *)skb[0]
    r0 = r7
    exit
"""
[[packet]]
hex = '{UDP}'
wirelen = 1000
expect = 'accept'
[[packet]]
scapy = 'IP()/UDP()'
expect = 'accept'
'''
    (item,) = items_of(read_text(text, "f"), "sim", "interp")
    assert run_item(item).status == PASSED
    (item,) = items_of(read_text(text, "f"), "kernel", "interp")
    skipped = run_item(item)
    assert skipped.status == SKIPPED
    assert "cut packet" in skipped.reason


def test_files_that_are_not_there(tmp_path: Path) -> None:
    text = "netbpf = 1\n[program]\nfile = 'nothing.s'\n"
    assert "there is no file" in result(text, tmp_path).reason
    text = "netbpf = 1\n[program]\nexpr = 'tcp'\n[[packet]]\ncapture = 'nothing.pcap'\n"
    assert ":5:11: there is no file" in result(text, tmp_path).reason


def test_a_choice_of_nothing() -> None:
    capture = Path(__file__).parents[2] / "pcaps" / "vlan.pcap"
    text = f"netbpf = 1\n[program]\nexpr = 'tcp'\n[[packet]]\ncapture = '{capture}'\nrange = '9999'\n"
    assert "no packet of this capture is chosen" in result(text).reason
    text = text.replace("range = '9999'", "filter = 'prot 5'")
    assert ":6:10:" in result(text).reason


def test_reading_twice_gives_the_same_error() -> None:
    for _ in range(2):
        with pytest.raises(SourceError):
            read_text("netbpf = 1", "f")
